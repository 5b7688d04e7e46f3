//! `flow up`: one service, until Ctrl-C.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::UpArgs;
use crate::cli::signals;
use crate::engine::{self, RunOptions, Session};
use crate::error::Result;

pub(in crate::cli) fn run(app: &App, args: &UpArgs) -> Result<ExitCode> {
    let interrupts = signals::listen()?;
    let project = app.open(&args.workflow)?;
    let mut session = Session::new(project, RunOptions::default(), super::run::quiet_sink(app), interrupts)?;
    engine::up(&mut session, &args.service, &mut |url| app.printer.data(&format!("{url}\n")))?;
    Ok(ExitCode::SUCCESS)
}
