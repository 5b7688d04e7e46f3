//! The run: evaluates nodes whose producers are done, hands jobs to threads, takes their results, until nothing is left to do.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::attempt::{End, Failure, Finished, Task, perform};
use super::command;
use super::evaluate::{Keyed, Verdict, artifacts_of, evaluate, paths};
use super::facts::{FactFinder, Outputs};
use super::options::{Restore, RunOptions, RunSummary};
use super::project::Project;
use super::publish;
use super::recover;
use super::schedule::{Capacity, Demand, Scheduler};
use super::session::{Session, started_text};
use crate::api::CancelToken;
use crate::base::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::event::{EVENT_VERSION, Event, NodeReport};
use crate::graph::{Item, Node, NodeAction, NodeIx, Selection, select};
use crate::key::{Reason, plan_digest};
use crate::model::{Artifact, Outcome, Policy};
use crate::store::ResultRecord;

/// Runs a session to its end. The caller holds the workspace lock.
pub fn run(session: &mut Session) -> Result<RunSummary> {
    let result = run_inner(session);
    session.services.stop_all(session);
    let synced = session.project.workspace.sync().and_then(|()| session.project.workspace.close_clean());
    session.close();
    let summary = result?;
    synced?;
    session.emit(Event::RunFinished {
        outcome: match summary.failure {
            None => "ok",
            Some(Kind::Interrupted | Kind::Terminated) => "cancelled",
            Some(_) => "failed",
        }
        .to_owned(),
        seconds: session.started.elapsed().as_secs_f64(),
        orphans: super::query::orphans(&session.project).len(),
    });
    Ok(summary)
}

fn run_inner(session: &Session) -> Result<RunSummary> {
    let project = &session.project;
    session.emit(Event::RunStarted {
        version: EVENT_VERSION,
        run: session.run.clone(),
        workflow: project.graph.name.clone(),
        file: project.graph.file.clone(),
        started_at: started_text(),
    });
    for line in recover::recover(project)? {
        session.note(line);
    }
    let selection = select(&project.graph, &session.options.targets)?;
    let capacity = capacity(session);
    check_demands(session, &selection, &capacity)?;
    let digest = plan_digest(&project.graph, &mut selection.nodes.iter().copied());
    session.emit(Event::Planned { nodes: selection.nodes.len(), plan_digest: digest.to_string() });
    let finder = FactFinder::default();
    finder.prefetch(
        project,
        selection.nodes.iter().flat_map(|ix| paths(project, &project.graph.nodes[*ix])).collect(),
    );
    let failure = std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        let mut coordinator = Coordinator::new(session, &finder, selection, capacity);
        coordinator.run(scope, &sender, &receiver)
    });
    Ok(RunSummary {
        run: session.run.clone(),
        plan_digest: digest,
        failure,
        elapsed: session.started.elapsed(),
    })
}

fn capacity(session: &Session) -> Capacity {
    let pools = &session.project.graph.resources.pools;
    Capacity {
        cpu: session.options.jobs.max(1) as u32,
        mem: memory(),
        pools: pools.iter().map(|(name, pool)| (name.clone(), pool.size)).collect(),
    }
}

/// Memory of the machine in bytes; without limit where it cannot be found.
fn memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or(u64::MAX, |kib: u64| kib * 1024)
}

/// A demand that can never be met is an error before anything starts.
fn check_demands(session: &Session, selection: &Selection, capacity: &Capacity) -> Result<()> {
    for ix in &selection.nodes {
        let node = &session.project.graph.nodes[*ix];
        for (pool, n) in &node.resources.pools {
            let size = capacity.pools.get(pool).copied().unwrap_or(0);
            if *n > size {
                return Err(Error::environment(format!(
                    "{} asks for {n} of pool '{pool}', which has {size}",
                    node.id
                ))
                .hint(format!("raise resources.pools.{pool} in the workflow")));
            }
        }
        if node.resources.mem > capacity.mem {
            return Err(Error::environment(format!(
                "{} asks for {} MiB of memory, and the machine has {} MiB",
                node.id,
                node.resources.mem >> 20,
                capacity.mem >> 20
            )));
        }
    }
    Ok(())
}

