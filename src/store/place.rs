//! The cache directory as a place: its folders, its tag, and whether its file system will do. Unaware of what is kept in it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::files;
use crate::{Error, Result};

/// Tells backup programs to leave the directory out (<https://bford.info/cachedir/>).
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# This directory is a cache made by flow: everything in it can be made again.\n\
# See https://bford.info/cachedir/ for the meaning of this file.\n";

/// File systems on which SQLite's write-ahead log and file locks do not work between machines: their `statfs` type and name.
const NETWORK: [(i64, &str); 15] = [
    (0x6969, "nfs"),
    (0x517B, "smb"),
    (0xFE53_4D42, "smb2"),
    (0xFF53_4D42, "cifs"),
    (0x0102_1997, "9p"),
    (0x5346_414F, "afs"),
    (0x6B41_4653, "kafs"),
    (0x00C3_6400, "ceph"),
    (0x7375_7245, "coda"),
    (0x0000_564C, "ncp"),
    (0x0BD0_0BD0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0xAAD7_AAEA, "panfs"),
    (0x7461_636F, "ocfs2"),
];

/// Makes the directory and its folders, and returns its path without links and `..`.
pub(super) fn prepare(cache: &Path) -> Result<PathBuf> {
    refuse_network(cache)?;
    for folder in ["objects", "tmp", "runs", "workspaces"] {
        let path = cache.join(folder);
        fs::create_dir_all(&path)
            .map_err(|e| not_writable(Error::io("make the cache directory", &path, &e), &e))?;
    }
    let cache = fs::canonicalize(cache).map_err(|e| Error::io("open the cache directory", cache, e))?;
    let tag = cache.join("CACHEDIR.TAG");
    if !tag.exists() {
        files::write_atomic(&tag, TAG.as_bytes()).map_err(|e| Error::io("write", &tag, e))?;
    }
    Ok(cache)
}

/// Adds what to do to an error of a cache that cannot be written.
pub(super) fn not_writable(error: Error, cause: &std::io::Error) -> Error {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    if !matches!(cause.kind(), PermissionDenied | ReadOnlyFilesystem) {
        return error;
    }
    error.hint(
        "flow keeps run records and the state of the workspace in its cache, so it must be able to write there: \
         name another one with --cache DIR, or copy this one and name the copy",
    )
}

/// An error if the cache would lie on a network file system.
fn refuse_network(cache: &Path) -> Result<()> {
    let there = std::path::absolute(cache).map_err(|e| Error::io("find", cache, e))?;
    let Some(found) = there.ancestors().find(|dir| dir.exists()) else { return Ok(()) };
    let info =
        nix::sys::statfs::statfs(found).map_err(|e| Error::io("examine the file system of", found, e))?;
    match network_name(info.filesystem_type().0 as i64) {
        None => Ok(()),
        Some(name) => Err(Error::environment(format!(
            "the cache {} is on a network file system ({name}), where its index cannot be kept safely",
            cache.display()
        ))
        .hint("keep the cache on a local disk with --cache DIR, and share results with --cache-to DIR")),
    }
}

fn network_name(kind: i64) -> Option<&'static str> {
    // Some of the numbers fill 32 bits and come sign-extended on some machines.
    let kind = kind & 0xFFFF_FFFF;
    NETWORK.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_number() {
        assert_eq!(network_name(0x6969), Some("nfs"));
        assert_eq!(network_name(0xFF53_4D42_u32 as i32 as i64), Some("cifs"));
        assert_eq!(network_name(0xEF53), None); // ext4
        assert_eq!(network_name(0x0102_1994), None); // tmpfs
    }

    #[test]
    fn the_directory_is_tagged_and_may_exist_already() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("a/b");
        prepare(&cache).unwrap();
        let again = prepare(&cache).unwrap();
        assert!(
            fs::read_to_string(again.join("CACHEDIR.TAG"))
                .unwrap()
                .starts_with("Signature: 8a477f597d28d172789f06886806bc55\n")
        );
        assert!(again.join("objects").is_dir());
    }
}
