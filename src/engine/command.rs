//! One attempt of a command: where its outputs go, its environment, and what its end means.

use std::collections::HashSet;
use std::path::PathBuf;

use super::attempt::Failure;
use super::collect::Made;
use super::confine;
use super::discover::Depfile;
use super::fill::Running;
use super::log_file::LogFile;
use super::machine::show_devices;
use super::scratch::Scratch;
use super::services::plain;
use super::session::Session;
use crate::api::CancelToken;
use crate::error::{Error, Kind, Result};
use crate::exec::{self, CommandJob, Exit, Offence, run_command};
use crate::graph::{Late, Node, NodeAction, Output, Text};

/// Names of the outputs whose scratch path a command asks for.
fn asked(node: &Node) -> HashSet<String> {
    let mut asked: HashSet<String> = HashSet::new();
    let mut note = |late: &Late| {
        if let Late::Output(name) = late {
            asked.insert(name.clone());
        }
    };
    node.action.for_each_late(&mut note);
    node.env.values().for_each(|value| value.for_each_late(&mut note));
    asked
}

/// Whether a command makes an output in its declared place.
pub(super) fn makes_in_place(node: &Node) -> bool {
    let asked = asked(node);
    let stdout = node.action.io().and_then(|io| io.stdout.as_ref());
    let elsewhere =
        |output: &Output| asked.contains(&output.name) || output.append || stdout == Some(&output.name);
    is_command(node) && !node.outputs.iter().all(elsewhere)
}

/// Decides where each output of a command goes: to scratch if the command asks for `${outputs.N}` or its standard output is taken,
/// else to the declared place.
pub(super) fn places(session: &Session, node: &Node, scratch: &mut Scratch<'_>) -> Result<Vec<Made>> {
    let asked = asked(node);
    let stdout = node.action.io().and_then(|io| io.stdout.as_ref());
    let mut made = Vec::with_capacity(node.outputs.len());
    for (index, output) in node.outputs.iter().enumerate() {
        made.push(if asked.contains(&output.name) || output.append {
            // the command may look at its name, or write beside it
            scratch.named(index, output)?
        } else if stdout == Some(&output.name) && names(node.depfile(), &output.name) {
            // its depfile lies beside it
            scratch.named(index, output)?
        } else if stdout == Some(&output.name) {
            scratch.plain(index, output)?
        } else {
            let place = session.project.root.join(&output.path);
            super::publish::make_parent(&place)?;
            super::publish::refuse_foreign(session, output, &place)?;
            scratch.direct(place)?
        });
    }
    Ok(made)
}

/// Whether the path of a depfile is made from that of an output.
fn names(depfile: Option<&Text>, output: &str) -> bool {
    let mut found = false;
    let mut note = |late: &Late| found |= matches!(late, Late::Output(name) if name == output);
    depfile.into_iter().for_each(|text| text.for_each_late(&mut note));
    found
}

/// Where an attempt of a command is at home.
pub(super) struct Room<'a, 's> {
    /// Where its outputs go.
    pub(super) places: &'a [Made],
    /// Where it says what it read.
    pub(super) depfile: Option<&'a Depfile>,
    /// Where it may write besides.
    pub(super) scratch: &'a mut Scratch<'s>,
}

