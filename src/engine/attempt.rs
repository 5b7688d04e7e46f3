//! One job on its thread: restore, or attempts of a node until it succeeds, fails or is cancelled; then the commit.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::collect::{self, Made};
use super::command;
use super::evaluate::{Keyed, artifacts_of, differing};
use super::facts::FactFinder;
use super::fill::Running;
use super::inputs::Seen;
use super::publish::{self, PlaceError};
use super::recover;
use super::retention;
use super::session::Session;
use crate::api::{CancelToken, Done, Previous, StageContext};
use crate::base::clock;
use crate::error::{Error, Kind, Result};
use crate::event::{Begin, Event, Timing};
use crate::exec::ServiceFailure;
use crate::graph::{Fill, Item, Node, NodeAction, NodeIx};
use crate::model::{Artifact, Retry};
use crate::store::{NodeRow, ResultRecord};

/// Lines of a failed node's log that are shown.
const TAIL: usize = 12;

/// What a job has to do.
pub(super) enum Task {
    /// Bring these outputs of a record into place.
    Restore { keyed: Option<Keyed>, record: Arc<ResultRecord>, only: Vec<usize> },
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
    /// What the stage recorded.
    pub(super) record: serde_json::Map<String, serde_json::Value>,
    /// When it was done, and what took how long.
    pub(super) timing: Option<Timing>,
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
        Self { node, end, attempts: 0, seconds: 0.0, log: None, record: serde_json::Map::new(), timing: None }
    }
}

/// The ways to end.
pub(super) enum End {
    /// It ran; its outputs are stored and published.
    Ran(Vec<Artifact>),
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

/// The log of a node: a file made with its first line, and an event for each line.
pub(super) struct LogFile<'s> {
    session: &'s Session,
    node: &'s str,
    file: Option<File>,
    path: PathBuf,
    tail: Vec<String>,
}

impl<'s> LogFile<'s> {
    fn new(session: &'s Session, node: &'s str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-=,[]".contains(c) { c } else { '_' };
        let mut name: String = node.chars().map(plain).collect();
        if name.len() > 120 || name != node {
            name.truncate(100);
            name = format!("{name}-{}", crate::base::digest::Digest::of(node.as_bytes()).short());
        }
        let path = session.project.store.dir().join("logs").join(&session.run).join(format!("{name}.log"));
        Self { session, node, file: None, path, tail: Vec::new() }
    }

    pub(super) fn line(&mut self, line: &str) {
        let line = self.session.masker.mask(line);
        if self.file.is_none() {
            if let Some(dir) = self.path.parent() {
                let _ = std::fs::create_dir_all(dir);
            }
            self.file = File::options().create(true).append(true).open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{line}");
        }
        if self.tail.len() == TAIL {
            self.tail.remove(0);
        }
        self.tail.push(line.clone());
        self.session.emit(Event::Log { node: self.node.to_owned(), line });
    }

    fn shown_path(&self) -> Option<String> {
        let root = &self.session.project.root;
        self.file
            .as_ref()
            .map(|_| self.path.strip_prefix(root).unwrap_or(&self.path).to_string_lossy().into_owned())
    }
}

