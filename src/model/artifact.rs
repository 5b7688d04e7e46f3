//! What a node left behind: a file, a directory tree, or nothing. Unaware of where the bytes are kept.

use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;

/// The recorded content of one output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Artifact {
    /// A regular file.
    File {
        /// Of its bytes.
        digest: Digest,
        /// In bytes.
        size: u64,
        /// Any execute bit.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        exec: bool,
    },
    /// A directory: the digest of its tree object (the canonical JSON of its sorted entries), which is a blob too.
    Tree {
        /// Of the tree object.
        digest: Digest,
        /// Number of files in it.
        files: u64,
        /// Sum of their sizes in bytes.
        size: u64,
    },
    /// An optional output that was not made.
    Absent,
}

/// One entry of a tree object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Path inside the tree, `/` between components.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: TreeEntryKind,
}

/// The kinds of tree entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TreeEntryKind {
    /// A regular file.
    File {
        /// Of its bytes.
        digest: Digest,
        /// In bytes.
        size: u64,
        /// Any execute bit.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        exec: bool,
    },
    /// A symbolic link.
    Link {
        /// Its target, as stored.
        target: String,
    },
    /// An empty directory.
    Dir,
}

impl Artifact {
    /// The content digest; `None` when absent.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::File { digest, .. } | Self::Tree { digest, .. } => Some(*digest),
            Self::Absent => None,
        }
    }

    /// Size of the content in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } | Self::Tree { size, .. } => *size,
            Self::Absent => 0,
        }
    }
}
