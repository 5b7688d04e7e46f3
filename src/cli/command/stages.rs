//! `flow stages`: the built-in stages and simulators, or one with its inputs, outputs and parameters.

use std::process::ExitCode;

use crate::api::{Arity, Catalog, Signature};
use crate::base::suggest;
use crate::cli::app::App;
use crate::cli::args::StagesArgs;
use crate::cli::signature;
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
    for (index, parameter) in signature::parameters(schema).iter().enumerate() {
        if index == 0 {
            out.push_str("\nparameters:\n");
        }
        let need = if parameter.required { ", required" } else { "" };
        let default =
            parameter.default.as_ref().map(|value| format!(", default {value}")).unwrap_or_default();
        out.push_str(&format!(
            "  {} ({}{need}{default}): {}\n",
            parameter.path, parameter.kind, parameter.doc
        ));
    }
}
