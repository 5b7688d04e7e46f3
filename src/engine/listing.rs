//! What expansion may see of the workspace: directories, published paths, the environment.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::certificate::{self, Asked};
use super::listed::Listed;
use crate::base::files::Stat;
use crate::error::{Error, Result};
use crate::graph::{Entry, Listing};

/// The real file system below a workspace root.
pub(super) struct Disk {
    root: PathBuf,
    /// The cache directory relative to the root, if it lies inside.
    cache: Option<String>,
    /// Paths that an earlier run published for a step of one of this graph's files.
    published: HashSet<String>,
    asked: RefCell<Asked>,
    /// Directories that were read: many patterns may begin in one.
    listed: RefCell<HashMap<String, Arc<[Entry]>>>,
    /// Directories that are as they were when they were read earlier.
    known: HashMap<String, (Stat, Arc<[Entry]>)>,
    /// What keeps a pattern from knowing its files, with a hint.
    odd: RefCell<Vec<(String, &'static str)>>,
}

impl Disk {
    pub(super) fn new(root: &Path, cache: &Path, published: HashSet<String>) -> Self {
        let cache = cache.strip_prefix(root).ok().map(|path| path.to_string_lossy().into_owned());
        Self {
            root: root.to_owned(),
            cache,
            published,
            asked: RefCell::default(),
            listed: RefCell::default(),
            known: HashMap::new(),
            odd: RefCell::default(),
        }
    }

    /// These directories need not be read: their stat is that of then.
    pub(super) fn knowing(self, known: HashMap<String, (Stat, Arc<[Entry]>)>) -> Self {
        Self { known, ..self }
    }

    /// Everything that was asked of it, and what it read. An error if a directory that a pattern listed cannot be read, or has a name that cannot be recorded.
    pub(super) fn into_asked(self) -> Result<(Asked, Listed)> {
        if let Some((what, hint)) = self.odd.into_inner().first() {
            return Err(Error::environment(format!("a pattern lists {what}")).hint(*hint));
        }
        Ok((self.asked.into_inner(), Listed::new(&self.listed.into_inner())))
    }

    fn absolute(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Notes what was found, and says it.
    fn found(&self, dir: &str, found: Found) -> Arc<[Entry]> {
        let Found { stat, entries, odd } = found;
        let mut asked = self.asked.borrow_mut();
        asked.dirs.insert(dir.to_owned(), stat);
        // what a link leads to may come without a change of the directory
        for entry in entries.iter().filter(|entry| entry.link && !entry.there) {
            let path = crate::graph::join(dir, &entry.name);
            asked.files.insert(path.clone(), false);
            asked.is_dir.insert(path, false);
        }
        drop(asked);
        self.odd.borrow_mut().extend(odd);
        self.listed.borrow_mut().insert(dir.to_owned(), Arc::clone(&entries));
        entries
    }
}

/// A directory as it was read.
struct Found {
    stat: Option<Stat>,
    entries: Arc<[Entry]>,
    odd: Vec<(String, &'static str)>,
}

/// What a directory holds, by what is known or by reading `place`.
fn read(dir: &str, place: &Path, known: &HashMap<String, (Stat, Arc<[Entry]>)>) -> Found {
    let mut odd = Vec::new();
    if let Some((stat, entries)) = known.get(dir) {
        return Found { stat: Some(*stat), entries: Arc::clone(entries), odd };
    }
    // the stat comes first: what changes while the directory is read makes it differ later
    let stat = Stat::following(place).ok();
    let entries = match std::fs::read_dir(place) {
        Ok(entries) => entries,
        Err(e) => {
            if e.kind() == ErrorKind::PermissionDenied {
                odd.push((
                    format!("{dir}, which cannot be read: permission denied"),
                    "give the right to read it, or let the pattern begin in another directory",
                ));
            }
            return Found { stat, entries: Arc::default(), odd };
        }
    };
    let entry = |entry: std::fs::DirEntry| {
        let name = match entry.file_name().into_string() {
            Ok(name) => name,
            Err(name) => {
                odd.push((
                    format!("{dir}/{}, whose name is not UTF-8", name.display()),
                    "rename it, or let the pattern begin in another directory",
                ));
                return None;
            }
        };
        let kind = entry.file_type().ok()?;
        // where it leads
        let kind_there = if kind.is_symlink() {
            entry.path().metadata().map(|meta| meta.file_type()).ok()
        } else {
            Some(kind)
        };
        let dir = kind_there.is_some_and(|kind| kind.is_dir());
        let there = dir || kind_there.is_some_and(|kind| kind.is_file());
        Some(Entry { name, dir, link: kind.is_symlink(), there })
    };
    let entries = entries.flatten().filter_map(entry).collect();
    Found { stat, entries, odd }
}

impl Listing for Disk {
    fn list(&self, dir: &str) -> Arc<[Entry]> {
        if let Some(entries) = self.listed.borrow().get(dir) {
            return Arc::clone(entries);
        }
        self.found(dir, read(dir, &self.absolute(dir), &self.known))
    }

    fn list_all(&self, dirs: &[String]) -> Vec<Arc<[Entry]>> {
        let unread: Vec<&String> = {
            let listed = self.listed.borrow();
            dirs.iter().filter(|dir| !listed.contains_key(*dir)).collect()
        };
        if unread.len() > 1 {
            let (root, known) = (&self.root, &self.known);
            let found: Vec<Found> = unread.par_iter().map(|dir| read(dir, &root.join(dir), known)).collect();
            for (dir, found) in unread.into_iter().zip(found) {
                self.found(dir, found);
            }
        }
        dirs.iter().map(|dir| self.list(dir)).collect()
    }

    fn is_file(&self, path: &str) -> bool {
        let there = self.absolute(path).is_file();
        self.asked.borrow_mut().files.insert(path.to_owned(), there);
        there
    }

    fn is_dir(&self, path: &str) -> bool {
        let there = self.absolute(path).is_dir();
        self.asked.borrow_mut().is_dir.insert(path.to_owned(), there);
        there
    }

    fn published(&self, path: &str) -> bool {
        // those are relative to the root, and what lies in a published directory was published with it
        !path.starts_with('/')
            && std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(parent, _)| parent))
                .any(|path| self.published.contains(path))
    }

    fn env(&self, name: &str) -> Option<String> {
        self.asked.borrow_mut().env.insert(name.to_owned(), certificate::environment(name));
        std::env::var(name).ok()
    }

    fn hidden(&self, path: &str) -> bool {
        let under =
            |dir: &str| path == dir || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        under(".flow")
            || (path.contains(".git") && path.split('/').any(|part| part == ".git"))
            || self.cache.as_deref().is_some_and(under)
    }
}
