//! `flow graph`: the expanded graph as text, dot, mermaid, JSON or SVG.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::{GraphArgs, GraphFormat};
use crate::error::Result;
use crate::graph::draw;

pub(in crate::cli) fn run(app: &App, args: &GraphArgs) -> Result<ExitCode> {
    let project = app.open(&args.workflow)?;
    let graph = &project.graph;
    match args.format {
        GraphFormat::Text => app.printer.data(&draw::text(graph)),
        GraphFormat::Dot => app.printer.data(&draw::dot(graph)),
        GraphFormat::Mermaid => app.printer.data(&draw::mermaid(graph)),
        GraphFormat::Svg => app.printer.data(&draw::svg(graph)),
        GraphFormat::Json => return app.json(&draw::json(graph)),
    }
    Ok(ExitCode::SUCCESS)
}
