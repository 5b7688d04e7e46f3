//! Beside a run: one service kept up (`flow up`), one command in a node's environment (`flow exec`).

use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::fill::Running;
use super::machine::{show_devices, wants};
use super::query::node_named;
use super::schedule::{Lease, Use, Wants};
use super::services::plain;
use super::session::Session;
use crate::base::{process, suggest};
use crate::error::{Error, Kind, Result};
use crate::exec::ServiceFailure;
use crate::graph::{Fill, NodeAction, ServiceIx};

/// Starts a service with all its instances, and all of its matrix if no combination is named; says their URLs, and stops them when
/// asked to.
pub fn up(session: &mut Session, service: &str, ready: &mut dyn FnMut(&str)) -> Result<()> {
    let services = &session.project.graph.services;
    let is_meant = |known: &str| {
        known == service || known.strip_prefix(service).is_some_and(|rest| rest.starts_with('['))
    };
    let meant: Vec<ServiceIx> = (0..services.len()).filter(|ix| is_meant(&services[*ix].id)).collect();
    if meant.is_empty() {
        let mut error = Error::usage(format!("this workflow has no service '{service}'"));
        error.hints.push(
            suggest::hint(service, services.iter().map(|s| s.id.as_str()))
                .unwrap_or_else(|| "this workflow declares no services".to_owned()),
        );
        return Err(error);
    }
    let whole = |service| Use { service, whole: true, alone: false };
    let needed = meant.iter().flat_map(|ix| session.project.graph.needed_services(*ix));
    let all: BTreeSet<ServiceIx> = needed.chain(meant.iter().copied()).collect();
    let uses = all.into_iter().map(whole).collect();
    let wants = Wants { own: None, uses };
    let (_fleet, lease) = session.project.lease(&format!("service '{service}'"), &wants, &session.sink)?;
    let result = session.services.call(session, &lease.seats, &session.interrupts.stop);
    let result = match result {
        Ok(called) => {
            meant.iter().flat_map(|ix| &called[ix]).for_each(|address| ready(&address.url));
            loop {
                if session.stopping() {
                    break Ok(());
                }
                if let Some(failure) = death(session, &lease) {
                    break Err(with_tail(failure));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Err(_) if session.stopping() => Ok(()),
        Err(failure) => Err(with_tail(failure)),
    };
    session.services.stop_all(session);
    session.close();
    result
}

/// Whether a service of the lease died.
fn death(session: &Session, lease: &Lease) -> Option<ServiceFailure> {
    let mut seats = lease.seats.iter().flat_map(|(ix, seats)| seats.iter().map(|seat| (*ix, seat.instance)));
    seats.find_map(|(ix, instance)| session.services.death(session, ix, instance))
}

fn with_tail(failure: ServiceFailure) -> Error {
    let tail: String = failure.tail.iter().map(|line| format!("\n  {line}")).collect();
    let kind = if failure.cancelled { Kind::Interrupted } else { Kind::Step };
    Error { hints: failure.hints, ..Error::new(kind, format!("{}{tail}", failure.message)) }
}

/// Runs a command with the environment, directory and services of a node. Its streams are this process's own.
pub fn exec(session: &mut Session, node: &str, argv: &[std::ffi::OsString]) -> Result<ExitStatus> {
    let ix = node_named(&session.project, node)?;
    let node = session.project.graph.nodes[ix].clone();
    let result = (|| {
        let mut running = Running::default();
        for output in &node.outputs {
            running.outputs.insert(output.name.clone(), session.project.root.join(&output.path));
        }
        let (_fleet, lease) = session.project.lease(&node.id, &wants(&node), &session.sink)?;
        running.devices = session.project.leased(&lease.devices);
        let called = session.services.call(session, &lease.seats, &session.interrupts.stop);
        running.services = called.map_err(with_tail)?;
        let mut env = session.base_env();
        show_devices(&mut env, &running.devices);
        let mut env: std::collections::BTreeMap<String, String> = env.into_iter().collect();
        for name in &node.pass_env {
            if let Ok(value) = std::env::var(name) {
                env.insert(name.clone(), value);
            }
        }
        for (name, value) in &node.env {
            let value = value
                .fill(&running as &dyn Fill)
                .map_err(|e| Error::step(format!("variable {name}: {e}")))?;
            env.insert(name.clone(), plain(&value));
        }
        let root = &session.project.root;
        let cwd = match &node.action {
            NodeAction::Stage { .. } => root.clone(),
            action => {
                action.io().and_then(|io| io.cwd.as_ref()).map_or_else(|| root.clone(), |cwd| root.join(cwd))
            }
        };
        let (program, args) = argv.split_first().ok_or_else(|| Error::usage("no command"))?;
        // from now on nothing of it outlives flow
        session.guard()?;
        let child = std::process::Command::new(program)
            .args(args)
            .env_clear()
            .envs(env)
            .current_dir(cwd)
            .spawn()
            .map_err(|e| Error::environment(format!("failed to start {}: {e}", program.to_string_lossy())))?;
        attend(session, child, &lease)
    })();
    session.services.stop_all(session);
    session.close();
    result
}

/// Waits for a command that shares this process's terminal: Ctrl-C there reaches it without help, anything else is passed on.
/// If a service dies that it uses, the command is ended.
fn attend(session: &Session, mut child: std::process::Child, lease: &Lease) -> Result<ExitStatus> {
    use std::io::IsTerminal;
    let at_terminal = std::io::stdin().is_terminal();
    let interrupts = &session.interrupts;
    let mut asked = false;
    let mut dead = None;
    let mut looked = Instant::now();
    loop {
        if let Some(status) =
            child.try_wait().map_err(|e| Error::environment(format!("failed to wait: {e}")))?
        {
            return dead.map_or(Ok(status), |failure| Err(with_tail(failure)));
        }
        if dead.is_none() && looked.elapsed() >= Duration::from_millis(50) {
            looked = Instant::now();
            dead = death(session, lease);
            if dead.is_some() {
                process::kill(child.id(), Signal::SIGTERM);
            }
        }
        if !at_terminal || interrupts.terminated.is_cancelled() {
            if interrupts.kill.is_cancelled() {
                process::kill(child.id(), Signal::SIGKILL);
            } else if interrupts.stop.is_cancelled() && !asked {
                asked = true;
                process::kill(child.id(), Signal::SIGTERM);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `on_finish` of the root workflow; its outcome changes nothing and is only said.
pub fn on_finish(project: &super::Project, run: &str, outcome: &str) -> Option<String> {
    let action = project.graph.on_finish.as_ref()?;
    let argv = match Running::default().argv(action) {
        Ok(argv) => argv,
        Err(message) => return Some(format!("on_finish: {message}")),
    };
    let (program, args) = argv.split_first()?;
    let status = std::process::Command::new(program)
        .args(args)
        .env("FLOW_RUN_ID", run)
        .env("FLOW_OUTCOME", outcome)
        .current_dir(&project.root)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("on_finish ended with {status}")),
        Err(error) => Some(format!("on_finish could not be started: {error}")),
    }
}
