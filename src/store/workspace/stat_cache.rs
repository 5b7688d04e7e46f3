//! The stat cache: a file whose stat is as it was when it was hashed need not be hashed again. Unaware of files and databases.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::base::digest::Digest;
use crate::base::files::Stat;

/// A file system's tick: what has changed this long or less before it was hashed may have changed again with equal time stamps.
pub(super) const RACY_NS: i64 = 20_000_000;

/// What a file was when it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
    pub(super) size: u64,
    pub(super) inode: u64,
    pub(super) device: u64,
    pub(super) digest: Digest,
    /// When hashing began, ns since 1970.
    pub(super) hashed_at_ns: i64,
}

impl Row {
    /// The row of a file with this stat; `None` if it would never be trusted.
    pub(super) fn new(stat: &Stat, digest: Digest, hashed_at_ns: i64) -> Option<Self> {
        (stat.newest_ns() < hashed_at_ns - RACY_NS).then_some(Self {
            mtime_ns: stat.mtime_ns,
            ctime_ns: stat.ctime_ns,
            size: stat.size,
            inode: stat.inode,
            device: stat.device,
            digest,
            hashed_at_ns,
        })
    }

    /// The digest, if the file cannot have changed since.
    pub(super) fn digest_for(&self, stat: &Stat) -> Option<Digest> {
        let same = self.mtime_ns == stat.mtime_ns
            && self.ctime_ns == stat.ctime_ns
            && self.size == stat.size
            && self.inode == stat.inode
            && self.device == stat.device;
        (same && stat.newest_ns() < self.hashed_at_ns - RACY_NS).then_some(self.digest)
    }
}

/// The rows of a workspace, by path: relative to the root inside it, else absolute. `None`: known to have none.
#[derive(Default)]
pub(super) struct StatCache {
    rows: BTreeMap<Box<[u8]>, Option<Row>>,
}

/// The name of `path` in the cache.
pub(super) fn name<'a>(root: &Path, path: &'a Path) -> &'a [u8] {
    path.strip_prefix(root).unwrap_or(path).as_os_str().as_bytes()
}

impl StatCache {
    /// From rows sorted by name.
    pub(super) fn from_sorted(rows: impl IntoIterator<Item = (Box<[u8]>, Row)>) -> Self {
        Self { rows: rows.into_iter().map(|(name, row)| (name, Some(row))).collect() }
    }

    /// The row of `name`; `None` if nothing is known of it, `Some(None)` if it is known that there is none.
    pub(super) fn get(&self, name: &[u8]) -> Option<Option<Row>> {
        self.rows.get(name).copied()
    }

    pub(super) fn insert(&mut self, name: &[u8], row: Option<Row>) {
        self.rows.insert(name.into(), row);
    }

    /// Notes a row that was read, unless a newer one is known.
    pub(super) fn fill(&mut self, name: &[u8], row: Option<Row>) -> Option<Row> {
        *self.rows.entry(name.into()).or_insert(row)
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> bool {
        self.rows.get_mut(name).is_some_and(|row| row.take().is_some())
    }

    /// Removes the rows of `name` and of everything below it; returns their names.
    pub(super) fn remove_below(&mut self, name: &[u8]) -> Vec<Box<[u8]>> {
        let mut prefix = name.to_vec();
        prefix.push(b'/');
        let below = self.rows.range::<[u8], _>((Bound::Included(&prefix[..]), Bound::Unbounded));
        let mut gone: Vec<Box<[u8]>> = below
            .take_while(|(name, _)| name.starts_with(&prefix))
            .filter(|(_, row)| row.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        if self.rows.get(name).is_some_and(Option::is_some) {
            gone.push(name.into());
        }
        for name in &gone {
            self.remove(name);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn stat() -> Stat {
        Stat { mtime_ns: 5 * SECOND, ctime_ns: 6 * SECOND, size: 3, inode: 1, device: 2, mode: 0o100_644 }
    }

    #[test]
    fn any_difference_and_a_racy_time_stamp_are_not_trusted() {
        let digest = Digest::of(b"x");
        let row = Row::new(&stat(), digest, 7 * SECOND).unwrap();
        assert_eq!(row.digest_for(&stat()), Some(digest));
        assert_eq!(row.digest_for(&Stat { mode: 0o100_755, ..stat() }), Some(digest));
        for other in [
            Stat { mtime_ns: 5 * SECOND + 1, ..stat() },
            Stat { ctime_ns: 6 * SECOND + 1, ..stat() },
            Stat { size: 4, ..stat() },
            Stat { inode: 9, ..stat() },
            Stat { device: 9, ..stat() },
        ] {
            assert_eq!(row.digest_for(&other), None, "{other:?}");
        }
        assert_eq!(Row::new(&stat(), digest, 6 * SECOND + RACY_NS), None);
        assert!(Row::new(&stat(), digest, 6 * SECOND + RACY_NS + 1).is_some());
    }

    #[test]
    fn forgetting_a_directory_forgets_what_lies_in_it_and_nothing_else() {
        let mut cache = StatCache::default();
        let row = Row::new(&stat(), Digest::of(b"x"), 7 * SECOND).unwrap();
        for name in ["a", "a.txt", "a/b", "a/c/d", "a0", "b"] {
            cache.insert(name.as_bytes(), Some(row));
        }
        assert_eq!(cache.remove_below(b"a").len(), 3);
        let left: Vec<&[u8]> =
            cache.rows.iter().filter(|(_, row)| row.is_some()).map(|(name, _)| &**name).collect();
        assert_eq!(left, [b"a.txt", b"a0" as &[u8], b"b"]);
        assert_eq!(name(Path::new("/w"), Path::new("/w/x/y")), b"x/y");
        assert_eq!(name(Path::new("/w"), Path::new("/wx/y")), b"/wx/y");
    }
}
