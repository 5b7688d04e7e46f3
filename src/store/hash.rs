//! Reading a file once, piece by piece, without a memory map: a mapped file that is cut short meanwhile would end the process.
//! Unaware of what the bytes are for.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::desks;
use crate::base::clock::now_ns;
use crate::base::digest::Digest;
use crate::base::files::Stat;

/// The content of a file that did not change while it was read.
pub(super) struct Hashed {
    pub(super) digest: Digest,
    /// Of the file as it was read.
    pub(super) stat: Stat,
    /// When the reading began, ns since 1970.
    pub(super) began_ns: i64,
}

/// Bytes read at a time: they are still in the processor's cache when they are looked at.
const STEP: usize = 64 << 10;

thread_local! {
    /// Where the pieces are read to. Kept: new memory for each file would cost as much as to read it.
    static PIECE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Calls `each` with pieces of what `reader` gives, until its end; returns the number of bytes.
pub(super) fn pieces(
    reader: &mut impl Read,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut piece = PIECE.take();
    piece.resize(STEP, 0);
    let mut total = 0;
    let read = loop {
        match reader.read(&mut piece) {
            Ok(0) => break Ok(total),
            Ok(n) => {
                total += n as u64;
                if let Err(e) = each(&piece[..n]) {
                    break Err(e);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => break Err(e),
        }
    };
    PIECE.set(piece);
    read
}

/// The digest of what `path` holds; `None` if it changed while it was read, three times in a row.
pub(super) fn hash_file(path: &Path) -> io::Result<Option<Hashed>> {
    for _ in 0..3 {
        let began_ns = now_ns();
        let mut file = File::open(path)?;
        let stat = Stat::from_metadata(&file.metadata()?);
        let digest = digest_of(&mut file, stat.size)?;
        let after = Stat::from_metadata(&file.metadata()?);
        if let Some(digest) = digest.filter(|_| after == stat) {
            return Ok(Some(Hashed { digest, stat, began_ns }));
        }
    }
    Ok(None)
}

/// The digest of a file of `size` bytes, of a long one by several threads; `None` if its size is another one.
fn digest_of(file: &mut File, size: u64) -> io::Result<Option<Digest>> {
    if size > desks::PIECE as u64 {
        return match desks::hash(file, size) {
            Ok(digest) => Ok(Some(digest)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        };
    }
    let mut hasher = blake3::Hasher::new();
    let read = pieces(file, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok((read == size).then(|| hasher.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_seen() {
        for size in [0, 1, STEP - 1, STEP, 3 * STEP + 5] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut seen = Vec::new();
            let total = pieces(&mut &bytes[..], |piece| {
                seen.extend_from_slice(piece);
                Ok(())
            });
            assert_eq!((total.unwrap(), seen.len()), (size as u64, size));
            assert!(seen == bytes);
        }
    }

    #[test]
    fn what_is_read_while_a_piece_is_looked_at() {
        let mut seen = Vec::new();
        let outer = pieces(&mut &b"outer"[..], |piece| {
            pieces(&mut &b"inner, longer"[..], |inner| {
                seen.extend_from_slice(inner);
                Ok(())
            })?;
            seen.extend_from_slice(piece);
            Ok(())
        });
        assert_eq!((outer.unwrap(), &*seen), (5, &b"inner, longerouter"[..]));
    }
}
