//! Named points at which a test can kill or stop the process, to prove that a kill leaves nothing half done, and what others may do
//! meanwhile. Unaware of what happens there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

/// The variable that arms one point: `NAME`, or `NAME:N` for the N-th time it is reached (from 1).
///
/// The points: `opened` (the cache), `running` (a command has written to its output), `blob_unplaced` (written, without its name), `blob_written`,
/// `result_row` (committed), `between_renames`, `workspace_row` (not yet committed), `uncommitted` (a transaction of either
/// database), `record_line` (of the run record, not yet in the file), `service_start` (its process runs, it is not ready),
/// `set_aside`, `put_back`, `gc_listed` (nothing removed yet), `gc_aside` (one blob out of its place).
pub const VARIABLE: &str = "FLOW_FAILPOINT";

/// The same for a point at which the process stops until it gets SIGCONT.
pub const STOP_VARIABLE: &str = "FLOW_FAILPOINT_STOP";

struct Armed {
    name: String,
    signal: Signal,
    left: AtomicU64,
}

/// Says that the point `name` was reached: the process ends at once by SIGKILL if [`VARIABLE`] says so, or stops.
pub fn hit(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let from = |variable, signal| std::env::var(variable).ok().and_then(|text| parse(&text, signal));
        from(VARIABLE, Signal::SIGKILL).or_else(|| from(STOP_VARIABLE, Signal::SIGSTOP))
    });
    if let Some(armed) = armed
        && armed.reached(name)
    {
        // Neither signal can be caught; an error would mean that there is no such process.
        let _ = kill(getpid(), armed.signal);
    }
}

fn parse(text: &str, signal: Signal) -> Option<Armed> {
    let (name, count) = match text.rsplit_once(':') {
        Some((name, count)) => (name, count.parse().ok()?),
        None => (text, 1),
    };
    (!name.is_empty() && count > 0).then(|| Armed {
        name: name.to_owned(),
        signal,
        left: AtomicU64::new(count),
    })
}

impl Armed {
    /// True for the hit that the variable asks for, once.
    fn reached(&self, name: &str) -> bool {
        self.name == name
            && self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)) == Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_hit_fires_once_and_no_other() {
        let armed = parse("result_row:3", Signal::SIGKILL).unwrap();
        let fired: Vec<bool> = ["result_row", "blob_written", "result_row", "result_row", "result_row"]
            .iter()
            .map(|name| armed.reached(name))
            .collect();
        assert_eq!(fired, [false, false, false, true, false]);
        assert!(parse("x", Signal::SIGSTOP).unwrap().reached("x"));
        assert!(["", "x:0", "x:y"].iter().all(|text| parse(text, Signal::SIGKILL).is_none()));
    }
}
