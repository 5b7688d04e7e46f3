//! One job on its thread: restore, or attempts of a node until it succeeds, fails or is cancelled; then the commit.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alone;
use super::collect::{self, Found, Made};
use super::command::{self, Room};
use super::commit::Pending;
use super::confine;
use super::discover::{Depfile, Discovery};
use super::evaluate::{Keyed, artifacts_of, differing};
use super::facts::{FactFinder, Missing};
use super::fill::Running;
use super::inputs::Seen;
use super::log_file::LogFile;
use super::publish::{self, PlaceError};
use super::retention;
use super::run::Fed;
use super::schedule::Lease;
use super::scratch::Scratch;
use super::second_level::look_up;
use super::session::Session;
use crate::api::{CancelToken, Done, Previous, StageContext};
use crate::base::clock;
use crate::base::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::event::{Begin, Event, Timing};
use crate::exec::{Device, ServiceFailure};
use crate::graph::{Fill, Item, Node, NodeAction, NodeIx};
use crate::key::{Facts, Reason};
use crate::model::{Artifact, ExclusiveScope, Retry};
use crate::store::{KeyLock, NodeRow, ResultRecord};

/// What a job has to do.
pub(super) enum Task {
    /// Bring these outputs of a record into place.
    Restore { keyed: Option<Keyed>, record: Arc<ResultRecord>, only: Vec<usize> },
    /// Record what is there as the result.
    Adopt { keyed: Keyed, reason: String },
    /// Run, or with `previous` ask.
    Run { keyed: Keyed, reason: String, previous: Option<Arc<ResultRecord>>, share: bool },
}

/// How a job ended.
pub(super) struct Finished {
    pub(super) node: NodeIx,
    pub(super) end: End,
    pub(super) attempts: u32,
    pub(super) seconds: f64,
    pub(super) log: Option<String>,
    /// The key of the result, where it was not known before: that of a node with a depfile.
    pub(super) key: Option<Digest>,
    /// What the stage recorded.
    pub(super) record: serde_json::Map<String, serde_json::Value>,
    /// When it was done, and what took how long.
    pub(super) timing: Option<Box<Timing>>,
}

impl Finished {
    /// The end of a job that panicked: a bug, told like any failure.
    pub(super) fn panicked(node: NodeIx, panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let end = End::Failed(Error::bug(format!("a job panicked: {text}")).into());
        Self {
            node,
            end,
            attempts: 0,
            seconds: 0.0,
            log: None,
            key: None,
            record: serde_json::Map::new(),
            timing: None,
        }
    }
}

/// What a job comes to.
pub(super) enum Performed<'s> {
    /// It is over.
    Finished(Box<Finished>),
    /// It made its outputs, and stored their bytes: what remains is to record and publish them.
    Made(Box<Pending<'s>>),
}

/// The ways to end.
pub(super) enum End {
    /// It ran; its outputs are stored and published.
    Ran(Vec<Artifact>),
    /// What was there is its result now.
    Adopted(Vec<Artifact>),
    /// The result stood, or another process made it meanwhile. `checked`: the stage was asked. `restored`: bytes were brought.
    Stands { artifacts: Vec<Artifact>, checked: bool, restored: bool },
    /// Bytes in the cache are gone: run instead.
    Lost(String),
    /// An input changed meanwhile.
    Voided(String),
    /// It failed.
    Failed(Failure),
    /// The run was ended.
    Cancelled,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) message: String,
    pub(super) hints: Vec<String>,
    pub(super) tail: Vec<String>,
    pub(super) retryable: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) cancelled: bool,
}

/// What a job is given of other nodes.
#[derive(Clone)]
pub(super) struct Given {
    /// Per input of the node its present items.
    pub(super) inputs: Vec<Vec<Item>>,
    /// What the nodes made of which it may discover inputs.
    pub(super) fed: Fed,
    /// Devices and instances of services.
    pub(super) lease: Lease,
}

