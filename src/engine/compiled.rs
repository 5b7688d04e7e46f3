//! The compiled plan: the expanded graph of a certified run in a compact form, from which single nodes can be read. With it a run after
//! a change of few files brings only the nodes that this concerns. Unaware of what changed and of running.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use petgraph::graph::{DiGraph, NodeIndex};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::certificate::beside;
use crate::base::digest::Digest;
use crate::base::files;
use crate::graph::{Graph, Node, NodeIx, Nodes};
use crate::model::Resources;

/// Changes with the layout, and with that of anything a node holds.
const MAGIC: &[u8; 16] = b"flow plan      3";
/// Magic, digest of the nodes, length of the tables. What follows are the tables, then the nodes.
const HEADER: usize = 16 + 32 + 8;

/// Numbers, each four bytes in the file: a million of them are to be read within a millisecond.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers(Vec<u32>);

impl Numbers {
    pub(super) fn push(&mut self, number: u32) {
        self.0.push(number);
    }
}

impl FromIterator<u32> for Numbers {
    fn from_iter<T: IntoIterator<Item = u32>>(numbers: T) -> Self {
        Self(numbers.into_iter().collect())
    }
}

impl std::ops::Deref for Numbers {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.0
    }
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|number| number.to_le_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(D::Error::invalid_length(bytes.len(), &"numbers of four bytes"));
        }
        Ok(Self(numbers.iter().map(|number| u32::from_le_bytes(*number)).collect()))
    }
}

/// Lists of numbers, one per node, end to end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Lists {
    ends: Numbers,
    values: Numbers,
}

impl Lists {
    pub(super) fn push(&mut self, list: impl IntoIterator<Item = u32>) {
        self.values.0.extend(list);
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
    pub(super) order: Numbers,
    /// What a node is expected to take, microseconds.
    pub(super) weights: Numbers,
    /// Nodes that take something of a node or are ordered after it.
    pub(super) dependents: Lists,
    /// Entries of the certificate: the source files that a node takes.
    pub(super) takes: Lists,
    /// Entries of the certificate: the outputs of a node in order; [`ABSENT`] for one that is absent.
    pub(super) makes: Lists,
    /// How long each node's text is, bytes.
    pub(super) nodes: Numbers,
}

impl Tables {
    /// These nodes and all that depend on them, in topological order.
    pub(super) fn closure(&self, roots: &[NodeIx]) -> Vec<NodeIx> {
        let mut inside = vec![false; self.order.len()];
        let mut open = roots.to_vec();
        while let Some(ix) = open.pop() {
            if !std::mem::replace(&mut inside[ix], true) {
                open.extend(self.dependents.of(ix).iter().map(|dependent| *dependent as NodeIx));
            }
        }
        self.order.iter().map(|ix| *ix as NodeIx).filter(|ix| inside[*ix]).collect()
    }
}

/// An output that is absent.
pub(super) const ABSENT: u32 = u32::MAX;

/// A compiled plan as read.
pub(super) struct Compiled {
    pub(super) tables: Tables,
    /// The nodes' texts, end to end; set once they were checked.
    nodes: Arc<OnceLock<Vec<u8>>>,
    /// Where in them each node's text ends.
    ends: Arc<Vec<usize>>,
}

/// The plan that goes with the certificate at `certificate`.
fn place(certificate: &Path) -> PathBuf {
    beside(certificate, "plan-")
}

/// The nodes of a graph as a plan has them.
pub(super) struct Texts {
    /// End to end.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Texts {
    pub(super) fn of(graph: &Graph) -> Option<Self> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(graph.nodes.len()));
        for node in &graph.nodes {
            bytes = postcard::to_extend(node, bytes).ok()?;
            ends.push(bytes.len());
        }
        Some(Self { bytes, ends })
    }

    /// The text of a node.
    pub(super) fn get(&self, ix: NodeIx) -> &[u8] {
        &self.bytes[ix.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[ix]]
    }
}

