//! The process between flow and a confined program: the tracer, and the child that becomes the program. Unaware of what the rules are.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use landlock::RulesetStatus;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::report::Report;
use super::trace::{End, Tracer, seize};
use super::{Spec, filter, report_path, wall};
use crate::exec::Masker;
use crate::exec::launch::Launch;
use crate::{Error, Result};

/// What it ends with if the program could not be started.
const NOT_STARTED: u8 = 126;

/// `flow __strict SPEC`: runs the command of `spec` confined, and ends as it ended.
pub fn strict_main(spec: &Path, inner: bool) -> ExitCode {
    let Ok(mut report) = Report::append_to(&report_path(spec)) else { return ExitCode::from(NOT_STARTED) };
    let ended = if inner { become_program(spec, &mut report) } else { trace(spec, &mut report) };
    match ended {
        Ok(End::Code(code)) => ExitCode::from(code as u8),
        Ok(End::Signal(signal)) => {
            // no core of this process: it is not the one that crashed
            let _ = nix::sys::prctl::set_dumpable(false);
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            ExitCode::from(128 + signal as u8)
        }
        Err(error) => {
            report.not_confined(error);
            ExitCode::from(NOT_STARTED)
        }
    }
}

fn read(spec: &Path) -> Result<Spec> {
    let bytes = std::fs::read(spec).map_err(|e| Error::io("read", spec, e))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::bug(format!("{} cannot be read: {e}", spec.display())))
}

/// Starts the inner process and follows it and all it starts.
fn trace(path: &Path, report: &mut Report) -> Result<End> {
    let spec = read(path)?;
    // signals of the group are for the program; this process ends after it
    let heard = Arc::new(AtomicBool::new(false));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signal_hook::flag::register(signal as i32, heard.clone())
            .map_err(|e| Error::environment(format!("failed to handle {signal}: {e}")))?;
    }
    let exe = std::env::current_exe()
        .map_err(|e| Error::environment(format!("failed to find the path of this program: {e}")))?;
    let child = Command::new(&exe)
        .args(["__strict", "--inner"])
        .arg(path)
        .spawn()
        .map_err(|e| Error::io("start", &exe, e))?;
    let main = Pid::from_raw(child.id() as i32);
    loop {
        match waitpid(main, Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Stopped(..)) => break,
            Ok(WaitStatus::Exited(_, code)) => return Ok(End::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(End::Signal(signal as i32)),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(Error::environment(format!("failed to wait for the command: {e}"))),
        }
    }
    if let Err(e) = seize(main) {
        let _ = kill(main, Signal::SIGKILL);
        return Err(Error::environment(format!("--strict needs to trace the command (ptrace): {e}"))
            .hint("a container may forbid it (--cap-add SYS_PTRACE, or its seccomp profile), or kernel.yama.ptrace_scope is above 1")
            .hint("without --strict commands run unconfined"));
    }
    let _ = kill(main, Signal::SIGCONT);
    Ok(Tracer::new(&spec.rules, report, main).follow())
}

/// Waits to be traced, goes behind the wall, and becomes the program. Returns only if that fails.
fn become_program(path: &Path, report: &mut Report) -> Result<End> {
    let spec = read(path)?;
    let env: Vec<(String, String)> = std::env::vars().collect();
    let cwd =
        std::env::current_dir().map_err(|e| Error::environment(format!("no current directory: {e}")))?;
    let masker = Masker::default();
    let launch =
        Launch { argv: &spec.argv, env: &env, cwd: &cwd, stdin: None, stdout: None, masker: &masker };
    let not_started = |report: &mut Report, error: crate::exec::LaunchError| {
        report.not_started(error);
        Ok(End::Code(i32::from(NOT_STARTED)))
    };
    let Some(program) = spec.argv.first() else { return Err(Error::bug("a confined command is empty")) };
    let resolved = match launch.resolve(program) {
        Ok(resolved) => resolved,
        Err(error) => return not_started(report, error),
    };
    let ruleset = wall::build(&spec.rules)?;
    raise(Signal::SIGSTOP).map_err(|e| Error::environment(format!("failed to stop for the tracer: {e}")))?;
    let status = ruleset
        .restrict_self()
        .map_err(|e| Error::environment(format!("failed to confine the command with Landlock: {e}")))?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(Error::environment("the kernel did not enforce the Landlock rules of the command"));
    }
    filter::install()?;
    let failed = Command::new(&resolved).arg0(program).args(&spec.argv[1..]).exec();
    not_started(report, launch.explain(program, &resolved, &failed))
}
