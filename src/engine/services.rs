//! Services of a run, each perhaps in several instances: started when a dependent is about to run, stopped when the last one is done.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::fill::{Address, Running};
use super::log_file;
use super::machine::{leased, show_devices};
use super::schedule::Seat;
use super::session::Session;
use crate::api::CancelToken;
use crate::event::Event;
use crate::exec::{Device, RunningService, ServiceFailure, ServiceSpec};
use crate::graph::{NodeAction, ServiceAction, ServiceIx, ServiceNode};
use crate::model::Probe;

/// The instances of all services of the graph, as far as they were ever asked for.
#[derive(Default)]
pub(super) struct Services(Mutex<HashMap<(ServiceIx, usize), Instance>>);

/// The addresses of the instances that are used, by service.
pub(super) type Called = HashMap<ServiceIx, Vec<Address>>;

/// One of them; who starts or stops it holds it meanwhile.
type Instance = Arc<Mutex<Slot>>;

#[derive(Default)]
enum Slot {
    #[default]
    Down,
    Up(RunningService),
    /// It died or could not be started; never restarted silently.
    Failed(ServiceFailure),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Services {
    fn slot(&self, ix: ServiceIx, instance: usize) -> Instance {
        Arc::clone(lock(&self.0).entry((ix, instance)).or_default())
    }

    /// Instances that were ever asked for.
    fn known(&self) -> Vec<(ServiceIx, usize)> {
        let mut known: Vec<_> = lock(&self.0).keys().copied().collect();
        known.sort_unstable();
        known
    }

    /// The addresses of leased instances; those that are down are started, first what others refer to, else all at once.
    pub(super) fn call(
        &self,
        session: &Session,
        seats: &BTreeMap<ServiceIx, Vec<Seat>>,
        cancel: &CancelToken,
    ) -> Result<Called, ServiceFailure> {
        let mut called = Called::new();
        let mut left: Vec<ServiceIx> = seats.keys().copied().collect();
        while !left.is_empty() {
            let uses = |ix: &ServiceIx| &session.project.graph.services[*ix].uses;
            let (next, rest): (Vec<_>, Vec<_>) =
                left.iter().partition(|ix| uses(ix).iter().all(|used| called.contains_key(used)));
            if next.is_empty() {
                return Err(failed("services that need each other".to_owned()));
            }
            let wave: Vec<(ServiceIx, &Seat)> =
                next.iter().flat_map(|ix| seats[ix].iter().map(|seat| (*ix, seat))).collect();
            let addresses = self.addresses(session, &wave, &called, cancel)?;
            for ((ix, _), address) in wave.into_iter().zip(addresses) {
                called.entry(ix).or_default().push(address);
            }
            left = rest;
        }
        Ok(called)
    }

    fn addresses(
        &self,
        session: &Session,
        seats: &[(ServiceIx, &Seat)],
        called: &Called,
        cancel: &CancelToken,
    ) -> Result<Vec<Address>, ServiceFailure> {
        if let [(ix, seat)] = seats {
            return Ok(vec![self.address(session, *ix, seat, called, cancel)?]);
        }
        std::thread::scope(|scope| {
            let start = |(ix, seat): &(ServiceIx, &Seat)| self.address(session, *ix, seat, called, cancel);
            let starts: Vec<_> = seats.iter().map(|one| scope.spawn(move || start(one))).collect();
            let all: Vec<_> = starts
                .into_iter()
                .map(|start| start.join().unwrap_or_else(|_| Err(failed("the start panicked".to_owned()))))
                .collect();
            all.into_iter().collect()
        })
    }

    fn address(
        &self,
        session: &Session,
        ix: ServiceIx,
        seat: &Seat,
        called: &Called,
        cancel: &CancelToken,
    ) -> Result<Address, ServiceFailure> {
        let name = name(session, ix, seat.instance);
        let slot = self.slot(ix, seat.instance);
        let mut slot = lock(&slot);
        if matches!(&*slot, Slot::Down) {
            *slot = match start(session, ix, seat, called, cancel) {
                Ok(running) => Slot::Up(running),
                Err(failure) if cancel.is_cancelled() => return Err(failure),
                Err(failure) => {
                    session.emit(Event::ServiceStopped {
                        service: name.clone(),
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
            Slot::Down => Err(failed(format!("service {name} is down"))),
        }
    }

    /// Whether an instance that should be up died. Never waits, so that it may be asked often.
    pub(super) fn is_dead(&self, ix: ServiceIx, instance: usize) -> bool {
        match self.slot(ix, instance).try_lock().as_deref() {
            Ok(Slot::Up(running)) => running.failure().is_some(),
            Ok(Slot::Failed(..)) => true,
            _ => false,
        }
    }

    /// What became of an instance that should be up, if it died.
    pub(super) fn death(&self, session: &Session, ix: ServiceIx, instance: usize) -> Option<ServiceFailure> {
        let slot = self.slot(ix, instance);
        let mut slot = lock(&slot);
        let failure = match &*slot {
            Slot::Up(running) => running.failure()?,
            Slot::Failed(failure) => return Some(failure.clone()),
            Slot::Down => return None,
        };
        let service = name(session, ix, instance);
        session.emit(Event::ServiceStopped { service, failure: Some(failure.message.clone()) });
        let old = std::mem::replace(&mut *slot, Slot::Failed(failure.clone()));
        if let (Slot::Up(running), Ok(guard)) = (old, session.guard()) {
            running.stop(guard, &session.interrupts.kill);
        }
        Some(failure)
    }

    /// Stops an instance if it is up. True if it had ended by itself before: then it is never started again.
    pub(super) fn stop_instance(&self, session: &Session, ix: ServiceIx, instance: usize) -> bool {
        let slot = self.slot(ix, instance);
        let mut slot = lock(&slot);
        if matches!(&*slot, Slot::Up(_))
            && let Slot::Up(running) = std::mem::take(&mut *slot)
            && let Ok(guard) = session.guard()
        {
            let service = name(session, ix, instance);
            let died = running.failure();
            let stopped = running.stop(guard, &session.interrupts.kill);
            if stopped.exit.is_none() {
                session.note(format!("service {service} could not be ended, not even by SIGKILL"));
            } else if stopped.killed && !session.interrupts.kill.is_cancelled() {
                let grace = session.project.graph.services[ix].stop;
                session.note(format!(
                    "service {service} did not end within {grace:?} after SIGTERM and was killed"
                ));
            }
            let failure = died.as_ref().map(|failure| failure.message.clone());
            session.emit(Event::ServiceStopped { service, failure });
            if let Some(failure) = died {
                *slot = Slot::Failed(failure);
            }
        }
        matches!(&*slot, Slot::Failed(_))
    }

    /// Stops everything, what needs others first. Each has its own grace: those that do not need each other get it at the same time.
    pub(super) fn stop_all(&self, session: &Session) {
        let services = &session.project.graph.services;
        let mut left = self.known();
        while !left.is_empty() {
            let needed = |ix: ServiceIx| left.iter().any(|(other, _)| services[*other].uses.contains(&ix));
            let (wave, rest): (Vec<_>, Vec<_>) = left.iter().copied().partition(|(ix, _)| !needed(*ix));
            // they cannot need each other in a circle
            let (wave, rest) = if wave.is_empty() { (rest, Vec::new()) } else { (wave, rest) };
            std::thread::scope(|scope| {
                for (ix, instance) in wave {
                    scope.spawn(move || self.stop_instance(session, ix, instance));
                }
            });
            left = rest;
        }
    }
}

/// What an instance is called: the service's id, with a number where there may be several.
pub(super) fn name(session: &Session, ix: ServiceIx, instance: usize) -> String {
    let services = &session.project.graph.services;
    let several = |service: &ServiceNode| service.per_gpu || service.replicas > 1;
    let node = &services[ix];
    match several(node) || node.beside.is_some_and(|host| several(&services[host])) {
        true => format!("{}#{instance}", node.id),
        false => node.id.clone(),
    }
}

fn start(
    session: &Session,
    ix: ServiceIx,
    seat: &Seat,
    called: &Called,
    cancel: &CancelToken,
) -> Result<RunningService, ServiceFailure> {
    let name = name(session, ix, seat.instance);
    let faulty = |message: String| failed(format!("service {name}: {message}"));
    let devices = session.project.leased(&seat.devices);
    session.emit(Event::ServiceStarting {
        service: name.clone(),
        devices: devices.iter().map(|device| leased(device, None)).collect(),
    });
    let begun = Instant::now();
    let node = &session.project.graph.services[ix];
    let spec = spec(session, node, &name, devices, called).map_err(faulty)?;
    let guard = session.guard().map_err(|e| failed(e.to_string()))?;
    let running = RunningService::start(&spec, guard, cancel)?;
    session.emit(Event::ServiceReady {
        service: name,
        url: running.url().to_owned(),
        pid: running.pid(),
        seconds: begun.elapsed().as_secs_f64(),
    });
    Ok(running)
}

fn failed(message: String) -> ServiceFailure {
    ServiceFailure { message, tail: Vec::new(), hints: Vec::new(), cancelled: false, missing: false }
}

fn spec(
    session: &Session,
    node: &ServiceNode,
    name: &str,
    devices: Vec<Device>,
    called: &Called,
) -> Result<ServiceSpec, String> {
    let mut base = session.base_env();
    show_devices(&mut base, &devices);
    let have = Arc::new((devices, called.clone()));
    let on = move |port: Option<u16>| {
        let (devices, services) = have.as_ref();
        Running { port, devices: devices.clone(), services: services.clone(), ..Running::default() }
    };
    let (none, with_port) = (on(None), on(Some(1)));
    let mut late_env: Vec<(String, crate::graph::Value)> = Vec::new();
    for (name, value) in &node.env {
        late_env.push((name.clone(), value.clone()));
    }
    // a fault that does not depend on the port is found now
    for (name, value) in &late_env {
        value.fill(&with_port).map_err(|e| format!("variable {name}: {e}"))?;
    }
    base.retain(|(name, _)| !node.env.contains_key(name));
    let on_env = on.clone();
    let env = move |port: u16| {
        let running = on_env(Some(port));
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
            with_port.argv(action)?;
            let action: NodeAction = action.clone();
            let argv = move |port: u16| {
                let running = on(Some(port));
                running.argv(&action).unwrap_or_default()
            };
            (Box::new(argv), node.probe.clone())
        }
    };
    let logs = session.project.store.dir().join("logs").join(&session.run);
    std::fs::create_dir_all(&logs).map_err(|e| format!("failed to create {}: {e}", logs.display()))?;
    Ok(ServiceSpec {
        id: name.to_owned(),
        argv,
        env: Box::new(env),
        cwd: session.project.root.clone(),
        port: node.port,
        probe,
        ready_timeout: node.ready_timeout,
        stop_grace: node.stop,
        log: logs.join(format!("service-{}.log", log_file::plain_name(name))),
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
