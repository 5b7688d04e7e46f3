//! Nodes of a compiled plan that nothing concerns: they are passed over without being read. Unaware of what concerns means for a node.

use super::Coordinator;
use crate::engine::certify::certify;
use crate::engine::grown;
use crate::engine::session::Session;
use crate::event::Event;
use crate::graph::NodeIx;
use crate::model::Outcome;
use crate::store::Content;

/// Which nodes the run has to look at. Without a compiled plan, all of them.
pub(super) struct Quiet {
    /// By node: something it takes or makes is not as the certificate says.
    concerned: Vec<bool>,
    /// By node: passed over.
    passed: Vec<bool>,
    /// How many were passed over.
    count: usize,
    /// Something was made again that nobody expected: what the plan says of the others no longer holds.
    pub(super) broken: bool,
    /// An input changed while the run went on: what was looked at then and now may differ.
    pub(super) shaken: bool,
}

impl Quiet {
    pub(super) fn new(session: &Session) -> Self {
        let count = session.project.known.as_ref().map_or(0, |_| session.project.graph.nodes.len());
        let (mut concerned, passed) = (vec![false; count], vec![false; count]);
        for &root in session.project.known.iter().flat_map(|known| &known.roots) {
            concerned[root] = true;
        }
        Self { concerned, passed, count: 0, broken: false, shaken: false }
    }

    /// Passes over a node that nothing concerns; true if it is one.
    pub(super) fn pass(&mut self, ix: NodeIx) -> bool {
        if self.concerned.get(ix).is_none_or(|concerned| *concerned) {
            return false;
        }
        self.passed[ix] = true;
        self.count += 1;
        true
    }

    /// Whether it was passed over.
    pub(super) fn passed(&self, ix: NodeIx) -> bool {
        self.passed.get(ix).is_some_and(|passed| *passed)
    }
}

impl Coordinator<'_> {
    /// Passes over a node that nothing concerns; true if it is one.
    pub(super) fn keeps_quiet(&mut self, ix: NodeIx) -> bool {
        let Some(known) = &self.session.project.known else { return false };
        if self.quiet.pass(ix) {
            return true;
        }
        // its files were looked at when the certificate was checked
        for (path, content) in known.taken(ix).into_iter().chain(known.made(ix)) {
            self.finder.found(self.session.project.root.join(path), content);
        }
        self.recall_producers(ix);
        false
    }

    /// What the certificate says of the producers that the run has not looked at.
    pub(super) fn recall_producers(&mut self, ix: NodeIx) {
        let Some(known) = &self.session.project.known else { return };
        for &producer in &self.session.project.graph.nodes[ix].producers {
            if self.slots[producer].artifacts.is_none() && !self.quiet.concerned[producer] {
                let slot = &mut self.slots[producer];
                slot.artifacts = Some(known.artifacts(producer));
                for (path, content) in known.made(producer) {
                    self.finder.found(self.session.project.root.join(path), content);
                }
                slot.outcome = Some(Outcome::Fresh);
                slot.in_place = true;
                slot.released = true;
            }
        }
    }

    /// `ix` is done: if it is not as the certificate says, its dependents are concerned.
    pub(super) fn pass_on(&mut self, ix: NodeIx) {
        let Some(known) = &self.session.project.known else { return };
        if self.quiet.passed(ix) {
            return;
        }
        let well = matches!(self.slots[ix].outcome, Some(Outcome::Fresh | Outcome::Restored | Outcome::Ran));
        if well && self.slots[ix].artifacts.as_ref().is_some_and(|now| *now == known.artifacts(ix)) {
            return;
        }
        for dependent in self.session.project.graph.dependents(ix) {
            self.quiet.concerned[dependent] = true;
        }
    }

    /// After a run in which all went well: the next one of this command line can begin from here.
    pub(super) fn certify(&self) {
        let session = self.session;
        let settled = |ix: &NodeIx| {
            // to ask for the node would be to read it
            if self.quiet.passed(*ix) {
                return true;
            }
            let slot = &self.slots[*ix];
            let well = matches!(slot.outcome, Some(Outcome::Fresh | Outcome::Restored | Outcome::Ran));
            // what a command discovered is looked at by the next run
            let looked_at = slot.outcome == Some(Outcome::Fresh) || self.node(*ix).depfile().is_none();
            well && looked_at && !slot.stale
        };
        if self.quiet.broken || self.quiet.shaken || !self.selection.nodes.iter().all(|ix| settled(&ix)) {
            return;
        }
        match &session.project.known {
            None => certify(session, self.finder, &self.selection, &self.slots),
            Some(known) if known.grown.is_some() => {
                let looked_at = self.selection.nodes.iter().filter(|ix| !self.quiet.passed(*ix));
                grown::certify(session, known, self.finder, looked_at, &self.slots);
            }
            Some(known) => {
                let looked_at = self.selection.nodes.iter().filter(|ix| !self.quiet.passed(*ix));
                let artifacts =
                    looked_at.map(|ix| (ix, self.slots[ix].artifacts.as_deref().unwrap_or_default()));
                let stat = |path: &std::path::Path| {
                    self.finder
                        .known(&session.project.root.join(path))
                        .map(|content: std::sync::Arc<Content>| content.stat)
                };
                known.renew(artifacts, &stat);
            }
        }
    }

    /// Says how many nodes were not looked at, since nothing concerned them.
    pub(super) fn tell_quiet(&self) {
        if let Some(known) = &self.session.project.known {
            let nodes = known.certified.nodes - self.selection.nodes.len() + self.quiet.count;
            if nodes > 0 {
                self.session.emit(Event::AllFresh { nodes });
            }
        }
    }
}
