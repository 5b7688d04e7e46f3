//! The state of one workspace: what its files hold, what each node did last, what flow published. Unaware of graphs.
//!
//! Everything is held in memory, read by one scan at opening (or row by row, for a run that concerns few nodes); changes are queued to
//! the writer thread and committed in batches.

mod lock;
mod rest;
mod rows;
mod stat_cache;
mod state;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rayon::prelude::*;
use rusqlite::{Connection, OpenFlags};

pub use lock::{LockOutcome, WorkspaceLock};
pub use rows::{NodeRow, NodeSummary, PublishedRow};
pub(super) use state::SCHEMA;

use super::hash::hash_file;
use super::local::Home;
use super::tree::{self, FileContent, Links};
use super::writer::{self, Work, Writer};
use super::{Store, db, pool};
use crate::base::clock::boot_id;
use crate::base::digest::Digest;
use crate::base::files::Stat;
use crate::model::{Artifact, TreeEntryKind};
use crate::{Error, Result};
use rest::Rest;
use rows::{HeldNode, Nodes, Published};
use stat_cache::{Row, StatCache};
use state::Loaded;

const DATABASE: &str = "state.db";

/// A path to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// Absolute.
    pub path: PathBuf,
    /// Also if it is a directory.
    pub tree: bool,
}

/// What is at a path now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// A file or a tree; never absent.
    pub artifact: Artifact,
    /// Of the file or directory itself, links followed.
    pub stat: Stat,
}

/// One workspace, open. Shared by threads. Dropped without [`Workspace::close_clean`], it still commits what is queued.
pub struct Workspace {
    store: Store,
    root: PathBuf,
    dir: PathBuf,
    writer: Writer,
    stats: RwLock<StatCache>,
    nodes: Mutex<Nodes>,
    published: Mutex<Published>,
    /// Rows that are not in memory yet; `None` if all of them are.
    rest: Option<Rest>,
    versions: Mutex<state::Versions>,
    boot: String,
    session: i64,
    in_session: AtomicBool,
}

impl Workspace {
    /// Opens or creates the state of the workspace at `root`.
    pub fn open(store: &Store, root: &Path) -> Result<Self> {
        Self::open_by(store, root, true)
    }

    /// The same, reading each row when it is first asked for: cheaper if few of very many are.
    pub fn open_sparsely(store: &Store, root: &Path) -> Result<Self> {
        Self::open_by(store, root, false)
    }

    fn open_by(store: &Store, root: &Path, whole: bool) -> Result<Self> {
        let root = std::fs::canonicalize(root).map_err(|e| Error::io("open the workspace", root, e))?;
        let name = root.as_os_str().as_bytes();
        let dir = store.dir().join("workspaces").join(Digest::of(name).hex());
        std::fs::create_dir_all(&dir).map_err(|e| Error::io("make the directory", &dir, e))?;
        let path = dir.join(DATABASE);
        let (reader, writer) = writer::open(&path, &state::SCHEMA)?;
        let boot = boot_id();
        writer.run(state::prepare(name.to_vec(), boot.clone()))?;
        let (loaded, rest) = if whole {
            let reader = reader.into_inner().unwrap_or_else(PoisonError::into_inner);
            (state::load(&reader, &path)?, None)
        } else {
            (Loaded::default(), Some(Rest::new(reader, &path)))
        };
        Ok(Self {
            store: store.clone(),
            root,
            dir,
            writer,
            stats: RwLock::new(loaded.stats),
            nodes: Mutex::new(loaded.nodes),
            published: Mutex::new(loaded.published),
            rest,
            versions: Mutex::new(loaded.versions),
            boot,
            session: fastrand::i64(..),
            in_session: AtomicBool::new(false),
        })
    }

    /// What results that stand in it only are found by.
    pub(super) fn home(&self) -> Home {
        Home::new(Digest::of(self.root.as_os_str().as_bytes()), &self.dir)
    }

    /// The root directory, absolute and without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where this workspace's state is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the right to write in the workspace at `root`, if nobody has it. No file is written.
    pub fn try_lock(root: &Path) -> Result<LockOutcome> {
        lock::try_lock(root)
    }

