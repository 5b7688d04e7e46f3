//! Requests in a SQLite database: a table `requests` whose columns are the members of a row. Unaware of what is computed of them.

use rusqlite::types::{FromSql, ValueRef};
use serde_json::Value;

use super::Row;
use crate::api::{InputFile, StageError};
use crate::stage::metrics::measured;
use crate::stage::sqlite;

/// What to say of a database that is another one.
const EXPECTED: &str = "expected a table requests(id, send, events, input_tokens, output_tokens, success, error[, end, pod, data_abbr, uuid]), events as JSON text";

/// The columns that are read, and what each holds. A table may lack those from [`OPTIONAL`] on.
const COLUMNS: [(&str, &str); 11] = [
    ("id", "a whole number or text"),
    ("send", "a number"),
    ("events", "JSON as text"),
    ("input_tokens", "a whole number from 0 on"),
    ("output_tokens", "a whole number from 0 on"),
    ("success", "0 or 1"),
    ("error", "text"),
    ("end", "a number"),
    ("pod", "text"),
    ("data_abbr", "text"),
    ("uuid", "text"),
];

/// The first column that a table may lack.
const OPTIONAL: usize = 7;

/// The rows in the order of their rowid; those of `llm.load` count from `origin`.
pub(super) fn read(file: &InputFile, origin: measured::Origin) -> Result<Vec<Row>, StageError> {
    let failed = |e: rusqlite::Error| StageError::new(format!("{}: {e}", file.name)).hint(EXPECTED);
    let db = sqlite::open_input(file)?;
    if measured::is_measured(&db).map_err(failed)? {
        let rows = measured::rows(&db, origin).map_err(failed)?;
        return rows.map_err(|message| StageError::new(format!("{}: {message}", file.name)));
    }
    let mut names = Vec::with_capacity(COLUMNS.len());
    for (place, (name, _)) in COLUMNS.into_iter().enumerate() {
        let there = place < OPTIONAL || sqlite::has_column(&db, "requests", name).map_err(failed)?;
        // not in quotes: what names no column would be text
        names.push(if there { format!("requests.[{name}]") } else { "NULL".to_owned() });
    }
    let names = names.join(", ");
    let by = sqlite::rowid(&db.prepare("SELECT * FROM requests").map_err(failed)?).unwrap_or("NULL");
    let mut select =
        db.prepare(&format!("SELECT {names}, {by} FROM requests ORDER BY {by}")).map_err(failed)?;
    let mut found = select.query([]).map_err(failed)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let place = || {
            let id = row.get_ref(COLUMNS.len()).map_or_else(|_| "?".to_owned(), shown);
            format!("{}: table requests, rowid {id}", file.name)
        };
        let cells = Cells { row, place: &place };
        let id = match cells.value(0)? {
            ValueRef::Integer(id) => Value::from(id),
            ValueRef::Text(id) => Value::from(String::from_utf8_lossy(id)),
            ValueRef::Null => Value::Null,
            ValueRef::Real(_) | ValueRef::Blob(_) => return Err(cells.refused(0)),
        };
        let tokens = |column: usize| -> Result<Option<u64>, StageError> {
            let count: Option<i64> = cells.get(column)?;
            count.map(|count| u64::try_from(count).map_err(|_| cells.refused(column))).transpose()
        };
        let events: String = cells.get(2)?;
        let row = Row {
            id,
            send: cells.get(1)?,
            end: cells.get(7)?,
            events: serde_json::from_str(&events)
                .map_err(|e| StageError::not_json(&cells.place_of(2), events.as_bytes(), &e))?,
            input_tokens: tokens(3)?,
            output_tokens: tokens(4)?,
            success: cells.get(5)?,
            error: cells.get(6)?,
            pod: cells.get(8)?,
            data_abbr: cells.get(9)?,
            uuid: cells.get(10)?,
            place: None,
        };
        if let Some(fault) = row.fault() {
            return Err(StageError::new(format!("{}: {fault}", place())));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// The cells of a row, as [`COLUMNS`] numbers them.
struct Cells<'c, 'r> {
    row: &'c rusqlite::Row<'r>,
    place: &'c dyn Fn() -> String,
}

impl Cells<'_, '_> {
    fn place_of(&self, column: usize) -> String {
        format!("{}, column '{}'", (self.place)(), COLUMNS[column].0)
    }

    fn value(&self, column: usize) -> Result<ValueRef<'_>, StageError> {
        self.row.get_ref(column).map_err(|e| StageError::new(format!("{}: {e}", self.place_of(column))))
    }

    fn get<T: FromSql>(&self, column: usize) -> Result<T, StageError> {
        T::column_result(self.value(column)?).map_err(|_| self.refused(column))
    }

    /// A cell of a wrong type, or beyond what its column holds.
    fn refused(&self, column: usize) -> StageError {
        let found = self.value(column).map_or_else(|e| e.message, shown);
        let message = format!("{}: expected {}, found {found}", self.place_of(column), COLUMNS[column].1);
        StageError::new(message).hint(EXPECTED)
    }
}

/// A cell for messages; of text the beginning.
fn shown(value: ValueRef) -> String {
    const SHOWN: usize = 40;
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(x) => x.to_string(),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if text.chars().count() > SHOWN => {
                format!("text '{}...'", text.chars().take(SHOWN).collect::<String>())
            }
            Ok(text) => format!("text '{text}'"),
            Err(_) => "text that is not UTF-8".to_owned(),
        },
        ValueRef::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_whatever_columns_are_named() {
        for (columns, place) in
            [("x", "rowid 2"), ("rowid", "rowid 2"), ("rowid, oid, _RowId_", "rowid NULL")]
        {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("r.db");
            let db = rusqlite::Connection::open(&path).unwrap();
            db.execute_batch(&format!(
                "CREATE TABLE requests(id, send, events, input_tokens, output_tokens, success, error, {columns})"
            ))
            .unwrap();
            let others = columns.split(',').count();
            for (id, other) in ["c", "a", "b"].into_iter().enumerate() {
                let others = vec![format!("'{other}'"); others].join(", ");
                let cells = format!("{id}, {id}, '[]', 1, 1, 0, 'x', {others}");
                db.execute(&format!("INSERT INTO requests VALUES ({cells})"), []).unwrap();
            }
            let file = InputFile { path, name: "r.db".into() };
            let rows = read(&file, measured::Origin::Send).unwrap();
            assert_eq!(rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>(), [0, 1, 2], "{columns}");
            db.execute("UPDATE requests SET send = 'x' WHERE id = 1", []).unwrap();
            drop(db);
            let error = read(&file, measured::Origin::Send).unwrap_err();
            assert!(
                error.message.starts_with(&format!("r.db: table requests, {place}, column 'send'")),
                "{error:?}"
            );
        }
    }
}