/// A node's part in the run.
#[derive(Default)]
struct Slot {
    /// Producers and predecessors that are not done.
    waiting: usize,
    outcome: Option<Outcome>,
    artifacts: Option<Vec<Artifact>>,
    key: Option<Digest>,
    /// Its outputs are in their declared places.
    in_place: bool,
    /// Producers whose bytes it waits for.
    bytes: BTreeSet<NodeIx>,
    /// Said once the run knows whether its bytes were asked for.
    held_report: Option<NodeReport>,
    reason: Option<String>,
    stale: bool,
    attempts: u32,
    seconds: f64,
    voided: bool,
    /// Its dependents were told that it is done; once, also when it runs again for its bytes.
    unlocked: bool,
}

struct Coordinator<'s> {
    session: &'s Session,
    finder: &'s FactFinder,
    selection: Selection,
    /// Nodes whose outputs are brought into place.
    wanted: BTreeSet<NodeIx>,
    scheduler: Scheduler,
    slots: Vec<Slot>,
    priority: Vec<u64>,
    evaluable: VecDeque<NodeIx>,
    tasks: HashMap<NodeIx, Task>,
    running: HashMap<NodeIx, (CancelToken, Option<Instant>)>,
    /// Key of a queued or running node -> the nodes with the same key that wait for it.
    flights: HashMap<Digest, (NodeIx, Vec<NodeIx>)>,
    byte_waiters: HashMap<NodeIx, Vec<NodeIx>>,
    service_users: Vec<usize>,
    failure: Option<Kind>,
    halting: bool,
}

impl Outputs for Vec<Slot> {
    fn artifacts(&self, node: NodeIx) -> Option<&[Artifact]> {
        self[node].artifacts.as_deref()
    }
}

impl<'s> Coordinator<'s> {
    fn new(session: &'s Session, finder: &'s FactFinder, selection: Selection, capacity: Capacity) -> Self {
        let graph = &session.project.graph;
        let mut slots: Vec<Slot> = (0..graph.nodes.len()).map(|_| Slot::default()).collect();
        let mut service_users = vec![0; graph.services.len()];
        for &ix in &selection.nodes {
            slots[ix].waiting = dependencies(session, ix).len();
            for service in &graph.nodes[ix].services {
                service_users[*service] += 1;
            }
        }
        let wanted = wanted(&session.project, &session.options, &selection);
        let evaluable = graph
            .order
            .iter()
            .copied()
            .filter(|ix| selection.nodes.contains(ix) && slots[*ix].waiting == 0)
            .collect();
        Self {
            priority: priorities(session, &selection),
            session,
            finder,
            selection,
            wanted,
            scheduler: Scheduler::new(capacity),
            slots,
            evaluable,
            tasks: HashMap::new(),
            running: HashMap::new(),
            flights: HashMap::new(),
            byte_waiters: HashMap::new(),
            service_users,
            failure: None,
            halting: false,
        }
    }

