//! Where the frames of a long compressed blob are, in the seekable zstd format. Unaware of what is in them.
//!
//! The frames follow each other; after them comes a skippable frame with the size of each, packed and plain. Any zstd reads such a
//! file as one stream. A blob of an older flow is a single frame without this table.
//! <https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md>

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Begins the skippable frame that holds the table.
const SKIPPABLE: u32 = 0x184D_2A5E;

/// Ends it.
const SEEKABLE: u32 = 0x8F92_EAB1;

/// Bytes before the entries: the magic number and the size of what follows.
const HEADER: u64 = 8;

/// Bytes after the entries: their number, a byte of flags (none here), the magic number.
const FOOTER: u64 = 9;

/// Bytes of an entry: packed and plain size.
const ENTRY: u64 = 8;

/// The most content of a frame that is read, so that a buffer for it is no danger.
const LONGEST: u64 = 8 << 20;

/// The table of a blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames {
    /// Where each frame begins in the blob, and where the last one ends.
    starts: Vec<u64>,
    /// Content of each frame but the last: a power of two.
    piece: u64,
    /// Content of all.
    pub(super) size: u64,
}

/// One frame, and the part of the content that it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) start: u64,
    pub(super) packed: usize,
    pub(super) offset: u64,
    pub(super) size: usize,
}

impl Frames {
    /// The table of a blob; `None` if there is none, or none that fits it.
    pub(super) fn read(blob: &File) -> io::Result<Option<Self>> {
        let length = blob.metadata()?.len();
        let Some(footer_at) = length.checked_sub(FOOTER) else { return Ok(None) };
        let mut footer = [0; FOOTER as usize];
        blob.read_exact_at(&mut footer, footer_at)?;
        let count = u64::from(number(&footer[..4]));
        let begin = footer_at.checked_sub(count * ENTRY + HEADER);
        let (Some(begin), 0, SEEKABLE) = (begin, footer[4], number(&footer[5..])) else { return Ok(None) };
        let mut table = vec![0; (HEADER + count * ENTRY) as usize];
        blob.read_exact_at(&mut table, begin)?;
        let (header, entries) = table.split_at(HEADER as usize);
        if number(&header[..4]) != SKIPPABLE || u64::from(number(&header[4..])) != count * ENTRY + FOOTER {
            return Ok(None);
        }
        Ok(Self::of(entries).filter(|frames| frames.starts.last() == Some(&begin)))
    }

    fn of(entries: &[u8]) -> Option<Self> {
        let sizes = entries.chunks_exact(ENTRY as usize).map(|e| (number(&e[..4]), number(&e[4..])));
        let piece = u64::from(sizes.clone().next()?.1);
        let mut frames = Self { starts: vec![0], piece, size: 0 };
        let mut start = 0;
        for (packed, plain) in sizes {
            // Only the last one may be shorter, so each begins where its number says.
            let fits = frames.size.is_multiple_of(piece) && (1..=piece).contains(&u64::from(plain));
            if !piece.is_power_of_two() || !(1024..=LONGEST).contains(&piece) || !fits {
                return None;
            }
            // No frame is much longer than its content.
            if u64::from(packed) > 2 * LONGEST {
                return None;
            }
            start += u64::from(packed);
            frames.size += u64::from(plain);
            frames.starts.push(start);
        }
        (frames.count() > 1).then_some(frames)
    }

    /// How many frames there are: at least two.
    pub(super) fn count(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    /// The frame `index`.
    pub(super) fn frame(&self, index: u64) -> Frame {
        let start = self.starts[index as usize];
        let offset = index * self.piece;
        Frame {
            start,
            packed: (self.starts[index as usize + 1] - start) as usize,
            offset,
            size: (self.size - offset).min(self.piece) as usize,
        }
    }
}

/// The table of frames of these packed sizes, of which each holds `piece` bytes of `size` and the last one the rest.
pub(super) fn table(packed: &[u32], piece: u32, size: u64) -> Vec<u8> {
    let count = packed.len() as u32;
    let mut table = Vec::with_capacity((HEADER + u64::from(count) * ENTRY + FOOTER) as usize);
    let mut put = |number: u32| table.extend_from_slice(&number.to_le_bytes());
    put(SKIPPABLE);
    put(count * ENTRY as u32 + FOOTER as u32);
    let mut left = size;
    for packed in packed {
        let plain = left.min(u64::from(piece));
        left -= plain;
        put(*packed);
        put(plain as u32);
    }
    put(count);
    table.push(0);
    table.extend_from_slice(&SEEKABLE.to_le_bytes());
    table
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Frames> {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        Frames::read(&file).unwrap()
    }

    #[test]
    fn a_table_is_read_back_and_only_if_it_fits() {
        let mut blob = vec![7; 60];
        blob.extend(table(&[10, 20, 30], 4096, 2 * 4096 + 5));
        let frames = read(&blob).unwrap();
        assert_eq!((frames.count(), frames.size), (3, 8197));
        assert_eq!(frames.frame(0), Frame { start: 0, packed: 10, offset: 0, size: 4096 });
        assert_eq!(frames.frame(2), Frame { start: 30, packed: 30, offset: 8192, size: 5 });
        for at in 60..blob.len() {
            let mut other = blob.clone();
            other[at] ^= 1;
            // A flipped size in the last entry may still be a table; its frames then fail.
            if let Some(other) = read(&other) {
                assert_ne!(other, frames, "byte {at}");
            }
        }
        assert_eq!(read(&blob[1..]), None);
        assert_eq!(read(&blob[..blob.len() - 1]), None);
        assert_eq!(read(b""), None);
        assert_eq!(read(&table(&[], 4096, 0)), None);
        assert_eq!(read(&table(&[0, 0], 4096, 4096)), None, "an empty frame");
        assert_eq!(read(&table(&[0, 0], 4000, 8000)), None, "no power of two");
    }

    #[test]
    fn what_claims_more_than_there_is_is_no_table() {
        let mut footer = u32::MAX.to_le_bytes().to_vec();
        footer.push(0);
        footer.extend(SEEKABLE.to_le_bytes());
        assert_eq!(read(&footer), None);
    }
}
