//! Looking at a whole cache: how much there is, and whether it is what it says. Unaware of runs in progress.

use std::collections::HashSet;

use rayon::prelude::*;
use serde::Serialize;

use super::{Store, pack, pool, restore, runs};
use crate::base::digest::Digest;
use crate::model::{Artifact, TreeEntryKind};
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

/// What a check of every blob found.
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
    /// Names among the blobs that are none.
    pub foreign: Vec<String>,
    /// Results of which bytes are missing: no fault, since `gc` removes bytes and keeps results.
    pub incomplete: Vec<IncompleteResult>,
    /// Corrupt blobs removed.
    pub removed: u64,
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

    /// Reads every blob and compares it with its name; looks for the blobs of every result. Changes nothing.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.check(false)
    }

    /// As [`Store::verify`], and removes the corrupt blobs, so that they are made again.
    pub fn repair(&self) -> Result<VerifyReport> {
        self.check(true)
    }

    /// All digests that restoring `artifact` needs. A tree object that is not there counts alone.
    pub(super) fn closure(&self, artifact: &Artifact, into: &mut HashSet<Digest>) -> Result<()> {
        let Some(digest) = artifact.digest() else { return Ok(()) };
        let known = !into.insert(digest);
        if !known && matches!(artifact, Artifact::Tree { .. }) {
            for entry in self.tree(&digest)?.unwrap_or_default() {
                if let TreeEntryKind::File { digest, .. } = entry.kind {
                    into.insert(digest);
                }
            }
        }
        Ok(())
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
        let mut head = Vec::with_capacity(18);
        stored.file.take(18).read_to_end(&mut head).ok()?;
        pack::content_size(&head)
    }

    fn check(&self, remove: bool) -> Result<VerifyReport> {
        let (blobs, foreign) = self.objects().list().map_err(|e| self.list_failed(e))?;
        let small = self.index().list_small()?;
        let found_blobs: Vec<Found> =
            pool::install(|| blobs.par_iter().map(|blob| self.check_file(&blob.digest, remove)).collect());
        let mut report = VerifyReport { foreign, ..VerifyReport::default() };
        for (blob, found) in blobs.iter().zip(found_blobs) {
            report.note(blob.digest, blob.bytes, found);
        }
        let mut damaged = Vec::new();
        for blob in &small {
            let Some((packed, _)) = self.index().small_untouched(&blob.digest)? else { continue };
            let intact = pack::unpack(packed).is_ok_and(|bytes| Digest::of(&bytes) == blob.digest);
            if !intact {
                damaged.push(blob.digest);
            }
            report.note(blob.digest, blob.bytes, if intact { Found::Intact } else { Found::Corrupt });
        }
        if remove {
            self.index().remove_small(damaged)?;
            report.removed = report.corrupt.len() as u64;
        }
        report.corrupt.sort();
        report.corrupt.dedup();
        report.unreadable.sort();
        for (key, record) in self.index().results()? {
            let missing = record.outputs.iter().filter(|(_, artifact)| !self.has(artifact));
            let outputs: Vec<String> = missing.map(|(name, _)| name.clone()).collect();
            if !outputs.is_empty() {
                report.incomplete.push(IncompleteResult { key, node: record.node, outputs });
            }
        }
        Ok(report)
    }

    fn check_file(&self, digest: &Digest, remove: bool) -> Found {
        let mut stored = match self.objects().open_untouched(digest) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Found::Gone,
            Err(e) => return Found::Unreadable(e.to_string()),
        };
        match restore::is_intact(&mut stored, digest) {
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
    /// True if every blob is what it says. Results without bytes and foreign names are no faults.
    pub fn is_ok(&self) -> bool {
        self.corrupt.is_empty() && self.unreadable.is_empty()
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
