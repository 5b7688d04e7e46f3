//! Databases of others: opened to be read, never written. Unaware of their tables.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// KiB of pages that are kept. A scan asks for each page once: copied into few buffers it is in the processor's cache when it is looked
/// at, which is cheaper than to map the file, and takes less memory.
const KEPT: i64 = 256;

/// Whether a file begins as SQLite's do.
pub(super) fn is_database(path: &Path) -> bool {
    let mut magic = [0; 16];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"SQLite format 3\0"
}

/// Opens a database. Nothing is written, and nothing is locked where nobody else can be writing: where neither -wal nor -journal lies
/// beside it.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let beside = |ending: &str| {
        let mut name = OsString::from(path);
        name.push(ending);
        std::fs::symlink_metadata(name).is_ok()
    };
    let quiet = !beside("-wal") && !beside("-journal");
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
    let db = Connection::open_with_flags(uri, flags)?;
    db.pragma_update(None, "cache_size", -KEPT)?;
    Ok(db)
}
