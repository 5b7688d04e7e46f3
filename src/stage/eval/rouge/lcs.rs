//! Longest common subsequences. Unaware of what the items are.

/// The lengths for all prefixes: `rows[i][j]` of the first `i` and the first `j` items.
pub(super) struct Lengths {
    width: usize,
    cells: Vec<u32>,
}

impl Lengths {
    pub(super) fn of(left: &[u32], right: &[u32]) -> Self {
        let width = right.len() + 1;
        let mut cells = vec![0; (left.len() + 1) * width];
        for (i, l) in left.iter().enumerate() {
            for (j, r) in right.iter().enumerate() {
                cells[(i + 1) * width + j + 1] = if l == r {
                    cells[i * width + j] + 1
                } else {
                    cells[i * width + j + 1].max(cells[(i + 1) * width + j])
                };
            }
        }
        Self { width, cells }
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    /// The places in `left` of one longest common subsequence, from its end. Where two ways are equally long the last item of `left`
    /// is left out, if `leaves_left`, else that of `right`: scores of unions depend on it.
    pub(super) fn places(&self, left: &[u32], right: &[u32], leaves_left: bool) -> Vec<usize> {
        let (mut i, mut j) = (left.len(), right.len());
        let mut places = Vec::new();
        while i > 0 && j > 0 {
            let (without_left, without_right) = (self.at(i - 1, j), self.at(i, j - 1));
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

    proptest::proptest! {
        #[test]
        fn both_ways_agree_and_the_places_are_a_common_subsequence(
            left in proptest::collection::vec(0_u32..4, 0..12),
            right in proptest::collection::vec(0_u32..4, 0..12),
        ) {
            let (lengths, longest) = (Lengths::of(&left, &right), length(&left, &right));
            for leaves_left in [false, true] {
                let mut places = lengths.places(&left, &right, leaves_left);
                places.reverse();
                proptest::prop_assert_eq!(places.len() as u32, longest);
                let mut rest = right.iter();
                proptest::prop_assert!(places.iter().all(|place| rest.any(|item| *item == left[*place])));
            }
        }
    }
}
