//! A set of nodes: one bit for each, for sets that may hold every node of a large graph. Unaware of what its nodes have in common.

use fixedbitset::FixedBitSet;

use super::node::NodeIx;

/// A set of nodes, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSet(FixedBitSet);

impl NodeSet {
    /// Every node of a graph of `count`.
    pub fn all(count: usize) -> Self {
        let mut bits = FixedBitSet::with_capacity(count);
        bits.insert_range(..);
        Self(bits)
    }

    /// Adds a node; true if it was not there.
    pub fn insert(&mut self, ix: NodeIx) -> bool {
        let new = !self.0.contains(ix);
        self.0.grow_and_insert(ix);
        new
    }

    /// Whether a node is in it.
    pub fn contains(&self, ix: NodeIx) -> bool {
        self.0.contains(ix)
    }

    /// The nodes in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = NodeIx> {
        self.0.ones()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.count_ones(..)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_clear()
    }
}

impl Extend<NodeIx> for NodeSet {
    fn extend<T: IntoIterator<Item = NodeIx>>(&mut self, nodes: T) {
        for ix in nodes {
            self.0.grow_and_insert(ix);
        }
    }
}

impl FromIterator<NodeIx> for NodeSet {
    fn from_iter<T: IntoIterator<Item = NodeIx>>(nodes: T) -> Self {
        let mut set = Self::default();
        set.extend(nodes);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_tells_what_is_new() {
        let mut set: NodeSet = [70, 2].into_iter().collect();
        assert!(set.insert(3) && !set.insert(70) && set.insert(300));
        assert_eq!(set.iter().collect::<Vec<_>>(), [2, 3, 70, 300]);
        assert_eq!(set.iter().next_back(), Some(300));
        assert!(set.contains(70) && !set.contains(71) && !set.contains(10_000));
        assert_eq!((set.len(), set.is_empty(), NodeSet::default().is_empty()), (4, false, true));
        assert_eq!(NodeSet::all(65).len(), 65);
    }
}
