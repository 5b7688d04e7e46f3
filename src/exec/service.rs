//! Service processes: started on a port of their own, watched until ready, stopped whole. Unaware of leases and of who uses them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regex::Regex;

use super::command::Exit;
use super::family::{Family, Mark};
use super::launch::{Launch, Launched};
use super::service_log::ServiceLog;
use super::{Guard, Masker, port, probe};
use crate::api::CancelToken;
use crate::base::{failpoint, process};
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
    /// The machine lacks its program.
    pub missing: bool,
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
    /// The sockets by which it listened when it was last looked at; empty if it uses no port.
    sockets: Mutex<BTreeSet<u64>>,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
                missing: e.missing,
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
            sockets: Mutex::default(),
            last_check: Mutex::new(Instant::now()),
        };
        failpoint::hit("service_start");
        match service.await_ready(spec, cancel) {
            Ok(()) => Ok(service),
            Err(fault) => {
                service.end(FAILED_GRACE, guard, &CancelToken::default());
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
        let Some(sockets) = port::listening_sockets(self.port) else { return Listener::Unknown };
        if sockets.is_empty() {
            return Listener::Nobody;
        }
        let mut known = lock(&self.sockets);
        if !sockets.is_disjoint(&known) {
            return Listener::Own;
        }
        if self.family.members().iter().any(|pid| port::holds(*pid, &sockets)) {
            *known = sockets;
            return Listener::Own;
        }
        // What was found first may have been closed in between.
        match port::listening_sockets(self.port) {
            Some(now) if now.is_disjoint(&sockets) => Listener::Nobody,
            _ => Listener::Stranger,
        }
    }

    fn poll(&self) -> Option<ExitStatus> {
        lock(&self.process).poll()
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
            let mut last = lock(&self.last_check);
            if lock(&self.sockets).is_empty() || last.elapsed() < LISTEN_CHECK {
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

    /// Ends it: TERM, its grace, KILL; waits until nothing of it is left. `kill_now` cuts the grace short.
    pub fn stop(mut self, guard: &Guard, kill_now: &CancelToken) -> Stopped {
        self.end(self.stop_grace, guard, kill_now)
    }

    fn end(&mut self, grace: Duration, guard: &Guard, kill_now: &CancelToken) -> Stopped {
        let gone = || self.poll().is_some() && self.family.members().is_empty();
        if !grace.is_zero() && !kill_now.is_cancelled() && !gone() {
            self.family.terminate();
        }
        process::wait_until(grace, || gone() || kill_now.is_cancelled());
        let killed = !gone();
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
        Self { message, tail: Vec::new(), hints: Vec::new(), cancelled: false, missing: false }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::guard::tests::{idle_guard, play};
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    struct Bench {
        dir: tempfile::TempDir,
        guard: Guard,
        cancel: CancelToken,
    }

    impl Bench {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap(), guard: idle_guard(), cancel: CancelToken::default() }
        }

        /// A service that runs a shell script.
        fn spec(&self, probe: Probe, script: impl Fn(u16) -> String + Send + Sync + 'static) -> ServiceSpec {
            ServiceSpec {
                id: "api".into(),
                argv: Box::new(move |port| vec!["sh".into(), "-c".into(), script(port)]),
                env: Box::new(|port| {
                    vec![
                        ("PATH".into(), std::env::var("PATH").unwrap()),
                        ("FLOW_TEST_PORT".into(), port.to_string()),
                    ]
                }),
                cwd: self.dir.path().to_owned(),
                port: None,
                probe,
                ready_timeout: LONG,
                stop_grace: LONG,
                log: self.dir.path().join("logs/api.log"),
                masker: Arc::new(Masker::new(vec!["s3cret".into()])),
            }
        }

        fn start(&self, spec: &ServiceSpec) -> Result<RunningService, ServiceFailure> {
            RunningService::start(spec, &self.guard, &self.cancel)
        }
    }

    /// A script that plays a server; `mode` as in `as_server`.
    fn server(mode: &'static str) -> impl Fn(u16) -> String + Send + Sync {
        move |_| {
            format!("echo with s3cret; export FLOW_TEST_SERVER={mode}; {}", play("service::tests::as_server"))
        }
    }

    fn get(port: u16, path: &str) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }

    /// `http`: answers 503 twice, then 200; on `/quit` it closes its port and stays. `announce`: has a port of its own.
    #[test]
    fn as_server() {
        let Ok(mode) = std::env::var("FLOW_TEST_SERVER") else { return };
        let port =
            if mode == "announce" { 0 } else { std::env::var("FLOW_TEST_PORT").unwrap().parse().unwrap() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        println!("\n{{\"url\": \"http://127.0.0.1:{port}/\"}}");
        let mut asked = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap_or(0);
            if read == 0 {
                continue;
            }
            asked += 1;
            let status = if asked > 2 { "200 OK" } else { "503 Loading" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\n\r\n");
            if request.starts_with(b"GET /quit") {
                break;
            }
        }
        drop(listener);
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn ready_by_http_then_stopped() {
        let bench = Bench::new();
        let service = bench.start(&bench.spec(Probe::Http("/health".into()), server("http"))).unwrap();
        assert_eq!(service.url(), format!("http://127.0.0.1:{}", service.port()));
        assert_eq!(service.host(), "127.0.0.1");
        assert_eq!(service.failure(), None);
        assert_eq!(service.tail(200)[0], "with ***");
        let (pid, port) = (service.pid(), service.port());
        let stopped = service.stop(&bench.guard, &CancelToken::default());
        assert_eq!(stopped, Stopped { exit: Some(Exit::Signal(15, "SIGTERM".into())), killed: false });
        assert!(!process::group_alive(pid));
        assert_eq!(port::taken_by(port), None);
        let log = std::fs::read_to_string(bench.dir.path().join("logs/api.log")).unwrap();
        assert!(log.starts_with("with ***\n") && !log.contains("s3cret"), "{log}");
    }

    #[test]
    fn a_listening_child_is_the_services_own() {
        let bench = Bench::new();
        let script =
            |port| format!("(setsid sh -c \"{}\") & wait", server("http")(port).replace("echo with", "echo"));
        let service = bench.start(&bench.spec(Probe::Tcp, script)).unwrap();
        let mark = service.family.mark.clone();
        assert!(process::with_environ("FLOW_SERVICE", &mark.value).len() >= 2);
        service.stop(&bench.guard, &CancelToken::default());
        assert_eq!(process::with_environ("FLOW_SERVICE", &mark.value), [0; 0]);
    }

    #[test]
    fn ready_by_what_it_prints() {
        let bench = Bench::new();
        let spec = bench.spec(Probe::Log("^ready on [0-9]+$".into()), |port| {
            format!("echo starting; echo ready on {port} >&2; exec sleep 60")
        });
        let service = bench.start(&spec).unwrap();
        assert_eq!(service.tail(1), [format!("ready on {}", service.port())]);
        assert_eq!(service.failure(), None);
        let at_once = CancelToken::default();
        at_once.cancel();
        assert_eq!(service.stop(&bench.guard, &at_once).exit, Some(Exit::Signal(9, "SIGKILL".into())));

        let service = bench.start(&bench.spec(Probe::Announce, server("announce"))).unwrap();
        assert!(service.url().ends_with(&format!(":{}", service.port())), "{}", service.url());
        get(service.port(), "/");
        service.stop(&bench.guard, &CancelToken::default());

        let failure = bench.start(&bench.spec(Probe::Log("(".into()), |_| String::new())).unwrap_err();
        assert!(failure.message.contains("no regular expression"), "{failure}");
    }

    #[test]
    fn one_that_never_gets_ready() {
        let bench = Bench::new();
        let failure =
            bench.start(&bench.spec(Probe::Tcp, |_| "echo bad s3cret >&2; exit 3".to_owned())).unwrap_err();
        assert_eq!(failure.message, "service 'api' ended before it was ready (exit code 3)");
        assert_eq!(failure.tail, ["bad ***"]);

        let mut spec = bench.spec(Probe::Http("health".into()), |_| "echo $$; exec sleep 60".to_owned());
        spec.ready_timeout = Duration::from_millis(300);
        let failure = bench.start(&spec).unwrap_err();
        assert!(
            failure
                .message
                .starts_with("service 'api' was not ready after 300ms: waited for GET http://127.0.0.1:")
        );
        assert!(
            failure.message.contains("/health to be answered with 2xx; nothing listens on port"),
            "{failure}"
        );
        assert!(!process::group_alive(failure.tail[0].parse().unwrap()));

        let mut spec = bench.spec(Probe::Tcp, |_| String::new());
        spec.argv = Box::new(|_| vec!["no-such-server".into()]);
        let failure = bench.start(&spec).unwrap_err();
        assert!(
            failure.message.starts_with("service 'api': program 'no-such-server' not found"),
            "{failure}"
        );
        assert!(!failure.hints.is_empty());
    }

    #[test]
    fn cancelled_while_starting() {
        let bench = Bench::new();
        let cancel = bench.cancel.clone();
        let spec = bench.spec(Probe::Tcp, move |_| {
            cancel.cancel();
            "exec sleep 60".to_owned()
        });
        assert!(bench.start(&spec).unwrap_err().cancelled);
    }

    #[test]
    fn a_stranger_on_a_fixed_port_is_refused() {
        let bench = Bench::new();
        let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = stranger.local_addr().unwrap().port();
        let mut spec = bench.spec(Probe::Tcp, |_| "exec sleep 60".to_owned());
        spec.port = Some(port);
        let failure = bench.start(&spec).unwrap_err();
        let expected =
            format!("service 'api' needs port {port}, which is taken by pid {}", std::process::id());
        assert!(failure.message.starts_with(&expected), "{failure}");
    }

    #[test]
    fn a_port_taken_in_between_is_replaced_three_times() {
        let bench = Bench::new();
        let strangers = Mutex::new(Vec::new());
        let spec = bench.spec(Probe::Tcp, move |port| {
            let mut strangers = strangers.lock().unwrap();
            match strangers.len() {
                0 => {
                    strangers.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
                    "exec sleep 60".to_owned()
                }
                1 => {
                    strangers.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
                    "echo 'OSError: [Errno 98] Address already in use' >&2; exit 1".to_owned()
                }
                _ => server("http")(port),
            }
        });
        bench.start(&spec).unwrap().stop(&bench.guard, &CancelToken::default());

        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let spec = bench.spec(Probe::Tcp, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            "echo EADDRINUSE; exit 1".to_owned()
        });
        assert!(bench.start(&spec).unwrap_err().message.contains("ended before it was ready"));
        assert_eq!(tries.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn failures_are_noticed() {
        let bench = Bench::new();
        let spec = bench.spec(Probe::Tcp, server("http"));
        let service = bench.start(&spec).unwrap();
        get(service.port(), "/quit");
        let mut failure = None;
        assert!(process::wait_until(LONG, || {
            failure = service.failure();
            failure.is_some()
        }));
        assert!(failure.unwrap().message.contains("stopped listening on port"));
        service.stop(&bench.guard, &CancelToken::default());

        let service = bench.start(&spec).unwrap();
        process::kill(service.pid(), Signal::SIGKILL);
        assert!(process::wait_until(LONG, || service.failure().is_some()));
        let failure = service.failure().unwrap();
        assert_eq!(failure.message, format!("service 'api' (pid {}) died: ended by SIGKILL", service.pid()));
        assert!(!failure.tail.is_empty());
        let stopped = service.stop(&bench.guard, &CancelToken::default());
        assert!(!stopped.killed);
    }

    #[test]
    fn one_that_ignores_the_request_is_killed_and_dropping_kills_too() {
        let bench = Bench::new();
        let script = |_| "trap '' TERM; echo up; while :; do sleep 1; done".to_owned();
        let mut spec = bench.spec(Probe::Log("up".into()), script);
        spec.stop_grace = Duration::from_millis(50);
        let service = bench.start(&spec).unwrap();
        let pid = service.pid();
        assert!(service.stop(&bench.guard, &CancelToken::default()).killed);
        assert!(!process::group_alive(pid));
        let service = bench.start(&spec).unwrap();
        let pid = service.pid();
        drop(service);
        assert!(process::wait_until(LONG, || !process::group_alive(pid)));
    }
}
