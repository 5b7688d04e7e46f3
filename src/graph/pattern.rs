//! Path patterns: matching declared paths, walking directories, and whether two patterns can meet. Unaware of nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::matcher::Matcher;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Last component.
    pub name: String,
    /// A directory (links followed).
    pub dir: bool,
    /// A link.
    pub link: bool,
    /// A regular file or a directory, or a link to one: others match no pattern.
    pub there: bool,
}

/// What expansion may know of the file system.
pub trait Listing {
    /// Entries of a directory (relative to the root, or absolute), in any order; empty if there is none. The same each time.
    fn list(&self, dir: &str) -> Arc<[Entry]>;
    /// [`Self::list`] of many directories, in their order.
    fn list_all(&self, dirs: &[String]) -> Vec<Arc<[Entry]>> {
        dirs.iter().map(|dir| self.list(dir)).collect()
    }
    /// Whether a regular file is there.
    fn is_file(&self, path: &str) -> bool;
    /// Whether a directory is there.
    fn is_dir(&self, path: &str) -> bool;
    /// Whether an earlier run published the path for a step of one of this graph's files.
    fn published(&self, path: &str) -> bool;
    /// A variable of the environment in which flow runs.
    fn env(&self, name: &str) -> Option<String>;
    /// True for paths that never match: the cache, `.flow`, `.git`.
    fn hidden(&self, path: &str) -> bool;
}

/// An empty file system.
pub struct NoFiles;

impl Listing for NoFiles {
    fn list(&self, _dir: &str) -> Arc<[Entry]> {
        Arc::default()
    }
    fn is_file(&self, _path: &str) -> bool {
        false
    }
    fn is_dir(&self, _path: &str) -> bool {
        false
    }
    fn published(&self, _path: &str) -> bool {
        false
    }
    fn env(&self, _name: &str) -> Option<String> {
        None
    }
    fn hidden(&self, _path: &str) -> bool {
        false
    }
}

/// A path, or a pattern of paths.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As shown and as part of the key.
    pub text: String,
    /// The path, if it holds no wildcard.
    pub literal: Option<String>,
    /// Ends in `/`: directories only.
    pub dirs: bool,
    /// The directory before the first wildcard.
    fixed: String,
    tokens: Vec<Token>,
    matcher: Option<Matcher>,
}

/// A unit of a pattern, for [`can_meet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// One character but `/`.
    AnyOne,
    /// Any run without `/`.
    Star,
    /// Any run.
    Anything,
}

