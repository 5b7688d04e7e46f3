//! JSON values whose texts may hold references, with their places. Unaware of scopes.

use super::{Reference, Span};

/// A value as declared.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Where it stands; `None` for one made in Rust or on the command line.
    pub span: Option<Span>,
    /// The value.
    pub kind: ExprKind,
}

/// The kinds of value.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// Text with references.
    Text(Template),
    /// A list.
    List(Vec<Expr>),
    /// An object in declared order; keys hold no references.
    Map(Vec<(String, Expr)>),
    /// `{"secret": "NAME", "format": "Bearer {}"}`: read from the environment at the moment of use.
    Secret {
        /// Environment variable.
        name: String,
        /// `{}` stands for the value.
        format: String,
    },
}

/// Text cut at its references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Literal runs and references in order; `$${` is already a literal `${`.
    pub parts: Vec<Part>,
}

/// One piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Literal text.
    Lit(String),
    /// A reference and its place.
    Ref(Reference, Option<Span>),
}

impl Template {
    /// Text without references.
    pub fn literal(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { parts: if text.is_empty() { Vec::new() } else { vec![Part::Lit(text)] } }
    }

    /// The text, if it has no references.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Lit(text)] => Some(text),
            _ => None,
        }
    }

    /// The reference, if the text is exactly one.
    pub fn as_reference(&self) -> Option<&Reference> {
        match self.parts.as_slice() {
            [Part::Ref(reference, _)] => Some(reference),
            _ => None,
        }
    }

    /// All references in order.
    pub fn references(&self) -> impl Iterator<Item = (&Reference, Option<Span>)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Lit(_) => None,
            Part::Ref(reference, span) => Some((reference, *span)),
        })
    }
}

impl Expr {
    /// A value without a place.
    pub fn new(kind: ExprKind) -> Self {
        Self { span: None, kind }
    }

    /// Plain text without a place.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(ExprKind::Text(Template::literal(text)))
    }

    /// A plain JSON value (of `--set`, `--params`), never read as references.
    pub fn from_json(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        Self::new(match value {
            Value::Null => ExprKind::Null,
            Value::Bool(flag) => ExprKind::Bool(*flag),
            Value::Number(number) => ExprKind::Number(number.clone()),
            Value::String(text) => ExprKind::Text(Template::literal(text)),
            Value::Array(items) => ExprKind::List(items.iter().map(Self::from_json).collect()),
            Value::Object(map) => {
                ExprKind::Map(map.iter().map(|(k, v)| (k.clone(), Self::from_json(v))).collect())
            }
        })
    }

    /// Calls `visit` for every reference inside, depth first in declared order.
    pub fn for_each_reference<'a>(&'a self, visit: &mut dyn FnMut(&'a Reference, Option<Span>)) {
        match &self.kind {
            ExprKind::Text(template) => template.references().for_each(|(r, s)| visit(r, s)),
            ExprKind::List(items) => items.iter().for_each(|item| item.for_each_reference(visit)),
            ExprKind::Map(map) => map.iter().for_each(|(_, item)| item.for_each_reference(visit)),
            _ => {}
        }
    }
}
