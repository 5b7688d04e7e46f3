//! JSON values with the place of every token. Unaware of what a workflow is.

use serde_json::{Map, Number, Value};

use crate::model::Span;

/// A JSON value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// In declared order, keys unique.
    Map(Vec<Entry>),
}

/// One key of an object.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of the key with its quotes.
    pub(super) span: Span,
    pub(super) value: Node,
}

impl Node {
    /// What it is, for "expected ..., found ...".
    pub(super) fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "true or false",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "an object",
        }
    }

    /// The entries of an object; none for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value under `key` of an object.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry `key` of an object.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value without places.
    pub(super) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(flag) => Value::Bool(*flag),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Node::to_json).collect(),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }
}

/// `patch` over `target` as in RFC 7396, places kept: objects are merged key by key, `null` removes a key of the target,
/// anything else replaces. A `null` for a key that the target lacks stays a value.
pub(super) fn merge(target: &Node, patch: &Node) -> Node {
    let (Kind::Map(old), Kind::Map(new)) = (&target.kind, &patch.kind) else {
        return patch.clone();
    };
    let mut merged = old.clone();
    for entry in new {
        match merged.iter().position(|e| e.key == entry.key) {
            None => merged.push(entry.clone()),
            Some(at) if matches!(entry.value.kind, Kind::Null) => {
                merged.remove(at);
            }
            Some(at) => {
                let value = merge(&merged[at].value, &entry.value);
                merged[at] = Entry { key: entry.key.clone(), span: entry.span, value };
            }
        }
    }
    Node { span: patch.span, kind: Kind::Map(merged) }
}
