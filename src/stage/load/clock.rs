//! The clocks of a load: one monotonic clock for every stamp, the CPU time of a thread, and the wall clock to tie them to dates.

use rustix::time::{ClockId, clock_gettime};

pub(super) use crate::base::clock::monotonic_ns as now;

fn read(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// ns since 1970.
pub(super) fn unix() -> u64 {
    read(ClockId::Realtime)
}

/// CPU time of the calling thread in ns.
pub(super) fn thread_cpu() -> u64 {
    read(ClockId::ThreadCPUTime)
}

/// One moment on both clocks: the reading of the wall clock between two of the other.
pub(super) fn tie() -> (u64, u64) {
    let tries = (0..5).map(|_| {
        let (before, unix, after) = (now(), unix(), now());
        (after - before, before + (after - before) / 2, unix)
    });
    tries.min().map_or_else(|| (now(), unix()), |(_, monotonic, unix)| (monotonic, unix))
}

/// Seconds of a duration or moment in ns.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
