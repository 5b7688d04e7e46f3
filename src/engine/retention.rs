//! Entries of append directories: which ones a node contributes now, and which a retention stage removed. Unaware of how either is
//! decided.

use std::path::{Component, Path, PathBuf};

use super::evaluate::entries;
use super::project::Project;
use super::session::Session;
use crate::graph::Node;
use crate::model::{Artifact, Policy};
use crate::store::PublishedRow;

/// Whether an entry is what its node contributes now.
pub(super) fn is_current(project: &Project, row: &PublishedRow) -> bool {
    let Some(last) = project.workspace.node_summary(&row.workflow, &row.node) else { return false };
    let Ok(Some(record)) = project.store.result(&last.key) else { return false };
    let artifact = record.outputs.iter().find(|(name, _)| *name == row.output).map(|(_, artifact)| artifact);
    artifact.is_some_and(|artifact| {
        entries(project, artifact)
            .is_ok_and(|entries| entries.iter().flatten().any(|(_, entry)| *entry == row.artifact))
    })
}

/// All current entries of the workspace, by whichever workflow, for a stage that may remove files: one that always runs.
pub(super) fn current_entries(session: &Session, node: &Node) -> Vec<PathBuf> {
    if node.policy != Policy::Never {
        return Vec::new();
    }
    let project = &session.project;
    let rows = project.workspace.published();
    let mut paths: Vec<PathBuf> = rows
        .iter()
        .filter(|row| row.append && is_current(project, row))
        .map(|row| PathBuf::from(&row.path))
        .collect();
    paths.dedup();
    paths
}

/// Notes that entries were removed for good: a row without content stands for each.
pub(super) fn forget(project: &Project, removed: &[PathBuf]) {
    if removed.is_empty() {
        return;
    }
    let mut rows = project.workspace.published();
    let removed: Vec<String> = removed.iter().map(|path| normal(&project.root, path)).collect();
    rows.retain(|row| row.append && removed.contains(&row.path));
    for row in &mut rows {
        row.artifact = Artifact::Absent;
        project.workspace.forget(&project.root.join(&row.path));
    }
    project.workspace.publish(rows);
}

/// Whether the entry at `path` (relative to the root) was removed for good and nobody has put it there again.
pub(super) fn is_removed(project: &Project, path: &str) -> bool {
    project.workspace.published_as(path, &Artifact::Absent) && !project.root.join(path).exists()
}

/// `path` relative to `root`, without `.` components.
fn normal(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir));
    parts.collect::<PathBuf>().to_string_lossy().into_owned()
}