    /// Waits for the right to write. `waiting` is called when the wait begins, and again when the holder is another one, with its
    /// pid where the system tells it. `None` if `cancelled` says so.
    pub fn lock(
        root: &Path,
        waiting: &mut dyn FnMut(Option<u32>),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<WorkspaceLock>> {
        lock::lock(root, waiting, cancelled)
    }

    /// What is at the absolute `path`; `None` if nothing is. Links are followed. A directory has the digest that
    /// [`Store::put_tree`] would give it; nothing is stored.
    pub fn content(&self, path: &Path) -> Result<Option<Content>> {
        self.content_by(path, Links::Recorded, &|_| false)
    }

    /// The same for a path that no node makes: in a directory, links stand for what they lead to, and the paths that `skip` names
    /// are left out. Its digest is for keys; it names no tree object.
    pub fn source_content(&self, path: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<Option<Content>> {
        self.content_by(path, Links::Followed, skip)
    }

    fn content_by(&self, path: &Path, links: Links, skip: &dyn Fn(&Path) -> bool) -> Result<Option<Content>> {
        self.content_or(path, |stat| {
            let (artifact, _) =
                tree::describe_by(path, links, skip, |file, stat| self.file_content(file, stat))?;
            Ok(Some(Content { artifact, stat }))
        })
    }

    /// What a file holds; of a directory what `directory` says.
    fn content_or(
        &self,
        path: &Path,
        directory: impl FnOnce(Stat) -> Result<Option<Content>>,
    ) -> Result<Option<Content>> {
        let stat = match Stat::following(path) {
            Ok(stat) => stat,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.drop_row(path);
                return Ok(None);
            }
            Err(e) => return Err(Error::io("read", path, e)),
        };
        if stat.is_dir() {
            return directory(stat);
        }
        if !is_file(&stat) {
            return Err(tree::not_content(path));
        }
        let (FileContent { digest, size, exec }, stat) = self.hashed(path, stat)?;
        Ok(Some(Content { artifact: Artifact::File { digest, size, exec }, stat }))
    }

    /// [`Workspace::content`] of many paths, in parallel; results in the order of `paths`. A directory that is no [`Look::tree`]
    /// is not looked into: nothing is said of it.
    pub fn contents(&self, looks: &[Look]) -> Vec<Result<Option<Content>>> {
        let look = |look: &Look| match look.tree {
            true => self.content(&look.path),
            false => self.content_or(&look.path, |_| Err(Error::environment("a directory"))),
        };
        match looks {
            [] => Vec::new(),
            [one] => vec![look(one)],
            _ => pool::install(|| looks.par_iter().map(look).collect()),
        }
    }

    /// Forgets what is known of the content of `path` and of everything below it.
    pub fn forget(&self, path: &Path) {
        let name = stat_cache::name(&self.root, path);
        let mut stats = self.stats.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = &self.rest {
            stats.fill(name, rest.stat(name));
            for (below, row) in rest.stats_below(name) {
                stats.fill(&below, Some(row));
            }
        }
        for name in stats.remove_below(name) {
            self.writer.queue(state::remove_stat(&name));
        }
    }

    /// Forgets what is known of the content of a file.
    pub fn forget_file(&self, path: &Path) {
        self.drop_row(path);
    }

    /// Notes the content that flow itself put at `path`: `stat` as it is now, `hashed_at_ns` a moment before its bytes were read to
    /// be hashed. What has changed its time stamps since then, or shortly before, is hashed again when it is asked for.
    pub fn remember(&self, path: &Path, stat: Stat, artifact: &Artifact, hashed_at_ns: i64) {
        match artifact {
            Artifact::Absent => self.drop_row(path),
            Artifact::File { digest, size, .. } => {
                self.note(path, (stat.size == *size).then_some(&stat), *digest, hashed_at_ns);
            }
            Artifact::Tree { digest, .. } => {
                // Without the tree object its files are hashed when they are asked for.
                let Ok(Some(entries)) = self.store.tree(digest) else { return self.forget(path) };
                for entry in entries {
                    if let TreeEntryKind::File { digest, size, .. } = entry.kind {
                        let path = path.join(&entry.path);
                        let stat = Stat::of(&path).ok().filter(|stat| is_file(stat) && stat.size == size);
                        self.note(&path, stat.as_ref(), digest, hashed_at_ns);
                    }
                }
            }
        }
    }

    /// The last success of a node of a root workflow. A row that cannot be read counts as none.
    pub fn node(&self, workflow: &str, node: &str) -> Option<Arc<NodeRow>> {
        self.held_node(workflow, node, |held| held.row().ok().map(Arc::new))?
    }

    /// As [`Workspace::node`], without the manifest and the time it takes to unpack it.
    pub fn node_summary(&self, workflow: &str, node: &str) -> Option<Arc<NodeSummary>> {
        self.held_node(workflow, node, |held| Arc::clone(&held.summary))
    }

    fn held_node<T>(&self, workflow: &str, node: &str, look: impl FnOnce(&HeldNode) -> T) -> Option<T> {
        let mut nodes = locked(&self.nodes);
        if let Some(held) = nodes.get(workflow).and_then(|of_workflow| of_workflow.get(node)) {
            return Some(look(held));
        }
        let held = self.rest.as_ref()?.node(workflow, node)?;
        let found = look(&held);
        nodes.entry(workflow.to_owned()).or_default().insert(node.to_owned(), held);
        Some(found)
    }

    /// Notes the last success of a node; queued.
    pub fn put_node(&self, workflow: &str, node: &str, row: NodeRow) {
        // Lists of texts and finite numbers always have JSON and compress.
        let Ok(held) = HeldNode::new(row) else { return };
        let Ok(summary) = serde_json::to_string(&*held.summary) else { return };
        let manifest = held.manifest.to_vec();
        let mut nodes = locked(&self.nodes);
        nodes.entry(workflow.to_owned()).or_default().insert(node.to_owned(), held);
        // Queued under the lock, so that rows reach the table in the order in which they are seen here.
        self.writer.queue(state::put_node(workflow.to_owned(), node.to_owned(), summary, manifest));
    }

    /// Whether rows are read only when they are asked for.
    pub fn is_sparse(&self) -> bool {
        self.rest.is_some()
    }

    /// Whether any success of a root workflow's nodes is known; not for a sparse one.
    pub fn has_nodes(&self, workflow: &str) -> bool {
        locked(&self.nodes).get(workflow).is_some_and(|nodes| !nodes.is_empty())
    }

    /// What made the results of a root workflow: names and versions, as they were last noted; not for a sparse one.
    pub fn versions(&self, workflow: &str) -> Option<BTreeMap<String, String>> {
        locked(&self.versions).get(workflow).cloned()
    }

    /// Notes what made them; queued.
    pub fn put_versions(&self, workflow: &str, versions: BTreeMap<String, String>) {
        // texts always have JSON
        let Ok(text) = serde_json::to_string(&versions) else { return };
        locked(&self.versions).insert(workflow.to_owned(), versions);
        self.writer.queue(state::put_versions(workflow.to_owned(), text));
    }

    /// Reads what was published, as far as it is not in memory yet. An error if it cannot be read.
    pub fn read_published(&self) -> Result<()> {
        let mut published = locked(&self.published);
        if let Some(rest) = self.rest.as_ref().filter(|_| !published.is_whole()) {
            let mut read: BTreeMap<String, Vec<PublishedRow>> = BTreeMap::new();
            for row in rest.all_published()? {
                read.entry(row.path.clone()).or_default().push(row);
            }
            published.fill_all(read);
        }
        Ok(())
    }

    /// Everything that flow has published here, by path, then by root workflow.
    pub fn published(&self) -> Vec<PublishedRow> {
        // rows that cannot be read count as none
        let _ = self.read_published();
        locked(&self.published).all()
    }

    /// The published rows, with those of `path` among them.
    fn published_at(&self, path: &str) -> MutexGuard<'_, Published> {
        let mut published = locked(&self.published);
        if let Some(rest) = &self.rest {
            published.fill(path, || rest.published(path));
        }
        published
    }

