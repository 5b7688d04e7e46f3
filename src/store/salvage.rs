//! A damaged database made anew from the rows that can still be read. Unaware of what they mean.
//!
//! The damaged file is kept beside the new one, under a name that ends in `.damaged-N`: nothing is thrown away.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::{db, index, lock_file, place, workspace};
use crate::{Error, Result};

/// A database that was made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// The file, relative to the cache directory.
    pub file: String,
    /// Where the damaged one lies now, likewise.
    pub kept_as: String,
    /// Rows that could be read and are in the new file.
    pub rows: u64,
    /// What was wrong.
    pub fault: String,
}

/// Makes the index and the workspace states of `cache` anew where SQLite finds them damaged. Nobody else may be using the cache; a
/// file of a newer version is refused and not touched.
pub fn rebuild_damaged(cache: &Path) -> Result<Vec<Rebuilt>> {
    let cache = place::prepare(cache)?;
    let gate = alone(&cache)?;
    let mut rebuilt = Vec::new();
    for (path, schema) in databases(&cache)? {
        if let Some(fault) = fault_of(&path, schema)? {
            rebuilt.push(rebuild(&cache, &path, schema, fault)?);
        }
    }
    drop(gate);
    Ok(rebuilt)
}

fn alone(cache: &Path) -> Result<File> {
    let path = cache.join("gc.lock");
    let gate = lock_file(&path)?;
    gate.try_lock().map_err(|_| {
        Error::environment(format!("another process is using the cache {}", cache.display()))
            .hint("a database can be repaired only when nobody uses it: run this again when the other flow has ended")
    })?;
    Ok(gate)
}

/// Every database of a cache with its tables.
pub(super) fn databases(cache: &Path) -> Result<Vec<(PathBuf, &'static db::Schema)>> {
    let mut found = vec![(cache.join(index::FILE), &index::SCHEMA)];
    found.extend(workspace::databases(cache)?.into_iter().map(|path| (path, &workspace::SCHEMA)));
    found.retain(|(path, _)| path.is_file());
    Ok(found)
}

/// What is wrong with a database; an error if that cannot be told, as of a file of a newer version.
pub(super) fn fault_of(path: &Path, schema: &db::Schema) -> Result<Option<String>> {
    let look = || -> rusqlite::Result<(i64, Vec<String>)> {
        let db = existing(path)?;
        Ok((db::version(&db)?, db::faults(&db)?))
    };
    match look() {
        Ok((found, _)) if found > schema.version() => Err(db::newer(path, found, schema)),
        Ok((_, faults)) if faults.is_empty() => Ok(None),
        Ok((_, faults)) => Ok(Some(faults.join("; "))),
        Err(e) if db::is_damage(&e) => Ok(Some(e.to_string())),
        Err(e) => Err(db::failed("read", path, &e)),
    }
}

fn existing(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

fn rebuild(cache: &Path, path: &Path, schema: &db::Schema, fault: String) -> Result<Rebuilt> {
    let failed = |e: rusqlite::Error| db::failed("rebuild", path, &e);
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
    let new_path = beside(".rebuilt");
    for ending in [".rebuilt", ".rebuilt-wal", ".rebuilt-shm"] {
        crate::base::files::remove_any(&beside(ending))
            .map_err(|e| Error::io("remove", &beside(ending), e))?;
    }
    let mut new = db::open(&new_path, schema)?;
    let mut rows = 0;
    if let Ok(old) = existing(path) {
        for table in tables(&new).map_err(failed)? {
            rows += copy(&old, &mut new, &table).map_err(failed)?;
        }
    }
    // the last connection to be closed brings everything into the one file
    new.close().map_err(|(_, e)| failed(e))?;
    let number = (1..).find(|n| !beside(&format!(".damaged-{n}")).exists()).unwrap_or(1);
    let kept = beside(&format!(".damaged-{number}"));
    let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| Error::io("rename", from, e));
    // its log goes first: beside the new file it would be taken for the log of that one
    for ending in ["-wal", "-shm"] {
        if beside(ending).exists() {
            rename(&beside(ending), &PathBuf::from(format!("{}{ending}", kept.display())))?;
        }
    }
    rename(path, &kept)?;
    rename(&new_path, path)?;
    let shown = |path: &Path| path.strip_prefix(cache).unwrap_or(path).to_string_lossy().into_owned();
    Ok(Rebuilt { file: shown(path), kept_as: shown(&kept), rows, fault })
}

