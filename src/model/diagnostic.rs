//! A fault of a workflow with its place, message and hint. Unaware of how it is drawn on a terminal.

use std::fmt;
use std::sync::Arc;

use super::{Source, Sources, Span};

/// One fault, one message, one place.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// The place, if the fault has one in a file.
    pub label: Option<Label>,
    /// What to do about it.
    pub hints: Vec<String>,
}

/// A place in a file, self-contained so that it can be drawn anywhere.
#[derive(Clone, Debug)]
pub struct Label {
    /// File name as shown.
    pub file: String,
    /// The whole text of the file.
    pub text: Arc<str>,
    /// First byte of the marked range.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// A word beside the caret; may be empty.
    pub note: String,
}

impl Label {
    /// The place `span` of one of `sources`.
    pub fn new(sources: &Sources, span: Span) -> Option<Self> {
        let Source { name, text, .. } = sources.get(span.source);
        (!text.is_empty()).then(|| Self {
            file: name.clone(),
            text: text.clone(),
            start: span.start as usize,
            end: (span.end as usize).max(span.start as usize + 1).min(text.len()),
            note: String::new(),
        })
    }

    /// Line and column, both from 1; the column counts characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.text[..self.start.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

impl Diagnostic {
    /// A fault at `span`.
    pub fn at(sources: &Sources, span: Span, message: impl Into<String>) -> Self {
        Self { message: message.into(), label: Label::new(sources, span), hints: Vec::new() }
    }

    /// A fault without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), label: None, hints: Vec::new() }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a hint if there is one.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hints.extend(hint);
        self
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `file:line:column: message`; the drawing with caret is `cli`'s.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = &self.label {
            let (line, column) = label.line_column();
            write!(f, "{}:{line}:{column}: ", label.file)?;
        }
        f.write_str(&self.message)
    }
}
