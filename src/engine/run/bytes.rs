//! Bytes that a queued node waits for: restored, lost, changed meanwhile. Unaware of how they are moved.

use std::collections::BTreeSet;

use super::{Coordinator, would_run};
use crate::engine::attempt::{Failure, Task};
use crate::engine::command;
use crate::engine::evaluate::{Keyed, differing, looks};
use crate::event::Event;
use crate::graph::{Input, NodeIx};
use crate::key::Reason;
use crate::model::{Outcome, Policy};

impl<'s> Coordinator<'s> {
    /// Queues `ix` once every file it takes is in place; restores of producers are queued for that.
    pub(super) fn ensure_bytes(&mut self, ix: NodeIx) {
        let mut missing = BTreeSet::new();
        for item in self.present_items(ix).into_iter().flatten() {
            missing.extend(item.producers().into_iter().filter(|p| !self.slots[*p].in_place));
        }
        // what it will read of the nodes that it needs only its depfile tells, afterwards
        let made = |p: &NodeIx| self.slots[*p].artifacts.is_some() && !self.slots[*p].in_place;
        if self.node(ix).depfile().is_some() {
            missing.extend(self.node(ix).feeders().filter(made));
        }
        if missing.is_empty() {
            return self.push(ix);
        }
        self.wait_for_bytes(ix, missing);
    }

    /// `ix` goes on once the outputs of these nodes are in place: it is queued if it has a task, else looked at again.
    pub(super) fn wait_for_bytes(&mut self, ix: NodeIx, missing: BTreeSet<NodeIx>) {
        self.slots[ix].bytes = missing.clone();
        for producer in missing {
            let waiters = self.byte_waiters.entry(producer).or_default();
            waiters.push(ix);
            if waiters.len() == 1 {
                self.queue_restore(producer);
            }
        }
    }

    /// A node that was a hit whose bytes nobody wanted: now somebody does.
    fn queue_restore(&mut self, ix: NodeIx) {
        let key = self.slots[ix].key.or_else(|| self.last_key(ix));
        let record = key.and_then(|key| self.session.project.store.result(&key).ok().flatten());
        match record {
            Some(record) => {
                let only = (0..self.node(ix).outputs.len()).collect();
                self.tasks.insert(ix, Task::Restore { keyed: None, record, only });
                self.push(ix);
            }
            None => self.rerun(ix, "its result"),
        }
    }

    /// The key of the last success of a node that this run did not look at.
    fn last_key(&self, ix: NodeIx) -> Option<crate::base::digest::Digest> {
        let project = &self.session.project;
        project.known.as_ref()?;
        Some(project.workspace.node_summary(project.root_file(), &self.node(ix).id)?.key)
    }

    /// Bytes of a known result are gone: its node runs again, whatever the cache says.
    pub(super) fn rerun(&mut self, ix: NodeIx, what: &str) {
        let node = self.node(ix);
        let reason = Reason::BytesLost(what.to_owned());
        if self.session.options.frozen {
            self.tasks.remove(&ix);
            return self.lost_for_good(ix, would_run(&reason.to_string()));
        }
        if node.policy == Policy::Sample {
            self.tasks.remove(&ix);
            let failure = Failure {
                hints: vec![format!("measure again with --remeasure '{}'", node.id)],
                ..Failure::new(format!("{reason}, and a measurement is never repeated by itself"))
            };
            self.slots[ix].reason = Some(reason.to_string());
            return self.lost_for_good(ix, failure);
        }
        if let Some(error) = self.session.project.lacks(node) {
            self.tasks.remove(&ix);
            self.slots[ix].reason = Some(reason.to_string());
            return self.lost_for_good(ix, error.into());
        }
        self.recall_producers(ix);
        let facts = self.finder.facts(&self.session.project, node, &self.slots);
        match facts {
            Ok(facts) => {
                self.session.note(format!("{}: {reason}; it runs again", node.id));
                let keyed = Keyed::new(&self.session.project, node, facts);
                self.slots[ix].reason = Some(reason.to_string());
                self.slots[ix].outcome = None;
                self.slots[ix].held_report = None;
                self.tasks.insert(
                    ix,
                    Task::Run { keyed, reason: reason.to_string(), previous: None, share: false },
                );
                self.ensure_bytes(ix);
            }
            Err(_) => self.lost_for_good(ix, Failure::new(format!("{reason}, and its inputs are gone"))),
        }
    }

    fn lost_for_good(&mut self, ix: NodeIx, failure: Failure) {
        self.slots[ix].outcome = Some(Outcome::Failed);
        self.slots[ix].held_report = None;
        self.note_failure(ix, &failure);
        let mut report = self.report(ix, Outcome::Failed);
        report.error = Some(failure.message);
        report.hints = failure.hints;
        self.session.emit(Event::NodeFinished(report));
        for waiter in self.byte_waiters.remove(&ix).unwrap_or_default() {
            self.plan_anew(waiter);
        }
        // those that were only waiting for the key go on; those that need the bytes are skipped when evaluated
        self.unlock(ix);
    }