    fn node(&self, ix: NodeIx) -> &'s Node {
        &self.session.project.graph.nodes[ix]
    }

    fn run<'scope>(
        &mut self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        sender: &Sender<Finished>,
        receiver: &Receiver<Finished>,
    ) -> Option<Kind>
    where
        's: 'scope,
    {
        loop {
            self.halting |= self.session.stopping();
            while let Some(ix) = self.evaluable.pop_front() {
                self.evaluate(ix, scope);
                if self.session.stopping() {
                    break;
                }
            }
            self.halting |= self.session.stopping();
            if self.halting {
                // what is needed to finish what runs is not among these
                for ix in self.scheduler.drain() {
                    self.tasks.remove(&ix);
                }
            } else {
                while let Some(ix) = self.scheduler.next() {
                    self.start(ix, scope, sender.clone());
                }
            }
            if self.scheduler.running() == 0 && (self.halting || self.evaluable.is_empty()) {
                break;
            }
            match receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(finished) => self.finished(finished, scope),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(finished) = receiver.try_recv() {
                self.finished(finished, scope);
            }
            self.watch_tokens();
        }
        self.close(scope);
        self.failure
    }

    /// Passes Ctrl-C and time limits of stages on to what runs.
    fn watch_tokens(&self) {
        let stopping = self.session.stopping();
        for (token, deadline) in self.running.values() {
            if stopping || deadline.is_some_and(|deadline| Instant::now() > deadline) {
                token.cancel();
            }
        }
    }

    fn start<'scope>(
        &mut self,
        ix: NodeIx,
        scope: &'scope std::thread::Scope<'scope, '_>,
        sender: Sender<Finished>,
    ) where
        's: 'scope,
    {
        let Some(task) = self.tasks.remove(&ix) else {
            self.scheduler.finish(ix);
            return;
        };
        let node = self.node(ix);
        let cancel = CancelToken::default();
        let limit =
            if command::is_command(node) { None } else { node.timeout.map(|limit| Instant::now() + limit) };
        self.running.insert(ix, (cancel.clone(), limit));
        let inputs = self.present_items(ix);
        let (session, finder) = (self.session, self.finder);
        let body = move || {
            // a job that panics must not leave the run waiting for it
            let job = || perform(session, finder, ix, task, inputs, &cancel);
            let finished = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job))
                .unwrap_or_else(|panic| Finished::panicked(ix, &*panic));
            // the receiver is gone only if the run is over
            let _ = sender.send(finished);
        };
        let spawned = std::thread::Builder::new().name(format!("node-{ix}")).spawn_scoped(scope, body);
        if let Err(error) = spawned {
            self.running.remove(&ix);
            self.scheduler.finish(ix);
            self.fail(
                ix,
                Error::environment(format!("failed to start a thread: {error}")).into(),
                None,
                scope,
            );
        }
    }

    /// Items of each input that are there.
    fn present_items(&self, ix: NodeIx) -> Vec<Vec<Item>> {
        let present = |item: &&Item| match item {
            Item::Made { node, output } | Item::Within { node, output, .. } => self.slots[*node]
                .artifacts
                .as_ref()
                .is_some_and(|artifacts| artifacts[*output] != Artifact::Absent),
            _ => true,
        };
        self.node(ix)
            .inputs
            .iter()
            .map(|input| input.items.iter().filter(present).cloned().collect())
            .collect()
    }

    fn evaluate<'scope>(&mut self, ix: NodeIx, scope: &'scope std::thread::Scope<'scope, '_>)
    where
        's: 'scope,
    {
        if self.slots[ix].outcome.is_some_and(|outcome| outcome != Outcome::Cached) {
            return;
        }
        let node = self.node(ix);
        let bad = |outcome: Option<Outcome>| {
            matches!(outcome, Some(Outcome::Failed | Outcome::Skipped | Outcome::Cancelled))
        };
        let cause = node
            .producers
            .iter()
            .find(|p| bad(self.slots[**p].outcome))
            .or_else(|| node.needs.iter().find(|p| bad(self.slots[**p].outcome) && !self.allowed(**p)));
        if let Some(&cause) = cause {
            let cancelled = self.slots[cause].outcome == Some(Outcome::Cancelled);
            let outcome = if cancelled { Outcome::Cancelled } else { Outcome::Skipped };
            let verb = self.slots[cause].outcome.map_or("", Outcome::as_str);
            return self.done(ix, outcome, Some(format!("{} {verb}", self.node(cause).id)), scope);
        }
        if self.halting {
            return;
        }
        // a directory is read as it lies there: what nodes make in it comes into place first
        let inside = node.inputs.iter().flat_map(|input| &input.items).filter_map(|item| match item {
            Item::Source { inside, .. } => Some(inside),
            _ => None,
        });
        let unplaced: BTreeSet<NodeIx> =
            inside.flatten().copied().filter(|p| !self.slots[*p].in_place).collect();
        if !unplaced.is_empty() {
            return self.wait_for_bytes(ix, unplaced);
        }
        let verdict = evaluate(&self.session.project, self.finder, &self.session.options, node, &self.slots);
        match verdict {
            Verdict::Absent => {
                self.slots[ix].artifacts = Some(vec![Artifact::Absent; node.outputs.len()]);
                if let Err(error) = publish::absent(self.session, node) {
                    return self.fail(ix, error.into(), None, scope);
                }
                self.slots[ix].in_place = true;
                self.done(ix, Outcome::Absent, Some("an input it takes is absent".to_owned()), scope);
            }
            Verdict::Hit { keyed, record, differing, stale } => {
                self.hit(ix, keyed, record, differing, stale, scope)
            }
            Verdict::Check { keyed, record } => {
                self.queue_run(ix, keyed, Reason::Check.to_string(), Some(record), scope);
            }
            Verdict::Run { keyed, reason } => self.queue_run(ix, keyed, reason.to_string(), None, scope),
            Verdict::Bytes(producer) => self.wait_for_bytes(ix, BTreeSet::from([producer])),
            Verdict::Fault(error) => self.fail(ix, error.into(), None, scope),
        }
    }

    fn allowed(&self, ix: NodeIx) -> bool {
        self.node(ix).allow_failure && self.slots[ix].outcome == Some(Outcome::Failed)
    }

    fn hit<'scope>(
        &mut self,
        ix: NodeIx,
        keyed: Keyed,
        record: Arc<ResultRecord>,
        differing: Vec<(usize, Reason)>,
        stale: bool,
        scope: &'scope std::thread::Scope<'scope, '_>,
    ) where
        's: 'scope,
    {
        let node = self.node(ix);
        let artifacts = artifacts_of(&record, node);
        if self.slots[ix].artifacts.as_ref().is_some_and(|old| *old != artifacts) {
            self.reopen_dependents(ix);
        }
        let slot = &mut self.slots[ix];
        slot.artifacts = Some(artifacts);
        slot.key = Some(keyed.key);
        slot.stale = stale;
        if differing.is_empty() {
            slot.in_place = true;
            if let Err(error) = self.claim(ix, &keyed) {
                return self.fail(ix, error.into(), None, scope);
            }
            self.done(ix, Outcome::Fresh, None, scope);
            return self.bytes_ready(ix, true);
        }
        slot.reason = differing.first().map(|(_, reason)| reason.to_string());
        if self.wanted.contains(&ix) || self.byte_waiters.contains_key(&ix) {
            let only = differing.into_iter().map(|(index, _)| index).collect();
            self.tasks.insert(ix, Task::Restore { keyed: Some(keyed), record, only });
            self.push(ix);
        } else {
            self.done(ix, Outcome::Cached, None, scope);
        }
    }

    /// Outputs in place that this workflow has not claimed yet.
    fn claim(&self, ix: NodeIx, keyed: &Keyed) -> Result<()> {
        let node = self.node(ix);
        let project = &self.session.project;
        let known = project.workspace.node_summary(project.name(), &node.id).is_some_and(|row| {
            row.key == keyed.key
                && row.outputs.iter().map(|(_, path)| path).eq(node.outputs.iter().map(|output| &output.path))
        });
        if !known {
            let artifacts = self.slots[ix].artifacts.clone().unwrap_or_default();
            publish::claim(self.session, node, &artifacts)?;
            super::attempt::remember(self.session, node, keyed, None);
        }
        Ok(())
    }

    fn queue_run<'scope>(
        &mut self,
        ix: NodeIx,
        keyed: Keyed,
        reason: String,
        previous: Option<Arc<ResultRecord>>,
        _scope: &'scope std::thread::Scope<'scope, '_>,
    ) where
        's: 'scope,
    {
        let node = self.node(ix);
        self.slots[ix].key = Some(keyed.key);
        self.slots[ix].reason = Some(reason.clone());
        let options = &self.session.options;
        let cached = !options.no_cache && node.policy != Policy::Never;
        let share = cached && previous.is_none() && reason != Reason::Forced.to_string();
        if share {
            match self.flights.entry(keyed.key) {
                std::collections::hash_map::Entry::Occupied(mut flight) if flight.get().0 != ix => {
                    flight.get_mut().1.push(ix);
                    return;
                }
                std::collections::hash_map::Entry::Occupied(_) => {}
                std::collections::hash_map::Entry::Vacant(slot) => {
                    slot.insert((ix, Vec::new()));
                }
            }
        }
        self.tasks.insert(ix, Task::Run { keyed, reason, previous, share });
        self.ensure_bytes(ix);
    }

    /// Queues `ix` once every file it takes is in place; restores of producers are queued for that.
    fn ensure_bytes(&mut self, ix: NodeIx) {
        let mut missing = BTreeSet::new();
        for item in self.present_items(ix).into_iter().flatten() {
            missing.extend(item.producers().into_iter().filter(|p| !self.slots[*p].in_place));
        }
        if missing.is_empty() {
            return self.push(ix);
        }
        self.wait_for_bytes(ix, missing);
    }

    /// `ix` goes on once the outputs of these nodes are in place: it is queued if it has a task, else looked at again.
    fn wait_for_bytes(&mut self, ix: NodeIx, missing: BTreeSet<NodeIx>) {
        self.slots[ix].bytes = missing.clone();
        for producer in missing {
            let waiters = self.byte_waiters.entry(producer).or_default();
            waiters.push(ix);
            if waiters.len() == 1 {
                self.queue_restore(producer);
            }
        }
    }

    /// A node that was a hit whose bytes nobody wanted: now somebody does.
    fn queue_restore(&mut self, ix: NodeIx) {
        let record =
            self.slots[ix].key.and_then(|key| self.session.project.store.result(&key).ok().flatten());
        match record {
            Some(record) => {
                let only = (0..self.node(ix).outputs.len()).collect();
                self.tasks.insert(ix, Task::Restore { keyed: None, record, only });
                self.push(ix);
            }
            None => self.rerun(ix, "its result"),
        }
    }

    /// Bytes of a known result are gone: its node runs again, whatever the cache says.
    fn rerun(&mut self, ix: NodeIx, what: &str) {
        let node = self.node(ix);
        let reason = Reason::BytesLost(what.to_owned());
        if node.policy == Policy::Sample {
            self.tasks.remove(&ix);
            let failure = Failure {
                hints: vec![format!("measure again with --remeasure '{}'", node.id)],
                ..Failure::new(format!("{reason}, and a measurement is never repeated by itself"))
            };
            self.slots[ix].reason = Some(reason.to_string());
            return self.lost_for_good(ix, failure);
        }
        let facts = self.finder.facts(&self.session.project, node, &self.slots);
        match facts {
            Ok(facts) => {
                self.session.note(format!("{}: {reason}; it runs again", node.id));
                let keyed = Keyed {
                    key: crate::key::hash(&self.session.project.graph, node, &facts),
                    manifest: crate::key::manifest(&self.session.project.graph, node, &facts),
                    facts,
                };
                self.slots[ix].reason = Some(reason.to_string());
                self.slots[ix].outcome = None;
                self.slots[ix].held_report = None;
                self.tasks.insert(
                    ix,
                    Task::Run { keyed, reason: reason.to_string(), previous: None, share: false },
                );
                self.ensure_bytes(ix);
            }
            Err(_) => self.lost_for_good(ix, Failure::new(format!("{reason}, and its inputs are gone"))),
        }
    }

    fn lost_for_good(&mut self, ix: NodeIx, failure: Failure) {
        self.slots[ix].outcome = Some(Outcome::Failed);
        self.slots[ix].held_report = None;
        self.note_failure(ix, &failure);
        let mut report = self.report(ix, Outcome::Failed);
        report.error = Some(failure.message);
        report.hints = failure.hints;
        self.session.emit(Event::NodeFinished(report));
        for waiter in self.byte_waiters.remove(&ix).unwrap_or_default() {
            self.plan_anew(waiter);
        }
        // those that were only waiting for the key go on; those that need the bytes are skipped when evaluated
        if !std::mem::replace(&mut self.slots[ix].unlocked, true) {
            self.release(ix);
        }
    }

    fn push(&mut self, ix: NodeIx) {
        let node = self.node(ix);
        let waits = match (&self.tasks.get(&ix), &node.action) {
            (Some(Task::Restore { .. }), _) => false,
            (_, NodeAction::Stage { cpu, .. }) => !cpu,
            _ => false,
        };
        let demand = match self.tasks.get(&ix) {
            Some(Task::Restore { .. }) => Demand { cpu: 1, ..Demand::default() },
            _ => Demand {
                cpu: if waits { 0 } else { node.resources.cpu.max(1) },
                waits,
                mem: node.resources.mem,
                pools: node.resources.pools.clone(),
                exclusive: node.resources.exclusive.clone(),
            },
        };
        self.scheduler.push(ix, demand, self.priority[ix]);
    }

    fn finished<'scope>(&mut self, finished: Finished, scope: &'scope std::thread::Scope<'scope, '_>)
    where
        's: 'scope,
    {
        let ix = finished.node;
        self.scheduler.finish(ix);
        let timed_out = self
            .running
            .remove(&ix)
            .is_some_and(|(_, deadline)| deadline.is_some_and(|deadline| Instant::now() > deadline));
        self.slots[ix].attempts += finished.attempts;
        self.slots[ix].seconds += finished.seconds;
        let after = self.slots[ix].outcome.is_some();
        match finished.end {
            End::Ran(artifacts) => {
                let same = self.slots[ix].artifacts.as_ref().is_none_or(|old| *old == artifacts);
                self.slots[ix].artifacts = Some(artifacts);
                self.slots[ix].in_place = true;
                self.land(ix, Outcome::Ran, finished.record, false, scope);
                self.bytes_ready(ix, same);
                if !same {
                    self.reopen_dependents(ix);
                }
            }
            End::Stands { artifacts, checked, restored } => {
                self.slots[ix].artifacts = Some(artifacts);
                self.slots[ix].in_place = true;
                let outcome = if restored { Outcome::Restored } else { Outcome::Fresh };
                if after {
                    // a held report of a cached node becomes one of a restored node
                    if let Some(mut report) = self.slots[ix].held_report.take() {
                        report.outcome = Outcome::Restored;
                        report.seconds = finished.seconds;
                        self.session.emit(Event::NodeFinished(report));
                    }
                    self.slots[ix].outcome = Some(Outcome::Restored);
                } else {
                    self.land(ix, outcome, finished.record, checked, scope);
                }
                self.bytes_ready(ix, true);
            }
            End::Lost(what) => self.rerun(ix, &what),
            End::Voided(path) => self.voided(ix, &path, finished.log, scope),
            End::Cancelled if timed_out && !self.session.stopping() => {
                let limit = self.node(ix).timeout.unwrap_or_default();
                let failure = Failure::new(format!("timed out after {:.3} s", limit.as_secs_f64()));
                self.fail(ix, failure, finished.log, scope);
            }
            End::Failed(failure) => {
                let failure = if timed_out && !self.session.stopping() {
                    let limit = self.node(ix).timeout.unwrap_or_default();
                    Failure {
                        message: format!("timed out after {:.3} s: {}", limit.as_secs_f64(), failure.message),
                        ..failure
                    }
                } else {
                    failure
                };
                self.fail(ix, failure, finished.log, scope);
            }
            End::Cancelled => self.done(ix, Outcome::Cancelled, None, scope),
        }
        self.flight_over(ix);
    }

    /// Those that waited for a node with the same key are looked at again.
    fn flight_over(&mut self, ix: NodeIx) {
        if !self.tasks.contains_key(&ix) {
            self.leave_flight(ix);
        }
    }

    /// `ix` no longer is the one that makes the result of its key.
    fn leave_flight(&mut self, ix: NodeIx) {
        if let Some(key) = self.slots[ix].key
            && self.flights.get(&key).is_some_and(|(leader, _)| *leader == ix)
            && let Some((_, waiting)) = self.flights.remove(&key)
        {
            self.evaluable.extend(waiting);
        }
    }

    fn voided<'scope>(
        &mut self,
        ix: NodeIx,
        path: &str,
        log: Option<String>,
        scope: &'scope std::thread::Scope<'scope, '_>,
    ) where
        's: 'scope,
    {
        let path = if path.is_empty() { "." } else { path };
        if self.slots[ix].voided {
            let implicit = self.node(ix).inputs.iter().any(|input| {
                input.implicit && input.items.iter().any(|i| self.session.project.graph.item_path(i) == path)
            });
            let mut failure = Failure::new(format!("input {path} keeps changing"));
            if implicit && command::is_command(self.node(ix)) {
                failure.hints.push(format!(
                    "{path} is an input because it stands in the command; if the command writes it, declare it as an output"
                ));
            } else {
                failure.hints.push("run again when nothing else writes to it".to_owned());
            }
            return self.fail(ix, failure, log, scope);
        }
        self.slots[ix].voided = true;
        self.session.note(format!("{}: {path} changed meanwhile; planned again", self.node(ix).id));
        self.finder.forget(&self.session.project.root.join(path));
        // an input made by a node may have been damaged: look at its place again
        for producer in self.node(ix).producers.clone() {
            let record = self.slots[producer]
                .key
                .and_then(|key| self.session.project.store.result(&key).ok().flatten());
            if let Some(record) = record {
                for path in paths(&self.session.project, self.node(producer)) {
                    self.finder.forget(&path);
                }
                let differing = super::evaluate::differing(
                    &self.session.project,
                    self.finder,
                    self.node(producer),
                    &record,
                );
                self.slots[producer].in_place = differing.is_ok_and(|differing| differing.is_empty());
            }
        }
        self.leave_flight(ix);
        self.evaluable.push_back(ix);
    }

    /// The bytes of `ix` are in place: its waiters go on. If they are not what was expected, their keys are made anew.
    fn bytes_ready(&mut self, ix: NodeIx, same: bool) {
        for waiter in self.byte_waiters.remove(&ix).unwrap_or_default() {
            self.slots[waiter].bytes.remove(&ix);
            if !same {
                self.plan_anew(waiter);
            } else if !self.slots[waiter].bytes.is_empty() || self.running.contains_key(&waiter) {
            } else if self.tasks.contains_key(&waiter) {
                self.push(waiter);
            } else {
                self.evaluable.push_back(waiter);
            }
        }
    }

    /// What a node waiting for bytes was about to do is dropped; it is looked at again.
    fn plan_anew(&mut self, waiter: NodeIx) {
        if self.running.contains_key(&waiter) {
            return;
        }
        self.scheduler.remove(waiter);
        self.tasks.remove(&waiter);
        self.slots[waiter].bytes.clear();
        self.leave_flight(waiter);
        self.evaluable.push_back(waiter);
    }

    /// `ix` ran again for bytes that were lost and made others: what was found by the old ones no longer stands.
    fn reopen_dependents(&mut self, ix: NodeIx) {
        let dependents: Vec<NodeIx> = self.session.project.graph.dependents(ix).collect();
        for dependent in dependents {
            let takes = self.node(dependent).producers.contains(&ix);
            let slot = &mut self.slots[dependent];
            let found = matches!(
                slot.outcome,
                Some(Outcome::Fresh | Outcome::Cached | Outcome::Restored | Outcome::Ran | Outcome::Absent)
            );
            if !takes || slot.waiting > 0 || !(found || self.tasks.contains_key(&dependent)) {
                continue;
            }
            slot.outcome = None;
            slot.held_report = None;
            self.plan_anew(dependent);
        }
    }

    /// A success: reported now, unless it was known before.
    fn land<'scope>(
        &mut self,
        ix: NodeIx,
        outcome: Outcome,
        record: serde_json::Map<String, serde_json::Value>,
        checked: bool,
        scope: &'scope std::thread::Scope<'scope, '_>,
    ) where
        's: 'scope,
    {
        self.slots[ix].outcome = Some(outcome);
        let mut report = self.report(ix, outcome);
        report.record = record;
        report.checked = checked;
        if outcome == Outcome::Fresh {
            report.reason = None;
        }
        self.session.emit(Event::NodeFinished(report));
        self.unlock(ix, scope);
    }

    fn fail<'scope>(
        &mut self,
        ix: NodeIx,
        failure: Failure,
        log: Option<String>,
        scope: &'scope std::thread::Scope<'scope, '_>,
    ) where
        's: 'scope,
    {
        let mut report = self.report(ix, Outcome::Failed);
        self.slots[ix].outcome = Some(Outcome::Failed);
        self.slots[ix].held_report = None;
        self.note_failure(ix, &failure);
        report.allowed = self.node(ix).allow_failure;
        report.error = Some(failure.message);
        report.hints = failure.hints;
        report.tail = failure.tail;
        report.log = log;
        self.session.emit(Event::NodeFinished(report));
        for waiter in self.byte_waiters.remove(&ix).unwrap_or_default() {
            self.plan_anew(waiter);
        }
        self.unlock(ix, scope);
    }

    fn note_failure(&mut self, ix: NodeIx, failure: &Failure) {
        if self.node(ix).allow_failure {
            return;
        }
        // a bug outweighs a lack of the machine, and that a failed step
        let weight = |kind: Option<Kind>| match kind {
            None => 0,
            Some(Kind::Bug) => 3,
            Some(Kind::Environment) => 2,
            Some(_) => 1,
        };
        let kind = if weight(Some(failure.kind)) > 1 { failure.kind } else { Kind::Step };
        if weight(Some(kind)) > weight(self.failure) {
            self.failure = Some(kind);
        }
        self.halting |= !self.session.options.keep_going;
    }

    fn done<'scope>(
        &mut self,
        ix: NodeIx,
        outcome: Outcome,
        reason: Option<String>,
        scope: &'scope std::thread::Scope<'scope, '_>,
    ) where
        's: 'scope,
    {
        self.slots[ix].outcome = Some(outcome);
        if reason.is_some() {
            self.slots[ix].reason = reason;
        }
        let report = self.report(ix, outcome);
        if outcome == Outcome::Cached {
            self.slots[ix].held_report = Some(report);
        } else {
            self.session.emit(Event::NodeFinished(report));
        }
        self.unlock(ix, scope);
    }

    fn report(&self, ix: NodeIx, outcome: Outcome) -> NodeReport {
        let slot = &self.slots[ix];
        NodeReport {
            id: self.node(ix).id.clone(),
            outcome,
            reason: slot.reason.clone(),
            key: slot.key.map(|key| key.to_string()),
            seconds: slot.seconds,
            attempts: slot.attempts,
            checked: false,
            stale: slot.stale,
            allowed: false,
            device: None,
            error: None,
            hints: Vec::new(),
            tail: Vec::new(),
            log: None,
            record: serde_json::Map::new(),
        }
    }

    /// Dependents lose one thing to wait for; services lose a user.
    fn unlock<'scope>(&mut self, ix: NodeIx, scope: &'scope std::thread::Scope<'scope, '_>)
    where
        's: 'scope,
    {
        if std::mem::replace(&mut self.slots[ix].unlocked, true) {
            return;
        }
        self.release(ix);
        for &service in &self.node(ix).services {
            self.service_users[service] = self.service_users[service].saturating_sub(1);
            if self.service_users[service] == 0 {
                let session = self.session;
                scope.spawn(move || session.services.stop(session, service));
            }
        }
    }

    fn release(&mut self, ix: NodeIx) {
        let dependents: Vec<NodeIx> = self.session.project.graph.dependents(ix).collect();
        for dependent in dependents {
            if !self.selection.nodes.contains(&dependent) || self.slots[dependent].waiting == 0 {
                continue;
            }
            self.slots[dependent].waiting -= 1;
            if self.slots[dependent].waiting == 0 {
                self.evaluable.push_back(dependent);
            }
        }
    }

    /// After the last job: what never got its turn.
    fn close<'scope>(&mut self, scope: &'scope std::thread::Scope<'scope, '_>)
    where
        's: 'scope,
    {
        for ix in self.session.project.graph.order.clone() {
            if !self.selection.nodes.contains(&ix) {
                continue;
            }
            if let Some(report) = self.slots[ix].held_report.take() {
                self.session.emit(Event::NodeFinished(report));
            }
            if self.slots[ix].outcome.is_none() {
                let of_failed = dependencies(self.session, ix).into_iter().find(|dep| {
                    matches!(self.slots[*dep].outcome, Some(Outcome::Failed | Outcome::Skipped))
                        && !self.allowed(*dep)
                });
                let (outcome, reason) = match of_failed {
                    Some(dep) => {
                        let verb = self.slots[dep].outcome.map_or("", Outcome::as_str);
                        (Outcome::Skipped, Some(format!("{} {verb}", self.node(dep).id)))
                    }
                    None => (Outcome::Cancelled, None),
                };
                self.done(ix, outcome, reason, scope);
            }
        }
        if self.session.stopping() {
            let terminated = self.session.interrupts.terminated.is_cancelled();
            self.failure = Some(if terminated { Kind::Terminated } else { Kind::Interrupted });
        }
    }
}

