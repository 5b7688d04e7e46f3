//! Collects faults with their places while a workflow is read, so that all are shown at once. Unaware of what is read.

use crate::error::Error;
use crate::model::{Diagnostic, Label, Sources, Span};

use super::node::Node;

/// All source files and all faults of one load.
#[derive(Default)]
pub(super) struct Report {
    pub(super) sources: Sources,
    faults: Vec<(Option<Span>, Diagnostic)>,
    usage: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
    /// An include could not be read: its prefix is unknown for that reason.
    pub(super) lacks_includes: bool,
}

impl Report {
    /// A fault at a place of a file (`None`: of no file).
    pub(super) fn fault(
        &mut self,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
        hints: impl IntoIterator<Item = String>,
    ) {
        let span = span.into();
        let label = span.and_then(|span| Label::new(&self.sources, span));
        let fault = Diagnostic { message: message.into(), label, hints: hints.into_iter().collect() };
        let known = self
            .faults
            .iter()
            .any(|(place, old)| *place == span && span.is_some() && old.message == fault.message);
        if !known {
            self.faults.push((span, fault));
        }
    }

    /// A value of the wrong type.
    pub(super) fn expected(&mut self, node: &Node, what: &str) {
        self.fault(node.span, format!("expected {what}, found {}", node.kind_name()), None);
    }

    /// A key that a later version will know.
    pub(super) fn not_yet(&mut self, span: Span, what: impl std::fmt::Display) {
        let hint = "this is part of the format, and of a later version of flow".to_owned();
        self.fault(span, format!("not yet: {what}"), Some(hint));
    }

    /// A fault of the command line.
    pub(super) fn usage(&mut self, message: impl Into<String>, hint: Option<String>) {
        self.usage.push(Diagnostic::new(message).maybe_hint(hint));
    }

    /// `file:line:column` of a place.
    pub(super) fn place(&self, span: Span) -> String {
        match Label::new(&self.sources, span) {
            None => self.sources.get(span.source).name.clone(),
            Some(label) => {
                let (line, column) = label.line_column();
                format!("{}:{line}:{column}", label.file)
            }
        }
    }

    /// True if no file has a fault.
    pub(super) fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// Everything found as one error, in file order; `None` if there is no fault.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        let mut faults = std::mem::take(&mut self.faults);
        let mut usage = std::mem::take(&mut self.usage);
        if faults.is_empty() {
            return match usage.len() {
                0 => None,
                1 => usage.pop().map(|only| Error { hints: only.hints, ..Error::usage(only.message) }),
                n => Some(Error {
                    diagnostics: usage,
                    ..Error::usage(format!("the command line has {n} faults"))
                }),
            };
        }
        faults.sort_by_key(|(span, _)| span.map_or((u32::MAX, 0), |s| (s.source.0, s.start)));
        let mut all: Vec<Diagnostic> = faults.into_iter().map(|(_, fault)| fault).collect();
        all.append(&mut usage);
        Some(Error::diagnostics(all))
    }
}
