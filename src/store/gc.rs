//! Removing bytes that are least likely to be wanted. Results and run records stay. Unaware of what made the bytes.
//!
//! Safe beside a running flow: an open store holds `gc.lock` shared. When `gc` gets it alone it may remove anything; when others
//! have the cache open it spares what was made or used within the last hour. A blob that is gone when it is wanted after all is
//! made again by its node.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Serialize;

use super::{Store, runs, workspace};
use crate::base::clock::now_ns;
use crate::base::digest::Digest;
use crate::{Error, Result};

/// What was used this recently is spared while others use the cache.
const RECENT: Duration = Duration::from_secs(3600);

/// What `gc` may remove. Without any limit it removes nothing but what killed processes left half written.
#[derive(Clone, Debug, Default)]
pub struct GcOptions {
    /// Stored bytes to come down to, least recently used first; published files of workspaces that exist go last.
    pub max_size: Option<u64>,
    /// Remove what was not used for longer than this.
    pub max_age: Option<Duration>,
    /// Remove what neither one of the last N runs made nor a workspace has published.
    pub keep_runs: Option<usize>,
    /// Remove samples too, which cannot be made again but by measuring.
    pub samples: bool,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What `gc` did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Blobs removed.
    pub removed: u64,
    /// Their bytes as stored.
    pub removed_bytes: u64,
    /// Blobs kept.
    pub kept: u64,
    /// Their bytes as stored.
    pub kept_bytes: u64,
    /// Kept only because samples use them.
    pub spared_samples: u64,
    /// Kept only because they were used within the last hour and other processes have the cache open.
    pub spared_recent: u64,
    /// Half-written blobs of killed processes removed.
    pub unfinished: u64,
    /// Nothing was removed.
    pub dry_run: bool,
}

struct Candidate {
    digest: Digest,
    bytes: u64,
    used_ns: i64,
    small: bool,
    /// Published in a workspace that exists.
    published: bool,
}

impl Store {
    /// Removes blobs, least recently used first.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        let gate = self.inner.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |e: std::io::Error| Error::io("lock", &self.dir().join("gc.lock"), e);
        gate.unlock().map_err(failed)?;
        let alone = gate.try_lock().is_ok();
        let result = self.collect(options, alone);
        if alone {
            gate.unlock().map_err(failed)?;
        }
        gate.lock_shared().map_err(failed)?;
        result
    }

    fn collect(&self, options: &GcOptions, alone: bool) -> Result<GcReport> {
        let now = now_ns();
        let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
        if alone && !options.dry_run {
            report.unfinished = self.objects().remove_unfinished().map_err(|e| self.list_failed(e))?;
        }
        let mut candidates = self.candidates()?;
        let (samples, of_runs) = self.wanted(options)?;
        let old = |used_ns: i64, limit: Duration| i128::from(now - used_ns) > limit.as_nanos() as i128;
        let mut left: u64 = candidates.iter().map(|c| c.bytes).sum();
        // What goes first comes first.
        candidates.sort_by_key(|c| (c.published, c.used_ns, c.digest));
        let mut gone = Vec::new();
        for candidate in candidates {
            let too_old =
                options.max_age.is_some_and(|age| !candidate.published && old(candidate.used_ns, age));
            let of_no_run = of_runs
                .as_ref()
                .is_some_and(|kept| !candidate.published && !kept.contains(&candidate.digest));
            let too_much = options.max_size.is_some_and(|size| left > size);
            let mut remove = too_old || of_no_run || too_much;
            if remove && samples.contains(&candidate.digest) {
                report.spared_samples += 1;
                remove = false;
            } else if remove && !alone && !old(candidate.used_ns, RECENT) {
                report.spared_recent += 1;
                remove = false;
            }
            if remove {
                report.removed += 1;
                report.removed_bytes += candidate.bytes;
                left -= candidate.bytes;
                gone.push(candidate);
            } else {
                report.kept += 1;
                report.kept_bytes += candidate.bytes;
            }
        }
        if !options.dry_run {
            let (small, files): (Vec<_>, Vec<_>) = gone.into_iter().partition(|c| c.small);
            for file in files {
                self.objects()
                    .remove(&file.digest)
                    .map_err(|e| Error::io("remove", &self.objects().path(&file.digest), e))?;
            }
            self.index().remove_small(small.into_iter().map(|c| c.digest).collect())?;
        }
        Ok(report)
    }

    fn candidates(&self) -> Result<Vec<Candidate>> {
        let mut published = HashSet::new();
        for artifact in workspace::published_anywhere(self)? {
            self.closure(&artifact, &mut published)?;
        }
        let (blobs, _) = self.objects().list().map_err(|e| self.list_failed(e))?;
        let small = self.index().list_small()?;
        let files = blobs.into_iter().map(|b| (b.digest, b.bytes, b.used_ns, false));
        let rows = small.into_iter().map(|b| (b.digest, b.bytes, b.used_ns, true));
        Ok(files
            .chain(rows)
            .map(|(digest, bytes, used_ns, small)| Candidate {
                digest,
                bytes,
                used_ns,
                small,
                published: published.contains(&digest),
            })
            .collect())
    }

    /// The digests that samples need, and those that the results of the runs to keep need.
    fn wanted(&self, options: &GcOptions) -> Result<(HashSet<Digest>, Option<HashSet<Digest>>)> {
        let kept_runs: Option<HashSet<String>> = match options.keep_runs {
            Some(count) => Some(runs::list(self)?.into_iter().take(count).map(|run| run.id).collect()),
            None => None,
        };
        let mut samples = HashSet::new();
        let mut of_runs = kept_runs.as_ref().map(|_| HashSet::new());
        for (_, record) in self.index().results()? {
            let sample = !options.samples && record.is_sample();
            let kept = kept_runs.as_ref().is_some_and(|ids| ids.contains(&record.run));
            for (_, artifact) in &record.outputs {
                if sample {
                    self.closure(artifact, &mut samples)?;
                }
                if let Some(of_runs) = of_runs.as_mut().filter(|_| kept) {
                    self.closure(artifact, of_runs)?;
                }
            }
        }
        Ok((samples, of_runs))
    }
}
