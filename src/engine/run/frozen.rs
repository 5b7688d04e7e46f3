//! `--frozen`: a node that would run fails and says why. Unaware of how one runs.

use super::Coordinator;
use crate::engine::attempt::Failure;
use crate::engine::evaluate::{Keyed, differing, fits};
use crate::graph::NodeIx;
use crate::key::Reason;
use crate::model::{Outcome, Policy};

impl<'s> Coordinator<'s> {
    /// Instead of running `ix`.
    pub(super) fn would_run(&mut self, ix: NodeIx, keyed: Keyed, reason: &Reason) {
        self.slots[ix].key = Some(keyed.key);
        if self.node(ix).policy == Policy::Never {
            return self.pass_over(ix, keyed);
        }
        self.fail(ix, would_run(&reason.to_string()), None);
    }

    /// A node that runs every time: its last result serves those that take it.
    fn pass_over(&mut self, ix: NodeIx, keyed: Keyed) {
        let (project, node) = (&self.session.project, self.node(ix));
        let known = project.store.result(&keyed.key).map(|record| record.filter(|record| fits(record, node)));
        let found = known.and_then(|record| {
            let Some(record) = record else { return Ok(None) };
            let differing = differing(project, self.finder, node, &record)?;
            Ok(Some((record, differing)))
        });
        match found {
            Ok(Some((record, differing))) => self.hit(ix, keyed, record, differing, false),
            Ok(None) => {
                self.slots[ix].passed_over = true;
                let reason = "passed over: it runs every time (policy never)".to_owned();
                self.done(ix, Outcome::Skipped, Some(reason));
            }
            Err(error) => self.fail(ix, error.into(), None),
        }
    }

    /// A node that takes what a passed-over node would make: nobody knows whether it would run, so it counts as one that would.
    pub(super) fn unknown_inputs(&mut self, ix: NodeIx, producer: NodeIx) {
        let reason = format!("{} runs every time and has no result here", self.node(producer).id);
        self.fail(ix, would_run(&reason), None);
    }

    /// How many would run, and how many need what these would make.
    pub(super) fn note_frozen(&self) {
        let of = |outcome: Outcome| {
            let of = |ix: &NodeIx| self.slots[*ix].outcome == Some(outcome) && !self.slots[*ix].passed_over;
            self.selection.nodes.iter().filter(of).count()
        };
        let (failed, skipped) = (of(Outcome::Failed), of(Outcome::Skipped));
        if failed > 0 {
            let nodes = if failed == 1 { "node is" } else { "nodes are" };
            let more =
                if skipped > 0 { format!(", and {skipped} more need what they make") } else { String::new() };
            self.session.note(format!("--frozen: {failed} {nodes} not up to date{more}; nothing was run"));
        }
    }
}

/// The failure of a node that would run.
pub(in crate::engine) fn would_run(reason: &str) -> Failure {
    Failure::new(format!("would run: {reason}"))
}
