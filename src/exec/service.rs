//! Service processes: started on a port of their own, watched until ready, stopped whole. Unaware of leases and of who uses them.

use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regex::Regex;

use super::command::Exit;
use super::family::{Family, Mark};
use super::launch::{Launch, Launched};
use super::service_log::ServiceLog;
use super::{Guard, Masker, port, probe};
use crate::api::CancelToken;
use crate::base::process;
use crate::model::Probe;

/// How often a free port is tried that another process takes in between.
const PORT_TRIES: usize = 3;
/// Between TERM and KILL for a service that never became ready.
const FAILED_GRACE: Duration = Duration::from_secs(1);
/// How long a killed service may take to vanish.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Shortest time between two looks at whether a ready service still listens.
const LISTEN_CHECK: Duration = Duration::from_millis(250);
/// Lines of its output in a failure.
const TAIL: usize = 20;

/// Makes a command line for a port.
pub type ArgvForPort = Box<dyn Fn(u16) -> Vec<String> + Send + Sync>;
/// Makes a complete environment for a port.
pub type EnvForPort = Box<dyn Fn(u16) -> Vec<(String, String)> + Send + Sync>;

/// A service to start.
pub struct ServiceSpec {
    /// Its id, for messages.
    pub id: String,
    /// Program and arguments.
    pub argv: ArgvForPort,
    /// The complete environment; `FLOW_SERVICE` is added.
    pub env: EnvForPort,
    /// Where it runs.
    pub cwd: PathBuf,
    /// A fixed port; `None`: a free one.
    pub port: Option<u16>,
    /// When it counts as up.
    pub probe: Probe,
    /// How long that may take.
    pub ready_timeout: Duration,
    /// Between TERM and KILL.
    pub stop_grace: Duration,
    /// Where its output is appended, masked.
    pub log: PathBuf,
    /// Knows the secrets.
    pub masker: Arc<Masker>,
}

/// Why a service is not there (any more).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceFailure {
    /// Names the service and what happened.
    pub message: String,
    /// The last lines of its output, masked.
    pub tail: Vec<String>,
    /// What to try; each a line of its own.
    pub hints: Vec<String>,
    /// It was asked to stop before it was ready.
    pub cancelled: bool,
}

/// How a service was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How it ended; `None` if even KILL did not end it in time.
    pub exit: Option<Exit>,
    /// It did not end within its grace.
    pub killed: bool,
}

/// A service that was ready. Dropping it without [`RunningService::stop`] kills it.
#[derive(Debug)]
pub struct RunningService {
    id: String,
    url: String,
    host: String,
    port: u16,
    stop_grace: Duration,
    log: ServiceLog,
    process: Mutex<Process>,
    family: Family,
    /// It listened on its port when it became ready.
    listened: bool,
    last_check: Mutex<Instant>,
}

/// The leading process of a service.
#[derive(Debug)]
struct Process {
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }
}

/// Who listens on a service's port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listener {
    Nobody,
    Own,
    Stranger,
    /// The system does not say.
    Unknown,
}

/// Why one try of a start failed.
enum Fault {
    /// Somebody else has the port: another port may do.
    Port(ServiceFailure),
    Other(ServiceFailure),
}

impl RunningService {
    /// Starts a service and waits until it is ready. After an error nothing of it is left.
    ///
    /// # Errors
    /// It cannot be started, its fixed port is taken, it dies or is not ready in time, or `cancel` is set.
    pub fn start(
        spec: &ServiceSpec,
        guard: &Guard,
        cancel: &CancelToken,
    ) -> Result<RunningService, ServiceFailure> {
        if let Some(fixed) = spec.port {
            if let Some(owner) = port::taken_by(fixed) {
                let message = format!("service '{}' needs port {fixed}, which is taken by {owner}", spec.id);
                return Err(ServiceFailure::new(message)
                    .hint("stop that process, or leave 'port' out: then a free one is chosen"));
            }
            return Self::try_port(spec, fixed, guard, cancel).map_err(Fault::into_failure);
        }
        let mut tries = 1;
        loop {
            let free = port::free_port().map_err(|e| {
                ServiceFailure::new(format!("no free port on 127.0.0.1 for service '{}': {e}", spec.id))
            })?;
            match Self::try_port(spec, free, guard, cancel) {
                Ok(service) => return Ok(service),
                Err(Fault::Port(_)) if tries < PORT_TRIES => tries += 1,
                Err(fault) => return Err(fault.into_failure()),
            }
        }
    }