/// Nodes whose outputs are brought into place.
pub(super) fn wanted(project: &Project, options: &RunOptions, selection: &Selection) -> BTreeSet<NodeIx> {
    match (options.restore, options.targets.is_empty()) {
        (Some(Restore::All), _) | (None, true) => selection.nodes.clone(),
        (_, false) => selection.targets.clone(),
        (Some(Restore::Targets), true) => {
            let last = |ix: &NodeIx| project.graph.dependents(*ix).next().is_none();
            selection.nodes.iter().copied().filter(last).collect()
        }
    }
}

/// Producers and predecessors, each once.
fn dependencies(session: &Session, ix: NodeIx) -> HashSet<NodeIx> {
    session.project.graph.dependencies(ix).collect()
}

/// Longest remaining path of every node in microseconds, by recorded durations.
fn priorities(session: &Session, selection: &Selection) -> Vec<u64> {
    let project = &session.project;
    let graph = &project.graph;
    let mut out = vec![0u64; graph.nodes.len()];
    for &ix in graph.order.iter().rev().filter(|ix| selection.nodes.contains(ix)) {
        let node = &graph.nodes[ix];
        let recorded =
            project.workspace.node_summary(project.name(), &node.id).and_then(|row| median(&row.seconds));
        let unknown = if command::is_command(node) { 1.0 } else { 0.05 };
        let own = (recorded.unwrap_or(unknown).max(0.000_001) * 1e6) as u64;
        let rest = graph.dependents(ix).map(|dependent| out[dependent]).max().unwrap_or(0);
        out[ix] = own + rest;
    }
    out
}

fn median(seconds: &[f64]) -> Option<f64> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
