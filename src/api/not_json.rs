//! Text that is no JSON, in words: bare `NaN` and `Infinity`, which Python writes, are named. Unaware of who reads it.

use std::io::{BufRead, Read};

use super::StageError;

/// What is no JSON, and is written nevertheless.
const WORDS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];

impl StageError {
    /// A fault of JSON. `place` names file and line; `text` is what was read, from its beginning: it is read again, up to the fault.
    pub fn not_json(place: &str, text: impl BufRead, fault: &serde_json::Error) -> Self {
        match bare_word(text, fault) {
            Some((word, column)) => Self::new(format!(
                "{place}: bare {word} is not JSON (column {column}): expected a number, null or text"
            ))
            .hint("write null in its place: Python's json.dumps writes such words for what is no finite number, and with allow_nan=False refuses to"),
            None => Self::new(format!("{place}: {fault}")),
        }
    }
}

/// The word at the place of a fault, and the column where it begins.
fn bare_word(mut text: impl BufRead, fault: &serde_json::Error) -> Option<(&'static str, usize)> {
    if !fault.is_syntax() {
        return None;
    }
    for _ in 1..fault.line() {
        text.skip_until(b'\n').ok()?;
    }
    // the fault is the first character, or the one after a minus
    let before = fault.column().saturating_sub(2);
    std::io::copy(&mut text.by_ref().take(before as u64), &mut std::io::sink()).ok()?;
    let mut found = Vec::new();
    text.take(1 + WORDS[1].len() as u64).read_to_end(&mut found).ok()?;
    [0, 1].into_iter().find_map(|skipped| {
        let rest = found.get(skipped..)?;
        let word = WORDS.into_iter().find(|word| rest.starts_with(word.as_bytes()))?;
        Some((word, before + skipped + 1))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn of(text: &str) -> String {
        let fault = serde_json::from_str::<Value>(text).unwrap_err();
        let again = serde_json::from_reader::<_, Value>(text.as_bytes()).unwrap_err();
        let [slice, reader] =
            [fault, again].map(|fault| StageError::not_json("x", text.as_bytes(), &fault).message);
        assert_eq!(slice, reader);
        slice
    }

    #[test]
    fn bare_words_are_named_with_their_column() {
        let bare = |word: &str, column: usize| {
            format!("x: bare {word} is not JSON (column {column}): expected a number, null or text")
        };
        assert_eq!(of("NaN"), bare("NaN", 1));
        assert_eq!(of("{\"é\": NaN}"), bare("NaN", 8));
        assert_eq!(of("{\n\"a\": 1,\n \"b\": [1,Infinity]}"), bare("Infinity", 10));
        assert_eq!(of("[-Infinity]"), bare("-Infinity", 2));
        assert_eq!(of("[1,\n-Infinity]"), bare("-Infinity", 1));
        let typed = serde_json::from_str::<Vec<f64>>("[1.5, NaN]").unwrap_err();
        assert_eq!(StageError::not_json("x", &b"[1.5, NaN]"[..], &typed).message, bare("NaN", 7));
    }

    #[test]
    fn other_faults_keep_their_words() {
        assert_eq!(of("[\"NaN\" 1]"), "x: expected `,` or `]` at line 1 column 8");
        assert_eq!(of("{\"a\": nan}"), "x: expected ident at line 1 column 8");
        assert!(of("{\"NaN\": 1").starts_with("x: EOF"));
        let typed = serde_json::from_str::<Vec<f64>>("[\"NaN\"]").unwrap_err();
        assert!(StageError::not_json("x", &b"[\"NaN\"]"[..], &typed).message.starts_with("x: invalid type"));
    }
}
