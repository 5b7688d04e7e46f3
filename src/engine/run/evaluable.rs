//! Nodes whose producers are done, in the order in which they are looked at. Unaware of what becomes of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::graph::NodeIx;

/// Highest priority first, then as they came.
#[derive(Default)]
pub(super) struct Evaluable {
    nodes: BinaryHeap<(u64, Reverse<u64>, NodeIx)>,
    came: u64,
}

impl Evaluable {
    /// Adds one; `priority` as the scheduler has it.
    pub(super) fn push(&mut self, node: NodeIx, priority: u64) {
        self.came += 1;
        self.nodes.push((priority, Reverse(self.came), node));
    }

    pub(super) fn pop(&mut self) -> Option<NodeIx> {
        self.nodes.pop().map(|(_, _, node)| node)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_priority_then_as_they_came() {
        let mut nodes = Evaluable::default();
        for (node, priority) in [(7, 1), (3, 2), (5, 1), (1, 2)] {
            nodes.push(node, priority);
        }
        let order: Vec<NodeIx> = std::iter::from_fn(|| nodes.pop()).collect();
        assert_eq!(order, [3, 1, 7, 5]);
        assert!(nodes.is_empty());
    }
}
