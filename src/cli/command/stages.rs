//! `flow stages`: the built-in stages and simulators, or one with its inputs, outputs and parameters.

use std::process::ExitCode;

use serde_json::Value;

use crate::api::{Arity, Catalog, Signature};
use crate::base::suggest;
use crate::cli::app::App;
use crate::cli::args::StagesArgs;
use crate::error::{Error, Result};
use crate::observe::table;

pub(in crate::cli) fn run(app: &App, args: &StagesArgs) -> Result<ExitCode> {
    let catalog = crate::stage::catalog();
    let Some(name) = &args.name else {
        let first = |doc: &str| doc.lines().next().unwrap_or_default().to_owned();
        let stages = catalog.stages().map(|s| vec![s.name().to_owned(), first(s.signature().doc)]);
        let simulators =
            catalog.simulators().map(|s| vec![s.name.to_owned(), format!("service: {}", first(s.doc))]);
        let rows: Vec<Vec<String>> = stages.chain(simulators).collect();
        app.printer.data(&table::render(&["stage", "what it does"], &[], &rows));
        return Ok(ExitCode::SUCCESS);
    };
    app.printer.data(&one(&catalog, name)?);
    Ok(ExitCode::SUCCESS)
}

fn one(catalog: &Catalog, name: &str) -> Result<String> {
    if let Some(stage) = catalog.stage(name) {
        return Ok(describe(stage.name(), stage.version(), &stage.signature()));
    }
    if let Some(simulator) = catalog.simulator(name) {
        let mut out =
            format!("{} (version {}), a service\n\n{}\n", simulator.name, simulator.version, simulator.doc);
        parameters(&mut out, &simulator.params);
        return Ok(out);
    }
    let known: Vec<&str> =
        catalog.stages().map(|s| s.name()).chain(catalog.simulators().map(|s| s.name)).collect();
    let mut error = Error::usage(format!("no stage is called '{name}'"));
    error.hints.extend(suggest::hint(name, known));
    Err(error.hint("flow stages lists all"))
}

fn describe(name: &str, version: u32, signature: &Signature) -> String {
    let mut out = format!("{name} (version {version})\n\n{}\n", signature.doc);
    out.push_str(&format!("\npolicy: {}\n", signature.policy.as_str()));
    if !signature.inputs.is_empty() {
        out.push_str("\ninputs:\n");
    }
    for port in &signature.inputs {
        let arity = match port.arity {
            Arity::One => "one file",
            Arity::Optional => "one file, optional",
            Arity::Many => "any number of files",
        };
        out.push_str(&format!("  {}: {arity}. {}\n", port.name, port.doc));
    }
    if !signature.outputs.is_empty() {
        out.push_str("\noutputs:\n");
    }
    for port in &signature.outputs {
        let optional = if port.optional { " (may be left out)" } else { "" };
        out.push_str(&format!("  {}{optional}: {}\n", port.name, port.doc));
    }
    parameters(&mut out, &signature.params);
    out
}

fn parameters(out: &mut String, schema: &schemars::Schema) {
    let Some(properties) = schema.get("properties").and_then(|p| p.as_object()) else { return };
    if properties.is_empty() {
        return;
    }
    out.push_str("\nparameters:\n");
    let required: Vec<&str> = schema
        .get("required")
        .and_then(|r| r.as_array())
        .map(|list| list.iter().filter_map(|v| v.as_str()).collect())
        .unwrap_or_default();
    for (name, property) in properties {
        let doc = property.get("description").and_then(|d| d.as_str()).unwrap_or("").replace('\n', " ");
        let mut notes: Vec<String> = shape(schema, property).into_iter().collect();
        match property.get("default") {
            _ if required.contains(&name.as_str()) => notes.insert(0, "required".to_owned()),
            Some(default) if !default.is_null() => notes.push(format!("default {default}")),
            _ => {}
        }
        let rest = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        out.push_str(&format!("  {name}{rest}: {doc}\n"));
    }
}

/// What a parameter may be: a type, or its choices; `None` if anything.
fn shape(schema: &schemars::Schema, property: &Value) -> Option<String> {
    let list = |key: &str| property.get(key).and_then(Value::as_array);
    if let Some(name) = property.get("$ref").and_then(Value::as_str) {
        return shape(schema, schema.as_value().pointer(name.trim_start_matches('#'))?);
    }
    if let Some(only) = property.get("const") {
        return Some(only.to_string());
    }
    if let Some(choices) = list("enum") {
        return Some(choices.iter().map(Value::to_string).collect::<Vec<_>>().join(" | "));
    }
    if let Some(choices) = list("oneOf").or_else(|| list("anyOf")) {
        let shapes: Option<Vec<String>> = choices
            .iter()
            .filter(|choice| choice.get("type").is_none_or(|kind| kind != "null"))
            .map(|choice| shape(schema, choice))
            .collect();
        return shapes.map(|shapes| shapes.join(" | "));
    }
    let named = |kind: &str| match kind {
        "string" => "text".to_owned(),
        "array" => match property.get("items").and_then(|items| shape(schema, items)) {
            Some(item) => format!("list of {item}"),
            None => "list".to_owned(),
        },
        other => other.to_owned(),
    };
    match property.get("type")? {
        Value::String(kind) => Some(named(kind)),
        Value::Array(kinds) => {
            let kinds = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            Some(kinds.map(named).collect::<Vec<_>>().join(" | "))
        }
        _ => None,
    }
}
