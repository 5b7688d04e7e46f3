//! The run: evaluates nodes whose producers are done, hands jobs to threads, takes their results, until nothing is left to do.

mod brief;
mod bytes;
mod demand;
mod evaluable;
mod evaluate;
mod frozen;
mod hands;
mod outcome;
mod quiet;
mod services;
mod slots;
mod timing;
mod tokens;
mod turns;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::attempt::{Given, Performed, Task};
use super::determinism::{self, Subject};
use super::evaluate::{Keyed, looks};
use super::facts::{FactFinder, Outputs};
use super::machine::wants;
use super::options::{Restore, RunOptions, RunSummary};
use super::pool::Pool;
use super::project::Project;
use super::schedule::{Capacity, Fleet, Lease, Scheduler};
use super::session::{Session, started_text};
use super::upgrade::{settle, upgrade_note};
use super::watchlist::Seen;
use crate::api::CancelToken;
use crate::base::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::event::{EVENT_VERSION, Event};
use crate::graph::{Item, Node, NodeIx, NodeSet, Selection, Undeclared};
use crate::model::Artifact;
use brief::Brief;
use demand::priorities;
pub(super) use demand::{capacity, check_demands, demand, expected, weigh};
use evaluable::Evaluable;
pub(super) use frozen::would_run;
use hands::{Hands, Message, Start};
use quiet::Quiet;
use services::Ended;
use slots::Slots;
use timing::Pulse;
use tokens::Tokens;
use turns::Taken;

/// How often interrupts, time limits and the death of services are looked for.
const LOOK: Duration = Duration::from_millis(50);
/// So many nodes are evaluated before those that are ready are started, and messages are read.
const AT_ONCE: usize = 64;
/// But not for longer than this: one that takes thousands of files takes milliseconds.
const AT_LENGTH: Duration = Duration::from_millis(2);
/// As many nodes that wait for a slot are enough.
const ENOUGH: usize = 256;

/// Runs a session to its end. The caller holds the workspace lock.
pub fn run(session: &mut Session) -> Result<RunSummary> {
    let result = run_inner(session);
    session.services.stop_all(session);
    let synced = session.project.workspace.sync().and_then(|()| session.project.workspace.close_clean());
    session.close();
    let result = result.and_then(|summary| synced.map(|()| summary));
    session.emit(Event::RunFinished {
        outcome: match result.as_ref().map(|summary| summary.failure) {
            Ok(None) => "ok",
            Ok(Some(Kind::Interrupted | Kind::Terminated)) => "cancelled",
            Ok(Some(_)) | Err(_) => "failed",
        }
        .to_owned(),
        seconds: session.started.elapsed().as_secs_f64(),
        orphans: match &session.project.known {
            Some(known) => known.certified.orphans.len(),
            None => super::query::orphans(&session.project).len(),
        },
    });
    result
}

fn run_inner(session: &Session) -> Result<RunSummary> {
    let project = &session.project;
    session.emit(Event::RunStarted {
        version: EVENT_VERSION,
        run: session.run.clone(),
        workflow: project.graph.name.clone(),
        file: project.graph.file.clone(),
        started_at: started_text(),
        load: project.loaded.as_ref().map_or(0.0, |loaded| loaded.seconds),
        expand: project.expand_seconds,
    });
    for line in &session.recovered {
        session.note(line);
    }
    let selection = project.select(&session.options.targets)?;
    let capacity = capacity(project, &session.options);
    let fleet =
        project.fleet(selection.nodes.iter().map(|ix| wants(&project.graph.nodes[ix])), &session.sink);
    let digest = project.plan_digest();
    let nodes = project.known.as_ref().map_or(selection.nodes.len(), |known| known.certified.nodes);
    session.emit(Event::Planned { nodes, plan_digest: digest.to_string() });
    if let Some(line) = upgrade_note(project, &session.options, &selection) {
        session.note(line);
    }
    settle(project, false);
    let looking = Instant::now();
    let finder = FactFinder::default();
    if project.loaded.is_some() {
        for line in remarks(project) {
            session.note(line);
        }
    }
    if project.known.is_none() {
        let nodes = || selection.nodes.iter().map(|ix| &project.graph.nodes[ix]);
        finder.ask_probes(project, nodes());
        finder.prefetch(project, nodes().flat_map(|node| looks(project, node)));
    }
    session.emit(Event::Looked { seconds: looking.elapsed().as_secs_f64() });
    session.share_jobs(&selection, capacity.cpu)?;
    let pool = Pool::new();
    let (failure, incomplete) = std::thread::scope(|scope| {
        let hands = Hands::new(session, &finder, &pool, scope);
        let mut coordinator = Coordinator::new(session, &finder, selection, capacity, fleet);
        let failure = coordinator.run(scope, hands);
        let whole = session.options.targets.is_empty() && !session.options.no_cache;
        settle(project, failure.is_none() && whole);
        if failure.is_none() {
            coordinator.certify();
        }
        let incomplete = coordinator.quiet.broken;
        let subjects = coordinator.subjects();
        drop(coordinator);
        if subjects.is_empty() || session.stopping() {
            return (failure, incomplete);
        }
        (failure.or(determinism::check(session, &finder, subjects)), incomplete)
    });
    Ok(RunSummary {
        run: session.run.clone(),
        plan_digest: digest,
        failure,
        incomplete,
        elapsed: session.started.elapsed(),
        seen: if session.options.note_seen { seen(&finder) } else { Vec::new() },
    })
}

