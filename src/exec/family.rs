//! The processes of one attempt or service: its group, and whatever left the group but still carries its mark. Unaware of why they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::Signal;

use crate::base::{clock, process};

/// A variable with a value nobody else has, put into the environment of what is started.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Name of the variable.
    pub(super) variable: &'static str,
    /// Its value.
    pub(super) value: String,
}

impl Mark {
    /// A value never used before on this machine.
    pub(super) fn new(variable: &'static str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let value = format!("{:x}-{:x}-{count:x}", std::process::id(), clock::now_ns());
        Self { variable, value }
    }
}

/// A process group and its mark.
#[derive(Debug)]
pub(super) struct Family {
    /// Id of the group, which is the leader's pid.
    pub(super) pgid: u32,
    /// What its processes carry.
    pub(super) mark: Mark,
}

impl Family {
    /// Every process that runs and belongs to it, in order of pid.
    pub(super) fn members(&self) -> BTreeSet<u32> {
        let mut members: BTreeSet<u32> = self.marked().into_iter().collect();
        if process::group_alive(self.pgid) {
            members.extend(process::in_group(self.pgid));
        }
        members
    }

    /// Those that carry the mark.
    fn marked(&self) -> Vec<u32> {
        process::with_environ(self.mark.variable, &self.mark.value)
    }

    /// Sends a signal to all of them.
    pub(super) fn signal(&self, signal: Signal) {
        process::kill_group(self.pgid, signal);
        for pid in self.marked() {
            process::kill(pid, signal);
        }
    }

    /// Asks all to end; one that is stopped is woken to hear it.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
    }

    /// True if something is left after the leader was reaped. Cheap: a process that was looked at before is not read again.
    pub(super) fn left_over(&self) -> bool {
        process::group_alive(self.pgid) || seen_with(&self.mark)
    }
}

/// Whether a process with this mark runs, by what each process carried when it was first seen.
///
/// This is asked at the end of every command, so it costs one listing of `/proc` and a look at what is new there. Of a process between
/// fork and exec the parent's environment is seen: that of a marked parent carries the mark too, and what flow itself starts leads a
/// group. The sweep at the end of the run reads every process again.
fn seen_with(mark: &Mark) -> bool {
    static SEEN: Mutex<BTreeMap<u32, Option<String>>> = Mutex::new(BTreeMap::new());
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut now = BTreeMap::new();
    for pid in process::pids() {
        let carried = seen.remove(&pid).unwrap_or_else(|| process::environ_value(pid, mark.variable));
        now.insert(pid, carried);
    }
    *seen = now;
    let carriers = seen.iter().filter(|(_, carried)| carried.as_deref() == Some(mark.value.as_str()));
    carriers
        .into_iter()
        .any(|(pid, _)| process::environ_value(*pid, mark.variable).as_ref() == Some(&mark.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_unique() {
        let marks: BTreeSet<String> = (0..100).map(|_| Mark::new("M").value).collect();
        assert_eq!(marks.len(), 100);
    }
}