/// A piece of text from which a pattern is put together.
pub enum Piece<'a> {
    /// May hold wildcards.
    Wild(&'a str),
    /// Taken literally.
    Plain(&'a str),
    /// Unknown text (for [`Pattern::shape`]).
    Unknown,
}

impl Pattern {
    /// Puts a pattern together. `Err` is the message of the glob parser.
    pub fn new(pieces: &[Piece<'_>]) -> Result<Self, String> {
        let mut glob = String::new();
        let mut plain = String::new();
        let mut wild = false;
        for piece in pieces {
            match piece {
                Piece::Wild(text) => {
                    wild |= text.contains(['*', '?', '[', '{']);
                    glob.push_str(text);
                    plain.push_str(text);
                }
                Piece::Plain(text) => {
                    // a backslash by itself would escape what follows
                    let parts: Vec<String> = text.split('\\').map(globset::escape).collect();
                    glob.push_str(&parts.join("[\\]"));
                    plain.push_str(text);
                }
                Piece::Unknown => {
                    wild = true;
                    glob.push_str("**");
                    plain.push_str("**");
                }
            }
        }
        let dirs = plain.ends_with('/');
        if !wild {
            let path = normal(&plain);
            let tokens = path.chars().map(Token::Char).collect();
            let fixed = parent(&path).to_owned();
            return Ok(Self { text: plain, literal: Some(path), dirs, fixed, tokens, matcher: None });
        }
        let glob = normal(&glob);
        let tokens = tokens(&glob);
        let matcher = Matcher::new(glob)?;
        let fixed = match matcher.before() {
            "/" => "/",
            before => before.trim_end_matches('/'),
        };
        let fixed = fixed.to_owned();
        let matcher = Some(matcher);
        Ok(Self { text: plain, literal: None, dirs, fixed, tokens, matcher })
    }

    /// A pattern that covers every text the pieces could become; for [`Pattern::can_meet`] only.
    pub fn shape(pieces: &[Piece<'_>], dir: bool) -> Vec<u32> {
        let mut out = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Wild(text) | Piece::Plain(text) => out.extend(text.chars().map(|c| c as u32)),
                Piece::Unknown => out.push(ANYTHING),
            }
        }
        while out.last() == Some(&('/' as u32)) {
            out.pop();
        }
        if dir {
            out.push(BELOW);
        }
        out
    }

    /// Whether a path of the given [`shape`](Self::shape) could match.
    pub fn can_meet(&self, shape: &[u32]) -> bool {
        // a directory: itself, or what lies in it
        if let [path @ .., BELOW] = shape {
            return self.can_meet(path) || self.can_meet(&[path, &['/' as u32, ANYTHING]].concat());
        }
        let other: Vec<Token> = shape
            .iter()
            .map(|&c| {
                if c == ANYTHING {
                    Token::Anything
                } else {
                    Token::Char(char::from_u32(c).unwrap_or('\u{fffd}'))
                }
            })
            .collect();
        can_meet(&self.tokens, &other)
    }

    /// Whether `path` (normalized, no trailing slash) matches.
    pub fn matches(&self, path: &str) -> bool {
        match (&self.literal, &self.matcher) {
            (Some(literal), _) => literal == path,
            (None, Some(matcher)) => matcher.matches(path) && visible(&self.text, path),
            (None, None) => false,
        }
    }

    /// The directory before the first wildcard.
    pub fn fixed_dir(&self) -> &str {
        &self.fixed
    }

    /// Matching files (or directories) that lie on disk, sorted by code point.
    pub fn walk(&self, listing: &dyn Listing) -> Vec<String> {
        let mut found = BTreeSet::new();
        match &self.literal {
            Some(path) => {
                // a path that names a directory means it, with or without the slash
                if (!self.dirs && listing.is_file(path)) || listing.is_dir(path) {
                    found.insert(path.clone());
                }
            }
            None => self.walk_into(&self.fixed, listing, &mut found),
        }
        found.into_iter().collect()
    }

    /// Level by level, so that all directories of one can be read at the same time.
    fn walk_into(&self, dir: &str, listing: &dyn Listing, found: &mut BTreeSet<String>) {
        let mut level = vec![dir.to_owned()];
        for _ in 0..=64 {
            let mut next = Vec::new();
            for (dir, entries) in level.iter().zip(listing.list_all(&level)) {
                for entry in entries.iter() {
                    let path = join(dir, &entry.name);
                    if !entry.there || listing.hidden(&path) {
                        continue;
                    }
                    // `**` does not follow links: they may lead back
                    let inside =
                        entry.dir && !(entry.link && self.anything_at(&path)) && self.meets_below(&path);
                    let matches = entry.dir == self.dirs && self.matches(&path);
                    match (matches, inside) {
                        (true, true) => {
                            found.insert(path.clone());
                            next.push(path);
                        }
                        (true, false) => {
                            found.insert(path);
                        }
                        (false, true) => next.push(path),
                        (false, false) => {}
                    }
                }
            }
            if next.is_empty() {
                return;
            }
            level = next;
        }
    }

    /// Whether something below the directory `path` could match.
    fn meets_below(&self, path: &str) -> bool {
        // nearly always text decides, and then nothing has to be searched
        let mut tokens = self.tokens.iter();
        for c in path.chars().chain(['/']) {
            match tokens.next() {
                Some(Token::Char(own)) if *own == c => {}
                Some(Token::Char(_)) | None => return false,
                Some(Token::Anything) => return true,
                Some(Token::AnyOne | Token::Star) => {
                    let mut below: Vec<u32> = path.chars().map(|c| c as u32).collect();
                    below.extend(['/' as u32, ANYTHING]);
                    return self.can_meet(&below);
                }
            }
        }
        true
    }

    /// Equal for patterns that match the same, and only for those.
    pub fn identity(&self) -> String {
        let glob = self.matcher.as_ref().map_or("", Matcher::glob);
        format!("{}\0{glob}", self.text)
    }

    /// Whether the last component of `path` can only be met by `**`.
    fn anything_at(&self, path: &str) -> bool {
        let text = normal(&self.text);
        let first = text.split('/').position(|part| part.contains("**"));
        first.is_some_and(|first| path.split('/').count() > first)
    }

    /// The part of `path` after the fixed directory: `${matrix.AXIS.rel}`.
    pub fn rel<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.fixed.as_str()).map_or(path, |rest| rest.trim_start_matches('/'))
    }
}

