//! Rows by key: the cells of the key columns, compared as text. Unaware of what is done with the groups.

use std::borrow::Cow;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rayon::prelude::*;
use serde_json::{Map, Value};

use super::csv::{Alike, Record, Table};

/// How many keys an error message names before it only counts.
pub const NAMED_IN_ERRORS: usize = 5;

/// Parts that are grouped at the same time: the low bits of a key's hash say which one it is in.
const PARTS: usize = 16;

/// Rows that one thread looks at at a time.
const STRETCH: usize = 1 << 14;

/// Rows that are fetched from memory together.
pub const BATCH: usize = 32;

/// The rows of a table by key: groups are numbered by the first appearance of their key, rows of a group are in file order.
///
/// It holds hashes and numbers, about 35 bytes a row, and no text: keys are read from the table.
pub struct Groups<'t> {
    table: &'t Table,
    columns: Vec<usize>,
    hashes: Cow<'t, [u64]>,
    /// The group of each row.
    group_of: Vec<u32>,
    /// Row numbers, group after group.
    rows: Vec<u32>,
    /// Where each group begins in `rows`, and the end of the last.
    bounds: Vec<u32>,
    /// The keys of each part.
    parts: Vec<HashTable<First>>,
}

/// The first row of a key. Half of the key's hash lies beside it: most rows of other keys are told apart without a look at them.
#[derive(Clone, Copy)]
struct First {
    mark: u32,
    row: u32,
}

/// The first row of each key, and every other row with the first of its key.
type Part = (HashTable<First>, Vec<(u32, u32)>);

fn mark(hash: u64) -> u32 {
    (hash >> 24) as u32
}

fn part(hash: u64) -> usize {
    hash as usize % PARTS
}

/// Groups the rows of a table by the cells of `columns`.
pub fn group<'t>(table: &'t Table, columns: &[usize]) -> Groups<'t> {
    let hashes = table.hashes(columns);
    let found: Vec<Part> =
        (0..PARTS).into_par_iter().map(|p| first_rows(table, columns, &hashes, p)).collect();
    let (parts, repeats): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let repeats: Vec<(u32, u32)> = repeats.into_iter().flatten().collect();
    // the first row of each row's group, then the group's number
    let mut group: Vec<u32> = (0..table.len() as u32).collect();
    repeats.iter().for_each(|(row, first)| group[*row as usize] = *first);
    let mut sizes: Vec<u32> = Vec::with_capacity(table.len() - repeats.len());
    for row in 0..group.len() {
        let first = group[row] as usize;
        if first == row {
            group[row] = sizes.len() as u32;
            sizes.push(1);
        } else {
            group[row] = group[first];
            sizes[group[row] as usize] += 1;
        }
    }
    let (rows, bounds) = gathered(&group, sizes);
    Groups { table, columns: columns.to_vec(), hashes, group_of: group, rows, bounds, parts }
}

/// The first row of each key of a part, and every other row with the first of its key.
fn first_rows(table: &Table, columns: &[usize], hashes: &[u64], wanted: usize) -> Part {
    let mut firsts = HashTable::with_capacity(hashes.len() / PARTS);
    let mut repeats = Vec::new();
    let alike = Alike::new(columns.iter().map(|column| (*column, *column)));
    let (mut mine, mut other) = (table.record(), table.record());
    for (row, hash) in hashes.iter().enumerate().filter(|(_, hash)| part(**hash) == wanted) {
        let equal = |first: &First| {
            first.mark == mark(*hash) && {
                table.row(row).read_into(&mut mine);
                table.row(first.row as usize).read_into(&mut other);
                alike.equal(&mine, &other)
            }
        };
        match firsts.entry(*hash, equal, |first| hashes[first.row as usize]) {
            Entry::Occupied(first) => repeats.push((row as u32, first.get().row)),
            Entry::Vacant(place) => {
                place.insert(First { mark: mark(*hash), row: row as u32 });
            }
        }
    }
    (firsts, repeats)
}

/// The rows group after group, and where the groups begin.
fn gathered(group: &[u32], mut sizes: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
    let mut at = 0;
    for size in &mut sizes {
        (*size, at) = (at, at + *size);
    }
    let mut bounds = sizes;
    let mut rows = vec![0; group.len()];
    for (row, group) in group.iter().enumerate() {
        let place = &mut bounds[*group as usize];
        rows[*place as usize] = row as u32;
        *place += 1;
    }
    // each now holds its end: the begin of the next
    bounds.insert(0, 0);
    (rows, bounds)
}

