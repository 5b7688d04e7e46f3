//! The scheduler over random graphs, against an account of its own of what runs. Unaware of what nodes do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Capacity, Demand, Fleet, Scheduler, Wants};
use crate::model::ExclusiveScope;

/// One node of a random graph.
#[derive(Clone, Debug)]
struct Job {
    /// Bits of the nodes before it that it needs.
    needs: u32,
    time: u64,
    demand: Demand,
    fails: bool,
    /// It is taken back once, and comes again: a job that is planned anew.
    again: bool,
}

#[derive(Clone, Debug)]
struct Case {
    jobs: Vec<Job>,
    capacity: Capacity,
    keep_going: bool,
    /// Ends everything once so many jobs have ended.
    cancel_after: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Ready,
    Running,
    Well,
    Failed,
    Skipped,
    Cancelled,
}

fn demand() -> impl Strategy<Value = Demand> {
    let exclusive = prop_oneof![
        8 => Just(None),
        1 => Just(Some(ExclusiveScope::Run)),
        1 => Just(Some(ExclusiveScope::Pool("p".to_owned()))),
    ];
    (0..9u32, 0..70u64, 0..4u32, 0..2u32, exclusive, prop::bool::weighted(0.1)).prop_map(
        |(cpu, mem, p, q, exclusive, waits)| {
            let pools = [("p", p.saturating_sub(1)), ("q", q)];
            let pools = pools.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n));
            Demand {
                cpu: if waits { 0 } else { cpu.max(1) },
                mem,
                pools: pools.collect(),
                exclusive,
                waits,
                wants: Wants::default(),
                since: 0,
            }
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let job =
        (any::<u32>(), any::<u32>(), 1..9u64, demand(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(a, b, time, demand, fails, again)| Job { needs: a & b, time, demand, fails, again });
    let cancel = prop_oneof![3 => Just(None), 1 => (0..20usize).prop_map(Some)];
    (prop::collection::vec(job, 1..26), 1..7u32, any::<bool>(), cancel).prop_map(
        |(jobs, cpu, keep_going, cancel_after)| {
            let pools = BTreeMap::from([("p".to_owned(), 2), ("q".to_owned(), 1)]);
            Case {
                jobs,
                capacity: Capacity { cpu, mem: 100, pools, ..Capacity::default() },
                keep_going,
                cancel_after,
            }
        },
    )
}

/// Whether `node` may run beside `running`: what the workflow format says of resources, in plain words.
fn may_run(case: &Case, running: &BTreeSet<usize>, node: usize) -> bool {
    let of = |node: usize| &case.jobs[node].demand;
    let with = || running.iter().copied().chain([node]);
    let cpu: u32 = with().map(|node| of(node).cpu.min(case.capacity.cpu)).sum();
    let mem: u64 = with().map(|node| of(node).mem).sum();
    let pools = case.capacity.pools.iter().all(|(pool, size)| {
        with().map(|node| of(node).pools.get(pool).copied().unwrap_or(0)).sum::<u32>() <= *size
    });
    let alone = with().all(|one| match &of(one).exclusive {
        None => true,
        Some(ExclusiveScope::Run) => running.is_empty(),
        Some(ExclusiveScope::Pool(pool)) => with().filter(|other| *other != one).all(|other| {
            !of(other).pools.contains_key(pool)
                && of(other).exclusive != Some(ExclusiveScope::Pool(pool.clone()))
        }),
    });
    cpu <= case.capacity.cpu && (mem <= case.capacity.mem || running.is_empty()) && pools && alone
}

/// Plays a case as a run would, and checks every step. Gives each node's last state.
fn play(case: &Case) -> Vec<State> {
    let count = case.jobs.len();
    let needs = |node: usize| (0..node).filter(move |other| case.jobs[node].needs >> other & 1 == 1);
    let mut priority = vec![0; count];
    for node in (0..count).rev() {
        let after = (node + 1..count).filter(|other| needs(*other).any(|need| need == node));
        priority[node] = case.jobs[node].time + after.map(|other| priority[other]).max().unwrap_or(0);
    }
    let mut scheduler = Scheduler::new(case.capacity.clone(), Fleet::default());
    let mut state = vec![State::Waiting; count];
    let mut again: Vec<bool> = case.jobs.iter().map(|job| job.again).collect();
    let mut ends: BTreeSet<(u64, usize)> = BTreeSet::new();
    let (mut now, mut ended, mut halting) = (0, 0, false);
    loop {
        for node in 0..count {
            if state[node] != State::Waiting || halting {
                continue;
            }
            if needs(node).any(|need| matches!(state[need], State::Failed | State::Skipped)) {
                state[node] = State::Skipped;
            } else if needs(node).all(|need| state[need] == State::Well) {
                scheduler.push(node, case.jobs[node].demand.clone(), priority[node]);
                if std::mem::take(&mut again[node]) {
                    scheduler.remove(node);
                } else {
                    state[node] = State::Ready;
                }
            }
        }
        if halting {
            for node in scheduler.drain() {
                assert_eq!(state[node], State::Ready, "{node} was to be drained");
                state[node] = State::Cancelled;
            }
        }
        let all = |wanted: State, state: &[State]| -> BTreeSet<usize> {
            (0..count).filter(|node| state[*node] == wanted).collect()
        };
        loop {
            let running = all(State::Running, &state);
            let mut ready: Vec<usize> = all(State::Ready, &state).into_iter().collect();
            ready.sort_by_key(|node| (Reverse(priority[*node]), *node));
            // longest path first; one that wants to be alone is not overtaken for ever
            let stop = ready
                .iter()
                .position(|node| case.jobs[*node].demand.exclusive == Some(ExclusiveScope::Run))
                .map_or(ready.len(), |at| at + 1);
            let expected = ready[..stop].iter().copied().find(|node| may_run(case, &running, *node));
            let started = scheduler.next();
            assert_eq!(started, expected, "at {now}, ready {ready:?}, running {running:?}");
            let Some(node) = started else { break };
            assert!(needs(node).all(|need| state[need] == State::Well), "{node} started too early");
            state[node] = State::Running;
            ends.insert((now + case.jobs[node].time, node));
        }
        assert_eq!(scheduler.running(), ends.len());
        let Some((time, node)) = ends.pop_first() else {
            // nothing runs: then nothing may be left that could
            if state.iter().any(|state| matches!(state, State::Ready)) {
                panic!("it stands still: {state:?}");
            }
            if halting || !state.contains(&State::Waiting) {
                break;
            }
            continue;
        };
        now = time;
        ended += 1;
        scheduler.finish(node);
        state[node] = if case.jobs[node].fails { State::Failed } else { State::Well };
        halting |= state[node] == State::Failed && !case.keep_going;
        halting |= case.cancel_after.is_some_and(|limit| ended >= limit);
    }
    for node in 0..count {
        if state[node] == State::Waiting {
            assert!(halting, "{node} never got its turn");
            let failed = needs(node).any(|need| matches!(state[need], State::Failed | State::Skipped));
            state[node] = if failed { State::Skipped } else { State::Cancelled };
        }
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_node_starts_in_its_turn_and_ends_once(case in case()) {
        let state = play(&case);
        for (node, end) in state.iter().enumerate() {
            let needs = |wanted: &[State]| {
                (0..node).filter(|other| case.jobs[node].needs >> other & 1 == 1).any(|other| wanted.contains(&state[other]))
            };
            match end {
                State::Well | State::Failed => {
                    prop_assert!(!needs(&[State::Failed, State::Skipped, State::Cancelled]));
                    prop_assert_eq!(*end == State::Failed, case.jobs[node].fails);
                }
                State::Skipped => prop_assert!(needs(&[State::Failed, State::Skipped])),
                State::Cancelled => prop_assert!(!case.keep_going || case.cancel_after.is_some()),
                other => prop_assert!(false, "{node} is left {other:?}"),
            }
        }
        if case.keep_going && case.cancel_after.is_none() {
            prop_assert!(!state.contains(&State::Cancelled));
        }
    }
}
