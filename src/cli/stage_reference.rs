//! `docs/reference/stages.md`, made from what the stages say of themselves. Unaware of what they do.
#![cfg(test)]

use std::fmt::Write;

use schemars::Schema;

use super::signature;
use crate::api::{Arity, Catalog, Signature};

/// The page: a table of all, then one section each.
fn markdown(catalog: &Catalog) -> String {
    let mut out = String::from(
        "# Stages\n\n<!-- made from src/stage; FLOW_UPDATE=1 cargo test writes it -->\n\n\
        What `\"uses\"` of a step can name, and at the end the simulators that `\"uses\"` of a service can name. `flow stages NAME` prints the same.\n\n\
        | stage | what it does |\n| --- | --- |\n",
    );
    let stages = catalog.stages().map(|stage| (stage.name(), stage.signature().doc));
    for (name, doc) in stages.chain(catalog.simulators().map(|s| (s.name, s.doc))) {
        let line = doc.lines().next().unwrap_or_default();
        push(&mut out, format_args!("| [`{name}`](#{}) | {} |\n", name.replace('.', ""), cell(line)));
    }
    for stage in catalog.stages() {
        section(&mut out, stage.name(), stage.version(), &stage.signature());
    }
    for simulator in catalog.simulators() {
        push(
            &mut out,
            format_args!("\n## {}\n\nA service, version {}.\n\n", simulator.name, simulator.version),
        );
        push(&mut out, format_args!("{}\n", simulator.doc));
        parameters(&mut out, &simulator.params);
    }
    out
}

fn section(out: &mut String, name: &str, version: u32, signature: &Signature) {
    let policy = signature.policy.as_str();
    push(out, format_args!("\n## {name}\n\nVersion {version}, policy {policy}.\n\n{}\n", signature.doc));
    if !signature.inputs.is_empty() {
        out.push_str("\n| input | takes | |\n| --- | --- | --- |\n");
    }
    for port in &signature.inputs {
        let arity = match port.arity {
            Arity::One => "one file",
            Arity::Optional => "one file, optional",
            Arity::Many => "any number of files",
        };
        push(out, format_args!("| `{}` | {arity} | {} |\n", port.name, cell(port.doc)));
    }
    if !signature.outputs.is_empty() {
        out.push_str("\n| output | |\n| --- | --- |\n");
    }
    for port in &signature.outputs {
        let optional = if port.optional { " (may be left out)" } else { "" };
        push(out, format_args!("| `{}`{optional} | {} |\n", port.name, cell(port.doc)));
    }
    parameters(out, &signature.params);
}

fn parameters(out: &mut String, schema: &Schema) {
    for (index, parameter) in signature::parameters(schema).into_iter().enumerate() {
        if index == 0 {
            out.push_str("\n| parameter | takes | default | |\n| --- | --- | --- | --- |\n");
        }
        let default = match (parameter.required, parameter.default) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) => format!("`{default}`"),
            (false, None) => String::new(),
        };
        push(
            out,
            format_args!(
                "| `{}` | {} | {} | {} |\n",
                parameter.path,
                cell(&parameter.kind),
                cell(&default),
                cell(&parameter.doc)
            ),
        );
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Writing to a text cannot fail.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).ok();
}

#[test]
fn the_page_in_the_repository_is_current() {
    let page = markdown(&crate::stage::catalog());
    crate::observe::check_current("docs/reference/stages.md", &page).unwrap();
}
