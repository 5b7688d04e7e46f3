//! JSON as Python writes it: with bare `NaN`, `Infinity` and `-Infinity`. Unaware of what the values mean.

use serde_json::Value;

use super::columns::Cell;

/// What stands for a number that JSON cannot hold: no text of a real file begins with this character.
const MARK: char = '\u{0}';

/// A number, as far as a table is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    /// May be NaN or infinite.
    Float(f64),
}

impl Number {
    /// Of a value that [`parse`] gave; `None` if it is no number. `null` is NaN.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Float(f64::NAN)),
            Value::Number(number) => number.as_i64().map(Self::Int).or(number.as_f64().map(Self::Float)),
            Value::String(text) => match text.strip_prefix(MARK)? {
                "NaN" => Some(Self::Float(f64::NAN)),
                "Infinity" => Some(Self::Float(f64::INFINITY)),
                "-Infinity" => Some(Self::Float(f64::NEG_INFINITY)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Milliseconds as seconds.
    pub(super) fn in_seconds(self) -> Self {
        Self::Float(self.as_f64() / 1000.0)
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Float(x) => x,
        }
    }

    /// As a cell: what JSON cannot hold is `null`.
    pub(super) fn cell(self) -> Cell {
        match self {
            Self::Int(n) => Cell::Int(n),
            Self::Float(x) => x.into(),
        }
    }
}

/// Parses a file. A message names line and column.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let strict = serde_json::from_slice(bytes);
    match strict {
        Ok(value) => Ok(value),
        Err(error) => match marked(bytes) {
            Some(marked) => serde_json::from_slice(&marked).map_err(|e| e.to_string()),
            None => Err(error.to_string()),
        },
    }
}

/// The text with a marked string in the place of each bare word; `None` if it has none.
fn marked(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    let (mut at, mut in_string, mut found) = (0, false, false);
    while let Some(&byte) = bytes.get(at) {
        let word =
            [&b"NaN"[..], b"-Infinity", b"Infinity"].into_iter().find(|word| bytes[at..].starts_with(word));
        match (in_string, byte, word) {
            (true, b'\\', _) => {
                out.extend(bytes[at..].iter().take(2));
                at += 2;
                continue;
            }
            (false, _, Some(word)) => {
                out.extend(b"\"\\u0000");
                out.extend(word);
                out.push(b'"');
                at += word.len();
                found = true;
                continue;
            }
            (_, b'"', _) => in_string = !in_string,
            _ => {}
        }
        out.push(byte);
        at += 1;
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_are_numbers_and_text_stays_text() {
        let value =
            parse(br#"{"a": NaN, "b": [-Infinity, Infinity], "NaN": "\"NaN\\", "c": "x NaN"}"#).unwrap();
        assert!(Number::of(&value["a"]).unwrap().as_f64().is_nan());
        assert_eq!(Number::of(&value["b"][0]), Some(Number::Float(f64::NEG_INFINITY)));
        assert_eq!(Number::of(&value["b"][1]), Some(Number::Float(f64::INFINITY)));
        assert_eq!(value["NaN"], "\"NaN\\");
        assert_eq!((Number::of(&value["c"]), Number::of(&serde_json::json!(true))), (None, None));
        assert_eq!(Number::of(&value["a"]).unwrap().cell(), Cell::Null);
        assert_eq!(
            Number::of(&serde_json::json!(9_223_372_036_854_775_807_i64)),
            Some(Number::Int(i64::MAX))
        );
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        assert!(parse(b"{\"a\": NaN").unwrap_err().contains("line 1"));
        assert!(parse(b"{\"a\": 1").unwrap_err().contains("line 1 column 7"));
        assert!(parse(b"").is_err());
        assert!(parse(b"{\"a\": NaNa}").is_err());
    }
}