impl<'t> Groups<'t> {
    /// The table.
    pub fn table(&self) -> &'t Table {
        self.table
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// True if the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of a group (places in the table), in file order.
    pub fn rows(&self, group: usize) -> &[u32] {
        &self.rows[self.bounds[group] as usize..self.bounds[group + 1] as usize]
    }

    /// The key of a group: the cells of the key columns.
    pub fn key(&self, group: usize) -> Vec<String> {
        let row = self.table.row(self.rows(group)[0] as usize).read();
        self.columns.iter().map(|column| row.cell(*column).to_owned()).collect()
    }

    /// The records of a group, in file order.
    pub fn records(&self, group: usize) -> Vec<Record<'t>> {
        self.rows(group).iter().map(|row| self.table.row(*row as usize).read()).collect()
    }

    /// For each group the one of `other` that has the same key.
    pub fn matches(&self, other: &Groups) -> Vec<Option<u32>> {
        let alike = Alike::new(self.columns.iter().copied().zip(other.columns.iter().copied()));
        let mut found = vec![None; self.len()];
        found.par_chunks_mut(STRETCH).enumerate().for_each_init(
            || (self.table.record(), other.table.record()),
            |(mine, its), (stretch, found)| {
                for (batch, found) in found.chunks_mut(BATCH).enumerate() {
                    let first_group = stretch * STRETCH + batch * BATCH;
                    let rows = (first_group..).map(|group| self.rows(group)[0] as usize);
                    let likely = rows.clone().take(found.len()).filter_map(|row| {
                        let hash = self.hashes[row];
                        other.parts[part(hash)].find(hash, |first| first.mark == mark(hash))
                    });
                    let likely: Vec<u32> = likely.map(|first| first.row).collect();
                    other.table.fetch(likely);
                    for (place, row) in found.iter_mut().zip(rows) {
                        let hash = self.hashes[row];
                        let equal = |first: &First| {
                            first.mark == mark(hash) && {
                                self.table.row(row).read_into(mine);
                                other.table.row(first.row as usize).read_into(its);
                                alike.equal(mine, its)
                            }
                        };
                        let first = other.parts[part(hash)].find(hash, equal);
                        *place = first.map(|first| other.group_of[first.row as usize]);
                    }
                }
            },
        );
        found
    }
}

/// Which groups of two tables have the same key.
pub struct Pairs {
    /// For each left group the right one.
    pub right_of: Vec<Option<u32>>,
    /// The left groups without a right one, in order.
    pub left_only: Vec<u32>,
    /// The right groups without a left one, in order.
    pub right_only: Vec<u32>,
}

impl Pairs {
    /// Looks up every key of `left` in `right`.
    pub fn new(left: &Groups, right: &Groups) -> Self {
        let right_of = left.matches(right);
        let mut taken = vec![false; right.len()];
        right_of.iter().flatten().for_each(|group| taken[*group as usize] = true);
        let without = |matched: &mut dyn Iterator<Item = bool>| -> Vec<u32> {
            matched.enumerate().filter(|(_, matched)| !matched).map(|(group, _)| group as u32).collect()
        };
        let left_only = without(&mut right_of.iter().map(Option::is_some));
        let right_only = without(&mut taken.iter().copied());
        Self { right_of, left_only, right_only }
    }

    /// The left and the right group of each key that both have, in the order of the left table.
    pub fn matched(&self) -> impl Iterator<Item = (usize, usize)> {
        self.right_of.iter().enumerate().filter_map(|(left, right)| Some((left, (*right)? as usize)))
    }
}

/// The key as an object: column -> cell.
pub fn to_json(on: &[String], key: Vec<String>) -> Value {
    Value::Object(on.iter().cloned().zip(key.into_iter().map(Value::from)).collect::<Map<_, _>>())
}

/// The key for messages: `model=a, tp=8`.
pub fn to_text(on: &[String], key: &[String]) -> String {
    on.iter().zip(key).map(|(column, cell)| format!("{column}={cell}")).collect::<Vec<_>>().join(", ")
}

/// Where rows stand, for messages: `a.csv lines 2 and 7`; at most three lines are named.
pub fn places(table: &Table, rows: &[u32]) -> String {
    let line = |row: &u32| table.row(*row as usize).line().to_string();
    match rows {
        [] => format!("{} nowhere", table.name()),
        [row] => format!("{} line {}", table.name(), line(row)),
        [a, b] => format!("{} lines {} and {}", table.name(), line(a), line(b)),
        [a, b, rest @ ..] => {
            format!("{} lines {}, {} and {} more", table.name(), line(a), line(b), rest.len())
        }
    }
}
