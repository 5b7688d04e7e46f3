//! Removing outputs: those of a workflow's nodes, or its orphans. What other workflows claim stays.

use serde::Serialize;

use super::project::Project;
use super::query::{orphans, used_up};
use super::retention;
use crate::base::files;
use crate::error::{Error, Result};

/// What was removed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CleanReport {
    /// Paths relative to the root.
    pub removed: Vec<String>,
    /// Paths that another workflow has published, too.
    pub kept: Vec<String>,
}

/// Removes the outputs of all nodes, or with `only_orphans` what no node declares any more. The caller holds the workspace lock.
pub fn clean(project: &Project, only_orphans: bool, dry_run: bool) -> Result<CleanReport> {
    let mut report = CleanReport::default();
    let rows = project.workspace.published();
    let mine = project.root_file();
    let paths: Vec<String> = if only_orphans {
        orphans(project)
    } else {
        let declared = |path: &str, append: bool| {
            project.graph.made_by.contains_key(path)
                || (append
                    && path.rsplit_once('/').is_some_and(|(dir, _)| project.graph.made_by.contains_key(dir)))
        };
        rows.iter()
            .filter(|row| row.workflow == mine && declared(&row.path, row.append))
            .filter(|row| !row.append || retention::is_current(project, row))
            .map(|row| row.path.clone())
            .collect()
    };
    for path in paths {
        let claimed = rows.iter().any(|row| row.path == path && row.workflow != mine);
        let place = project.root.join(&path);
        if claimed {
            report.kept.push(path);
            continue;
        }
        if !dry_run {
            files::remove_any(&place).map_err(|e| Error::io("remove", &place, e))?;
            files::remove_empty_parents(&place, &project.root);
            project.workspace.unclaim(&path, mine);
            project.workspace.forget(&place);
        }
        report.removed.push(path);
    }
    if only_orphans && !dry_run {
        // of these nothing is left to tell about
        used_up(project).iter().for_each(|path| project.workspace.unclaim(path, mine));
    }
    project.workspace.sync()?;
    Ok(report)
}
