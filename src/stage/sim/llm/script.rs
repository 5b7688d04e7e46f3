//! Scripted replies: read once, chosen by the prompt or in turn. Unaware of how they are sent.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The tokens of a reply, each as it stands inside the quotes of a JSON string.
pub(super) type Pieces = Arc<[Box<str>]>;

/// All replies.
#[derive(Default)]
pub(super) struct Script {
    matched: Vec<(String, Pieces)>,
    in_turn: Vec<Pieces>,
    turn: AtomicUsize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(rename = "match")]
    pattern: Option<String>,
    text: String,
    tokens: Option<usize>,
}

impl Script {
    /// Reads a file of replies.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::io("read the replies", path, e).hint("parameter 'replies' of sim.llm"))?;
        let mut script = Self::default();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |message: String| {
                Error::environment(format!("{}:{}: {message}", path.display(), index + 1))
                    .hint("each line of the replies is {\"match\", \"text\", \"tokens\"}; text is required")
            };
            let line: Line = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
            if line.tokens == Some(0) {
                return Err(wrong("tokens is 0 (expected at least 1)".to_owned()));
            }
            let pieces: Pieces = pieces(&line.text, line.tokens).into_iter().map(escaped).collect();
            match line.pattern {
                Some(pattern) => script.matched.push((pattern, pieces)),
                None => script.in_turn.push(pieces),
            }
        }
        Ok(script)
    }

    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.matched.is_empty() && self.in_turn.is_empty()
    }

    /// The reply to `prompt`; `None`: none fits.
    pub(super) fn choose(&self, prompt: &str) -> Option<Pieces> {
        if let Some((_, pieces)) = self.matched.iter().find(|(pattern, _)| prompt.contains(pattern)) {
            return Some(pieces.clone());
        }
        if self.in_turn.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Some(self.in_turn[turn % self.in_turn.len()].clone())
    }
}

/// The text in `tokens` pieces of about the same length (fewer, if it has fewer characters), or word by word.
fn pieces(text: &str, tokens: Option<usize>) -> Vec<&str> {
    let starts: Vec<usize> = match tokens {
        Some(tokens) => {
            let chars: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let tokens = tokens.min(chars.len());
            (0..tokens).map(|piece| chars[piece * chars.len() / tokens]).collect()
        }
        None => {
            // a word begins with the space before it
            let mut before = ' ';
            let mut starts = Vec::new();
            for (at, char) in text.char_indices() {
                if at == 0 || (char.is_whitespace() && !before.is_whitespace()) {
                    starts.push(at);
                }
                before = char;
            }
            starts
        }
    };
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect()
}

fn escaped(piece: &str) -> Box<str> {
    let quoted = serde_json::Value::from(piece).to_string();
    quoted[1..quoted.len() - 1].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_pieces() {
        assert_eq!(pieces("one two  three\n", None), ["one", " two", "  three", "\n"]);
        assert_eq!(pieces("a\u{e9}\u{1f642}bc", Some(2)), ["a\u{e9}", "\u{1f642}bc"]);
        assert_eq!(pieces("ab", Some(5)), ["a", "b"]);
        assert_eq!(pieces("", None), [""; 0]);
        assert_eq!(escaped("a\"\n\\").as_ref(), "a\\\"\\n\\\\");
    }

    #[test]
    fn matches_first_then_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("replies.jsonl");
        std::fs::write(
            &path,
            "{\"match\": \"sum\", \"text\": \"4\"}\n\n{\"text\": \"a b\"}\n{\"text\": \"c\", \"tokens\": 1}\n",
        )
        .unwrap();
        let script = Script::read(&path).unwrap();
        let first = |prompt| script.choose(prompt).unwrap()[0].to_string();
        assert_eq!(["x", "a sum", "y", "z"].map(first), ["a", "4", "c", "a"]);
        std::fs::write(&path, "{\"text\": \"a\"}\n{\"txt\": 1}\n").unwrap();
        let error = Script::read(&path).err().unwrap();
        assert!(error.message.contains("replies.jsonl:2: unknown field `txt`"), "{}", error.message);
    }
}
