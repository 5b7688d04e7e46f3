//! What a join says about its keys: the output `report`, and the errors. Unaware of how rows are joined.

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

use super::layout::Layout;
use crate::api::StageError;
use crate::stage::table::keys::{self, Groups, Pairs};

/// `part / whole`; null without a whole.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The two tables by key.
#[derive(Clone, Copy)]
pub(super) struct Sides<'s> {
    pub(super) on: &'s [String],
    pub(super) left: &'s Groups<'s>,
    pub(super) right: &'s Groups<'s>,
    pub(super) pairs: &'s Pairs,
}

/// A list that is made while it is written: reports name as many keys as the tables have.
struct Listed<F>(F);

impl<I: Iterator<Item: Serialize>, F: Fn() -> I> Serialize for Listed<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// The output `report`.
#[derive(Serialize)]
struct Report<L, R, D, C> {
    matched_keys: usize,
    left_only: L,
    right_only: R,
    duplicates: D,
    conflicts: C,
    match_rate: Option<f64>,
    rows: RowCounts,
    dropped: SideCounts,
    completeness: IndexMap<String, Option<f64>>,
    columns: OneSidedColumns,
}

#[derive(Serialize)]
struct Duplicate {
    key: serde_json::Value,
    left: usize,
    right: usize,
}

#[derive(Serialize)]
struct Conflict {
    key: serde_json::Value,
    columns: Vec<String>,
}

#[derive(Serialize)]
struct RowCounts {
    left: usize,
    right: usize,
    joined: u64,
}

/// A number of each side.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct SideCounts {
    pub(super) left: u64,
    pub(super) right: u64,
}

#[derive(Serialize)]
struct OneSidedColumns {
    left_only: Vec<String>,
    right_only: Vec<String>,
}

/// What was counted while rows were joined.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) joined: u64,
    pub(super) dropped: SideCounts,
    /// Cells that are not empty, by value column of the result.
    pub(super) filled: Vec<u64>,
    /// The left group, left row and right row of each joined row whose shared columns differ.
    pub(super) conflicts: Vec<[u32; 3]>,
}

/// The report of a join.
pub(super) fn report<'s>(sides: Sides<'s>, layout: &'s Layout, counts: &'s Counts) -> impl Serialize + 's {
    let Sides { on, left, right, pairs } = sides;
    let matched_keys = matched(pairs);
    let all = matched_keys + pairs.left_only.len() + pairs.right_only.len();
    Report {
        matched_keys,
        left_only: Listed(move || {
            pairs.left_only.iter().map(move |group| keys::to_json(on, left.key(*group as usize)))
        }),
        right_only: Listed(move || {
            pairs.right_only.iter().map(move |group| keys::to_json(on, right.key(*group as usize)))
        }),
        duplicates: Listed(move || {
            repeated(sides).map(move |repeated| Duplicate {
                key: keys::to_json(on, repeated.key()),
                left: repeated.left.len(),
                right: repeated.right.len(),
            })
        }),
        conflicts: Listed(move || {
            counts.conflicts.iter().map(move |[group, l, r]| {
                let (l, r) = (left.table().row(*l as usize), right.table().row(*r as usize));
                Conflict {
                    key: keys::to_json(on, left.key(*group as usize)),
                    columns: layout.conflicts(&l.read(), &r.read()).map(str::to_owned).collect(),
                }
            })
        }),
        match_rate: share(matched_keys as u64, all as u64),
        rows: RowCounts { left: left.table().len(), right: right.table().len(), joined: counts.joined },
        dropped: counts.dropped,
        completeness: layout
            .values
            .clone()
            .zip(&counts.filled)
            .map(|(i, filled)| (layout.header[i].clone(), share(*filled, counts.joined)))
            .collect(),
        columns: OneSidedColumns {
            left_only: layout.left_only.clone(),
            right_only: layout.right_only.clone(),
        },
    }
}

/// The number of keys that both sides have.
pub(super) fn matched(pairs: &Pairs) -> usize {
    pairs.right_of.len() - pairs.left_only.len()
}

/// A key with several rows on a side.
pub(super) struct Repeated<'s> {
    /// A side that has the key, and its group there.
    side: &'s Groups<'s>,
    group: usize,
    pub(super) left: &'s [u32],
    pub(super) right: &'s [u32],
}

impl Repeated<'_> {
    fn key(&self) -> Vec<String> {
        self.side.key(self.group)
    }
}

/// Keys with several rows on a side: the left table's by first appearance, then those of the right one alone.
pub(super) fn repeated(sides: Sides<'_>) -> impl Iterator<Item = Repeated<'_>> {
    let Sides { left, right, pairs, .. } = sides;
    let of_left = pairs.right_of.iter().enumerate().map(move |(group, r)| Repeated {
        side: left,
        group,
        left: left.rows(group),
        right: r.map_or(&[], |r| right.rows(r as usize)),
    });
    let of_right = pairs.right_only.iter().map(move |group| Repeated {
        side: right,
        group: *group as usize,
        left: &[],
        right: right.rows(*group as usize),
    });
    of_left.chain(of_right).filter(|key| key.left.len() > 1 || key.right.len() > 1)
}

pub(super) fn repeated_error(sides: Sides) -> StageError {
    let all = repeated(sides).count();
    let mut message = format!("the key ({}) is not unique: {all} with several rows", sides.on.join(", "));
    for key in repeated(sides).take(keys::NAMED_IN_ERRORS) {
        let places: Vec<String> = [(sides.left, key.left), (sides.right, key.right)]
            .iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(side, rows)| keys::places(side.table(), rows))
            .collect();
        message += &format!("\n  {}: {}", keys::to_text(sides.on, &key.key()), places.join("; "));
    }
    more(&mut message, all);
    StageError::new(message)
        .hint("add the column that tells these rows apart to 'on'")
        .hint("or choose with 'on_duplicate': cross (every combination), first, last")
}

pub(super) fn one_sided_error(sides: Sides) -> StageError {
    let Sides { on, left, right, pairs } = sides;
    let all = pairs.left_only.len() + pairs.right_only.len();
    let mut message = format!("{all} keys have rows on one side only ('one_sided' is fail)");
    let of_left = pairs.left_only.iter().map(|group| (left, *group as usize));
    let of_right = pairs.right_only.iter().map(|group| (right, *group as usize));
    for (side, group) in of_left.chain(of_right).take(keys::NAMED_IN_ERRORS) {
        let places = keys::places(side.table(), side.rows(group));
        message += &format!("\n  {}: {places}", keys::to_text(on, &side.key(group)));
    }
    more(&mut message, all);
    StageError::new(message)
}

/// Says how many keys a message leaves out.
fn more(message: &mut String, all: usize) {
    if all > keys::NAMED_IN_ERRORS {
        *message +=
            &format!("\n  and {} more, all of them in the output 'report'", all - keys::NAMED_IN_ERRORS);
    }
}
