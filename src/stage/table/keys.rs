//! Rows by key: the cells of the key columns, compared as text. Unaware of what is done with the groups.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::csv::Table;

/// How many keys an error message names before it only counts.
pub const NAMED_IN_ERRORS: usize = 5;

/// The key cells of a row, in the order of the key columns.
pub type Key<'t> = Vec<&'t str>;

/// Row numbers (places in [`Table::rows`]) by key, keys in order of first appearance.
pub type Groups<'t> = IndexMap<Key<'t>, Vec<usize>>;

/// Groups the rows of a table by the cells of `columns`.
pub fn group<'t>(table: &'t Table, columns: &[usize]) -> Groups<'t> {
    let mut groups = Groups::new();
    for (number, row) in table.rows().iter().enumerate() {
        let key = columns.iter().map(|column| row.cell(*column)).collect();
        groups.entry(key).or_default().push(number);
    }
    groups
}

/// The key as an object: column -> cell.
pub fn to_json(on: &[String], key: &[&str]) -> Value {
    Value::Object(on.iter().cloned().zip(key.iter().map(|cell| Value::from(*cell))).collect::<Map<_, _>>())
}

/// The key for messages: `model=a, tp=8`.
pub fn to_text(on: &[String], key: &[&str]) -> String {
    on.iter().zip(key).map(|(column, cell)| format!("{column}={cell}")).collect::<Vec<_>>().join(", ")
}

/// Where rows stand, for messages: `a.csv lines 2 and 7`; at most three lines are named.
pub fn places(table: &Table, rows: &[usize]) -> String {
    let line = |row: &usize| table.rows()[*row].line().to_string();
    match rows {
        [] => format!("{} nowhere", table.name()),
        [row] => format!("{} line {}", table.name(), line(row)),
        [a, b] => format!("{} lines {} and {}", table.name(), line(a), line(b)),
        [a, b, rest @ ..] => {
            format!("{} lines {}, {} and {} more", table.name(), line(a), line(b), rest.len())
        }
    }
}
