//! Keeps secrets out of everything flow writes: masking of text and of streams, and the search in files. Unaware of where secrets come from.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use regex::bytes::{NoExpand, Regex, RegexBuilder};

/// What stands in the place of a secret.
const MASK: &[u8] = b"***";
/// Lines of a secret of several lines are masked alone from this length on: a shorter one may be any word.
const SHORTEST_LINE: usize = 8;
const CHUNK: usize = 64 * 1024;

/// Knows the values of all secrets of a run.
#[derive(Debug, Default)]
pub struct Masker {
    /// Each secret as it is, without white space around it, and as JSON writes it.
    whole: Option<Pattern>,
    /// Those, and single lines.
    parts: Option<Pattern>,
}

impl Masker {
    /// Masks these values; empty ones are no secrets.
    pub fn new(secrets: Vec<String>) -> Self {
        let mut whole = BTreeSet::new();
        let mut parts = BTreeSet::new();
        for secret in &secrets {
            for form in [secret.as_str(), secret.trim()] {
                whole.insert(form.to_owned());
                let quoted = serde_json::Value::from(form).to_string();
                whole.insert(quoted[1..quoted.len() - 1].to_owned());
            }
            parts.extend(
                secret.lines().map(str::trim).filter(|l| l.len() >= SHORTEST_LINE).map(str::to_owned),
            );
        }
        whole.remove("");
        parts.extend(whole.iter().cloned());
        Self { whole: Pattern::new(whole), parts: Pattern::new(parts) }
    }

    /// True if there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.parts.is_none()
    }

    /// The text with every secret replaced by `***`.
    pub fn mask(&self, text: &str) -> String {
        match &self.parts {
            None => text.to_owned(),
            Some(pattern) => String::from_utf8_lossy(&pattern.replace(text.as_bytes())).into_owned(),
        }
    }

    /// A masker of output that comes in pieces.
    pub fn stream(&self) -> MaskStream<'_> {
        MaskStream { masker: self, held: Vec::new() }
    }

    /// Whether a file holds a secret; read in pieces, whatever its size.
    pub fn contains_in_file(&self, path: &Path) -> io::Result<bool> {
        let Some(pattern) = &self.whole else { return Ok(false) };
        let mut file = File::open(path)?;
        let mut buffer = vec![0; CHUNK + pattern.longest];
        let mut filled = 0;
        loop {
            let read = match file.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            filled += read;
            if pattern.regex.is_match(&buffer[..filled]) {
                return Ok(true);
            }
            let keep = filled.min(pattern.longest - 1);
            buffer.copy_within(filled - keep..filled, 0);
            filled = keep;
        }
    }
}

/// Several texts to look for, the longest first where two begin at one place.
#[derive(Debug)]
struct Pattern {
    texts: Vec<String>,
    longest: usize,
    regex: Regex,
}

impl Pattern {
    fn new(texts: BTreeSet<String>) -> Option<Self> {
        let mut texts: Vec<String> = texts.into_iter().collect();
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let longest = texts.first()?.len();
        let alternatives: Vec<String> = texts.iter().map(|text| regex::escape(text)).collect();
        let regex = RegexBuilder::new(&alternatives.join("|")).unicode(false).size_limit(usize::MAX).build();
        let regex = regex.expect("escaped literals of any size compile");
        Some(Self { texts, longest, regex })
    }

    fn replace<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        self.regex.replace_all(text, NoExpand(MASK))
    }

    /// Where the first tail begins that could become a secret if more came; the length if there is none.
    fn open_tail(&self, text: &[u8]) -> usize {
        let first = (text.len() + 1).saturating_sub(self.longest);
        (first..text.len())
            .find(|at| {
                let tail = &text[*at..];
                self.texts
                    .iter()
                    .any(|secret| secret.len() > tail.len() && secret.as_bytes().starts_with(tail))
            })
            .unwrap_or(text.len())
    }
}

/// Masks output that comes in pieces: a piece's end that could be the beginning of a secret is held back until it is decided.
#[derive(Debug)]
pub struct MaskStream<'m> {
    masker: &'m Masker,
    held: Vec<u8>,
}

