//! The threads of a run: those that do jobs, and the one that commits what they made. Unaware of which node comes next.
//!
//! Results are committed together: as soon as nothing else can be done, or what waits for one of them matters most, else after a while.
//! So a commit holds up no node, and a transaction holds many.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::turns::{Groups, Taken};
use crate::api::CancelToken;
use crate::engine::attempt::{Finished, Given, Performed, Task, perform};
use crate::engine::commit::{Pending, commit};
use crate::engine::facts::FactFinder;
use crate::engine::pool::Pool;
use crate::engine::session::Session;
use crate::event::Begin;
use crate::graph::NodeIx;

/// Longest time that a result waits for others to be committed with.
const LINGER: Duration = Duration::from_millis(50);
/// As many are committed without waiting for more.
const MANY: usize = 256;
/// So many that are committed are told of at once.
const TOLD: usize = 32;

/// A job that is to be done.
pub(super) struct Start {
    pub(super) ix: NodeIx,
    pub(super) task: Task,
    pub(super) given: Given,
    pub(super) begin: Begin,
    pub(super) cancel: CancelToken,
}

/// What the threads tell.
pub(super) enum Message<'s> {
    /// Each of a group of jobs is over, or made something; after a failure those that are left were not begun.
    Performed(Vec<Performed<'s>>, Vec<Start>),
    /// What some jobs made is committed, or could not be.
    Committed(Vec<Finished>),
    /// All that was handed over to be committed is.
    CommitDone,
}

/// The threads, and what waits to be committed.
pub(super) struct Hands<'scope, 'env, 's> {
    session: &'s Session,
    finder: &'s FactFinder,
    pool: Closing<'scope, 's>,
    groups: Groups<'s>,
    scope: &'scope Scope<'scope, 'env>,
    sender: Sender<Message<'s>>,
    pub(super) messages: Receiver<Message<'s>>,
    batches: Sender<Vec<Pending<'s>>>,
    batch: Vec<Pending<'s>>,
    /// When the first of the batch came.
    since: Instant,
    urgent: bool,
    /// How many are with the committing thread.
    handed_over: usize,
}

/// The threads end when nobody can give them anything any more.
struct Closing<'scope, 's>(&'scope Pool<'s>);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<'scope, 'env, 's: 'scope> Hands<'scope, 'env, 's> {
    /// The committing thread is started; the others come with the jobs.
    pub(super) fn new(
        session: &'s Session,
        finder: &'s FactFinder,
        pool: &'scope Pool<'s>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Self {
        let (sender, messages) = channel();
        let (batches, waiting) = channel();
        let told = sender.clone();
        scope.spawn(move || commit_all(session, &waiting, &told));
        Self {
            session,
            finder,
            pool: Closing(pool),
            groups: Groups::default(),
            scope,
            sender,
            messages,
            batches,
            batch: Vec::new(),
            since: Instant::now(),
            urgent: false,
            handed_over: 0,
        }
    }

    /// Hands jobs to a thread, which does one after the other.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn perform(&mut self, group: Vec<Start>) -> io::Result<()> {
        if group.is_empty() {
            return Ok(());
        }
        let turns = self.groups.add(group);
        let (session, finder, sender) = (self.session, self.finder, self.sender.clone());
        self.pool.0.run(self.scope, move || {
            let one = |Start { ix, task, given, begin, cancel }: Start| {
                // a job that panics must not leave the run waiting for it
                let job = || perform(session, finder, ix, task, given, begin, cancel);
                catch_unwind(AssertUnwindSafe(job))
                    .unwrap_or_else(|panic| Performed::Finished(Box::new(Finished::panicked(ix, &*panic))))
            };
            let (performed, rest) = turns.take(one);
            drop(turns);
            // the receiver is gone only if the run is over
            let _ = sender.send(Message::Performed(performed, rest));
        })
    }

    /// What groups that take long have done, and what they have not begun; `now`: of all groups.
    pub(super) fn late(&mut self, now: bool) -> Vec<Taken<'s>> {
        self.groups.take(now)
    }

    /// Takes what a job made. `urgent`: what waits for it matters more than anything that could be done meanwhile.
    pub(super) fn take(&mut self, pending: Pending<'s>, urgent: bool) {
        if self.batch.is_empty() {
            self.since = Instant::now();
        }
        self.batch.push(pending);
        self.urgent |= urgent;
    }

    /// How many wait to be committed, or are being committed.
    pub(super) fn committing(&self) -> usize {
        self.batch.len() + self.handed_over
    }

    /// Hands the batch to the committing thread if it is time. `idle`: there is nothing else to do.
    pub(super) fn commit_if_due(&mut self, idle: bool) {
        let due = idle || self.urgent || self.batch.len() >= MANY || self.since.elapsed() >= LINGER;
        if self.batch.is_empty() || self.handed_over > 0 || !due {
            return;
        }
        self.urgent = false;
        self.handed_over = self.batch.len();
        // the thread ends only after this sender is dropped
        let _ = self.batches.send(std::mem::take(&mut self.batch));
    }

    /// When [`Self::commit_if_due`] or [`Self::late`] has to be asked again.
    pub(super) fn next(&self) -> Duration {
        let waits = !self.batch.is_empty() && self.handed_over == 0;
        let commit = if waits { LINGER.saturating_sub(self.since.elapsed()) } else { Duration::MAX };
        commit.min(self.groups.next())
    }

    /// The committing thread has nothing more.
    pub(super) fn commit_done(&mut self) {
        self.handed_over = 0;
    }
}

fn commit_all<'s>(session: &Session, batches: &Receiver<Vec<Pending<'s>>>, told: &Sender<Message<'s>>) {
    while let Ok(batch) = batches.recv() {
        let mut left: BTreeSet<NodeIx> = batch.iter().map(Pending::node).collect();
        let mut group = Vec::new();
        let done = |finished: Finished| {
            left.remove(&finished.node);
            group.push(finished);
            if group.len() == TOLD {
                // the receiver is gone only if the run is over
                let _ = told.send(Message::Committed(std::mem::take(&mut group)));
            }
        };
        let panicked = catch_unwind(AssertUnwindSafe(|| commit(session, batch, done)));
        if let Err(panic) = panicked {
            group.extend(left.into_iter().map(|node| Finished::panicked(node, &*panic)));
        }
        let _ = told.send(Message::Committed(group));
        let _ = told.send(Message::CommitDone);
    }
}