    fn try_port(
        spec: &ServiceSpec,
        port: u16,
        guard: &Guard,
        cancel: &CancelToken,
    ) -> Result<RunningService, Fault> {
        let other = |message: String| Fault::Other(ServiceFailure::new(message));
        let pattern = match &spec.probe {
            Probe::Log(pattern) => Some(Regex::new(pattern).map_err(|e| {
                other(format!("'ready.log' of service '{}' is no regular expression: {e}", spec.id))
            })?),
            _ => None,
        };
        let (argv, env) = ((spec.argv)(port), (spec.env)(port));
        let launch = Launch {
            argv: &argv,
            env: &env,
            cwd: &spec.cwd,
            stdin: None,
            stdout: None,
            masker: &spec.masker,
        };
        let opened = ServiceLog::open(&spec.log).map_err(|e| {
            other(format!("failed to open the log of service '{}' {}: {e}", spec.id, spec.log.display()))
        })?;
        let launched = launch.start(Mark::new("FLOW_SERVICE"), guard).map_err(|e| {
            Fault::Other(ServiceFailure {
                hints: e.hints,
                ..ServiceFailure::new(format!("service '{}': {}", spec.id, e.message))
            })
        })?;
        let Launched { child, family, output } = launched;
        let log = opened.follow(output, spec.masker.clone(), pattern, spec.probe == Probe::Announce);
        let mut service = Self {
            id: spec.id.clone(),
            url: format!("http://127.0.0.1:{port}"),
            host: "127.0.0.1".to_owned(),
            port,
            stop_grace: spec.stop_grace,
            log,
            process: Mutex::new(Process { child, status: None }),
            family,
            listened: false,
            last_check: Mutex::new(Instant::now()),
        };
        match service.await_ready(spec, cancel) {
            Ok(()) => Ok(service),
            Err(fault) => {
                service.end(FAILED_GRACE, guard);
                Err(fault.map(|failure| ServiceFailure { tail: service.tail(TAIL), ..failure }))
            }
        }
    }

    fn await_ready(&mut self, spec: &ServiceSpec, cancel: &CancelToken) -> Result<(), Fault> {
        let deadline = Instant::now() + spec.ready_timeout;
        let mut pause = Duration::from_millis(2);
        loop {
            if cancel.is_cancelled() {
                let failure = ServiceFailure::new(format!("start of service '{}' was cancelled", self.id));
                return Err(Fault::Other(ServiceFailure { cancelled: true, ..failure }));
            }
            if let Some(status) = self.poll() {
                return Err(self.died_early(status));
            }
            let last = match self.ask(spec, cancel)? {
                Ok(()) => return Ok(()),
                Err(last) => last,
            };
            if Instant::now() >= deadline {
                let waited = match &spec.probe {
                    Probe::Http(path) => {
                        format!("GET {}/{} to be answered with 2xx", self.url, path.trim_start_matches('/'))
                    }
                    Probe::Tcp => format!("127.0.0.1:{} to accept connections", self.port),
                    Probe::Log(pattern) => format!("a line of its output to match '{pattern}'"),
                    Probe::Announce => "a line {\"url\": ...} of its output".to_owned(),
                };
                let failure = ServiceFailure::new(format!(
                    "service '{}' was not ready after {:?}: waited for {waited}{last}",
                    self.id, spec.ready_timeout
                ));
                return Err(Fault::Other(failure.hint("'ready.timeout' gives it more time")));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Asks once whether it is ready; the inner error says what was seen last.
    fn ask(&mut self, spec: &ServiceSpec, cancel: &CancelToken) -> Result<Result<(), String>, Fault> {
        match &spec.probe {
            Probe::Log(_) if !self.log.matched() => return Ok(Err(String::new())),
            Probe::Announce => match self.log.announced() {
                None => return Ok(Err(String::new())),
                Some(url) => self.take_url(&url)?,
            },
            _ => {}
        }
        let listener = self.listener();
        if listener == Listener::Stranger {
            return Err(Fault::Port(ServiceFailure::new(format!(
                "service '{}': port {} is taken by {}, which is no process of the service",
                self.id,
                self.port,
                port::name_owner(self.port)
            ))));
        }
        let answer = match &spec.probe {
            // What it prints decides; it may use no port at all.
            Probe::Log(_) => Ok(()),
            _ if listener == Listener::Nobody => Err(format!("; nothing listens on port {}", self.port)),
            Probe::Announce => Ok(()),
            Probe::Tcp => probe::tcp(self.port).map_err(|last| format!("; last: {last}")),
            Probe::Http(path) => {
                let unwanted = || cancel.is_cancelled() || self.poll().is_some();
                probe::http(self.port, path, &unwanted).map_err(|last| format!("; last: {last}"))
            }
        };
        self.listened = listener == Listener::Own;
        Ok(answer)
    }

    /// Takes host and port from what it announced.
    fn take_url(&mut self, url: &str) -> Result<(), Fault> {
        let rest = url.split_once("://").map(|(_, rest)| rest);
        let authority = rest.and_then(|rest| rest.split('/').next());
        let parts = authority.and_then(|authority| authority.rsplit_once(':'));
        let Some((host, Ok(port))) = parts.map(|(host, port)| (host, port.parse())) else {
            let message = format!("service '{}' announced '{url}', which is no URL with a port", self.id);
            return Err(Fault::Other(ServiceFailure::new(message)));
        };
        (self.url, self.host, self.port) = (url.trim_end_matches('/').to_owned(), host.to_owned(), port);
        Ok(())
    }

    fn died_early(&self, status: ExitStatus) -> Fault {
        // Its last words may still be in the pipe.
        self.log.wait_for_end(Duration::from_millis(500));
        let exit = Exit::from_status(status);
        let failure =
            ServiceFailure::new(format!("service '{}' ended before it was ready ({exit})", self.id));
        let says_so = |line: &String| {
            let line = line.to_ascii_lowercase();
            line.contains("address already in use")
                || line.contains("eaddrinuse")
                || line.contains("address in use")
        };
        if self.listener() == Listener::Stranger || self.tail(TAIL).iter().any(says_so) {
            Fault::Port(failure)
        } else {
            Fault::Other(failure)
        }
    }

    fn listener(&self) -> Listener {
        match port::listening_sockets(self.port) {
            None => Listener::Unknown,
            Some(sockets) if sockets.is_empty() => Listener::Nobody,
            Some(sockets) if self.family.members().iter().any(|pid| port::holds(*pid, &sockets)) => {
                Listener::Own
            }
            // It may have been closed in between.
            Some(sockets) => match port::listening_sockets(self.port) {
                Some(now) if now.is_disjoint(&sockets) => Listener::Nobody,
                _ => Listener::Stranger,
            },
        }
    }

    fn poll(&self) -> Option<ExitStatus> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).poll()
    }

    /// `http://127.0.0.1:PORT`, or what it announced; no final slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host of the URL.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port of the URL.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Pid of the leading process, which is the id of its group.
    pub fn pid(&self) -> u32 {
        self.family.pgid
    }

    /// The last lines of its output, masked; at most `lines`, and at most the last 200.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        self.log.tail(lines)
    }