impl MaskStream<'_> {
    /// Takes a piece and appends what is decided to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(pattern) = &self.masker.parts else {
            out.extend_from_slice(piece);
            return;
        };
        self.held.extend_from_slice(piece);
        let mut done = 0;
        loop {
            let text = &self.held[done..];
            let open = pattern.open_tail(text);
            // A match that begins before the open tail is final, but may reach into it.
            let mut at = 0;
            for found in pattern.regex.find_iter(text).take_while(|found| found.start() < open) {
                out.extend_from_slice(&text[at..found.start()]);
                out.extend_from_slice(MASK);
                at = found.end();
            }
            if at <= open {
                out.extend_from_slice(&text[at..open]);
                done += open;
                break;
            }
            done += at;
        }
        self.held.drain(..done);
    }

    /// No more comes: appends the rest.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(pattern) = &self.masker.parts {
            out.extend_from_slice(&pattern.replace(&self.held));
        }
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_pieces(masker: &Masker, pieces: &[&[u8]]) -> String {
        let mut stream = masker.stream();
        let mut out = Vec::new();
        for piece in pieces {
            stream.push(piece, &mut out);
        }
        stream.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn masks_every_form() {
        let masker = Masker::new(vec!["s3cret".into(), String::new(), "a\"b".into(), "tok \n".into()]);
        assert_eq!(masker.mask("x s3crets3cret y"), "x ****** y");
        assert_eq!(masker.mask(r#"{"k": "a\"b", "l": "a"}"#), r#"{"k": "***", "l": "a"}"#);
        assert_eq!(masker.mask("the tok."), "the ***.");
        assert!(Masker::new(vec![String::new()]).is_empty());
        assert_eq!(Masker::default().mask("abc"), "abc");
    }

    #[test]
    fn the_longest_secret_wins_also_across_pieces() {
        let masker = Masker::new(vec!["abc".into(), "abcdef".into()]);
        assert_eq!(in_pieces(&masker, &[b"-abc", b"def-"]), "-***-");
        assert_eq!(in_pieces(&masker, &[b"-abc", b"dex-"]), "-***dex-");
        assert_eq!(in_pieces(&masker, &[b"-ab"]), "-ab");
    }

    #[test]
    fn what_cannot_become_a_secret_is_not_held_back() {
        let masker = Masker::new(vec!["secret".into()]);
        let mut out = Vec::new();
        masker.stream().push(b"password: ", &mut out);
        assert_eq!(out, b"password: ");
    }

    #[test]
    fn a_secret_of_several_lines() {
        let masker = Masker::new(vec!["first line\nsecond line\n".into()]);
        assert_eq!(in_pieces(&masker, &[b"k=first line", b"\nsecond li", b"ne\nend\n"]), "k=***end\n");
        assert_eq!(masker.mask("only second line."), "only ***.");
        assert_eq!(masker.mask(r#""first line\nsecond line\n""#), r#""***""#);
    }

    #[test]
    fn files_are_searched_across_chunk_borders() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let masker = Masker::new(vec!["needle".into()]);
        for at in [0, CHUNK - 3, CHUNK, CHUNK + 3, 3 * CHUNK - 1] {
            let mut bytes = vec![b'n'; 4 * CHUNK];
            bytes[at..at + 6].copy_from_slice(b"needle");
            std::fs::write(&path, &bytes).unwrap();
            assert!(masker.contains_in_file(&path).unwrap(), "at {at}");
        }
        std::fs::write(&path, vec![b'n'; 4 * CHUNK]).unwrap();
        assert!(!masker.contains_in_file(&path).unwrap());
        assert!(!Masker::default().contains_in_file(&dir.path().join("none")).unwrap());
    }

    proptest! {
        #[test]
        fn pieces_and_whole_agree(
            secrets in proptest::collection::vec("[ab\n]{1,4}", 1..3), text in "[abc\n]{0,24}", cuts in proptest::collection::vec(0usize..24, 0..4),
        ) {
            let masker = Masker::new(secrets);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
            prop_assert_eq!(in_pieces(&masker, &pieces), masker.mask(&text));
        }
    }
}
