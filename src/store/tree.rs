//! Directories as tree objects: the sorted list of what lies in them, in canonical JSON. Unaware of where blobs are kept.

use std::fs;
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use super::pool;
use crate::base::canonical;
use crate::base::digest::Digest;
use crate::base::files::Stat;
use crate::model::{Artifact, TreeEntry, TreeEntryKind};
use crate::{Error, Result};

/// A file's content as a tree object names it.
pub(super) struct FileContent {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) exec: bool,
}

/// Something found in a directory.
struct Found {
    path: String,
    full: PathBuf,
    kind: FoundKind,
}

enum FoundKind {
    File(Stat),
    Link(String),
    Dir,
}

/// The tree object of `dir` and its bytes. `content` says what a file holds; it is asked on several threads.
pub(super) fn describe(
    dir: &Path,
    content: impl Fn(&Path, Stat) -> Result<FileContent> + Sync,
) -> Result<(Artifact, Vec<u8>)> {
    let found = find(dir, Links::Recorded, &|_| false)?;
    for Found { full, kind, .. } in &found {
        if let FoundKind::Link(target) = kind
            && Path::new(target).starts_with(dir)
        {
            let message = format!(
                "the link {} leads into its own directory by an absolute path, and would not once it is moved",
                full.display()
            );
            return Err(Error::step(message).hint("make it relative, e.g. with ln -sr"));
        }
    }
    described(found, content)
}

/// The same without the paths that `skip` names; links as told by `links`.
pub(super) fn describe_by(
    dir: &Path,
    links: Links,
    skip: &dyn Fn(&Path) -> bool,
    content: impl Fn(&Path, Stat) -> Result<FileContent> + Sync,
) -> Result<(Artifact, Vec<u8>)> {
    described(find(dir, links, skip)?, content)
}

/// What lies in `dir`, by path.
fn find(dir: &Path, links: Links, skip: &dyn Fn(&Path) -> bool) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let walk = Walk { links, skip };
    walk.enter(dir, "", &mut Vec::new(), &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn described(
    found: Vec<Found>,
    content: impl Fn(&Path, Stat) -> Result<FileContent> + Sync,
) -> Result<(Artifact, Vec<u8>)> {
    let entries: Vec<Result<TreeEntry>> = pool::install(|| {
        found
            .into_par_iter()
            .map(|Found { path, full, kind }| {
                let kind = match kind {
                    FoundKind::File(stat) => {
                        let FileContent { digest, size, exec } = content(&full, stat)?;
                        TreeEntryKind::File { digest, size, exec }
                    }
                    FoundKind::Link(target) => TreeEntryKind::Link { target },
                    FoundKind::Dir => TreeEntryKind::Dir,
                };
                Ok(TreeEntry { path, kind })
            })
            .collect()
    });
    let entries = entries.into_iter().collect::<Result<Vec<_>>>()?;
    artifact_of(&entries)
}

/// The artifact of a tree with these entries, which are in order. Nothing is stored.
pub fn tree_artifact(entries: &[TreeEntry]) -> Result<Artifact> {
    artifact_of(entries).map(|(artifact, _)| artifact)
}

fn artifact_of(entries: &[TreeEntry]) -> Result<(Artifact, Vec<u8>)> {
    let bytes = encode(entries)?;
    let (mut files, mut size) = (0, 0);
    for entry in entries {
        if let TreeEntryKind::File { size: bytes, .. } = entry.kind {
            files += 1;
            size += bytes;
        }
    }
    Ok((Artifact::Tree { digest: Digest::of(&bytes), files, size }, bytes))
}

/// The entries of a tree object; an error says why the bytes are none. Paths stay inside: relative, without `..`, and never
/// through another entry that is not a directory.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<TreeEntry>, String> {
    let entries: Vec<TreeEntry> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let mut names = std::collections::HashSet::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let path = Path::new(&entry.path);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let canonical = path.components().map(|part| part.as_os_str().len() + 1).sum::<usize>();
        if !plain || entry.path.is_empty() || canonical != entry.path.len() + 1 {
            return Err(format!("'{}' is not a path inside a tree", entry.path));
        }
        if index > 0 && entries[index - 1].path >= entry.path {
            return Err(format!("'{}' is out of order", entry.path));
        }
        names.insert(entry.path.as_str());
    }
    for entry in &entries {
        let mut above = Path::new(&entry.path).ancestors().skip(1);
        if above.any(|dir| dir.to_str().is_some_and(|dir| names.contains(dir))) {
            return Err(format!("'{}' lies in an entry that is not a directory with content", entry.path));
        }
    }
    Ok(entries)
}

fn encode(entries: &[TreeEntry]) -> Result<Vec<u8>> {
    let value =
        serde_json::to_value(entries).map_err(|e| Error::bug(format!("a tree object has no JSON: {e}")))?;
    Ok(canonical::to_string(&value).into_bytes())
}

