//! Outcomes: reported, passed on to dependents and services. Unaware of why a node ran.

use super::Coordinator;
use crate::engine::attempt::{End, Failure, Finished};
use crate::error::Kind;
use crate::event::{Event, LeasedDevice, NodeReport};
use crate::graph::NodeIx;
use crate::key::Reason;
use crate::model::{Artifact, Outcome};

impl<'s> Coordinator<'s> {
    pub(super) fn finished(&mut self, finished: Finished) {
        let ix = finished.node;
        let dead = self.dead_instances(ix);
        self.scheduler.finish(ix);
        for (service, instance) in dead {
            self.scheduler.instance_died(service, instance);
        }
        if !self.node(ix).services.is_empty() {
            self.retire_unused();
        }
        self.running.remove(&ix);
        let has_pool = |ix: NodeIx| self.node(ix).resources.jobserver.is_some();
        if has_pool(ix) && !self.running.keys().any(|other| has_pool(*other)) {
            self.tokens.settle();
        }
        self.slots[ix].attempts += finished.attempts;
        self.slots[ix].seconds += finished.seconds;
        self.slots[ix].times.timing = finished.timing;
        let after = self.slots[ix].outcome.is_some();
        if let Some(key) = finished.key {
            self.slots[ix].key = Some(key);
        }
        match finished.end {
            End::Ran(artifacts) => {
                let same = self.slots[ix].artifacts.as_ref().is_none_or(|old| *old == artifacts);
                self.slots[ix].artifacts = Some(artifacts);
                self.slots[ix].in_place = true;
                if self.slots[ix].reason.as_deref() == Some(&Reason::Check.to_string()) {
                    self.slots[ix].reason = Some(Reason::SourceChanged.to_string());
                }
                self.land(ix, Outcome::Ran, finished.record, false);
                self.bytes_ready(ix, same);
                if !same {
                    self.reopen_dependents(ix);
                }
            }
            End::Adopted(artifacts) => {
                self.slots[ix].artifacts = Some(artifacts);
                self.slots[ix].in_place = true;
                self.slots[ix].outcome = Some(Outcome::Fresh);
                let mut report = self.report(ix, Outcome::Fresh);
                report.adopted = true;
                self.session.emit(Event::NodeFinished(report));
                self.unlock(ix);
                self.bytes_ready(ix, true);
            }
            End::Stands { artifacts, checked, restored } => {
                self.slots[ix].artifacts = Some(artifacts);
                self.slots[ix].in_place = true;
                let outcome = if restored { Outcome::Restored } else { Outcome::Fresh };
                if after {
                    // a held report of a cached node becomes one of a restored node
                    if let Some(mut report) = self.slots[ix].held_report.take() {
                        report.outcome = Outcome::Restored;
                        report.seconds = finished.seconds;
                        report.timing = self.slots[ix].times.timing.clone();
                        report.bytes = self.bytes(ix);
                        self.session.emit(Event::NodeFinished(report));
                    }
                    self.slots[ix].outcome = Some(Outcome::Restored);
                } else {
                    self.land(ix, outcome, finished.record, checked);
                }
                self.bytes_ready(ix, true);
            }
            End::Lost(what) => self.rerun(ix, &what),
            End::Voided(path) => self.voided(ix, &path, finished.log),
            End::Failed(failure) => self.fail(ix, failure, finished.log),
            End::Cancelled => self.done(ix, Outcome::Cancelled, None),
        }
        self.flight_over(ix);
    }

    /// Those that waited for a node with the same key are looked at again.
    fn flight_over(&mut self, ix: NodeIx) {
        if !self.tasks.contains_key(&ix) {
            self.leave_flight(ix);
        }
    }

    /// A success: reported now, unless it was known before.
    fn land(
        &mut self,
        ix: NodeIx,
        outcome: Outcome,
        record: serde_json::Map<String, serde_json::Value>,
        checked: bool,
    ) {
        self.slots[ix].outcome = Some(outcome);
        let mut report = self.report(ix, outcome);
        report.record = record;
        report.checked = checked;
        if outcome == Outcome::Fresh {
            report.reason = None;
        }
        self.session.emit(Event::NodeFinished(report));
        self.unlock(ix);
    }

    pub(super) fn fail(&mut self, ix: NodeIx, failure: Failure, log: Option<String>) {
        let mut report = self.report(ix, Outcome::Failed);
        self.slots[ix].outcome = Some(Outcome::Failed);
        self.slots[ix].held_report = None;
        self.note_failure(ix, &failure);
        report.allowed = self.forgiven(ix);
        report.error = Some(failure.message);
        report.hints = failure.hints;
        report.tail = failure.tail;
        report.log = log;
        self.session.emit(Event::NodeFinished(report));
        for waiter in self.byte_waiters.remove(&ix).unwrap_or_default() {
            self.plan_anew(waiter);
        }
        self.unlock(ix);
    }

    /// Its failure does not fail the run; a result that is not up to date always does.
    fn forgiven(&self, ix: NodeIx) -> bool {
        self.node(ix).allow_failure && !self.session.options.frozen
    }

