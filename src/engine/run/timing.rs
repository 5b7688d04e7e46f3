//! When nodes began, and what they waited for: what the record needs to tell which chain of nodes decided the wall time. Unaware
//! of what nodes do.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::Coordinator;
use crate::event::{Begin, Event, Held, Timing};
use crate::graph::NodeIx;

/// Of one node.
#[derive(Default)]
pub(super) struct Times {
    /// When it was ready, a stamp.
    queued: f64,
    /// Nodes that did something and whose end it waited for, the last one first.
    after: [Place; 2],
    /// Itself once it had something to do; else the last of those it waited for.
    last: Place,
    /// Of what it did last, for its report.
    pub(super) timing: Option<Box<Timing>>,
}

/// A node or none, in few bytes: there is one of these for each of very many nodes.
#[derive(Clone, Copy, Default, PartialEq)]
struct Place(Option<NonZeroU32>);

impl Place {
    fn of(ix: NodeIx) -> Self {
        Self(u32::try_from(ix + 1).ok().and_then(NonZeroU32::new))
    }

    fn node(self) -> Option<NodeIx> {
        self.0.map(|place| place.get() as NodeIx - 1)
    }
}

/// When the run last said that it goes on.
pub(super) struct Pulse(Instant);

impl Default for Pulse {
    fn default() -> Self {
        Self(Instant::now())
    }
}

/// Shortest time between two signs of life; after a while they come every 2 % of the time since the start.
const PULSE: Duration = Duration::from_millis(100);

impl Coordinator<'_> {
    /// `ix` has something to do, and all it takes for that is there.
    pub(super) fn queued(&mut self, ix: NodeIx) {
        self.slots[ix].times.queued = self.session.stamp(Instant::now());
    }

    /// `ix` begins: why now.
    pub(super) fn begins(&mut self, ix: NodeIx) -> Begin {
        let times = &mut self.slots[ix].times;
        times.last = Place::of(ix);
        let (queued, after) = (times.queued, times.after);
        let name = |ix: NodeIx| self.node(ix).id.clone();
        Begin {
            queued,
            began: self.session.stamp(Instant::now()),
            after: after.into_iter().filter_map(Place::node).map(name).collect(),
            held: self.scheduler.held(ix).map(|(node, by)| Held { by, node: name(node) }),
        }
    }

    /// `waiter` waited for the end of `ix`.
    pub(super) fn waited(&mut self, waiter: NodeIx, ix: NodeIx) {
        let last = self.slots[ix].times.last;
        let waiter = (&mut self.slots[waiter].times, Place::of(waiter));
        if last == Place::default() || last == waiter.1 {
            return;
        }
        let (times, own) = waiter;
        if times.after[0] != last {
            times.after = [last, times.after[0]];
        }
        if times.last != own {
            times.last = last;
        }
    }

    /// Says now and then that the run goes on.
    pub(super) fn pulse(&mut self) {
        let due = PULSE.max(self.session.started.elapsed() / 50);
        if self.pulse.0.elapsed() >= due {
            self.pulse = Pulse::default();
            let (running, ready) = (self.scheduler.running(), self.scheduler.ready());
            self.session.emit(Event::Alive { running, ready });
        }
    }
}