/// What a link in a directory stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Itself: its target is recorded, as it will be restored.
    Recorded,
    /// What it leads to; one that leads nowhere or back stands for itself.
    Followed,
}

struct Walk<'a> {
    links: Links,
    skip: &'a dyn Fn(&Path) -> bool,
}

impl Walk<'_> {
    /// `above`: device and inode of the directories that were entered, to see a link that leads back.
    fn enter(
        &self,
        dir: &Path,
        prefix: &str,
        above: &mut Vec<(u64, u64)>,
        found: &mut Vec<Found>,
    ) -> Result<()> {
        if self.links == Links::Followed {
            let stat = Stat::following(dir).map_err(|e| Error::io("read the directory", dir, e))?;
            above.push((stat.device, stat.inode));
        }
        self.entries(dir, prefix, above, found)?;
        above.pop();
        Ok(())
    }

    /// What a link stands for.
    fn meta(&self, path: &Path, above: &[(u64, u64)]) -> std::io::Result<fs::Metadata> {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::symlink_metadata(path)?;
        if self.links == Links::Recorded || !meta.is_symlink() {
            return Ok(meta);
        }
        match fs::metadata(path) {
            Ok(there) if !(there.is_dir() && above.contains(&(there.dev(), there.ino()))) => Ok(there),
            _ => Ok(meta),
        }
    }

    fn entries(
        &self,
        dir: &Path,
        prefix: &str,
        above: &mut Vec<(u64, u64)>,
        found: &mut Vec<Found>,
    ) -> Result<()> {
        let failed = |e| Error::io("read the directory", dir, e);
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let full = entry.path();
            if (self.skip)(&full) {
                continue;
            }
            let name = entry.file_name().into_string().map_err(|name| {
                Error::step(format!(
                    "{} has an entry whose name is not UTF-8 ({}), which cannot be recorded",
                    dir.display(),
                    name.display()
                ))
                .hint("rename it, or let the step write another name")
            })?;
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let meta = self.meta(&full, above).map_err(|e| Error::io("read", &full, e))?;
            let kind = if meta.is_dir() {
                let before = found.len();
                self.enter(&full, &path, above, found)?;
                if found.len() > before {
                    continue;
                }
                FoundKind::Dir
            } else if meta.is_symlink() {
                let target = fs::read_link(&full).map_err(|e| Error::io("read the link", &full, e))?;
                let target = target.into_os_string().into_string().map_err(|target| {
                    Error::step(format!(
                        "the link {} has a target that is not UTF-8 ({}), which cannot be recorded",
                        full.display(),
                        target.display()
                    ))
                })?;
                FoundKind::Link(target)
            } else if meta.is_file() {
                FoundKind::File(Stat::from_metadata(&meta))
            } else {
                return Err(not_content(&full));
            };
            found.push(Found { path, full, kind });
        }
        Ok(())
    }
}

/// The error for a socket, pipe or device.
pub(super) fn not_content(path: &Path) -> Error {
    Error::step(format!(
        "{} is neither a file nor a directory nor a link (a socket, pipe or device), which cannot be recorded",
        path.display()
    ))
    .hint("remove it, or keep it outside declared inputs and outputs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: TreeEntryKind) -> TreeEntry {
        TreeEntry { path: path.to_owned(), kind }
    }

    fn decoded(entries: &[TreeEntry]) -> Result<Vec<TreeEntry>, String> {
        decode(&encode(entries).unwrap())
    }

    #[test]
    fn only_paths_that_stay_inside_are_read() {
        let file = |path| entry(path, TreeEntryKind::File { digest: Digest::of(b""), size: 0, exec: false });
        let link = |path| entry(path, TreeEntryKind::Link { target: "/etc".to_owned() });
        assert!(decoded(&[file("a b/\"c\"\n"), file("d"), entry("e", TreeEntryKind::Dir)]).is_ok());
        for bad in ["../x", "/x", "", "a//b", "a/./b", "a/"] {
            assert!(decoded(&[file(bad)]).is_err(), "{bad:?}");
        }
        assert!(decoded(&[file("b"), file("a")]).unwrap_err().contains("out of order"));
        assert!(decoded(&[file("a"), file("a")]).is_err());
        assert!(decoded(&[link("a"), file("a.txt"), file("a/passwd")]).unwrap_err().contains("lies in"));
    }

    #[test]
    fn a_tree_object_is_canonical_json() {
        let entries = [entry("x", TreeEntryKind::Link { target: "y".to_owned() })];
        assert_eq!(encode(&entries).unwrap(), br#"[{"kind":"link","path":"x","target":"y"}]"#);
    }
}
