//! `flow clean`: outputs or orphans are removed.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::CleanArgs;
use crate::cli::signals;
use crate::engine;
use crate::error::Result;

pub(in crate::cli) fn run(app: &App, args: &CleanArgs) -> Result<ExitCode> {
    let interrupts = signals::listen()?;
    let _lock = super::run::lock(app, args.no_wait, &interrupts)?;
    let mut project = app.open(&args.workflow)?;
    engine::recover(&mut project)?;
    let report = engine::clean(&project, args.orphans, args.dry_run)?;
    for path in &report.removed {
        app.printer.data(&format!("{path}\n"));
    }
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    let kept = match report.kept.len() {
        0 => String::new(),
        n => format!(", {n} kept (another workflow has published them, too)"),
    };
    app.printer.talk(&format!("{} {verb}{kept}\n", report.removed.len()));
    Ok(ExitCode::SUCCESS)
}
