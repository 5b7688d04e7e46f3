//! `index.db`: results by key, and the blobs of a few KiB. Unaware of blob files and workspaces.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use super::generation::Generation;
use super::objects::NOTED_EVERY;
use super::record::ResultRecord;
use super::writer::{self, Writer};
use super::{db, discovered, pack};
use crate::base::clock::now_ns;
use crate::base::digest::Digest;
use crate::base::failpoint;
use crate::{Error, Result};

pub(super) const SCHEMA: db::Schema = db::Schema {
    migrations: &["CREATE TABLE format (digest_function TEXT NOT NULL);
        INSERT INTO format VALUES ('blake3');
        CREATE TABLE results (key BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
        CREATE TABLE small (digest BLOB PRIMARY KEY, packed BLOB NOT NULL, used_ns INTEGER NOT NULL) WITHOUT ROWID;",
        discovered::TABLE,
        "-- records are sealed: see Index::seal"],
    newer_hint: "use the flow that made this cache or a newer one, or another cache with --cache DIR",
};

/// The digest function of the whole cache, as its index names it.
const DIGEST_FUNCTION: &str = "blake3";

/// The file in the cache directory.
pub(super) const FILE: &str = "index.db";

/// Begins a sealed record; an older one begins as JSON or as a zstd frame does.
const SEALED: u8 = 1;

/// Bytes of a seal.
const SEAL: usize = 8;

/// As many results are looked up one by one before the whole table is read.
const BEFORE_SCAN: u32 = 32;

/// A result as it is held: decoded when it is first asked for.
enum Held {
    Packed(Box<[u8]>),
    Ready(Arc<ResultRecord>),
}

#[derive(Default)]
struct Results {
    asked: u32,
    scanned: bool,
    /// Few of many are asked for: each is read by itself.
    few: bool,
    /// What [`Generation::others`] said before the scan.
    others: Option<u64>,
    held: HashMap<Digest, Held>,
}

/// Small blobs that the writer has not committed yet.
type Pending = Arc<Mutex<HashMap<Digest, Arc<[u8]>>>>;

/// A small blob as `gc`, `verify` and `stats` see it.
pub(super) struct ListedSmall {
    pub(super) digest: Digest,
    /// Bytes in the index.
    pub(super) bytes: u64,
    /// When it was last made or used, ns since 1970.
    pub(super) used_ns: i64,
}

/// All results of an index.
pub(super) struct Rows {
    /// By key.
    pub(super) whole: Vec<(Digest, ResultRecord)>,
    /// Keys of those that are damaged.
    pub(super) damaged: Vec<Digest>,
}

/// The index, open.
pub(super) struct Index {
    path: PathBuf,
    reader: Mutex<Connection>,
    writer: Writer,
    results: Mutex<Results>,
    pending: Pending,
    generation: Arc<Generation>,
    /// Noted by this process: seen before they are committed.
    discovered: Mutex<HashMap<Digest, discovered::Lists>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let path = cache.join(FILE);
        let (reader, writer) = writer::open(&path, &SCHEMA)?;
        let generation = Arc::new(Generation::open(cache)?);
        let index = Self {
            path,
            reader,
            writer,
            results: Mutex::default(),
            pending: Arc::new(Mutex::default()),
            generation,
            discovered: Mutex::default(),
        };
        let function: String =
            index.read(|db| db.query_row("SELECT digest_function FROM format", [], |row| row.get(0)))?;
        if function != DIGEST_FUNCTION {
            return Err(Error::environment(format!(
                "{} names its blobs by {function}, but this flow by {DIGEST_FUNCTION}",
                index.path.display()
            ))
            .hint(SCHEMA.newer_hint));
        }
        Ok(index)
    }

    /// From now on no scan is worth it: few of many results will be asked for.
    pub(super) fn expect_few(&self) {
        locked(&self.results).few = true;
    }

    /// The result of `key`. The table is read by one scan once a few were asked for; a miss asks the table again, since another
    /// run may have added it.
    pub(super) fn result(&self, key: &Digest) -> Result<Option<Arc<ResultRecord>>> {
        self.result_by(key, true)
    }

    /// The same; but what another run added after the scan may be missed.
    pub(super) fn result_at_first(&self, key: &Digest) -> Result<Option<Arc<ResultRecord>>> {
        self.result_by(key, false)
    }

    fn result_by(&self, key: &Digest, again: bool) -> Result<Option<Arc<ResultRecord>>> {
        let mut results = locked(&self.results);
        results.asked = results.asked.saturating_add(1);
        if !results.scanned && !results.few && results.asked > BEFORE_SCAN {
            self.scan(&mut results)?;
        }
        let packed = match results.held.get(key) {
            Some(Held::Ready(record)) => return Ok(Some(Arc::clone(record))),
            Some(Held::Packed(bytes)) => bytes.to_vec(),
            None if results.scanned && !(again && self.others_added(&results)) => return Ok(None),
            None => match self.result_row(key)? {
                Some(bytes) => bytes,
                None => return Ok(None),
            },
        };
        // what is damaged counts as none: its node runs again, and the row is replaced
        let Ok(record) = decode(key, &packed).map(Arc::new) else {
            results.held.remove(key);
            return Ok(None);
        };
        results.held.insert(*key, Held::Ready(Arc::clone(&record)));
        Ok(Some(record))
    }

    /// Whether another store may have added results since the scan.
    fn others_added(&self, results: &Results) -> bool {
        results.others.is_none() || results.others != self.generation.others()
    }

    /// Stores results in one transaction and waits until it is committed.
    pub(super) fn put_results(&self, results: &[(Digest, &ResultRecord)]) -> Result<()> {
        if results.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(results.len());
        for (key, record) in results {
            let json =
                serde_json::to_vec(record).map_err(|e| Error::bug(format!("a result has no JSON: {e}")))?;
            let packed = pack::pack(&json).map_err(|e| Error::io("compress a row of", &self.path, e))?;
            rows.push((key.0, seal(key, &packed)));
        }
        // asked for again only by whoever makes the same: it is kept as the table has it
        let held: Vec<(Digest, Held)> =
            rows.iter().map(|(key, row)| (Digest(*key), Held::Packed(row.as_slice().into()))).collect();
        let generation = Arc::clone(&self.generation);
        self.writer.run(Box::new(move |db| {
            generation.raise().map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            let mut insert = db.prepare_cached("INSERT OR REPLACE INTO results VALUES (?1, ?2)")?;
            for row in rows {
                insert.execute(row)?;
            }
            Ok(())
        }))?;
        // it was said before: this is for who looked in between
        let _ = self.generation.raise();
        results.iter().for_each(|_| failpoint::hit("result_row"));
        locked(&self.results).held.extend(held);
        Ok(())
    }

    /// Notes which inputs were discovered under a key; committed before any result handed over later.
    pub(super) fn put_discovered(&self, key: &Digest, paths: &[String]) -> Result<()> {
        let json =
            serde_json::to_string(paths).map_err(|e| Error::bug(format!("paths have no JSON: {e}")))?;
        discovered::note(locked(&self.discovered).entry(*key).or_default(), paths.into());
        self.writer.queue(discovered::put(*key, json));
        Ok(())
    }

    /// The lists of inputs that were discovered under a key, newest first.
    pub(super) fn discovered(&self, key: &Digest) -> Result<discovered::Lists> {
        let mut lists = locked(&self.discovered).get(key).cloned().unwrap_or_default();
        for json in self.read(|db| discovered::read(db, key))? {
            // a damaged list counts as none: the node runs again and notes a new one
            let Ok(paths) = serde_json::from_str::<Vec<String>>(&json) else { continue };
            let paths: Arc<[String]> = paths.into();
            if !lists.contains(&paths) {
                lists.push(paths);
            }
        }
        lists.truncate(discovered::KEPT);
        Ok(lists)
    }

    /// All results, by key.
    pub(super) fn results(&self) -> Result<Rows> {
        let rows: Vec<([u8; 32], Vec<u8>)> = self.read(|db| {
            db.prepare_cached("SELECT key, record FROM results ORDER BY key")?
                .query_map([], |row| Ok((row.get(0)?, db::bytes(row, 1)?)))?
                .collect()
        })?;
        let (mut whole, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
        for (key, packed) in rows {
            let key = Digest(key);
            match decode(&key, &packed) {
                Ok(record) => whole.push((key, record)),
                Err(_) => damaged.push(key),
            }
        }
        Ok(Rows { whole, damaged })
    }

    /// Removes results that are damaged, unless they have been replaced since.
    pub(super) fn remove_damaged(&self, keys: Vec<Digest>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.writer.run(Box::new(move |connection| {
            for key in &keys {
                let row: Option<Vec<u8>> = connection
                    .query_row("SELECT record FROM results WHERE key = ?1", [key.0], |row| db::bytes(row, 0))
                    .optional()?;
                if row.is_some_and(|row| decode(key, &row).is_err()) {
                    connection.execute("DELETE FROM results WHERE key = ?1", [key.0])?;
                }
            }
            Ok(())
        }))
    }

    /// How many results there are.
    pub(super) fn count_results(&self) -> Result<u64> {
        let count: i64 =
            self.read(|db| db.query_row("SELECT count(*) FROM results", [], |row| row.get(0)))?;
        Ok(count as u64)
    }

    /// True if this small blob is queued.
    pub(super) fn is_queued(&self, digest: &Digest) -> bool {
        locked(&self.pending).contains_key(digest)
    }

    /// Queues a small blob; it can be read at once, and is committed before any result handed over later.
    pub(super) fn put_small(&self, digest: &Digest, packed: &[u8]) {
        let digest = *digest;
        let packed: Arc<[u8]> = packed.into();
        locked(&self.pending).insert(digest, Arc::clone(&packed));
        let pending = Arc::clone(&self.pending);
        self.writer.queue_then(
            Box::new(move |db| {
                // one that is there already counts as used now; one that is damaged is whole again
                let insert = "INSERT INTO small VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE
                    SET packed = ?2, used_ns = ?3 WHERE packed <> ?2 OR abs(used_ns - ?3) > ?4";
                let often = NOTED_EVERY.as_nanos() as i64;
                db.prepare_cached(insert)?.execute((digest.0, &packed[..], now_ns(), often))?;
                Ok(())
            }),
            Box::new(move |result| {
                if result.is_ok() {
                    locked(&pending).remove(&digest);
                }
            }),
        );
    }

    /// The packed bytes of a small blob; it then counts as used now.
    pub(super) fn small(&self, digest: &Digest) -> Result<Option<Cow<'static, [u8]>>> {
        let found = self.small_untouched(digest)?;
        Ok(found.map(|(packed, used_ns)| {
            self.note_use(digest, used_ns);
            packed
        }))
    }

    /// The packed bytes of a small blob and when it was last used, without using it.
    pub(super) fn small_untouched(&self, digest: &Digest) -> Result<Option<(Cow<'static, [u8]>, i64)>> {
        if let Some(packed) = locked(&self.pending).get(digest) {
            return Ok(Some((Cow::Owned(packed.to_vec()), now_ns())));
        }
        let row: Option<(Vec<u8>, i64)> = self.read(|db| {
            db.prepare_cached("SELECT packed, used_ns FROM small WHERE digest = ?1")?
                .query_row([digest.0], |row| Ok((db::bytes(row, 0)?, row.get(1)?)))
                .optional()
        })?;
        Ok(row.map(|(packed, used_ns)| (Cow::Owned(packed), used_ns)))
    }

    /// True if there is such a small blob; it then counts as used now.
    pub(super) fn has_small(&self, digest: &Digest) -> Result<bool> {
        if locked(&self.pending).contains_key(digest) {
            return Ok(true);
        }
        let used: Option<i64> = self.read(|db| {
            db.prepare_cached("SELECT used_ns FROM small WHERE digest = ?1")?
                .query_row([digest.0], |row| row.get(0))
                .optional()
        })?;
        if let Some(used_ns) = used {
            self.note_use(digest, used_ns);
        }
        Ok(used.is_some())
    }

    /// Removes small blobs, each unless it was used after the moment given with it, and gives their pages back to the file system.
    /// Returns those removed.
    pub(super) fn remove_small(&self, blobs: Vec<(Digest, i64)>) -> Result<Vec<Digest>> {
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        let removed = Arc::new(Mutex::new(Vec::new()));
        let gone = Arc::clone(&removed);
        self.writer.run(Box::new(move |db| {
            let mut delete = db.prepare_cached("DELETE FROM small WHERE digest = ?1 AND used_ns <= ?2")?;
            for (digest, used_ns) in blobs {
                if delete.execute((digest.0, used_ns))? > 0 {
                    locked(&gone).push(digest);
                }
            }
            let mut vacuum = db.prepare("PRAGMA incremental_vacuum")?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        }))?;
        Ok(std::mem::take(&mut *locked(&removed)))
    }

    /// All small blobs, by digest.
    pub(super) fn list_small(&self) -> Result<Vec<ListedSmall>> {
        self.writer.sync()?;
        self.read(|db| {
            db.prepare_cached("SELECT digest, length(packed), used_ns FROM small ORDER BY digest")?
                .query_map([], |row| {
                    let bytes: i64 = row.get(1)?;
                    Ok(ListedSmall { digest: Digest(row.get(0)?), bytes: bytes as u64, used_ns: row.get(2)? })
                })?
                .collect()
        })
    }

    fn note_use(&self, digest: &Digest, used_ns: i64) {
        if is_due(used_ns, now_ns()) {
            self.touch_small(vec![*digest]);
        }
    }

    /// Notes that these were used now, whatever their stamps say; queued.
    pub(super) fn touch_small(&self, digests: Vec<Digest>) {
        let now = now_ns();
        self.writer.queue(Box::new(move |db| {
            let mut update = db.prepare_cached("UPDATE small SET used_ns = ?2 WHERE digest = ?1")?;
            for digest in digests {
                update.execute((digest.0, now))?;
            }
            Ok(())
        }));
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        query(&locked(&self.reader)).map_err(|e| db::failed("read", &self.path, &e))
    }

    fn scan(&self, results: &mut Results) -> Result<()> {
        results.others = self.generation.others();
        self.read(|db| {
            let mut select = db.prepare_cached("SELECT key, record FROM results")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let bytes = db::bytes(row, 1)?;
                results
                    .held
                    .entry(Digest(row.get(0)?))
                    .or_insert_with(|| Held::Packed(bytes.into_boxed_slice()));
            }
            Ok(())
        })?;
        results.scanned = true;
        Ok(())
    }

    fn result_row(&self, key: &Digest) -> Result<Option<Vec<u8>>> {
        self.read(|db| {
            db.prepare_cached("SELECT record FROM results WHERE key = ?1")?
                .query_row([key.0], |row| db::bytes(row, 0))
                .optional()
        })
    }
}