/// What was looked at, as it was.
fn seen(finder: &FactFinder) -> Vec<(PathBuf, Seen)> {
    let content = finder.seen().into_iter();
    content.map(|(path, content)| (path, content.map_or(Seen::Nothing, |c| Seen::File(c.stat)))).collect()
}

/// What often is a slip and never an error by itself: patterns that match nothing, outputs of other steps that a shell text names
/// without taking them.
pub fn remarks(project: &Project) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for node in &project.graph.nodes {
        for input in node.inputs.iter().filter(|input| !input.patterns.is_empty() && input.items.is_empty()) {
            lines.push(format!(
                "{}: input {} is empty: nothing matches {}",
                node.step,
                input.name,
                input.patterns.join(", ")
            ));
        }
    }
    for step in &project.graph.empty_steps {
        lines.push(format!("{step} has no nodes: an axis of its matrix is empty"));
    }
    lines.dedup();
    for Undeclared { step, path, maker } in project.graph.undeclared() {
        lines.push(format!(
            "{step}: its command names {path}, which {maker} makes, and does not take it: it may run before {maker}, and does not run again when {path} changes; add it to 'inputs'"
        ));
    }
    lines
}

struct Coordinator<'s> {
    session: &'s Session,
    finder: &'s FactFinder,
    selection: Selection,
    /// Nodes whose outputs are brought into place.
    wanted: NodeSet,
    scheduler: Scheduler,
    tokens: Tokens,
    slots: Slots,
    /// Producers and predecessors that are not done, by node.
    waiting: Vec<u32>,
    quiet: Quiet,
    priority: Vec<u64>,
    evaluable: Evaluable,
    brief: Brief,
    tasks: HashMap<NodeIx, Task>,
    running: HashMap<NodeIx, CancelToken>,
    /// Key of a queued or running node -> the nodes with the same key that wait for it.
    flights: HashMap<Digest, (NodeIx, Vec<NodeIx>)>,
    byte_waiters: HashMap<NodeIx, Vec<NodeIx>>,
    service_users: Vec<usize>,
    /// Instances of services that were ended, and whether each had ended by itself.
    ended: (Sender<Ended>, Receiver<Ended>),
    failure: Option<Kind>,
    halting: bool,
    told_stop: bool,
    pulse: Pulse,
}

/// What the nodes made that a node with a depfile may read of.
pub(super) type Fed = HashMap<NodeIx, Vec<Artifact>>;

impl Outputs for Fed {
    fn artifacts(&self, node: NodeIx) -> Option<&[Artifact]> {
        self.get(&node).map(Vec::as_slice)
    }
}

