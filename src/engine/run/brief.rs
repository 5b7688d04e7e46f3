//! Stages that take less time than handing them to a thread: several take turns on one. Unaware of what they do.

use std::time::Duration;

use super::Coordinator;
use crate::engine::attempt::Task;
use crate::graph::{NodeAction, NodeIx};

/// How long a group of them may take.
const GROUP: f64 = 0.002;
/// Most nodes of a group.
const MOST: usize = 16;
/// Of how many the mean is made, roughly.
const OF: f64 = 16.0;

/// How long computing stages took lately, in this run.
#[derive(Default)]
pub(super) struct Brief {
    /// Seconds; `None` before the first.
    mean: Option<f64>,
}

impl Brief {
    /// One took so long. What the machine did meanwhile is in it, so a single long one counts little.
    pub(super) fn took(&mut self, time: Duration) {
        let seconds = time.as_secs_f64().min(GROUP);
        let mean = self.mean.unwrap_or(GROUP);
        self.mean = Some(mean + (seconds - mean) / OF);
    }

    /// How many of them make a group; 1 if they are long.
    fn group(&self) -> usize {
        self.mean.map_or(1, |mean| ((GROUP / mean.max(1e-6)) as usize).clamp(1, MOST))
    }
}

impl Coordinator<'_> {
    /// Nodes that begin with `first`, which has a slot, and take turns in it. There are several only if they are short, nobody else
    /// could take them now, and each would be next.
    pub(super) fn group(&mut self, first: NodeIx) -> Vec<NodeIx> {
        let mut group = vec![first];
        if !self.is_brief(first) {
            return group;
        }
        let most = self.brief.group().min(self.scheduler.ready_per_slot() / 2);
        while group.len() < most {
            let tasks = &self.tasks;
            let session = self.session;
            let fits = |ix: NodeIx| brief(&session.project.graph.nodes[ix].action, tasks.get(&ix));
            let Some(next) = self.scheduler.join(fits) else { break };
            group.push(next);
        }
        group
    }

    /// Whether it is a stage that computes, and is tried once.
    pub(super) fn is_brief(&self, ix: NodeIx) -> bool {
        let node = self.node(ix);
        node.retry.is_none() && matches!(node.action, NodeAction::Stage { cpu: true, .. })
    }
}

fn brief(action: &NodeAction, task: Option<&Task>) -> bool {
    matches!(action, NodeAction::Stage { cpu: true, .. }) && matches!(task, Some(Task::Run { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_grow_as_stages_prove_short_and_shrink_when_they_are_not() {
        let mut brief = Brief::default();
        assert_eq!(brief.group(), 1);
        for _ in 0..100 {
            brief.took(Duration::from_micros(50));
        }
        assert_eq!(brief.group(), MOST);
        brief.took(Duration::from_secs(100));
        assert!(brief.group() > 4);
        for _ in 0..100 {
            brief.took(Duration::from_millis(5));
        }
        assert_eq!(brief.group(), 1);
    }
}
