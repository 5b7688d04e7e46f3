//! `flow exec`: a command in a node's environment.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::ExecArgs;
use crate::cli::signals;
use crate::engine::{self, RunOptions, Session};
use crate::error::Result;

pub(in crate::cli) fn run(app: &App, args: &ExecArgs) -> Result<ExitCode> {
    let interrupts = signals::listen()?;
    let _lock = super::run::lock(app, args.no_wait, &interrupts)?;
    let project = app.open(&args.workflow)?;
    let mut session =
        Session::recovering(project, RunOptions::default(), super::run::quiet_sink(app), interrupts)?;
    let status = engine::exec(&mut session, &args.node, &args.command)?;
    // as a shell does it
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.map_or(1, |code| code as u8)))
}
