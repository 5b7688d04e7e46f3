//! What lies at a path, and everything below a directory. Unaware of workflows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A file or a whole directory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    File { bytes: Vec<u8>, exec: bool },
    Tree(BTreeMap<String, Entry>),
}

/// One thing in a directory, by its path in it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    File { bytes: Vec<u8>, exec: bool },
    Dir,
}

impl Content {
    pub fn text(bytes: impl Into<Vec<u8>>) -> Self {
        Self::File { bytes: bytes.into(), exec: false }
    }

    /// The bytes of a file; a directory has none.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::File { bytes, .. } => bytes,
            Self::Tree(_) => panic!("a directory where a file was meant"),
        }
    }

    /// A digest of all of it.
    pub fn digest(&self) -> String {
        match self {
            Self::File { bytes, exec } => {
                format!("file{} {}", if *exec { " x" } else { "" }, blake3::hash(bytes).to_hex())
            }
            Self::Tree(entries) => {
                let mut hash = blake3::Hasher::new();
                for (path, entry) in entries {
                    let text = match entry {
                        Entry::Dir => "dir".to_owned(),
                        Entry::File { bytes, exec } => format!("{exec} {}", blake3::hash(bytes).to_hex()),
                    };
                    hash.update(format!("{path}\n{text}\n").as_bytes());
                }
                format!("tree {}", hash.finalize().to_hex())
            }
        }
    }

    /// The blobs that keep it: digests of files, and one for the list of a directory.
    pub fn blobs(&self) -> Vec<String> {
        match self {
            Self::File { bytes, .. } => vec![blake3::hash(bytes).to_hex().to_string()],
            Self::Tree(entries) => {
                let files = entries.values().filter_map(|entry| match entry {
                    Entry::File { bytes, .. } => Some(blake3::hash(bytes).to_hex().to_string()),
                    Entry::Dir => None,
                });
                files.chain([self.digest()]).collect()
            }
        }
    }

    /// For messages.
    pub fn short(&self) -> String {
        match self {
            Self::File { bytes, exec } => {
                let text: String = String::from_utf8_lossy(bytes).chars().take(60).collect();
                format!("{} bytes{} {text:?}", bytes.len(), if *exec { ", executable," } else { "" })
            }
            Self::Tree(entries) => format!("a directory of {:?}", entries.keys().collect::<Vec<_>>()),
        }
    }
}

/// All below the root of a workspace, but for its cache: by path, links followed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Disk(pub BTreeMap<String, Entry>);

impl Disk {
    pub fn read(root: &Path) -> Self {
        let mut disk = Self::default();
        for top in ["src", "out"] {
            read_into(&root.join(top), top, &mut disk.0);
        }
        disk
    }

    pub fn content(&self, path: &str) -> Option<Content> {
        match self.0.get(path)? {
            Entry::File { bytes, exec } => Some(Content::File { bytes: bytes.clone(), exec: *exec }),
            Entry::Dir => {
                let prefix = format!("{path}/");
                let inside = self.0.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
                Some(Content::Tree(
                    inside.map(|(path, entry)| (path[prefix.len()..].to_owned(), entry.clone())).collect(),
                ))
            }
        }
    }

    pub fn remove(&mut self, path: &str) {
        let prefix = format!("{path}/");
        self.0.retain(|other, _| other != path && !other.starts_with(&prefix));
    }

    pub fn put(&mut self, path: &str, content: &Content) {
        self.remove(path);
        match content {
            Content::File { bytes, exec } => {
                self.0.insert(path.to_owned(), Entry::File { bytes: bytes.clone(), exec: *exec });
            }
            Content::Tree(entries) => {
                self.0.insert(path.to_owned(), Entry::Dir);
                let inside = entries.iter().map(|(inner, entry)| (format!("{path}/{inner}"), entry.clone()));
                self.0.extend(inside);
            }
        }
    }

    /// Paths of files directly in `dir` whose name starts with `prefix`.
    pub fn matching(&self, dir: &str, prefix: &str) -> Vec<String> {
        let start = format!("{dir}/{prefix}");
        self.0
            .iter()
            .filter(|(path, entry)| {
                path.starts_with(&start)
                    && path.ends_with(".txt")
                    && !path[dir.len() + 1..].contains('/')
                    && matches!(entry, Entry::File { .. })
            })
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Files in which two differ.
    pub fn differing(&self, other: &Self) -> BTreeSet<String> {
        let file = |disk: &Self, path: &str| match disk.0.get(path) {
            Some(Entry::File { bytes, exec }) => Some((bytes.clone(), *exec)),
            _ => None,
        };
        self.0
            .keys()
            .chain(other.0.keys())
            .filter(|path| file(self, path) != file(other, path))
            .cloned()
            .collect()
    }
}

fn read_into(at: &Path, name: &str, out: &mut BTreeMap<String, Entry>) {
    let Ok(meta) = fs::metadata(at) else { return };
    if meta.is_dir() {
        out.insert(name.to_owned(), Entry::Dir);
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            let inner = entry.file_name().into_string().unwrap();
            read_into(&entry.path(), &format!("{name}/{inner}"), out);
        }
    } else if let Ok(mut bytes) = fs::read(at) {
        // in a directory that a node makes, a link is no file, whatever it leads to
        let inside = name.rsplit('/').skip(1).any(|part| part.ends_with(".d"));
        if inside && let Ok(to) = fs::read_link(at) {
            bytes = format!("a link to {}", to.display()).into_bytes();
        }
        out.insert(name.to_owned(), Entry::File { bytes, exec: meta.permissions().mode() & 0o100 != 0 });
    }
}
