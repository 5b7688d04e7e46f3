//! The pure scheduler: which ready node starts next, by longest remaining path and free resources. No clock, no threads.

mod lease;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::graph::{NodeIx, ServiceIx};
use crate::model::ExclusiveScope;

pub(super) use lease::{Fleet, Lease, Locks, NoLocks, Seat, ServiceKind, Shared, Use, Wants};

/// What the machine and the workflow offer.
#[derive(Clone, Debug, Default)]
pub(super) struct Capacity {
    pub(super) cpu: u32,
    pub(super) mem: u64,
    pub(super) pools: BTreeMap<String, u32>,
    /// Those of them that all runs of the machine share.
    pub(super) machine_pools: BTreeSet<String>,
}

/// Nodes that wait for others (a server, say) at once: each has a thread, and a machine has only so many.
const WAITING: usize = 256;

/// What one node occupies while it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Demand {
    pub(super) cpu: u32,
    pub(super) mem: u64,
    pub(super) pools: BTreeMap<String, u32>,
    pub(super) exclusive: Option<ExclusiveScope>,
    /// It mostly waits, and takes no CPU slot.
    pub(super) waits: bool,
    /// Devices and instances of services.
    pub(super) wants: Wants,
    /// How many nodes had ended when it became ready; set by the scheduler.
    pub(super) since: u64,
}

/// The state: what is ready and what runs.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    capacity: Capacity,
    used: Capacity,
    fleet: Fleet,
    /// Of what runs.
    leases: HashMap<NodeIx, Lease>,
    /// What of the machine it has, and no other run.
    shared: HashMap<NodeIx, Vec<Shared>>,
    /// Instances of services that are to be ended.
    ends: Vec<(ServiceIx, usize)>,
    /// CPU slots that may be used now, if fewer than there are.
    allowed: Option<u32>,
    /// Highest priority first, then lowest index.
    ready: BTreeSet<(Reverse<u64>, NodeIx)>,
    demands: HashMap<NodeIx, Demand>,
    running: HashMap<NodeIx, Demand>,
    /// How many of them mostly wait.
    waiting: usize,
    /// How many of what is ready take no CPU slot.
    ready_waits: usize,
    /// How many ended so far, and the last of them with what it gave free.
    ended: u64,
    freed: Option<(NodeIx, Demand)>,
}

/// What was found out while looking for the next node.
#[derive(Default)]
struct Pass {
    /// Cannot be leased now.
    denied: Vec<Wants>,
    /// Could perhaps be leased if instances that nobody uses were ended.
    room: Vec<Wants>,
    /// Other runs have what they need of the machine.
    away: BTreeSet<NodeIx>,
}

impl Pass {
    fn deny(&mut self, wants: &Wants) {
        self.denied.push(wants.clone());
        self.room.push(wants.clone());
    }
}

impl Scheduler {
    pub(super) fn new(capacity: Capacity, fleet: Fleet) -> Self {
        Self { capacity, fleet, ..Self::default() }
    }

    /// A node became ready. `priority`: its longest remaining path in microseconds.
    pub(super) fn push(&mut self, node: NodeIx, mut demand: Demand, priority: u64) {
        demand.cpu = demand.cpu.min(self.capacity.cpu);
        demand.since = self.ended;
        self.ready_waits += usize::from(demand.cpu == 0);
        self.demands.insert(node, demand);
        self.ready.insert((Reverse(priority), node));
    }

    /// The next node to start, which then counts as running.
    pub(super) fn next(&mut self) -> Option<NodeIx> {
        let mut pass = Pass::default();
        let (priority, node, lease) = loop {
            let chosen = self.choose(self.cpu(), &mut pass);
            for wants in std::mem::take(&mut pass.room) {
                self.ends.extend(self.fleet.make_room(&wants));
            }
            let (priority, node) = chosen?;
            let Some(shared) = self.take_shared(node) else {
                pass.away.insert(node);
                continue;
            };
            let Some(lease) = self.fleet.take(&self.demands[&node].wants) else {
                // another run has a device
                self.fleet.give_shared(&shared);
                pass.deny(&self.demands[&node].wants);
                continue;
            };
            if !shared.is_empty() {
                self.shared.insert(node, shared);
            }
            break (priority, node, lease);
        };
        if lease != Lease::default() {
            self.leases.insert(node, lease);
        }
        self.ready.remove(&(priority, node));
        let demand = self.demands.remove(&node)?;
        self.ready_waits -= usize::from(demand.cpu == 0);
        self.used.cpu += demand.cpu;
        self.used.mem += demand.mem;
        for (pool, n) in &demand.pools {
            *self.used.pools.entry(pool.clone()).or_default() += n;
        }
        self.waiting += usize::from(demand.waits);
        self.running.insert(node, demand);
        Some(node)
    }

