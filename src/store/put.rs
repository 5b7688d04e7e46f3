//! Content into the store: one read hashes, compresses and stores. Unaware of results and workspaces.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::desks::{self, Desk, PIECE, piece_of, pieces};
use super::tree::{self, FileContent};
use super::{Store, frames, pack};
use crate::base::digest::Digest;
use crate::base::failpoint;
use crate::base::files::Stat;
use crate::model::Artifact;
use crate::{Error, Result};

/// Content of at most this many bytes lies in the index instead of a file of its own.
pub(super) const SMALL: usize = 4 << 10;

/// What is longer than a piece is compressed if samples of this many bytes gain by it: an eighth of it, but not more than so many.
const SAMPLES: u64 = 16;
const SAMPLE: usize = 64 << 10;

impl Store {
    /// Stores the content of a regular file (of what a link leads to).
    pub fn put_file(&self, path: &Path) -> Result<Artifact> {
        let FileContent { digest, size, exec } = self.put_content(path)?;
        Ok(Artifact::File { digest, size, exec })
    }

    /// Stores a directory: its files, links (not followed) and empty directories. Names that are not UTF-8, sockets, pipes and
    /// devices are errors.
    pub fn put_tree(&self, dir: &Path) -> Result<Artifact> {
        let (artifact, object) = tree::describe(dir, |path, _| self.put_content(path))?;
        self.put_bytes(&object)?;
        Ok(artifact)
    }

    /// Stores `bytes` and returns their digest.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let failed = |e| Error::io("store a blob in", self.dir(), e);
        if bytes.len() <= SMALL {
            if self.index().is_queued(&digest) {
                return Ok(digest);
            }
            self.index().put_small(&digest, &pack::pack(bytes).map_err(failed)?);
        } else {
            if self.objects().has_and_use(&digest) {
                return Ok(digest);
            }
            self.objects().write(&digest, &pack::pack(bytes).map_err(failed)?).map_err(failed)?;
        }
        failpoint::hit("blob_written");
        Ok(digest)
    }

    fn put_content(&self, path: &Path) -> Result<FileContent> {
        let failed = |e| Error::io("store", path, e);
        let file = open_regular(path)?;
        let stat = Stat::from_metadata(&file.metadata().map_err(failed)?);
        let stored = if stat.size <= PIECE as u64 {
            self.put_whole(&file, stat.size)?
        } else {
            self.put_long(&file, stat.size).map_err(failed)?
        };
        let after = Stat::from_metadata(&file.metadata().map_err(failed)?);
        match stored {
            Some(digest) if (after.size, after.mtime_ns) == (stat.size, stat.mtime_ns) => {
                Ok(FileContent { digest, size: stat.size, exec: stat.executable() })
            }
            _ => Err(Error::step(format!("{} changed while it was being stored", path.display()))
                .hint("does a process that the step started still write to it?")),
        }
    }

    /// Stores a file of at most one piece; `None` if it is longer or shorter than `size`.
    fn put_whole(&self, file: &File, size: u64) -> Result<Option<Digest>> {
        let mut bytes = Vec::with_capacity(size as usize + 1);
        file.take(size + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io("read a file for", self.dir(), e))?;
        if bytes.len() as u64 == size { self.put_bytes(&bytes).map(Some) } else { Ok(None) }
    }

    /// Stores a longer file with bounded memory, on several threads; `None` if it is shorter than `size`.
    fn put_long(&self, file: &File, size: u64) -> io::Result<Option<Digest>> {
        let target = self.objects().unfinished()?;
        let stored = if is_worth_packing(file, size)? {
            write_frames(file, size, target.as_file())
        } else {
            write_plain(file, size, target.as_file())
        };
        let digest = match stored {
            Ok(digest) => digest,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        };
        if !self.objects().has_and_use(&digest) {
            self.objects().place(target, &digest)?;
            failpoint::hit("blob_written");
        }
        Ok(Some(digest))
    }
}

/// Opens a regular file. What it is is asked first: opening a pipe would wait for a writer.
fn open_regular(path: &Path) -> Result<File> {
    let failed = |e| Error::io("store", path, e);
    let meta = std::fs::metadata(path).map_err(failed)?;
    if meta.is_file() {
        return File::open(path).map_err(failed);
    }
    Err(if meta.is_dir() {
        Error::environment(format!("{} is a directory where a file was expected", path.display()))
            .hint("declare the output with a trailing '/' if it is a directory tree")
    } else {
        tree::not_content(path)
    })
}

/// Judges by samples from all over the file. What looks like a frame is always packed.
fn is_worth_packing(file: &File, size: u64) -> io::Result<bool> {
    let mut sample = vec![0; SAMPLE];
    let (mut plain, mut packed) = (0, 0);
    let samples = (size / (8 * SAMPLE as u64)).clamp(2, SAMPLES);
    for index in 0..samples {
        file.read_exact_at(&mut sample, (size - SAMPLE as u64) / (samples - 1) * index)?;
        if index == 0 && sample.starts_with(&pack::MAGIC) {
            return Ok(true);
        }
        plain += SAMPLE;
        packed += pack::pack(&sample)?.len();
    }
    Ok(pack::worth_it(plain, packed))
}

/// Writes the content as frames and their table.
fn write_frames(file: &File, size: u64, target: &File) -> io::Result<Digest> {
    let work = |index, desk: &mut Desk| {
        let (offset, size) = piece_of(index, size);
        desk.read(file, offset, size)?;
        desk.compress()
    };
    let turn = |(end, frames): &mut (u64, Vec<u32>), packed: &[u8]| {
        desks::write(target, packed, *end)?;
        *end += packed.len() as u64;
        frames.push(packed.len() as u32);
        Ok(())
    };
    let (digest, (end, frames)) = desks::in_order(pieces(size), (0, Vec::new()), work, turn)?;
    target.write_all_at(&frames::table(&frames, PIECE as u32, size), end)?;
    Ok(digest)
}

/// Writes the content as it is; where the file system can, as shared blocks, which nobody can change while they are hashed.
fn write_plain(file: &File, size: u64, target: &File) -> io::Result<Digest> {
    if rustix::fs::ioctl_ficlone(target, file).is_ok() {
        return if target.metadata()?.len() == size {
            desks::hash(target, size)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        };
    }
    let work = |index, desk: &mut Desk| {
        let (offset, size) = piece_of(index, size);
        desk.copy(file, offset, size, Some(target))
    };
    desks::in_any_order(pieces(size), work)
}
