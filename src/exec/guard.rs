//! The guard: a process of its own session that ends everything a run started once flow is gone, however it went. Unaware of nodes.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

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
const DONE: &str = "done\n";

/// flow's end of the pipe to the guard. While it is open, flow is alive.
#[derive(Debug)]
pub struct Guard {
    pipe: Mutex<Option<ChildStdin>>,
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
        let mut child = Command::new(flow_exe)
            .args(["__guard", run_id])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(says)
            .stderr(Stdio::null())
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
        Ok(Self { pipe: Mutex::new(pipe), child: Mutex::new(child) })
    }

    /// Tells of a process group that must not outlive flow.
    pub fn register(&self, pgid: u32) {
        self.tell(&format!("+{pgid}\n"));
    }

    /// Tells that a process group is empty; its number may mean another one from now on.
    pub fn release(&self, pgid: u32) {
        self.tell(&format!("-{pgid}\n"));
    }

    /// Ends whatever the run left behind and waits for the guard. Every group should be released by now.
    pub fn finish(self) {
        drop(self);
    }

    /// One write per line, so that a line is in the pipe whole or not at all.
    fn tell(&self, line: &str) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = pipe.as_mut() {
            // If somebody killed the guard, the run goes on; the next run then sweeps after this one.
            let _ = pipe.write_all(line.as_bytes());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.tell(DONE);
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take();
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
    let watched = watch(io::stdin().lock());
    sweep(run_id, &watched.groups, GRACE, if watched.in_order { Duration::ZERO } else { SETTLE });
    ExitCode::SUCCESS
}

/// What the guard knows when its input ends.
#[derive(Debug, Default, PartialEq, Eq)]
struct Watched {
    /// Groups told of and not released.
    groups: BTreeSet<u32>,
    /// flow ended by itself.
    in_order: bool,
}

fn watch(input: impl io::Read) -> Watched {
    let mut input = BufReader::new(input);
    let mut watched = Watched::default();
    let mut line = String::new();
    loop {
        line.clear();
        match input.read_line(&mut line) {
            Ok(0) | Err(_) => return watched,
            Ok(_) => {}
        }
        // A line without its end could be the beginning of another number.
        let Some(text) = line.strip_suffix('\n') else { return watched };
        if let Some(Ok(group)) = text.strip_prefix('+').map(str::parse) {
            watched.groups.insert(group);
        } else if let Some(Ok(group)) = text.strip_prefix('-').map(str::parse::<u32>) {
            watched.groups.remove(&group);
        } else if line == DONE {
            watched.in_order = true;
        }
    }
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