    /// What of the machine a node takes for itself; `None` if other runs have it.
    fn take_shared(&mut self, node: NodeIx) -> Option<Vec<Shared>> {
        let demand = &self.demands[&node];
        let size = |pool: &String| self.capacity.pools.get(pool).copied().unwrap_or(0);
        let of_machine = |pool: &&String| self.capacity.machine_pools.contains(*pool);
        // alone in a pool is to have all of it
        let whole = match &demand.exclusive {
            Some(ExclusiveScope::Pool(pool)) => Some((pool, size(pool))),
            _ => None,
        };
        let slots: BTreeMap<&String, u32> = demand
            .pools
            .iter()
            .map(|(pool, n)| (pool, *n))
            .chain(whole)
            .filter(|(pool, _)| of_machine(pool))
            .collect();
        let mut taken = Vec::new();
        if demand.exclusive == Some(ExclusiveScope::Run) {
            if !self.fleet.take_shared(&Shared::Alone) {
                return None;
            }
            taken.push(Shared::Alone);
        }
        for (pool, n) in slots {
            match self.fleet.take_slots(pool, n, size(pool)) {
                Some(slots) => taken.extend(slots),
                None => {
                    self.fleet.give_shared(&taken);
                    return None;
                }
            }
        }
        Some(taken)
    }

    /// What a node that was just started has leased.
    pub(super) fn lease(&self, node: NodeIx) -> Lease {
        self.leases.get(&node).cloned().unwrap_or_default()
    }

