//! Runs one attempt of a command: output into the log, timeout, cancel, and nothing left behind. Unaware of nodes, keys and retries.

use std::io::PipeReader;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::family::Mark;
use super::launch::{Launch, LaunchError, Launched, read_some};
use super::lines::Lines;
use super::{Guard, Masker};
use crate::api::CancelToken;
use crate::base::process;

/// Between TERM and KILL when an attempt is ended.
const GRACE: Duration = Duration::from_secs(5);
/// Between TERM and KILL for what a command left behind when it returned.
const LEFT_OVER_GRACE: Duration = Duration::from_secs(1);
/// How long a killed process may take to vanish before it is given up.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long output is still read that an unknown process keeps open.
const DRAIN: Duration = Duration::from_millis(200);
/// The first pause between two looks at a command that closed its output but goes on; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
/// More than a pipe can hold: what comes after that was written after the end.
const PIPE_SIZE: usize = 1024 * 1024;
/// Longest time between two looks at the cancel tokens.
const TICK: Duration = Duration::from_millis(20);

/// One attempt of a command.
pub struct CommandJob<'a> {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The complete environment; nothing is inherited. `FLOW_NODE_ATTEMPT` is added.
    pub env: Vec<(String, String)>,
    /// Where it runs.
    pub cwd: PathBuf,
    /// Standard input; nothing can be read if `None`.
    pub stdin: Option<PathBuf>,
    /// A file to create for standard output; the log takes it if `None`.
    pub stdout: Option<PathBuf>,
    /// Longest time.
    pub timeout: Option<Duration>,
    /// Ends it: TERM, KILL after 5 s.
    pub cancel: &'a CancelToken,
    /// Ends it with KILL at once.
    pub kill_now: &'a CancelToken,
    /// Takes each line of standard output and standard error, masked, in the order written.
    pub log: &'a mut (dyn FnMut(&str) + Send),
    /// Knows the secrets.
    pub masker: &'a Masker,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Exit code 0.
    Ok,
    /// Another exit code.
    Code(i32),
    /// A signal, by number and name; not one that flow sent.
    Signal(i32, String),
    /// Ended because it took longer than this.
    TimedOut(Duration),
    /// Ended because it was asked to.
    Cancelled,
}

impl Exit {
    /// From what the system says.
    pub(super) fn from_status(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(0), _) => Self::Ok,
            (Some(code), _) => Self::Code(code),
            (None, signal) => {
                let signal = signal.unwrap_or(0);
                Self::Signal(signal, process::signal_name(signal))
            }
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok => f.write_str("exit code 0"),
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(_, name) => write!(f, "ended by {name}"),
            Self::TimedOut(limit) => write!(f, "timed out after {limit:?}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// Runs a command until nothing of it is left.
///
/// # Errors
/// It could not be started: program not found or not executable, no such directory, no standard input.
pub fn run_command(job: CommandJob, guard: &Guard) -> Result<Exit, LaunchError> {
    run_with_grace(job, guard, GRACE)
}

/// What is being done about a command that is to end.
struct Ending {
    /// `None` if it ended by itself and only left something behind.
    exit: Option<Exit>,
    deadline: Instant,
    killed: bool,
}

fn run_with_grace(job: CommandJob, guard: &Guard, grace: Duration) -> Result<Exit, LaunchError> {
    let begun = Instant::now();
    let launch = Launch {
        argv: &job.argv,
        env: &job.env,
        cwd: &job.cwd,
        stdin: job.stdin.as_deref(),
        stdout: job.stdout.as_deref(),
        masker: job.masker,
    };
    let Launched { mut child, family, output } = launch.start(Mark::new("FLOW_NODE_ATTEMPT"), guard)?;
    let mut output =
        Output { pipe: Some(output), lines: Lines::new(job.masker), log: job.log, pause: FIRST_PAUSE };
    let mut status: Option<ExitStatus> = None;
    let mut ending: Option<Ending> = None;
    loop {
        output.wait(TICK);
        if status.is_none() {
            // An error means that somebody else reaped it; its exit code is lost then.
            status = child.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0xff00)));
        }
        let now = Instant::now();
        let kill_now = job.kill_now.is_cancelled();
        if let Some(ending) = &mut ending {
            if status.is_some() && !family.left_over() {
                break;
            }
            if kill_now || now >= ending.deadline {
                if ending.killed && now >= ending.deadline {
                    break;
                }
                if !ending.killed {
                    ending.killed = true;
                    ending.deadline = now + LAST_WAIT;
                }
                family.signal(Signal::SIGKILL);
            } else if ending.killed {
                // Once more for what was started in between.
                family.signal(Signal::SIGKILL);
            }
            continue;
        }
        if status.is_some() {
            if !family.left_over() {
                break;
            }
            family.terminate();
            ending = Some(Ending { exit: None, deadline: now + LEFT_OVER_GRACE, killed: false });
        } else if kill_now || job.cancel.is_cancelled() {
            family.terminate();
            ending = Some(Ending { exit: Some(Exit::Cancelled), deadline: now + grace, killed: false });
        } else if let Some(limit) = job.timeout.filter(|limit| now - begun >= *limit) {
            family.terminate();
            ending = Some(Ending { exit: Some(Exit::TimedOut(limit)), deadline: now + grace, killed: false });
        }
    }
    output.drain();
    if status.is_some() {
        guard.release(family.pgid);
    }
    let by_flow = ending.and_then(|ending| ending.exit);
    Ok(by_flow.unwrap_or_else(|| status.map_or(Exit::Signal(9, process::signal_name(9)), Exit::from_status)))
}

/// The output of the command on its way to the log.
struct Output<'a> {
    /// `None` once its end was seen.
    pipe: Option<PipeReader>,
    lines: Lines<'a>,
    log: &'a mut (dyn FnMut(&str) + Send),
    /// How long to wait next when there is no pipe to wait for.
    pause: Duration,
}

impl Output<'_> {
    /// Waits at most `within` for output, hands it on and says how much it was. After its end: a pause that grows to `within`.
    fn wait(&mut self, within: Duration) -> usize {
        let mut buffer = [0; 16 * 1024];
        let Some(pipe) = &mut self.pipe else {
            std::thread::sleep(self.pause.min(within));
            self.pause = (self.pause * 2).min(TICK);
            return 0;
        };
        match read_some(pipe, &mut buffer, within) {
            None => 0,
            Some(0) => {
                self.pipe = None;
                0
            }
            Some(read) => {
                self.lines.push(&buffer[..read], self.log);
                read
            }
        }
    }

    /// Takes what is still in the pipe, and the last line. Somebody unknown may hold the pipe open: then it is left after a while.
    fn drain(&mut self) {
        let mut quiet_since = Instant::now();
        let mut taken = 0;
        while self.pipe.is_some() && quiet_since.elapsed() < DRAIN && taken < PIPE_SIZE {
            let read = self.wait(TICK);
            if read > 0 {
                taken += read;
                quiet_since = Instant::now();
            }
        }
        self.lines.finish(self.log);
        if self.pipe.is_some() {
            (self.log)(
                "flow: a process that left the command's group still holds its output open; it is read no longer",
            );
        }
    }
}