impl<'s> Coordinator<'s> {
    fn new(
        session: &'s Session,
        finder: &'s FactFinder,
        selection: Selection,
        capacity: Capacity,
        fleet: Fleet,
    ) -> Self {
        let graph = &session.project.graph;
        let mut waiting = vec![0; graph.nodes.len()];
        // what a selected node waits for is selected, too
        for ix in selection.nodes.iter() {
            for dependent in graph.dependents(ix).filter(|ix| selection.nodes.contains(*ix)) {
                waiting[dependent] += 1;
            }
        }
        let mut service_users = vec![0; graph.services.len()];
        if !graph.services.is_empty() {
            for service in selection.nodes.iter().flat_map(|ix| &graph.nodes[ix].services) {
                service_users[*service] += 1;
            }
        }
        let mut wanted = wanted(&session.project, &session.options, &selection);
        // what is compared runs again, and needs what it takes
        for ix in determinism::subjects(session, &selection) {
            if determinism::exempt(&graph.nodes[ix]).is_none() {
                wanted.extend(graph.nodes[ix].producers.iter().copied());
            }
        }
        let mut scheduler = Scheduler::new(capacity, fleet);
        let priority = priorities(session, &selection);
        let mut evaluable = Evaluable::default();
        for ix in graph.ordered(&selection.nodes).filter(|ix| waiting[*ix] == 0) {
            evaluable.push(ix, priority[ix]);
        }
        Self {
            priority,
            session,
            finder,
            selection,
            wanted,
            tokens: Tokens::of(session.jobs().cloned(), &mut scheduler),
            scheduler,
            slots: Slots::new(graph.nodes.len()),
            waiting,
            quiet: Quiet::new(session),
            evaluable,
            brief: Brief::default(),
            tasks: HashMap::new(),
            running: HashMap::new(),
            flights: HashMap::new(),
            byte_waiters: HashMap::new(),
            service_users,
            ended: channel(),
            failure: None,
            halting: false,
            told_stop: false,
            pulse: Pulse::default(),
        }
    }

