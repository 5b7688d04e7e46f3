//! A table of an SQLite database as a typed table. The same rows give the same bytes.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::source::Take;
use super::{Cell, Column, Kind, Sink};
use crate::api::{InputFile, StageError};

/// KiB of the database that are kept in memory.
const CACHE: i64 = 8192;

/// A name as SQL text.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn read(
    file: &InputFile,
    table: Option<&str>,
    take: &mut Take,
) -> Result<Vec<String>, StageError> {
    let failed = |e: rusqlite::Error| StageError::new(format!("{}: {e}", file.name));
    let db = crate::stage::sqlite::open_input(file)?;
    let table = chosen(&db, &file.name, table)?;
    let select = format!("SELECT * FROM {}", quoted(&table));
    let mut statement = db.prepare(&select).map_err(failed)?;
    // rows in the order in which they were written, where the table keeps it: a view has no rowid
    let by = crate::stage::sqlite::rowid(&statement);
    if let Some(ordered) = by.and_then(|by| db.prepare(&format!("{select} ORDER BY {by}")).ok()) {
        statement = ordered;
    }
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([]).map_err(failed)?;
    let mut number = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        number += 1;
        let place = || format!(" table '{table}' row {number}");
        let mut cells = Vec::with_capacity(columns.len());
        for (index, name) in columns.iter().enumerate() {
            let cell = match row.get_ref(index).map_err(failed)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(n) => Cell::Int(n),
                ValueRef::Real(n) => Cell::Float(n),
                ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Cell::Text(text.into()),
                    Err(_) => {
                        let place = place();
                        return Err(StageError::new(format!(
                            "{}{place}, column '{name}': not UTF-8",
                            file.name
                        )));
                    }
                },
                ValueRef::Blob(_) => {
                    let place = place();
                    return Err(StageError::new(format!(
                        "{}{place}, column '{name}': a blob is no value of a table",
                        file.name
                    ))
                    .hint("leave the column out with a view, and read that"));
                }
            };
            cells.push((name.as_str(), cell));
        }
        take(&place, &mut cells.into_iter())?;
    }
    Ok(columns)
}

/// The table asked for, or the only one.
fn chosen(db: &Connection, file: &str, table: Option<&str>) -> Result<String, StageError> {
    let failed = |e: rusqlite::Error| StageError::new(format!("{file}: {e}"));
    let mut names = db
        .prepare("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")
        .map_err(failed)?;
    let names: rusqlite::Result<Vec<String>> =
        names.query_map([], |row| row.get(0)).map_err(failed)?.collect();
    let names = names.map_err(failed)?;
    let list = || names.join(", ");
    match (table, names.as_slice()) {
        (Some(table), names) if names.iter().any(|name| name == table) => Ok(table.to_owned()),
        (Some(table), _) => {
            Err(StageError::new(format!("{file}: no table '{table}'; its tables are: {}", list())))
        }
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(StageError::new(format!("{file}: a database without tables"))),
        (None, _) => Err(StageError::new(format!("{file}: several tables: {}", list()))
            .hint("say which one with the parameter 'from_table'")),
    }
}

/// Writes a database with one table.
pub(super) struct ToSqlite {
    db: Connection,
    insert: String,
    output: String,
}

impl ToSqlite {
    pub(super) fn new(
        path: &std::path::Path,
        output: &str,
        table: &str,
        columns: &[Column],
    ) -> Result<Self, StageError> {
        let failed = |e: rusqlite::Error| StageError::new(format!("failed to write output '{output}': {e}"));
        if columns.is_empty() {
            return Err(StageError::new(format!(
                "output '{output}': a table of SQLite needs a column, and the input has none"
            )));
        }
        // names of columns differ by more than the case of ASCII letters there
        for (index, column) in columns.iter().enumerate() {
            if let Some(other) = columns[..index].iter().find(|c| c.name.eq_ignore_ascii_case(&column.name)) {
                return Err(StageError::new(format!(
                    "output '{output}': SQLite takes the columns '{}' and '{}' for one",
                    other.name, column.name
                )));
            }
        }
        let db = Connection::open(path).map_err(failed)?;
        // the file is worth nothing before it is whole: no journal, no sync
        db.execute_batch(&format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE}; PRAGMA locking_mode = EXCLUSIVE"
        ))
        .map_err(failed)?;
        let declared: Vec<String> = columns
            .iter()
            .map(|column| {
                let kind = match column.kind {
                    Kind::Bool | Kind::Int => "INTEGER",
                    Kind::Float => "REAL",
                    Kind::Text => "TEXT",
                };
                format!("{} {kind}", quoted(&column.name))
            })
            .collect();
        db.execute_batch(&format!("CREATE TABLE {} ({}); BEGIN", quoted(table), declared.join(", ")))
            .map_err(failed)?;
        let marks = vec!["?"; columns.len()].join(", ");
        let insert = format!("INSERT INTO {} VALUES ({marks})", quoted(table));
        Ok(Self { db, insert, output: output.to_owned() })
    }

    fn failed(&self, cause: &rusqlite::Error) -> StageError {
        StageError::new(format!("failed to write output '{}': {cause}", self.output))
    }
}

impl Sink for ToSqlite {
    fn row(&mut self, cells: &[Cell]) -> Result<(), StageError> {
        let values = cells.iter().map(|cell| {
            ToSqlOutput::Borrowed(match cell {
                Cell::Null => ValueRef::Null,
                Cell::Bool(b) => ValueRef::Integer(i64::from(*b)),
                Cell::Int(n) => ValueRef::Integer(*n),
                Cell::Float(n) => ValueRef::Real(*n),
                Cell::Text(text) | Cell::Spelled(text) => ValueRef::Text(text.as_bytes()),
            })
        });
        let mut insert = self.db.prepare_cached(&self.insert).map_err(|e| self.failed(&e))?;
        insert.execute(params_from_iter(values)).map(drop).map_err(|e| self.failed(&e))
    }

    fn finish(self: Box<Self>) -> Result<(), StageError> {
        self.db.execute_batch("COMMIT").map_err(|e| self.failed(&e))?;
        self.db.flush_prepared_statement_cache();
        let Self { db, output, .. } = *self;
        db.close().map_err(|(_, e)| StageError::new(format!("failed to write output '{output}': {e}")))
    }
}