const ANYTHING: u32 = u32::MAX;
/// The mark at the end of a directory's shape.
const BELOW: u32 = ANYTHING - 1;

/// Text form of a path: no `./`, no doubled or trailing slashes, `a/../b` is `b`.
pub fn normal(path: &str) -> String {
    crate::base::files::normalize(std::path::Path::new(path)).to_string_lossy().into_owned()
}

/// `dir/name`, where an empty `dir` is the root.
pub fn join(dir: &str, name: &str) -> String {
    match dir {
        "" => name.to_owned(),
        "/" => format!("/{name}"),
        _ => format!("{dir}/{name}"),
    }
}

/// All before the last slash; empty if there is none.
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(at) => &path[..at],
        None => "",
    }
}

/// Wildcards do not match a leading dot of a component, as in a shell.
fn visible(pattern: &str, path: &str) -> bool {
    let dots = path.starts_with('.') || path.contains("/.");
    !dots || !path.split('/').any(|part| part.starts_with('.') && part != ".." && !pattern.contains(part))
}

fn tokens(glob: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut chars = glob.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                while chars.peek() == Some(&'*') {
                    chars.next();
                }
                // `**/` also matches nothing at all
                if chars.peek() == Some(&'/') {
                    chars.next();
                }
                out.push(Token::Anything);
            }
            '*' => out.push(Token::Star),
            '?' => out.push(Token::AnyOne),
            // a class or a choice: covered by the widest thing it could be
            '[' => {
                let mut first = true;
                for c in chars.by_ref() {
                    if c == ']' && !first {
                        break;
                    }
                    first = first && (c == '!' || c == '^');
                }
                out.push(Token::AnyOne);
            }
            '{' => {
                let (mut depth, mut slash) = (1, false);
                while let Some(c) = chars.next() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        '/' => slash = true,
                        '*' if chars.peek() == Some(&'*') => slash = true,
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
                // of one component unless it says otherwise: a walk need not go deeper
                out.push(if slash { Token::Anything } else { Token::Star });
            }
            '\\' => out.extend(chars.next().map(Token::Char)),
            c => out.push(Token::Char(c)),
        }
    }
    out
}

/// Whether some text matches both token lists.
fn can_meet(a: &[Token], b: &[Token]) -> bool {
    // equal text at the front decides nothing
    let equal = a.iter().zip(b).take_while(|(x, y)| matches!(x, Token::Char(_)) && x == y).count();
    let (a, b) = (&a[equal..], &b[equal..]);
    match (a.first(), b.first()) {
        (Some(Token::Char(x)), Some(Token::Char(y))) if x != y => false,
        // one takes what the other begins with, that one what this ends with
        (Some(Token::Anything), _) if b.last() == Some(&Token::Anything) => true,
        _ => search(a, b),
    }
}