/// Writes the plan that goes with the certificate at `certificate`; returns its seal. `tables` lacks only the lengths of the nodes.
pub(super) fn write(certificate: &Path, mut tables: Tables, texts: &Texts) -> Option<Digest> {
    for ix in 0..texts.ends.len() {
        tables.nodes.push(u32::try_from(texts.get(ix).len()).ok()?);
    }
    let nodes = &texts.bytes;
    let tables = postcard::to_stdvec(&tables).ok()?;
    let mut out = Vec::with_capacity(HEADER + tables.len() + nodes.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&Digest::of_many(nodes).0);
    out.extend_from_slice(&(tables.len() as u64).to_le_bytes());
    out.extend_from_slice(&tables);
    let seal = Digest::of(&out);
    out.extend_from_slice(nodes);
    let place = place(certificate);
    let there = std::fs::read(&place).is_ok_and(|old| old == out);
    if !there {
        files::write_atomic(&place, &out).ok()?;
    }
    Some(seal)
}

/// Reads the plan with this seal that goes with the certificate at `certificate`, and makes of its tables what `make` does while the
/// nodes are checked.
pub(super) fn read<T: Send>(
    certificate: &Path,
    seal: &Digest,
    make: impl FnOnce(&Compiled) -> T + Send,
) -> Option<(Compiled, T)> {
    let mut file = File::open(place(certificate)).ok()?;
    let whole = usize::try_from(file.metadata().ok()?.len()).ok()?;
    let mut head = vec![0; HEADER];
    file.read_exact(&mut head).ok()?;
    let expected: [u8; 32] = head[16..48].try_into().ok()?;
    let at = HEADER.checked_add(u64::from_le_bytes(head[48..].try_into().ok()?) as usize)?;
    if !head.starts_with(MAGIC) || at > whole {
        return None;
    }
    head.resize(at, 0);
    file.read_exact(&mut head[HEADER..]).ok()?;
    if Digest::of_many(&head) != *seal {
        return None;
    }
    let tables: Tables = postcard::from_bytes(&head[HEADER..]).ok()?;
    let ends = tables.nodes.iter().scan(0, |end, len| {
        *end += *len as usize;
        Some(*end)
    });
    let ends: Vec<usize> = ends.collect();
    let compiled = Compiled { tables, nodes: Arc::default(), ends: Arc::new(ends) };
    let (nodes, made) = rayon::join(|| hashed(file, whole - at), || make(&compiled));
    let (nodes, digest) = nodes?;
    if digest.0 != expected || nodes.len() != compiled.ends.last().copied().unwrap_or(0) {
        return None;
    }
    let _ = compiled.nodes.set(nodes);
    Some((compiled, made))
}

/// The rest of a file, `len` bytes, and its digest: each piece is hashed while it is at hand.
fn hashed(mut file: File, len: usize) -> Option<(Vec<u8>, Digest)> {
    const PIECE: u64 = 1 << 18;
    let mut bytes = Vec::with_capacity(len);
    let mut hasher = blake3::Hasher::new();
    loop {
        let before = bytes.len();
        if file.by_ref().take(PIECE).read_to_end(&mut bytes).ok()? == 0 {
            return Some((bytes, hasher.into()));
        }
        hasher.update(&bytes[before..]);
    }
}

impl Compiled {
    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.tables.nodes.len()
    }

    /// The text of a node, as it was checked.
    pub(super) fn text(&self, ix: NodeIx) -> &[u8] {
        text(&self.nodes, &self.ends, ix)
    }

    /// The id of a node, with which its text begins.
    pub(super) fn id(&self, ix: NodeIx) -> Option<&str> {
        postcard::take_from_bytes(self.text(ix)).ok().map(|(id, _)| id)
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
        let (nodes, ends) = (Arc::clone(&self.nodes), Arc::clone(&self.ends));
        let node = move |ix: NodeIx| -> Node {
            // they were checked: what was written can be read
            postcard::from_bytes(text(&nodes, &ends, ix))
                .unwrap_or_else(|e| panic!("node {ix} of a compiled plan: {e}"))
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

fn text<'n>(nodes: &'n OnceLock<Vec<u8>>, ends: &[usize], ix: NodeIx) -> &'n [u8] {
    let begin = ix.checked_sub(1).map_or(0, |before| ends[before]);
    nodes.get().and_then(|nodes| nodes.get(begin..ends[ix])).unwrap_or_default()
}