/// Does one job. `inputs`: per input of the node its present items.
pub(super) fn perform(
    session: &Session,
    finder: &FactFinder,
    ix: NodeIx,
    task: Task,
    inputs: Vec<Vec<Item>>,
    begin: Begin,
    cancel: &CancelToken,
) -> Finished {
    let node = &session.project.graph.nodes[ix];
    let begun = Instant::now();
    let mut job = Job {
        session,
        finder,
        node,
        ix,
        inputs,
        cancel,
        log: LogFile::new(session, &node.id),
        attempts: 0,
        record: serde_json::Map::new(),
        timing: Timing { begin: Some(begin), ..Timing::default() },
    };
    let end = match task {
        Task::Restore { keyed, record, only } => job.restore(keyed, &record, &only),
        Task::Run { keyed, reason, previous, share } => job.run(keyed, reason, previous, share),
    };
    // the death of a service ends its dependents, wherever they are
    let end = match end {
        End::Cancelled if !session.stopping() => job.service_death().map_or(End::Cancelled, End::Failed),
        other => other,
    };
    let end = match end {
        End::Failed(mut failure) => {
            failure.tail = std::mem::take(&mut job.log.tail);
            failure.message = session.masker.mask(&failure.message);
            End::Failed(failure)
        }
        other => other,
    };
    let ended = session.stamp(Instant::now());
    Finished {
        node: ix,
        end,
        attempts: job.attempts,
        seconds: begun.elapsed().as_secs_f64(),
        log: job.log.shown_path(),
        record: job.record,
        timing: Some(Timing { ended, ..job.timing }),
    }
}

/// A job at work on one node.
pub(super) struct Job<'s> {
    pub(super) session: &'s Session,
    pub(super) finder: &'s FactFinder,
    pub(super) node: &'s Node,
    ix: NodeIx,
    pub(super) inputs: Vec<Vec<Item>>,
    cancel: &'s CancelToken,
    pub(super) log: LogFile<'s>,
    attempts: u32,
    record: serde_json::Map<String, serde_json::Value>,
    timing: Timing,
}

