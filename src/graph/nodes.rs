//! The nodes of a graph: all at hand, or each brought when it is first asked for. Unaware of where they are brought from.

use std::ops::{Index, IndexMut};
use std::sync::{Arc, OnceLock};

use super::node::{Node, NodeIx};

/// Brings one node of a graph that was expanded earlier.
type Bring = dyn Fn(NodeIx) -> Node + Send + Sync;

/// The nodes, by [`NodeIx`].
#[derive(Clone)]
pub struct Nodes(Held);

#[derive(Clone)]
enum Held {
    All(Vec<Node>),
    Lazy { cells: Arc<[OnceLock<Box<Node>>]>, bring: Arc<Bring> },
}

impl Nodes {
    /// `count` nodes, each brought when it is first asked for. What `bring` makes never changes.
    pub fn lazy(count: usize, bring: impl Fn(NodeIx) -> Node + Send + Sync + 'static) -> Self {
        let cells = (0..count).map(|_| OnceLock::new()).collect();
        Self(Held::Lazy { cells, bring: Arc::new(bring) })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Held::All(nodes) => nodes.len(),
            Held::Lazy { cells, .. } => cells.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them in order; brings those that are not at hand.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Node> + ExactSizeIterator {
        (0..self.len()).map(|ix| &self[ix])
    }

    /// Adds one.
    pub fn push(&mut self, node: Node) {
        self.all().push(node);
    }

    /// All of them, at hand.
    fn all(&mut self) -> &mut Vec<Node> {
        if let Held::Lazy { .. } = self.0 {
            self.0 = Held::All(self.iter().cloned().collect());
        }
        match &mut self.0 {
            Held::All(nodes) => nodes,
            Held::Lazy { .. } => unreachable!("replaced above"),
        }
    }
}

impl Default for Nodes {
    fn default() -> Self {
        Self(Held::All(Vec::new()))
    }
}

impl From<Vec<Node>> for Nodes {
    fn from(nodes: Vec<Node>) -> Self {
        Self(Held::All(nodes))
    }
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Index<NodeIx> for Nodes {
    type Output = Node;

    fn index(&self, ix: NodeIx) -> &Node {
        match &self.0 {
            Held::All(nodes) => &nodes[ix],
            Held::Lazy { cells, bring } => cells[ix].get_or_init(|| Box::new(bring(ix))),
        }
    }
}

impl IndexMut<NodeIx> for Nodes {
    fn index_mut(&mut self, ix: NodeIx) -> &mut Node {
        &mut self.all()[ix]
    }
}

impl<'n> IntoIterator for &'n Nodes {
    type Item = &'n Node;
    type IntoIter = Box<dyn Iterator<Item = &'n Node> + 'n>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl IntoIterator for Nodes {
    type Item = Node;
    type IntoIter = std::vec::IntoIter<Node>;

    fn into_iter(mut self) -> Self::IntoIter {
        std::mem::take(self.all()).into_iter()
    }
}
