//! JSON values to expressions: references and secrets inside every text. Unaware of scopes.

use crate::model::{Expr, ExprKind, Part, Span, Template};

use super::super::node::{Kind, Node};
use super::super::reference::{self, Piece};
use super::super::report::Report;
use super::field;

/// Whether `{"secret": "NAME"}` may stand here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::front) enum Secrets {
    Allowed,
    Refused,
}

/// The expression that `node` declares.
pub(in crate::front) fn expr(report: &mut Report, node: &Node, secrets: Secrets) -> Expr {
    let kind = match &node.kind {
        Kind::Null => ExprKind::Null,
        Kind::Bool(flag) => ExprKind::Bool(*flag),
        Kind::Number(number) => ExprKind::Number(number.clone()),
        Kind::Text(text) => ExprKind::Text(template(report, text, node.span)),
        Kind::List(items) => ExprKind::List(items.iter().map(|item| expr(report, item, secrets)).collect()),
        Kind::Map(_) if is_secret(node) => secret(report, node, secrets),
        Kind::Map(entries) => {
            let map = entries.iter().map(|entry| {
                if entry.key.contains("${") {
                    report.fault(entry.span, "a key holds no references", None);
                }
                (entry.key.clone(), expr(report, &entry.value, secrets))
            });
            ExprKind::Map(map.collect())
        }
    };
    Expr { span: Some(node.span), kind }
}

/// The text of `node` cut at its references.
pub(in crate::front) fn template(report: &mut Report, text: &str, span: Span) -> Template {
    if !text.contains("${") {
        return Template::literal(text);
    }
    let (pieces, faults) = reference::parse(text);
    for fault in faults {
        let place = inside(report, span, fault.range.start, fault.range.end);
        report.fault(place, fault.message, fault.hints);
    }
    let parts = pieces.into_iter().map(|piece| match piece {
        Piece::Lit(text) => Part::Lit(text),
        Piece::Ref(reference, range) => {
            Part::Ref(reference, Some(inside(report, span, range.start, range.end)))
        }
    });
    Template { parts: parts.collect() }
}

/// The place of bytes `start..end` of the decoded text whose JSON string stands at `span`.
fn inside(report: &Report, span: Span, start: usize, end: usize) -> Span {
    let text = &report.sources.get(span.source).text;
    let Some(raw) = text.get(span.start as usize + 1..(span.end as usize).saturating_sub(1)) else {
        return span;
    };
    let base = span.start + 1;
    Span {
        source: span.source,
        start: base + raw_offset(raw, start) as u32,
        end: base + raw_offset(raw, end) as u32,
    }
}

/// Where byte `wanted` of the decoded text stands in the JSON string `raw`.
fn raw_offset(raw: &str, wanted: usize) -> usize {
    if !raw.contains('\\') {
        return wanted.min(raw.len());
    }
    let (mut at, mut decoded) = (0, 0);
    while at < raw.len() && decoded < wanted {
        let rest = &raw[at..];
        let (taken, made) = match rest.strip_prefix("\\u") {
            Some(hex) => {
                let unit =
                    |hex: &str| hex.get(..4).and_then(|h| u32::from_str_radix(h, 16).ok()).unwrap_or(0);
                match unit(hex) {
                    0xD800..=0xDBFF => (12, 4),
                    code => (6, char::from_u32(code).map_or(3, char::len_utf8)),
                }
            }
            None if rest.starts_with('\\') => (2, 1),
            None => {
                let length = rest.chars().next().map_or(1, char::len_utf8);
                (length, length)
            }
        };
        at += taken;
        decoded += made;
    }
    at.min(raw.len())
}

/// Looks like a secret: nothing but `secret` and `format`.
pub(super) fn is_secret(node: &Node) -> bool {
    node.entry("secret").is_some_and(|entry| entry.value.as_text().is_some())
}

fn secret(report: &mut Report, node: &Node, secrets: Secrets) -> ExprKind {
    if secrets == Secrets::Refused {
        report.fault(
            node.span,
            "a secret may stand only in 'env' or 'with'",
            Some("write it where it is used; it is read from the environment at that moment".to_owned()),
        );
    }
    field::known(report, node, &["secret", "format"], "a secret");
    let name = node.get("secret").and_then(Node::as_text).unwrap_or_default().to_owned();
    if !is_variable(&name)
        && let Some(entry) = node.entry("secret")
    {
        report.fault(entry.value.span, format!("'{name}' is not the name of an environment variable"), None);
    }
    let format = match node.get("format") {
        None => "{}".to_owned(),
        Some(format) => field::text(report, format).unwrap_or_else(|| "{}".to_owned()),
    };
    if !format.contains("{}")
        && let Some(entry) = node.entry("format")
    {
        report.fault(
            entry.value.span,
            "the format of a secret has no '{}'",
            Some("'{}' stands for the value: \"Bearer {}\"".to_owned()),
        );
    }
    ExprKind::Secret { name, format }
}

/// True for `[A-Za-z_][A-Za-z0-9_]*`.
pub(in crate::front) fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::raw_offset;

    #[test]
    fn decoded_offsets_are_found_in_the_raw_text() {
        assert_eq!(raw_offset("abc", 2), 2);
        assert_eq!(raw_offset(r#"a\"b\nc"#, 4), 6);
        assert_eq!(raw_offset(r"\u00e9x", 2), 6);
        assert_eq!(raw_offset(r"\ud83d\ude00x", 4), 12);
        assert_eq!(raw_offset(r"é\tx", 3), 4);
    }
}
