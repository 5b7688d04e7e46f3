//! The record of one run: events folded to what became of it, written as JSON lines, read back. Unaware of where records lie.

use std::collections::BTreeMap;
use std::sync::Mutex;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::Observer;
use super::printer::lock;
use super::timeline::Timeline;
use crate::event::{Determinism, DeterminismReport, Event, LeasedDevice, NodeReport, Stamped};
use crate::model::Outcome;
use crate::{Error, Result};

/// Name of the format, in the first line.
pub const FORMAT: &str = "flow-run";
/// Version of the format; a record of a newer one is refused.
pub const VERSION: u64 = 1;

/// What is known of one run, finished or not.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Run id.
    pub id: String,
    /// Workflow name.
    pub workflow: String,
    /// Workflow file as given.
    pub file: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// `b3:...`, once planned.
    pub plan_digest: Option<String>,
    /// `ok`, `failed`, `cancelled`; `None` if the record has no end (the run was killed, or is running).
    pub end: Option<String>,
    /// Seconds in all; without an end the stamp of the last event.
    pub seconds: f64,
    /// Number of orphans at the end.
    pub orphans: usize,
    /// Finished nodes in the order in which they finished.
    pub nodes: IndexMap<String, NodeReport>,
    /// Fresh nodes that are not listed: a run that found nothing to do at one glance.
    pub unlisted_fresh: usize,
    /// Nodes started and not finished, with the stamp of their start.
    pub running: IndexMap<String, f64>,
    /// What `--check-determinism` found, in the order in which it was found.
    pub determinism: Vec<DeterminismReport>,
    /// Service instances in the order in which they were started.
    pub services: Vec<ServiceRecord>,
    /// Notes in order.
    pub notes: Vec<String>,
    /// Log lines by node or service id.
    pub logs: IndexMap<String, Vec<String>>,
    /// When nodes did something; of a record that was read.
    pub timeline: Timeline,
    /// Lines that are no event this version knows, unchanged.
    pub others: Vec<Value>,
}

/// One start of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceRecord {
    /// Service id.
    pub id: String,
    /// Its URL, once ready.
    pub url: Option<String>,
    /// Process id, once ready.
    pub pid: Option<u32>,
    /// Seconds from start to ready.
    pub seconds: Option<f64>,
    /// It was stopped.
    pub stopped: bool,
    /// Why it ended, if nobody asked for it.
    pub failure: Option<String>,
    /// Devices that it leased.
    pub devices: Vec<LeasedDevice>,
}

