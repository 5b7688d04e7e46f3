//! A load that all shards share: what is sent, where, when, and how many are in flight. Unaware of connections.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use super::clock;
use super::conversation::Think;
use super::endpoint::Endpoint;
use super::params::{Dispatch, Limits, Retry};
use super::prompt::Job;
use crate::api::CancelToken;

/// Between the moment when all shards are ready and the first request.
const LEAD: u64 = 20_000_000;

/// All of a load.
pub(super) struct Plan {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) jobs: Vec<Job>,
    /// The most turns of a conversation: requests are numbered conversation by conversation, each with so many numbers.
    pub(super) turns: u64,
    pub(super) think: Think,
    /// ns after the start; `None`: closed loop.
    pub(super) schedule: Option<Vec<u64>>,
    /// How many requests there are at most (closed loop).
    pub(super) most: u64,
    /// None is begun later, ns after the start.
    pub(super) duration: Option<u64>,
    /// At most so many in flight.
    pub(super) slots: Option<usize>,
    pub(super) warmup: u64,
    pub(super) shards: usize,
    pub(super) dispatch: Dispatch,
    /// Ascending sums of the weights.
    pub(super) weights: Vec<f64>,
    pub(super) limits: Limits,
    pub(super) retry: Retry,
    pub(super) save_text: bool,
    pub(super) seed: u64,
    /// Begins each x-request-id.
    pub(super) id: String,
    pub(super) cancel: CancelToken,
    pub(super) shared: Shared,
}

/// What changes while it runs.
pub(super) struct Shared {
    next: AtomicU64,
    warm: AtomicU64,
    in_flight: Vec<AtomicUsize>,
    all: AtomicUsize,
    highest: AtomicUsize,
    /// Shards that are ready, or will never be.
    ready: Mutex<usize>,
    all_ready: Condvar,
    start: OnceLock<u64>,
}

impl Shared {
    pub(super) fn new(endpoints: usize) -> Self {
        Self {
            next: AtomicU64::new(0),
            warm: AtomicU64::new(0),
            in_flight: (0..endpoints).map(|_| AtomicUsize::new(0)).collect(),
            all: AtomicUsize::new(0),
            highest: AtomicUsize::new(0),
            ready: Mutex::new(0),
            all_ready: Condvar::new(),
            start: OnceLock::new(),
        }
    }
}

