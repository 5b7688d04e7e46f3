//! Opening a SQLite file with the settings and the version check that all of them share. Unaware of tables.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::{Error, Result};

/// How long a statement waits for another process before it is an error.
const BUSY: Duration = Duration::from_secs(60);

/// The versions of one file's tables.
pub(super) struct Schema {
    /// Entry N leads from version N to N + 1; the last one leads to the version that this flow writes.
    pub(super) migrations: &'static [&'static str],
    /// What to do about a file of a newer version.
    pub(super) newer_hint: &'static str,
}

impl Schema {
    /// The version that this flow writes.
    pub(super) fn version(&self) -> i64 {
        self.migrations.len() as i64
    }
}

/// Opens or creates `path`, and brings its tables to the present version.
pub(super) fn open(path: &Path, schema: &Schema) -> Result<Connection> {
    let mut db = Connection::open(path).map_err(|e| failed("open", path, &e))?;
    // one of a newer version is not touched
    let found = db.busy_timeout(BUSY).and_then(|()| version(&db)).map_err(|e| failed("open", path, &e))?;
    if found > schema.version() {
        return Err(newer(path, found, schema));
    }
    prepare(&db, found == 0).map_err(|e| failed("open", path, &e))?;
    if found != schema.version() {
        migrate(&mut db, path, schema)?;
    }
    Ok(db)
}

/// An error of the database at `path`, with a hint where the cause allows one.
pub(super) fn failed(what: &str, path: &Path, cause: &rusqlite::Error) -> Error {
    let error = Error::io(what, path, cause);
    match cause.sqlite_error_code() {
        _ if is_damage(cause) => error.hint(damage_hint(path)),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            error.hint("another process has held the file for a minute: is a flow suspended?")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            error.hint("flow must be able to write its cache: name another one with --cache DIR")
        }
        _ => error,
    }
}

/// What SQLite finds wrong with the structure of a database; nothing if it is sound.
pub(super) fn faults(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let lines: Vec<String> =
        db.prepare("PRAGMA quick_check(20)")?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

fn prepare(db: &Connection, new: bool) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(64);
    if new {
        // of a database that has tables it would write the header at every opening
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    write_ahead(db)?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "wal_autocheckpoint", 4000)?;
    db.pragma_update(None, "cache_size", -16_384)?;
    db.pragma_update(None, "temp_store", "MEMORY")
}

/// Turns the write-ahead log on. SQLite does not wait for others at this one statement, so the waiting is done here.
fn write_ahead(db: &Connection) -> rusqlite::Result<()> {
    let started = Instant::now();
    loop {
        match db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && started.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e),
            Ok(_) => return Ok(()),
        }
    }
}

/// What to do about a damaged file.
pub(super) fn damage_hint(path: &Path) -> String {
    format!(
        "the file is damaged: 'flow cache verify --repair' keeps what can be read of it; or move {} away, and flow makes a new \
         one (blobs and run records are not touched)",
        path.display()
    )
}

/// True if the file is damaged or none of SQLite's.
pub(super) fn is_damage(cause: &rusqlite::Error) -> bool {
    matches!(cause.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// The error of a file of a newer version.
pub(super) fn newer(path: &Path, found: i64, schema: &Schema) -> Error {
    Error::environment(format!(
        "{} has format version {found}, but this flow knows versions up to {}",
        path.display(),
        schema.version()
    ))
    .hint(schema.newer_hint)
}

/// The bytes of a column, whatever type it has: a damaged row may have any.
pub(super) fn bytes(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.to_vec(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Vec::new(),
    })
}

/// The version of a database's tables.
pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(db: &mut Connection, path: &Path, schema: &Schema) -> Result<()> {
    let known = schema.version();
    let step = |e: rusqlite::Error| failed("bring up to date", path, &e);
    let work = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(step)?;
    // Another process may have done it while this one waited.
    let found = version(&work).map_err(step)?;
    if found > known {
        return Err(newer(path, found, schema));
    }
    for migration in &schema.migrations[found.max(0) as usize..] {
        work.execute_batch(migration).map_err(step)?;
    }
    work.pragma_update(None, "user_version", known).map_err(step)?;
    work.commit().map_err(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Schema = Schema { migrations: &["CREATE TABLE a (x)"], newer_hint: "use the newer flow" };
    const TWO: Schema =
        Schema { migrations: &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y"], newer_hint: "" };

    #[test]
    fn an_old_file_is_migrated_and_a_newer_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        open(&path, &ONE).unwrap().execute("INSERT INTO a VALUES (7)", []).unwrap();
        let db = open(&path, &TWO).unwrap();
        let row: (i64, Option<i64>) =
            db.query_row("SELECT x, y FROM a", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, (7, None));
        drop(db);
        let error = open(&path, &ONE).unwrap_err();
        assert!(
            error.message.contains("format version 2") && error.message.contains("up to 1"),
            "{}",
            error.message
        );
        assert_eq!(error.hints, ["use the newer flow"]);
    }

    #[test]
    fn a_file_that_is_no_database_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        let error = open(&path, &ONE).unwrap_err();
        assert!(error.message.contains("x.db"), "{}", error.message);
        assert!(error.hints[0].contains("damaged"));
    }
}
