//! Reading a file once, piece by piece, without a memory map: a mapped file that is cut short meanwhile would end the process.
//! Unaware of what the bytes are for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::desks::{self, PIECE};
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

/// Calls `each` with pieces of what `reader` gives, until its end; returns the number of bytes.
pub(super) fn pieces(
    reader: &mut impl Read,
    size_hint: u64,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut piece = vec![0; PIECE.min(size_hint as usize + 1)];
    let mut total = 0;
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                total += n as u64;
                each(&piece[..n])?;
                // The hint was too small: the file has grown, or there was none.
                if total > size_hint && piece.len() < PIECE {
                    piece.resize(PIECE, 0);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
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
    if size > PIECE as u64 {
        return match desks::hash(file, size) {
            Ok(digest) => Ok(Some(digest)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        };
    }
    let mut hasher = blake3::Hasher::new();
    let read = pieces(file, size, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok((read == size).then(|| hasher.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_seen_whatever_the_hint() {
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i % 251) as u8).collect();
        for hint in [0, 7, PIECE as u64, bytes.len() as u64] {
            let mut seen = Vec::new();
            let total = pieces(&mut &bytes[..], hint, |piece| {
                seen.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
            assert_eq!((total, seen.len()), (bytes.len() as u64, bytes.len()));
            assert!(seen == bytes);
        }
    }
}