impl Job<'_> {
    fn restore(&mut self, keyed: Option<Keyed>, record: &ResultRecord, only: &[usize]) -> End {
        let scratch = self.session.attempt_dir(self.ix, 0);
        match publish::restore(self.session, self.node, record, only, &scratch) {
            Ok(()) => {
                for path in super::evaluate::paths(&self.session.project, self.node) {
                    self.finder.forget(&path);
                }
                if let Some(keyed) = keyed {
                    self.remember(&keyed, None);
                }
                End::Stands { artifacts: artifacts_of(record, self.node), checked: false, restored: true }
            }
            Err(PlaceError::Lost(what)) => End::Lost(what),
            Err(PlaceError::Fault(error)) => End::Failed(error.into()),
        }
    }

    fn run(&mut self, keyed: Keyed, reason: String, previous: Option<Arc<ResultRecord>>, share: bool) -> End {
        let _lock = if share {
            let session = self.session;
            let mut told = |pid: Option<u32>| {
                let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                session.note(format!("{}: waiting for {who}, which runs the same node", self.node.id));
            };
            match session.project.store.single_flight(&keyed.key, &mut told, &|| self.cancel.is_cancelled()) {
                Ok(Some(lock)) => {
                    // made by another workspace while this one waited
                    match session.project.store.result(&keyed.key) {
                        Ok(Some(record)) => {
                            let all: Vec<usize> = (0..self.node.outputs.len()).collect();
                            let end = self.restore(Some(keyed_again(&keyed)), &record, &all);
                            if !matches!(end, End::Lost(_)) {
                                return end;
                            }
                        }
                        Ok(None) => {}
                        Err(error) => return End::Failed(error.into()),
                    }
                    Some(lock)
                }
                Ok(None) => return End::Cancelled,
                Err(error) => return End::Failed(error.into()),
            }
        } else {
            None
        };
        let none = Retry { max: 0, backoff: Duration::ZERO, max_backoff: Duration::ZERO };
        let retry = self.node.retry.clone().unwrap_or(none);
        let mut previous = previous;
        loop {
            if self.cancel.is_cancelled() {
                return End::Cancelled;
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
            let failure = match self.attempt(&keyed, previous.as_deref()) {
                Ok(Some(End::Lost(_))) => {
                    // it stands, but its bytes are gone: ask for all of it
                    previous = None;
                    continue;
                }
                Ok(Some(end)) => return end,
                Ok(None) => return End::Cancelled,
                Err(failure) => failure,
            };
            if failure.cancelled || (self.cancel.is_cancelled() && self.session.stopping()) {
                return End::Cancelled;
            }
            if !failure.retryable || self.attempts > retry.max {
                return End::Failed(failure);
            }
            let wait = backoff(&retry, self.attempts).max(failure.retry_after.unwrap_or(Duration::ZERO));
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
    }

    /// One attempt; `None` if it was cancelled.
    fn attempt(
        &mut self,
        keyed: &Keyed,
        previous: Option<&ResultRecord>,
    ) -> std::result::Result<Option<End>, Failure> {
        let (session, node) = (self.session, self.node);
        super::session::check_secrets(&session.project, node).map_err(Failure::from)?;
        let dir = session.attempt_dir(self.ix, self.attempts);
        std::fs::create_dir_all(&dir).map_err(|e| Failure::from(Error::io("create", &dir, e)))?;
        let before = match self.look(keyed).map_err(Failure::from)? {
            Ok(before) => before,
            Err(path) => return Ok(Some(End::Voided(path))),
        };
        let mut running =
            Running { inputs: self.files(keyed, &dir).map_err(Failure::from)?, ..Running::default() };
        for service in &node.services {
            let address =
                session.services.address(session, *service, self.cancel).map_err(|e| self.of_service(e))?;
            running.services.insert(*service, address);
        }
        let made = if command::is_command(node) {
            command::places(session, node, &dir).map_err(Failure::from)?
        } else {
            let places = node.outputs.iter().enumerate();
            places
                .map(|(index, output)| command::scratch_place(&dir, index, &output.path, output.dir))
                .collect::<Result<Vec<Made>>>()
                .map_err(Failure::from)?
        };
        for (output, made) in node.outputs.iter().zip(&made) {
            running.outputs.insert(output.name.clone(), made.path.clone());
        }
        let begun = Instant::now();
        let result = if command::is_command(node) {
            command::run(session, node, &running, self.cancel, &mut self.log).map(|()| Done::Made)
        } else {
            self.stage(running, previous)
        };
        let seconds = begun.elapsed().as_secs_f64();
        self.timing.execute = seconds;
        let outcome = match result {
            Err(failure) => Err(self.explain_death(failure)),
            // what was made while a service was gone is no result
            Ok(_) if let Some(failure) = self.service_death() => Err(failure),
            Ok(Done::Made) => self.commit(keyed, &made, &before, seconds),
            Ok(Done::Unchanged) => self.unchanged(keyed, previous, seconds),
        };
        self.timing.commit = begun.elapsed().as_secs_f64() - seconds;
        let keep = matches!(outcome, Ok(Some(End::Ran(_))));
        if !keep {
            if outcome.as_ref().is_err_and(|failure| !failure.cancelled) {
                self.publish_on_failure(&made);
            }
            recover::put_back(&session.project, &dir).map_err(Failure::from)?;
        }
        recover::drop_aside(&dir);
        let _ = std::fs::remove_dir_all(&dir);
        outcome
    }

    fn stage(
        &mut self,
        running: Running,
        previous: Option<&ResultRecord>,
    ) -> std::result::Result<Done, Failure> {
        let NodeAction::Stage { name, with, cpu, .. } = &self.node.action else {
            return Err(Failure::from(Error::bug("a command was run as a stage")));
        };
        let stage = self.session.project.catalog.stage(name);
        let stage =
            Arc::clone(stage.ok_or_else(|| Failure::from(Error::bug(format!("stage {name} vanished"))))?);
        let with = with.fill(&running as &dyn Fill).map_err(Failure::new)?;
        let runtime = self.session.runtime().map_err(Failure::from)?;
        let deadline = self.node.timeout.map(|limit| Instant::now() + limit);
        let token = self.session.watch(self.ix, self.cancel, deadline);
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
        let result = if *cpu { self.session.pool.install(body) } else { body() };
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

    /// Stores, records, publishes.
    fn commit(
        &mut self,
        keyed: &Keyed,
        made: &[Made],
        before: &[Seen],
        seconds: f64,
    ) -> std::result::Result<Option<End>, Failure> {
        let (session, node) = (self.session, self.node);
        let artifacts = collect::collect(session, node, made).map_err(Failure::from)?;
        if let Some((path, implicit)) = self.changed_since(before).map_err(Failure::from)? {
            if implicit {
                self.log.line(&format!(
                    "{path} changed while the command ran: if the command writes it, declare it as an output"
                ));
            }
            self.bring_back(before).map_err(Failure::from)?;
            return Ok(Some(End::Voided(path)));
        }
        if !session.options.no_cache {
            let now = clock::now_ns();
            let record = ResultRecord {
                version: crate::store::RESULT_VERSION,
                node: node.id.clone(),
                run: session.run.clone(),
                made_at_ns: now,
                checked_at_ns: now,
                seconds,
                outputs: node.outputs.iter().map(|o| o.name.clone()).zip(artifacts.iter().cloned()).collect(),
                record: {
                    let mut record = self.record.clone();
                    record.insert("policy".to_owned(), node.policy.as_str().into());
                    record
                },
            };
            session.project.store.put_result(&keyed.key, &record).map_err(Failure::from)?;
        }
        publish::publish(session, node, made, &artifacts).map_err(Failure::from)?;
        self.remember(keyed, Some(seconds));
        for path in super::evaluate::paths(&session.project, node) {
            self.finder.forget(&path);
        }
        Ok(Some(End::Ran(artifacts)))
    }

    /// The stage said that the previous result stands.
    fn unchanged(
        &mut self,
        keyed: &Keyed,
        previous: Option<&ResultRecord>,
        _seconds: f64,
    ) -> std::result::Result<Option<End>, Failure> {
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
                other => return Ok(Some(other)),
            }
        } else {
            publish::claim(session, node, &artifacts_of(&record, node)).map_err(Failure::from)?;
        }
        self.remember(keyed, None);
        Ok(Some(End::Stands { artifacts: artifacts_of(&record, node), checked: true, restored }))
    }

    /// The workspace row: last key, manifest, durations.
    fn remember(&self, keyed: &Keyed, seconds: Option<f64>) {
        remember(self.session, self.node, keyed, seconds);
    }

    /// Outputs that are published even if the attempt failed.
    fn publish_on_failure(&self, made: &[Made]) {
        for (output, made) in self.node.outputs.iter().zip(made) {
            if !output.on_failure {
                continue;
            }
            if let Ok(Some(artifact)) = collect::one(self.session, output, made) {
                if made.direct {
                    // out of reach of what is put back next
                    let keep = self.session.attempt_dir(self.ix, self.attempts).join("kept");
                    if std::fs::rename(&made.path, &keep).is_ok() {
                        let moved = Made { path: keep, direct: false, precreated: false };
                        let _ = publish::one(self.session, self.node, output, &moved, &artifact);
                        let journal = self.session.attempt_dir(self.ix, self.attempts);
                        recover::forget_place(&journal, &self.session.project.root.join(&output.path));
                    }
                } else {
                    let _ = publish::one(self.session, self.node, output, made, &artifact);
                }
                self.finder.forget(&self.session.project.root.join(&output.path));
            }
        }
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
        let death = self.node.services.iter().find_map(|service| services.death(self.session, *service))?;
        Some(self.of_service(death))
    }

    /// The failure of a service as that of this node, with the last lines of the service's log.
    fn of_service(&mut self, failure: ServiceFailure) -> Failure {
        for line in failure.tail {
            self.log.line(&line);
        }
        Failure { hints: failure.hints, cancelled: failure.cancelled, ..Failure::new(failure.message) }
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

fn keyed_again(keyed: &Keyed) -> Keyed {
    Keyed { key: keyed.key, manifest: keyed.manifest.clone(), facts: keyed.facts.clone() }
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
