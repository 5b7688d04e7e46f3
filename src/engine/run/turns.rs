//! Jobs that take turns on one thread. Unaware of what they do, and of why they were put together.
//!
//! Their thread tells of them together, when all are over. One that takes long holds up no other for that: after a while what is done
//! is taken from the thread, and what it has not begun goes back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::hands::Start;
use crate::engine::attempt::Performed;
use crate::graph::NodeIx;

/// After so long what is done is taken, and the rest goes back.
const LATE: Duration = Duration::from_millis(5);

struct State<'s> {
    todo: VecDeque<Start>,
    /// Being done now.
    current: Option<NodeIx>,
    done: Vec<Performed<'s>>,
}

/// Jobs of one thread.
pub(super) struct Turns<'s>(Mutex<State<'s>>);

impl<'s> Turns<'s> {
    fn state(&self) -> MutexGuard<'_, State<'s>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one after the other, until one fails. Gives what is done and what is left, but for what was taken meanwhile.
    pub(super) fn take(
        &self,
        mut one: impl FnMut(Start) -> Performed<'s>,
    ) -> (Vec<Performed<'s>>, Vec<Start>) {
        let mut state = self.state();
        while let Some(start) = state.todo.pop_front() {
            state.current = Some(start.ix);
            drop(state);
            let performed = one(start);
            state = self.state();
            state.current = None;
            let made = matches!(performed, Performed::Made(_));
            state.done.push(performed);
            if !made {
                break;
            }
        }
        (std::mem::take(&mut state.done), state.todo.drain(..).collect())
    }
}

/// What was taken from a thread.
pub(super) struct Taken<'s> {
    pub(super) done: Vec<Performed<'s>>,
    /// Not begun.
    pub(super) rest: Vec<Start>,
    /// Goes on in the slot that the first of them had.
    pub(super) heir: Option<(NodeIx, NodeIx)>,
}

/// The groups that were handed to threads, as long as there is something to take.
#[derive(Default)]
pub(super) struct Groups<'s>(Vec<Group<'s>>);

struct Group<'s> {
    since: Instant,
    /// Has the slot.
    first: NodeIx,
    turns: Arc<Turns<'s>>,
}

impl<'s> Groups<'s> {
    /// Jobs for a thread; at least one.
    pub(super) fn add(&mut self, starts: Vec<Start>) -> Arc<Turns<'s>> {
        let (first, several) = (starts.first().map(|start| start.ix), starts.len() > 1);
        let state = State { todo: starts.into(), current: None, done: Vec::new() };
        let turns = Arc::new(Turns(Mutex::new(state)));
        if let Some(first) = first.filter(|_| several) {
            self.0.push(Group { since: Instant::now(), first, turns: Arc::clone(&turns) });
        }
        turns
    }

    /// What can be taken now: of threads that are late, or of all (`now`).
    pub(super) fn take(&mut self, now: bool) -> Vec<Taken<'s>> {
        let mut taken = Vec::new();
        self.0.retain(|group| {
            if Arc::strong_count(&group.turns) == 1 {
                // its thread has told all
                return false;
            }
            if !now && group.since.elapsed() < LATE {
                return true;
            }
            let mut state = group.turns.state();
            let heir =
                state.current.filter(|current| *current != group.first).map(|current| (group.first, current));
            taken.push(Taken {
                done: std::mem::take(&mut state.done),
                rest: state.todo.drain(..).collect(),
                heir,
            });
            false
        });
        taken
    }

    /// When [`Self::take`] has to be asked again.
    pub(super) fn next(&self) -> Duration {
        self.0.iter().map(|group| LATE.saturating_sub(group.since.elapsed())).min().unwrap_or(Duration::MAX)
    }
}