/// Whether the use of something last used at `used_ns` is to be noted; a stamp of the future was made while the clock was wrong.
fn is_due(used_ns: i64, now: i64) -> bool {
    i128::from(now - used_ns).abs() > NOTED_EVERY.as_nanos() as i128
}

/// A record as it is kept: SQLite notices no flipped bit in a row, and an unseen one could name other bytes.
fn seal(key: &Digest, packed: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(1 + SEAL + packed.len());
    sealed.push(SEALED);
    sealed.extend_from_slice(&seal_of(key, packed));
    sealed.extend_from_slice(packed);
    sealed
}

fn seal_of(key: &Digest, packed: &[u8]) -> [u8; SEAL] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key.0).update(packed);
    let mut seal = [0; SEAL];
    seal.copy_from_slice(&hasher.finalize().as_bytes()[..SEAL]);
    seal
}

/// The record of a row; why it is damaged, else.
fn decode(key: &Digest, row: &[u8]) -> Result<ResultRecord, String> {
    let packed = match row.split_first() {
        Some((&SEALED, rest)) => {
            let (seal, packed) = rest.split_at_checked(SEAL).ok_or("it is cut short")?;
            if seal != seal_of(key, packed) {
                return Err("its seal is broken".to_owned());
            }
            packed
        }
        _ => row,
    };
    let json = pack::unpack(Cow::Borrowed(packed)).map_err(|e| e.to_string())?;
    serde_json::from_slice(&json).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RESULT_VERSION;

    #[test]
    fn a_flipped_bit_anywhere_in_a_row_or_a_row_under_another_key_is_noticed() {
        let record = ResultRecord {
            version: RESULT_VERSION,
            node: "n".to_owned(),
            run: "r".to_owned(),
            made_at_ns: 1,
            checked_at_ns: 1,
            seconds: 0.5,
            outputs: Vec::new(),
            record: serde_json::Map::new(),
        };
        for node in ["n".to_owned(), "a long name ".repeat(100)] {
            let json = serde_json::to_vec(&ResultRecord { node, ..record.clone() }).unwrap();
            let key = Digest::of(b"key");
            let row = seal(&key, &pack::pack(&json).unwrap());
            assert!(decode(&key, &row).is_ok());
            assert!(decode(&key, &pack::pack(&json).unwrap()).is_ok(), "a row of version 1");
            assert!(decode(&Digest::of(b"other"), &row).is_err());
            for bit in 0..row.len() * 8 {
                let mut flipped = row.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&key, &flipped).is_err(), "bit {bit}");
            }
            assert!((0..row.len()).all(|cut| decode(&key, &row[..cut]).is_err()));
        }
    }
}
