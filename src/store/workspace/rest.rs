//! Rows of `state.db` that are read when they are first asked for: for a run that concerns few of many nodes. Unaware of what is held
//! already. A row that cannot be read counts as none.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use super::rows::{HeldNode, PublishedRow};
use super::stat_cache::Row;
use super::state;
use crate::Result;

/// The database of a workspace whose rows are not all in memory.
pub(super) struct Rest {
    db: Mutex<Connection>,
    path: PathBuf,
}

impl Rest {
    pub(super) fn new(db: Mutex<Connection>, path: &Path) -> Self {
        Self { db, path: path.to_owned() }
    }

    fn ask<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        question(&self.db.lock().unwrap_or_else(PoisonError::into_inner)).ok()
    }

    pub(super) fn stat(&self, name: &[u8]) -> Option<Row> {
        self.ask(|db| state::stat_row(db, name)).flatten()
    }

    /// Rows of what lies below the directory `name`.
    pub(super) fn stats_below(&self, name: &[u8]) -> Vec<(Box<[u8]>, Row)> {
        self.ask(|db| state::stat_rows_below(db, name)).unwrap_or_default()
    }

    pub(super) fn node(&self, workflow: &str, node: &str) -> Option<HeldNode> {
        let (summary, manifest) = self.ask(|db| state::node_row(db, workflow, node)).flatten()?;
        Some(HeldNode { summary: serde_json::from_str(&summary).ok()?, manifest: manifest.into() })
    }

    pub(super) fn published(&self, path: &str) -> Vec<PublishedRow> {
        let rows = self.ask(|db| state::published_rows(db, path)).unwrap_or_default();
        rows.iter().filter_map(|text| serde_json::from_str(text).ok()).collect()
    }

    pub(super) fn all_published(&self) -> Result<Vec<PublishedRow>> {
        state::read_published(&self.db.lock().unwrap_or_else(PoisonError::into_inner), &self.path)
    }
}
