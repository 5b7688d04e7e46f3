//! Who has which device, and which instances of services are up on them. Pure: no processes, and locks by a trait.
//!
//! A node's own devices and the instances of all services it uses are leased together or not at all. So two nodes never hold what the
//! other waits for. Instances stay up when their user is done; those that nobody uses are ended when their devices are wanted, and who
//! wants them waits until they have ended.

mod wants;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::exec::Device;
use crate::graph::ServiceIx;
use crate::model::GpuDemand;

pub(in crate::engine) use wants::{Lease, Locks, NoLocks, Seat, ServiceKind, Shared, Use, Wants};

/// One process of a service.
#[derive(Clone, Debug, Default)]
struct Instance {
    up: bool,
    users: usize,
    /// Its user is the only one it may have.
    alone: bool,
    /// It ended by itself, and is never started again.
    dead: bool,
    /// It is being ended: not to be used, and its devices are not free yet.
    ending: bool,
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

    fn is_ending(&self) -> bool {
        self.instances.iter().any(|instance| instance.ending)
    }

    fn is_in_use(&self) -> bool {
        self.instances.iter().any(|instance| instance.up || instance.users > 0 || instance.ending)
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
    /// Devices that other runs had when they were last asked for.
    away: BTreeSet<usize>,
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
        Self { devices, kinds, state, locks, away: BTreeSet::new() }
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
            self.away.extend(denied.map(|at| news[at]));
            for device in &news[..denied.unwrap_or(news.len())] {
                self.away.remove(device);
            }
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
        self.settle(&mut next);
        self.become_state(next);
    }

    /// Begins to end instances that nobody uses, as many as it takes for this to be leased; none if that does not help, or if what is
    /// being ended already is enough.
    pub(super) fn make_room(&mut self, wants: &Wants) -> Vec<(ServiceIx, usize)> {
        let mut then = self.state.clone();
        // what is being ended will be gone
        for service in 0..self.kinds.len() {
            for at in 0..then.places[service].len() {
                then.places[service][at].instances.iter_mut().for_each(|instance| instance.ending = false);
            }
        }
        self.settle(&mut then);
        // rather without what other runs have; else what they wait for is to be free
        let ends = self.ends_for(then.clone(), wants, &self.away);
        let ends = ends.or_else(|| self.ends_for(then, wants, &BTreeSet::new())).unwrap_or_default();
        self.begin_to_end(&ends);
        ends
    }

    /// What has to be ended until this fits into `then`; `None` if it never does.
    fn ends_for(
        &self,
        mut then: State,
        wants: &Wants,
        away: &BTreeSet<usize>,
    ) -> Option<Vec<(ServiceIx, usize)>> {
        let mut ends = Vec::new();
        while self.plan(&mut then.clone(), wants, away).is_none() {
            let tied = self.idle(&then, wants)?;
            for (service, at) in tied {
                let replicas = self.kinds[service].replicas;
                let up = then.places[service][at].instances.iter().enumerate().filter(|(_, one)| one.up);
                ends.extend(up.map(|(replica, _)| (service, at * replicas + replica)));
                self.clear(&mut then, service, at);
            }
        }
        Some(ends)
    }

    /// Begins to end a service that nobody will use any more. Nothing yet as long as an instance is used, or a service is up that needs it.
    pub(super) fn retire(&mut self, service: ServiceIx) -> Vec<(ServiceIx, usize)> {
        let up = |service: ServiceIx| self.state.places[service].iter().any(Place::is_in_use);
        if self.dependents(service).into_iter().any(up) {
            return Vec::new();
        }
        let instances = self.state.places[service].iter().flat_map(|place| &place.instances).enumerate();
        let idle = instances.filter(|(_, one)| one.up && one.users == 0 && !one.ending);
        let ends: Vec<_> = idle.map(|(instance, _)| (service, instance)).collect();
        self.begin_to_end(&ends);
        ends
    }

    fn begin_to_end(&mut self, ends: &[(ServiceIx, usize)]) {
        let mut next = self.state.clone();
        for (service, instance) in ends {
            let instance = self.instance(&mut next, *service, *instance);
            (instance.up, instance.ending) = (false, true);
        }
        self.become_state(next);
    }