/// Does one job.
pub(super) fn perform<'s>(
    session: &'s Session,
    finder: &'s FactFinder,
    ix: NodeIx,
    task: Task,
    given: Given,
    begin: Begin,
    cancel: CancelToken,
) -> Performed<'s> {
    let mut job = Job::new(session, finder, ix, given, cancel);
    job.timing.begin = Some(begin);
    let step = match task {
        Task::Restore { keyed, record, only } => Step::End(job.restore(keyed, &record, &only)),
        Task::Adopt { keyed, reason } => Step::End(job.adopt(&keyed, &reason)),
        Task::Run { keyed, reason, previous, share } => job.run(keyed, reason, previous, share),
    };
    match step {
        Step::End(end) => Performed::Finished(Box::new(job.finish(end))),
        Step::Made(made) => Performed::Made(Box::new(Pending::new(job, *made))),
    }
}

/// What an attempt comes to.
enum Step<'s> {
    End(End),
    Made(Box<Success<'s>>),
}

/// What an attempt gave.
enum Tried {
    End(End),
    /// Outputs, their bytes stored; the whole key, if it was not known before; and how long the command or stage took.
    Made(Vec<Found>, Option<Keyed>, f64),
}

/// What a successful attempt made; the bytes are stored.
pub(super) struct Success<'s> {
    pub(super) keyed: Keyed,
    pub(super) found: Vec<Found>,
    pub(super) scratch: Scratch<'s>,
    /// Others that want the same result wait for this.
    pub(super) lock: Option<KeyLock>,
    /// How long the command or stage took.
    pub(super) seconds: f64,
}

/// A job at work on one node.
pub(super) struct Job<'s> {
    pub(super) session: &'s Session,
    pub(super) finder: &'s FactFinder,
    pub(super) node: &'s Node,
    pub(super) ix: NodeIx,
    pub(super) inputs: Vec<Vec<Item>>,
    pub(super) fed: Fed,
    lease: Lease,
    key: Option<Digest>,
    pub(super) cancel: CancelToken,
    pub(super) log: LogFile<'s>,
    attempts: u32,
    /// What the stage recorded.
    pub(super) record: serde_json::Map<String, serde_json::Value>,
    pub(super) begun: Instant,
    /// When it had made what it makes.
    over: Option<Instant>,
    pub(super) timing: Timing,
}

impl<'s> Job<'s> {
    /// A job that has done nothing yet.
    pub(super) fn new(
        session: &'s Session,
        finder: &'s FactFinder,
        ix: NodeIx,
        given: Given,
        cancel: CancelToken,
    ) -> Self {
        let node = &session.project.graph.nodes[ix];
        Self {
            session,
            finder,
            node,
            ix,
            inputs: given.inputs,
            fed: given.fed,
            lease: given.lease,
            key: None,
            cancel,
            log: LogFile::new(session, &node.id),
            attempts: 0,
            record: serde_json::Map::new(),
            begun: Instant::now(),
            over: None,
            timing: Timing::default(),
        }
    }

    /// How it ended.
    pub(super) fn finish(mut self, end: End) -> Finished {
        // the death of a service ends its dependents, wherever they are
        let end = match end {
            End::Cancelled if !self.session.stopping() => {
                self.service_death().map_or(End::Cancelled, End::Failed)
            }
            other => other,
        };
        let end = match end {
            End::Failed(mut failure) => {
                failure.tail = std::mem::take(&mut self.log.tail);
                failure.message = self.session.masker.mask(&failure.message);
                End::Failed(failure)
            }
            other => other,
        };
        let ended = self.session.stamp(Instant::now());
        Finished {
            node: self.ix,
            end,
            attempts: self.attempts,
            seconds: (self.over.unwrap_or_else(Instant::now) - self.begun).as_secs_f64(),
            log: self.log.shown_path(),
            key: self.key,
            record: self.record,
            timing: Some(Box::new(Timing { ended, ..self.timing })),
        }
    }

    fn restore(&mut self, keyed: Option<Keyed>, record: &ResultRecord, only: &[usize]) -> End {
        let scratch = match self.scratch() {
            Ok(scratch) => scratch,
            Err(error) => return End::Failed(error.into()),
        };
        match publish::restore(self.session, self.node, record, only, &scratch) {
            Ok(()) => {
                self.forget_outputs();
                if let Some(keyed) = keyed {
                    self.remember(&keyed, None);
                }
                End::Stands { artifacts: artifacts_of(record, self.node), checked: false, restored: true }
            }
            Err(PlaceError::Lost(what)) => End::Lost(what),
            Err(PlaceError::Fault(error)) => End::Failed(error.into()),
        }
    }

