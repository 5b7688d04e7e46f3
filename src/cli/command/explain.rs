//! `flow explain`: a node's key field by field, now and at its last success.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::NodeArgs;
use crate::engine;
use crate::error::Result;

pub(in crate::cli) fn run(app: &App, args: &NodeArgs) -> Result<ExitCode> {
    let project = app.open(&args.workflow)?;
    let found = engine::explain(&project, &args.node)?;
    let none = || match found.status {
        "would_fail" => "unknown, for this reason".to_owned(),
        _ => "unknown (something it takes is not made yet)".to_owned(),
    };
    let mut out = format!("{}: {}\n", found.node, found.status);
    if let Some(reason) = &found.reason {
        out.push_str(&format!("why:      {reason}\n"));
    }
    out.push_str(&format!("key now:  {}\n", found.key.clone().unwrap_or_else(none)));
    match (&found.last_key, &found.last_run) {
        (Some(key), Some(run)) => out.push_str(&format!("key last: {key} (run {run})\n")),
        _ => out.push_str("key last: none, it has not run here\n"),
    }
    if let Some(run) = &found.adopted {
        out.push_str(&format!("adopted:  what lay there in run {run}; this node did not make it\n"));
    }
    for output in &found.outputs {
        out.push_str(&format!("place:    {output}\n"));
    }
    if found.key.is_some() && found.last_key.is_some() {
        match found.changed.as_slice() {
            [] => out.push_str("changed:  nothing\n"),
            changed => changed.iter().for_each(|line| out.push_str(&format!("changed:  {line}\n"))),
        }
    }
    let changes: BTreeMap<&str, (&Option<String>, &Option<String>)> =
        found.changes.iter().map(|(name, old, new)| (name.as_str(), (old, new))).collect();
    out.push('\n');
    let width = found.components.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(60);
    for (name, text) in &found.components {
        let text = text.replace('\n', "\n    ");
        match changes.get(name.as_str()) {
            Some((old, _)) => {
                let old = old.as_deref().unwrap_or("(none)").replace('\n', "\n    ");
                out.push_str(&format!("- {name:width$}  {old}\n+ {name:width$}  {text}\n"));
            }
            None => out.push_str(&format!("  {name:width$}  {text}\n")),
        }
    }
    for (name, old, _) in found.changes.iter().filter(|(_, _, new)| new.is_none()) {
        out.push_str(&format!("- {name:width$}  {}\n", old.as_deref().unwrap_or("")));
    }
    app.printer.data(&out);
    Ok(ExitCode::SUCCESS)
}