    pub(super) fn note_failure(&mut self, ix: NodeIx, failure: &Failure) {
        if self.forgiven(ix) {
            return;
        }
        // a bug outweighs a lack of the machine, and that a failed step
        let weight = |kind: Option<Kind>| match kind {
            None => 0,
            Some(Kind::Bug) => 3,
            Some(Kind::Environment) => 2,
            Some(_) => 1,
        };
        let kind = if weight(Some(failure.kind)) > 1 { failure.kind } else { Kind::Step };
        if weight(Some(kind)) > weight(self.failure) {
            self.failure = Some(kind);
        }
        self.halting |= !(self.session.options.keep_going || self.session.options.frozen);
    }

    pub(super) fn done(&mut self, ix: NodeIx, outcome: Outcome, reason: Option<String>) {
        self.slots[ix].outcome = Some(outcome);
        if reason.is_some() {
            self.slots[ix].reason = reason;
        }
        let report = self.report(ix, outcome);
        if outcome == Outcome::Cached {
            self.slots[ix].held_report = Some(report);
        } else {
            self.session.emit(Event::NodeFinished(report));
        }
        self.unlock(ix);
    }

    pub(super) fn report(&self, ix: NodeIx, outcome: Outcome) -> NodeReport {
        let slot = &self.slots[ix];
        NodeReport {
            id: self.node(ix).id.clone(),
            outcome,
            reason: slot.reason.clone(),
            key: slot.key.map(|key| key.to_string()),
            seconds: slot.seconds,
            attempts: slot.attempts,
            checked: false,
            stale: slot.stale,
            allowed: false,
            adopted: false,
            device: indices(&slot.lease),
            lease: slot.lease.clone(),
            error: None,
            hints: Vec::new(),
            tail: Vec::new(),
            log: None,
            record: serde_json::Map::new(),
            bytes: matches!(outcome, Outcome::Ran | Outcome::Restored).then(|| self.bytes(ix)).flatten(),
            timing: slot.times.timing.clone(),
        }
    }

    /// Bytes of a node's outputs.
    fn bytes(&self, ix: NodeIx) -> Option<u64> {
        self.slots[ix].artifacts.as_ref().map(|artifacts| artifacts.iter().map(Artifact::size).sum())
    }

    /// Dependents lose one thing to wait for; services lose a user. Once per node, also when it is done a second time (its bytes were
    /// lost and made again).
    pub(super) fn unlock(&mut self, ix: NodeIx) {
        if !self.quiet.passed(ix) && std::mem::replace(&mut self.slots[ix].released, true) {
            return;
        }
        self.pass_on(ix);
        if !self.service_users.is_empty() {
            for service in &self.node(ix).services {
                self.service_users[*service] -= 1;
            }
            self.retire_unused();
        }
        let session = self.session;
        // those that nothing concerns are passed over here and now, with what only waits for them
        let mut open = vec![ix];
        while let Some(ix) = open.pop() {
            for dependent in session.project.graph.dependents(ix) {
                // nothing is waited for by what is not selected
                if self.waiting[dependent] == 0 {
                    continue;
                }
                self.waiting[dependent] -= 1;
                if !self.quiet.passed(ix) {
                    self.waited(dependent, ix);
                }
                if self.waiting[dependent] > 0 {
                    continue;
                }
                if self.quiet.pass(dependent) {
                    open.push(dependent);
                } else {
                    self.evaluable.push(dependent, self.priority[dependent]);
                }
            }
        }
    }

    /// After the last job: what never got its turn.
    pub(super) fn close(&mut self) {
        for ix in self.session.project.graph.order.clone() {
            if !self.selection.nodes.contains(ix) || self.quiet.passed(ix) {
                continue;
            }
            if let Some(report) = self.slots[ix].held_report.take() {
                self.session.emit(Event::NodeFinished(report));
            }
            if self.slots[ix].outcome.is_none() {
                let mut before = self.session.project.graph.predecessors(ix);
                let of_failed = before.find(|dep| {
                    matches!(self.slots[*dep].outcome, Some(Outcome::Failed | Outcome::Skipped))
                        && !self.allowed(*dep)
                });
                let (outcome, reason) = match of_failed {
                    Some(dep) => {
                        let verb = self.slots[dep].outcome.map_or("", Outcome::as_str);
                        (Outcome::Skipped, Some(format!("{} {verb}", self.node(dep).id)))
                    }
                    None => (Outcome::Cancelled, None),
                };
                self.done(ix, outcome, reason);
            }
        }
        if self.session.options.frozen {
            self.note_frozen();
        }
        self.tell_quiet();
        if self.session.stopping() {
            let terminated = self.session.interrupts.terminated.is_cancelled();
            self.failure = Some(if terminated { Kind::Terminated } else { Kind::Interrupted });
        }
    }
}

/// `gpu:0,1`; `None` if there are none.
fn indices(lease: &[LeasedDevice]) -> Option<String> {
    let mut indices: Vec<u32> = lease.iter().map(|device| device.index).collect();
    indices.sort_unstable();
    indices.dedup();
    let names: Vec<String> = indices.iter().map(u32::to_string).collect();
    (!names.is_empty()).then(|| format!("gpu:{}", names.join(",")))
}
