//! Which inputs a command discovered: the lists of paths of its last successes, by the first level of its key. Unaware of keys.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::writer::Work;
use crate::base::clock::now_ns;
use crate::base::digest::Digest;

/// As many lists are kept per key, the newest.
pub(super) const KEPT: usize = 32;

/// The table.
pub(super) const TABLE: &str =
    "CREATE TABLE discovered (key BLOB NOT NULL, list BLOB NOT NULL, paths TEXT NOT NULL,
        noted_ns INTEGER NOT NULL, PRIMARY KEY (key, list)) WITHOUT ROWID;";

/// Lists of one key that this process has noted, newest first.
pub(super) type Lists = Vec<Arc<[String]>>;

/// Puts `paths` first, and forgets what is too old.
pub(super) fn note(lists: &mut Lists, paths: Arc<[String]>) {
    lists.retain(|known| *known != paths);
    lists.insert(0, paths);
    lists.truncate(KEPT);
}

/// Notes a list. `paths`: as JSON.
pub(super) fn put(key: Digest, paths: String) -> Work {
    Box::new(move |db| {
        let list = Digest::of(paths.as_bytes());
        db.prepare_cached("INSERT OR REPLACE INTO discovered VALUES (?1, ?2, ?3, ?4)")?.execute((
            key.0,
            list.0,
            paths,
            now_ns(),
        ))?;
        let oldest: Option<i64> = db
            .prepare_cached(
                "SELECT noted_ns FROM discovered WHERE key = ?1 ORDER BY noted_ns DESC LIMIT 1 OFFSET ?2",
            )?
            .query_row((key.0, KEPT as i64), |row| row.get(0))
            .optional()?;
        if let Some(oldest) = oldest {
            db.prepare_cached("DELETE FROM discovered WHERE key = ?1 AND noted_ns <= ?2")?
                .execute((key.0, oldest))?;
        }
        Ok(())
    })
}

/// The lists of a key as JSON, newest first.
pub(super) fn read(db: &Connection, key: &Digest) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached("SELECT paths FROM discovered WHERE key = ?1 ORDER BY noted_ns DESC, list")?
        .query_map([key.0], |row| row.get(0))?
        .collect()
}
