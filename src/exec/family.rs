//! The processes of one attempt or service: its group, and whatever left the group but still carries its mark. Unaware of why they end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Guard;
use crate::base::{clock, process};

/// More processes than this since a command began: all that there are are fewer to look at.
const MANY: u32 = 2000;
/// In less time than this, ids of processes do not come round.
const ROUND: Duration = Duration::from_millis(500);

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
        // once each: many servers take a second SIGTERM for "at once"
        for pid in self.marked().into_iter().filter(|pid| process::group_of(*pid) != Some(self.pgid)) {
            process::kill(pid, signal);
        }
    }

    /// Asks all to end; one that is stopped is woken to hear it.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
    }

    /// True if something is left after the leader, which was started at `since`, was reaped.
    pub(super) fn left_over(&self, since: Instant, guard: &Guard) -> bool {
        process::group_alive(self.pgid) || self.marked_since(since, guard)
    }

    /// Whether a process runs that was started after the leader and carries the mark.
    ///
    /// This is asked at the end of every command. Ids of processes are given in rising order, so those that descend from the leader are
    /// among the few after its own: each is asked for by its id, and only one that is there, in no group of another command, is looked at. Where an id may have come
    /// round, or the system does not tell the last one, all processes are looked at. Of a process between fork and exec the parent's
    /// environment is seen: that of a marked parent carries the mark too.
    fn marked_since(&self, since: Instant, guard: &Guard) -> bool {
        let mut from = self.pgid;
        loop {
            let Some(last) = process::last_pid().filter(|last| (from..from + MANY).contains(last)) else {
                return !self.marked().is_empty();
            };
            if since.elapsed() > ROUND {
                return !self.marked().is_empty();
            }
            if last == from {
                return false;
            }
            // One that is gone may have started another meanwhile: the last id is asked for until it stands.
            let foreign = |group: u32| group != self.pgid && guard.knows(group);
            let there = |pid: &u32| process::group_of(*pid).is_some_and(|group| !foreign(group));
            if (from + 1..=last).filter(there).any(|pid| self.is_marked(pid)) {
                return true;
            }
            from = last;
        }
    }

    fn is_marked(&self, pid: u32) -> bool {
        process::environ_value(pid, self.mark.variable).as_ref() == Some(&self.mark.value)
    }
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
