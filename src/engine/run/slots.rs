//! What a run knows of its nodes: a slot for each that was looked at. Unaware of how it came to be known.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

use super::timing::Times;
use crate::base::digest::Digest;
use crate::engine::facts::Outputs;
use crate::event::{LeasedDevice, NodeReport};
use crate::graph::NodeIx;
use crate::model::{Artifact, Outcome};

/// A node's part in the run.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) outcome: Option<Outcome>,
    pub(super) artifacts: Option<Vec<Artifact>>,
    pub(super) key: Option<Digest>,
    /// The key for which it leads a flight.
    pub(super) flight: Option<Digest>,
    /// Its outputs are in their declared places.
    pub(super) in_place: bool,
    /// Producers whose bytes it waits for.
    pub(super) bytes: BTreeSet<NodeIx>,
    /// Said once the run knows whether its bytes were asked for.
    pub(super) held_report: Option<NodeReport>,
    pub(super) reason: Option<String>,
    pub(super) stale: bool,
    pub(super) attempts: u32,
    pub(super) seconds: f64,
    pub(super) voided: bool,
    /// Its dependents and services know that it is done.
    pub(super) released: bool,
    pub(super) times: Times,
    /// Devices that it had when it last ran.
    pub(super) lease: Vec<LeasedDevice>,
    /// Runs every time and did not now (`--frozen`).
    pub(super) passed_over: bool,
}

/// The slots of all nodes; one that nothing was noted in reads as blank and takes no room.
pub(super) struct Slots {
    held: Vec<Option<Box<Slot>>>,
    blank: Slot,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self { held: std::iter::repeat_with(|| None).take(count).collect(), blank: Slot::default() }
    }
}

impl Index<NodeIx> for Slots {
    type Output = Slot;

    fn index(&self, ix: NodeIx) -> &Slot {
        self.held[ix].as_deref().unwrap_or(&self.blank)
    }
}

impl IndexMut<NodeIx> for Slots {
    fn index_mut(&mut self, ix: NodeIx) -> &mut Slot {
        self.held[ix].get_or_insert_default()
    }
}

impl Outputs for Slots {
    fn artifacts(&self, node: NodeIx) -> Option<&[Artifact]> {
        self[node].artifacts.as_deref()
    }
}