    pub(super) fn voided(&mut self, ix: NodeIx, path: &str, log: Option<String>) {
        let path = if path.is_empty() { "." } else { path };
        self.quiet.shaken = true;
        if self.slots[ix].voided {
            let implicit = self.node(ix).inputs.iter().any(|input| {
                input.implicit && input.items.iter().any(|i| self.session.project.graph.item_path(i) == path)
            });
            let mut failure = Failure::new(format!("input {path} keeps changing"));
            let declared =
                |input: &Input| input.items.iter().any(|i| self.session.project.graph.item_path(i) == path);
            if self.node(ix).depfile().is_some() && !self.node(ix).inputs.iter().any(declared) {
                failure.hints.push(format!(
                    "the depfile names {path}; if the command itself writes it, declare it as an output"
                ));
            } else if implicit && command::is_command(self.node(ix)) {
                failure.hints.push(format!(
                    "{path} is an input because it stands in the command; if the command writes it, declare it as an output"
                ));
            } else {
                failure.hints.push("run again when nothing else writes to it".to_owned());
            }
            return self.fail(ix, failure, log);
        }
        self.slots[ix].voided = true;
        self.session.note(format!("{}: {path} changed meanwhile; planned again", self.node(ix).id));
        self.finder.forget(&self.session.project.root.join(path));
        // an input made by a node may have been damaged: look at its place again
        for producer in self.node(ix).feeders() {
            let record = self.slots[producer]
                .key
                .or_else(|| self.last_key(producer))
                .and_then(|key| self.session.project.store.result(&key).ok().flatten());
            if let Some(record) = record {
                for look in looks(&self.session.project, self.node(producer)) {
                    self.finder.forget(&look.path);
                }
                let differing = differing(&self.session.project, self.finder, self.node(producer), &record);
                self.slots[producer].in_place = differing.is_ok_and(|differing| differing.is_empty());
            }
        }
        self.leave_flight(ix);
        self.evaluable.push(ix, self.priority[ix]);
    }

    /// The bytes of `ix` are in place: its waiters go on. If they are not what was expected, their keys are made anew.
    pub(super) fn bytes_ready(&mut self, ix: NodeIx, same: bool) {
        for waiter in self.byte_waiters.remove(&ix).unwrap_or_default() {
            self.slots[waiter].bytes.remove(&ix);
            self.waited(waiter, ix);
            if !same {
                self.plan_anew(waiter);
                continue;
            }
            if !self.slots[waiter].bytes.is_empty() || self.running.contains_key(&waiter) {
                continue;
            }
            if self.tasks.contains_key(&waiter) {
                self.push(waiter);
            } else {
                self.evaluable.push(waiter, self.priority[waiter]);
            }
        }
    }

    /// What a node waiting for bytes was about to do is dropped; it is looked at again.
    pub(super) fn plan_anew(&mut self, waiter: NodeIx) {
        if self.running.contains_key(&waiter) {
            return;
        }
        self.scheduler.remove(waiter);
        self.tasks.remove(&waiter);
        self.slots[waiter].bytes.clear();
        self.leave_flight(waiter);
        self.evaluable.push(waiter, self.priority[waiter]);
    }

    /// `ix` no longer is the one that makes the result of its key: those that wait for it are looked at again.
    pub(super) fn leave_flight(&mut self, ix: NodeIx) {
        if let Some(key) = self.slots[ix].flight.take()
            && self.flights.get(&key).is_some_and(|(leader, _)| *leader == ix)
            && let Some((_, waiting)) = self.flights.remove(&key)
        {
            for &waiter in &waiting {
                self.waited(waiter, ix);
            }
            for waiter in waiting {
                self.evaluable.push(waiter, self.priority[waiter]);
            }
        }
    }

    /// `ix` ran again for bytes that were lost and made others: what was found by the old ones no longer stands.
    pub(super) fn reopen_dependents(&mut self, ix: NodeIx) {
        self.quiet.broken |= self.session.project.known.is_some();
        let dependents: Vec<NodeIx> = self.session.project.graph.dependents(ix).collect();
        for dependent in dependents {
            let takes = self.node(dependent).feeders().any(|feeder| feeder == ix);
            let slot = &mut self.slots[dependent];
            let found = matches!(
                slot.outcome,
                Some(Outcome::Fresh | Outcome::Cached | Outcome::Restored | Outcome::Ran | Outcome::Absent)
            );
            if !takes || self.waiting[dependent] > 0 || !(found || self.tasks.contains_key(&dependent)) {
                continue;
            }
            slot.outcome = None;
            slot.held_report = None;
            self.plan_anew(dependent);
        }
    }
}
