//! A database whose file is read whole: SQLite looks at the bytes where they lie. Unaware of which files are read so.
#![allow(unsafe_code)] // sqlite3_deserialize on a buffer of ours: its safe form takes new memory for each file

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, MAIN_DB, ffi};

use super::{HEADER, Header};

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
        if !(HEADER as u64..=MOST).contains(&size) {
            return None;
        }
        let mut bytes = Self(spare().pop().unwrap_or_default());
        bytes.0.clear();
        File::open(path).ok()?.take(MOST + 1).read_to_end(&mut bytes.0).ok()?;
        let whole = bytes.0.len() as u64 == size;
        bytes.0.extend([0; BEYOND]);
        whole.then_some(bytes)
    }

    fn header(&mut self) -> Option<Header> {
        let file = self.file();
        Some(Header { bytes: file.first_chunk().copied()?, size: file.len() as u64 })
    }

    /// The bytes of the file.
    fn file(&mut self) -> &mut [u8] {
        let size = self.0.len() - BEYOND;
        &mut self.0[..size]
    }
}

/// Zeros behind the file: in a damaged page SQLite may look a few bytes beyond its end, and must not see what lay there before.
const BEYOND: usize = 256;

/// Where the header says whether the file is written, and read, with a -wal (2) or without (1).
const MODES: std::ops::Range<usize> = 18..20;

/// Opens a database beside which there is no -wal; `None` if its file is long or cannot be read so.
///
/// # Errors
/// The file is shorter than it says.
pub(super) fn open(path: &Path) -> rusqlite::Result<Option<(Connection, Bytes)>> {
    let Some(mut bytes) = Bytes::read(path) else { return Ok(None) };
    bytes.header().map_or(Ok(()), |header| header.check())?;
    Ok(opened(&mut bytes).map(|connection| (connection, bytes)))
}

/// Of bytes that stay where they are until it is closed.
fn opened(bytes: &mut Bytes) -> Option<Connection> {
    // without a -wal all is in the file, but what lies in memory can have none
    bytes.file()[MODES].iter_mut().filter(|mode| **mode == 2).for_each(|mode| *mode = 1);
    let db = Connection::open_in_memory().ok()?;
    let size = i64::try_from(bytes.file().len()).ok()?;
    let start = bytes.0.as_mut_ptr();
    // SAFETY: `start` leads to `size` bytes and BEYOND zeros, which nobody moves, changes or frees before `db` is closed: both go to
    // `Database`, which closes the one before it drops the other. Without FREEONCLOSE and with READONLY SQLite neither frees nor writes
    // them. That it looks no further than BEYOND behind a page is what its own memory maps rely on.
    let code = unsafe {
        let flags = ffi::SQLITE_DESERIALIZE_READONLY;
        ffi::sqlite3_deserialize(db.handle(), MAIN_DB.as_ptr(), start, size, size, flags)
    };
    if code != ffi::SQLITE_OK {
        return None;
    }
    // pages are not copied
    db.pragma_update(None, "mmap_size", size).ok()?;
    Some(db)
}
