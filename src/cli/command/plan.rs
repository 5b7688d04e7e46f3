//! `flow plan`: what would run, and why.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::app::App;
use crate::cli::args::SelectArgs;
use crate::engine::{self, PlanStatus};
use crate::error::Result;
use crate::observe::table;

pub(in crate::cli) fn run(app: &App, select: &SelectArgs, as_json: bool) -> Result<ExitCode> {
    let project = app.open(&select.workflow)?;
    let options = super::run::options(select);
    if let Some(line) = engine::upgrade_note_for(&project, &options)? {
        app.printer.talk(&format!("{line}\n"));
    }
    for line in engine::remarks(&project) {
        app.printer.talk(&format!("note: {line}\n"));
    }
    let nodes = engine::plan(&project, &options)?;
    let mut counts: BTreeMap<PlanStatus, usize> = BTreeMap::new();
    for node in &nodes {
        *counts.entry(node.status).or_default() += 1;
    }
    project.workspace.sync()?;
    if as_json {
        let counts: serde_json::Map<String, serde_json::Value> =
            counts.iter().map(|(status, n)| (status.as_str().to_owned(), json!(n))).collect();
        return app.json(&json!({
            "workflow": project.graph.name,
            "plan_digest": project.plan_digest().to_string(),
            "counts": counts,
            "nodes": nodes,
        }));
    }
    let shown = nodes.iter().filter(|node| node.status != PlanStatus::Fresh || app.cli.global.verbose);
    let rows: Vec<Vec<String>> = shown
        .map(|node| {
            let reason = match (&node.reason, node.doc.as_str()) {
                (Some(reason), "") => reason.clone(),
                (Some(reason), doc) => format!("{reason}  ({doc})"),
                (None, doc) => doc.to_owned(),
            };
            vec![node.status.as_str().to_owned(), node.id.clone(), reason]
        })
        .collect();
    if !rows.is_empty() {
        app.printer.data(&table::render(&["status", "node", "why"], &[], &rows));
    }
    let counts: Vec<String> = counts.iter().map(|(status, n)| format!("{n} {}", status.as_str())).collect();
    app.printer.talk(&format!("{} nodes: {}\n", nodes.len(), counts.join(", ")));
    Ok(ExitCode::SUCCESS)
}
