//! Nodes that take little time: several take turns on one thread, as handing each over and back costs too much. Unaware of what they do.

use std::time::Duration;

use super::Coordinator;
use crate::engine::attempt::Task;
use crate::engine::command;
use crate::graph::{Node, NodeAction, NodeIx};

/// Nodes of one kind: how many of them make a group.
struct Kind {
    /// Seconds that a group may take.
    time: f64,
    most: usize,
    /// Seconds that they took lately, in this run; `None` before the first.
    mean: Option<f64>,
}

/// Of how many the mean is made, roughly.
const OF: f64 = 16.0;

/// How long nodes took lately.
pub(super) struct Brief {
    stages: Kind,
    commands: Kind,
}

impl Default for Brief {
    fn default() -> Self {
        Self {
            stages: Kind { time: 0.005, most: 16, mean: None },
            commands: Kind { time: 0.010, most: 4, mean: None },
        }
    }
}

impl Kind {
    /// One took so long. What the machine did meanwhile is in it, so a single long one counts little.
    fn took(&mut self, time: Duration) {
        let seconds = time.as_secs_f64().min(self.time);
        let mean = self.mean.unwrap_or(self.time);
        self.mean = Some(mean + (seconds - mean) / OF);
    }

    /// How many of them make a group; 1 if they are long.
    fn group(&self) -> usize {
        self.mean.map_or(1, |mean| ((self.time / mean.max(1e-6)) as usize).clamp(1, self.most))
    }
}

impl Brief {
    fn of(&mut self, node: &Node) -> &mut Kind {
        if command::is_command(node) { &mut self.commands } else { &mut self.stages }
    }
}

impl Coordinator<'_> {
    /// Nodes that begin with `first`, which has a slot, and take turns in it. There are several only if they are short, nobody else
    /// could take them now, each would be next, and nothing that matters more waits for one before the last.
    pub(super) fn group(&mut self, first: NodeIx) -> Vec<NodeIx> {
        let mut group = vec![first];
        let mut last = first;
        if !self.is_brief(first) {
            return group;
        }
        let most = self.brief.of(self.node(first)).group().min(self.scheduler.ready_per_slot() / 2);
        while group.len() < most && self.opens(last) < self.scheduler.top() {
            let Some(next) = self.scheduler.first().filter(|next| self.is_brief(*next)) else { break };
            if !self.scheduler.join(next) {
                break;
            }
            group.push(next);
            last = next;
        }
        group
    }

    /// A node was done in so long.
    pub(super) fn took(&mut self, ix: NodeIx, time: Duration) {
        let node = self.node(ix);
        self.brief.of(node).took(time);
    }

    /// Whether it runs in one slot and is tried once: such a node may share its slot with others.
    fn is_brief(&self, ix: NodeIx) -> bool {
        let node = self.node(ix);
        let waits = matches!(node.action, NodeAction::Stage { cpu: false, .. });
        let resources = &node.resources;
        let plain = resources.cpu <= 1
            && resources.mem == 0
            && resources.pools.is_empty()
            && resources.exclusive.is_none()
            && resources.jobserver.is_none()
            && resources.gpu.is_none();
        let runs = self.tasks.get(&ix).is_some_and(|task| matches!(task, Task::Run { .. }));
        runs && plain && !waits && node.retry.is_none() && node.services.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_grow_as_nodes_prove_short_and_shrink_when_they_are_not() {
        let mut kind = Brief::default().stages;
        assert_eq!(kind.group(), 1);
        for _ in 0..100 {
            kind.took(Duration::from_micros(50));
        }
        assert_eq!(kind.group(), 16);
        kind.took(Duration::from_secs(100));
        assert!(kind.group() > 4);
        for _ in 0..100 {
            kind.took(Duration::from_millis(5));
        }
        assert_eq!(kind.group(), 1);
    }
}