impl Record {
    /// Reads the lines of one record; one without an end is no error. The error names a foreign or newer format.
    pub fn read(lines: impl IntoIterator<Item = Value>) -> Result<Self> {
        let mut lines = lines.into_iter();
        let header = lines.next().ok_or_else(|| Error::environment("the run record is empty"))?;
        if header.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(Error::environment(format!(
                "not a run record (its first line has no \"format\": \"{FORMAT}\")"
            )));
        }
        match header.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => {
                return Err(Error::environment(format!(
                    "the run record has version {newer}, this flow reads {VERSION}"
                ))
                .hint("use the flow that wrote it, or a newer one"));
            }
            _ => return Err(Error::environment("the run record has no version that this flow knows")),
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut record = Self {
            id: text("run"),
            workflow: text("workflow"),
            file: text("file"),
            started_at: text("started_at"),
            ..Self::default()
        };
        for line in lines {
            match serde_json::from_value::<Stamped>(line.clone()) {
                Ok(stamped) => record.apply(&stamped),
                Err(_) => record.others.push(line),
            }
        }
        Ok(record)
    }

    /// Takes one event in.
    pub fn apply(&mut self, stamped: &Stamped) {
        self.fold(stamped);
        self.timeline.apply(stamped);
        if let Event::Log { node, line } = &stamped.event {
            self.logs.entry(node.clone()).or_default().push(line.clone());
        }
    }

    /// As [`Record::apply`], but log lines, which may be many, are passed over.
    pub(super) fn fold(&mut self, stamped: &Stamped) {
        if self.end.is_none() {
            self.seconds = stamped.t;
        }
        match &stamped.event {
            Event::RunStarted { run, workflow, file, started_at, .. } => {
                self.id.clone_from(run);
                self.workflow.clone_from(workflow);
                self.file.clone_from(file);
                self.started_at.clone_from(started_at);
            }
            Event::Planned { plan_digest, .. } => self.plan_digest = Some(plan_digest.clone()),
            Event::Note { message } => self.notes.push(message.clone()),
            Event::NodeStarted { node, .. } => {
                self.running.entry(node.clone()).or_insert(stamped.t);
            }
            Event::Log { .. } | Event::NodeRetrying { .. } | Event::Looked { .. } | Event::Alive { .. } => {}
            Event::NodeFinished(report) => {
                self.running.shift_remove(&report.id);
                self.nodes.insert(report.id.clone(), report.clone());
            }
            Event::AllFresh { nodes } => self.unlisted_fresh += nodes,
            Event::DeterminismChecked(report) => self.determinism.push(report.clone()),
            Event::ServiceStarting { service, devices } => {
                self.services.push(ServiceRecord {
                    id: service.clone(),
                    devices: devices.clone(),
                    ..Default::default()
                });
            }
            Event::ServiceReady { service, url, pid, seconds } => {
                let entry = self.service(service);
                entry.url = Some(url.clone());
                entry.pid = Some(*pid);
                entry.seconds = Some(*seconds);
            }
            Event::ServiceStopped { service, failure } => {
                let entry = self.service(service);
                entry.stopped = true;
                entry.failure.clone_from(failure);
            }
            Event::RunFinished { outcome, seconds, orphans } => {
                self.end = Some(outcome.clone());
                self.seconds = *seconds;
                self.orphans = *orphans;
            }
        }
    }

    /// The present instance of a service; one that was never announced is added.
    fn service(&mut self, id: &str) -> &mut ServiceRecord {
        let found = self.services.iter().rposition(|s| s.id == id && !s.stopped);
        let index = found.unwrap_or_else(|| {
            self.services.push(ServiceRecord { id: id.to_owned(), ..Default::default() });
            self.services.len() - 1
        });
        &mut self.services[index]
    }

    /// `ok`, `failed`, `cancelled`, or `unfinished` if the record has no end.
    pub fn outcome(&self) -> &str {
        self.end.as_deref().unwrap_or("unfinished")
    }

    /// Number of nodes by outcome; every outcome is there.
    pub fn counts(&self) -> BTreeMap<Outcome, usize> {
        let mut counts: BTreeMap<Outcome, usize> = Outcome::ALL.into_iter().map(|o| (o, 0)).collect();
        for node in self.nodes.values() {
            *counts.entry(node.outcome).or_default() += 1;
        }
        *counts.entry(Outcome::Fresh).or_default() += self.unlisted_fresh;
        counts
    }

    /// Nodes that failed, by id.
    pub fn failed(&self) -> Vec<&NodeReport> {
        self.sorted().into_iter().filter(|node| node.outcome == Outcome::Failed).collect()
    }

    /// All finished nodes by id.
    pub fn sorted(&self) -> Vec<&NodeReport> {
        let mut nodes: Vec<&NodeReport> = self.nodes.values().collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        nodes
    }

    /// The object that `flow run --json` prints (workflow format, section 8). Fresh nodes only if `all`.
    pub fn summary_json(&self, all: bool) -> Value {
        let counts: Map<String, Value> =
            self.counts().into_iter().map(|(outcome, n)| (outcome.as_str().to_owned(), n.into())).collect();
        let nodes: Vec<Value> =
            self.sorted().into_iter().filter(|node| all || node.worth_a_line()).map(node_json).collect();
        let mut summary = json!({
            "run": self.id,
            "workflow": self.workflow,
            "outcome": self.outcome(),
            "plan_digest": self.plan_digest,
            "counts": counts,
            "seconds": millis(self.seconds),
            "nodes": nodes,
        });
        if !self.determinism.is_empty() {
            summary["determinism"] = self.determinism_json();
        }
        summary
    }

    /// The reports of `--check-determinism` by node id, and how many there are of each verdict.
    fn determinism_json(&self) -> Value {
        let mut counts = Map::new();
        for verdict in [Determinism::Same, Determinism::Differs, Determinism::Failed, Determinism::Skipped] {
            let n = self.determinism.iter().filter(|report| report.verdict == verdict).count();
            counts.insert(verdict.as_str().to_owned(), n.into());
        }
        let mut reports: Vec<&DeterminismReport> = self.determinism.iter().collect();
        reports.sort_by(|a, b| a.id.cmp(&b.id));
        json!({ "counts": counts, "nodes": reports })
    }
}

