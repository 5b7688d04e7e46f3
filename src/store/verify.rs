//! Looking at a whole cache: how much there is, and whether it is what it says. Unaware of runs in progress.

use std::collections::HashSet;

use rayon::prelude::*;
use serde::Serialize;

use super::frames::Frames;
use super::salvage::{self, Rebuilt};
use super::{Store, content, index, pack, pool, runs};
use crate::base::digest::Digest;
use crate::model::Artifact;
use crate::{Error, Result};

/// How much a cache holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheStats {
    /// Recorded results.
    pub results: u64,
    /// Blob files.
    pub blobs: u64,
    /// Blobs in the index.
    pub small: u64,
    /// Bytes of all blobs as they are stored.
    pub stored_bytes: u64,
    /// Bytes of their content.
    pub content_bytes: u64,
    /// Run records.
    pub runs: u64,
}

/// What a check of the whole cache found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Blobs read.
    pub checked: u64,
    /// Bytes read, as stored.
    pub bytes: u64,
    /// Blobs whose content does not have the digest that they are named by, sorted.
    pub corrupt: Vec<Digest>,
    /// Blobs that could not be read, sorted, and why.
    pub unreadable: Vec<(Digest, String)>,
    /// Results whose rows are damaged, by key, sorted.
    pub damaged_results: Vec<Digest>,
    /// Databases that are damaged (relative to the cache), and what SQLite says.
    pub damaged_databases: Vec<(String, String)>,
    /// Run records that cannot be read whole, by run, sorted, and why. Those of killed runs are no fault.
    pub damaged_runs: Vec<(String, String)>,
    /// Names among the blobs that are none.
    pub foreign: Vec<String>,
    /// Results of which bytes are missing or damaged. Missing ones are no fault, since `gc` removes bytes and keeps results.
    pub incomplete: Vec<IncompleteResult>,
    /// Corrupt blobs, damaged results and run records that were taken away.
    pub removed: u64,
    /// Databases that were made anew.
    pub rebuilt: Vec<Rebuilt>,
}

/// A result of which bytes are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IncompleteResult {
    /// Its key.
    pub key: Digest,
    /// The node that made it.
    pub node: String,
    /// The outputs that cannot be restored.
    pub outputs: Vec<String>,
}

enum Found {
    Intact,
    Corrupt,
    Unreadable(String),
    Gone,
}

impl Store {
    /// How much there is. Reads the head of every blob.
    pub fn stats(&self) -> Result<CacheStats> {
        let (blobs, _) = self.objects().list().map_err(|e| self.list_failed(e))?;
        let small = self.index().list_small()?;
        let mut stats = CacheStats {
            results: self.index().count_results()?,
            blobs: blobs.len() as u64,
            small: small.len() as u64,
            runs: runs::list(self)?.len() as u64,
            ..CacheStats::default()
        };
        for blob in &blobs {
            stats.stored_bytes += blob.bytes;
            stats.content_bytes += self.content_size(&blob.digest).unwrap_or(blob.bytes);
        }
        for blob in &small {
            stats.stored_bytes += blob.bytes;
            let packed = self.index().small_untouched(&blob.digest)?;
            let size = packed
                .filter(|(packed, _)| packed.starts_with(&pack::MAGIC))
                .and_then(|(packed, _)| pack::content_size(&packed));
            stats.content_bytes += size.unwrap_or(blob.bytes);
        }
        Ok(stats)
    }

