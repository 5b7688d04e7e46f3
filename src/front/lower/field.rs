//! Typed reading of single values: text, numbers, lists, durations, sizes. Unaware of steps and services.

use std::time::Duration;

use crate::base::clock::parse_duration;
use crate::base::suggest;
use crate::model::Declared;

use super::super::node::{Entry, Kind, Node};
use super::super::reference::is_id;
use super::super::report::Report;

/// Refuses keys that are not in `known`; `what` is the thing whose keys they are, with its article.
pub(in crate::front) fn known(report: &mut Report, node: &Node, known: &[&str], what: &str) {
    for entry in node.entries() {
        if !known.contains(&entry.key.as_str()) {
            let hint = suggest::hint(&entry.key, known.iter().copied());
            report.fault(entry.span, format!("unknown key '{}' of {what}", entry.key), hint);
        }
    }
}

/// The entries of an object, or a fault.
pub(in crate::front) fn map<'n>(report: &mut Report, node: &'n Node) -> Option<&'n [Entry]> {
    match &node.kind {
        Kind::Map(entries) => Some(entries),
        _ => {
            report.expected(node, "an object");
            None
        }
    }
}

/// The elements of a list, or a fault.
pub(in crate::front) fn list<'n>(report: &mut Report, node: &'n Node) -> Option<&'n [Node]> {
    match &node.kind {
        Kind::List(items) => Some(items),
        _ => {
            report.expected(node, "a list");
            None
        }
    }
}

/// Plain text; `$${` is a literal `${`, a reference is a fault.
pub(in crate::front) fn text(report: &mut Report, node: &Node) -> Option<String> {
    let Kind::Text(text) = &node.kind else {
        report.expected(node, "text");
        return None;
    };
    if text.replace("$${", "").contains("${") {
        report.fault(node.span, "no references are allowed here", None);
        return None;
    }
    Some(text.replace("$${", "${"))
}

/// Text that is only shown, never read for references.
pub(in crate::front) fn line(report: &mut Report, node: &Node) -> Option<String> {
    let line = node.as_text().map(str::to_owned);
    if line.is_none() {
        report.expected(node, "text");
    }
    line
}

/// A list of plain texts.
pub(in crate::front) fn texts(report: &mut Report, node: &Node) -> Vec<String> {
    let items = list(report, node).unwrap_or(&[]);
    items.iter().filter_map(|item| text(report, item)).collect()
}

/// `true` or `false`.
pub(in crate::front) fn flag(report: &mut Report, node: &Node) -> bool {
    match node.kind {
        Kind::Bool(flag) => flag,
        _ => {
            report.expected(node, "true or false");
            false
        }
    }
}

/// A whole number of at least `least`.
pub(in crate::front) fn count(report: &mut Report, node: &Node, least: u32) -> Option<u32> {
    let Kind::Number(number) = &node.kind else {
        report.expected(node, "a whole number");
        return None;
    };
    let value = number.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n >= least);
    if value.is_none() {
        report.fault(node.span, format!("expected a whole number of at least {least}, found {number}"), None);
    }
    value
}

/// `"90s"`.
pub(in crate::front) fn duration(report: &mut Report, node: &Node) -> Option<Duration> {
    let Kind::Text(text) = &node.kind else {
        let hint = "write a number and a unit: \"200ms\", \"90s\", \"5m\", \"2h\", \"1d\"".to_owned();
        report.fault(node.span, format!("expected a duration, found {}", node.kind_name()), Some(hint));
        return None;
    };
    match parse_duration(text) {
        Ok(duration) => Some(duration),
        Err(message) => {
            report.fault(node.span, message, None);
            None
        }
    }
}

/// `"40GiB"` or a number of bytes.
pub(in crate::front) fn bytes(report: &mut Report, node: &Node) -> Option<u64> {
    let size = match &node.kind {
        Kind::Number(number) => number.as_u64(),
        Kind::Text(text) => parse_bytes(text),
        _ => None,
    };
    if size.is_none() {
        let shown = node.to_json();
        report.fault(
            node.span,
            format!("{shown} is not a size"),
            Some("write a number and a unit: \"512MiB\", \"40GiB\", \"1.5TB\"".to_owned()),
        );
    }
    size
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..split].trim().parse().ok()?;
    let unit: f64 = match &text[split..] {
        "" | "B" => 1.0,
        "KiB" | "K" => 1024.0,
        "MiB" | "M" => 1024.0 * 1024.0,
        "GiB" | "G" => 1024.0 * 1024.0 * 1024.0,
        "TiB" | "T" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return None,
    };
    let size = number * unit;
    (size.is_finite() && size >= 0.0).then_some(size as u64)
}

/// Plain text with its place.
pub(in crate::front) fn declared(report: &mut Report, node: &Node) -> Option<Declared<String>> {
    text(report, node).map(|value| Declared { value, span: Some(node.span) })
}

/// Refuses a key that is not an id; `what` is the thing it names, with its article.
pub(in crate::front) fn id(report: &mut Report, entry: &Entry, what: &str) {
    if !is_id(&entry.key) {
        let hint = "letters, digits, '_' and '-' are allowed".to_owned();
        report.fault(entry.span, format!("'{}' is not a name for {what}", entry.key), Some(hint));
    }
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("40GiB"), Some(40 << 30));
        assert_eq!(parse_bytes("1.5 kB"), Some(1500));
        assert_eq!(parse_bytes("7"), Some(7));
        assert_eq!(parse_bytes("-1GiB"), None);
        assert_eq!(parse_bytes("many"), None);
    }
}
