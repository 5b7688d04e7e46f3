//! Whether a path matches a glob: text before the first wildcard is compared as text, the rest by an automaton that equal rests share.
//! A thousand nodes with `${dir}/*.json` need one automaton. Unaware of directories.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use globset::{GlobBuilder, GlobMatcher};

/// A compiled glob.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    glob: String,
    /// Ends in `/`, or is empty.
    before: String,
    rest: Arc<GlobMatcher>,
}

impl Matcher {
    /// Of a normalized glob in which literal text is escaped. `Err` is the message of the glob parser.
    pub(super) fn new(glob: String) -> Result<Self, String> {
        let (before, rest) = split(&glob);
        let rest = compiled(rest)?;
        Ok(Self { glob, before, rest })
    }

    pub(super) fn glob(&self) -> &str {
        &self.glob
    }

    /// The directories before the first wildcard, without escapes: empty, or with a slash at the end.
    pub(super) fn before(&self) -> &str {
        &self.before
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        path.strip_prefix(&*self.before)
            .is_some_and(|rest| (self.before.is_empty() || !rest.is_empty()) && self.rest.is_match(rest))
    }
}

/// The directories before the first wildcard, without escapes, and the glob after them.
fn split(glob: &str) -> (String, &str) {
    let (mut before, mut at, mut cut) = (String::new(), 0, (0, 0));
    loop {
        let mut chars = glob[at..].chars();
        let (literal, taken) = match (chars.next(), chars.next(), chars.next()) {
            // an escaped character stands alone between brackets
            (Some('['), Some(c), Some(']')) if c != '!' && c != '^' => (c, c.len_utf8() + 2),
            (None | Some('*' | '?' | '[' | ']' | '{' | '}' | '\\'), ..) => break,
            (Some(c), ..) => (c, c.len_utf8()),
        };
        before.push(literal);
        at += taken;
        if literal == '/' {
            cut = (before.len(), at);
        }
    }
    if glob[cut.1..].split('/').any(|part| part == "..") {
        cut = (0, 0);
    }
    before.truncate(cut.0);
    (before, &glob[cut.1..])
}

fn compiled(glob: &str) -> Result<Arc<GlobMatcher>, String> {
    static KNOWN: Mutex<Option<HashMap<String, Weak<GlobMatcher>>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(matcher) = known.get(glob).and_then(Weak::upgrade) {
        return Ok(matcher);
    }
    let matcher = GlobBuilder::new(glob)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|e| e.kind().to_string())?
        .compile_matcher();
    let matcher = Arc::new(matcher);
    if known.len().is_power_of_two() {
        known.retain(|_, matcher| matcher.strong_count() > 0);
    }
    known.insert(glob.to_owned(), Arc::downgrade(&matcher));
    Ok(matcher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_text_and_what_is_not() {
        for (glob, before, rest) in [
            ("a/b/*.json", "a/b/", "*.json"),
            ("/a/x[[]1[]]/{b,c}", "/a/x[1]/", "{b,c}"),
            ("a/**/b", "a/", "**/b"),
            ("*.txt", "", "*.txt"),
            ("a/[b]c/[!d]/e", "a/bc/", "[!d]/e"),
            ("a/b*/../c", "", "a/b*/../c"),
            (r"a/\*/b*", "a/", r"\*/b*"),
        ] {
            assert_eq!(split(glob), (before.to_owned(), rest), "{glob}");
        }
        let (one, other) = (Matcher::new("a/b*".into()).unwrap(), Matcher::new("c/d/b*".into()).unwrap());
        assert!(Arc::ptr_eq(&one.rest, &other.rest));
        assert!(Matcher::new("a/{b".into()).is_err());
    }

    proptest! {
        /// As the parser of the whole glob has it.
        #[test]
        fn as_the_whole_glob(glob in "(a|b|/a|\\*|\\?|/\\*\\*/|/|\\[\\[\\]|\\[ab\\]|\\{a,b/a\\}){1,6}", path in "[ab/\\[]{1,7}") {
            // as they come here: no slash at the end, none twice
            let single = |text: String| {
                let text = text.replace("//", "/").replace("//", "/").replace("//", "/");
                text.strip_suffix('/').map_or(text.clone(), str::to_owned)
            };
            let (glob, path) = (single(glob), single(path));
            let whole = GlobBuilder::new(&glob).literal_separator(true).backslash_escape(true).build();
            let (Ok(whole), Ok(ours)) = (whole, Matcher::new(glob.clone())) else { return Ok(()) };
            prop_assert_eq!(ours.matches(&path), whole.compile_matcher().is_match(&path), "{} {}", glob, path);
        }
    }
}
