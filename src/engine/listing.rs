//! What expansion may see of the workspace: directories, published paths, the environment.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::graph::{Entry, Listing};

/// The real file system below a workspace root.
pub(super) struct Disk {
    root: PathBuf,
    /// The cache directory relative to the root, if it lies inside.
    cache: Option<String>,
    /// Paths that an earlier run published for a step of one of this graph's files.
    published: HashSet<String>,
}

impl Disk {
    pub(super) fn new(root: &Path, cache: &Path, published: HashSet<String>) -> Self {
        let cache = cache.strip_prefix(root).ok().map(|path| path.to_string_lossy().into_owned());
        Self { root: root.to_owned(), cache, published }
    }

    fn absolute(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Listing for Disk {
    fn list(&self, dir: &str) -> Vec<Entry> {
        let Ok(entries) = std::fs::read_dir(self.absolute(dir)) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let kind = entry.file_type().ok()?;
                let dir = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
                Some(Entry { name, dir, link: kind.is_symlink() })
            })
            .collect()
    }

    fn is_file(&self, path: &str) -> bool {
        self.absolute(path).is_file()
    }

    fn is_dir(&self, path: &str) -> bool {
        self.absolute(path).is_dir()
    }

    fn published(&self, path: &str) -> bool {
        // what lies in a published directory was published with it
        std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(parent, _)| parent))
            .any(|path| self.published.contains(path))
    }

    fn env(&self, name: &str) -> Option<String> {
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
