//! The outcomes that each node of a run may have, when it is not known for certain what the cache holds. Unaware of what happened.
//!
//! The reference plans twice: with all that the cache may hold, and with what it holds for certain. A killed run may have left one
//! result and not the other; then the truth of each node lies between the two plans, and so does that of the nodes beside it.

use std::collections::BTreeSet;

use crate::graph::Item;
use crate::plan::Outcome::{self, Cached, Failed, Fresh, Ran, Restored, Skipped};
use crate::world::{Expected, World};

impl World {
    /// For each node, what it may come to.
    pub fn allowed(&self, expected: &Expected) -> Vec<BTreeSet<Outcome>> {
        let Expected { graph, most, least, .. } = expected;
        let mut allowed: Vec<BTreeSet<Outcome>> = (0..graph.nodes.len())
            .map(|node| {
                [&most.outcomes, &least.outcomes, &most.otherwise, &least.otherwise]
                    .into_iter()
                    .filter_map(|outcomes| outcomes[node])
                    .collect()
            })
            .collect();
        // Forward: a result that is perhaps there may be missing although all before it is well.
        for (node, may) in allowed.iter_mut().enumerate() {
            let it = &graph.nodes[node];
            let good = [Fresh, Restored, Cached].iter().any(|good| may.contains(good));
            if good && it.outputs.iter().any(|(_, path)| self.dirty.contains(path)) {
                may.extend([Fresh, Restored, Cached]);
            }
            let unsure = most.keys[node]
                .as_ref()
                .is_some_and(|key| self.cache.has(key, false) && !self.cache.has(key, true));
            let fails = self.trips.contains(&it.step.id) && it.step.trip;
            if good && unsure {
                may.insert(if fails { Failed } else { Ran });
            }
            // it has a result, and what needs its bytes has none: between the two answers
            if may.contains(&Cached) && may.contains(&Ran) {
                may.insert(Restored);
            }
        }
        // Backward: what such a node takes is demanded.
        for node in (0..allowed.len()).rev() {
            if !allowed[node].contains(&Ran) && !allowed[node].contains(&Failed) {
                continue;
            }
            for item in graph.nodes[node].inputs.iter().flat_map(|(_, _, items)| items) {
                let (Item::Made { node: producer, .. } | Item::Within { node: producer, .. }) = item else {
                    continue;
                };
                if allowed[*producer].contains(&Cached) {
                    allowed[*producer].insert(Restored);
                    let mut blobs =
                        most.outputs[*producer].iter().flatten().flatten().flat_map(|c| c.blobs());
                    if blobs.any(|blob| !self.cache.has_blob(&blob, true)) {
                        allowed[*producer].insert(Ran);
                    }
                }
            }
        }
        // Forward again: what fails for that takes others with it.
        for node in 0..allowed.len() {
            let it = &graph.nodes[node];
            // what is certain is in the plans
            let open = |other: &&usize| allowed[**other].len() > 1;
            let skipped = |other: &usize| allowed[*other].contains(&Skipped);
            let failed = |other: &usize| allowed[*other].contains(&Failed);
            let allows = |other: &usize| graph.nodes[*other].step.allow_failure;
            let lost = it.producers.iter().filter(open).any(|other| skipped(other) || failed(other))
                || it
                    .needs
                    .iter()
                    .filter(open)
                    .any(|other| skipped(other) || failed(other) && !allows(other));
            if !allowed[node].is_empty() && lost {
                allowed[node].insert(Skipped);
            }
        }
        allowed
    }
}