/// The same, by looking at all pairs of places.
fn search(a: &[Token], b: &[Token]) -> bool {
    let width = b.len() + 1;
    let mut seen = vec![false; (a.len() + 1) * width];
    let mut stack = vec![(0usize, 0usize)];
    while let Some((i, j)) = stack.pop() {
        if std::mem::replace(&mut seen[i * width + j], true) {
            continue;
        }
        if i == a.len() && j == b.len() {
            return true;
        }
        let run = |t: Option<&Token>| matches!(t, Some(Token::Star | Token::Anything));
        if run(a.get(i)) {
            stack.push((i + 1, j));
        }
        if run(b.get(j)) {
            stack.push((i, j + 1));
        }
        if let (Some(&x), Some(&y)) = (a.get(i), b.get(j))
            && share_a_char(x, y)
        {
            let next_i = if run(Some(&x)) { i } else { i + 1 };
            let next_j = if run(Some(&y)) { j } else { j + 1 };
            stack.push((next_i, next_j));
            if next_i == i && next_j == j {
                continue;
            }
        }
    }
    false
}

fn share_a_char(a: Token, b: Token) -> bool {
    match (a, b) {
        (Token::Char(x), Token::Char(y)) => x == y,
        (Token::Char('/'), Token::Star | Token::AnyOne) | (Token::Star | Token::AnyOne, Token::Char('/')) => {
            false
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The short cut changes no answer.
        #[test]
        fn what_lies_below(glob in "[ab/*?]{0,6}(\\*\\*/)?[ab*]{0,2}", path in "[ab/]{0,6}") {
            let Ok(pattern) = Pattern::new(&[Piece::Wild(&glob)]) else { return Ok(()) };
            let below: Vec<u32> = path.chars().map(|c| c as u32).chain(['/' as u32, ANYTHING]).collect();
            prop_assert_eq!(pattern.meets_below(&path), pattern.can_meet(&below));
        }

        /// The short cuts change no answer.
        #[test]
        fn meeting_is_as_searched(a in tokens_of_few(), b in tokens_of_few()) {
            prop_assert_eq!(can_meet(&a, &b), search(&a, &b));
        }
    }

    fn tokens_of_few() -> impl Strategy<Value = Vec<Token>> {
        let one = prop_oneof![
            3 => Just(Token::Char('a')),
            1 => Just(Token::Char('b')),
            1 => Just(Token::Char('/')),
            1 => Just(Token::AnyOne),
            1 => Just(Token::Star),
            1 => Just(Token::Anything),
        ];
        proptest::collection::vec(one, 0..7)
    }

    fn wild(text: &str) -> Pattern {
        Pattern::new(&[Piece::Wild(text)]).unwrap()
    }

    #[test]
    fn star_stays_in_its_component_and_hides_dot_files() {
        let p = wild("out/*.json");
        assert!(p.matches("out/a.json"));
        assert!(!p.matches("out/b/a.json"));
        assert!(!p.matches("out/.a.json"));
        assert!(wild("out/**/*.json").matches("out/x/y/a.json"));
        assert!(wild("out/**/*.json").matches("out/a.json"));
        assert_eq!(wild("out/x/*/y.json").fixed_dir(), "out/x");
    }

    #[test]
    fn referenced_text_is_literal() {
        let p = Pattern::new(&[Piece::Plain("a[1]"), Piece::Wild("/*.json")]).unwrap();
        assert!(p.matches("a[1]/x.json"));
        assert!(!p.matches("a1/x.json"));
    }

    #[test]
    fn meeting() {
        let raw = wild("out/*.json");
        let below = Pattern::shape(&[Piece::Plain("out/clean/"), Piece::Unknown], false);
        assert!(!raw.can_meet(&below));
        let beside = Pattern::shape(&[Piece::Plain("out/"), Piece::Unknown, Piece::Plain(".json")], false);
        assert!(raw.can_meet(&beside));
        let csv = Pattern::shape(&[Piece::Plain("out/"), Piece::Unknown, Piece::Plain(".csv")], false);
        assert!(!raw.can_meet(&csv));
        let dir = Pattern::shape(&[Piece::Plain("out/versions/")], true);
        assert!(wild("out/**/*.json").can_meet(&dir));
        assert!(!raw.can_meet(&Pattern::shape(&[Piece::Plain("out/versions/")], true)));
        assert!(wild("out/*/").can_meet(&dir));
    }
}
