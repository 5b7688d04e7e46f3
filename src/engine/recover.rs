//! What a killed run left behind: its processes, files it had set aside, scratch. Done by the next run, under the lock.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::aside;
use super::project::Project;
use super::session::{scratch_prefix, scratch_root};
use crate::base::{files, process};
use crate::error::{Error, Result};
use crate::exec::end_run_processes;

/// A run that may have processes.
#[derive(Serialize, Deserialize)]
struct Active {
    run: String,
    pid: u32,
    start_time: u64,
}

/// Notes that this run is about to start processes.
pub(super) fn mark_active(project: &Project, run: &str) -> Result<()> {
    let pid = std::process::id();
    let active = Active { run: run.to_owned(), pid, start_time: process::start_time(pid).unwrap_or(0) };
    let bytes = serde_json::to_vec(&active).map_err(|e| Error::bug(e.to_string()))?;
    let path = active_path(project, run);
    files::write_atomic(&path, &bytes).map_err(|e| Error::io("write", &path, e))
}

/// Notes that none is left.
pub(super) fn unmark_active(project: &Project, run: &str) {
    let _ = fs::remove_file(active_path(project, run));
}

/// One file per run: `flow up` goes on beside a run.
fn active_path(project: &Project, run: &str) -> PathBuf {
    project.workspace.dir().join("active").join(format!("{run}.json"))
}

/// Whether there may be something to recover.
pub(super) fn pending(project: &Project) -> bool {
    let any = |dir: &Path, of: &dyn Fn(&str) -> bool| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| of(&entry.file_name().to_string_lossy()))
    };
    let prefix = scratch_prefix(project);
    any(&project.workspace.dir().join("active"), &|_| true)
        || scratch_root(project).map_or(true, |root| any(&root, &|name| name.starts_with(&prefix)))
}

/// Ends processes of dead runs, puts back what they had set aside, removes their scratch. Returns lines worth telling. The caller holds
/// the workspace lock; the graph is expanded anew if a directory that it lists may have changed.
pub fn recover(project: &mut Project) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for entry in fs::read_dir(project.workspace.dir().join("active")).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(bytes) = fs::read(&path) else { continue };
        // one that cannot be read was never finished: its run had started nothing
        let Ok(active) = serde_json::from_slice::<Active>(&bytes) else { continue };
        if process::is_alive(active.pid, active.start_time) {
            continue;
        }
        let ended = end_run_processes(&active.run, Duration::from_secs(1));
        if ended > 0 {
            told.push(format!("ended {ended} processes that run {} had left", active.run));
        }
        let _ = fs::remove_file(&path);
    }
    let root = scratch_root(project)?;
    let prefix = scratch_prefix(project);
    let mut back = 0;
    for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            back += clear(project, &entry.path())?;
        }
    }
    if back > 0 {
        told.push(format!("put back {back} files that a killed command had been about to replace"));
        project.refresh()?;
    }
    Ok(told)
}

/// Removes the scratch of a run that is over, after what its attempts had set aside is put back. Returns how many files that were.
pub(super) fn clear(project: &Project, scratch: &Path) -> Result<usize> {
    let back = aside::put_all_back(project, scratch)?;
    let _ = fs::remove_dir_all(scratch);
    Ok(back)
}