    /// Reads every blob and compares it with its name; looks at every result, database and run record. Changes nothing.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.check(false)
    }

    /// As [`Store::verify`], and takes away what is damaged: blobs and results, so that they are made again, and run records, which
    /// keep lying there under another name. A damaged index cannot be opened: see [`super::rebuild_damaged`].
    pub fn repair(&self) -> Result<VerifyReport> {
        self.check(true)
    }

    pub(super) fn list_failed(&self, cause: std::io::Error) -> Error {
        Error::io("list the blobs of", self.dir(), cause)
    }

    fn content_size(&self, digest: &Digest) -> Option<u64> {
        use std::io::Read;
        let stored = self.objects().open_untouched(digest).ok().flatten()?;
        if !stored.compressed {
            return None;
        }
        if let Some(frames) = Frames::read(&stored.file).ok()? {
            return Some(frames.size);
        }
        let mut head = Vec::with_capacity(18);
        stored.file.take(18).read_to_end(&mut head).ok()?;
        pack::content_size(&head)
    }

    fn check(&self, remove: bool) -> Result<VerifyReport> {
        // results first: the blobs of one that is there now are listed below
        let index::Rows { whole: results, damaged: damaged_results } = self.index().results()?;
        let (blobs, foreign) = self.objects().list().map_err(|e| self.list_failed(e))?;
        let small = self.index().list_small()?;
        let found_blobs: Vec<Found> =
            pool::install(|| blobs.par_iter().map(|blob| self.check_file(&blob.digest, remove)).collect());
        let mut report = VerifyReport { foreign, damaged_results, ..VerifyReport::default() };
        let mut intact: HashSet<Digest> = HashSet::with_capacity(blobs.len() + small.len());
        for (blob, found) in blobs.iter().zip(found_blobs) {
            if matches!(found, Found::Intact) {
                intact.insert(blob.digest);
            }
            report.note(blob.digest, blob.bytes, found);
        }
        let mut damaged = Vec::new();
        for blob in &small {
            let Some((packed, _)) = self.index().small_untouched(&blob.digest)? else { continue };
            let found = if pack::unpack(packed).is_ok_and(|bytes| Digest::of(&bytes) == blob.digest) {
                intact.insert(blob.digest);
                Found::Intact
            } else {
                damaged.push((blob.digest, i64::MAX));
                Found::Corrupt
            };
            report.note(blob.digest, blob.bytes, found);
        }
        for (path, schema) in salvage::databases(self.dir())? {
            // one that cannot be told to be sound, as of a newer flow, is named too
            let fault = salvage::fault_of(&path, schema).unwrap_or_else(|error| Some(error.message));
            if let Some(fault) = fault {
                let shown = path.strip_prefix(self.dir()).unwrap_or(&path).to_string_lossy().into_owned();
                report.damaged_databases.push((shown, fault));
            }
        }
        for run in runs::list(self)? {
            if let Err(error) = runs::read(self, &run.id) {
                if remove {
                    runs::set_aside(&run.path)?;
                }
                report.damaged_runs.push((run.id, error.message));
            }
        }
        report.damaged_runs.sort();
        report.corrupt.sort();
        report.corrupt.dedup();
        report.unreadable.sort();
        if remove {
            self.index().remove_small(damaged)?;
            self.index().remove_damaged(report.damaged_results.clone())?;
            report.removed =
                (report.corrupt.len() + report.damaged_results.len() + report.damaged_runs.len()) as u64;
        }
        for (key, record) in results {
            let mut outputs = Vec::new();
            for (name, artifact) in &record.outputs {
                if !self.is_whole(artifact, &intact)? {
                    outputs.push(name.clone());
                }
            }
            if !outputs.is_empty() {
                report.incomplete.push(IncompleteResult { key, node: record.node, outputs });
            }
        }
        Ok(report)
    }

    /// Whether everything that restoring `artifact` needs is among these blobs.
    fn is_whole(&self, artifact: &Artifact, intact: &HashSet<Digest>) -> Result<bool> {
        let mut needed = HashSet::new();
        self.closure(artifact, &mut needed)?;
        Ok(needed.is_subset(intact))
    }

    fn check_file(&self, digest: &Digest, remove: bool) -> Found {
        let mut stored = match self.objects().open_untouched(digest) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Found::Gone,
            Err(e) => return Found::Unreadable(e.to_string()),
        };
        match content::is_intact(&mut stored, digest) {
            Ok(true) => Found::Intact,
            Ok(false) if remove => match self.objects().remove_damaged(digest, &stored.file) {
                Ok(()) => Found::Corrupt,
                Err(e) => Found::Unreadable(format!("corrupt, and cannot be removed: {e}")),
            },
            Ok(false) => Found::Corrupt,
            Err(e) => Found::Unreadable(e.to_string()),
        }
    }
}

impl VerifyReport {
    /// True if everything is what it says. Results without bytes and foreign names are no faults.
    pub fn is_ok(&self) -> bool {
        self.corrupt.is_empty()
            && self.unreadable.is_empty()
            && self.damaged_results.is_empty()
            && self.damaged_databases.is_empty()
            && self.damaged_runs.is_empty()
    }

    fn note(&mut self, digest: Digest, bytes: u64, found: Found) {
        if matches!(found, Found::Gone) {
            return;
        }
        self.checked += 1;
        self.bytes += bytes;
        match found {
            Found::Corrupt => self.corrupt.push(digest),
            Found::Unreadable(why) => self.unreadable.push((digest, why)),
            Found::Intact | Found::Gone => {}
        }
    }
}