impl Plan {
    /// Waits until all shards are ready; the moment of the first request, the same for all.
    pub(super) fn start(&self) -> u64 {
        let mut ready = self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner);
        *ready += 1;
        self.shared.all_ready.notify_all();
        while *ready < self.shards {
            ready = self.shared.all_ready.wait(ready).unwrap_or_else(PoisonError::into_inner);
        }
        *self.shared.start.get_or_init(|| clock::now() + LEAD)
    }

    /// A shard will never be ready: the load ends, and the others do not wait for it.
    pub(super) fn give_up(&self) {
        self.cancel.cancel();
        *self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.shared.all_ready.notify_all();
    }

    /// The next conversation of a closed loop.
    pub(super) fn next(&self, start: u64) -> Option<u64> {
        if self.is_over(start) {
            return None;
        }
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        (number < self.most).then_some(number)
    }

    /// Whether one more request is sent to warm up.
    pub(super) fn next_warm(&self) -> Option<u64> {
        let number = self.shared.warm.fetch_add(1, Ordering::Relaxed);
        (number < self.warmup && !self.cancel.is_cancelled()).then_some(number)
    }

    /// The place of a shard's slot among those of all shards.
    pub(super) fn place(&self, shard: usize, slot: usize) -> usize {
        slot * self.shards + shard
    }

    /// The slots of a shard: all are dealt, none twice.
    pub(super) fn slots_of(&self, shard: usize) -> Option<usize> {
        self.slots.map(|slots| slots / self.shards + usize::from(shard < slots % self.shards))
    }

    /// What is asked in a conversation; one of a single turn is a request.
    pub(super) fn job(&self, conversation: u64) -> &Job {
        &self.jobs[(conversation % self.jobs.len() as u64) as usize]
    }

    /// Conversation and turn of a request.
    pub(super) fn place_of(&self, number: u64) -> (u64, u64) {
        (number / self.turns, number % self.turns)
    }

    /// Whether nothing more is begun.
    pub(super) fn is_over(&self, start: u64) -> bool {
        self.cancel.is_cancelled() || self.duration.is_some_and(|duration| clock::now() >= start + duration)
    }

    /// Which server gets an attempt of a conversation that has none yet.
    pub(super) fn endpoint(&self, number: u64, place: usize) -> usize {
        let count = self.endpoints.len();
        let in_turn = (number % count as u64) as usize;
        match self.dispatch {
            _ if count == 1 => 0,
            Dispatch::RoundRobin => in_turn,
            Dispatch::Pinned => {
                if self.schedule.is_some() {
                    in_turn
                } else {
                    place % count
                }
            }
            Dispatch::LeastInFlight => {
                // ties go to whoever is next in turn
                let loads = (0..count).map(|n| (n + in_turn) % count);
                loads.min_by_key(|n| self.shared.in_flight[*n].load(Ordering::Relaxed)).unwrap_or(0)
            }
            Dispatch::Weighted => {
                let drawn =
                    fastrand::Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).f64();
                let drawn = drawn * self.weights.last().copied().unwrap_or(1.0);
                self.weights.partition_point(|sum| *sum <= drawn).min(count - 1)
            }
        }
    }

    /// A request goes out.
    pub(super) fn sent(&self, endpoint: usize) {
        self.shared.in_flight[endpoint].fetch_add(1, Ordering::Relaxed);
        let now = self.shared.all.fetch_add(1, Ordering::Relaxed) + 1;
        self.shared.highest.fetch_max(now, Ordering::Relaxed);
    }

    /// It is over.
    pub(super) fn over(&self, endpoint: usize) {
        self.shared.in_flight[endpoint].fetch_sub(1, Ordering::Relaxed);
        self.shared.all.fetch_sub(1, Ordering::Relaxed);
    }

    /// The most that were in flight, after the warm-up.
    pub(super) fn highest(&self) -> usize {
        self.shared.highest.load(Ordering::Relaxed)
    }

    /// What was in flight while warming up is forgotten.
    pub(super) fn forget(&self) {
        self.shared.highest.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shards: usize, dispatch: Dispatch) -> Plan {
        let endpoint = Endpoint::new(
            "http://127.0.0.1:1",
            crate::stage::load::params::Api::Chat,
            &[],
            &super::super::network::Network::direct(),
        )
        .unwrap();
        Plan {
            endpoints: vec![endpoint.clone(), endpoint],
            jobs: Vec::new(),
            turns: 1,
            think: Think::default(),
            schedule: None,
            most: 1,
            duration: None,
            slots: Some(4),
            warmup: 0,
            shards,
            dispatch,
            weights: Vec::new(),
            limits: Limits::default(),
            retry: Retry::default(),
            save_text: false,
            seed: 0,
            id: "t".to_owned(),
            cancel: CancelToken::default(),
            shared: Shared::new(2),
        }
    }

    #[test]
    fn nobody_waits_for_a_shard_that_gave_up() {
        let plan = plan(3, Dispatch::RoundRobin);
        std::thread::scope(|scope| {
            let waiting = [scope.spawn(|| plan.start()), scope.spawn(|| plan.start())];
            plan.give_up();
            let starts = waiting.map(|shard| shard.join().unwrap());
            assert!(starts[0] == starts[1] && plan.cancel.is_cancelled());
        });
    }

    #[test]
    fn pinned_slots_of_all_shards_share_the_servers_evenly() {
        let plan = plan(2, Dispatch::Pinned);
        let mut counts = [0; 2];
        for shard in 0..2 {
            for slot in 0..plan.slots_of(shard).unwrap() {
                counts[plan.endpoint(0, plan.place(shard, slot))] += 1;
            }
        }
        assert_eq!(counts, [2, 2]);
        // one slot each: not both to the first
        assert_ne!(plan.endpoint(0, plan.place(0, 0)), plan.endpoint(0, plan.place(1, 0)));
    }
}
