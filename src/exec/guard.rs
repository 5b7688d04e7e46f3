//! The guard: a process of its own session that ends everything a run started once flow is gone, however it went. Unaware of nodes.

use std::collections::BTreeSet;
use std::io::{self, PipeReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::groups::{self, Groups};
use super::launch::read_some;
use crate::base::process;
use crate::{Error, Result};

/// Between TERM and KILL once flow is gone.
const GRACE: Duration = Duration::from_secs(1);
/// How long killed processes may take to vanish.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long the guard may take to start.
const START: Duration = Duration::from_secs(20);
/// A process that flow was just starting when it died carries its mark after this at the latest.
const SETTLE: Duration = Duration::from_millis(50);
/// What the guard says once no signal of the terminal can reach it.
const READY: &[u8] = b"ready\n";
/// What flow says if it ends in order: it was starting nothing.
const DONE: &[u8] = b"done\n";

/// flow's end of the pipe to the guard, and the groups that it shares with it. While the pipe is open, flow is alive.
#[derive(Debug)]
pub struct Guard {
    pipe: Mutex<Option<ChildStdin>>,
    groups: Groups,
    child: Mutex<Child>,
}

impl Guard {
    /// Starts `FLOW_EXE __guard RUN_ID` and waits until it is on watch. It must be the first process of the run.
    ///
    /// # Errors
    /// Kind environment: it cannot be started, or ends at once (Ctrl-C in its first moments).
    pub fn start(flow_exe: &Path, run_id: &str) -> Result<Self> {
        let (mut said, says) = io::pipe()
            .map_err(|e| Error::environment(format!("failed to make a pipe for the guard: {e}")))?;
        let shared = |e: io::Error| Error::environment(format!("failed to share memory with the guard: {e}"));
        let groups = Groups::new().map_err(shared)?;
        let table = groups.share().map_err(shared)?;
        let mut child = Command::new(flow_exe)
            .args(["__guard", run_id])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(says)
            // it says nothing there: this is how it comes by the table
            .stderr(table)
            .spawn()
            .map_err(|e| Error::io("start the guard", flow_exe, e))?;
        let pipe = child.stdin.take();
        if let Err(what) = await_ready(&mut said) {
            drop(pipe);
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::environment(format!("the guard ({} __guard) {what}", flow_exe.display()))
                .hint("without it processes could outlive flow, so nothing was started"));
        }
        Ok(Self { pipe: Mutex::new(pipe), groups, child: Mutex::new(child) })
    }

    /// Tells of a process group that must not outlive flow.
    pub fn register(&self, pgid: u32) {
        self.groups.add(pgid);
    }

    /// Tells that a process group is empty; its number may mean another one from now on.
    pub fn release(&self, pgid: u32) {
        self.groups.remove(pgid);
    }

    /// Whether this is a process group that flow started and that is not over.
    pub(super) fn knows(&self, pgid: u32) -> bool {
        self.groups.has(pgid)
    }

    /// Ends whatever the run left behind and waits for the guard. Every group should be released by now.
    pub fn finish(self) {
        drop(self);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // If somebody killed the guard, the next run sweeps after this one.
            let _ = pipe.write_all(DONE);
        }
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

/// Reads up to the word that the guard is on watch.
fn await_ready(said: &mut PipeReader) -> Result<(), &'static str> {
    let deadline = Instant::now() + START;
    let mut heard = Vec::new();
    let mut buffer = [0; 256];
    while !heard.ends_with(READY) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("did not answer");
        }
        match read_some(said, &mut buffer, left) {
            Some(0) => return Err("ended at once"),
            Some(read) => heard.extend_from_slice(&buffer[..read]),
            None => {}
        }
    }
    Ok(())
}

