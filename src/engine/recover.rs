//! What a killed run left behind: its processes, files it had set aside, scratch. Done by the next run, under the lock.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::project::Project;
use super::session::scratch_root;
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

/// Files set aside before a command that writes its declared outputs itself.
#[derive(Serialize, Deserialize, Default)]
struct Aside {
    moves: Vec<(PathBuf, PathBuf)>,
}

/// Notes that this run is about to start processes.
pub(super) fn mark_active(project: &Project, run: &str) -> Result<()> {
    let pid = std::process::id();
    let active = Active { run: run.to_owned(), pid, start_time: process::start_time(pid).unwrap_or(0) };
    let bytes = serde_json::to_vec(&active).map_err(|e| Error::bug(e.to_string()))?;
    let path = active_path(project);
    files::write_atomic(&path, &bytes).map_err(|e| Error::io("write", &path, e))
}

/// Notes that none is left.
pub(super) fn unmark_active(project: &Project) {
    let _ = fs::remove_file(active_path(project));
}

fn active_path(project: &Project) -> PathBuf {
    project.workspace.dir().join("active.json")
}

/// Ends processes of a dead run, puts back what it had set aside, removes its scratch. Returns lines worth telling.
pub(super) fn recover(project: &Project) -> Result<Vec<String>> {
    let mut told = Vec::new();
    let path = active_path(project);
    if let Ok(bytes) = fs::read(&path)
        && let Ok(active) = serde_json::from_slice::<Active>(&bytes)
        && !process::is_alive(active.pid, active.start_time)
    {
        let ended = end_run_processes(&active.run, Duration::from_secs(1));
        if ended > 0 {
            told.push(format!("ended {ended} processes that run {} had left", active.run));
        }
        let _ = fs::remove_file(&path);
    }
    let root = scratch_root(project)?;
    let mine = |dir: &Path| {
        let owner = fs::read_to_string(dir.join("workspace")).unwrap_or_default();
        owner == project.root.to_string_lossy()
    };
    for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
        let dir = entry.path();
        if !mine(&dir) {
            continue;
        }
        let mut attempts: Vec<PathBuf> =
            fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
        attempts.sort();
        for attempt in attempts {
            let back = put_back(project, &attempt)?;
            if back > 0 {
                told.push(format!("put back {back} files that a killed command had been about to replace"));
            }
        }
        let _ = fs::remove_dir_all(&dir);
    }
    Ok(told)
}

/// Moves existing files at `places` into the attempt's scratch, so that the command starts without them. The journal is written
/// first, so that a kill at any moment can be undone.
pub(super) fn set_aside(project: &Project, attempt: &Path, places: &[PathBuf]) -> Result<()> {
    let mut aside = Aside::default();
    for (n, place) in places.iter().enumerate() {
        aside.moves.push((place.clone(), aside_of(place, attempt, n)));
    }
    if aside.moves.is_empty() {
        return Ok(());
    }
    let dir = attempt.join("aside");
    fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
    let journal = attempt.join("aside.json");
    let bytes = serde_json::to_vec(&aside).map_err(|e| Error::bug(e.to_string()))?;
    files::write_atomic(&journal, &bytes).map_err(|e| Error::io("write", &journal, e))?;
    for (place, to) in &aside.moves {
        match fs::rename(place, to) {
            Ok(()) => project.workspace.forget(place),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                // those moved already go back; those not moved must not be taken for what the command left
                for (place, to) in &aside.moves {
                    if fs::symlink_metadata(to).is_ok() {
                        fs::rename(to, place).map_err(|e| Error::io("put back", place, e))?;
                    }
                }
                fs::remove_file(&journal).map_err(|e| Error::io("remove", &journal, e))?;
                return Err(Error::io("set aside", place, e));
            }
        }
    }
    Ok(())
}

/// Where a file is set aside: in the attempt's scratch, or beside it if that is another file system.
fn aside_of(place: &Path, attempt: &Path, n: usize) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    match place.parent() {
        Some(parent) if device(parent) != device(attempt) => {
            let run = attempt.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            let attempt = attempt.file_name().unwrap_or_default().to_string_lossy();
            parent.join(format!(".flow-aside-{run}-{attempt}-{n}"))
        }
        _ => attempt.join("aside").join(n.to_string()),
    }
}

/// Whether a journal is left in a run's scratch: files could not be put back, and the next run tries again.
pub(super) fn holds_aside(scratch: &Path) -> bool {
    let attempts = fs::read_dir(scratch).into_iter().flatten().flatten();
    attempts.into_iter().any(|attempt| attempt.path().join("aside.json").exists())
}

/// Undoes [`set_aside`]: whatever the command left there is replaced by the old file. Returns how many.
pub(super) fn put_back(project: &Project, attempt: &Path) -> Result<usize> {
    let journal = attempt.join("aside.json");
    let Ok(bytes) = fs::read(&journal) else { return Ok(0) };
    let aside: Aside = serde_json::from_slice(&bytes)
        .map_err(|e| Error::bug(format!("{} cannot be read: {e}", journal.display())))?;
    let mut count = 0;
    for (place, from) in &aside.moves {
        // where nothing stood before, what the command left is half made: it goes, too
        files::remove_any(place).map_err(|e| Error::io("remove", place, e))?;
        project.workspace.forget(place);
        match fs::rename(from, place) {
            Ok(()) => count += 1,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("put back", place, e)),
        }
    }
    fs::remove_file(&journal).map_err(|e| Error::io("remove", &journal, e))?;
    Ok(count)
}

/// The old files are not needed any more: the new ones are published.
pub(super) fn drop_aside(attempt: &Path) {
    let journal = attempt.join("aside.json");
    let Ok(bytes) = fs::read(&journal) else { return };
    let _ = fs::remove_file(&journal);
    // those in scratch go with it
    let beside = serde_json::from_slice::<Aside>(&bytes).unwrap_or_default().moves;
    for (_, old) in beside.iter().filter(|(_, old)| !old.starts_with(attempt)) {
        let _ = files::remove_any(old);
    }
}

/// Takes one place out of the journal: what is there now stays.
pub(super) fn forget_place(attempt: &Path, place: &Path) {
    let journal = attempt.join("aside.json");
    let Ok(bytes) = fs::read(&journal) else { return };
    let Ok(mut aside) = serde_json::from_slice::<Aside>(&bytes) else { return };
    for (_, old) in aside.moves.iter().filter(|(known, old)| known == place && !old.starts_with(attempt)) {
        let _ = files::remove_any(old);
    }
    aside.moves.retain(|(known, _)| known != place);
    if let Ok(bytes) = serde_json::to_vec(&aside) {
        let _ = files::write_atomic(&journal, &bytes);
    }
}
