//! Processes of this machine: who is alive, who is in a group, who carries a variable in its environment. Unaware of who started them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// What `/proc/PID/stat` says, as far as it matters here.
#[derive(Clone, Copy, Debug)]
struct Status {
    state: u8,
    parent: u32,
    group: u32,
    start: u64,
}

impl Status {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything, also spaces and parentheses.
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }

    /// A zombie runs no more; it only waits to be reaped.
    fn runs(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// When a process started, in clock ticks since boot: with the pid it names a process for as long as the machine is up.
pub fn start_time(pid: u32) -> Option<u64> {
    Status::of(pid).map(|status| status.start)
}

/// True while the process that had this pid and this start time runs; a zombie does not run.
pub fn is_alive(pid: u32, start_time: u64) -> bool {
    Status::of(pid).is_some_and(|status| status.start == start_time && status.runs())
}

/// True while a process of the group runs; zombies do not count.
pub fn group_alive(pgid: u32) -> bool {
    match signal::killpg(as_pid(pgid), None) {
        Err(Errno::ESRCH) => false,
        _ if fs::exists("/proc/self/stat").unwrap_or(false) => !in_group(pgid).is_empty(),
        _ => true,
    }
}

/// The processes of a group that run, in order of pid.
pub fn in_group(pgid: u32) -> Vec<u32> {
    let member = |pid: &u32| Status::of(*pid).is_some_and(|status| status.group == pgid && status.runs());
    pids().into_iter().filter(member).collect()
}

/// The processes whose environment holds `var=value`, in order of pid, without this one. Those of other users cannot be seen.
pub fn with_environ(var: &str, value: &str) -> Vec<u32> {
    let own = std::process::id();
    let carries = |pid: &u32| *pid != own && environ_value(*pid, var).as_deref() == Some(value);
    pids().into_iter().filter(carries).collect()
}

/// The value of a variable in the environment a process was started with. A zombie has none.
pub fn environ_value(pid: u32, var: &str) -> Option<String> {
    // its length is not told beforehand: one large read instead of many that grow
    let mut environ = Vec::with_capacity(16 << 10);
    fs::File::open(format!("/proc/{pid}/environ")).ok()?.read_to_end(&mut environ).ok()?;
    let value = environ
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(var.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// This process's parent, its parent, and so on.
pub fn ancestors() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut pid = std::process::id();
    while let Some(parent) = Status::of(pid).map(|status| status.parent).filter(|parent| *parent > 0) {
        if !found.insert(parent) {
            break;
        }
        pid = parent;
    }
    found
}

/// All processes there are, in order of pid; empty where there is no `/proc`.
pub fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// The group of a process, also of one that has ended and waits to be reaped; `None` if there is none of this id.
pub fn group_of(pid: u32) -> Option<u32> {
    match nix::unistd::getpgid(Some(as_pid(pid))) {
        Ok(group) => u32::try_from(group.as_raw()).ok(),
        Err(Errno::ESRCH) => None,
        Err(_) => Some(0),
    }
}

/// The id given to the newest process or thread; ids are given in rising order, and then from the beginning. `None` where the system
/// does not tell.
pub fn last_pid() -> Option<u32> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let file = File::open("/proc/loadavg").ok()?;
        // In some containers another file system stands in for this file, and tells something else.
        let kind = nix::sys::statfs::fstatfs(&file).ok()?.filesystem_type();
        (kind == nix::sys::statfs::PROC_SUPER_MAGIC).then_some(file)
    });
    let mut buffer = [0; 128];
    let read = file.as_ref()?.read_at(&mut buffer, 0).ok()?;
    std::str::from_utf8(&buffer[..read]).ok()?.split_ascii_whitespace().last()?.parse().ok()
}

/// A descriptor of a child that was not reaped yet: it becomes readable when the process ends. `None` where the system has none.
pub fn handle(child: u32) -> Option<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    pidfd_open(Pid::from_raw(i32::try_from(child).ok()?)?, PidfdFlags::empty()).ok()
}

/// Sends a signal to every process of a group; false if there is none. Groups 0 and 1 are never meant.
pub fn kill_group(pgid: u32, signal: Signal) -> bool {
    pgid > 1 && signal::killpg(as_pid(pgid), signal).is_ok()
}

/// Sends a signal to one process; false if it is gone. 0 and 1 are never meant.
pub fn kill(pid: u32, signal: Signal) -> bool {
    pid > 1 && signal::kill(as_pid(pid), signal).is_ok()
}

/// `SIGKILL` for 9; `signal 35` for one without a name.
pub fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// The command line of a process, arguments joined by spaces, at most 80 characters; for messages.
pub fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> =
        bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    let line: String = words.join(" ").chars().take(80).collect();
    (!line.is_empty()).then_some(line)
}

/// Looks until `done` holds or `within` is over, with growing pauses of at most 20 ms; says whether it held.
pub fn wait_until(within: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(1);
    loop {
        if done() {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn own_process_is_alive_by_pid_and_start() {
        let own = std::process::id();
        let start = start_time(own).unwrap();
        assert!(is_alive(own, start));
        assert!(!is_alive(own, start + 1));
        assert!(ancestors().contains(&std::os::unix::process::parent_id()));
        assert!(command_line(own).is_some());
    }

    #[test]
    fn a_group_lives_as_long_as_a_member_that_is_no_zombie() {
        let value = format!("a={}", std::process::id());
        let mut child = Command::new("sleep")
            .arg("60")
            .env("FLOW_PROCESS_TEST", &value)
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        assert!(group_alive(pid));
        assert_eq!(in_group(pid), [pid]);
        assert!(wait_until(LONG, || with_environ("FLOW_PROCESS_TEST", &value) == [pid]));
        assert!(with_environ("FLOW_PROCESS_TEST", "a").is_empty());
        assert_eq!(group_of(pid), Some(pid));
        assert!(last_pid().is_none_or(|last| last >= pid || last < std::process::id()), "{:?}", last_pid());
        let start = start_time(pid).unwrap();
        assert!(kill_group(pid, Signal::SIGKILL));
        assert!(wait_until(LONG, || !group_alive(pid)), "a zombie counts as alive");
        assert!(!is_alive(pid, start));
        child.wait().unwrap();
        assert_eq!(group_of(pid), None);
        assert!(!group_alive(pid));
        assert!(!kill_group(pid, Signal::SIGTERM));
    }

    #[test]
    fn nobody_signals_everybody() {
        assert!(!kill_group(0, Signal::SIGCONT));
        assert!(!kill_group(1, Signal::SIGCONT));
        assert!(!kill(0, Signal::SIGCONT));
        assert!(!kill(1, Signal::SIGCONT));
    }

    #[test]
    fn names_of_signals() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(64), "signal 64");
    }
}
