//! Who has which device, and which instances of services are up on them. Pure: no processes, and locks by a trait.
//!
//! A node's own devices and the instances of all services it uses are leased together or not at all. So two nodes never hold what the
//! other waits for. Instances stay up when their user is done; those that nobody uses give way when their devices are wanted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
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
    demand: Option<GpuDemand>,
    places: Places,
    /// Instances in a place.
    replicas: usize,
    /// Its places are those of this service.
    beside: Option<ServiceIx>,
    /// Services that have to be up as long as it is.
    uses: Vec<ServiceIx>,
}

/// How many places a service has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Places {
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
    /// Instances that nobody uses and that have to be ended first: their devices are in this lease.
    pub(in crate::engine) ends: Vec<(ServiceIx, usize)>,
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

/// One process of a service.
#[derive(Clone, Debug, Default)]
struct Instance {
    up: bool,
    users: usize,
    /// Its user is the only one it may have.
    alone: bool,
    /// It ended by itself, and is never started again.
    dead: bool,
}

/// Where instances of a service can be: on the same devices, or on none.
#[derive(Clone, Debug, Default)]
struct Place {
    devices: Vec<usize>,
    /// Its devices are its own now.
    leased: bool,
    instances: Vec<Instance>,
}

impl Place {
    fn is_idle(&self) -> bool {
        self.instances.iter().all(|instance| instance.users == 0)
    }
}

/// What changes.
#[derive(Clone, Debug, Default)]
struct State {
    taken: Vec<bool>,
    places: Vec<Vec<Place>>,
}

/// All devices and all services of a run.
#[derive(Debug)]
pub(in crate::engine) struct Fleet {
    devices: Vec<Device>,
    kinds: Vec<ServiceKind>,
    state: State,
    locks: Box<dyn Locks>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new(), Box::new(NoLocks))
    }
}

impl Fleet {
    pub(in crate::engine) fn new(
        devices: Vec<Device>,
        kinds: Vec<ServiceKind>,
        locks: Box<dyn Locks>,
    ) -> Self {
        let state = State::new(&devices, &kinds);
        Self { devices, kinds, state, locks }
    }

    /// Whether this could be leased if nobody else had anything.
    pub(in crate::engine) fn fits_ever(&self, wants: &Wants) -> bool {
        let mut fresh = State::new(&self.devices, &self.kinds);
        self.plan(&mut fresh, wants, &BTreeSet::new()).is_some()
    }

    /// Whether this could be leased now, were it not for other runs.
    pub(super) fn could(&self, wants: &Wants) -> bool {
        wants.is_nothing() || self.plan(&mut self.state.clone(), wants, &BTreeSet::new()).is_some()
    }

    /// Leases all of it, or nothing.
    pub(in crate::engine) fn take(&mut self, wants: &Wants) -> Option<Lease> {
        if wants.is_nothing() {
            return Some(Lease::default());
        }
        let mut away = BTreeSet::new();
        loop {
            let mut next = self.state.clone();
            let lease = self.plan(&mut next, wants, &away)?;
            let news: Vec<usize> =
                (0..self.devices.len()).filter(|at| next.taken[*at] && !self.state.taken[*at]).collect();
            let denied = news.iter().position(|device| !self.locks.take(&Shared::Device(*device)));
            if let Some(denied) = denied {
                news[..denied].iter().for_each(|device| self.locks.give(&Shared::Device(*device)));
                away.insert(news[denied]);
                continue;
            }
            self.become_state(next);
            return Some(lease);
        }
    }

    /// Its user is done.
    pub(super) fn give(&mut self, lease: &Lease) {
        let mut next = self.state.clone();
        for device in &lease.devices {
            next.taken[*device] = false;
        }
        for (service, seats) in &lease.seats {
            for seat in seats {
                let instance = self.instance(&mut next, *service, seat.instance);
                instance.users = instance.users.saturating_sub(1);
                instance.alone = false;
            }
        }
        self.become_state(next);
    }

