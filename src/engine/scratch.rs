//! Where one attempt may write: scratch paths for its outputs, made only if they are needed, and the places it writes itself.
//! Unaware of what runs.

use std::fs;
use std::path::{Path, PathBuf};

use super::aside::Open;
use super::collect::Made;
use super::session::Session;
use crate::error::{Error, Result};
use crate::graph::{NodeIx, Output};

/// Longest name of a file.
const NAME_MAX: usize = 255;

/// The scratch of one attempt. [`Self::undo`] or [`Self::settle`] ends it.
pub(super) struct Scratch<'s> {
    session: &'s Session,
    /// Begins the names of everything in it.
    name: String,
    /// It has a directory of its own.
    directory: bool,
    /// Scratch paths that lie beside it.
    files: Vec<PathBuf>,
    /// Places that are open.
    open: Vec<Open>,
}

impl<'s> Scratch<'s> {
    /// Of the attempt of this number; nothing is made yet.
    pub(super) fn new(session: &'s Session, node: NodeIx, attempt: u32) -> Self {
        let name = format!("{node}.{attempt}");
        Self { session, name, directory: false, files: Vec::new(), open: Vec::new() }
    }

    /// A directory of its own.
    pub(super) fn directory(&mut self) -> Result<PathBuf> {
        let path = self.session.scratch()?.join(&self.name);
        if !self.directory {
            fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, e))?;
            self.directory = true;
        }
        Ok(path)
    }

    /// A scratch path for an output whose last component is that of the output; a directory is made, empty.
    pub(super) fn named(&mut self, index: usize, output: &Output) -> Result<Made> {
        let parent = self.directory()?.join(format!("out-{index}"));
        let path = parent.join(last(&output.path));
        let create = if output.dir { &path } else { &parent };
        fs::create_dir_all(create).map_err(|e| Error::io("create", create, e))?;
        Ok(Made { path, direct: false, precreated: output.dir })
    }

    /// A scratch path for an output whose name ends as that of the output. A file costs nothing but itself.
    pub(super) fn plain(&mut self, index: usize, output: &Output) -> Result<Made> {
        let name = format!("{}.{index}.{}", self.name, last(&output.path));
        if output.dir || name.len() > NAME_MAX {
            return self.named(index, output);
        }
        let path = self.session.scratch()?.join(name);
        self.files.push(path.clone());
        Ok(Made { path, direct: false, precreated: false })
    }

    /// The declared place itself: what stood there is set aside.
    pub(super) fn direct(&mut self, place: PathBuf) -> Result<Made> {
        self.open.push(self.session.asides.set_aside(&self.session.project, &place)?);
        Ok(Made { path: place, direct: true, precreated: false })
    }

    /// What is at a place that was written directly moves to scratch, out of reach of [`Self::undo`]. `None` if nothing is there.
    pub(super) fn take_out(&mut self, place: &Path) -> Result<Option<Made>> {
        let kept = self.directory()?.join(format!("kept-{}", self.open.len()));
        if fs::rename(place, &kept).is_err() {
            return Ok(None);
        }
        Ok(Some(Made { path: kept, direct: false, precreated: false }))
    }

    /// What is at this place now stays, whatever becomes of the others.
    pub(super) fn keep(&mut self, place: &Path) -> Result<()> {
        if let Some(at) = self.open.iter().position(|open| open.place == place) {
            self.session.asides.drop_old(self.open.swap_remove(at))?;
        }
        Ok(())
    }

    /// What was set aside comes back. What the attempt made there is gone, unless it was taken out.
    pub(super) fn put_back(&mut self) -> Result<()> {
        for open in std::mem::take(&mut self.open) {
            self.session.asides.put_back(&self.session.project, open)?;
        }
        Ok(())
    }

    /// The attempt made nothing: what it set aside comes back.
    pub(super) fn undo(mut self) -> Result<()> {
        self.put_back()?;
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        self.remove_directory();
        Ok(())
    }

    /// What it made is published, and nothing is needed any more.
    pub(super) fn settle(mut self) -> Result<()> {
        for open in std::mem::take(&mut self.open) {
            self.session.asides.drop_old(open)?;
        }
        self.remove_directory();
        Ok(())
    }

    /// What cannot be removed now goes with the scratch of the run.
    fn remove_directory(&self) {
        if self.directory
            && let Ok(scratch) = self.session.scratch()
        {
            let _ = fs::remove_dir_all(scratch.join(&self.name));
        }
    }
}

/// The last component of a declared path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
