//! What the directories held that patterns listed: kept beside a certificate, so that those that are as they were need not be read
//! again. Unaware of patterns.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificate::beside;
use crate::base::digest::Digest;
use crate::base::files;
use crate::graph::Entry;

/// Changes with the layout.
const MAGIC: &[u8; 16] = b"flow listings  2";

/// Directories with their entries, as text.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed(Vec<u8>);

impl Listed {
    /// A directory with a link in it is left out: where the link leads may change, and the directory does not tell.
    pub(super) fn new(listed: &HashMap<String, Arc<[Entry]>>) -> Self {
        let plain: Vec<(&String, &[Entry])> = listed
            .iter()
            .filter(|(_, entries)| !entries.iter().any(|entry| entry.link))
            .map(|(dir, entries)| (dir, &**entries))
            .collect();
        // one that cannot be written is read by nobody
        Self(postcard::to_extend(&plain, MAGIC.to_vec()).unwrap_or_default())
    }

    /// Writes it beside the certificate at `certificate`; returns its seal.
    pub(super) fn write(&self, certificate: &Path) -> Option<Digest> {
        files::write_atomic(&place(certificate), &self.0).ok()?;
        Some(Digest::of(&self.0))
    }
}

/// The directories and their entries that were written with this seal.
pub(super) fn read(certificate: &Path, seal: &Digest) -> Option<Vec<(String, Arc<[Entry]>)>> {
    let bytes = std::fs::read(place(certificate)).ok()?;
    if Digest::of(&bytes) != *seal {
        return None;
    }
    let all: Vec<(String, Vec<Entry>)> = postcard::from_bytes(bytes.strip_prefix(MAGIC)?).ok()?;
    Some(all.into_iter().map(|(dir, entries)| (dir, entries.into())).collect())
}

fn place(certificate: &Path) -> PathBuf {
    beside(certificate, "listed-")
}
