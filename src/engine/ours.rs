//! What lies in a directory because flow published it there: as an output of its own, or as part of a directory output and still with
//! the recorded content. Unaware of why that is asked.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use super::project::Project;
use crate::error::{Error, Result};
use crate::model::{Artifact, TreeEntryKind};
use crate::store::PublishedRow;

/// The first thing in the directory `dir` (relative to the root) that flow did not put there, or that is different by now.
pub(super) fn foreign_in(project: &Project, dir: &str) -> Result<Option<String>> {
    let mut trees = Trees { project, entries: Vec::new() };
    for (at, _) in dir.match_indices('/') {
        trees.add(&dir[..at])?;
    }
    trees.foreign(dir)
}

/// The directories that flow published around a path, by what was recorded of them.
struct Trees<'p> {
    project: &'p Project,
    /// By path relative to the root.
    entries: Vec<HashMap<String, TreeEntryKind>>,
}

impl Trees<'_> {
    /// Adds what flow published as a directory at `dir`. Its recorded artifacts.
    fn add(&mut self, dir: &str) -> Result<Vec<Artifact>> {
        let mut artifacts = self.project.workspace.published_artifacts(dir);
        artifacts.retain(|artifact| matches!(artifact, Artifact::Tree { .. }));
        for digest in artifacts.iter().filter_map(Artifact::digest) {
            let entries = self.project.store.tree(&digest)?.unwrap_or_default();
            let named = entries.into_iter().map(|entry| (format!("{dir}/{}", entry.path), entry.kind));
            self.entries.push(named.collect());
        }
        Ok(artifacts)
    }

    fn foreign(&mut self, dir: &str) -> Result<Option<String>> {
        let place = self.project.root.join(dir);
        let known = self.entries.len();
        let published = self.add(dir)?;
        // the whole tells also where the list of what is in it was collected
        if !published.is_empty()
            && let Ok(Some(content)) = self.project.workspace.content(&place)
            && published.contains(&content.artifact)
        {
            return Ok(None);
        }
        let entries = fs::read_dir(&place).map_err(|e| Error::io("read", &place, e))?;
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let shown = format!("{dir}/{}", name.to_string_lossy());
            let Some(path) = name.to_str().map(|name| format!("{dir}/{name}")) else {
                return Ok(Some(shown));
            };
            let found = if fs::symlink_metadata(place.join(&name)).is_ok_and(|meta| meta.is_dir()) {
                self.foreign(&path)?
            } else {
                (!self.is_ours(&path)).then_some(path)
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        self.entries.truncate(known);
        Ok(None)
    }

    /// Of something that is no directory.
    fn is_ours(&self, path: &str) -> bool {
        let file = |artifact: &Artifact| matches!(artifact, Artifact::File { .. });
        self.project.workspace.published_artifacts(path).iter().any(file)
            || self
                .entries
                .iter()
                .any(|entries| entries.get(path).is_some_and(|kind| is_as_recorded(self.project, path, kind)))
    }
}

/// Whether `path` (relative to the root) holds what a tree recorded of it.
fn is_as_recorded(project: &Project, path: &str, kind: &TreeEntryKind) -> bool {
    let place = project.root.join(path);
    let Ok(meta) = fs::symlink_metadata(&place) else { return false };
    match kind {
        TreeEntryKind::File { digest, size, exec } => {
            let recorded = Artifact::File { digest: *digest, size: *size, exec: *exec };
            let content = meta.is_file().then(|| project.workspace.content(&place));
            matches!(content, Some(Ok(Some(content))) if content.artifact == recorded)
        }
        TreeEntryKind::Link { target } => fs::read_link(&place).is_ok_and(|there| there == Path::new(target)),
        TreeEntryKind::Dir => {
            meta.is_dir() && fs::read_dir(&place).is_ok_and(|mut entries| entries.next().is_none())
        }
    }
}

/// Whether `path` or something above it is among `paths`.
pub(super) fn covered(path: &str, has: impl Fn(&str) -> bool) -> bool {
    std::iter::successors(Some(path), |at| at.rsplit_once('/').map(|(parent, _)| parent)).any(has)
}

/// Whether nodes make something below the directory `dir` now.
pub(super) fn made_below(made: &BTreeSet<&str>, dir: &str) -> bool {
    let inside = format!("{dir}/");
    made.range(inside.as_str()..).next().is_some_and(|path| path.starts_with(&inside))
}

/// What is left of a directory that was published once, in the place of which nodes make single outputs now: what lies there under a name
/// that no node makes. With `unchanged` only what is still as it was published. `None` if nothing tells any more what it held.
pub(super) fn left_of(project: &Project, row: &PublishedRow, unchanged: bool) -> Option<Vec<String>> {
    let Artifact::Tree { digest, .. } = &row.artifact else { return None };
    let entries = project.store.tree(digest).ok().flatten()?;
    if !fs::symlink_metadata(project.root.join(&row.path)).is_ok_and(|meta| meta.is_dir()) {
        return Some(Vec::new());
    }
    let there = |path: &str| fs::symlink_metadata(project.root.join(path)).is_ok();
    let left = entries
        .into_iter()
        .map(|entry| (format!("{}/{}", row.path, entry.path), entry.kind))
        .filter(|(path, _)| !covered(path, |at| project.graph.made_by.contains_key(at)))
        .filter(|(path, kind)| if unchanged { is_as_recorded(project, path, kind) } else { there(path) });
    Some(left.map(|(path, _)| path).collect())
}
