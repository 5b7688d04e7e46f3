//! Which blobs a result needs, found without using them: looking must neither keep a blob from `gc` nor remove a damaged one.
//! Unaware of why somebody asks.

use std::collections::HashSet;

use super::{Store, content, pack, tree};
use crate::Result;
use crate::base::digest::Digest;
use crate::model::{Artifact, TreeEntry, TreeEntryKind};

impl Store {
    /// All digests that restoring `artifact` needs. A tree object that is not there, or is damaged, counts alone.
    pub(super) fn closure(&self, artifact: &Artifact, into: &mut HashSet<Digest>) -> Result<()> {
        let Some(digest) = artifact.digest() else { return Ok(()) };
        let known = !into.insert(digest);
        if !known && matches!(artifact, Artifact::Tree { .. }) {
            for entry in self.tree_untouched(&digest)?.unwrap_or_default() {
                if let TreeEntryKind::File { digest, .. } = entry.kind {
                    into.insert(digest);
                }
            }
        }
        Ok(())
    }

    /// The entries of a tree object; `None` if it is not there or damaged.
    pub(super) fn tree_untouched(&self, digest: &Digest) -> Result<Option<Vec<TreeEntry>>> {
        let bytes = match self.index().small_untouched(digest)? {
            Some((packed, _)) => pack::unpack(packed).ok().filter(|bytes| Digest::of(bytes) == *digest),
            None => {
                let mut bytes = Vec::new();
                let stored = self.objects().open_untouched(digest).ok().flatten();
                stored
                    .and_then(|mut stored| content::intact_bytes(&mut stored, digest, &mut bytes).ok())
                    .filter(|intact| *intact)
                    .map(|_| bytes)
            }
        };
        Ok(bytes.and_then(|bytes| tree::decode(&bytes).ok()))
    }
}