/// The guard process: watches standard input and, at its end, ends what the run left.
///
/// It has a session of its own and does not hear the signals of a terminal or a service manager; only KILL ends it early.
pub fn guard_main(run_id: &str) -> ExitCode {
    let heard = Arc::new(AtomicBool::new(false));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        // A handler that only sets a flag nobody reads.
        if signal_hook::flag::register(signal as i32, heard.clone()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    // Fails only for the leader of a group, which a child of flow is not.
    let _ = nix::unistd::setsid();
    let mut stdout = io::stdout();
    if stdout.write_all(READY).and_then(|()| stdout.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    let in_order = await_end(io::stdin().lock());
    let groups = groups::read(io::stderr());
    sweep(run_id, &groups, GRACE, if in_order { Duration::ZERO } else { SETTLE });
    ExitCode::SUCCESS
}

/// Waits until flow has closed its end of the pipe, or is gone. True if it ended by itself.
fn await_end(mut input: impl Read) -> bool {
    let mut said = Vec::new();
    // What cannot be read any more is the end, too.
    let _ = input.read_to_end(&mut said);
    said == DONE
}

/// Ends every process whose environment holds `FLOW_RUN=<run_id>`: TERM, `grace`, KILL. Says how many there were.
///
/// Never this process or one that it descends from. Used for runs whose flow is dead.
pub fn end_run_processes(run_id: &str, grace: Duration) -> usize {
    sweep(run_id, &BTreeSet::new(), grace, Duration::ZERO)
}

fn sweep(run_id: &str, groups: &BTreeSet<u32>, grace: Duration, settle: Duration) -> usize {
    let mut spared = process::ancestors();
    spared.insert(std::process::id());
    let own_group = u32::try_from(nix::unistd::getpgrp().as_raw()).unwrap_or(0);
    let left = || -> BTreeSet<u32> {
        let alive = groups.iter().filter(|group| **group != own_group && process::group_alive(**group));
        let mut left: BTreeSet<u32> = alive.flat_map(|group| process::in_group(*group)).collect();
        left.extend(process::with_environ("FLOW_RUN", run_id));
        left.retain(|pid| !spared.contains(pid));
        left
    };
    let mut ended: BTreeSet<u32> = BTreeSet::new();
    let mut asked: BTreeSet<u32> = BTreeSet::new();
    // Ask each once, also those that appear while others take their time.
    process::wait_until(grace, || {
        let left = left();
        for pid in left.iter().filter(|pid| asked.insert(**pid)) {
            process::kill(*pid, Signal::SIGTERM);
            process::kill(*pid, Signal::SIGCONT);
        }
        ended.extend(&left);
        left.is_empty()
    });
    if ended.is_empty() && settle.is_zero() {
        return 0;
    }
    let mut quiet_since: Option<Instant> = None;
    process::wait_until(LAST_WAIT, || {
        let left = left();
        if left.is_empty() {
            return quiet_since.get_or_insert_with(Instant::now).elapsed() >= settle;
        }
        quiet_since = None;
        for pid in &left {
            process::kill(*pid, Signal::SIGKILL);
        }
        ended.extend(&left);
        false
    });
    ended.len()
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;

    use super::*;
    use crate::api::CancelToken;
    use crate::exec::{CommandJob, Masker, run_command};

    const LONG: Duration = Duration::from_secs(30);

    /// A script, written by another process: a file this one has open for writing could not be started while a sibling test forks.
    pub(in crate::exec) fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("script");
        let written = Command::new("sh")
            .args(["-c", "printf '%s' \"$1\" > \"$2\" && chmod +x \"$2\"", "sh", text])
            .arg(&path)
            .status()
            .unwrap();
        assert!(written.success());
        path
    }

    /// A guard that only listens, for tests of what registers with it.
    pub(in crate::exec) fn idle_guard() -> Guard {
        let dir = tempfile::tempdir().unwrap();
        Guard::start(&script(dir.path(), "#!/bin/sh\necho ready\nexec cat >/dev/null\n"), "test").unwrap()
    }

    /// A command line that runs one test of this binary, which then plays another process.
    pub(in crate::exec) fn play(test: &str) -> String {
        let exe = std::env::current_exe().unwrap();
        format!("exec '{}' --exact exec::{test} --nocapture --test-threads 1", exe.display())
    }

    fn real_guard(dir: &Path) -> PathBuf {
        script(
            dir,
            &format!(
                "#!/bin/sh\nFLOW_TEST_GUARD=\"$2\"; export FLOW_TEST_GUARD\n{}\n",
                play("guard::tests::as_guard")
            ),
        )
    }

    fn unique_run() -> String {
        super::super::family::Mark::new("").value
    }

    fn spawn(script: &str, run: &str) -> Child {
        Command::new("sh").args(["-c", script]).env("FLOW_RUN", run).process_group(0).spawn().unwrap()
    }

    #[test]
    fn as_guard() {
        if let Ok(run) = std::env::var("FLOW_TEST_GUARD") {
            guard_main(&run);
        }
    }

    #[test]
    fn as_engine() {
        let Ok(run) = std::env::var("FLOW_TEST_RUN") else { return };
        let guard = Guard::start(Path::new(&std::env::var("FLOW_TEST_EXE").unwrap()), &run).unwrap();
        let cancel = CancelToken::default();
        let script = "sleep 600 & setsid sleep 600 & env -u FLOW_RUN sleep 600 & trap '' TERM; while :; do sleep 1; done";
        let job = CommandJob {
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".into(), std::env::var("PATH").unwrap()), ("FLOW_RUN".into(), run)],
            cwd: "/".into(),
            stdin: None,
            stdout: None,
            timeout: None,
            cancel: &cancel,
            kill_now: &cancel,
            log: &mut |_| (),
            masker: &Masker::default(),
        };
        run_command(job, &guard).unwrap();
    }

    #[test]
    fn nothing_outlives_a_killed_engine() {
        let dir = tempfile::tempdir().unwrap();
        let run = unique_run();
        let mut engine = Command::new("sh")
            .args(["-c", &play("guard::tests::as_engine")])
            .env("FLOW_TEST_RUN", &run)
            .env("FLOW_TEST_EXE", real_guard(dir.path()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let all = || process::with_environ("FLOW_RUN", &run);
        // The shell, the two sleeps that kept the mark, and the third of its loop.
        assert!(process::wait_until(LONG, || all().len() >= 4), "{:?}", all());
        let guards = || process::with_environ("FLOW_TEST_GUARD", &run);
        assert_eq!(guards().len(), 1);
        engine.kill().unwrap();
        engine.wait().unwrap();
        // The guard ends last.
        assert!(process::wait_until(LONG, || guards().is_empty()));
        assert_eq!(all(), [0; 0]);
    }

    #[test]
    fn the_guard_does_not_hear_signals_and_has_its_own_session() {
        let dir = tempfile::tempdir().unwrap();
        let run = unique_run();
        let guard = Guard::start(&real_guard(dir.path()), &run).unwrap();
        let [pid] = process::with_environ("FLOW_TEST_GUARD", &run)[..] else { panic!("one guard") };
        assert_eq!(process::in_group(pid), [pid], "it leads its own session, so its own group");
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            assert!(process::kill(pid, signal));
        }
        let mut left = spawn("sleep 600", &run);
        let mut registered = spawn("unset FLOW_RUN; exec env -u FLOW_RUN sleep 600", "other");
        guard.register(registered.id());
        guard.register(999_999_999);
        guard.release(999_999_999);
        guard.finish();
        assert_eq!(process::start_time(pid), None);
        assert!(!left.wait().unwrap().success());
        assert!(!registered.wait().unwrap().success());
    }

    #[test]
    fn an_end_in_order_is_told_whole() {
        assert!(await_end(DONE));
        assert!(!await_end(&DONE[1..]) && !await_end(&b""[..]));
    }

    #[test]
    fn the_sweep_of_a_dead_run() {
        let run = unique_run();
        assert_eq!(end_run_processes(&run, Duration::ZERO), 0);
        let mut child = spawn("trap '' TERM; sleep 600 & wait; sleep 600", &run);
        let mut other = spawn("exec sleep 600", &format!("{run}0"));
        assert!(process::wait_until(LONG, || process::with_environ("FLOW_RUN", &run).len() == 2));
        assert!(end_run_processes(&run, Duration::from_millis(50)) >= 2);
        assert_eq!(process::with_environ("FLOW_RUN", &run), [0; 0]);
        child.wait().unwrap();
        assert_eq!(other.try_wait().unwrap(), None, "another run was harmed");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_guard_that_does_not_start() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Guard::start(&dir.path().join("none"), "r").unwrap_err();
        assert!(missing.message.contains("failed to start the guard"), "{missing}");
        let ends = Guard::start(Path::new("/bin/true"), "r").unwrap_err();
        assert!(ends.message.contains("ended at once"), "{ends}");
    }
}
