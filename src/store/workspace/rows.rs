//! What a workspace remembers of its nodes and of the files it published. Unaware of how either is used.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::pack;
use crate::base::digest::Digest;
use crate::model::Artifact;

/// The last success of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    /// Its key.
    pub key: Digest,
    /// Component name and text of the manifest behind the key.
    pub manifest: Vec<(String, String)>,
    /// The last durations in seconds, newest last; at most five are kept.
    pub seconds: Vec<f64>,
    /// Output name and path relative to the root.
    pub outputs: Vec<(String, String)>,
    /// Id of the run.
    pub run: String,
}

/// A [`NodeRow`] without its manifest, which is long and only needed to tell a reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// The node's key.
    pub key: Digest,
    /// The last durations in seconds, newest last; at most five are kept.
    pub seconds: Vec<f64>,
    /// Output name and path relative to the root.
    pub outputs: Vec<(String, String)>,
    /// Id of the run.
    pub run: String,
}

/// One file or directory that flow put into the workspace. Each root workflow that declares a path has a row of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedRow {
    /// Relative to the root.
    pub path: String,
    /// Root workflow file of the run.
    pub workflow: String,
    /// The file that declares the output.
    pub file: String,
    /// Id of the node.
    pub node: String,
    /// Name of the output.
    pub output: String,
    /// An entry of an append directory.
    pub append: bool,
    /// What was published.
    pub artifact: Artifact,
}

/// Durations kept per node.
const DURATIONS: usize = 5;

/// A node's row as it is held: the summary at hand, the manifest packed.
pub(super) struct HeldNode {
    pub(super) summary: Arc<NodeSummary>,
    pub(super) manifest: Arc<[u8]>,
}

impl HeldNode {
    pub(super) fn new(row: NodeRow) -> io::Result<Self> {
        let NodeRow { key, manifest, mut seconds, outputs, run } = row;
        // JSON has no other numbers.
        seconds.retain(|seconds| seconds.is_finite());
        seconds.drain(..seconds.len().saturating_sub(DURATIONS));
        let manifest = pack::pack(&serde_json::to_vec(&manifest)?)?.into();
        Ok(Self { summary: Arc::new(NodeSummary { key, seconds, outputs, run }), manifest })
    }

    pub(super) fn row(&self) -> io::Result<NodeRow> {
        let NodeSummary { key, seconds, outputs, run } = (*self.summary).clone();
        let manifest = serde_json::from_slice(&pack::unpack(Cow::Borrowed(&self.manifest))?)?;
        Ok(NodeRow { key, manifest, seconds, outputs, run })
    }
}

/// Nodes by workflow, then by id.
pub(super) type Nodes = HashMap<String, HashMap<String, HeldNode>>;

/// Published rows by path, then by root workflow. A path that is there without rows is known to have none.
#[derive(Default)]
pub(super) struct Published {
    rows: BTreeMap<String, Vec<PublishedRow>>,
    /// All rows were read.
    whole: bool,
}

impl Published {
    pub(super) fn insert(&mut self, row: PublishedRow) {
        let rows = self.rows.entry(row.path.clone()).or_default();
        match rows.binary_search_by(|other| other.workflow.cmp(&row.workflow)) {
            Ok(place) => rows[place] = row,
            Err(place) => {
                // nearly always the only one
                rows.reserve_exact(1);
                rows.insert(place, row);
            }
        }
    }

    /// What was read of one path, unless it is known already.
    pub(super) fn fill(&mut self, path: &str, read: impl FnOnce() -> Vec<PublishedRow>) {
        if !self.rows.contains_key(path) {
            self.rows.insert(path.to_owned(), Vec::new());
            read().into_iter().filter(|row| row.path == path).for_each(|row| self.insert(row));
        }
    }

    /// What was read of all paths, but for those that are known already.
    pub(super) fn fill_all(&mut self, read: BTreeMap<String, Vec<PublishedRow>>) {
        for (path, rows) in read {
            self.fill(&path, || rows);
        }
        self.whole = true;
    }

    /// Whether all rows were read.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn remove(&mut self, path: &str) {
        if let Some(rows) = self.rows.get_mut(path) {
            rows.clear();
        }
    }

    pub(super) fn remove_one(&mut self, path: &str, workflow: &str) {
        if let Some(rows) = self.rows.get_mut(path) {
            rows.retain(|row| row.workflow != workflow);
        }
    }

    /// The rows of one path.
    pub(super) fn of(&self, path: &str) -> impl Iterator<Item = &PublishedRow> {
        self.rows.get(path).into_iter().flatten()
    }

    /// All rows, by path, then by workflow.
    pub(super) fn all(&self) -> Vec<PublishedRow> {
        self.rows.values().flatten().cloned().collect()
    }
}
