//! A database whose file is read whole: SQLite looks at the bytes where they lie. Unaware of which files are read so.
#![allow(unsafe_code)] // sqlite3_deserialize on a buffer of ours: its safe form takes new memory for each file

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, MAIN_DB, ffi};

/// Files of at most so many bytes are read whole: a call for each page would cost more than to look at it.
const MOST: u64 = 2 << 20;

/// The bytes of a file, in a buffer that the next file is read to.
#[derive(Debug, Default)]
pub(super) struct Bytes(Vec<u8>);

/// Buffers that came back: as many as were in use at once.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn spare() -> std::sync::MutexGuard<'static, Vec<Vec<u8>>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if self.0.capacity() > 0 {
            spare().push(std::mem::take(&mut self.0));
        }
    }
}

impl Bytes {
    /// Of a file that is neither long nor short; `None` of others.
    fn read(path: &Path) -> Option<Self> {
        // to open a pipe would wait for its writer
        let size = std::fs::metadata(path).ok().filter(Metadata::is_file)?.len();
        if !(HEADER..=MOST).contains(&size) {
            return None;
        }
        let mut bytes = Self(spare().pop().unwrap_or_default());
        bytes.0.clear();
        File::open(path).ok()?.take(MOST + 1).read_to_end(&mut bytes.0).ok()?;
        (bytes.0.len() as u64 == size).then_some(bytes)
    }
}

/// Bytes before the first page's content.
const HEADER: u64 = 100;

/// Where the header says whether the file is written, and read, with a -wal (2) or without (1).
const MODES: std::ops::Range<usize> = 18..20;

/// Opens a database beside which there is no -wal; `None` if its file is long or cannot be read so.
pub(super) fn open(path: &Path) -> Option<(Connection, Bytes)> {
    let mut bytes = Bytes::read(path)?;
    // without a -wal all is in the file, but what lies in memory can have none
    bytes.0[MODES].iter_mut().filter(|mode| **mode == 2).for_each(|mode| *mode = 1);
    let db = Connection::open_in_memory().ok()?;
    let (start, size) = (bytes.0.as_mut_ptr(), i64::try_from(bytes.0.len()).ok()?);
    // SAFETY: `start` leads to `size` bytes, which nobody moves, changes or frees before `db` is closed: the caller gets both, and
    // `Database` closes the one before it drops the other. Without FREEONCLOSE and with READONLY SQLite neither frees nor writes them.
    let code = unsafe {
        let flags = ffi::SQLITE_DESERIALIZE_READONLY;
        ffi::sqlite3_deserialize(db.handle(), MAIN_DB.as_ptr(), start, size, size, flags)
    };
    if code != ffi::SQLITE_OK {
        return None;
    }
    // pages are not copied
    db.pragma_update(None, "mmap_size", size).ok()?;
    Some((db, bytes))
}
