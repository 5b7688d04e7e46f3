//! What can be wanted and what is leased: devices, instances of services, what runs share. Unaware of who has it now.

use std::collections::BTreeMap;
use std::fmt;

use crate::exec::Device;
use crate::graph::{ServiceIx, ServiceNode};
use crate::model::GpuDemand;

/// What a node leases while it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::engine) struct Wants {
    /// Devices of its own.
    pub(in crate::engine) own: Option<GpuDemand>,
    /// Services.
    pub(in crate::engine) uses: Vec<Use>,
}

impl Wants {
    pub(in crate::engine) fn is_nothing(&self) -> bool {
        self.own.is_none() && self.uses.is_empty()
    }
}

/// How a node uses a service.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Use {
    pub(in crate::engine) service: ServiceIx,
    /// Every instance, not only one.
    pub(in crate::engine) whole: bool,
    /// It measures: nobody else uses the instance meanwhile.
    pub(in crate::engine) alone: bool,
}

/// What matters of a service here.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct ServiceKind {
    /// Devices of a place.
    pub(super) demand: Option<GpuDemand>,
    pub(super) places: Places,
    /// Instances in a place.
    pub(super) replicas: usize,
    /// Its places are those of this service.
    pub(super) beside: Option<ServiceIx>,
    /// Services that have to be up as long as it is.
    pub(super) uses: Vec<ServiceIx>,
}

/// How many places a service has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Places {
    Count(usize),
    /// As many as there are devices that fit.
    EachDevice,
}

impl ServiceKind {
    pub(in crate::engine) fn of(service: &ServiceNode) -> Self {
        let replicas = service.replicas as usize;
        let any = GpuDemand { count: 0, mem: 0, model: None };
        let (demand, places, replicas) = match (&service.gpu, service.per_gpu) {
            (demand, true) => {
                let demand = demand.clone().unwrap_or(any);
                let places = match demand.count {
                    0 => Places::EachDevice,
                    count => Places::Count(count as usize),
                };
                (Some(GpuDemand { count: 1, ..demand }), places, replicas)
            }
            (Some(demand), false) => (Some(demand.clone()), Places::Count(replicas), 1),
            (None, false) => (None, Places::Count(1), replicas),
        };
        Self { demand, places, replicas, beside: service.beside, uses: service.uses.clone() }
    }

    /// Devices of a place; `None` if it has none of its own.
    pub(in crate::engine) fn demand(&self) -> Option<&GpuDemand> {
        self.demand.as_ref()
    }

    /// Instances in a place.
    pub(in crate::engine) fn replicas(&self) -> usize {
        self.replicas
    }

    /// How many places it has on these devices.
    pub(in crate::engine) fn places_on(&self, devices: &[Device]) -> usize {
        match self.places {
            Places::Count(count) => count,
            Places::EachDevice => {
                let fits = |device: &&Device| self.demand.as_ref().is_none_or(|demand| device.fits(demand));
                devices.iter().filter(fits).count()
            }
        }
    }
}

/// What a node has while it runs. Devices by their place in the list of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::engine) struct Lease {
    pub(in crate::engine) devices: Vec<usize>,
    pub(in crate::engine) seats: BTreeMap<ServiceIx, Vec<Seat>>,
}

/// One instance of a service, and its devices.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Seat {
    pub(in crate::engine) instance: usize,
    pub(in crate::engine) devices: Vec<usize>,
}

/// What runs of one machine do not have at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::engine) enum Shared {
    /// A device, by its place in the list of all.
    Device(usize),
    /// A slot of a pool that is the machine's.
    Slot(String, u32),
    /// Being the only one that wants to be alone.
    Alone,
}

/// Locks that runs share: what another run has cannot be had now.
pub(in crate::engine) trait Locks: fmt::Debug + Send {
    /// Takes it; false if another run has it.
    fn take(&mut self, what: &Shared) -> bool;
    /// Gives it back.
    fn give(&mut self, what: &Shared);
}

/// Nobody else is there.
#[derive(Debug, Default)]
pub(in crate::engine) struct NoLocks;

impl Locks for NoLocks {
    fn take(&mut self, _what: &Shared) -> bool {
        true
    }

    fn give(&mut self, _what: &Shared) {}
}
