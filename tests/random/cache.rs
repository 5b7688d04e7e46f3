//! What the cache is known to hold. After a kill some of it is only possible. Unaware of how flow keeps it.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::Content;

/// Keys with a result and blobs; `true`: for certain.
#[derive(Clone, Default)]
pub struct Cache {
    results: BTreeMap<String, bool>,
    blobs: BTreeMap<String, bool>,
    /// Blobs that were damaged: storing the same bytes again leaves them as they are, until somebody reads them.
    damaged: BTreeSet<String>,
}

impl Cache {
    /// With `certain`, only what is there without doubt.
    pub fn has(&self, key: &str, certain: bool) -> bool {
        self.results.get(key).is_some_and(|known| *known || !certain)
    }

    pub fn has_blob(&self, blob: &str, certain: bool) -> bool {
        self.blobs.get(blob).is_some_and(|known| *known || !certain)
    }

    /// A key has a result now. Without `certain`: it may have one.
    pub fn commit(&mut self, key: &str, certain: bool) {
        *self.results.entry(key.to_owned()).or_default() |= certain;
    }

    pub fn store(&mut self, content: &Content, certain: bool) {
        for blob in content.blobs() {
            let whole = certain && !self.damaged.contains(&blob);
            *self.blobs.entry(blob).or_default() |= whole;
        }
    }

    pub fn lose_blob(&mut self, blob: &str) {
        self.blobs.remove(blob);
    }

    /// It is there, and perhaps of no use: some bits of a compressed file mean nothing.
    pub fn damage_blob(&mut self, blob: &str) {
        self.damaged.insert(blob.to_owned());
        if let Some(certain) = self.blobs.get_mut(blob) {
            *certain = false;
        }
    }

    pub fn is_damaged(&self, blob: &str) -> bool {
        self.damaged.contains(blob)
    }

    /// All that take room: the empty one stays.
    pub fn lose_blobs(&mut self) {
        let empty = blake3::hash(b"").to_hex().to_string();
        self.blobs.retain(|blob, _| *blob == empty);
        self.damaged.clear();
    }
}
