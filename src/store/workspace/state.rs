//! `state.db` of one workspace: its tables, how they are read, and what is queued for them. Unaware of files.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::super::db;
use super::super::writer::Work;
use super::rows::{HeldNode, NodeSummary, Nodes, Published, PublishedRow};
use super::stat_cache::{Row, StatCache};
use crate::base::digest::Digest;
use crate::base::failpoint;
use crate::{Error, Result};

pub(in crate::store) const SCHEMA: db::Schema = db::Schema {
    migrations: &["CREATE TABLE root (path BLOB NOT NULL);
        CREATE TABLE sessions (id INTEGER PRIMARY KEY, boot TEXT NOT NULL);
        CREATE TABLE stats (path BLOB PRIMARY KEY, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, size INTEGER NOT NULL,
            inode INTEGER NOT NULL, device INTEGER NOT NULL, digest BLOB NOT NULL, hashed_at_ns INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE nodes (workflow TEXT NOT NULL, node TEXT NOT NULL, summary TEXT NOT NULL, manifest BLOB NOT NULL,
            PRIMARY KEY (workflow, node)) WITHOUT ROWID;
        CREATE TABLE published (path TEXT NOT NULL, workflow TEXT NOT NULL, row TEXT NOT NULL,
            PRIMARY KEY (path, workflow)) WITHOUT ROWID;",
        "CREATE TABLE versions (workflow TEXT PRIMARY KEY, versions TEXT NOT NULL) WITHOUT ROWID;"],
    newer_hint: "use the flow that made it or a newer one, or another cache with --cache DIR",
};

/// What may not have reached the disk before a power cut, ns.
const UNSETTLED_NS: i64 = 60_000_000_000;

/// Everything in the tables.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) stats: StatCache,
    pub(super) nodes: Nodes,
    pub(super) published: Published,
    pub(super) versions: Versions,
}

/// Names and versions of what made the results of a root workflow.
pub(super) type Versions = BTreeMap<String, BTreeMap<String, String>>;

/// Notes the root of a new database, and forgets the file stats of the last minute if the machine has been started anew since a
/// session that did not end.
pub(super) fn prepare(root: Vec<u8>, boot: String) -> Work {
    Box::new(move |db| {
        db.execute("INSERT INTO root SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM root)", [root])?;
        if db.execute("DELETE FROM sessions WHERE boot <> ?1", [boot])? > 0 {
            db.execute(
                "DELETE FROM stats WHERE hashed_at_ns >= (SELECT max(hashed_at_ns) FROM stats) - ?1",
                [UNSETTLED_NS],
            )?;
        }
        Ok(())
    })
}

/// The row of one file.
pub(super) fn stat_row(db: &Connection, name: &[u8]) -> rusqlite::Result<Option<Row>> {
    db.prepare_cached(
        "SELECT mtime_ns, ctime_ns, size, inode, device, digest, hashed_at_ns FROM stats WHERE path = ?1",
    )?
    .query_row([name], |row| stat_from(row, 0))
    .optional()
}

/// The rows of everything below the directory `name`.
pub(super) fn stat_rows_below(db: &Connection, name: &[u8]) -> rusqlite::Result<Vec<(Box<[u8]>, Row)>> {
    let (mut first, mut end) = (name.to_vec(), name.to_vec());
    first.push(b'/');
    end.push(b'/' + 1);
    db.prepare_cached(
        "SELECT path, mtime_ns, ctime_ns, size, inode, device, digest, hashed_at_ns FROM stats
         WHERE path >= ?1 AND path < ?2",
    )?
    .query_map([first, end], named_stat)?
    .collect()
}

