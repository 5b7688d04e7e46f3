//! `flow key`: one digest for a CI cache key.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::KeyArgs;
use crate::engine;
use crate::error::Result;

pub(in crate::cli) fn run(app: &App, args: &KeyArgs) -> Result<ExitCode> {
    let project = app.open(&args.workflow)?;
    let digest = engine::source_key(&project, &args.targets)?;
    app.printer.data(&format!("{}\n", digest.hex()));
    Ok(ExitCode::SUCCESS)
}
