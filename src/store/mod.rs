//! The artifact store: zstd blobs, SQLite index, workspace state, stat cache, restore, gc, locks. Unaware of graphs.
//!
//! Two kinds of state: results and blobs, which hold no path of this machine and can be copied elsewhere, and the state of each
//! workspace, which cannot. Nothing is synced to disk per node: after a power cut a blob may be damaged or a row missing, which
//! is noticed by the digest or by the row's absence, and made again.

mod closure;
mod content;
mod db;
mod desks;
mod discovered;
mod flight;
mod generation;
mod frames;
mod gc;
mod hash;
mod holder;
mod index;
mod local;
mod objects;
mod pack;
mod place;
mod pool;
mod put;
mod record;
mod restore;
pub mod runs;
mod salvage;
mod tree;
mod tree_hash;
mod verify;
mod workspace;
mod writer;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use flight::KeyLock;
pub use gc::{GcOptions, GcReport};
pub use record::{RESULT_VERSION, ResultRecord};
pub use restore::RestoreError;
pub use salvage::{Rebuilt, rebuild_damaged};
pub use tree::tree_artifact;
pub use verify::{CacheStats, IncompleteResult, VerifyReport};
pub use workspace::{
    Content, LockOutcome, Look, NodeRow, NodeSummary, PublishedRow, Workspace, WorkspaceLock,
};

use crate::base::digest::Digest;
use crate::base::failpoint;
use crate::{Error, Result};

/// One cache directory, open. Cheap to clone; shared by threads.
///
/// Its calls block on files and on the index: call them from threads that may wait, not from those of the common rayon pool, which
/// would take up another stage's work while they wait.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// Whose results that stand in one workspace only are seen.
    home: Option<local::Home>,
}

struct Inner {
    dir: PathBuf,
    objects: objects::Objects,
    index: index::Index,
    flights: flight::Flights,
    /// Held shared while the store is open, so that `gc` knows whether it is alone.
    gate: Mutex<File>,
}

impl Store {
    /// Opens or creates the cache in `cache`. A network file system and an index of a newer version are refused. Waits while
    /// another process runs `gc` on it.
    pub fn open(cache: &Path) -> Result<Self> {
        let dir = place::prepare(cache)?;
        let gate = lock_file(&dir.join("gc.lock"))?;
        let failed = |e: std::io::Error| Error::io("lock", &dir.join("gc.lock"), e);
        let objects = objects::Objects::new(&dir);
        // whoever has the cache alone removes what killed processes left half written
        if gate.try_lock().is_ok() {
            let _ = objects.remove_unfinished();
            gate.unlock().map_err(failed)?;
        }
        gate.lock_shared().map_err(failed)?;
        let inner = Inner {
            objects,
            index: index::Index::open(&dir)?,
            flights: flight::Flights::open(&dir)?,
            gate: Mutex::new(gate),
            dir,
        };
        failpoint::hit("opened");
        Ok(Self { inner: Arc::new(inner), home: None })
    }

    /// The cache directory, absolute and without links.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Says that few of many results will be asked for: they are read one by one.
    pub fn expect_few(&self) {
        self.inner.index.expect_few();
    }

    /// The same cache as this workspace sees it: with the results that stand in it only.
    #[must_use]
    pub fn seen_from(&self, workspace: &Workspace) -> Self {
        Self { inner: Arc::clone(&self.inner), home: Some(workspace.home()) }
    }

    /// The recorded result of `key`; of one that others see and one that stands in this workspace only the newer.
    pub fn result(&self, key: &Digest) -> Result<Option<Arc<ResultRecord>>> {
        self.result_by(key, |key| self.inner.index.result(key))
    }

    /// The same at less cost; but what another process records while this store is open may be missed. For whoever asks again with
    /// [`Store::result`] once it holds the key.
    pub fn result_at_first(&self, key: &Digest) -> Result<Option<Arc<ResultRecord>>> {
        self.result_by(key, |key| self.inner.index.result_at_first(key))
    }

    fn result_by(
        &self,
        key: &Digest,
        row: impl Fn(&Digest) -> Result<Option<Arc<ResultRecord>>>,
    ) -> Result<Option<Arc<ResultRecord>>> {
        let shared = row(key)?.filter(|record| !record.is_local());
        let Some(home) = self.home.as_ref().filter(|home| home.any()) else { return Ok(shared) };
        Ok([shared, row(&home.key(key))?].into_iter().flatten().max_by_key(|record| record.made_at_ns))
    }

    /// Records the result of `key`; returns when it is committed. Its blobs must have been put before.
    pub fn put_result(&self, key: &Digest, record: &ResultRecord) -> Result<()> {
        self.put_results(&[(*key, record)])
    }

    /// Records several results in one transaction; returns when they are committed. Their blobs must have been put before.
    pub fn put_results(&self, results: &[(Digest, &ResultRecord)]) -> Result<()> {
        if results.iter().all(|(_, record)| !record.is_local()) {
            return self.inner.index.put_results(results);
        }
        let home = self.home.as_ref();
        let home =
            home.ok_or_else(|| Error::bug("a result that stands in one workspace only has no workspace"))?;
        let local = results.iter().filter(|(_, record)| record.is_local());
        let local = local.map(|(key, record)| home.row(key, record)).collect::<Result<Vec<_>>>()?;
        let shared = results.iter().filter(|(_, record)| !record.is_local()).copied();
        let rows: Vec<_> = shared.chain(local.iter().map(|(key, record)| (*key, record))).collect();
        self.inner.index.put_results(&rows)
    }

    /// Notes which inputs (paths relative to the root; outside of it as the command named them) a command discovered. `key`: the
    /// first level of its key. Queued; committed before any result that is put later.
    pub fn put_discovered(&self, key: &Digest, paths: &[String]) -> Result<()> {
        self.inner.index.put_discovered(key, paths)
    }

    /// The lists of inputs that were discovered under the first level of a key, newest first; the last few dozen are kept.
    pub fn discovered(&self, key: &Digest) -> Result<Vec<Arc<[String]>>> {
        self.inner.index.discovered(key)
    }

    /// Waits until no other thread, store or process holds `key`, and holds it. `waiting` is called when the wait begins, and again
    /// when the holder is another one, with its pid where the system tells it. `None` if `cancelled` says so.
    pub fn single_flight(
        &self,
        key: &Digest,
        waiting: &mut dyn FnMut(Option<u32>),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<KeyLock>> {
        self.inner.flights.take(key, waiting, cancelled)
    }

    fn index(&self) -> &index::Index {
        &self.inner.index
    }

    fn objects(&self) -> &objects::Objects {
        &self.inner.objects
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing is not enough: a child being started shares the open file until it runs its program.
        let _ = self.gate.get_mut().unwrap_or_else(PoisonError::into_inner).unlock();
    }
}

/// Opens a file that only serves to be locked.
fn lock_file(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(|e| match path
        .is_dir()
    {
        true => Error::io("open", path, &e)
            .hint("a directory stands where flow keeps a file that is only locked: remove it"),
        false => place::not_writable(Error::io("open", path, &e), &e),
    })
}

#[cfg(test)]
mod tests;