    /// No instance of this service is up any more, but for those that are used again.
    pub(super) fn stopped(&mut self, service: ServiceIx) {
        let mut next = self.state.clone();
        for place in &mut next.places[service] {
            place.instances.iter_mut().for_each(|instance| instance.up &= instance.users > 0);
        }
        self.settle(&mut next);
        self.become_state(next);
    }

    /// An instance ended by itself.
    pub(super) fn died(&mut self, service: ServiceIx, instance: usize) {
        let mut next = self.state.clone();
        let instance = self.instance(&mut next, service, instance);
        (instance.up, instance.dead) = (false, true);
        self.settle(&mut next);
        self.become_state(next);
    }

    fn become_state(&mut self, next: State) {
        let before = std::mem::replace(&mut self.state, next);
        for (device, taken) in before.taken.iter().enumerate() {
            if *taken && !self.state.taken[device] {
                self.locks.give(&Shared::Device(device));
            }
        }
    }

    /// Slots `count` of the `size` of a pool that is the machine's; `None` if other runs have too many.
    pub(super) fn take_slots(&mut self, pool: &str, count: u32, size: u32) -> Option<Vec<Shared>> {
        let mut taken = Vec::new();
        for slot in 0..size {
            if taken.len() == count as usize {
                break;
            }
            let slot = Shared::Slot(pool.to_owned(), slot);
            if self.locks.take(&slot) {
                taken.push(slot);
            }
        }
        if taken.len() == count as usize {
            return Some(taken);
        }
        taken.iter().for_each(|slot| self.locks.give(slot));
        None
    }

    /// Takes what only one run may have.
    pub(super) fn take_shared(&mut self, what: &Shared) -> bool {
        self.locks.take(what)
    }

    /// Gives such things back.
    pub(super) fn give_shared(&mut self, what: &[Shared]) {
        what.iter().for_each(|what| self.locks.give(what));
    }

