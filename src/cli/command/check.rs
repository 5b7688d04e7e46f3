//! `flow check`: a workflow is loaded and expanded; every fault is shown.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::FileArgs;
use crate::engine;
use crate::error::Result;

pub(in crate::cli) fn run(app: &App, args: &FileArgs) -> Result<ExitCode> {
    let project = app.open(args)?;
    for line in engine::remarks(&project) {
        app.printer.talk(&format!("note: {line}\n"));
    }
    let some = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    app.printer.talk(&format!(
        "{}: ok, {}, {}\n",
        project.root_file(),
        some(project.graph.nodes.len(), "node"),
        some(project.graph.services.len(), "service")
    ));
    Ok(ExitCode::SUCCESS)
}
