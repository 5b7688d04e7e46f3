//! Databases of others: opened to be read, never written. Unaware of their tables.

mod whole;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Statement, ffi};
use tempfile::TempDir;

use crate::api::{InputFile, StageError};
use whole::Bytes;

/// KiB of pages that are kept. A scan asks for each page once: copied into few buffers it is in the processor's cache when it is looked
/// at, which is cheaper than to map the file, and takes less memory.
const KEPT: i64 = 64;

/// Whether a table or view has a column.
pub(super) fn has_column(db: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?) WHERE name = ? COLLATE NOCASE)";
    db.query_row(sql, [table, column], |row| row.get(0))
}

/// A database that is open for reading.
pub(super) struct Database {
    // closed before the bytes are given back, and before the copy is removed
    connection: Connection,
    _bytes: Bytes,
    _copy: Option<TempDir>,
}

impl Database {
    fn new(connection: Connection, bytes: Bytes, copy: Option<TempDir>) -> rusqlite::Result<Self> {
        // a damaged page is an error, not what happens to lie there
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(Self { connection, _bytes: bytes, _copy: copy })
    }
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

/// The name that means the rowid in a table, by a statement that selects all its columns: a column of such a name hides it. `None` if all
/// of them are columns.
pub(super) fn rowid(all: &Statement) -> Option<&'static str> {
    let taken = |name: &str| all.column_names().any(|column| column.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name))
}

fn named(path: &Path, ending: &str) -> OsString {
    let mut name = OsString::from(path);
    name.push(ending);
    name
}

/// Opens a database. Where nobody else can be writing, where neither -wal nor -journal lies beside it, nothing is locked; else a copy of all is
/// opened. Nothing is written beside it.
///
/// # Errors
/// It cannot be opened; it is shorter than it says; it is a link, and what it leads to has such a file beside it, which would be no input.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Database> {
    let leads = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    let target = if leads { std::fs::canonicalize(path).ok() } else { None };
    let has = |path: &Path, ending: &str| std::fs::symlink_metadata(named(path, ending)).is_ok();
    let beside = |path: &Path| has(path, "-wal") || has(path, "-journal");
    if let Some(target) = target.filter(|target| beside(target)) {
        return Err(refused(
            ffi::SQLITE_CANTOPEN,
            format!("a link to {}, which is being written", target.display()),
        ));
    }
    if beside(path) {
        return copied(path);
    }
    if let Some((connection, bytes)) = whole::open(path)? {
        return Database::new(connection, bytes, None);
    }
    if let Ok(header) = Header::read(path) {
        header.check()?;
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
    let uri = format!("file:{encoded}?immutable=1");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.pragma_update(None, "cache_size", -KEPT)?;
    Database::new(connection, Bytes::default(), None)
}

/// A copy of a database and of what lies beside it: SQLite brings it in order and makes files of its own.
fn copied(path: &Path) -> rusqlite::Result<Database> {
    let failed =
        |e: std::io::Error| refused(ffi::SQLITE_IOERR, format!("to be read it has to be copied: {e}"));
    let dir = tempfile::tempdir().map_err(failed)?;
    let copy = dir.path().join("copy");
    std::fs::copy(path, &copy).map_err(failed)?;
    for ending in ["-wal", "-journal"] {
        match std::fs::copy(named(path, ending), named(&copy, ending)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&copy, flags)?;
    connection.pragma_update(None, "query_only", true)?;
    Database::new(connection, Bytes::default(), Some(dir))
}

fn refused(code: i32, message: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(message))
}

/// What the first bytes of a file say.
struct Header {
    bytes: [u8; HEADER],
    /// Of the file.
    size: u64,
}

/// Bytes before the content of the first page.
const HEADER: usize = 100;

impl Header {
    fn read(path: &Path) -> std::io::Result<Self> {
        let mut bytes = [0; HEADER];
        let size = std::fs::metadata(path)?.len();
        File::open(path)?.read_exact(&mut bytes)?;
        Ok(Self { bytes, size })
    }

    /// An error if the file is shorter than it says: what is missing would be read as empty.
    fn check(&self) -> rusqlite::Result<()> {
        let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| self.bytes[at + n]));
        let page = match u16::from_be_bytes([self.bytes[16], self.bytes[17]]) {
            1 => 1 << 16,
            page => u64::from(page),
        };
        // the number of pages holds if it was written with the last change
        let says = page * u64::from(number(28));
        if self.bytes.starts_with(b"SQLite format 3\0") && number(24) == number(92) && self.size < says {
            return Err(refused(
                ffi::SQLITE_CORRUPT,
                format!("cut off: {} of {says} bytes are there", self.size),
            ));
        }
        Ok(())
    }
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
            assert_eq!(whole::open(&path).unwrap().is_some(), rows < 2000, "{rows}");
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

    /// What lies behind the last page is not that of the file that was read before.
    #[test]
    fn a_cell_that_leads_beyond_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path(), "short", 3, false);
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 8192);
        // the first cell of page 2 begins at its last byte
        bytes[4096 + 8..4096 + 10].copy_from_slice(&[0x0f, 0xff]);
        bytes[8191] = 0xbd;
        std::fs::write(&path, &bytes).unwrap();
        let look = || sum(&path).map_err(|e| e.to_string());
        let alone = look();
        assert_eq!(alone, Err("database disk image is malformed".to_owned()));
        let other = made(dir.path(), "other", 700, false);
        sum(&other).unwrap();
        assert_eq!(look(), alone);
    }

    #[test]
    fn one_that_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        for rows in [700, 3000] {
            let path = made(dir.path(), &rows.to_string(), rows, false);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() - 1000]).unwrap();
            let error = sum(&path).unwrap_err().to_string();
            assert_eq!(error, format!("cut off: {} of {} bytes are there", bytes.len() - 1000, bytes.len()));
            // more than it says is left alone
            std::fs::write(&path, [&bytes[..], b"garbage"].concat()).unwrap();
            assert_eq!(sum(&path).unwrap(), (rows, rows * 1000));
        }
    }

    /// With a -wal beside it the content is that of both.
    #[test]
    fn one_that_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path(), "open", 10, true);
        let writer = Connection::open(&path).unwrap();
        writer.execute("INSERT INTO t VALUES (10, 'y')", []).unwrap();
        assert!(dir.path().join("open-wal").exists());
        std::fs::remove_file(dir.path().join("open-shm")).unwrap();
        assert_eq!(sum(&path).unwrap(), (11, 10_001));
        assert!(!dir.path().join("open-shm").exists(), "nothing is written beside it");
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert!(sum(&dir.path().join("link")).unwrap_err().to_string().ends_with("which is being written"));
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