    fn instance<'s>(&self, state: &'s mut State, service: ServiceIx, instance: usize) -> &'s mut Instance {
        let replicas = self.kinds[service].replicas;
        &mut state.places[service][instance / replicas].instances[instance % replicas]
    }

    /// Gives devices free on which nothing is up.
    fn settle(&self, state: &mut State) {
        for service in 0..self.kinds.len() {
            for at in 0..state.places[service].len() {
                let in_use = |service: ServiceIx| {
                    state.places[service].get(at).is_some_and(|place| {
                        place.instances.iter().any(|instance| instance.up || instance.users > 0)
                    })
                };
                let guests = self.guests(service).any(in_use);
                if state.places[service][at].leased && !in_use(service) && !guests {
                    self.vacate(state, service, at);
                }
            }
        }
    }

    fn vacate(&self, state: &mut State, service: ServiceIx, at: usize) {
        let place = &mut state.places[service][at];
        place.leased = false;
        for device in std::mem::take(&mut place.devices) {
            state.taken[device] = false;
        }
    }

    /// Services that are on the devices of this one.
    fn guests(&self, service: ServiceIx) -> impl Iterator<Item = ServiceIx> {
        (0..self.kinds.len()).filter(move |guest| self.kinds[*guest].beside == Some(service))
    }

    /// Leases all of it in `state`.
    fn plan(&self, state: &mut State, wants: &Wants, away: &BTreeSet<usize>) -> Option<Lease> {
        let mut next = state.clone();
        let lease = self.plan_beside(&mut next, wants, Lease::default(), away).or_else(|| {
            // where instances that nobody uses happen to be must not decide whether there is room
            let mut ends = Vec::new();
            next = state.clone();
            while self.end_one(&mut next, &|_| true, &mut ends) {}
            self.plan_beside(&mut next, wants, Lease { ends, ..Lease::default() }, away)
        })?;
        *state = next;
        Some(lease)
    }

    /// Leases all of it beside what is up.
    fn plan_beside(
        &self,
        state: &mut State,
        wants: &Wants,
        mut lease: Lease,
        away: &BTreeSet<usize>,
    ) -> Option<Lease> {
        let host = |one: &Use| self.kinds[one.service].beside.unwrap_or(one.service);
        let mut parts: Vec<Part<'_>> =
            wants.own.iter().map(Part::Own).chain(wants.uses.iter().map(Part::Use)).collect();
        // those that fewest devices will do for choose first; a guest comes after its host
        parts.sort_by_key(|part| {
            let (demand, guest) = match part {
                Part::Own(demand) => (Some(*demand), false),
                Part::Use(one) => (self.kinds[host(one)].demand.as_ref(), host(one) != one.service),
            };
            let strict = demand.map(|demand| (demand.model.is_some(), demand.mem, demand.count));
            (Reverse(strict), guest)
        });
        for part in parts {
            match part {
                Part::Own(demand) => {
                    lease.devices = self.choose(state, demand, away, &mut lease.ends, true)?;
                }
                Part::Use(one) => {
                    let seats = match one.whole {
                        true => self.all_seats(state, one, away, &mut lease)?,
                        false => vec![self.one_seat(state, one, away, &mut lease)?],
                    };
                    lease.seats.insert(one.service, seats);
                }
            }
        }
        Some(lease)
    }

    fn all_seats(
        &self,
        state: &mut State,
        one: &Use,
        away: &BTreeSet<usize>,
        lease: &mut Lease,
    ) -> Option<Vec<Seat>> {
        let count = state.places[one.service].len() * self.kinds[one.service].replicas;
        // a place that is to be used must not give way to another
        for instance in 0..count {
            let found = self.instance(state, one.service, instance);
            if found.alone || (one.alone && found.users > 0) {
                return None;
            }
            found.users += 1;
        }
        let mut seats = Vec::with_capacity(count);
        for instance in 0..count {
            self.instance(state, one.service, instance).users -= 1;
            seats.push(self.sit(state, one, instance, away, &mut lease.ends, true)?);
        }
        (!seats.is_empty()).then_some(seats)
    }

    /// One instance: an idle one, else one on devices that are its own or free, else one that others use, too, else one on devices of
    /// instances that nobody uses.
    fn one_seat(
        &self,
        state: &mut State,
        one: &Use,
        away: &BTreeSet<usize>,
        lease: &mut Lease,
    ) -> Option<Seat> {
        let kind = &self.kinds[one.service];
        let replicas = kind.replicas;
        // a node that uses the host, too, gets the guest beside it
        let beside = kind.beside.and_then(|host| {
            let seat = lease.seats.get(&host)?.first()?;
            Some(seat.instance / self.kinds[host].replicas)
        });
        let mut open: Vec<(u8, usize, usize)> = Vec::new();
        for (at, place) in state.places[one.service].iter().enumerate() {
            if beside.is_some_and(|wanted| wanted != at) {
                continue;
            }
            for (replica, instance) in place.instances.iter().enumerate() {
                if instance.alone || (one.alone && instance.users > 0) {
                    continue;
                }
                let class = match instance {
                    Instance { dead: true, .. } => 3,
                    Instance { up: true, users: 0, .. } => 0,
                    Instance { users: 0, .. } => 1,
                    _ => 2,
                };
                open.push((class, instance.users, at * replicas + replica));
            }
        }
        open.sort_unstable();
        // to end others costs the time of a start: sharing comes before it
        [false, true].into_iter().find_map(|ending| {
            open.iter().find_map(|&(_, _, instance)| {
                let (mut next, mut ends) = (state.clone(), lease.ends.clone());
                let seat = self.sit(&mut next, one, instance, away, &mut ends, ending)?;
                (*state, lease.ends) = (next, ends);
                Some(seat)
            })
        })
    }

    /// Uses an instance, on devices that its place has or gets.
    fn sit(
        &self,
        state: &mut State,
        one: &Use,
        instance: usize,
        away: &BTreeSet<usize>,
        ends: &mut Vec<(ServiceIx, usize)>,
        ending: bool,
    ) -> Option<Seat> {
        let kind = &self.kinds[one.service];
        let host = kind.beside.unwrap_or(one.service);
        let at = instance / kind.replicas;
        let found = self.instance(state, one.service, instance);
        let is_dead = found.dead;
        found.users += 1;
        found.alone = one.alone;
        if !is_dead {
            found.up = true;
            let demand = self.kinds[host].demand.as_ref().filter(|_| !state.places[host][at].leased);
            if let Some(demand) = demand {
                let devices = self.choose(state, demand, away, ends, ending)?;
                let place = &mut state.places[host][at];
                (place.leased, place.devices) = (true, devices);
            }
        }
        Some(Seat { instance, devices: state.places[host][at].devices.clone() })
    }

    /// So many free devices that fit: those with the least memory, so that others find what they need. `ending`: instances that nobody
    /// uses may give way.
    fn choose(
        &self,
        state: &mut State,
        demand: &GpuDemand,
        away: &BTreeSet<usize>,
        ends: &mut Vec<(ServiceIx, usize)>,
        ending: bool,
    ) -> Option<Vec<usize>> {
        let count = demand.count as usize;
        loop {
            let free = |at: &usize| !state.taken[*at] && !away.contains(at) && self.devices[*at].fits(demand);
            let mut open: Vec<usize> = (0..self.devices.len()).filter(free).collect();
            if open.len() >= count {
                open.sort_by_key(|at| (self.devices[*at].memory, *at));
                open.truncate(count);
                open.sort_unstable();
                open.iter().for_each(|at| state.taken[*at] = true);
                return Some(open);
            }
            if !ending || !self.end_one(state, &|at| self.devices[at].fits(demand), ends) {
                return None;
            }
        }
    }

    /// Ends the instances of one place that nobody uses and that has a device that would do. False if there is none.
    fn end_one(
        &self,
        state: &mut State,
        would_do: &dyn Fn(usize) -> bool,
        ends: &mut Vec<(ServiceIx, usize)>,
    ) -> bool {
        let would_do = |place: &Place| place.devices.iter().any(|at| would_do(*at));
        let found = (0..self.kinds.len()).find_map(|service| {
            let at = (0..state.places[service].len()).find(|at| {
                let place = &state.places[service][*at];
                let guests_idle = self.guests(service).all(|guest| state.places[guest][*at].is_idle());
                let dependents = self.dependents(service);
                let dependents_idle =
                    dependents.iter().all(|one| state.places[*one].iter().all(Place::is_idle));
                place.leased && place.is_idle() && guests_idle && dependents_idle && would_do(place)
            })?;
            Some((service, at))
        });
        let Some((service, at)) = found else { return false };
        // what needs it is ended first: all of it, since it refers to all instances
        for dependent in self.dependents(service) {
            for at in 0..state.places[dependent].len() {
                self.end(state, dependent, at, ends);
            }
        }
        for ended in self.guests(service).chain([service]) {
            self.end(state, ended, at, ends);
        }
        true
    }

    /// Ends the instances of a place.
    fn end(&self, state: &mut State, service: ServiceIx, at: usize, ends: &mut Vec<(ServiceIx, usize)>) {
        let replicas = self.kinds[service].replicas;
        for (replica, instance) in state.places[service][at].instances.iter_mut().enumerate() {
            if std::mem::take(&mut instance.up) {
                ends.push((service, at * replicas + replica));
            }
        }
        if state.places[service][at].leased {
            self.vacate(state, service, at);
        }
    }

    /// Services that are up only as long as this one is, outermost first.
    fn dependents(&self, service: ServiceIx) -> Vec<ServiceIx> {
        let mut found = Vec::new();
        let mut open = vec![service];
        while let Some(next) = open.pop() {
            for dependent in (0..self.kinds.len()).filter(|one| self.kinds[*one].uses.contains(&next)) {
                found.retain(|known| *known != dependent);
                found.push(dependent);
                open.push(dependent);
            }
        }
        found.reverse();
        found
    }
}

/// What is leased in one go.
enum Part<'w> {
    Own(&'w GpuDemand),
    Use(&'w Use),
}

impl State {
    fn new(devices: &[Device], kinds: &[ServiceKind]) -> Self {
        let places = kinds.iter().map(|kind| {
            let host = kind.beside.map_or(kind, |host| &kinds[host]);
            let place = Place { instances: vec![Instance::default(); kind.replicas], ..Place::default() };
            vec![place; host.places_on(devices)]
        });
        Self { taken: vec![false; devices.len()], places: places.collect() }
    }
}

#[cfg(test)]
mod tests;
