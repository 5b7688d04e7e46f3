//! Text to [`Node`]s: strict JSON with the place of every fault. Unaware of what a workflow is.

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::ParseErrorKind;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use crate::model::{SourceId, Span};

use super::node::{Entry, Kind, Node};
use super::report::Report;

const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Reads the text of `source`; faults go to the report, and then there may be no value.
pub(super) fn parse(report: &mut Report, source: SourceId) -> Option<Node> {
    let text = report.sources.get(source).text.clone();
    let mut reader = Reader { report, source, text: &text };
    match parse_to_ast(&text, &CollectOptions::default(), &STRICT) {
        Err(error) => {
            let range = error.range();
            let hint = hint(error.kind());
            let mut message = decapitalize(&error.kind().to_string());
            if is_open_end(error.kind()) || range.end >= text.trim_end().len() {
                message.push_str(" (the file ends too early)");
            }
            let end = match error.kind() {
                ParseErrorKind::UnterminatedArray | ParseErrorKind::UnterminatedObject => range.start + 1,
                _ => {
                    text[range.start..].find('\n').map_or(range.end, |line| range.end.min(range.start + line))
                }
            };
            let span = reader.span(range.start, end);
            reader.report.fault(span, message, hint);
            None
        }
        Ok(parsed) => {
            let Some(value) = parsed.value else {
                let end = text.len();
                let span = reader.span(end.saturating_sub(1), end);
                reader.report.fault(
                    span,
                    format!("{}: the file holds no JSON value", reader.name()),
                    Some("a workflow is a JSON object: {\"name\": \"...\", \"steps\": {...}}".to_owned()),
                );
                return None;
            };
            // What the parser lets pass though JSON forbids it (control characters in strings, odd white space).
            if let Err(error) = serde_json::from_str::<serde_json::Value>(&text) {
                let at = offset(&text, error.line(), error.column());
                let cause = error.to_string();
                let cause = cause.split(" at line ").next().unwrap_or(&cause).to_owned();
                let span = reader.span(at, at + 1);
                reader.report.fault(span, format!("not valid JSON: {cause}"), None);
                return None;
            }
            Some(reader.node(&value))
        }
    }
}

struct Reader<'r> {
    report: &'r mut Report,
    source: SourceId,
    text: &'r str,
}

impl Reader<'_> {
    fn name(&self) -> String {
        self.report.sources.get(self.source).name.clone()
    }

    /// A span within the text, on character borders.
    fn span(&self, start: usize, end: usize) -> Span {
        let mut start = start.min(self.text.len().saturating_sub(1));
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = end.clamp(start, self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        Span { source: self.source, start: start as u32, end: end as u32 }
    }

    fn node(&mut self, value: &ast::Value<'_>) -> Node {
        let range = value.range();
        let span = self.span(range.start, range.end);
        let kind = match value {
            ast::Value::NullKeyword(_) => Kind::Null,
            ast::Value::BooleanLit(lit) => Kind::Bool(lit.value),
            ast::Value::StringLit(lit) => Kind::Text(lit.value.to_string()),
            ast::Value::NumberLit(lit) => match serde_json::from_str(lit.value) {
                Ok(number) => Kind::Number(number),
                Err(_) => {
                    self.report.fault(span, format!("'{}' is not a JSON number", lit.value), None);
                    Kind::Null
                }
            },
            ast::Value::Array(list) => Kind::List(list.elements.iter().map(|v| self.node(v)).collect()),
            ast::Value::Object(object) => Kind::Map(self.entries(object)),
        };
        Node { span, kind }
    }

    fn entries(&mut self, object: &ast::Object<'_>) -> Vec<Entry> {
        let mut places: std::collections::HashMap<String, Span> = Default::default();
        let mut entries: Vec<Entry> = Vec::with_capacity(object.properties.len());
        for property in &object.properties {
            let range = property.name.range();
            let span = self.span(range.start, range.end);
            let key = property.name.as_str().to_owned();
            let value = self.node(&property.value);
            if let Some(first) = places.get(&key) {
                let first = self.report.place(*first);
                self.report.fault(
                    span,
                    format!("duplicate key '{key}'"),
                    Some(format!("first declared at {first}")),
                );
                continue;
            }
            places.insert(key.clone(), span);
            entries.push(Entry { key, span, value });
        }
        entries
    }
}

fn is_open_end(kind: &ParseErrorKind) -> bool {
    use ParseErrorKind as K;
    let open_string =
        matches!(kind, K::String(jsonc_parser::ParseStringErrorKind::UnterminatedStringLiteral));
    open_string || matches!(kind, K::UnterminatedArray | K::UnterminatedObject)
}

fn hint(kind: &ParseErrorKind) -> Option<String> {
    use ParseErrorKind as K;
    let text = match kind {
        K::UnterminatedObject => "this object is never closed: add the missing '}'",
        K::UnterminatedArray => "this list is never closed: add the missing ']'",
        K::String(_) => {
            "text stands between double quotes; a quote or backslash inside is written \\\" or \\\\"
        }
        K::CommentsNotAllowed => "JSON has no comments; a step has \"doc\" for a line of explanation",
        K::TrailingCommasNotAllowed => "remove the comma after the last element",
        K::SingleQuotedStringsNotAllowed => "use double quotes",
        K::ExpectedStringObjectProperty => "keys stand between double quotes",
        K::ExpectedComma => "a comma is missing between two elements",
        K::MultipleRootJsonValues => "one file holds one JSON object",
        _ => return None,
    };
    Some(text.to_owned())
}

fn decapitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

/// The byte at a line and column as serde_json counts them (both from 1, the column in bytes).
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    before + column.saturating_sub(1)
}
