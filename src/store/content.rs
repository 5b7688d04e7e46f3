//! The content of a stored blob, its digest verified on the way: handed over piece by piece, or written to a file on several
//! threads. Unaware of artifacts and of what is done about damage.

use std::fs::File;
use std::io::{self, BufRead, Write};

use zstd::stream::read::Decoder;

use super::desks::{self, Desk, PIECE, piece_of, pieces};
use super::frames::Frames;
use super::hash;
use super::objects::Stored;
use crate::base::digest::Digest;

/// What reading a blob came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has the digest.
    Same,
    /// It has not, or cannot be decoded.
    Damaged,
}

/// Writes the content of a blob to `target`, which is empty.
pub(super) fn copy(stored: &mut Stored, digest: &Digest, target: &mut File) -> io::Result<Outcome> {
    match long(stored, Some(target))? {
        Some(read) => judged(read, digest),
        None => each(stored, digest, |piece| target.write_all(piece)),
    }
}

/// Reads a blob to its end and says whether it has the digest.
pub(super) fn is_intact(stored: &mut Stored, digest: &Digest) -> io::Result<bool> {
    let outcome = match long(stored, None)? {
        Some(read) => judged(read, digest),
        None => each(stored, digest, |_| Ok(())),
    };
    outcome.map(|outcome| outcome == Outcome::Same)
}

/// The same, and its content.
pub(super) fn intact_bytes(stored: &mut Stored, digest: &Digest, into: &mut Vec<u8>) -> io::Result<bool> {
    let outcome = each(stored, digest, |piece| {
        into.extend_from_slice(piece);
        Ok(())
    });
    outcome.map(|outcome| outcome == Outcome::Same)
}

/// Hands the content of a blob to `sink` piece by piece. Errors are those of the system and of `sink`; a frame that cannot be
/// decoded is damage.
pub(super) fn each(
    stored: &mut Stored,
    digest: &Digest,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Outcome> {
    if !stored.regular {
        return Ok(Outcome::Damaged);
    }
    let mut hasher = blake3::Hasher::new();
    let mut sink_error = None;
    let each = |piece: &[u8]| {
        hasher.update(piece);
        sink(piece).map_err(|e| {
            sink_error = Some(e);
            io::Error::other("stopped")
        })
    };
    let read = if stored.compressed {
        decode(&stored.file, each)
    } else {
        hash::pieces(&mut stored.file, each).map(drop)
    };
    match sink_error {
        Some(error) => Err(error),
        None => judged(read.map(|()| hasher.into()), digest),
    }
}

/// All frames of a blob one after the other; without a table of frames there is only one.
fn decode(file: &File, each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let several = Frames::read(file)?.is_some();
    let decoder = Decoder::new(file)?;
    let mut decoder = if several { decoder } else { decoder.single_frame() };
    hash::pieces(&mut decoder, each)?;
    if decoder.finish().fill_buf()?.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Reads a blob of several pieces on several threads, and writes what it holds; `None` if it is none of these.
fn long(stored: &Stored, target: Option<&File>) -> io::Result<Option<io::Result<Digest>>> {
    if !stored.regular {
        return Ok(None);
    }
    if stored.compressed {
        let frames = Frames::read(&stored.file)?;
        return Ok(frames.map(|frames| unpacked(&stored.file, &frames, target)));
    }
    let size = stored.file.metadata()?.len();
    Ok((size > PIECE as u64).then(|| plain(&stored.file, size, target)))
}

fn unpacked(blob: &File, frames: &Frames, target: Option<&File>) -> io::Result<Digest> {
    let work = |index, desk: &mut Desk| {
        let frame = frames.frame(index);
        desk.unpack(blob, &frame)?;
        target.map_or(Ok(()), |target| desks::write(target, &desk.plain, frame.offset))
    };
    desks::in_any_order(frames.count(), work)
}

fn plain(blob: &File, size: u64, target: Option<&File>) -> io::Result<Digest> {
    // Where the file system can, as shared blocks; what came of it is read to be hashed.
    if let Some(target) = target
        && rustix::fs::ioctl_ficlone(target, blob).is_ok()
    {
        return desks::hash(target, size);
    }
    let work = |index, desk: &mut Desk| {
        let (offset, size) = piece_of(index, size);
        desk.copy(blob, offset, size, target)
    };
    desks::in_any_order(pieces(size), work)
}

fn judged(read: io::Result<Digest>, digest: &Digest) -> io::Result<Outcome> {
    match read {
        Ok(found) if found == *digest => Ok(Outcome::Same),
        Ok(_) => Ok(Outcome::Damaged),
        Err(e) if e.raw_os_error().is_some() => Err(e),
        Err(_) => Ok(Outcome::Damaged),
    }
}