    /// Whether it died or stopped listening. Does not block; may be asked often.
    pub fn failure(&self) -> Option<ServiceFailure> {
        let message = if let Some(status) = self.poll() {
            self.log.wait_for_end(Duration::from_millis(100));
            format!("service '{}' (pid {}) died: {}", self.id, self.pid(), Exit::from_status(status))
        } else {
            let mut last = self.last_check.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.listened || last.elapsed() < LISTEN_CHECK {
                return None;
            }
            *last = Instant::now();
            match self.listener() {
                Listener::Own | Listener::Unknown => return None,
                Listener::Nobody => format!("service '{}' stopped listening on port {}", self.id, self.port),
                Listener::Stranger => format!(
                    "service '{}' lost port {} to {}",
                    self.id,
                    self.port,
                    port::name_owner(self.port)
                ),
            }
        };
        Some(ServiceFailure { tail: self.tail(TAIL), ..ServiceFailure::new(message) })
    }

    /// Ends it: TERM, its grace, KILL; waits until nothing of it is left.
    pub fn stop(mut self, guard: &Guard) -> Stopped {
        self.end(self.stop_grace, guard)
    }

    /// Ends it with KILL at once.
    pub fn kill(mut self, guard: &Guard) -> Stopped {
        self.end(Duration::ZERO, guard)
    }

    fn end(&mut self, grace: Duration, guard: &Guard) -> Stopped {
        let gone = || self.poll().is_some() && self.family.members().is_empty();
        if !grace.is_zero() && !gone() {
            self.family.terminate();
        }
        let killed = !process::wait_until(grace, gone);
        let all_gone = !killed
            || process::wait_until(LAST_WAIT, || {
                self.family.signal(Signal::SIGKILL);
                gone()
            });
        self.log.wait_for_end(Duration::from_millis(200));
        if all_gone {
            guard.release(self.family.pgid);
        }
        Stopped { exit: self.poll().map(Exit::from_status), killed }
    }
}

impl Drop for RunningService {
    fn drop(&mut self) {
        if self.poll().is_none() {
            self.family.signal(Signal::SIGKILL);
            process::wait_until(LAST_WAIT, || self.poll().is_some());
        }
    }
}

impl Fault {
    fn into_failure(self) -> ServiceFailure {
        match self {
            Self::Port(failure) | Self::Other(failure) => failure,
        }
    }

    fn map(self, change: impl FnOnce(ServiceFailure) -> ServiceFailure) -> Self {
        match self {
            Self::Port(failure) => Self::Port(change(failure)),
            Self::Other(failure) => Self::Other(change(failure)),
        }
    }
}

impl ServiceFailure {
    fn new(message: String) -> Self {
        Self { message, tail: Vec::new(), hints: Vec::new(), cancelled: false }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}