    /// Where bytes from the cache go first.
    pub(super) fn scratch(&self) -> Result<PathBuf> {
        Ok(self.session.scratch()?.join(format!("{}.0", self.ix)))
    }

    fn run(
        &mut self,
        keyed: Keyed,
        reason: String,
        previous: Option<Arc<ResultRecord>>,
        share: bool,
    ) -> Step<'s> {
        let lock = if share {
            match self.take_flight(&keyed) {
                Ok(lock) => Some(lock),
                Err(end) => return Step::End(end),
            }
        } else {
            None
        };
        let none = Retry { max: 0, backoff: Duration::ZERO, max_backoff: Duration::ZERO };
        let retry = self.node.retry.clone().unwrap_or(none);
        let mut previous = previous;
        loop {
            if self.cancel.is_cancelled() {
                return Step::End(End::Cancelled);
            }
            self.attempts += 1;
            let node = self.node.id.clone();
            let begin = self.timing.begin.take();
            self.session.emit(Event::NodeStarted {
                node,
                attempt: self.attempts,
                reason: reason.clone(),
                begin,
            });
            self.record.clear();
            let mut scratch = Scratch::new(self.session, self.ix, self.attempts);
            let tried = self.attempt(&mut scratch, &keyed, previous.as_deref());
            let undone = match tried {
                Ok(Tried::Made(found, whole, seconds)) => {
                    self.key = whole.as_ref().map(|keyed| keyed.key);
                    let keyed = whole.unwrap_or(keyed);
                    self.over = Some(Instant::now());
                    return Step::Made(Box::new(Success { keyed, found, scratch, lock, seconds }));
                }
                Ok(Tried::End(end)) => scratch.undo().map(|()| end).map_err(Failure::from),
                Err(failure) => match scratch.undo() {
                    Ok(()) => Err(failure),
                    Err(error) => Err(error.into()),
                },
            };
            let failure = match undone {
                Ok(End::Lost(_)) => {
                    // it stands, but its bytes are gone: ask for all of it
                    previous = None;
                    continue;
                }
                Ok(end) => return Step::End(end),
                Err(failure) => failure,
            };
            if failure.cancelled || (self.cancel.is_cancelled() && self.session.stopping()) {
                return Step::End(End::Cancelled);
            }
            if !failure.retryable || self.attempts > retry.max {
                return Step::End(End::Failed(failure));
            }
            self.wait_for_next(&retry, &failure);
        }
    }

    /// The right to make the result of a key. Another process may have made it while this one waited: then that is used.
    fn take_flight(&mut self, keyed: &Keyed) -> std::result::Result<KeyLock, End> {
        let (session, node) = (self.session, self.node);
        let store = &session.project.store;
        let mut told = |pid: Option<u32>| {
            let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            session.note(format!("{}: waiting for {who}, which runs the same node", node.id));
        };
        let flight = keyed.first_key(&session.project, node);
        let lock = match store.single_flight(&flight, &mut told, &|| self.cancel.is_cancelled()) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(End::Cancelled),
            Err(error) => return Err(End::Failed(error.into())),
        };
        match self.made_meanwhile(keyed) {
            Ok(Some((keyed, record))) => {
                let all: Vec<usize> = (0..node.outputs.len()).collect();
                self.key = Some(keyed.key);
                match self.restore(Some(keyed), &record, &all) {
                    End::Lost(_) => Ok(lock),
                    end => Err(end),
                }
            }
            Ok(None) => Ok(lock),
            Err(error) => Err(End::Failed(error.into())),
        }
    }

    /// A result for this node that is known by now.
    fn made_meanwhile(&self, keyed: &Keyed) -> Result<Option<(Keyed, Arc<ResultRecord>)>> {
        let project = &self.session.project;
        if self.node.depfile().is_none() {
            return Ok(project.store.result(&keyed.key)?.map(|record| (keyed.clone(), record)));
        }
        let facts = Facts { discovered: None, ..keyed.facts.clone() };
        let first = Keyed::new(project, self.node, facts);
        match look_up(project, self.finder, self.node, &first, &self.fed) {
            Ok(looked) => Ok(looked.hit),
            Err(Missing::Fault(error)) => Err(error),
            // it runs, and sees
            Err(_) => Ok(None),
        }
    }

    fn wait_for_next(&mut self, retry: &Retry, failure: &Failure) {
        let wait = backoff(retry, self.attempts).max(failure.retry_after.unwrap_or(Duration::ZERO));
        self.log.line(&format!(
            "attempt {} failed: {}; next in {:.1} s",
            self.attempts,
            failure.message,
            wait.as_secs_f64()
        ));
        self.session.emit(Event::NodeRetrying {
            node: self.node.id.clone(),
            attempt: self.attempts,
            message: self.session.masker.mask(&failure.message),
            wait: wait.as_secs_f64(),
        });
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.cancel.is_cancelled() {
            std::thread::sleep(
                until.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)),
            );
        }
    }

    /// One attempt.
    fn attempt(
        &mut self,
        scratch: &mut Scratch<'s>,
        keyed: &Keyed,
        previous: Option<&ResultRecord>,
    ) -> std::result::Result<Tried, Failure> {
        let (session, node) = (self.session, self.node);
        super::session::check_secrets(&session.project, node).map_err(Failure::from)?;
        let before = match self.look(keyed).map_err(Failure::from)? {
            Ok(before) => before,
            Err(path) => return Ok(Tried::End(End::Voided(path))),
        };
        let mut running =
            Running { inputs: self.files(keyed, scratch).map_err(Failure::from)?, ..Running::default() };
        running.devices = self.devices();
        self.call_services(&mut running)?;
        let places = self.places(scratch).map_err(Failure::from)?;
        let depfile = Depfile::place(session, node, &places, scratch).map_err(Failure::from)?;
        let known = self.look_at_known(keyed).map_err(Failure::from)?;
        for (output, place) in node.outputs.iter().zip(&places) {
            running.outputs.insert(output.name.clone(), place.path.clone());
        }
        let exclusive = node.resources.exclusive == Some(ExclusiveScope::Run);
        let others = exclusive.then(alone::others).flatten();
        let (begun, begun_ns) = (Instant::now(), clock::now_ns());
        let mut read = Vec::new();
        let result = if command::is_command(node) {
            let mut room = Room { places: &places, depfile: depfile.as_ref(), scratch };
            command::run(session, node, &running, &mut room, &self.cancel, &mut self.log).map(|passed| {
                read = passed;
                Done::Made
            })
        } else {
            self.stage(running, previous)
        };
        let seconds = begun.elapsed().as_secs_f64();
        self.timing.execute = seconds;
        if exclusive {
            self.record.insert("alone".to_owned(), alone::record(others, alone::others()));
        }
        let outcome = match result {
            Err(failure) => Err(self.explain_death(failure)),
            Ok(done) => match self.service_death() {
                // what was made while a service was gone is no result
                Some(failure) => Err(failure),
                None if done == Done::Unchanged => self.unchanged(keyed, previous).map(Tried::End),
                None if session.options.frozen => {
                    Err(super::run::would_run(&Reason::SourceChanged.to_string()))
                }
                None => self.collect(places.as_slice(), &before).and_then(|found| {
                    let whole = depfile
                        .map(|depfile| self.discover(keyed, &depfile, &known, begun_ns))
                        .transpose()?;
                    Ok(match (found, whole) {
                        (Err(end), _) => Tried::End(end),
                        (_, Some(Discovery::Changed(path))) => Tried::End(End::Voided(path)),
                        (Ok(found), Some(Discovery::Inputs(keyed))) => {
                            confine::check_discovered(session, &read, &keyed)?;
                            Tried::Made(found, Some(keyed), seconds)
                        }
                        (Ok(found), None) => Tried::Made(found, None, seconds),
                    })
                }),
            },
        };
        self.timing.commit = begun.elapsed().as_secs_f64() - seconds;
        let failed = outcome.as_ref().is_err_and(|failure| !failure.cancelled);
        if failed && !session.options.frozen {
            self.publish_on_failure(&places, scratch);
        }
        outcome
    }

    /// The devices that the node itself has.
    pub(super) fn devices(&self) -> Vec<Device> {
        self.session.project.leased(&self.lease.devices)
    }

    /// Starts what it uses.
    fn call_services(&mut self, running: &mut Running) -> std::result::Result<(), Failure> {
        let session = self.session;
        let called = session.services.call(session, &self.lease.seats, &self.cancel);
        running.services = called.map_err(|e| self.of_service(e))?;
        Ok(())
    }

    /// Stores what was made, unless an input changed meanwhile.
    fn collect(
        &mut self,
        places: &[Made],
        before: &[Seen],
    ) -> std::result::Result<std::result::Result<Vec<Found>, End>, Failure> {
        let found = collect::collect(self.session, self.node, places).map_err(Failure::from)?;
        let Some((path, implicit)) = self.changed_since(before).map_err(Failure::from)? else {
            return Ok(Ok(found));
        };
        if implicit {
            self.log.line(&format!(
                "{path} changed while the command ran: if the command writes it, declare it as an output"
            ));
        }
        self.bring_back(before).map_err(Failure::from)?;
        Ok(Err(End::Voided(path)))
    }

    /// Where its outputs go.
    pub(super) fn places(&self, scratch: &mut Scratch<'_>) -> crate::Result<Vec<Made>> {
        if command::is_command(self.node) {
            return command::places(self.session, self.node, scratch);
        }
        self.node.outputs.iter().enumerate().map(|(index, output)| scratch.plain(index, output)).collect()
    }

    pub(super) fn stage(
        &mut self,
        running: Running,
        previous: Option<&ResultRecord>,
    ) -> std::result::Result<Done, Failure> {
        let NodeAction::Stage { name, with, .. } = &self.node.action else {
            return Err(Failure::from(Error::bug("a command was run as a stage")));
        };
        let stage = self.session.project.catalog.stage(name);
        let stage =
            Arc::clone(stage.ok_or_else(|| Failure::from(Error::bug(format!("stage {name} vanished"))))?);
        let with = with.fill(&running as &dyn Fill).map_err(Failure::new)?;
        let runtime = self.session.runtime().map_err(Failure::from)?;
        let deadline = self.node.timeout.map(|limit| Instant::now() + limit);
        let token = self.session.watch(self.ix, &self.cancel, deadline);
        let log = &mut self.log;
        let mut lines = |line: &str| log.line(line);
        let mut ctx = StageContext {
            inputs: running.inputs,
            outputs: running.outputs.into_iter().collect(),
            with,
            previous: previous.map(|record| Previous { record: record.record.clone() }),
            cancel: token.clone(),
            current_entries: retention::current_entries(self.session, self.node),
            removed_entries: Vec::new(),
            record: serde_json::Map::new(),
            log: &mut lines,
            runtime: &runtime,
        };
        let mut body = || {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stage.run(&mut ctx))).unwrap_or_else(
                |panic| {
                    let text = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied())
                        .unwrap_or("no message");
                    Err(crate::api::StageError::new(format!("stage {name} has a bug: it panicked: {text}")))
                },
            )
        };
        let result = body();
        self.record = ctx.record;
        self.session.unwatch(self.ix);
        let expired =
            deadline.is_some_and(|deadline| Instant::now() > deadline) && !self.cancel.is_cancelled();
        retention::forget(&self.session.project, &ctx.removed_entries);
        result.map_err(|error| {
            let limit = self.node.timeout.unwrap_or_default().as_secs_f64();
            let message =
                if expired { format!("timed out after {limit} s: {}", error.message) } else { error.message };
            Failure {
                hints: error.hints,
                retryable: error.retryable || expired,
                retry_after: error.retry_after,
                cancelled: self.cancel.is_cancelled() && self.session.stopping(),
                ..Failure::new(message)
            }
        })
    }

    /// The stage said that the previous result stands.
    fn unchanged(
        &mut self,
        keyed: &Keyed,
        previous: Option<&ResultRecord>,
    ) -> std::result::Result<End, Failure> {
        let Some(previous) = previous else {
            return Err(Failure::from(Error::bug("a stage said 'unchanged' without a previous result")));
        };
        let (session, node) = (self.session, self.node);
        let mut record = previous.clone();
        record.checked_at_ns = clock::now_ns();
        record.record = self.record.clone();
        record.record.insert("policy".to_owned(), node.policy.as_str().into());
        if !session.options.no_cache {
            session.project.store.put_result(&keyed.key, &record).map_err(Failure::from)?;
        }
        let differing = differing(&session.project, self.finder, node, &record).map_err(Failure::from)?;
        let only: Vec<usize> = differing.into_iter().map(|(index, _)| index).collect();
        let restored = !only.is_empty();
        if restored {
            match self.restore(None, &record, &only) {
                End::Stands { .. } => {}
                End::Failed(failure) => return Err(failure),
                other => return Ok(other),
            }
        } else {
            publish::claim(session, node, &artifacts_of(&record, node)).map_err(Failure::from)?;
        }
        self.remember(keyed, None);
        Ok(End::Stands { artifacts: artifacts_of(&record, node), checked: true, restored })
    }

    /// What was known of the places of its outputs is so no longer.
    pub(super) fn forget_outputs(&self) {
        for output in &self.node.outputs {
            self.finder.forget(&self.session.project.root.join(&output.path));
        }
    }

    /// The workspace row: last key, manifest, durations.
    pub(super) fn remember(&self, keyed: &Keyed, seconds: Option<f64>) {
        remember(self.session, self.node, keyed, seconds);
    }

    /// If a service died meanwhile, that is the cause: its message and the tail of its log.
    fn explain_death(&mut self, failure: Failure) -> Failure {
        if self.session.stopping() {
            return failure;
        }
        match self.service_death() {
            Some(death) if failure.cancelled => death,
            Some(death) => Failure { message: format!("{}\n{}", death.message, failure.message), ..death },
            None => failure,
        }
    }

    fn service_death(&mut self) -> Option<Failure> {
        let services = &self.session.services;
        let mut seats = self.lease.seats.iter().flat_map(|(ix, seats)| seats.iter().map(|seat| (*ix, seat)));
        let death = seats.find_map(|(ix, seat)| services.death(self.session, ix, seat.instance))?;
        Some(self.of_service(death))
    }

    /// The failure of a service as that of this node, with the last lines of the service's log.
    fn of_service(&mut self, failure: ServiceFailure) -> Failure {
        for line in failure.tail {
            self.log.line(&line);
        }
        Failure {
            kind: command::lack(failure.missing),
            hints: failure.hints,
            cancelled: failure.cancelled,
            ..Failure::new(failure.message)
        }
    }
}

