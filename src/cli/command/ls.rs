//! `flow ls`: nodes and outputs, or orphans.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::LsArgs;
use crate::engine;
use crate::error::Result;
use crate::observe::table;

pub(in crate::cli) fn run(app: &App, args: &LsArgs) -> Result<ExitCode> {
    let project = app.open(&args.workflow)?;
    if args.orphans {
        for path in engine::orphans(&project) {
            app.printer.data(&format!("{path}\n"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for node in engine::list(&project) {
        if node.outputs.is_empty() {
            rows.push(vec![node.id.clone(), String::new(), String::new()]);
        }
        for (name, path) in node.outputs {
            let mut row = vec![node.id.clone(), name, path];
            row.extend(node.adopted.then(|| "adopted".to_owned()));
            rows.push(row);
        }
    }
    app.printer.data(&table::render(&["node", "output", "path"], &[], &rows));
    Ok(ExitCode::SUCCESS)
}