/// Summary and manifest of one node.
pub(super) fn node_row(
    db: &Connection,
    workflow: &str,
    node: &str,
) -> rusqlite::Result<Option<(String, Vec<u8>)>> {
    db.prepare_cached("SELECT summary, manifest FROM nodes WHERE workflow = ?1 AND node = ?2")?
        .query_row((workflow, node), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// The published rows of one path, as JSON.
pub(super) fn published_rows(db: &Connection, path: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached("SELECT row FROM published WHERE path = ?1")?
        .query_map([path], |row| row.get(0))?
        .collect()
}

/// Reads all tables, each by one scan.
pub(super) fn load(db: &Connection, path: &Path) -> Result<Loaded> {
    let failed = |e: rusqlite::Error| db::failed("read", path, &e);
    let mut nodes = Nodes::new();
    for row in node_rows(db).map_err(failed)? {
        let (workflow, node, summary, manifest) = row;
        let summary: NodeSummary = serde_json::from_str(&summary).map_err(|e| damaged(path, &node, &e))?;
        let held = HeldNode { summary: summary.into(), manifest: manifest.into() };
        match nodes.get_mut(&workflow) {
            Some(of_workflow) => of_workflow.insert(node, held),
            None => nodes.entry(workflow).or_default().insert(node, held),
        };
    }
    let mut published = Published::default();
    for row in read_published(db, path)? {
        published.insert(row);
    }
    let mut versions = Versions::new();
    for (workflow, text) in version_rows(db).map_err(failed)? {
        versions.insert(workflow, serde_json::from_str(&text).map_err(|e| damaged(path, &text, &e))?);
    }
    Ok(Loaded { stats: StatCache::from_sorted(stat_rows(db).map_err(failed)?), nodes, published, versions })
}

/// All published rows.
pub(super) fn read_published(db: &Connection, path: &Path) -> Result<Vec<PublishedRow>> {
    let texts = || -> rusqlite::Result<Vec<String>> {
        db.prepare("SELECT row FROM published ORDER BY path, workflow")?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    texts()
        .map_err(|e| db::failed("read", path, &e))?
        .iter()
        .map(|text| serde_json::from_str(text).map_err(|e| damaged(path, text, &e)))
        .collect()
}

fn damaged(path: &Path, what: &str, cause: &serde_json::Error) -> Error {
    Error::io("read", path, format!("the row of {what} is damaged: {cause}"))
        .hint("move the file away: flow makes a new one, and looks at all files again")
}

type NodeTexts = (String, String, String, Vec<u8>);

fn node_rows(db: &Connection) -> rusqlite::Result<Vec<NodeTexts>> {
    db.prepare("SELECT workflow, node, summary, manifest FROM nodes")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect()
}

fn version_rows(db: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    db.prepare("SELECT workflow, versions FROM versions")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn stat_rows(db: &Connection) -> rusqlite::Result<Vec<(Box<[u8]>, Row)>> {
    db.prepare(
        "SELECT path, mtime_ns, ctime_ns, size, inode, device, digest, hashed_at_ns FROM stats ORDER BY path",
    )?
    .query_map([], named_stat)?
    .collect()
}

fn named_stat(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Box<[u8]>, Row)> {
    let path: Vec<u8> = row.get(0)?;
    Ok((path.into_boxed_slice(), stat_from(row, 1)?))
}

/// A stat row whose columns begin at `first`.
fn stat_from(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Row> {
    Ok(Row {
        mtime_ns: row.get(first)?,
        ctime_ns: row.get(first + 1)?,
        size: row.get::<_, i64>(first + 2)? as u64,
        inode: row.get::<_, i64>(first + 3)? as u64,
        device: row.get::<_, i64>(first + 4)? as u64,
        digest: Digest(row.get(first + 5)?),
        hashed_at_ns: row.get(first + 6)?,
    })
}

pub(super) fn begin_session(id: i64, boot: String) -> Work {
    Box::new(move |db| db.execute("INSERT OR REPLACE INTO sessions VALUES (?1, ?2)", (id, boot)).map(drop))
}

pub(super) fn end_session(id: i64) -> Work {
    Box::new(move |db| db.execute("DELETE FROM sessions WHERE id = ?1", [id]).map(drop))
}

pub(super) fn put_stat(name: &[u8], row: Row) -> Work {
    let name = name.to_vec();
    Box::new(move |db| {
        db.prepare_cached("INSERT OR REPLACE INTO stats VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
            (
                name,
                row.mtime_ns,
                row.ctime_ns,
                row.size as i64,
                row.inode as i64,
                row.device as i64,
                row.digest.0,
                row.hashed_at_ns,
            ),
        )?;
        Ok(())
    })
}

pub(super) fn remove_stat(name: &[u8]) -> Work {
    let name = name.to_vec();
    Box::new(move |db| {
        db.prepare_cached("DELETE FROM stats WHERE path = ?1")?.execute([name])?;
        Ok(())
    })
}

pub(super) fn put_node(workflow: String, node: String, summary: String, manifest: Vec<u8>) -> Work {
    Box::new(move |db| {
        db.prepare_cached("INSERT OR REPLACE INTO nodes VALUES (?1, ?2, ?3, ?4)")?
            .execute((workflow, node, summary, manifest))?;
        failpoint::hit("workspace_row");
        Ok(())
    })
}

pub(super) fn put_versions(workflow: String, versions: String) -> Work {
    Box::new(move |db| {
        db.prepare_cached("INSERT OR REPLACE INTO versions VALUES (?1, ?2)")?
            .execute((workflow, versions))?;
        Ok(())
    })
}

/// Rows as path, workflow and JSON.
pub(super) fn publish(rows: Vec<(String, String, String)>) -> Work {
    Box::new(move |db| {
        let mut insert = db.prepare_cached("INSERT OR REPLACE INTO published VALUES (?1, ?2, ?3)")?;
        for row in rows {
            insert.execute(row)?;
        }
        failpoint::hit("workspace_row");
        Ok(())
    })
}

pub(super) fn unpublish(path: String) -> Work {
    Box::new(move |db| {
        db.prepare_cached("DELETE FROM published WHERE path = ?1")?.execute([path])?;
        Ok(())
    })
}

pub(super) fn unclaim(path: String, workflow: String) -> Work {
    Box::new(move |db| {
        db.prepare_cached("DELETE FROM published WHERE path = ?1 AND workflow = ?2")?
            .execute((path, workflow))?;
        Ok(())
    })
}

/// The root that a database belongs to.
pub(super) fn root_of(db: &Connection) -> rusqlite::Result<Vec<u8>> {
    db.query_row("SELECT path FROM root", [], |row| row.get(0))
}
