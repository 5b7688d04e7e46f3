//! Removing bytes that are least likely to be wanted. Results and run records stay. Unaware of what made the bytes.
//!
//! Safe beside a running flow: an open store holds `gc.lock` shared. When `gc` gets it alone it may remove anything; when others
//! have the cache open it spares what was made or used within the last hour, and looks once more at each blob when it has taken it
//! out of its place. A blob that is gone when it is wanted after all is made again by its node.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Serialize;

use super::{Store, index, local, runs, workspace};
use crate::base::clock::now_ns;
use crate::base::digest::Digest;
use crate::base::failpoint;
use crate::{Error, Result};

/// What was used this recently is spared while others use the cache.
const RECENT: Duration = Duration::from_secs(3600);

/// What `gc` may remove. Without any limit it removes nothing but what killed processes left half written.
#[derive(Clone, Debug, Default)]
pub struct GcOptions {
    /// Stored bytes to come down to, least recently used first; published files of workspaces that exist go last. The empty blob
    /// stays.
    pub max_size: Option<u64>,
    /// Remove what was not used for longer than this.
    pub max_age: Option<Duration>,
    /// Never remove what the last N runs made. Without another limit, remove everything else that no workspace has published.
    pub keep_runs: Option<usize>,
    /// Keys of results that those runs used: never removed either.
    pub keep_keys: HashSet<Digest>,
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
    /// Kept only because the runs to be kept made or used them.
    pub spared_runs: u64,
    /// Kept only because samples use them.
    pub spared_samples: u64,
    /// Kept only because they were used within the last hour and other processes have the cache open.
    pub spared_recent: u64,
    /// Blobs stamped by a clock that was ahead of this one: they count as used now.
    pub from_future: u64,
    /// Half-written blobs of killed processes removed.
    pub unfinished: u64,
    /// Nothing was removed.
    pub dry_run: bool,
}

struct Candidate {
    digest: Digest,
    bytes: u64,
    /// As it is noted.
    stamp_ns: i64,
    /// The same, but never in the future.
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
        if !alone {
            gate.lock_shared().map_err(failed)?;
        }
        let result = self.collect(options, alone);
        if alone {
            gate.unlock().map_err(failed)?;
            gate.lock_shared().map_err(failed)?;
        }
        result
    }

    fn collect(&self, options: &GcOptions, alone: bool) -> Result<GcReport> {
        let now = now_ns();
        let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
        if alone && !options.dry_run {
            report.unfinished = self.objects().remove_unfinished().map_err(|e| self.list_failed(e))?;
        }
        let mut candidates = self.candidates(now)?;
        let (samples, of_runs) = self.wanted(options)?;
        let old = |used_ns: i64, limit: Duration| i128::from(now - used_ns) > limit.as_nanos() as i128;
        let only_runs =
            options.keep_runs.is_some() && options.max_age.is_none() && options.max_size.is_none();
        let mut left: u64 = candidates.iter().map(|c| c.bytes).sum();
        // What goes first comes first.
        candidates.sort_by_key(|c| (c.published, c.used_ns, c.digest));
        let (mut gone, mut ahead) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let too_old =
                options.max_age.is_some_and(|age| !candidate.published && old(candidate.used_ns, age));
            let of_no_run = only_runs && !candidate.published;
            // What takes no room stays: whether it comes before or after the last byte to go would be chance.
            let too_much = candidate.bytes > 0 && options.max_size.is_some_and(|size| left > size);
            let mut remove = too_old || of_no_run || too_much;
            if remove && of_runs.contains(&candidate.digest) {
                report.spared_runs += 1;
                remove = false;
            } else if remove && samples.contains(&candidate.digest) {
                report.spared_samples += 1;
                remove = false;
            } else if remove && !alone && !old(candidate.used_ns, RECENT) {
                report.spared_recent += 1;
                remove = false;
            }
            if candidate.stamp_ns > candidate.used_ns {
                report.from_future += 1;
                if !remove {
                    ahead.push((candidate.digest, candidate.small));
                }
            }
            if remove {
                left -= candidate.bytes;
                gone.push(candidate);
            } else {
                report.kept += 1;
                report.kept_bytes += candidate.bytes;
            }
        }
        if !options.dry_run {
            gone = self.remove(gone, &mut report)?;
            self.objects().touch(ahead.iter().filter(|(_, small)| !small).map(|(digest, _)| digest));
            self.index().touch_small(
                ahead.into_iter().filter(|(_, small)| *small).map(|(digest, _)| digest).collect(),
            );
        }
        report.removed = gone.len() as u64;
        report.removed_bytes = gone.iter().map(|c| c.bytes).sum();
        Ok(report)
    }

    /// Removes blobs but for those that were used since they were listed. Returns what was removed.
    fn remove(&self, gone: Vec<Candidate>, report: &mut GcReport) -> Result<Vec<Candidate>> {
        failpoint::hit("gc_listed");
        let small = gone.iter().filter(|c| c.small).map(|c| (c.digest, c.stamp_ns)).collect();
        let mut removed: HashSet<Digest> = self.index().remove_small(small)?.into_iter().collect();
        for blob in gone.iter().filter(|c| !c.small) {
            let taken = self
                .objects()
                .remove_unused(&blob.digest, blob.stamp_ns)
                .map_err(|e| Error::io("remove", &self.objects().path(&blob.digest), e))?;
            if taken {
                removed.insert(blob.digest);
            }
        }
        let (removed, used): (Vec<_>, Vec<_>) = gone.into_iter().partition(|c| removed.contains(&c.digest));
        report.spared_recent += used.len() as u64;
        report.kept += used.len() as u64;
        report.kept_bytes += used.iter().map(|c| c.bytes).sum::<u64>();
        Ok(removed)
    }

    fn candidates(&self, now: i64) -> Result<Vec<Candidate>> {
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
                stamp_ns: used_ns,
                used_ns: used_ns.min(now),
                small,
                published: published.contains(&digest),
            })
            .collect())
    }

    /// The digests that samples need, and those that the runs to keep need.
    fn wanted(&self, options: &GcOptions) -> Result<(HashSet<Digest>, HashSet<Digest>)> {
        let runs: HashSet<String> = match options.keep_runs {
            Some(count) => runs::list(self)?.into_iter().take(count).map(|run| run.id).collect(),
            None => HashSet::new(),
        };
        let (mut samples, mut of_runs) = (HashSet::new(), HashSet::new());
        let index::Rows { whole: results, damaged } = self.index().results()?;
        if !damaged.is_empty() {
            return Err(Error::environment(format!(
                "{} results in the index are damaged: the bytes they need would be removed",
                damaged.len()
            ))
            .hint(
                "'flow cache verify' names them; with --repair their nodes run again when they are needed",
            ));
        }
        for (key, record) in results {
            let sample = !options.samples && record.is_sample();
            let kept =
                runs.contains(&record.run) || options.keep_keys.contains(&local::key_of(&key, &record));
            for (_, artifact) in &record.outputs {
                if sample {
                    self.closure(artifact, &mut samples)?;
                }
                if kept {
                    self.closure(artifact, &mut of_runs)?;
                }
            }
        }
        Ok((samples, of_runs))
    }
}
