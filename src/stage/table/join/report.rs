//! What a join says about its keys: the output `report`, and the errors. Unaware of how rows are joined.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use crate::api::StageError;
use crate::stage::table::csv::Table;
use crate::stage::table::keys::{self, Groups};

/// `part / whole`; null without a whole.
pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The output `report`.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) matched_keys: usize,
    pub(super) left_only: Vec<Value>,
    pub(super) right_only: Vec<Value>,
    pub(super) duplicates: Vec<Duplicate>,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) match_rate: Option<f64>,
    pub(super) rows: RowCounts,
    pub(super) dropped: SideCounts,
    pub(super) completeness: IndexMap<String, Option<f64>>,
    pub(super) columns: OneSidedColumns,
}

#[derive(Serialize)]
pub(super) struct Duplicate {
    pub(super) key: Value,
    pub(super) left: usize,
    pub(super) right: usize,
}

#[derive(Serialize)]
pub(super) struct Conflict {
    pub(super) key: Value,
    pub(super) columns: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct RowCounts {
    pub(super) left: usize,
    pub(super) right: usize,
    pub(super) joined: u64,
}

#[derive(Default, Serialize)]
pub(super) struct SideCounts {
    pub(super) left: u64,
    pub(super) right: u64,
}

#[derive(Default, Serialize)]
pub(super) struct OneSidedColumns {
    pub(super) left_only: Vec<String>,
    pub(super) right_only: Vec<String>,
}

impl Report {
    pub(super) fn new(on: &[String], left: &Table, right: &Table, l: &Groups, r: &Groups) -> Self {
        let alone = |mine: &Groups, other: &Groups| -> Vec<Value> {
            mine.keys().filter(|key| !other.contains_key(*key)).map(|key| keys::to_json(on, key)).collect()
        };
        let (left_only, right_only) = (alone(l, r), alone(r, l));
        let matched_keys = l.len() - left_only.len();
        let all = matched_keys + left_only.len() + right_only.len();
        Self {
            matched_keys,
            duplicates: duplicates(l, r)
                .map(|(key, left, right)| Duplicate {
                    key: keys::to_json(on, key),
                    left: left.len(),
                    right: right.len(),
                })
                .collect(),
            conflicts: Vec::new(),
            match_rate: share(matched_keys as u64, all as u64),
            rows: RowCounts { left: left.rows().len(), right: right.rows().len(), joined: 0 },
            dropped: SideCounts::default(),
            completeness: Default::default(),
            columns: OneSidedColumns::default(),
            left_only,
            right_only,
        }
    }
}

/// Keys with several rows on a side, and their rows on both: the left table's by first appearance, then the right one's.
fn duplicates<'g, 't>(
    left: &'g Groups<'t>,
    right: &'g Groups<'t>,
) -> impl Iterator<Item = (&'g [&'t str], &'g [usize], &'g [usize])> {
    fn rows<'g, 't>(groups: &'g Groups<'t>, key: &[&'t str]) -> &'g [usize] {
        groups.get(key).map_or(&[], Vec::as_slice)
    }
    left.keys()
        .chain(right.keys().filter(|key| !left.contains_key(*key)))
        .map(|key| (key.as_slice(), rows(left, key), rows(right, key)))
        .filter(|(_, l, r)| l.len() > 1 || r.len() > 1)
}

pub(super) fn duplicate_error(
    on: &[String],
    left: &Table,
    right: &Table,
    l: &Groups,
    r: &Groups,
) -> StageError {
    let all = duplicates(l, r).count();
    let mut message = format!("the key ({}) is not unique: {all} with several rows", on.join(", "));
    for (key, l_rows, r_rows) in duplicates(l, r).take(keys::NAMED_IN_ERRORS) {
        let places: Vec<String> = [(left, l_rows), (right, r_rows)]
            .iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(table, rows)| keys::places(table, rows))
            .collect();
        message += &format!("\n  {}: {}", keys::to_text(on, key), places.join("; "));
    }
    more(&mut message, all);
    StageError::new(message)
        .hint("add the column that tells these rows apart to 'on'")
        .hint("or choose with 'on_duplicate': cross (every combination), first, last")
}

pub(super) fn one_sided_error(
    on: &[String],
    left: &Table,
    right: &Table,
    l: &Groups,
    r: &Groups,
) -> StageError {
    let sides = || {
        let only_left =
            l.iter().filter(|(key, _)| !r.contains_key(*key)).map(|(key, rows)| (left, key, rows));
        let only_right =
            r.iter().filter(|(key, _)| !l.contains_key(*key)).map(|(key, rows)| (right, key, rows));
        only_left.chain(only_right)
    };
    let all = sides().count();
    let mut message = format!("{all} keys have rows on one side only ('one_sided' is fail)");
    for (table, key, rows) in sides().take(keys::NAMED_IN_ERRORS) {
        message += &format!("\n  {}: {}", keys::to_text(on, key), keys::places(table, rows));
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
