//! `with` held against the parameters of its stage or simulator, as far as that goes before references have values. Unaware of ports.

use serde_json::{Map, Value};

use crate::api::{ParamFault, needs_parameter, no_parameter};
use crate::base::suggest;
use crate::model::{Declared, Span};

use super::super::node::{Entry, Kind, Node};
use super::super::report::Report;
use super::expr::is_secret;

/// Checks the names in `with` against `schema`, and the values by `check` if they are all plain.
pub(super) fn with(
    report: &mut Report,
    node: &Node,
    owner: &Declared<String>,
    schema: &schemars::Schema,
    check: &dyn Fn(&Value) -> Result<(), ParamFault>,
) {
    let entries: &[Entry] = match node.get("with").map(|with| &with.kind) {
        None => &[],
        Some(Kind::Map(entries)) => entries,
        Some(_) => return,
    };
    let name = owner.value.as_str();
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let known: Vec<&str> = match schema.get("properties").and_then(Value::as_object) {
        Some(properties) if closed => properties.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let (given, unknown): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| !closed || known.contains(&entry.key.as_str()));
    for entry in &unknown {
        let near = suggest::hint(&entry.key, known.iter().copied());
        let (message, hint) = no_parameter(name, &entry.key, near);
        report.fault(entry.span, message, Some(hint));
    }
    let required = schema.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let absent = |key: &&str| !entries.iter().any(|entry| entry.key == *key);
    let missing: Vec<&str> = required.iter().filter_map(Value::as_str).filter(absent).collect();
    // one that is only misspelt is told of once
    let meant = |key: &str| unknown.iter().any(|entry| suggest::nearest(&entry.key, [key]).is_some());
    for key in missing.iter().filter(|key| !meant(key)) {
        let (message, hint) = needs_parameter(name, name, key);
        report.fault(owner.span, message, Some(hint));
    }
    if !given.iter().all(|entry| is_plain(&entry.value)) {
        return;
    }
    let values: Map<String, Value> = given.iter().map(|e| (e.key.clone(), e.value.to_json())).collect();
    if let Err(fault) = check(&Value::Object(values)) {
        let place = place(entries, &fault);
        // without a place of its own it may only follow from the names
        if place.is_some() || (unknown.is_empty() && missing.is_empty()) {
            let (message, hint) = fault.worded(name);
            report.fault(place.or(owner.span), message, Some(hint));
        }
    }
}

/// Holds no reference and no secret.
fn is_plain(node: &Node) -> bool {
    match &node.kind {
        Kind::Text(text) => !text.replace("$${", "").contains("${"),
        Kind::List(items) => items.iter().all(is_plain),
        Kind::Map(entries) => !is_secret(node) && entries.iter().all(|entry| is_plain(&entry.value)),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) => true,
    }
}

/// The innermost value that the path of the fault reaches, or the key that should not be there.
fn place(entries: &[Entry], fault: &ParamFault) -> Option<Span> {
    let mut parts = fault.path.split(['.', '[']).map(|part| part.trim_end_matches(']'));
    let first = parts.next()?;
    let mut entry = entries.iter().find(|entry| entry.key == first)?;
    let mut value = &entry.value;
    let mut at_key = true;
    for part in parts {
        (value, at_key) = match &value.kind {
            Kind::Map(_) => match value.entry(part) {
                Some(inner) => {
                    entry = inner;
                    (&inner.value, true)
                }
                None => break,
            },
            Kind::List(items) => match part.parse::<usize>().ok().and_then(|at| items.get(at)) {
                Some(inner) => (inner, false),
                None => break,
            },
            _ => break,
        };
    }
    let strange = at_key && fault.unknown_name() == Some(entry.key.as_str());
    Some(if strange { entry.span } else { value.span })
}
