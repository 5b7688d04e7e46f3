//! Longest common subsequences. Unaware of what the items are.

use std::sync::{Mutex, PoisonError};

/// Most cells of one table: 2^31, 256 MiB at one bit each.
pub(super) const MOST_CELLS: u64 = 1 << 31;

/// Tables with more cells are made one after the other, however many pairs are looked at at once: 32 MiB.
const LARGE: u64 = 1 << 28;

static ONE_LARGE: Mutex<()> = Mutex::new(());

/// Two sequences whose table would be too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct TooLong {
    /// Items of the first.
    pub(in super::super) left: usize,
    /// Items of the second.
    pub(in super::super) right: usize,
}

/// The places in `left` of one longest common subsequence, from its end. Where two ways are equally long the last item of `left` is left out, if
/// `leaves_left`, else that of `right`: scores of unions depend on it.
pub(super) fn places(left: &[u32], right: &[u32], leaves_left: bool) -> Result<Vec<usize>, TooLong> {
    let cells = left.len() as u64 * right.len() as u64;
    if cells > MOST_CELLS {
        return Err(TooLong { left: left.len(), right: right.len() });
    }
    let alone = (cells > LARGE).then(|| ONE_LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    let found = Ways::of(left, right, leaves_left).places(left, right);
    drop(alone);
    Ok(found)
}

/// For each pair of prefixes whose last items differ, which of the two is left out: a bit per pair.
struct Ways {
    width: usize,
    without_left: Vec<u64>,
}

impl Ways {
    fn of(left: &[u32], right: &[u32], leaves_left: bool) -> Self {
        let width = right.len().div_ceil(64);
        let mut without_left = vec![0_u64; left.len() * width];
        let mut row = vec![0_u32; right.len() + 1];
        for (i, l) in left.iter().enumerate() {
            let mut diagonal = 0;
            let bits = &mut without_left[i * width..(i + 1) * width];
            for (j, r) in right.iter().enumerate() {
                let (above, before) = (row[j + 1], row[j]);
                bits[j / 64] |= u64::from(above > before || (leaves_left && above == before)) << (j % 64);
                row[j + 1] = if l == r { diagonal + 1 } else { above.max(before) };
                diagonal = above;
            }
        }
        Self { width, without_left }
    }

    fn places(&self, left: &[u32], right: &[u32]) -> Vec<usize> {
        let (mut i, mut j) = (left.len(), right.len());
        let mut places = Vec::new();
        while i > 0 && j > 0 {
            if left[i - 1] == right[j - 1] {
                (i, j) = (i - 1, j - 1);
                places.push(i);
            } else if self.without_left[(i - 1) * self.width + (j - 1) / 64] >> ((j - 1) % 64) & 1 == 1 {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        places
    }
}

/// The length alone, in memory of one row.
pub(super) fn length(left: &[u32], right: &[u32]) -> u32 {
    let mut row = vec![0_u32; right.len() + 1];
    for l in left {
        let mut diagonal = 0;
        for (j, r) in right.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if l == r { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places by the table of all lengths.
    fn by_lengths(left: &[u32], right: &[u32], leaves_left: bool) -> Vec<usize> {
        let mut lengths = vec![vec![0_u32; right.len() + 1]; left.len() + 1];
        for i in 1..=left.len() {
            for j in 1..=right.len() {
                lengths[i][j] = if left[i - 1] == right[j - 1] {
                    lengths[i - 1][j - 1] + 1
                } else {
                    lengths[i - 1][j].max(lengths[i][j - 1])
                };
            }
        }
        let (mut i, mut j) = (left.len(), right.len());
        let mut places = Vec::new();
        while i > 0 && j > 0 {
            let (without_left, without_right) = (lengths[i - 1][j], lengths[i][j - 1]);
            if left[i - 1] == right[j - 1] {
                (i, j) = (i - 1, j - 1);
                places.push(i);
            } else if without_left > without_right || (leaves_left && without_left == without_right) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        places
    }

    #[test]
    fn what_would_take_too_much_memory_is_refused_before_it_is_taken() {
        let long = vec![0; 1 << 16];
        let too_long = TooLong { left: 1 << 16, right: 1 << 15 | 1 };
        assert_eq!(places(&long, &long[..too_long.right], true), Err(too_long));
        assert_eq!(length(&long[..30], &long), 30);
    }

    proptest::proptest! {
        #[test]
        fn all_ways_agree_and_the_places_are_a_common_subsequence(
            left in proptest::collection::vec(0_u32..4, 0..150),
            right in proptest::collection::vec(0_u32..4, 0..150),
        ) {
            let longest = length(&left, &right);
            for leaves_left in [false, true] {
                let mut places = places(&left, &right, leaves_left).unwrap();
                proptest::prop_assert_eq!(&places, &by_lengths(&left, &right, leaves_left));
                places.reverse();
                proptest::prop_assert_eq!(places.len() as u32, longest);
                let mut rest = right.iter();
                proptest::prop_assert!(places.iter().all(|place| rest.any(|item| *item == left[*place])));
            }
        }
    }
}
