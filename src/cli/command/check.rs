//! `flow check`: a workflow is loaded and expanded; every fault is shown.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::FileArgs;
use crate::error::Result;

pub(in crate::cli) fn run(app: &App, args: &FileArgs) -> Result<ExitCode> {
    let project = app.open(args)?;
    app.printer.talk(&format!(
        "{}: ok, {} nodes, {} services\n",
        project.root_file(),
        project.graph.nodes.len(),
        project.graph.services.len()
    ));
    Ok(ExitCode::SUCCESS)
}
