//! Runs one attempt of a command: output into the log, timeout, cancel, and nothing left behind. Unaware of nodes, keys and retries.

use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::launch::{Launch, LaunchError, Launched, PIPE_SIZE, read_some};
use super::lines::Lines;
use super::{Guard, Masker};
use crate::api::CancelToken;
use crate::base::{failpoint, process};

/// Between TERM and KILL when an attempt is ended.
const GRACE: Duration = Duration::from_secs(5);
/// Between TERM and KILL for what a command left behind when it returned.
const LEFT_OVER_GRACE: Duration = Duration::from_secs(1);
/// How long a killed process may take to vanish before it is given up.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long output is still read that an unknown process keeps open.
const DRAIN: Duration = Duration::from_millis(200);
/// The first pause between two looks at what cannot be waited for.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes read at once.
const BUFFER: usize = 4 * 1024;
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
    let Launched { mut child, family, output } = launch.start_plainly("FLOW_NODE_ATTEMPT", guard)?;
    let mut output =
        Output { pipe: Some(output), lines: Lines::new(job.masker), log: job.log, buffer: Vec::new() };
    let mut end = None;
    let mut pause = PAUSE;
    let mut status: Option<ExitStatus> = None;
    let mut ending: Option<Ending> = None;
    loop {
        if output.pipe.is_some() {
            output.wait(TICK);
        } else if status.is_none() {
            wait_for_end(end.get_or_insert_with(|| process::handle(child.id())), TICK);
        } else {
            // Somebody else of its family goes on.
            std::thread::sleep(pause);
            pause = (pause * 2).min(TICK);
        }
        if status.is_none() {
            // An error means that somebody else reaped it; its exit code is lost then.
            status = child.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0xff00)));
        }
        let now = Instant::now();
        let kill_now = job.kill_now.is_cancelled();
        if let Some(ending) = &mut ending {
            if status.is_some() && !family.left_over(begun, guard) {
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
            if !family.left_over(begun, guard) {
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

/// Waits at most `within` for the end of a process.
fn wait_for_end(process: &Option<OwnedFd>, within: Duration) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    match process {
        Some(process) => {
            let millis = u16::try_from(within.as_millis()).unwrap_or(u16::MAX);
            let mut wanted = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            // An interrupted wait is a short one.
            let _ = poll(&mut wanted, PollTimeout::from(millis));
        }
        None => std::thread::sleep(PAUSE),
    }
}

/// The output of the command on its way to the log.
struct Output<'a> {
    /// `None` once its end was seen.
    pipe: Option<PipeReader>,
    lines: Lines<'a>,
    log: &'a mut (dyn FnMut(&str) + Send),
    /// Made when something is there to be read.
    buffer: Vec<u8>,
}

impl Output<'_> {
    /// Waits at most `within` for output, hands it on and says how much it was.
    fn wait(&mut self, within: Duration) -> usize {
        let Some(pipe) = &mut self.pipe else { return 0 };
        self.buffer.resize(BUFFER, 0);
        match read_some(pipe, &mut self.buffer, within) {
            None => 0,
            Some(0) => {
                self.pipe = None;
                0
            }
            Some(read) => {
                failpoint::hit("running");
                self.lines.push(&self.buffer[..read], self.log);
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::guard::tests::idle_guard;
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    struct Bench {
        dir: tempfile::TempDir,
        guard: Guard,
        cancel: CancelToken,
        kill_now: CancelToken,
        masker: Masker,
        timeout: Option<Duration>,
        stdin: Option<PathBuf>,
        stdout: Option<PathBuf>,
        grace: Duration,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
                guard: idle_guard(),
                cancel: CancelToken::default(),
                kill_now: CancelToken::default(),
                masker: Masker::default(),
                timeout: None,
                stdin: None,
                stdout: None,
                grace: GRACE,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.path(name)).unwrap()
        }

        fn run(
            &self,
            argv: &[&str],
            on_line: impl Fn(&str) + Send + Sync,
        ) -> (Result<Exit, LaunchError>, Vec<String>) {
            let mut lines = Vec::new();
            let mut log = |line: &str| {
                on_line(line);
                lines.push(line.to_owned());
            };
            let job = CommandJob {
                argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
                env: vec![("PATH".into(), std::env::var("PATH").unwrap()), ("GIVEN".into(), "1".into())],
                cwd: self.dir.path().to_owned(),
                stdin: self.stdin.clone(),
                stdout: self.stdout.clone(),
                timeout: self.timeout,
                cancel: &self.cancel,
                kill_now: &self.kill_now,
                log: &mut log,
                masker: &self.masker,
            };
            let exit = run_with_grace(job, &self.guard, self.grace);
            (exit, lines)
        }

        fn sh(&self, script: &str) -> (Exit, Vec<String>) {
            let (exit, lines) = self.run(&["sh", "-c", script], |_| ());
            (exit.unwrap(), lines)
        }

        fn refused(&self, argv: &[&str]) -> LaunchError {
            self.run(argv, |_| ()).0.unwrap_err()
        }

        /// True if the process whose pid the file holds runs.
        fn runs(&self, name: &str) -> bool {
            let pid = self.read(name).trim().parse().unwrap();
            process::start_time(pid).is_some_and(|start| process::is_alive(pid, start))
        }
    }

    #[test]
    fn exit_codes_and_signals() {
        let bench = Bench::new();
        assert_eq!(bench.sh("exit 0").0, Exit::Ok);
        assert_eq!(bench.sh("exit 7").0, Exit::Code(7));
        assert_eq!(bench.sh("kill -SEGV $$").0, Exit::Signal(11, "SIGSEGV".into()));
    }

    #[test]
    fn lines_keep_the_order_of_both_streams() {
        let bench = Bench::new();
        let (exit, lines) = bench.sh("echo 1; echo 2 >&2; echo 3; printf 'a\\rb\\n4' >&2");
        assert_eq!(exit, Exit::Ok);
        assert_eq!(lines, ["1", "2", "3", "b", "4"]);
    }

    #[test]
    fn much_output_is_read_whole() {
        let bench = Bench::new();
        let (exit, lines) = bench.sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done");
        assert_eq!(exit, Exit::Ok);
        assert_eq!(lines.len(), 20000);
        assert_eq!(lines[19999], "line 19999");
    }

    #[test]
    fn nothing_is_inherited() {
        let bench = Bench::new();
        let (_, lines) = bench.run(&["env"], |_| ());
        let mut names: Vec<&str> = lines.iter().map(|line| line.split('=').next().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["FLOW_NODE_ATTEMPT", "GIVEN", "PATH"]);
        let (_, lines) = bench.sh("pwd; cat; ps -o pgid= -p $$ | tr -d ' ' | grep -qx $$ && echo leads");
        assert_eq!(lines, [bench.dir.path().canonicalize().unwrap().to_str().unwrap(), "leads"]);
    }

    #[test]
    fn streams_from_and_to_files() {
        let mut bench = Bench::new();
        std::fs::write(bench.path("in"), "text\n").unwrap();
        std::fs::write(bench.path("out"), "something longer that was there before").unwrap();
        (bench.stdin, bench.stdout) = (Some(bench.path("in")), Some(bench.path("out")));
        let (exit, lines) = bench.sh("cat; echo talk >&2");
        assert_eq!((exit, lines), (Exit::Ok, vec!["talk".to_owned()]));
        assert_eq!(bench.read("out"), "text\n");
        bench.stdin = Some(bench.path("missing"));
        assert!(bench.refused(&["cat"]).message.contains("failed to open standard input"));
        (bench.stdin, bench.stdout) = (None, Some(bench.path("no/dir")));
        assert!(bench.refused(&["cat"]).message.contains("failed to create standard output"));
    }

    #[test]
    fn secrets_are_masked_across_pieces() {
        let mut bench = Bench::new();
        bench.masker = Masker::new(vec!["s3cret".into()]);
        let (_, lines) =
            bench.sh("printf 'a s3c'; mkfifo f; (exec 3>f) & read x <f; printf 'ret b\\ns3crets\\n' >&2");
        assert_eq!(lines, ["a *** b", "***s"]);
        let error = bench.refused(&["./s3cret"]);
        assert!(error.message.starts_with("program './***' not found"), "{error}");
    }

    #[test]
    fn a_program_that_cannot_start() {
        let bench = Bench::new();
        let error = bench.refused(&["no-such-program", "x"]);
        assert!(error.message.contains("'no-such-program' not found in PATH (/"), "{error}");
        assert_eq!(error.hints.len(), 1);
        assert!(bench.refused(&["echo hi"]).hints[0].contains("without a shell"));
        assert!(bench.refused(&["./none"]).message.contains("there is no /"));
        assert!(bench.refused(&["/"]).message.contains("is a directory"));
        assert!(bench.refused(&[]).message.contains("empty"));
        std::fs::write(bench.path("plain"), "echo hi\n").unwrap();
        let error = bench.refused(&["./plain"]);
        assert!(
            error.message.contains("not executable") && error.hints[0].starts_with("chmod +x /"),
            "{error}"
        );
        assert!(bench.refused(&["plain"]).hints[0].contains("write './plain'"));
        bench.sh("chmod +x plain; printf '#!/no/such/sh\\n' > script; chmod +x script; mkdir sub");
        assert!(bench.refused(&["./plain"]).hints[0].contains("#!/bin/sh"));
        assert!(bench.refused(&["./script"]).hints[0].contains("'/no/such/sh'"));
        let long = "x".repeat(4 * 1024 * 1024);
        assert!(bench.refused(&["true", &long]).hints[0].contains("2 arguments have 41943"));
        assert!(bench.refused(&["a\0b"]).message.contains("a\0b"));
    }

    #[test]
    fn a_working_directory_that_is_not_there() {
        let mut bench = Bench::new();
        let dir = std::mem::replace(&mut bench.dir, tempfile::tempdir().unwrap());
        let gone = dir.path().to_owned();
        dir.close().unwrap();
        let cancel = CancelToken::default();
        let job = CommandJob {
            argv: vec!["true".into()],
            env: Vec::new(),
            cwd: gone.clone(),
            stdin: None,
            stdout: None,
            timeout: None,
            cancel: &cancel,
            kill_now: &cancel,
            log: &mut |_| (),
            masker: &Masker::default(),
        };
        let error = run_command(job, &bench.guard).unwrap_err();
        assert_eq!(error.message, format!("working directory {} does not exist", gone.display()));
        assert!(Path::new("/").is_dir());
    }

    #[test]
    fn timeout_ends_grandchildren() {
        let mut bench = Bench::new();
        bench.timeout = Some(Duration::from_millis(500));
        let begun = Instant::now();
        let (exit, lines) = bench.sh("sleep 60 & echo $! > child; trap 'echo asked; exit 0' TERM; wait");
        assert_eq!(exit, Exit::TimedOut(Duration::from_millis(500)));
        assert_eq!(lines, ["asked"]);
        assert!(!bench.runs("child"));
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn kill_after_the_grace() {
        let mut bench = Bench::new();
        bench.grace = Duration::from_millis(100);
        bench.timeout = Some(Duration::from_millis(200));
        let (exit, _) = bench.sh("trap '' TERM; echo $$ > leader; while :; do sleep 1; done");
        assert_eq!(exit, Exit::TimedOut(Duration::from_millis(200)));
        assert!(!bench.runs("leader"));
    }

    #[test]
    fn cancel_and_kill_now() {
        let bench = Bench::new();
        let cancel = |line: &str| {
            if line == "up" {
                bench.cancel.cancel()
            }
        };
        let (exit, _) = bench.run(&["sh", "-c", "echo up; sleep 60"], cancel);
        assert_eq!(exit, Ok(Exit::Cancelled));

        let mut bench = Bench::new();
        bench.grace = LONG * 10;
        let begun = Instant::now();
        let both = |line: &str| match line {
            "up" => bench.cancel.cancel(),
            "deaf" => bench.kill_now.cancel(),
            _ => {}
        };
        let script = "trap 'echo deaf' TERM; echo up; while :; do sleep 0.01; done";
        assert_eq!(bench.run(&["sh", "-c", script], both).0, Ok(Exit::Cancelled));
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn what_a_command_leaves_behind_is_ended() {
        let bench = Bench::new();
        let begun = Instant::now();
        let (exit, lines) = bench.sh("sleep 60 & echo $! > child; echo done");
        assert_eq!((exit, lines), (Exit::Ok, vec!["done".to_owned()]));
        assert!(!bench.runs("child"));
        let (exit, _) = bench.sh("(trap '' TERM; echo > ready; while :; do sleep 1; done) >/dev/null 2>&1 & echo $! > deaf; until [ -e ready ]; do :; done; exit 3");
        assert_eq!(exit, Exit::Code(3));
        assert!(!bench.runs("deaf"));
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn a_grandchild_with_its_own_session_is_ended() {
        let bench = Bench::new();
        for redirect in ["", ">/dev/null 2>&1"] {
            let script = format!(
                "rm -f pid; setsid sh -c 'echo $$ > pid; exec sleep 60' {redirect} & until [ -s pid ]; do :; done"
            );
            assert_eq!(bench.sh(&script).0, Exit::Ok);
            assert!(!bench.runs("pid"), "with '{redirect}'");
        }
    }

    #[test]
    fn a_stranger_that_holds_the_output_open_is_left() {
        let bench = Bench::new();
        let script = "setsid env -i sh -c 'echo $$ > pid; exec sleep 60' & until [ -s pid ]; do :; done; until [ \"$(cat /proc/$(cat pid)/comm)\" = sleep ]; do :; done; echo done";
        let (exit, lines) = bench.sh(script);
        assert_eq!(exit, Exit::Ok);
        assert_eq!(lines[0], "done");
        assert!(lines[1].starts_with("flow: a process that left"));
        process::kill(bench.read("pid").trim().parse().unwrap(), Signal::SIGKILL);
    }

    #[test]
    fn a_command_that_closes_its_output_is_awaited() {
        let bench = Bench::new();
        assert_eq!(bench.sh("exec >&- 2>&-; sleep 0.1; exit 4").0, Exit::Code(4));
    }
}
