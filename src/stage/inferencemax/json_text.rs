//! Lays valid JSON text out anew; names, strings and numbers keep their text byte for byte. Unaware of what it says.

/// Appends `text` with 2-space indent, one value per line, as an editor would; `depth` is that of the first line.
/// `text` must be valid JSON.
pub fn pretty(text: &str, depth: usize, out: &mut String) {
    render(text, Layout::Pretty { depth }, out);
}

/// `text` on one line, `, ` between items and `: ` after names. `text` must be valid JSON.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    render(text, Layout::OneLine, &mut out);
    out
}

enum Layout {
    Pretty { depth: usize },
    OneLine,
}

fn render(text: &str, mut layout: Layout, out: &mut String) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at += 1;
        match bytes[start] {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                at = string_end(bytes, at);
                out.push_str(&text[start..at]);
            }
            open @ (b'{' | b'[') => {
                out.push(open as char);
                let next = bytes[at..].iter().position(|b| !b.is_ascii_whitespace()).map(|n| at + n);
                match next {
                    Some(close) if matches!(bytes[close], b'}' | b']') => {
                        out.push(bytes[close] as char);
                        at = close + 1;
                    }
                    _ => {
                        if let Layout::Pretty { depth } = &mut layout {
                            *depth += 1;
                            new_line(*depth, out);
                        }
                    }
                }
            }
            close @ (b'}' | b']') => {
                if let Layout::Pretty { depth } = &mut layout {
                    *depth = depth.saturating_sub(1);
                    new_line(*depth, out);
                }
                out.push(close as char);
            }
            b',' => match layout {
                Layout::Pretty { depth } => {
                    out.push(',');
                    new_line(depth, out);
                }
                Layout::OneLine => out.push_str(", "),
            },
            b':' => out.push_str(": "),
            _ => {
                while at < bytes.len()
                    && !matches!(bytes[at], b',' | b']' | b'}')
                    && !bytes[at].is_ascii_whitespace()
                {
                    at += 1;
                }
                out.push_str(&text[start..at]);
            }
        }
    }
}

/// One past the closing quote of the string whose content starts at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn new_line(depth: usize, out: &mut String) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(text: &str) -> String {
        let mut out = String::new();
        pretty(text, 0, &mut out);
        out
    }

    #[test]
    fn numbers_strings_and_order_keep_their_text() {
        let text = r#"{"b":1.50,"a":[1e5,-0,  "x\"{,\\",{}, [ ]],"é":"\u00e9"}"#;
        let expected = "{\n  \"b\": 1.50,\n  \"a\": [\n    1e5,\n    -0,\n    \"x\\\"{,\\\\\",\n    {},\n    []\n  ],\n  \"é\": \"\\u00e9\"\n}";
        assert_eq!(laid_out(text), expected);
        assert_eq!(laid_out(expected), expected);
        assert_eq!(
            one_line(expected),
            "{\"b\": 1.50, \"a\": [1e5, -0, \"x\\\"{,\\\\\", {}, []], \"é\": \"\\u00e9\"}"
        );
    }

    proptest::proptest! {
        #[test]
        fn meaning_is_kept(keys in proptest::collection::vec("\\PC*", 0..6), n in proptest::num::f64::NORMAL) {
            let mut object = serde_json::Map::new();
            for key in &keys {
                object.insert(key.clone(), serde_json::json!([key, n, {"k": key}, null, true]));
            }
            let value = serde_json::Value::Object(object);
            let text = value.to_string();
            proptest::prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&laid_out(&text)).unwrap(), &value);
            proptest::prop_assert_eq!(laid_out(&text), serde_json::to_string_pretty(&value).unwrap());
            proptest::prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&one_line(&text)).unwrap(), value);
        }
    }
}
