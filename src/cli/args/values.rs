//! Values of command-line options that are more than text: `K=V`, sizes, ages. Unaware of the options that take them.

use std::time::Duration;

use serde_json::Value;

use crate::base::clock;

/// `K=V` of `--set`: the value is JSON if it parses, else text.
pub(super) fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(format!("'{key}' is not the name of a parameter"));
    }
    Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

/// `20GiB`, `500MB`, `1000`: bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size (expected a number and a unit: 500MB, 20GiB)");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..split].trim().parse().map_err(|_| wrong())?;
    let unit: u64 = match &text[split..] {
        "" | "B" => 1,
        "KB" | "kB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = number * unit as f64;
    if bytes.is_finite() && bytes >= 0.0 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// `30d`, `12h`.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    clock::parse_duration(text)
}

/// Number of things at once, from 1.
pub(super) fn jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n >= 1 => Ok(n),
        _ => Err("expected a whole number from 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_setting_is_json_if_it_parses_else_text() {
        for (text, value) in [
            ("k=[1,2]", json!([1, 2])),
            ("k=out/x", json!("out/x")),
            ("k=", json!("")),
            ("k=a=b", json!("a=b")),
            ("k=1.50", json!(1.5)),
            ("k=\"1\"", json!("1")),
        ] {
            assert_eq!(setting(text).unwrap(), ("k".to_owned(), value));
        }
        assert!(setting("k").is_err() && setting("=v").is_err() && setting("a b=v").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(size("20GiB").unwrap(), 20 << 30);
        assert_eq!(size("1.5KB").unwrap(), 1500);
        assert_eq!(size("7").unwrap(), 7);
        for wrong in ["", "GiB", "-1MB", "5 parsecs", "infMB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
