//! Services of a run: started when a dependent is about to run, stopped when the last one is done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::fill::{Address, Running};
use super::session::Session;
use crate::api::CancelToken;
use crate::event::Event;
use crate::exec::{RunningService, ServiceFailure, ServiceSpec};
use crate::graph::{NodeAction, ServiceAction, ServiceIx, ServiceNode};
use crate::model::Probe;

/// Slots of all services of the graph.
pub(super) struct Services(Vec<Mutex<Slot>>);

#[derive(Default)]
enum Slot {
    #[default]
    Down,
    Up(RunningService),
    /// It died or could not be started; never restarted silently.
    Failed(ServiceFailure),
}

impl Services {
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).map(|_| Mutex::default()).collect())
    }

    /// The address of a service, which is started if it is down.
    pub(super) fn address(
        &self,
        session: &Session,
        ix: ServiceIx,
        cancel: &CancelToken,
    ) -> Result<Address, ServiceFailure> {
        let node = &session.project.graph.services[ix];
        let mut slot = self.0[ix].lock().unwrap_or_else(|e| e.into_inner());
        if matches!(&*slot, Slot::Down) {
            *slot = match start(session, node, cancel) {
                Ok(running) => Slot::Up(running),
                Err(failure) if cancel.is_cancelled() => return Err(failure),
                Err(failure) => {
                    session.emit(Event::ServiceStopped {
                        service: node.id.clone(),
                        failure: Some(failure.message.clone()),
                    });
                    Slot::Failed(failure)
                }
            };
        }
        match &*slot {
            Slot::Up(running) => Ok(Address {
                url: running.url().to_owned(),
                host: running.host().to_owned(),
                port: running.port(),
            }),
            Slot::Failed(failure) => Err(failure.clone()),
            Slot::Down => Err(failed(format!("service {} is down", node.id))),
        }
    }

    /// Whether a service that should be up died. Never waits, so that it may be asked often.
    pub(super) fn is_dead(&self, ix: ServiceIx) -> bool {
        match self.0[ix].try_lock().as_deref() {
            Ok(Slot::Up(running)) => running.failure().is_some(),
            Ok(Slot::Failed(..)) => true,
            _ => false,
        }
    }

    /// What became of a service that should be up, if it died.
    pub(super) fn death(&self, session: &Session, ix: ServiceIx) -> Option<ServiceFailure> {
        let mut slot = self.0[ix].lock().unwrap_or_else(|e| e.into_inner());
        let failure = match &*slot {
            Slot::Up(running) => running.failure()?,
            Slot::Failed(failure) => return Some(failure.clone()),
            Slot::Down => return None,
        };
        let id = &session.project.graph.services[ix].id;
        session.emit(Event::ServiceStopped { service: id.clone(), failure: Some(failure.message.clone()) });
        let old = std::mem::replace(&mut *slot, Slot::Failed(failure.clone()));
        if let (Slot::Up(running), Ok(guard)) = (old, session.guard()) {
            running.stop(guard, &session.interrupts.kill);
        }
        Some(failure)
    }

    /// Stops a service if it is up.
    pub(super) fn stop(&self, session: &Session, ix: ServiceIx) {
        let mut slot = self.0[ix].lock().unwrap_or_else(|e| e.into_inner());
        if matches!(&*slot, Slot::Up(_))
            && let Slot::Up(running) = std::mem::take(&mut *slot)
            && let Ok(guard) = session.guard()
        {
            let id = session.project.graph.services[ix].id.clone();
            let died = running.failure().map(|failure| failure.message);
            let stopped = running.stop(guard, &session.interrupts.kill);
            if stopped.exit.is_none() {
                session.note(format!("service {id} could not be ended, not even by SIGKILL"));
            } else if stopped.killed && !session.interrupts.kill.is_cancelled() {
                let grace = session.project.graph.services[ix].stop;
                session
                    .note(format!("service {id} did not end within {grace:?} after SIGTERM and was killed"));
            }
            session.emit(Event::ServiceStopped { service: id, failure: died });
        }
    }

    /// Stops everything.
    pub(super) fn stop_all(&self, session: &Session) {
        for ix in 0..self.0.len() {
            self.stop(session, ix);
        }
    }
}