    /// The instances that a running node uses.
    pub(super) fn seats(&self, node: NodeIx) -> impl Iterator<Item = (ServiceIx, usize)> + '_ {
        let lease = self.leases.get(&node).into_iter();
        lease.flat_map(|lease| {
            lease.seats.iter().flat_map(|(ix, seats)| seats.iter().map(|seat| (*ix, seat.instance)))
        })
    }

    /// Nobody will use this service any more: its instances are to be ended, unless something is up that needs it.
    pub(super) fn retire(&mut self, service: ServiceIx) {
        let ends = self.fleet.retire(service);
        self.ends.extend(ends);
    }

    /// Instances that are to be ended now; each is told of by [`Self::instance_ended`].
    pub(super) fn take_ends(&mut self) -> Vec<(ServiceIx, usize)> {
        std::mem::take(&mut self.ends)
    }

    /// An instance that was to be ended is gone; `dead`: it had ended by itself before.
    pub(super) fn instance_ended(&mut self, service: ServiceIx, instance: usize, dead: bool) {
        self.fleet.ended(service, instance, dead);
    }

    /// Instances that are up and that nobody uses.
    pub(super) fn idle_instances(&self) -> Vec<(ServiceIx, usize)> {
        self.fleet.idle_instances()
    }

    /// An instance ended by itself.
    pub(super) fn instance_died(&mut self, service: ServiceIx, instance: usize) {
        self.fleet.died(service, instance);
    }

    /// From now on running nodes may have `cpu` slots together, of those that there are; a first one starts whatever it demands.
    pub(super) fn allow(&mut self, cpu: u32) {
        self.allowed = Some(cpu);
    }

    /// Whether a node could start, or a running one would have what it demands, if more slots were allowed.
    pub(super) fn wants_cpu(&self) -> bool {
        let allowed = self.cpu();
        allowed < self.capacity.cpu
            && (self.used.cpu > allowed || self.choose(self.capacity.cpu, &mut Pass::default()).is_some())
    }

    /// CPU slots of what runs.
    pub(super) fn used_cpu(&self) -> u32 {
        self.used.cpu
    }

    fn cpu(&self) -> u32 {
        self.allowed.map_or(self.capacity.cpu, |allowed| allowed.min(self.capacity.cpu))
    }

    /// The first that fits if there are `cpu` slots.
    fn choose(&self, cpu: u32, pass: &mut Pass) -> Option<(Reverse<u64>, NodeIx)> {
        // the usual case, with thousands of nodes ready: there is no need to look at each
        if self.used.cpu >= cpu && self.used.cpu > 0 && self.ready_waits == 0 {
            return None;
        }
        for &(priority, node) in &self.ready {
            let demand = &self.demands[&node];
            if !pass.away.contains(&node) && self.fits(demand, cpu) && self.has_lease(demand, pass) {
                return Some((priority, node));
            }
            // one that wants to be alone must not be starved by smaller ones behind it
            if demand.exclusive == Some(ExclusiveScope::Run) {
                return None;
            }
        }
        None
    }

    fn fits(&self, demand: &Demand, cpu: u32) -> bool {
        let pools_fit = demand.pools.iter().all(|(pool, n)| {
            let size = self.capacity.pools.get(pool).copied().unwrap_or(0);
            self.used.pools.get(pool).copied().unwrap_or(0) + n <= size
        });
        let uses = |demand: &Demand, pool: &str| {
            demand.pools.contains_key(pool) || demand.exclusive == Some(ExclusiveScope::Pool(pool.to_owned()))
        };
        let alone = match &demand.exclusive {
            Some(ExclusiveScope::Run) => self.running.is_empty(),
            Some(ExclusiveScope::Pool(pool)) => !self.running.values().any(|other| uses(other, pool)),
            None => true,
        };
        let left_alone = !self.running.values().any(|other| match &other.exclusive {
            Some(ExclusiveScope::Run) => true,
            Some(ExclusiveScope::Pool(pool)) => uses(demand, pool),
            None => false,
        });
        let alone_on_cpu = self.used.cpu == 0 || demand.cpu == 0;
        (self.used.cpu + demand.cpu <= cpu || alone_on_cpu)
            && !(demand.waits && self.waiting >= WAITING)
            && (self.used.mem + demand.mem <= self.capacity.mem || self.running.is_empty())
            && pools_fit
            && alone
            && left_alone
    }

    /// Whether what it wants to lease can be leased now. Many want the same: each is looked at once in a pass.
    fn has_lease(&self, demand: &Demand, pass: &mut Pass) -> bool {
        if demand.wants.is_nothing() {
            return true;
        }
        if pass.denied.contains(&demand.wants) {
            return false;
        }
        let could = self.fleet.could(&demand.wants);
        if !could {
            pass.deny(&demand.wants);
        }
        could
    }

    /// A node ended.
    pub(super) fn finish(&mut self, node: NodeIx) {
        if let Some(demand) = self.running.remove(&node) {
            self.waiting -= usize::from(demand.waits);
            self.used.cpu -= demand.cpu;
            self.used.mem -= demand.mem;
            for (pool, n) in &demand.pools {
                if let Some(used) = self.used.pools.get_mut(pool) {
                    *used -= n;
                }
            }
            if let Some(lease) = self.leases.remove(&node) {
                self.fleet.give(&lease);
            }
            if let Some(shared) = self.shared.remove(&node) {
                self.fleet.give_shared(&shared);
            }
            self.ended += 1;
            self.freed = Some((node, demand));
        }
    }

    /// What `node`, which was just started, had to wait for since it was ready, and whose end gave it free.
    pub(super) fn held(&self, node: NodeIx) -> Option<(NodeIx, String)> {
        let demand = self.running.get(&node)?;
        let (by, freed) = self.freed.as_ref().filter(|_| demand.since < self.ended)?;
        let full = |pool: &String| {
            let freed = freed.pools.get(pool).copied().unwrap_or(0);
            let size = self.capacity.pools.get(pool).copied().unwrap_or(0);
            self.used.pools.get(pool).copied().unwrap_or(0) + freed > size
        };
        let alone = demand.exclusive.is_some() || freed.exclusive.is_some();
        let what = if let Some(pool) = demand.pools.keys().find(|pool| full(pool)) {
            format!("pool {pool}")
        } else if self.used.mem.saturating_add(freed.mem) > self.capacity.mem {
            "memory".to_owned()
        } else if !demand.wants.is_nothing() && !freed.wants.is_nothing() {
            "device".to_owned()
        } else if alone && self.used.cpu + freed.cpu <= self.capacity.cpu {
            "exclusive".to_owned()
        } else {
            "slot".to_owned()
        };
        Some((*by, what))
    }

    /// The node that is first in turn, whether or not it could start.
    pub(super) fn first(&self) -> Option<NodeIx> {
        self.ready.first().map(|(_, node)| *node)
    }

    /// Lets the node that is first in turn run in the slot of another. False if it needs more than one slot of CPU, or something
    /// runs that wants to be alone.
    pub(super) fn join(&mut self, node: NodeIx) -> bool {
        let Some(&(priority, _)) = self.ready.first().filter(|(_, first)| *first == node) else {
            return false;
        };
        let demand = &self.demands[&node];
        let plain = demand.cpu == 1
            && demand.mem == 0
            && demand.pools.is_empty()
            && demand.exclusive.is_none()
            && demand.wants.is_nothing();
        let alone = self.running.values().any(|other| other.exclusive == Some(ExclusiveScope::Run));
        if !plain || alone {
            return false;
        }
        self.ready.remove(&(priority, node));
        if let Some(demand) = self.demands.remove(&node) {
            self.running.insert(node, Demand { cpu: 0, ..demand });
        }
        true
    }

    /// One that ran in the slot of another goes on in it.
    pub(super) fn inherit(&mut self, from: NodeIx, to: NodeIx) {
        if let Some(cpu) = self.running.get_mut(&from).map(|demand| std::mem::take(&mut demand.cpu))
            && let Some(demand) = self.running.get_mut(&to)
        {
            demand.cpu += cpu;
        }
    }

    /// How many of what is ready there are for each CPU slot.
    pub(super) fn ready_per_slot(&self) -> usize {
        self.ready.len() / (self.cpu().max(1) as usize)
    }

    /// Every CPU slot is taken.
    pub(super) fn is_full(&self) -> bool {
        self.used.cpu >= self.cpu()
    }

    /// The highest priority of what is ready.
    pub(super) fn top(&self) -> u64 {
        self.ready.first().map_or(0, |(Reverse(priority), _)| *priority)
    }

    /// How many are ready and wait for their turn.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes back one that has not started.
    pub(super) fn remove(&mut self, node: NodeIx) {
        if let Some(demand) = self.demands.remove(&node) {
            self.ready_waits -= usize::from(demand.cpu == 0);
        }
        self.ready.retain(|(_, ready)| *ready != node);
    }

    /// Takes back everything that has not started.
    pub(super) fn drain(&mut self) -> Vec<NodeIx> {
        self.demands.clear();
        self.ready_waits = 0;
        std::mem::take(&mut self.ready).into_iter().map(|(_, node)| node).collect()
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod conformance;

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(cpu: u32, pools: &[(&str, u32)]) -> Scheduler {
        let pools = pools.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        Scheduler::new(Capacity { cpu, mem: 100, pools, ..Capacity::default() }, Fleet::default())
    }

    fn cpu(n: u32) -> Demand {
        Demand { cpu: n, ..Demand::default() }
    }

    #[test]
    fn longest_path_first_within_the_slots() {
        let mut s = scheduler(2, &[]);
        for (node, priority) in [(0, 5), (1, 9), (2, 7)] {
            s.push(node, cpu(1), priority);
        }
        assert_eq!((s.next(), s.next(), s.next()), (Some(1), Some(2), None));
        s.finish(1);
        assert_eq!(s.next(), Some(0));
    }

    #[test]
    fn one_that_joins_another_takes_no_slot() {
        let mut s = scheduler(1, &[("db", 1)]);
        s.push(0, cpu(1), 9);
        s.push(1, cpu(1), 8);
        s.push(2, Demand { pools: BTreeMap::from([("db".to_owned(), 1)]), ..cpu(1) }, 7);
        assert_eq!((s.next(), s.join(2), s.first(), s.join(1)), (Some(0), false, Some(1), true));
        assert_eq!((s.first(), s.join(2), s.running(), s.next()), (Some(2), false, 2, None));
        s.inherit(0, 1);
        s.finish(0);
        assert_eq!((s.next(), s.running()), (None, 1));
        s.finish(1);
        assert_eq!((s.next(), s.running()), (Some(2), 1));
        s.finish(2);
        assert_eq!((s.running(), s.used_cpu()), (0, 0));
    }

    #[test]
    fn more_slots_than_there_are_means_all_of_them() {
        let mut s = scheduler(2, &[]);
        s.push(0, cpu(8), 1);
        s.push(1, cpu(1), 0);
        assert_eq!((s.next(), s.next()), (Some(0), None));
    }

    #[test]
    fn only_so_many_slots_as_are_allowed_but_the_first_starts_in_any_case() {
        let mut s = scheduler(3, &[]);
        s.allow(1);
        for (node, slots) in [(0, 2), (1, 1), (2, 1)] {
            s.push(node, cpu(slots), 9 - node as u64);
        }
        assert_eq!((s.next(), s.next(), s.wants_cpu()), (Some(0), None, true));
        s.allow(2);
        assert_eq!((s.next(), s.wants_cpu()), (None, true));
        s.allow(3);
        assert_eq!((s.next(), s.next(), s.wants_cpu()), (Some(1), None, false));
        s.finish(0);
        assert_eq!((s.used_cpu(), s.next(), s.wants_cpu()), (1, Some(2), false));
    }

    #[test]
    fn pools_are_never_overdrawn_and_others_pass() {
        let mut s = scheduler(8, &[("db", 1)]);
        let db = || Demand { cpu: 1, pools: BTreeMap::from([("db".to_owned(), 1)]), ..Demand::default() };
        s.push(0, db(), 3);
        s.push(1, db(), 2);
        s.push(2, cpu(1), 1);
        assert_eq!((s.next(), s.next(), s.next()), (Some(0), Some(2), None));
        s.finish(0);
        assert_eq!(s.next(), Some(1));
    }

    #[test]
    fn exclusive_runs_alone_and_is_not_starved() {
        let mut s = scheduler(8, &[]);
        s.push(0, cpu(1), 1);
        assert_eq!(s.next(), Some(0));
        s.push(1, Demand { exclusive: Some(ExclusiveScope::Run), ..cpu(1) }, 9);
        s.push(2, cpu(1), 1);
        assert_eq!(s.next(), None);
        s.finish(0);
        assert_eq!(s.next(), Some(1));
        assert_eq!(s.next(), None);
        s.finish(1);
        assert_eq!(s.next(), Some(2));
    }

    #[test]
    fn exclusive_in_a_pool_keeps_out_only_that_pool() {
        let mut s = scheduler(8, &[("gpu", 4)]);
        let gpu = Demand { cpu: 1, pools: BTreeMap::from([("gpu".to_owned(), 1)]), ..Demand::default() };
        s.push(0, Demand { exclusive: Some(ExclusiveScope::Pool("gpu".to_owned())), ..cpu(1) }, 9);
        s.push(1, gpu, 5);
        s.push(2, cpu(1), 1);
        assert_eq!((s.next(), s.next(), s.next()), (Some(0), Some(2), None));
    }

    #[test]
    fn waiting_nodes_take_no_slot_but_are_not_without_number() {
        let mut s = scheduler(1, &[]);
        s.push(1000, cpu(1), 0);
        for node in 0..WAITING + 1 {
            s.push(node, Demand { waits: true, ..Demand::default() }, 1);
        }
        for node in 0..WAITING {
            assert_eq!(s.next(), Some(node));
        }
        assert_eq!((s.next(), s.next()), (Some(1000), None));
        s.finish(7);
        assert_eq!(s.next(), Some(WAITING));
    }

    #[test]
    fn what_a_node_waited_for_is_known_when_it_starts() {
        let mut s = scheduler(2, &[("db", 1)]);
        let db = || Demand { pools: BTreeMap::from([("db".to_owned(), 1)]), ..cpu(1) };
        s.push(0, db(), 9);
        s.push(1, db(), 8);
        s.push(2, cpu(1), 7);
        s.push(3, cpu(1), 6);
        s.push(4, Demand { exclusive: Some(ExclusiveScope::Run), ..cpu(1) }, 1);
        assert_eq!((s.next(), s.next(), s.next()), (Some(0), Some(2), None));
        assert_eq!((s.held(0), s.held(2)), (None, None));
        s.finish(0);
        assert_eq!((s.next(), s.held(1)), (Some(1), Some((0, "pool db".to_owned()))));
        s.finish(2);
        assert_eq!((s.next(), s.held(3)), (Some(3), Some((2, "slot".to_owned()))));
        s.finish(1);
        s.finish(3);
        assert_eq!((s.next(), s.held(4)), (Some(4), Some((3, "exclusive".to_owned()))));
        s.finish(4);
        s.push(5, cpu(1), 1);
        assert_eq!((s.next(), s.held(5)), (Some(5), None));
    }

    #[test]
    fn memory_limits_but_one_node_always_runs() {
        let mut s = scheduler(8, &[]);
        let mem = |m| Demand { cpu: 1, mem: m, ..Demand::default() };
        s.push(0, mem(80), 3);
        s.push(1, mem(80), 2);
        assert_eq!((s.next(), s.next()), (Some(0), None));
        s.finish(0);
        assert_eq!(s.next(), Some(1));
    }
}
