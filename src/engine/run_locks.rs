//! What a run has of the machine and no other run of the same user has: locks, and what is said while one waits for them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::schedule::{Locks, Shared};
use crate::event::{Event, Sink};
use crate::exec::{Denied, Device, MachineLock, MachineLocks};

/// So long a wait for another run is said.
const WORTH_A_NOTE: Duration = Duration::from_millis(200);

/// What this run has of the machine, locked among all runs; virtual devices are nobody else's.
pub(super) struct RunLocks {
    locks: MachineLocks,
    devices: Vec<Device>,
    held: HashMap<Shared, MachineLock>,
    /// Since when others were found to have something.
    denied: HashMap<String, Instant>,
    told: HashSet<String>,
    sink: Arc<dyn Sink>,
}

impl fmt::Debug for RunLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunLocks").field("held", &self.held).finish_non_exhaustive()
    }
}

impl RunLocks {
    pub(super) fn new(devices: Vec<Device>, sink: Arc<dyn Sink>) -> Self {
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR");
        let locks = MachineLocks::of_user(runtime_dir.as_deref().map(Path::new));
        Self { locks, devices, held: HashMap::new(), denied: HashMap::new(), told: HashSet::new(), sink }
    }

    /// Once for each `what`.
    fn say(&mut self, what: String, message: String) {
        if self.told.insert(what) {
            self.sink.emit(Event::Note { message });
        }
    }
}

impl Locks for RunLocks {
    fn take(&mut self, what: &Shared) -> bool {
        if self.held.contains_key(what) {
            return false;
        }
        let (kind, name, shown, holds) = match what {
            Shared::Device(at) if self.devices[*at].is_virtual() => return true,
            Shared::Device(at) => {
                let device = &self.devices[*at];
                (
                    "device",
                    device.uuid.clone(),
                    format!("device {} ({})", device.index, device.uuid),
                    "is leased by",
                )
            }
            Shared::Slot(pool, slot) => {
                ("pool", format!("{slot} of {pool}"), format!("pool '{pool}'"), "is used by")
            }
            Shared::Alone => {
                ("exclusive", String::new(), "being alone on this machine".to_owned(), "is held by")
            }
        };
        match self.locks.try_take(kind, &name) {
            Ok(lock) => {
                self.held.insert(what.clone(), lock);
                self.denied.remove(&shown);
                true
            }
            Err(Denied::Held(pid)) => {
                let who =
                    pid.map_or_else(|| "another run".to_owned(), |pid| format!("the run of process {pid}"));
                let waits = match what {
                    Shared::Alone => "waiting for its end",
                    _ => "waiting for it, or for another",
                };
                // another one may be free, or this one in a moment
                let since = *self.denied.entry(shown.clone()).or_insert_with(Instant::now);
                if since.elapsed() >= WORTH_A_NOTE {
                    self.say(shown.clone(), format!("{shown} {holds} {who}: {waits}"));
                }
                false
            }
            Err(Denied::Fault(why)) => {
                self.say(shown.clone(), format!("{shown} is not locked against other runs: {why}"));
                true
            }
        }
    }

    fn give(&mut self, what: &Shared) {
        self.held.remove(what);
    }
}
