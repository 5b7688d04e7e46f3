//! Results that stand in one workspace only: their rows have keys that no other workspace asks for. Unaware of why they do.
//!
//! A row's key is the digest of the workspace's and the node's key, so that a workspace beside it that shares the cache, and whoever was given
//! a copy of the rows, does not find it. A file in the workspace's state says whether there is any such row: where there is none nothing is asked twice.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::record::ResultRecord;
use crate::base::digest::Digest;
use crate::{Error, Result};

/// The member of a row's record that holds the key of its node, so that `gc` knows whose it is.
const OF: &str = "local_key";

/// The workspace for which a store looks.
#[derive(Clone, Debug)]
pub(super) struct Home {
    workspace: Digest,
    marker: PathBuf,
    any: Arc<AtomicBool>,
}

impl Home {
    /// The workspace whose state lies in `dir`, named by the digest of its path.
    pub(super) fn new(workspace: Digest, dir: &std::path::Path) -> Self {
        let marker = dir.join("local");
        let any = Arc::new(AtomicBool::new(marker.exists()));
        Self { workspace, marker, any }
    }

    /// Whether there may be rows of its own.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The key of the row that stands for the result of `key` here.
    pub(super) fn key(&self, key: &Digest) -> Digest {
        Digest::of(&[b"local".as_slice(), &self.workspace.0, &key.0].concat())
    }

    /// The row for a result: its key and its record. Says that there is one.
    pub(super) fn row(&self, key: &Digest, record: &ResultRecord) -> Result<(Digest, ResultRecord)> {
        if !self.any() {
            std::fs::write(&self.marker, b"").map_err(|e| Error::io("write", &self.marker, e))?;
            self.any.store(true, Ordering::Relaxed);
        }
        let mut row = record.clone();
        row.record.insert(OF.to_owned(), json!(key.to_string()));
        Ok((self.key(key), row))
    }
}

/// The key of the node that a row is of: the row's own, but for one that stands in one workspace only.
pub(super) fn key_of(row: &Digest, record: &ResultRecord) -> Digest {
    let of = record.record.get(OF).and_then(|of| of.as_str()).and_then(|key| key.parse().ok());
    of.filter(|_| record.is_local()).unwrap_or(*row)
}
