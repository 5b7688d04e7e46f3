//! Named points at which a test can kill the process, to prove that a kill leaves nothing half done. Unaware of what happens there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

/// The variable that arms one point: `NAME`, or `NAME:N` for the N-th time it is reached (from 1).
///
/// The points: `running` (a command has written to its output), `blob_written`, `result_row` (committed), `between_renames`,
/// `workspace_row` (not yet committed), `service_start` (its process runs, it is not ready), `set_aside`, `put_back`.
pub const VARIABLE: &str = "FLOW_FAILPOINT";

struct Armed {
    name: String,
    left: AtomicU64,
}

/// Says that the point `name` was reached: the process ends at once by SIGKILL if [`VARIABLE`] says so.
pub fn hit(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().as_deref().and_then(parse));
    if let Some(armed) = armed
        && armed.reached(name)
    {
        // The signal cannot be caught, so the call does not come back; an error would mean that there is no such process.
        let _ = kill(getpid(), Signal::SIGKILL);
    }
}

fn parse(text: &str) -> Option<Armed> {
    let (name, count) = match text.rsplit_once(':') {
        Some((name, count)) => (name, count.parse().ok()?),
        None => (text, 1),
    };
    (!name.is_empty() && count > 0).then(|| Armed { name: name.to_owned(), left: AtomicU64::new(count) })
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
        let armed = parse("result_row:3").unwrap();
        let fired: Vec<bool> = ["result_row", "blob_written", "result_row", "result_row", "result_row"]
            .iter()
            .map(|name| armed.reached(name))
            .collect();
        assert_eq!(fired, [false, false, false, true, false]);
        assert!(parse("x").unwrap().reached("x"));
        assert!(parse("").is_none() && parse("x:0").is_none() && parse("x:y").is_none());
    }
}
