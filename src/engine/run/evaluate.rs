//! A node whose producers are done: what becomes of it, and what is queued for that. Unaware of how attempts end.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Coordinator;
use crate::engine::adopt::undecided;
use crate::engine::attempt::{self, Task};
use crate::engine::evaluate::{Keyed, Verdict, artifacts_of, evaluate};
use crate::engine::publish;
use crate::error::Result;
use crate::graph::{Item, NodeIx};
use crate::key::Reason;
use crate::model::{Artifact, Outcome, Policy};
use crate::store::ResultRecord;

impl<'s> Coordinator<'s> {
    pub(super) fn evaluate(&mut self, ix: NodeIx) {
        if self.slots[ix].outcome.is_some_and(|outcome| outcome != Outcome::Cached) {
            return;
        }
        if self.keeps_quiet(ix) {
            return self.unlock(ix);
        }
        let node = self.node(ix);
        let bad = |outcome: Option<Outcome>| {
            matches!(outcome, Some(Outcome::Failed | Outcome::Skipped | Outcome::Cancelled))
        };
        let cause = node.producers.iter().find(|p| bad(self.slots[**p].outcome)).or_else(|| {
            let fine = |p: NodeIx| self.allowed(p) || self.slots[p].passed_over;
            node.needs.iter().find(|p| bad(self.slots[**p].outcome) && !fine(**p))
        });
        if let Some(&cause) = cause.filter(|cause| self.slots[**cause].passed_over) {
            return self.unknown_inputs(ix, cause);
        }
        if let Some(&cause) = cause {
            let cancelled = self.slots[cause].outcome == Some(Outcome::Cancelled);
            let outcome = if cancelled { Outcome::Cancelled } else { Outcome::Skipped };
            let verb = self.slots[cause].outcome.map_or("", Outcome::as_str);
            return self.done(ix, outcome, Some(format!("{} {verb}", self.node(cause).id)));
        }
        if self.halting {
            return;
        }
        // a directory is read as it lies there: what nodes make in it comes into place first
        let inside = node.inputs.iter().flat_map(|input| &input.items).filter_map(|item| match item {
            Item::Source { inside, .. } => Some(inside),
            _ => None,
        });
        let unplaced: BTreeSet<NodeIx> =
            inside.flatten().copied().filter(|p| !self.slots[*p].in_place).collect();
        if !unplaced.is_empty() {
            return self.wait_for_bytes(ix, unplaced);
        }
        let verdict = evaluate(&self.session.project, self.finder, &self.session.options, node, &self.slots);
        match verdict {
            Verdict::Absent => {
                self.slots[ix].artifacts = Some(vec![Artifact::Absent; node.outputs.len()]);
                if let Err(error) = publish::absent(self.session, node) {
                    return self.fail(ix, error.into(), None);
                }
                self.slots[ix].in_place = true;
                self.done(ix, Outcome::Absent, Some("an input it takes is absent".to_owned()));
            }
            Verdict::Hit { keyed, record, differing, stale } => self.hit(ix, keyed, record, differing, stale),
            Verdict::Check { keyed, record } => {
                self.queue_run(ix, keyed, Reason::Check.to_string(), Some(record));
            }
            Verdict::Run { keyed, reason } if self.session.options.frozen => {
                self.would_run(ix, keyed, &reason);
            }
            Verdict::Adopt { keyed, reason } => {
                self.slots[ix].key = Some(keyed.key);
                self.slots[ix].reason = Some(format!("adopted: {reason}"));
                self.tasks.insert(ix, Task::Adopt { keyed, reason: reason.to_string() });
                self.push(ix);
            }
            Verdict::Undecided { keyed, reason } => {
                self.slots[ix].key = Some(keyed.key);
                self.fail(ix, undecided(node, &reason.to_string()).into(), None);
            }
            Verdict::Run { keyed, reason } => self.queue_run(ix, keyed, reason.to_string(), None),
            Verdict::Bytes(producer) => self.wait_for_bytes(ix, BTreeSet::from([producer])),
            Verdict::Fault(error) => self.fail(ix, error.into(), None),
        }
    }

    pub(super) fn allowed(&self, ix: NodeIx) -> bool {
        self.node(ix).allow_failure && self.slots[ix].outcome == Some(Outcome::Failed)
    }

    pub(super) fn hit(
        &mut self,
        ix: NodeIx,
        keyed: Keyed,
        record: Arc<ResultRecord>,
        differing: Vec<(usize, Reason)>,
        stale: bool,
    ) {
        let node = self.node(ix);
        let artifacts = artifacts_of(&record, node);
        if self.slots[ix].artifacts.as_ref().is_some_and(|old| *old != artifacts) {
            self.reopen_dependents(ix);
        }
        let slot = &mut self.slots[ix];
        slot.artifacts = Some(artifacts);
        slot.key = Some(keyed.key);
        slot.stale = stale;
        if differing.is_empty() {
            slot.in_place = true;
            if let Err(error) = self.claim(ix, &keyed) {
                return self.fail(ix, error.into(), None);
            }
            self.done(ix, Outcome::Fresh, None);
            return self.bytes_ready(ix, true);
        }
        slot.reason = differing.first().map(|(_, reason)| reason.to_string());
        if self.wanted.contains(ix) || self.byte_waiters.contains_key(&ix) {
            let only = differing.into_iter().map(|(index, _)| index).collect();
            self.tasks.insert(ix, Task::Restore { keyed: Some(keyed), record, only });
            self.push(ix);
        } else {
            self.done(ix, Outcome::Cached, None);
        }
    }

    /// Outputs in place that this workflow has not claimed yet.
    fn claim(&self, ix: NodeIx, keyed: &Keyed) -> Result<()> {
        let node = self.node(ix);
        let project = &self.session.project;
        let known = project.workspace.node_summary(project.root_file(), &node.id).is_some_and(|row| {
            row.key == keyed.key
                && row.outputs.iter().map(|(_, path)| path).eq(node.outputs.iter().map(|output| &output.path))
        });
        if !known {
            let artifacts = self.slots[ix].artifacts.clone().unwrap_or_default();
            publish::claim(self.session, node, &artifacts)?;
            attempt::remember(self.session, node, keyed, None);
        }
        Ok(())
    }

    fn queue_run(&mut self, ix: NodeIx, keyed: Keyed, reason: String, previous: Option<Arc<ResultRecord>>) {
        let node = self.node(ix);
        let flight = keyed.first_key(&self.session.project, node);
        self.slots[ix].key = Some(flight);
        self.slots[ix].reason = Some(reason.clone());
        let options = &self.session.options;
        let cached = !options.no_cache && node.policy != Policy::Never;
        let again = [Reason::Forced.to_string(), Reason::Remeasured.to_string()];
        let share = cached && previous.is_none() && !again.contains(&reason);
        if share {
            match self.flights.entry(flight) {
                Entry::Occupied(mut flight) if flight.get().0 != ix => {
                    flight.get_mut().1.push(ix);
                    return;
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(slot) => {
                    slot.insert((ix, Vec::new()));
                    self.slots[ix].flight = Some(flight);
                }
            }
        }
        self.tasks.insert(ix, Task::Run { keyed, reason, previous, share });
        self.ensure_bytes(ix);
    }
}
