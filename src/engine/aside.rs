//! Places that a command writes itself: what stood there is set aside first and comes back if the attempt fails or flow is killed.
//! Unaware of attempts and of what the files mean.
//!
//! One journal per run says which places are open. An entry fills one page of it and is written by one call, so a kill leaves it whole
//! or not there; it is written before anything is moved.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::project::Project;
use crate::base::{failpoint, files};
use crate::error::{Error, Result};

/// Name of the journal in a run's scratch.
const JOURNAL: &str = "asides";
/// Bytes of an entry: a page, so that a write never touches two.
const ENTRY: usize = 4096;
/// Before the path: a state and the length of the path.
const HEAD: usize = 3;

/// Nothing is open here. Not zero, which is what a power cut leaves of a page.
const FREE: u8 = 3;
/// Nothing stood at the place: whatever is there now is half made.
const EMPTY: u8 = 1;
/// Something stood there. If it is not set aside, it has not been moved yet, or is back already.
const STOOD: u8 = 2;

/// One place that is open, by the number of its entry. Ended by [`Asides::put_back`] or [`Asides::drop_old`].
#[derive(Debug)]
pub(super) struct Open {
    number: u32,
    pub(super) place: PathBuf,
    stood: bool,
}

/// The open places of one run.
#[derive(Debug)]
pub(super) struct Asides {
    scratch: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    journal: Option<File>,
    free: Vec<u32>,
    next: u32,
}

impl Asides {
    /// Of the run with this scratch directory, which need not exist yet.
    pub(super) fn new(scratch: &Path) -> Self {
        Self { scratch: scratch.to_owned(), state: Mutex::default() }
    }

    /// Moves what is at `place` into scratch, so that a command starts without it, and remembers the place until the command's end
    /// is settled.
    pub(super) fn set_aside(&self, project: &Project, place: &Path) -> Result<Open> {
        let stood = fs::symlink_metadata(place).is_ok();
        let open = self.open(place, stood)?;
        if stood {
            match files::move_any(place, &self.old(open.number)) {
                Ok(()) => project.workspace.forget(place),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    self.close(open.number)?;
                    return Err(Error::io("set aside", place, e));
                }
            }
        }
        failpoint::hit("set_aside");
        Ok(open)
    }

    /// Undoes [`Self::set_aside`]: whatever is at the place now is replaced by what stood there.
    pub(super) fn put_back(&self, project: &Project, open: Open) -> Result<()> {
        put_back(project, &open.place, &self.old(open.number), open.stood)?;
        self.close(open.number)
    }

    /// What is at the place now stays; what stood there is not needed any more.
    pub(super) fn drop_old(&self, open: Open) -> Result<()> {
        // First the journal: with the old file gone and the entry there, a kill would leave nothing to put back.
        self.clear(open.number)?;
        if open.stood {
            let old = self.old(open.number);
            files::remove_any(&old).map_err(|e| Error::io("remove", &old, e))?;
        }
        self.state().free.push(open.number);
        Ok(())
    }

    fn open(&self, place: &Path, stood: bool) -> Result<Open> {
        let bytes = place.as_os_str().as_bytes();
        let (Ok(length), true) = (u16::try_from(bytes.len()), bytes.len() <= ENTRY - HEAD) else {
            return Err(Error::environment(format!("the path {} is too long", place.display())));
        };
        let mut entry = vec![if stood { STOOD } else { EMPTY }];
        entry.extend(length.to_ne_bytes());
        entry.extend(bytes);
        let mut state = self.state();
        if state.journal.is_none() {
            fs::create_dir_all(&self.scratch).map_err(|e| Error::io("create", &self.scratch, e))?;
            let path = self.journal();
            let made = File::options().create_new(true).write(true).open(&path);
            state.journal = Some(made.map_err(|e| Error::io("create", &path, e))?);
        }
        let number = state.free.pop().unwrap_or(state.next);
        state.next = state.next.max(number + 1);
        self.write(&state, number, &entry)?;
        Ok(Open { number, place: place.to_owned(), stood })
    }

    fn close(&self, number: u32) -> Result<()> {
        self.clear(number)?;
        self.state().free.push(number);
        Ok(())
    }

    fn clear(&self, number: u32) -> Result<()> {
        self.write(&self.state(), number, &[FREE])
    }

    fn write(&self, state: &State, number: u32, bytes: &[u8]) -> Result<()> {
        let Some(journal) = &state.journal else { return Ok(()) };
        let path = self.journal();
        journal.write_all_at(bytes, offset(number)).map_err(|e| Error::io("write", &path, e))
    }

    fn journal(&self) -> PathBuf {
        self.scratch.join(JOURNAL)
    }

    fn old(&self, number: u32) -> PathBuf {
        old(&self.scratch, number)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offset(number: u32) -> u64 {
    u64::from(number) * ENTRY as u64
}

/// Where the old file of an entry is kept.
fn old(scratch: &Path, number: u32) -> PathBuf {
    scratch.join(format!("aside.{number}"))
}

/// True if something came back.
fn put_back(project: &Project, place: &Path, old: &Path, stood: bool) -> Result<bool> {
    let kept = stood && fs::symlink_metadata(old).is_ok();
    if kept || !stood {
        // where nothing stood before, what the command left is half made: it goes, too
        files::remove_any(place).map_err(|e| Error::io("remove", place, e))?;
        project.workspace.forget(place);
    }
    if kept {
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
        }
        files::move_any(old, place).map_err(|e| Error::io("put back", place, e))?;
        failpoint::hit("put_back");
    }
    Ok(kept)
}

/// Puts back whatever a run that is over left open in its scratch. Returns how many files came back. An old file of which the
/// journal does not say where it belongs is an error: it may be the only copy.
pub(super) fn put_all_back(project: &Project, scratch: &Path) -> Result<usize> {
    let path = scratch.join(JOURNAL);
    let failed = |e| Error::io("read", &path, e);
    let mut bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Vec::new()
        }
        Err(e) => return Err(failed(e)),
    };
    let mut count = 0;
    for (number, entry) in (0..).zip(bytes.chunks_mut(ENTRY)) {
        let Some((stood, place)) = decode(entry) else { continue };
        count += usize::from(put_back(project, place, &old(scratch, number), stood)?);
        entry[0] = FREE;
        let journal = File::options().write(true).open(&path).map_err(failed)?;
        journal.write_all_at(&[FREE], offset(number)).map_err(failed)?;
    }
    let settled = |number: u32| bytes.get(offset(number) as usize) == Some(&FREE);
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("aside.")?.parse().ok());
        if number.is_some_and(|number| !settled(number)) {
            return Err(Error::io("read", &path, "it does not say where the old files beside it belong").hint(format!(
                "a killed command was to replace them: put back what you need of {}/aside.*, then remove that directory",
                scratch.display()
            )));
        }
    }
    files::remove_any(&path).map_err(|e| Error::io("remove", &path, e))?;
    Ok(count)
}

/// Whether something stood at the place of an entry, and the place. `None` if it is free.
fn decode(entry: &[u8]) -> Option<(bool, &Path)> {
    let (head, rest) = entry.split_at_checked(HEAD)?;
    let stood = match head[0] {
        EMPTY => false,
        STOOD => true,
        _ => return None,
    };
    let length = u16::from_ne_bytes([head[1], head[2]]);
    Some((stood, Path::new(OsStr::from_bytes(rest.get(..usize::from(length))?))))
}
