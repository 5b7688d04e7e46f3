//! The threads that hash and copy files. Unaware of what is done on them.
//!
//! They are the store's own: on the common pool, hashing would wait behind stages that compute for minutes.

use std::sync::OnceLock;

use rayon::ThreadPool;

/// Runs `work` so that its parallel iterators use the store's threads.
pub(super) fn install<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        rayon::ThreadPoolBuilder::new().thread_name(|index| format!("flow-files-{index}")).build().ok()
    });
    match pool {
        Some(pool) => pool.install(work),
        None => work(),
    }
}
