//! Calls of the binary. Unaware of what they are to come to.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A call that is still running.
pub struct Started {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    pub events: PathBuf,
}

/// A call that ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// Lines of the event stream; a last one that was cut off is left out.
    pub events: Vec<Value>,
}

/// Starts `flow` in `root`; what it says goes to files named by `name` in `talk`.
pub fn start(root: &Path, talk: &Path, name: &str, args: &[String], failpoint: Option<&str>) -> Started {
    let file = |end: &str| talk.join(format!("{name}.{end}"));
    let (out, err, events) = (file("out"), file("err"), file("events"));
    let _ = std::fs::remove_file(&events);
    // another build of the same program, if one is named
    let binary = std::env::var_os("FLOW_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_flow").into());
    let mut command = Command::new(binary);
    command.args(args).current_dir(root).env_clear().stdin(Stdio::null());
    if args[0] == "run" {
        command.arg("--events").arg(&events);
    }
    for name in ["PATH", "HOME", "TMPDIR"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.envs(failpoint.map(|point| ("FLOW_FAILPOINT", point)));
    command.stdout(std::fs::File::create(&out).unwrap()).stderr(std::fs::File::create(&err).unwrap());
    Started { child: command.spawn().unwrap(), out, err, events }
}

impl Started {
    /// Waits for its end, for as long as anything may take; a call that hangs is killed and told.
    pub fn wait(mut self) -> Result<Ended, String> {
        let deadline = Instant::now() + Duration::from_secs(120);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let pid = self.child.id();
                let _ = self.child.kill();
                let _ = self.child.wait();
                let said = std::fs::read_to_string(&self.err).unwrap_or_default();
                return Err(format!("flow ({pid}) did not end within two minutes; it said:\n{said}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let read =
            |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        let events = read(&self.events);
        let events = events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Ended { status, stdout: read(&self.out), stderr: read(&self.err), events })
    }

    /// Lets it run for a while, then sends a signal unless it has ended.
    pub fn signal_after(&mut self, time: Duration, signal: nix::sys::signal::Signal) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.child.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(5)));
        }
        if self.child.try_wait().unwrap().is_none() {
            let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
            let _ = nix::sys::signal::kill(pid, signal);
        }
    }
}
