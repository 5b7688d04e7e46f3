//! A table in a file of any format: looked through once for its columns and their types, then read row by row. Unaware of outputs.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cell, Column, Kind, Seen, as_kind, csv, json, sqlite, to_text};
use crate::api::{InputFile, StageError};
use crate::base::suggest;

/// A format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReadFormat {
    /// The CSV of all stages: comma, header line first.
    Csv,
    /// A list of objects.
    Json,
    /// One object a line.
    Jsonl,
    /// A table of an SQLite database.
    Sqlite,
    /// Apache Parquet; only in a flow that was built with the feature `parquet`.
    Parquet,
}

impl ReadFormat {
    /// The format that the ending of a file's name says.
    pub fn of(file: &InputFile) -> Result<Self, StageError> {
        match file.file_name().rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("json") => Ok(Self::Json),
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            Some("sqlite" | "sqlite3" | "db") => Ok(Self::Sqlite),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(StageError::new(format!("{}: its ending names no format that can be read", file.name))
                .hint("say which it is with the parameter 'from': csv, json, jsonl, sqlite or parquet")),
        }
    }
}

/// What a reader gives of each row: where it stands (` line 3`), and name and cell of each column that it has.
pub(super) type Take<'f> =
    dyn FnMut(&dyn Fn() -> String, &mut dyn Iterator<Item = (&str, Cell)>) -> Result<(), StageError> + 'f;

/// A table to be read.
pub struct Source<'f> {
    file: &'f InputFile,
    format: ReadFormat,
    table: Option<&'f str>,
    columns: IndexMap<String, Kind>,
    rows: u64,
}

impl<'f> Source<'f> {
    /// Reads the whole file once: its columns, in the order in which they first appear, and their types. `table` is that of a database;
    /// `declared` types stand above those of the cells.
    pub fn survey(
        file: &'f InputFile,
        format: ReadFormat,
        table: Option<&'f str>,
        declared: &BTreeMap<String, Kind>,
    ) -> Result<Self, StageError> {
        let mut seen: IndexMap<String, Seen> = IndexMap::new();
        let mut rows = 0;
        let named = read(file, format, table, &mut |_, cells| {
            rows += 1;
            for (name, cell) in cells {
                match seen.get_mut(name) {
                    Some(seen) => seen.add(&cell),
                    None => {
                        let mut first = Seen::default();
                        first.add(&cell);
                        seen.insert(name.to_owned(), first);
                    }
                }
            }
            Ok(())
        })?;
        for name in named {
            seen.entry(name).or_default();
        }
        if let Some(name) = declared.keys().find(|name| !seen.contains_key(*name)) {
            let known: Vec<&str> = seen.keys().map(String::as_str).collect();
            let error = StageError::new(format!(
                "{}: no column '{name}' (parameter 'types'); its columns are: {}",
                file.name,
                known.join(",")
            ));
            return Err(match suggest::nearest(name, known) {
                Some(near) => error.hint(format!("did you mean '{near}'?")),
                None => error,
            });
        }
        let kind = |name: &String, seen: Seen| declared.get(name).copied().unwrap_or_else(|| seen.kind());
        let columns = seen.into_iter().map(|(name, seen)| (name.clone(), kind(&name, seen))).collect();
        Ok(Self { file, format, table, columns, rows })
    }

    /// The columns.
    pub fn columns(&self) -> Vec<Column> {
        self.columns.iter().map(|(name, kind)| Column { name: name.clone(), kind: *kind }).collect()
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Gives every row, cells in column order: each of its column's type, or null.
    ///
    /// # Errors
    /// A cell that is not of the type that was declared for its column: file, line, column and cell are named.
    pub fn each(&self, take: &mut dyn FnMut(&[Cell]) -> Result<(), StageError>) -> Result<(), StageError> {
        read(self.file, self.format, self.table, &mut |place, cells| {
            let mut row = vec![Cell::Null; self.columns.len()];
            for (name, cell) in cells {
                let Some((index, _, kind)) = self.columns.get_full(name) else { continue };
                row[index] = match as_kind(cell, *kind) {
                    Ok(cell) => own(cell),
                    Err(cell) => {
                        return Err(StageError::new(format!(
                            "{}{}, column '{name}': '{}' is no {}",
                            self.file.name,
                            place(),
                            to_text(&cell),
                            kind.as_str()
                        ))
                        .hint("the parameter 'types' says so; text holds anything"));
                    }
                };
            }
            take(&row)
        })
        .map(drop)
    }
}

fn own(cell: Cell) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Bool(b) => Cell::Bool(b),
        Cell::Int(n) => Cell::Int(n),
        Cell::Float(n) => Cell::Float(n),
        Cell::Text(text) => Cell::Text(text.into_owned().into()),
        Cell::Spelled(text) => Cell::Spelled(text.into_owned().into()),
    }
}

/// Reads a file from its first row to its last; gives back the columns that it names apart from its rows.
fn read(
    file: &InputFile,
    format: ReadFormat,
    table: Option<&str>,
    take: &mut Take,
) -> Result<Vec<String>, StageError> {
    match format {
        ReadFormat::Csv => csv::read(file, take),
        ReadFormat::Json => json::read_list(file, take),
        ReadFormat::Jsonl => json::read_lines(file, take),
        ReadFormat::Sqlite => sqlite::read(file, table, take),
        #[cfg(feature = "parquet")]
        ReadFormat::Parquet => super::parquet::read(file, take),
        #[cfg(not(feature = "parquet"))]
        ReadFormat::Parquet => Err(super::no_parquet()),
    }
}
