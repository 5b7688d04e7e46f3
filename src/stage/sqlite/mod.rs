//! Databases of others: opened to be read, never written. Unaware of their tables.

mod whole;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::api::{InputFile, StageError};
use whole::Bytes;

/// KiB of pages that are kept. A scan asks for each page once: copied into few buffers it is in the processor's cache when it is looked
/// at, which is cheaper than to map the file, and takes less memory.
const KEPT: i64 = 64;

/// A database that is open for reading.
pub(super) struct Database {
    // closed before the bytes are given back
    connection: Connection,
    _bytes: Bytes,
}

impl Deref for Database {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// Whether a file begins as SQLite's do.
pub(super) fn is_database(path: &Path) -> bool {
    let mut magic = [0; 16];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"SQLite format 3\0"
}

/// Opens a database that is an input by itself: what lies in a -wal or -journal beside it is no part of the input, so whether it changed
/// would not be seen.
///
/// # Errors
/// Such a file lies beside it and holds something; it cannot be opened.
pub(super) fn open_input(file: &InputFile) -> Result<Database, StageError> {
    for ending in ["-wal", "-journal"] {
        let beside = named(&file.path, ending);
        // a journal that begins with a 0 is one that was committed
        let mut first = [0];
        let is_file = std::fs::metadata(&beside).is_ok_and(|meta| meta.is_file());
        if is_file
            && File::open(&beside).and_then(|mut file| file.read_exact(&mut first)).is_ok()
            && first != [0]
        {
            return Err(StageError::new(format!(
                "{}: {}{ending} lies beside it, with changes that are not in the file and no part of this input",
                file.name,
                file.file_name()
            ))
            .hint("end what writes it, then: sqlite3 FILE 'PRAGMA wal_checkpoint(TRUNCATE)'"));
        }
    }
    open_to_read(&file.path).map_err(|e| StageError::new(format!("{}: {e}", file.name)))
}

fn named(path: &Path, ending: &str) -> OsString {
    let mut name = OsString::from(path);
    name.push(ending);
    name
}

/// Opens a database. Nothing is written, and nothing is locked where nobody else can be writing: where neither -wal nor -journal lies
/// beside it.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Database> {
    let beside = |ending: &str| std::fs::symlink_metadata(named(path, ending)).is_ok();
    let quiet = !beside("-wal") && !beside("-journal");
    if quiet && let Some((connection, bytes)) = whole::open(path) {
        return Ok(Database { connection, _bytes: bytes });
    }
    let encoded: String = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| match byte {
            b'/' | b'-' | b'_' | b'.' => char::from(*byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let uri = format!("file:{encoded}?{}", if quiet { "immutable=1" } else { "mode=ro" });
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.pragma_update(None, "cache_size", -KEPT)?;
    Ok(Database { connection, _bytes: Bytes::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// A database of `rows` rows of about 1 KB; with `wal`, one that says that it is written with a -wal, which is gone.
    fn made(dir: &Path, name: &str, rows: u32, wal: bool) -> std::path::PathBuf {
        let path = dir.join(name);
        let db = Connection::open(&path).unwrap();
        if wal {
            db.pragma_update(None, "journal_mode", "wal").unwrap();
        }
        db.execute_batch("CREATE TABLE t(n INTEGER, x TEXT); BEGIN").unwrap();
        for n in 0..rows {
            db.execute("INSERT INTO t VALUES (?, ?)", (n, "x".repeat(1000))).unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
        path
    }

    fn sum(path: &Path) -> rusqlite::Result<(u32, u32)> {
        open_to_read(path)?.query_row("SELECT count(*), sum(length(x)) FROM t", [], |row| {
            Ok((row.get(0)?, row.get::<_, Option<u32>>(1)?.unwrap_or(0)))
        })
    }

    #[test]
    fn short_and_long_ones() {
        let dir = tempfile::tempdir().unwrap();
        for (rows, wal) in [(0, false), (700, false), (700, true), (3000, false), (3000, true)] {
            let path = made(dir.path(), &format!("{rows}-{wal}"), rows, wal);
            let before = std::fs::read(&path).unwrap();
            assert_eq!(whole::open(&path).is_some(), rows < 2000, "{rows}");
            assert_eq!(sum(&path).unwrap(), (rows, rows * 1000), "{rows} {wal}");
            assert!(open_to_read(&path).unwrap().execute("DELETE FROM t", []).is_err());
            assert!(std::fs::read(&path).unwrap() == before);
        }
    }

    /// One after the other and beside others: nobody reads a buffer that somebody else has.
    #[test]
    fn several_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> =
            (1..9).map(|n| (n * 50, made(dir.path(), &n.to_string(), n * 50, false))).collect();
        let start = Barrier::new(paths.len());
        std::thread::scope(|scope| {
            for (rows, path) in &paths {
                let (start, rows) = (&start, *rows);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..20 {
                        assert_eq!(sum(path).unwrap(), (rows, rows * 1000));
                    }
                });
            }
        });
    }

    #[test]
    fn what_is_no_database() {
        let dir = tempfile::tempdir().unwrap();
        let good = std::fs::read(made(dir.path(), "good", 700, false)).unwrap();
        let path = dir.path().join("bad");
        for bytes in [&b""[..], b"SQLite format 3\0", &[7; 5000], &good[..100], &good[..good.len() / 2]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(sum(&path).is_err(), "{} bytes", bytes.len());
        }
        assert!(sum(dir.path()).is_err() && sum(&dir.path().join("none")).is_err());
    }

    /// With a -wal beside it the content is that of both.
    #[test]
    fn one_that_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path(), "open", 10, true);
        let writer = Connection::open(&path).unwrap();
        writer.execute("INSERT INTO t VALUES (10, 'y')", []).unwrap();
        assert!(dir.path().join("open-wal").exists());
        assert_eq!(sum(&path).unwrap(), (11, 10_001));
        // by itself it is not what it holds
        let file = InputFile { path, name: "in/open".into() };
        let error = |file| open_input(file).err().map(|error| error.message);
        assert_eq!(
            error(&file).unwrap(),
            "in/open: open-wal lies beside it, with changes that are not in the file and no part of this input"
        );
        drop(writer);
        assert_eq!(error(&file), None);
    }
}