    /// An instance that was being ended is gone; `dead`: it had ended by itself before.
    pub(super) fn ended(&mut self, service: ServiceIx, instance: usize, dead: bool) {
        let mut next = self.state.clone();
        let instance = self.instance(&mut next, service, instance);
        instance.ending = false;
        instance.dead |= dead;
        self.settle(&mut next);
        self.become_state(next);
    }

    /// Instances that are up and that nobody uses.
    pub(super) fn idle_instances(&self) -> Vec<(ServiceIx, usize)> {
        let of = |(service, places): (usize, &Vec<Place>)| {
            let all = places.iter().flat_map(|place| &place.instances).enumerate();
            let idle = all.filter(|(_, one)| one.up && one.users == 0 && !one.ending);
            idle.map(|(instance, _)| (service, instance)).collect::<Vec<_>>()
        };
        self.state.places.iter().enumerate().flat_map(of).collect()
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
                let in_use = |service: ServiceIx| state.places[service].get(at).is_some_and(Place::is_in_use);
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

    /// Leases all of it in `state`, or leaves `state` in a state of no use.
    fn plan(&self, state: &mut State, wants: &Wants, away: &BTreeSet<usize>) -> Option<Lease> {
        let mut lease = Lease::default();
        let host = |one: &Use| self.kinds[one.service].beside.unwrap_or(one.service);
        let mut parts: Vec<Part<'_>> =
            wants.own.iter().map(Part::Own).chain(wants.uses.iter().map(Part::Use)).collect();
        // those that fewest devices will do for choose first; a guest comes after its host
        parts.sort_by_key(|part| {
            let (demand, guest) = match part {
                Part::Own(demand) => (Some(*demand), false),
                Part::Use(one) => (self.kinds[host(one)].demand.as_ref(), host(one) != one.service),
            };
            let fitting =
                |demand: &GpuDemand| self.devices.iter().filter(|device| device.fits(demand)).count();
            let strict = demand.map(|demand| (Reverse(fitting(demand)), demand.count));
            (Reverse(strict), guest)
        });
        for part in parts {
            match part {
                Part::Own(demand) => {
                    lease.devices = self.choose(state, demand, away)?;
                }
                Part::Use(one) => {
                    let seats = match one.whole {
                        true => self.all_seats(state, one, away)?,
                        false => vec![self.one_seat(state, one, away, &lease)?],
                    };
                    lease.seats.insert(one.service, seats);
                }
            }
        }
        Some(lease)
    }

    fn all_seats(&self, state: &mut State, one: &Use, away: &BTreeSet<usize>) -> Option<Vec<Seat>> {
        let count = state.places[one.service].len() * self.kinds[one.service].replicas;
        let mut seats = Vec::with_capacity(count);
        for instance in 0..count {
            let found = self.instance(state, one.service, instance);
            if found.alone || (one.alone && found.users > 0) {
                return None;
            }
            seats.push(self.sit(state, one, instance, away)?);
        }
        (!seats.is_empty()).then_some(seats)
    }

    /// One instance: an idle one, else one on devices that are its own or free, else one that others use, too. One that is dead only if
    /// all are.
    fn one_seat(&self, state: &mut State, one: &Use, away: &BTreeSet<usize>, lease: &Lease) -> Option<Seat> {
        let kind = &self.kinds[one.service];
        // a node that uses the host, too, gets the guest beside it
        let beside = kind.beside.and_then(|host| {
            let seat = lease.seats.get(&host)?.first()?;
            Some(seat.instance / self.kinds[host].replicas)
        });
        let places = || state.places[one.service].iter().enumerate();
        let may = |at: usize| beside.is_none_or(|wanted| wanted == at);
        let all_dead =
            places().filter(|(at, _)| may(*at)).flat_map(|(_, place)| &place.instances).all(|one| one.dead);
        let mut open: Vec<(u8, usize, usize)> = Vec::new();
        for (at, place) in places().filter(|(at, _)| may(*at)) {
            for (replica, instance) in place.instances.iter().enumerate() {
                if instance.alone || (one.alone && instance.users > 0) || (instance.dead && !all_dead) {
                    continue;
                }
                let class = match instance {
                    Instance { up: true, users: 0, .. } => 0,
                    Instance { users: 0, .. } => 1,
                    _ => 2,
                };
                open.push((class, instance.users, at * kind.replicas + replica));
            }
        }
        open.sort_unstable();
        open.into_iter().find_map(|(_, _, instance)| {
            let mut next = state.clone();
            let seat = self.sit(&mut next, one, instance, away)?;
            *state = next;
            Some(seat)
        })
    }

    /// Uses an instance, on devices that its place has or gets.
    fn sit(&self, state: &mut State, one: &Use, instance: usize, away: &BTreeSet<usize>) -> Option<Seat> {
        let kind = &self.kinds[one.service];
        let host = kind.beside.unwrap_or(one.service);
        let at = instance / kind.replicas;
        if state.places[one.service][at].is_ending() || state.places[host][at].is_ending() {
            return None;
        }
        let found = self.instance(state, one.service, instance);
        let is_dead = found.dead;
        found.users += 1;
        found.alone = one.alone;
        if !is_dead {
            found.up = true;
            let demand = self.kinds[host].demand.as_ref().filter(|_| !state.places[host][at].leased);
            if let Some(demand) = demand {
                let devices = self.choose(state, demand, away)?;
                let place = &mut state.places[host][at];
                (place.leased, place.devices) = (true, devices);
            }
        }
        Some(Seat { instance, devices: state.places[host][at].devices.clone() })
    }

    /// So many free devices that fit: those with the least memory, so that others find what they need.
    fn choose(&self, state: &mut State, demand: &GpuDemand, away: &BTreeSet<usize>) -> Option<Vec<usize>> {
        let free = |at: &usize| !state.taken[*at] && !away.contains(at) && self.devices[*at].fits(demand);
        let mut open: Vec<usize> = (0..self.devices.len()).filter(free).collect();
        if open.len() < demand.count as usize {
            return None;
        }
        open.sort_by_key(|at| (self.devices[*at].memory, *at));
        open.truncate(demand.count as usize);
        open.sort_unstable();
        open.iter().for_each(|at| state.taken[*at] = true);
        Some(open)
    }

    /// Places that nobody uses and that have a device which would do for `wants`, with all that has to be ended with them; outermost
    /// first. `None` if there are none.
    fn idle(&self, state: &State, wants: &Wants) -> Option<Vec<(ServiceIx, usize)>> {
        let of_use = |one: &Use| {
            let host = self.kinds[one.service].beside.unwrap_or(one.service);
            self.kinds[host].demand.as_ref()
        };
        let demands: Vec<&GpuDemand> = wants.own.iter().chain(wants.uses.iter().filter_map(of_use)).collect();
        let would_do = |place: &Place| {
            let fits = |at: &usize| demands.iter().any(|demand| self.devices[*at].fits(demand));
            place.leased && place.devices.iter().any(fits)
        };
        (0..self.kinds.len()).find_map(|service| {
            (0..state.places[service].len()).find_map(|at| {
                if !would_do(&state.places[service][at]) {
                    return None;
                }
                let tied = self.tied(state, service, at);
                tied.iter().all(|(service, at)| state.places[*service][*at].is_idle()).then_some(tied)
            })
        })
    }

    /// What has to be ended with a place: its guests, and all of what needs either; outermost first, the place itself last.
    fn tied(&self, state: &State, service: ServiceIx, at: usize) -> Vec<(ServiceIx, usize)> {
        let mut found = Vec::new();
        let mut open = vec![(service, at)];
        while let Some(next) = open.pop() {
            found.retain(|known| *known != next);
            found.push(next);
            open.extend(self.guests(next.0).map(|guest| (guest, next.1)));
            let dependents = (0..self.kinds.len()).filter(|one| self.kinds[*one].uses.contains(&next.0));
            open.extend(dependents.flat_map(|one| (0..state.places[one].len()).map(move |at| (one, at))));
        }
        found.reverse();
        found
    }

    /// Nothing is up any more in a place.
    fn clear(&self, state: &mut State, service: ServiceIx, at: usize) {
        for instance in &mut state.places[service][at].instances {
            (instance.up, instance.ending) = (false, false);
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
