//! The compiled plan: the expanded graph of a certified run in a compact form, from which single nodes can be read. With it a run after
//! a change of few files brings only the nodes that this concerns. Unaware of what changed and of running.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use petgraph::graph::{DiGraph, NodeIndex};
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::files;
use crate::graph::{Graph, Node, NodeIx, Nodes};
use crate::model::Resources;

/// Changes with the layout, and with that of anything a node holds.
const MAGIC: &[u8; 16] = b"flow plan      1";
/// Magic, seal, length of the tables.
const HEADER: usize = 16 + 32 + 8;

/// Lists of numbers, one per node, end to end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Lists {
    ends: Vec<u32>,
    values: Vec<u32>,
}

impl Lists {
    pub(super) fn push(&mut self, list: impl IntoIterator<Item = u32>) {
        self.values.extend(list);
        self.ends.push(self.values.len() as u32);
    }

    pub(super) fn of(&self, ix: NodeIx) -> &[u32] {
        let begin = ix.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.values[begin as usize..self.ends[ix] as usize]
    }
}

/// Everything but the nodes themselves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tables {
    /// As in [`Graph`].
    pub(super) name: String,
    pub(super) file: String,
    pub(super) files: Vec<String>,
    pub(super) resources: Resources,
    /// Names of the secrets that any node asks for.
    pub(super) secrets: Vec<String>,
    /// A topological order.
    pub(super) order: Vec<u32>,
    /// What a node is expected to take, microseconds.
    pub(super) weights: Vec<u32>,
    /// Nodes that take something of a node or are ordered after it.
    pub(super) dependents: Lists,
    /// Entries of the certificate: the source files that a node takes.
    pub(super) takes: Lists,
    /// Entries of the certificate: the outputs of a node in order; [`ABSENT`] for one that is absent.
    pub(super) makes: Lists,
    /// Where each node's text ends.
    pub(super) nodes: Vec<u64>,
}

/// An output that is absent.
pub(super) const ABSENT: u32 = u32::MAX;

/// A compiled plan as read.
pub(super) struct Compiled {
    pub(super) tables: Tables,
    bytes: Arc<Vec<u8>>,
    /// Where the nodes begin.
    at: usize,
}

/// The plan that goes with the certificate at `certificate`.
fn place(certificate: &Path) -> PathBuf {
    certificate.with_file_name(
        certificate.file_name().unwrap_or_default().to_string_lossy().replacen("fresh-", "plan-", 1),
    )
}

/// Writes the plan that goes with the certificate at `certificate`; returns its seal. `tables` lacks only the places of the nodes.
pub(super) fn write(certificate: &Path, mut tables: Tables, graph: &Graph) -> Option<Digest> {
    let mut nodes = Vec::new();
    for node in &graph.nodes {
        nodes = postcard::to_extend(node, nodes).ok()?;
        tables.nodes.push(nodes.len() as u64);
    }
    let tables = postcard::to_stdvec(&tables).ok()?;
    let mut body = (tables.len() as u64).to_le_bytes().to_vec();
    body.extend_from_slice(&tables);
    body.append(&mut nodes);
    let seal = Digest::of(&body);
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&seal.0);
    out.append(&mut body);
    let place = place(certificate);
    let there = std::fs::read(&place).is_ok_and(|old| old == out);
    if !there {
        files::write_atomic(&place, &out).ok()?;
    }
    Some(seal)
}

/// Reads the plan with this seal that goes with the certificate at `certificate`.
pub(super) fn read(certificate: &Path, seal: &Digest) -> Option<Compiled> {
    let bytes = std::fs::read(place(certificate)).ok()?;
    let body = bytes.get(HEADER - 8..)?;
    if !bytes.starts_with(MAGIC) || bytes[16..48] != seal.0 {
        return None;
    }
    let len = u64::from_le_bytes(body.get(..8)?.try_into().ok()?) as usize;
    let tables = body.get(8..8usize.checked_add(len)?)?;
    // half of the time each
    let (whole, tables) =
        rayon::join(|| Digest::of(body) == *seal, || postcard::from_bytes::<Tables>(tables).ok());
    let tables = tables.filter(|_| whole)?;
    Some(Compiled { tables, at: HEADER + len, bytes: Arc::new(bytes) })
}

impl Compiled {
    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.tables.nodes.len()
    }

    /// These nodes and all that depend on them, in topological order.
    pub(super) fn closure(&self, roots: &[NodeIx]) -> Vec<NodeIx> {
        let mut inside = vec![false; self.len()];
        let mut open = roots.to_vec();
        while let Some(ix) = open.pop() {
            if !std::mem::replace(&mut inside[ix], true) {
                open.extend(self.tables.dependents.of(ix).iter().map(|dependent| *dependent as NodeIx));
            }
        }
        self.tables.order.iter().map(|ix| *ix as NodeIx).filter(|ix| inside[*ix]).collect()
    }

    /// The graph, with the edges and the order of the nodes in `closure` alone; each node is read when it is asked for.
    pub(super) fn graph(&self, closure: &[NodeIx]) -> Graph {
        let count = self.len();
        let mut dag = DiGraph::with_capacity(count, closure.len() * 2);
        for _ in 0..count {
            dag.add_node(());
        }
        for &ix in closure {
            for &dependent in self.tables.dependents.of(ix) {
                dag.add_edge(NodeIndex::new(ix), NodeIndex::new(dependent as usize), ());
            }
        }
        let (bytes, at, ends) = (Arc::clone(&self.bytes), self.at, self.tables.nodes.clone());
        let node = move |ix: NodeIx| -> Node {
            let begin = ix.checked_sub(1).map_or(0, |before| ends[before]) as usize;
            let text = &bytes[at + begin..at + ends[ix] as usize];
            // the seal was checked: what was written can be read
            postcard::from_bytes(text).unwrap_or_else(|e| panic!("node {ix} of a compiled plan: {e}"))
        };
        Graph {
            name: self.tables.name.clone(),
            file: self.tables.file.clone(),
            files: self.tables.files.clone(),
            nodes: Nodes::lazy(count, node),
            resources: self.tables.resources.clone(),
            dag,
            order: closure.to_vec(),
            ..Graph::default()
        }
    }
}
