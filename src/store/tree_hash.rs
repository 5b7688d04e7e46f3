//! The digest of long content from the digests of its pieces, which can be hashed in any order. Unaware of files and threads.
//!
//! BLAKE3 is a tree over chunks of 1 KiB. A piece whose length is a power of two and whose offset is a multiple of it is a subtree,
//! so pieces can be hashed apart and their values joined; the result is the digest of the whole, whatever the size of the pieces.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::base::digest::Digest;

/// The values of the pieces seen so far, joined as far as they can be: as many as there are ones in the number of pieces.
#[derive(Default)]
pub(super) struct TreeHash {
    joined: Vec<ChainingValue>,
    pieces: u64,
}

impl TreeHash {
    /// Adds the value of the next piece. All pieces but the last one have the same length, a power of two of at least 1 KiB.
    pub(super) fn push(&mut self, piece: ChainingValue) {
        // Joined only now: the last join of all must be made as the root's.
        while self.joined.len() > self.pieces.count_ones() as usize {
            if let (Some(right), Some(left)) = (self.joined.pop(), self.joined.pop()) {
                self.joined.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
            }
        }
        self.joined.push(piece);
        self.pieces += 1;
    }

    /// The digest of the whole; `None` for fewer than two pieces, whose content is hashed as it is.
    pub(super) fn finish(mut self) -> Option<Digest> {
        let mut right = self.joined.pop()?;
        while let Some(left) = self.joined.pop() {
            if self.joined.is_empty() {
                return Some(Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()));
            }
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
        }
        None
    }
}

/// A hasher for the piece at `offset`, which ends with `finalize_non_root`.
pub(super) fn piece_hasher(offset: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_pieces_give_the_digest_of_the_whole() {
        const PIECE: usize = 2048;
        let bytes: Vec<u8> = (0..40 * PIECE).map(|i| (i % 251) as u8).collect();
        for pieces in 2..40 {
            for last in [1, 1023, 1024, 1025, PIECE - 1, PIECE] {
                let whole = &bytes[..(pieces - 1) * PIECE + last];
                let mut hash = TreeHash::default();
                for (index, piece) in whole.chunks(PIECE).enumerate() {
                    let mut hasher = piece_hasher((index * PIECE) as u64);
                    hasher.update(piece);
                    hash.push(hasher.finalize_non_root());
                }
                assert_eq!(hash.finish(), Some(Digest::of(whole)), "{pieces} pieces, the last of {last}");
            }
        }
        assert_eq!(TreeHash::default().finish(), None);
    }
}