/// Runs the command to its end. With `--strict` and a depfile: what it read undeclared, for the depfile to name.
pub(super) fn run(
    session: &Session,
    node: &Node,
    running: &Running,
    room: &mut Room<'_, '_>,
    cancel: &CancelToken,
    log: &mut LogFile<'_>,
) -> std::result::Result<Vec<Offence>, Failure> {
    let argv = running.argv(&node.action).map_err(Failure::new)?;
    let io = node.action.io().cloned().unwrap_or_default();
    let root = &session.project.root;
    let cwd = io.cwd.as_ref().map_or_else(|| root.clone(), |cwd| root.join(cwd));
    let stdin: Option<PathBuf> = io
        .stdin
        .as_ref()
        .and_then(|name| running.inputs.get(name)?.first().map(|file| root.join(&file.path)));
    let stdout = io.stdout.as_ref().and_then(|name| running.outputs.get(name).cloned());
    let mut env = environment(session, node, running).map_err(Failure::new)?;
    let mut argv = share_jobs(session, node, &mut env, argv);
    if session.options.strict {
        argv = confine(session, node, running, room, &mut env, argv).map_err(Failure::from)?;
    }
    let guard = session.guard().map_err(Failure::from)?;
    let mut lines = |line: &str| log.line(line);
    let job = CommandJob {
        argv,
        env,
        cwd,
        stdin,
        stdout,
        timeout: node.timeout,
        cancel,
        kill_now: &session.interrupts.kill,
        log: &mut lines,
        masker: &session.masker,
    };
    let exit = run_command(job, guard).map_err(|error| Failure {
        kind: lack(error.missing),
        hints: error.hints.clone(),
        ..Failure::new(error.message.clone())
    })?;
    let mut passed = Vec::new();
    if session.options.strict && exit != Exit::Cancelled {
        let mut told = exec::told(&room.scratch.directory()?)?;
        passed = told.offences.extract_if(.., |offence| offence.passed).collect();
        if let Some(failure) = confine::failure(told, &exit.to_string()) {
            return Err(failure);
        }
    }
    match exit {
        Exit::Ok => Ok(passed),
        Exit::Code(code) => Err(Failure::retryable(format!("exit status {code}"))),
        Exit::Signal(_, name) => Err(Failure::retryable(format!("killed by {name}"))),
        Exit::TimedOut(limit) => {
            Err(Failure::retryable(format!("timed out after {} s", limit.as_secs_f64())))
        }
        Exit::Cancelled => Err(Failure { cancelled: true, ..Failure::new("cancelled") }),
    }
}

/// Replaces a command by one that runs it behind the wall of what it declares, with a private directory for temporary files.
fn confine(
    session: &Session,
    node: &Node,
    running: &Running,
    room: &mut Room<'_, '_>,
    env: &mut Vec<(String, String)>,
    argv: Vec<String>,
) -> Result<Vec<String>> {
    let attempt = room.scratch.directory()?;
    let temporary = confine::temporary(&attempt);
    std::fs::create_dir_all(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    if !node.env.contains_key("TMPDIR") {
        env.retain(|(name, _)| name != "TMPDIR");
        env.push(("TMPDIR".to_owned(), temporary.to_string_lossy().into_owned()));
    }
    let rules = confine::rules(session, node, running, room, env)?;
    exec::confined(&session.program, &attempt, rules, argv)
}

fn environment(
    session: &Session,
    node: &Node,
    running: &Running,
) -> std::result::Result<Vec<(String, String)>, String> {
    use crate::graph::Fill;
    let mut env = session.base_env();
    show_devices(&mut env, &running.devices);
    let mut set = |name: &str, value: String| {
        env.retain(|(known, _)| known != name);
        env.push((name.to_owned(), value));
    };
    for name in &node.pass_env {
        if let Ok(value) = std::env::var(name) {
            set(name, value);
        }
    }
    for (name, value) in &node.env {
        let filled =
            value.fill(running as &dyn Fill).map_err(|e| format!("environment variable {name}: {e}"))?;
        set(name, plain(&filled));
    }
    Ok(env)
}

/// Gives a command that asks for it the pool of job tokens. It is in no key: how many jobs run at once decides no result.
fn share_jobs(
    session: &Session,
    node: &Node,
    env: &mut Vec<(String, String)>,
    argv: Vec<String>,
) -> Vec<String> {
    let (Some(style), Some(pool)) = (node.resources.jobserver, session.jobs()) else { return argv };
    let more = node.env.get("MAKEFLAGS").and_then(|_| env.iter().find(|(name, _)| name == "MAKEFLAGS"));
    let more = more.map(|(_, value)| value.clone()).unwrap_or_default();
    let (flags, argv) = pool.hand(session.jobs_style(style), &more, argv);
    env.retain(|(name, _)| name != "MAKEFLAGS");
    env.push(("MAKEFLAGS".to_owned(), flags));
    argv
}

/// Whether a node is a command.
pub(super) fn is_command(node: &Node) -> bool {
    !matches!(node.action, NodeAction::Stage { .. })
}

/// A missing program is a lack of the machine, as a missing tool is.
pub(super) fn lack(missing: bool) -> Kind {
    if missing { Kind::Environment } else { Kind::Step }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { kind: error.kind, hints: error.hints, ..Self::new(error.message) }
    }
}

impl Failure {
    /// A failure that would only repeat.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Step,
            message: message.into(),
            hints: Vec::new(),
            tail: Vec::new(),
            retryable: false,
            retry_after: None,
            cancelled: false,
        }
    }

    /// A failure that may pass.
    pub(super) fn retryable(message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(message) }
    }
}
