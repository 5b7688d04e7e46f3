//! Files: stat in one struct, atomic writes, copies, removal. Unaware of workspaces and stores.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What decides whether a file may have changed since it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Last modification, ns since 1970.
    pub mtime_ns: i64,
    /// Last change of the inode, ns since 1970; nobody can set it back.
    pub ctime_ns: i64,
    /// Size in bytes.
    pub size: u64,
    /// Inode number.
    pub inode: u64,
    /// Device number.
    pub device: u64,
    /// Type and permission bits.
    pub mode: u32,
}

impl Stat {
    /// Of the file itself, links not followed.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from_metadata(&fs::symlink_metadata(path)?))
    }

    /// Of what `path` leads to, links followed.
    pub fn following(path: &Path) -> io::Result<Self> {
        Ok(Self::from_metadata(&fs::metadata(path)?))
    }

    /// From what the system returned.
    pub fn from_metadata(meta: &Metadata) -> Self {
        Self {
            mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            ctime_ns: meta.ctime() * 1_000_000_000 + meta.ctime_nsec(),
            size: meta.size(),
            inode: meta.ino(),
            device: meta.dev(),
            mode: meta.mode(),
        }
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    /// True if any execute bit is set on a regular file.
    pub fn executable(&self) -> bool {
        !self.is_dir() && self.mode & 0o111 != 0
    }

    /// The newest time stamp of the file.
    pub fn newest_ns(&self) -> i64 {
        self.mtime_ns.max(self.ctime_ns)
    }
}

/// Writes `bytes` to `path` through a temporary file beside it and a rename, making parent directories.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let mut file = tempfile::Builder::new().prefix(".flow-").tempfile_in(parent)?;
    file.write_all(bytes)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Removes a file, a link or a whole directory; nothing there is no error.
pub fn remove_any(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match gone {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Moves a file, a link or a whole directory by rename, to another file system by a copy: `to` is whole or not there, and `from`
/// goes last.
pub fn move_any(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
        other => return other,
    }
    let beside = to.with_file_name(format!(".flow-{:016x}", fastrand::u64(..)));
    copy_tree(from, &beside)
        .and_then(|()| fs::rename(&beside, to))
        .inspect_err(|_| drop(remove_any(&beside)))?;
    remove_any(from)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
        fs::set_permissions(to, meta.permissions())
    } else if meta.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)
    } else {
        fs::copy(from, to).map(drop)
    }
}

/// Removes `path`'s parents below `root` as long as they are empty.
pub fn remove_empty_parents(path: &Path, root: &Path) {
    let mut dir = path.parent();
    while let Some(parent) = dir {
        if parent == root || !parent.starts_with(root) || fs::remove_dir(parent).is_err() {
            return;
        }
        dir = parent.parent();
    }
}

/// `a/./b/../c` -> `a/c`, by text alone. A leading `..` stays.
pub fn normalize(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if matches!(out.components().next_back(), Some(Component::Normal(_))) {
                    out.pop();
                } else {
                    out.push("..");
                }
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalize_is_by_text() {
        for (from, to) in [("a/./b/../c", "a/c"), ("../x", "../x"), ("a/..", ""), ("/a/../b", "/b")] {
            assert_eq!(normalize(Path::new(from)), Path::new(to));
        }
    }

    #[test]
    fn write_atomic_replaces_and_makes_parents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.txt");
        write_atomic(&path, b"1").unwrap();
        write_atomic(&path, b"22").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"22");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove_any(&path).unwrap();
        remove_any(&path).unwrap();
        remove_empty_parents(&path, dir.path());
        assert!(!dir.path().join("a").exists());
    }
}
