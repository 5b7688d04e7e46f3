//! `flow schema`: JSON Schema of the workflow file.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::error::Result;
use crate::front;

pub(in crate::cli) fn run(app: &App) -> Result<ExitCode> {
    app.printer.data(&front::schema_text(&crate::stage::catalog()));
    Ok(ExitCode::SUCCESS)
}
