//! One writing run per workspace: a lock on the root directory itself. Unaware of what the run does.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::holder;
use crate::{Error, Result};

/// How often a held lock is tried again.
const POLL: Duration = Duration::from_millis(20);

/// How often the holder is looked up while waiting.
const LOOK: Duration = Duration::from_secs(1);

/// The right to write in a workspace. Given back when dropped, or when the process ends.
#[must_use = "the workspace is free again as soon as this is dropped"]
#[derive(Debug)]
pub struct WorkspaceLock {
    root: File,
}

impl Drop for WorkspaceLock {
    fn drop(&mut self) {
        // Closing is not enough: a child being started shares the open directory until it runs its program.
        let _ = self.root.unlock();
    }
}

/// What trying to lock a workspace came to.
#[derive(Debug)]
pub enum LockOutcome {
    /// The lock is ours.
    Held(WorkspaceLock),
    /// Another run has it.
    Busy {
        /// Its process, where the system tells it.
        pid: Option<u32>,
    },
}

pub(super) fn try_lock(root: &Path) -> Result<LockOutcome> {
    let dir = File::open(root).map_err(|e| Error::io("open the workspace", root, e))?;
    match dir.try_lock() {
        Ok(()) => Ok(LockOutcome::Held(WorkspaceLock { root: dir })),
        Err(TryLockError::WouldBlock) => Ok(LockOutcome::Busy { pid: holder::of_flock(&dir) }),
        Err(TryLockError::Error(e)) => Err(Error::io("lock the workspace", root, e)),
    }
}

pub(super) fn lock(
    root: &Path,
    waiting: &mut dyn FnMut(Option<u32>),
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<WorkspaceLock>> {
    let dir = File::open(root).map_err(|e| Error::io("open the workspace", root, e))?;
    let mut told: Option<Option<u32>> = None;
    let mut looked = Instant::now();
    loop {
        if cancelled() {
            return Ok(None);
        }
        match dir.try_lock() {
            Ok(()) => return Ok(Some(WorkspaceLock { root: dir })),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(Error::io("lock the workspace", root, e)),
        }
        if told.is_none() || looked.elapsed() >= LOOK {
            looked = Instant::now();
            let pid = holder::of_flock(&dir);
            if told != Some(pid) {
                told = Some(pid);
                waiting(pid);
            }
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_second_is_told_who_has_it_and_gets_it_when_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let LockOutcome::Held(first) = try_lock(dir.path()).unwrap() else { panic!("it is free") };
        let LockOutcome::Busy { pid } = try_lock(dir.path()).unwrap() else { panic!("it is held") };
        assert_eq!(pid, Some(std::process::id()));
        let stop = Cell::new(false);
        let none = lock(dir.path(), &mut |_| stop.set(true), &|| stop.get()).unwrap();
        assert!(none.is_none());
        let mut first = Some(first);
        let second = lock(dir.path(), &mut |_| first = None, &|| false).unwrap();
        assert!(second.is_some());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
