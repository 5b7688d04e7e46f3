//! What expansion may see of the workspace: directories, published paths, the environment.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::certificate::{self, Asked};
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
    listed: RefCell<HashMap<String, Rc<[Entry]>>>,
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
            odd: RefCell::default(),
        }
    }

    /// Everything that was asked of it. An error if a directory that a pattern listed cannot be read, or has a name that cannot be recorded.
    pub(super) fn into_asked(self) -> Result<Asked> {
        if let Some((what, hint)) = self.odd.into_inner().first() {
            return Err(Error::environment(format!("a pattern lists {what}")).hint(*hint));
        }
        Ok(self.asked.into_inner())
    }

    fn absolute(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn read(&self, dir: &str) -> Vec<Entry> {
        // the stat comes first: what changes while the directory is read makes it differ later
        let stat = Stat::following(&self.absolute(dir)).ok();
        self.asked.borrow_mut().dirs.insert(dir.to_owned(), stat);
        let entries = match std::fs::read_dir(self.absolute(dir)) {
            Ok(entries) => entries,
            Err(e) => {
                if e.kind() == ErrorKind::PermissionDenied {
                    self.odd.borrow_mut().push((
                        format!("{dir}, which cannot be read: permission denied"),
                        "give the right to read it, or let the pattern begin in another directory",
                    ));
                }
                return Vec::new();
            }
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let name = match entry.file_name().into_string() {
                    Ok(name) => name,
                    Err(name) => {
                        self.odd.borrow_mut().push((
                            format!("{dir}/{}, whose name is not UTF-8", name.display()),
                            "rename it, or let the pattern begin in another directory",
                        ));
                        return None;
                    }
                };
                let kind = entry.file_type().ok()?;
                let dir = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
                Some(Entry { name, dir, link: kind.is_symlink() })
            })
            .collect()
    }
}

impl Listing for Disk {
    fn list(&self, dir: &str) -> Rc<[Entry]> {
        let known = self.listed.borrow().get(dir).map(Rc::clone);
        known.unwrap_or_else(|| {
            let entries: Rc<[Entry]> = self.read(dir).into();
            self.listed.borrow_mut().insert(dir.to_owned(), Rc::clone(&entries));
            entries
        })
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
        // what lies in a published directory was published with it
        std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(parent, _)| parent))
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
            || path.split('/').any(|part| part == ".git")
            || self.cache.as_deref().is_some_and(under)
    }
}
