//! What a killed run left behind: its processes, files it had set aside, scratch. Done by the next run, under the lock.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::project::Project;
use super::session::{scratch_prefix, scratch_root};
use crate::base::{failpoint, files, process};
use crate::error::{Error, Result};
use crate::exec::end_run_processes;

/// A run that may have processes.
#[derive(Serialize, Deserialize)]
struct Active {
    run: String,
    pid: u32,
    start_time: u64,
}

/// Files set aside before a command that writes its declared outputs itself.
#[derive(Serialize, Deserialize, Default)]
struct Aside {
    moves: Vec<Move>,
}

#[derive(Serialize, Deserialize)]
struct Move {
    place: PathBuf,
    to: PathBuf,
    /// Something stood there. If it is not at `to`, it has not been moved yet, or is back already.
    stood: bool,
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
    let mut attempts: Vec<PathBuf> =
        fs::read_dir(scratch).into_iter().flatten().flatten().map(|e| e.path()).collect();
    attempts.sort();
    let mut back = 0;
    for attempt in attempts {
        back += put_back(project, &attempt)?;
    }
    let _ = fs::remove_dir_all(scratch);
    Ok(back)
}

/// Moves existing files at `places` into the attempt's scratch, so that the command starts without them. The journal is written
/// first, so that a kill at any moment can be undone.
pub(super) fn set_aside(project: &Project, attempt: &Path, places: &[PathBuf]) -> Result<()> {
    let mut aside = Aside::default();
    for (n, place) in places.iter().enumerate() {
        let stood = fs::symlink_metadata(place).is_ok();
        let to = attempt.join("aside").join(n.to_string());
        aside.moves.push(Move { place: place.clone(), to, stood });
    }
    if aside.moves.is_empty() {
        return Ok(());
    }
    let dir = attempt.join("aside");
    fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
    let journal = attempt.join("aside.json");
    let bytes = serde_json::to_vec(&aside).map_err(|e| Error::bug(e.to_string()))?;
    files::write_atomic(&journal, &bytes).map_err(|e| Error::io("write", &journal, e))?;
    for Move { place, to, .. } in &aside.moves {
        match files::move_any(place, to) {
            Ok(()) => project.workspace.forget(place),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                // those moved already go back; those not moved must not be taken for what the command left
                for Move { place, to, .. } in &aside.moves {
                    if fs::symlink_metadata(to).is_ok() {
                        files::move_any(to, place).map_err(|e| Error::io("put back", place, e))?;
                    }
                }
                fs::remove_file(&journal).map_err(|e| Error::io("remove", &journal, e))?;
                return Err(Error::io("set aside", place, e));
            }
        }
        failpoint::hit("set_aside");
    }
    Ok(())
}

/// Undoes [`set_aside`]: whatever the command left there is replaced by the old file. Returns how many.
pub(super) fn put_back(project: &Project, attempt: &Path) -> Result<usize> {
    let journal = attempt.join("aside.json");
    let Ok(bytes) = fs::read(&journal) else { return Ok(0) };
    let aside: Aside = serde_json::from_slice(&bytes)
        .map_err(|e| Error::bug(format!("{} cannot be read: {e}", journal.display())))?;
    let mut count = 0;
    for Move { place, to, stood } in &aside.moves {
        let kept = fs::symlink_metadata(to).is_ok();
        if kept || !stood {
            // where nothing stood before, what the command left is half made: it goes, too
            files::remove_any(place).map_err(|e| Error::io("remove", place, e))?;
            project.workspace.forget(place);
        }
        if kept {
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
            }
            files::move_any(to, place).map_err(|e| Error::io("put back", place, e))?;
            failpoint::hit("put_back");
            count += 1;
        }
    }
    fs::remove_file(&journal).map_err(|e| Error::io("remove", &journal, e))?;
    Ok(count)
}

/// The old files are not needed any more: the new ones are published.
pub(super) fn drop_aside(attempt: &Path) {
    let _ = fs::remove_file(attempt.join("aside.json"));
}

/// Takes one place out of the journal: what is there now stays.
pub(super) fn forget_place(attempt: &Path, place: &Path) {
    let journal = attempt.join("aside.json");
    let Ok(bytes) = fs::read(&journal) else { return };
    let Ok(mut aside) = serde_json::from_slice::<Aside>(&bytes) else { return };
    aside.moves.retain(|moved| moved.place != place);
    if let Ok(bytes) = serde_json::to_vec(&aside) {
        let _ = files::write_atomic(&journal, &bytes);
    }
}