    fn node(&self, ix: NodeIx) -> &'s Node {
        &self.session.project.graph.nodes[ix]
    }

    fn run<'scope, 'env>(
        &mut self,
        scope: &'scope std::thread::Scope<'scope, 'env>,
        mut hands: Hands<'scope, 'env, 's>,
    ) -> Option<Kind>
    where
        's: 'scope,
    {
        let mut looked = Instant::now();
        loop {
            self.halting |= self.session.stopping();
            let (mut evaluated, begun) = (0, Instant::now());
            while evaluated < AT_ONCE
                && begun.elapsed() < AT_LENGTH
                && self.wants_more()
                && let Some(ix) = self.evaluable.pop()
            {
                self.evaluate(ix);
                evaluated += 1;
                if self.session.stopping() {
                    break;
                }
            }
            self.halting |= self.session.stopping();
            if self.session.stopping() && !self.told_stop {
                self.told_stop = true;
                let n = self.scheduler.running();
                if n > 0 {
                    self.session.note(format!("stopping; waiting for {n} that run (once more: kill them)"));
                }
            }
            for Taken { done, rest, heir } in hands.late(self.halting) {
                if let Some((first, heir)) = heir {
                    self.scheduler.inherit(first, heir);
                }
                self.receive(Message::Performed(done, rest), &mut hands);
            }
            while let Ok((service, instance, dead)) = self.ended.1.try_recv() {
                self.scheduler.instance_ended(service, instance, dead);
                self.retire_unused();
            }
            if self.halting {
                // what is needed to finish what runs is not among these
                for ix in self.scheduler.drain() {
                    self.tasks.remove(&ix);
                }
            } else {
                loop {
                    while let Some(ix) = self.scheduler.next() {
                        let group = self.group(ix);
                        self.start(group, &mut hands);
                    }
                    if !self.tokens.more(&mut self.scheduler) {
                        break;
                    }
                }
            }
            self.end_instances(scope);
            self.tokens.give_back(&mut self.scheduler);
            let nothing_runs = self.scheduler.running() == 0 && hands.committing() == 0;
            // what is ready and does not start waits for a device that another run has, or for the end of a service
            let nothing_ready = self.evaluable.is_empty() && self.scheduler.ready() == 0;
            if nothing_runs && (self.halting || nothing_ready) {
                break;
            }
            hands.commit_if_due(self.halting || !self.scheduler.is_full());
            // nobody tells of a token that becomes free
            let tick = if self.tokens.counted() { LOOK / 5 } else { LOOK };
            let more = !self.halting && !self.evaluable.is_empty() && self.wants_more();
            let within = if more { Duration::ZERO } else { hands.next().min(tick) };
            match hands.messages.recv_timeout(within) {
                Ok(message) => self.receive(message, &mut hands),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(message) = hands.messages.try_recv() {
                self.receive(message, &mut hands);
            }
            if looked.elapsed() >= LOOK / 2 {
                looked = Instant::now();
                self.watch_tokens();
                self.watch_idle_instances();
            }
            self.pulse();
        }
        self.close();
        self.failure
    }

    fn receive<'scope, 'env>(&mut self, message: Message<'s>, hands: &mut Hands<'scope, 'env, 's>)
    where
        's: 'scope,
    {
        match message {
            Message::Performed(group, rest) => {
                for performed in group {
                    self.performed(performed, hands);
                }
                for Start { ix, task, .. } in rest {
                    self.running.remove(&ix);
                    self.scheduler.finish(ix);
                    self.tasks.insert(ix, task);
                    self.push(ix);
                }
            }
            Message::Committed(group) => {
                for finished in group {
                    self.finished(finished);
                }
            }
            Message::CommitDone => hands.commit_done(),
        }
    }

    fn performed<'scope, 'env>(&mut self, performed: Performed<'s>, hands: &mut Hands<'scope, 'env, 's>)
    where
        's: 'scope,
    {
        match performed {
            Performed::Finished(finished) => self.finished(*finished),
            Performed::Made(pending) => {
                let ix = pending.node();
                self.took(ix, pending.took());
                // it needs its slot no longer
                self.scheduler.finish(ix);
                hands.take(*pending, self.opens(ix) >= self.scheduler.top());
            }
        }
    }

    /// Whether more nodes should be evaluated now: what waits for a slot takes memory, so there is only so much of it.
    fn wants_more(&self) -> bool {
        !self.scheduler.is_full() || self.scheduler.ready() < ENOUGH
    }

    /// The highest priority of what only waits for this node.
    fn opens(&self, ix: NodeIx) -> u64 {
        let dependents = self.session.project.graph.dependents(ix);
        let waits = |dependent: &NodeIx| self.waiting[*dependent] == 1;
        dependents.filter(waits).map(|dependent| self.priority[dependent]).max().unwrap_or(0)
    }

    /// Passes Ctrl-C, the death of services and time limits of stages on to what runs.
    fn watch_tokens(&self) {
        let stopping = self.session.stopping();
        for (ix, token) in &self.running {
            if stopping || !self.dead_instances(*ix).is_empty() {
                token.cancel();
            }
        }
        self.session.check_watched();
    }

    /// Starts nodes that take turns on one thread.
    fn start<'scope, 'env>(&mut self, group: Vec<NodeIx>, hands: &mut Hands<'scope, 'env, 's>)
    where
        's: 'scope,
    {
        let mut starts = Vec::with_capacity(group.len());
        for ix in group {
            let Some(task) = self.tasks.remove(&ix) else {
                self.scheduler.finish(ix);
                continue;
            };
            let cancel = CancelToken::default();
            self.running.insert(ix, cancel.clone());
            let lease = self.scheduler.lease(ix);
            self.slots[ix].lease = self.leased(&lease);
            let given = Given { inputs: self.present_items(ix), fed: self.fed(ix), lease };
            starts.push(Start { ix, task, given, begin: self.begins(ix), cancel });
        }
        let nodes: Vec<NodeIx> = starts.iter().map(|start| start.ix).collect();
        if let Err(error) = hands.perform(starts) {
            for ix in nodes {
                self.running.remove(&ix);
                self.scheduler.finish(ix);
                let error = Error::environment(format!("failed to start a thread: {error}"));
                self.fail(ix, error.into(), None);
            }
        }
    }

    /// What the nodes made of which `ix` may discover inputs.
    fn fed(&self, ix: NodeIx) -> Fed {
        let node = self.node(ix);
        if node.depfile().is_none() {
            return Fed::new();
        }
        node.feeders().filter_map(|feeder| Some((feeder, self.slots[feeder].artifacts.clone()?))).collect()
    }

    /// What is known of the nodes that are to be compared.
    fn subjects(&self) -> Vec<Subject> {
        let project = &self.session.project;
        let known = |ix: NodeIx| {
            let node = self.node(ix);
            let facts = self.finder.facts(project, node, &self.slots).ok();
            Subject {
                ix,
                outcome: self.slots[ix].outcome,
                keyed: facts.map(|facts| Keyed::new(project, node, facts)),
                given: Given { inputs: self.present_items(ix), fed: self.fed(ix), lease: Lease::default() },
                artifacts: self.slots[ix].artifacts.clone().unwrap_or_default(),
            }
        };
        determinism::subjects(self.session, &self.selection).into_iter().map(known).collect()
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
}

/// Nodes whose outputs are brought into place.
pub(super) fn wanted(project: &Project, options: &RunOptions, selection: &Selection) -> NodeSet {
    match (options.restore, options.targets.is_empty()) {
        (Some(Restore::All), _) | (None, true) => selection.nodes.clone(),
        (_, false) => selection.targets.clone(),
        (Some(Restore::Targets), true) => {
            let last = |ix: &NodeIx| project.graph.dependents(*ix).next().is_none();
            selection.nodes.iter().filter(last).collect()
        }
    }
}