/// Notes the success of a node in the workspace state.
pub(super) fn remember(session: &Session, node: &Node, keyed: &Keyed, seconds: Option<f64>) {
    let project = &session.project;
    let mut history = project
        .workspace
        .node_summary(project.root_file(), &node.id)
        .map(|row| row.seconds.clone())
        .unwrap_or_default();
    history.extend(seconds);
    let from = history.len().saturating_sub(5);
    let row = NodeRow {
        key: keyed.key,
        manifest: keyed.manifest.clone(),
        seconds: history.split_off(from),
        outputs: node.outputs.iter().map(|output| (output.name.clone(), output.path.clone())).collect(),
        run: session.run.clone(),
    };
    project.workspace.put_node(project.root_file(), &node.id, row);
}

/// Exponential with jitter on the upper half.
fn backoff(retry: &Retry, attempt: u32) -> Duration {
    let full = retry.backoff.saturating_mul(1 << (attempt - 1).min(20)).min(retry.max_backoff);
    full.mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit_with_jitter() {
        let retry =
            Retry { max: 9, backoff: Duration::from_millis(100), max_backoff: Duration::from_millis(1500) };
        for (attempt, full) in [(1, 100), (2, 200), (4, 800), (5, 1500), (30, 1500)] {
            for _ in 0..50 {
                let wait = backoff(&retry, attempt).as_millis();
                assert!((full / 2..=full).contains(&wait), "{attempt}: {wait}");
            }
        }
    }
}
