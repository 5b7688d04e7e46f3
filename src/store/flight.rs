//! Single flight: one holder per key among threads, stores and processes. Unaware of what a key stands for.
//!
//! A lock is one byte of one of a few files in `locks/`, at an offset taken from the key, locked by open file description: it ends
//! with its process, however that ends, and nothing is written. There are several files because the kernel keeps the locks of a
//! file in a list, and a run holds hundreds.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::{holder, place};
use crate::base::digest::Digest;
use crate::{Error, Result};

/// How often a held lock is tried again.
const POLL: Duration = Duration::from_millis(10);

/// How often the holder is looked up while waiting.
const LOOK: Duration = Duration::from_secs(1);

/// How many files there are.
const FILES: u64 = 16;

/// The keys held through one store.
pub(super) struct Flights {
    shards: Vec<Arc<Shard>>,
}

/// One file, and the keys whose bytes are in it.
struct Shard {
    path: PathBuf,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    /// Opened when it is first needed.
    file: Option<File>,
    /// The offsets held by this store: locks of one open file exclude other files only, so its threads are kept apart here.
    held: HashSet<i64>,
}

/// The right to work on one key. Given back when dropped, or when the process ends.
#[must_use = "the key is free again as soon as this is dropped"]
pub struct KeyLock {
    shard: Arc<Shard>,
    offset: i64,
}

enum Attempt {
    Held,
    /// By a thread of this store.
    BusyHere,
    /// By another store or process.
    BusyElsewhere,
}

impl Flights {
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let dir = cache.join("locks");
        std::fs::create_dir_all(&dir)
            .map_err(|e| place::not_writable(Error::io("create the directory", &dir, &e), &e))?;
        let shard = |n| {
            let path = dir.join(format!("{n:x}"));
            Arc::new(Shard { path, state: Mutex::default(), freed: Condvar::new() })
        };
        Ok(Self { shards: (0..FILES).map(shard).collect() })
    }

    pub(super) fn take(
        &self,
        key: &Digest,
        waiting: &mut dyn FnMut(Option<u32>),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<KeyLock>> {
        let (shard, offset) = place_of(key);
        let shard = &self.shards[shard];
        let mut told: Option<Option<u32>> = None;
        let mut looked = Instant::now();
        loop {
            if cancelled() {
                return Ok(None);
            }
            let attempt = shard.attempt(offset)?;
            if matches!(attempt, Attempt::Held) {
                return Ok(Some(KeyLock { shard: Arc::clone(shard), offset }));
            }
            if told.is_none() || looked.elapsed() >= LOOK {
                looked = Instant::now();
                let pid = match attempt {
                    Attempt::BusyElsewhere => holder::of_byte(&shard.path, offset),
                    _ => Some(std::process::id()),
                };
                if told != Some(pid) {
                    told = Some(pid);
                    waiting(pid);
                }
            }
            shard.pause();
        }
    }
}

impl Shard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self, offset: i64) -> Result<Attempt> {
        let mut state = self.state();
        if state.held.contains(&offset) {
            return Ok(Attempt::BusyHere);
        }
        let file = match state.file.take() {
            Some(file) => file,
            None => super::lock_file(&self.path)?,
        };
        let file = state.file.insert(file);
        let locked = set(file, offset, libc::F_WRLCK as libc::c_short)
            .map_err(|e| Error::io("lock a key in", &self.path, e))?;
        if locked {
            state.held.insert(offset);
            Ok(Attempt::Held)
        } else {
            Ok(Attempt::BusyElsewhere)
        }
    }

    /// Waits for a thread of this store to free something, but not for long: other processes do not tell.
    fn pause(&self) {
        let _ = self.freed.wait_timeout(self.state(), POLL).unwrap_or_else(PoisonError::into_inner);
    }

    fn release(&self, offset: i64) {
        let mut state = self.state();
        if let Some(file) = &state.file {
            // Unlocking a byte that is locked cannot fail but for lack of kernel memory; the process's end frees it then.
            let _ = set(file, offset, libc::F_UNLCK as libc::c_short);
        }
        state.held.remove(&offset);
        self.freed.notify_all();
    }
}

/// Locks or unlocks one byte; false if another open file has it.
fn set(file: &File, offset: i64, kind: libc::c_short) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: kind,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset,
        l_len: 1,
        l_pid: 0,
    };
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => return Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        self.shard.release(self.offset);
    }
}

impl std::fmt::Debug for KeyLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyLock({})", self.offset)
    }
}

/// The number of a file and an offset in it: 62 bits of the key. Two keys of one cache meet by chance once in a billion caches, and
/// would then only take turns.
fn place_of(key: &Digest) -> (usize, i64) {
    let mut first = [0; 8];
    first.copy_from_slice(&key.0[..8]);
    let bits = u64::from_be_bytes(first);
    ((bits % FILES) as usize, (bits >> 2) as i64)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    fn never() -> bool {
        false
    }

    #[test]
    fn two_stores_of_one_cache_exclude_each_other_and_name_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().canonicalize().unwrap();
        let (one, two) = (Flights::open(&cache).unwrap(), Flights::open(&cache).unwrap());
        let key = Digest::of(b"k");
        let held = one.take(&key, &mut |_| panic!("nobody else holds it"), &never).unwrap().unwrap();
        let other = two.take(&Digest::of(b"other"), &mut |_| panic!("another key"), &never).unwrap().unwrap();
        let stop = AtomicBool::new(false);
        let mut told = Vec::new();
        let none = two
            .take(
                &key,
                &mut |pid| {
                    told.push(pid);
                    stop.store(true, Ordering::Relaxed);
                },
                &|| stop.load(Ordering::Relaxed),
            )
            .unwrap();
        assert!(none.is_none());
        assert_eq!(told, [Some(std::process::id())]);
        drop((held, other));
        assert!(two.take(&key, &mut |_| panic!("it is free"), &never).unwrap().is_some());
    }

    #[test]
    fn threads_of_one_and_of_two_stores_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let stores = [Flights::open(dir.path()).unwrap(), Flights::open(dir.path()).unwrap()];
        let key = Digest::of(b"k");
        let (inside, total) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for flights in [&stores[0], &stores[0], &stores[1], &stores[1]] {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let _lock = flights.take(&key, &mut |_| {}, &never).unwrap().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        total.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 20);
    }
}