    /// Whether flow has published `path`, for whichever workflow.
    pub fn published_path(&self, path: &str) -> bool {
        self.published_at(path).of(path).next().is_some()
    }

    /// Whether flow has published exactly this at `path`.
    pub fn published_as(&self, path: &str, artifact: &Artifact) -> bool {
        self.published_at(path).of(path).any(|row| row.artifact == *artifact)
    }

    /// What flow has published at `path`, by root workflow.
    pub fn published_artifacts(&self, path: &str) -> Vec<Artifact> {
        self.published_at(path).of(path).map(|row| row.artifact.clone()).collect()
    }

    /// Notes what was published; queued. A row replaces that of the same path and root workflow.
    pub fn publish(&self, rows: Vec<PublishedRow>) {
        let texts: Vec<_> = rows
            .iter()
            .filter_map(|row| {
                Some((row.path.clone(), row.workflow.clone(), serde_json::to_string(row).ok()?))
            })
            .collect();
        let mut published = locked(&self.published);
        for row in rows {
            if let Some(rest) = &self.rest {
                published.fill(&row.path, || rest.published(&row.path));
            }
            published.insert(row);
        }
        self.writer.queue(state::publish(texts));
    }

    /// Forgets that `path` was published, by whichever workflow; queued.
    pub fn unpublish(&self, path: &str) {
        let mut published = self.published_at(path);
        published.remove(path);
        self.writer.queue(state::unpublish(path.to_owned()));
    }

    /// Forgets that the root workflow `workflow` published `path`; queued.
    pub fn unclaim(&self, path: &str, workflow: &str) {
        let mut published = self.published_at(path);
        published.remove_one(path, workflow);
        self.writer.queue(state::unclaim(path.to_owned(), workflow.to_owned()));
    }