fn start(
    session: &Session,
    node: &ServiceNode,
    cancel: &CancelToken,
) -> Result<RunningService, ServiceFailure> {
    session.emit(Event::ServiceStarting { service: node.id.clone() });
    let begun = Instant::now();
    let spec = spec(session, node).map_err(|message| failed(format!("service {}: {message}", node.id)))?;
    let guard = session.guard().map_err(|e| failed(e.to_string()))?;
    let running = RunningService::start(&spec, guard, cancel)?;
    session.emit(Event::ServiceReady {
        service: node.id.clone(),
        url: running.url().to_owned(),
        pid: running.pid(),
        seconds: begun.elapsed().as_secs_f64(),
    });
    Ok(running)
}

fn failed(message: String) -> ServiceFailure {
    ServiceFailure { message, tail: Vec::new(), hints: Vec::new(), cancelled: false, missing: false }
}

fn spec(session: &Session, node: &ServiceNode) -> Result<ServiceSpec, String> {
    let none = Running::default();
    let mut base = session.base_env();
    let mut late_env: Vec<(String, crate::graph::Value)> = Vec::new();
    for (name, value) in &node.env {
        late_env.push((name.clone(), value.clone()));
    }
    // a fault that does not depend on the port is found now
    for (name, value) in &late_env {
        let with_port = Running { port: Some(1), ..Running::default() };
        value.fill(&with_port).map_err(|e| format!("variable {name}: {e}"))?;
    }
    base.retain(|(name, _)| !node.env.contains_key(name));
    let env = move |port: u16| {
        let running = Running { port: Some(port), ..Running::default() };
        let mut env: HashMap<String, String> = base.iter().cloned().collect();
        for (name, value) in &late_env {
            if let Ok(value) = value.fill(&running) {
                env.insert(name.clone(), plain(&value));
            }
        }
        let mut env: Vec<_> = env.into_iter().collect();
        env.sort();
        env
    };
    let (argv, probe): (Box<dyn Fn(u16) -> Vec<String> + Send + Sync>, Probe) = match &node.action {
        ServiceAction::Simulator { name, with, .. } => {
            let mut with = with.fill(&none)?;
            if let (Some(port), Some(with)) = (node.port, with.as_object_mut()) {
                with.insert("port".to_owned(), port.into());
            }
            let with = with.to_string();
            let program = session.program.to_string_lossy().into_owned();
            let argv = vec![program, "__sim".to_owned(), name.clone(), with];
            (Box::new(move |_| argv.clone()), Probe::Announce)
        }
        ServiceAction::Command(action) => {
            let with_port = Running { port: Some(1), ..Running::default() };
            with_port.argv(action)?;
            let action: NodeAction = action.clone();
            let argv = move |port: u16| {
                let running = Running { port: Some(port), ..Running::default() };
                running.argv(&action).unwrap_or_default()
            };
            (Box::new(argv), node.probe.clone())
        }
    };
    let logs = session.project.store.dir().join("logs").join(&session.run);
    std::fs::create_dir_all(&logs).map_err(|e| format!("failed to create {}: {e}", logs.display()))?;
    Ok(ServiceSpec {
        id: node.id.clone(),
        argv,
        env: Box::new(env),
        cwd: session.project.root.clone(),
        port: node.port,
        probe,
        ready_timeout: node.ready_timeout,
        stop_grace: node.stop,
        log: logs.join(format!("service-{}.log", node.id)),
        masker: Arc::clone(&session.masker),
    })
}

/// A value as the text of a variable.
pub(super) fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