struct Table {
    name: String,
    columns: Vec<String>,
    /// The columns of its key, in order.
    key: Vec<String>,
}

/// The tables of a new database that hold nothing yet.
fn tables(db: &Connection) -> rusqlite::Result<Vec<Table>> {
    let names: Vec<String> = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut tables = Vec::new();
    for name in names {
        let filled: bool =
            db.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {name})"), [], |row| row.get(0))?;
        if filled {
            continue;
        }
        let columns: Vec<(String, i64)> = db
            .prepare(&format!("SELECT name, pk FROM pragma_table_info('{name}') ORDER BY cid"))?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let mut key: Vec<(i64, String)> =
            columns.iter().filter(|(_, pk)| *pk > 0).map(|(name, pk)| (*pk, name.clone())).collect();
        key.sort();
        tables.push(Table {
            name,
            columns: columns.into_iter().map(|(name, _)| name).collect(),
            key: key.into_iter().map(|(_, name)| name).collect(),
        });
    }
    Ok(tables)
}

/// Copies what can be read from the front, then, where that ended early, from the back. Returns the number of rows.
fn copy(old: &Connection, new: &mut Connection, table: &Table) -> rusqlite::Result<u64> {
    let work = new.transaction()?;
    let places = vec!["?"; table.columns.len()].join(", ");
    let columns = table.columns.join(", ");
    let mut count = 0;
    for direction in ["ASC", "DESC"] {
        let order: Vec<String> = table.key.iter().map(|column| format!("{column} {direction}")).collect();
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
        let mut insert =
            work.prepare(&format!("INSERT OR IGNORE INTO {} ({columns}) VALUES ({places})", table.name))?;
        let read = || -> rusqlite::Result<()> {
            let mut select = old.prepare(&format!("SELECT {columns} FROM {}{order}", table.name))?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let values: Vec<Value> =
                    (0..table.columns.len()).map(|column| row.get(column)).collect::<Result<_, _>>()?;
                // a value that the new table refuses was damaged
                count += insert.execute(rusqlite::params_from_iter(values)).unwrap_or(0) as u64;
            }
            Ok(())
        };
        // the damage ends the reading from this side
        if { read }().is_ok() || order.is_empty() {
            break;
        }
    }
    work.commit()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_on_both_sides_of_a_damaged_page_are_kept_and_so_is_the_damaged_file() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        fs::create_dir(&cache).unwrap();
        let path = cache.join(index::FILE);
        let db = db::open(&path, &index::SCHEMA).unwrap();
        for n in 0..4000u32 {
            let key = *blake3::hash(&n.to_le_bytes()).as_bytes();
            db.execute("INSERT INTO results VALUES (?1, ?2)", (key, vec![7u8; 200])).unwrap();
        }
        db.close().unwrap();
        assert_eq!(rebuild_damaged(&cache).unwrap(), []);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xFF);
        fs::write(&path, &bytes).unwrap();
        let rebuilt = rebuild_damaged(&cache).unwrap();
        assert_eq!(rebuilt.len(), 1);
        assert_eq!(
            (rebuilt[0].file.as_str(), rebuilt[0].kept_as.as_str()),
            ("index.db", "index.db.damaged-1")
        );
        assert!((2000..4000).contains(&rebuilt[0].rows), "{rebuilt:?}");
        assert!(fs::read(cache.join("index.db.damaged-1")).unwrap() == bytes);
        let db = db::open(&path, &index::SCHEMA).unwrap();
        let rows: i64 = db.query_row("SELECT count(*) FROM results", [], |row| row.get(0)).unwrap();
        assert_eq!(rows as u64, rebuilt[0].rows);
        assert_eq!(rebuild_damaged(&cache).unwrap(), []);
    }
}