    /// Waits until everything queued is committed; the error is that of the first thing that could not be.
    pub fn sync(&self) -> Result<()> {
        self.writer.sync()
    }

    /// Waits as [`Workspace::sync`] does, and notes that this session ended: rows it wrote are trusted after the next boot.
    pub fn close_clean(&self) -> Result<()> {
        if self.in_session.swap(false, Ordering::AcqRel) {
            self.writer.queue(state::end_session(self.session));
        }
        self.writer.sync()
    }

    fn file_content(&self, path: &Path, stat: Stat) -> Result<FileContent> {
        self.hashed(path, stat).map(|(content, _)| content)
    }

    /// The content of a file by the stat cache, else by hashing it; with the stat that goes with it.
    fn hashed(&self, path: &Path, stat: Stat) -> Result<(FileContent, Stat)> {
        let name = stat_cache::name(&self.root, path);
        let known = self.stat_row(name);
        if let Some(digest) = known.and_then(|row| row.digest_for(&stat)) {
            return Ok((FileContent { digest, size: stat.size, exec: stat.executable() }, stat));
        }
        let hashed = hash_file(path).map_err(|e| Error::io("read", path, e))?.ok_or_else(|| {
            Error::step(format!("{} keeps changing while it is read", path.display()))
                .hint("does another process still write to it?")
        })?;
        self.note(path, Some(&hashed.stat), hashed.digest, hashed.began_ns);
        let stat = hashed.stat;
        Ok((FileContent { digest: hashed.digest, size: stat.size, exec: stat.executable() }, stat))
    }

    fn stat_row(&self, name: &[u8]) -> Option<Row> {
        let held = self.stats.read().unwrap_or_else(PoisonError::into_inner).get(name);
        match (held, &self.rest) {
            (Some(row), _) => row,
            (None, None) => None,
            (None, Some(rest)) => {
                let read = rest.stat(name);
                self.stats.write().unwrap_or_else(PoisonError::into_inner).fill(name, read)
            }
        }
    }

    /// Puts a row, or removes the old one where a new one would never be trusted.
    fn note(&self, path: &Path, stat: Option<&Stat>, digest: Digest, hashed_at_ns: i64) {
        let Some(row) = stat.and_then(|stat| Row::new(stat, digest, hashed_at_ns)) else {
            return self.drop_row(path);
        };
        let name = stat_cache::name(&self.root, path);
        let mut stats = self.stats.write().unwrap_or_else(PoisonError::into_inner);
        stats.insert(name, Some(row));
        self.queue_stat(state::put_stat(name, row));
    }

    fn drop_row(&self, path: &Path) {
        let name = stat_cache::name(&self.root, path);
        if self.stat_row(name).is_none() {
            return;
        }
        let mut stats = self.stats.write().unwrap_or_else(PoisonError::into_inner);
        if stats.remove(name) {
            self.writer.queue(state::remove_stat(name));
        }
    }

    fn queue_stat(&self, work: Work) {
        if !self.in_session.swap(true, Ordering::AcqRel) {
            self.writer.queue(state::begin_session(self.session, self.boot.clone()));
        }
        self.writer.queue(work);
    }
}

/// The databases of all workspaces of a cache.
pub(super) fn databases(cache: &Path) -> Result<Vec<PathBuf>> {
    let dir = cache.join("workspaces");
    let failed = |e| Error::io("list the workspaces in", &dir, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        found.push(entry.map_err(failed)?.path().join(DATABASE));
    }
    found.sort();
    Ok(found)
}

/// What is published in all workspaces of a cache whose roots still exist. A state that cannot be read is an error: what it says
/// must not count as nothing.
pub(super) fn published_anywhere(store: &Store) -> Result<Vec<Artifact>> {
    let mut artifacts = Vec::new();
    for path in databases(store.dir())?.into_iter().filter(|path| path.is_file()) {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags).map_err(|e| db::failed("open", &path, &e))?;
        let version = db::version(&db).map_err(|e| db::failed("read", &path, &e))?;
        if version > SCHEMA.version() {
            return Err(db::newer(&path, version, &SCHEMA));
        }
        let root = match state::root_of(&db) {
            Ok(root) => root,
            Err(e) if db::is_damage(&e) => return Err(db::failed("read", &path, &e)),
            // a database that was never filled has no root
            Err(_) => continue,
        };
        if Path::new(&OsString::from_vec(root)).is_dir() {
            let rows = state::read_published(&db, &path)?;
            artifacts.extend(rows.into_iter().map(|row| row.artifact));
        }
    }
    Ok(artifacts)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_file(stat: &Stat) -> bool {
    stat.mode & 0o170_000 == 0o100_000
}

#[cfg(test)]
mod tests;