/// One node as `--json` prints it; `stale`, `adopted`, `allowed` and `error` only if set.
fn node_json(node: &NodeReport) -> Value {
    let mut object = json!({
        "id": node.id,
        "outcome": node.outcome.as_str(),
        "reason": node.reason,
        "key": node.key,
        "seconds": millis(node.seconds),
        "attempts": node.attempts,
        "checked": node.checked,
        "device": node.device,
    });
    if node.stale {
        object["stale"] = true.into();
    }
    if node.adopted {
        object["adopted"] = true.into();
    }
    if node.allowed {
        object["allowed"] = true.into();
    }
    if let Some(error) = &node.error {
        object["error"] = error.as_str().into();
    }
    object
}

/// Seconds to the millisecond.
pub(super) fn millis(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

/// Writes a record while the run goes on: the header, then every event, each handed on as one JSON line at once.
pub struct Recorder {
    state: Mutex<Writing>,
}

struct Writing {
    begun: bool,
    write: Box<dyn FnMut(&str) + Send>,
}

impl Recorder {
    /// `write` takes the lines in order, without their ends.
    pub fn new(write: impl FnMut(&str) + Send + 'static) -> Self {
        Self { state: Mutex::new(Writing { begun: false, write: Box::new(write) }) }
    }
}

impl Observer for Recorder {
    fn observe(&self, stamped: &Stamped) {
        let mut state = lock(&self.state);
        let Writing { begun, write } = &mut *state;
        if !std::mem::replace(begun, true) {
            write(&header(stamped).to_string());
        }
        match serde_json::to_string(stamped) {
            Ok(line) => write(&line),
            Err(e) => write(&json!({ "unwritable": e.to_string() }).to_string()),
        }
    }
}

fn header(first: &Stamped) -> Value {
    let mut header = json!({ "format": FORMAT, "version": VERSION, "flow": env!("CARGO_PKG_VERSION") });
    if let Event::RunStarted { run, workflow, file, started_at, .. } = &first.event {
        header["run"] = run.as_str().into();
        header["workflow"] = workflow.as_str().into();
        header["file"] = file.as_str().into();
        header["started_at"] = started_at.as_str().into();
    }
    header
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::observe::lines::report;
    use std::sync::Arc;

    /// A run with a service, a node of each kind that matters, and an end.
    pub(in crate::observe) fn events() -> Vec<Event> {
        let mut ran = report("merge", Outcome::Ran);
        ran.reason = Some("input left changed".into());
        ran.key = Some("b3:02".into());
        ran.seconds = 0.0204;
        ran.attempts = 1;
        let mut failed = report("fetch[seq=1k_1k]", Outcome::Failed);
        failed.key = Some("b3:01".into());
        failed.error = Some("answered 404".into());
        failed.attempts = 2;
        failed.seconds = 1.5;
        failed.tail = vec!["GET /x".into()];
        failed.log = Some("cache/runs/r1/fetch.log".into());
        let mut fresh = report("clean", Outcome::Fresh);
        fresh.key = Some("b3:03".into());
        fresh.checked = true;
        let start = |node: &str| Event::NodeStarted {
            node: node.into(),
            attempt: 1,
            reason: "never ran".into(),
            begin: None,
        };
        vec![
            Event::RunStarted {
                version: 1,
                run: "20261121-101500-7f3a".into(),
                workflow: "inferencemax".into(),
                file: "w.json".into(),
                started_at: "2026-11-21T10:15:00Z".into(),
                load: 0.0,
                expand: 0.0,
            },
            Event::Planned { nodes: 4, plan_digest: "b3:aa".into() },
            Event::NodeFinished(fresh),
            Event::ServiceStarting { service: "dashboard".into(), devices: Vec::new() },
            Event::ServiceReady {
                service: "dashboard".into(),
                url: "http://127.0.0.1:1".into(),
                pid: 7,
                seconds: 0.05,
            },
            start("merge"),
            start("fetch[seq=1k_1k]"),
            Event::Log { node: "fetch[seq=1k_1k]".into(), line: "GET /x".into() },
            Event::NodeRetrying {
                node: "fetch[seq=1k_1k]".into(),
                attempt: 1,
                message: "answered 503".into(),
                wait: 1.0,
            },
            Event::NodeFinished(ran),
            Event::NodeFinished(failed),
            Event::NodeFinished(report("wrap", Outcome::Skipped)),
            Event::Note { message: "a note".into() },
            Event::ServiceStopped { service: "dashboard".into(), failure: None },
            Event::RunFinished { outcome: "failed".into(), seconds: 1.9312, orphans: 3 },
        ]
    }

    pub(in crate::observe) fn lines() -> Vec<Value> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let recorder =
            Recorder::new(move |line: &str| sink.lock().unwrap().push(serde_json::from_str(line).unwrap()));
        for (n, event) in events().into_iter().enumerate() {
            recorder.observe(&Stamped { t: n as f64 / 8.0, event });
        }
        drop(recorder);
        Arc::try_unwrap(lines).unwrap().into_inner().unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let lines = lines();
        assert_eq!(lines[0]["format"], "flow-run");
        assert_eq!(lines[0]["version"], 1);
        let record = Record::read(lines).unwrap();
        assert_eq!(record.id, "20261121-101500-7f3a");
        assert_eq!((record.outcome(), record.seconds, record.orphans), ("failed", 1.9312, 3));
        assert_eq!(record.failed().iter().map(|n| n.id.as_str()).collect::<Vec<_>>(), ["fetch[seq=1k_1k]"]);
        assert_eq!(record.logs["fetch[seq=1k_1k]"], ["GET /x"]);
        assert_eq!(record.services.len(), 1);
        assert!(record.services[0].stopped && record.services[0].pid == Some(7));
        assert!(record.running.is_empty() && record.others.is_empty());
    }

    #[test]
    fn a_killed_run_shows_what_was_running() {
        let record = Record::read(lines().into_iter().take(9)).unwrap();
        assert_eq!(record.outcome(), "unfinished");
        assert_eq!(record.seconds, 0.875, "the stamp of the last event");
        assert_eq!(record.running.keys().collect::<Vec<_>>(), ["merge", "fetch[seq=1k_1k]"]);
        let only_header = Record::read(lines().into_iter().take(1)).unwrap();
        assert_eq!((only_header.id.as_str(), only_header.outcome()), ("20261121-101500-7f3a", "unfinished"));
    }

    #[test]
    fn foreign_and_newer_records_are_refused_and_unknown_lines_kept() {
        assert!(Record::read([]).is_err());
        assert!(Record::read([json!({"t": 0})]).unwrap_err().message.starts_with("not a run record"));
        let newer = Record::read([json!({"format": "flow-run", "version": 2})]).unwrap_err();
        assert_eq!(newer.message, "the run record has version 2, this flow reads 1");
        let strange = json!({"t": 1.0, "event": "eclipse"});
        let record = Record::read([json!({"format": "flow-run", "version": 1}), strange.clone()]).unwrap();
        assert_eq!(record.others, [strange]);
    }

    #[test]
    fn a_service_started_again_is_a_second_instance() {
        let mut record = Record::default();
        for event in [
            Event::ServiceStarting { service: "s".into(), devices: Vec::new() },
            Event::ServiceStopped { service: "s".into(), failure: None },
            Event::ServiceStarting { service: "s".into(), devices: Vec::new() },
            Event::ServiceStopped { service: "s".into(), failure: Some("died".into()) },
        ] {
            record.apply(&Stamped { t: 0.0, event });
        }
        let failures: Vec<_> = record.services.iter().map(|s| s.failure.as_deref()).collect();
        assert_eq!(failures, [None, Some("died")]);
    }
}
