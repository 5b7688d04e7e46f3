//! A run as Chrome trace events, which chrome://tracing and ui.perfetto.dev open (`--trace FILE`). Unaware of the engine.
//!
//! The array form of the format: its readers take one without an end, so the file of a killed run opens too. Times are microseconds
//! since flow began to read the workflow. Tracks: the phases of the run, one per slot, one per service.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::Observer;
use super::critical_path;
use super::printer::lock;
use super::timeline::Timeline;
use crate::event::{Event, NodeReport, Stamped};
use crate::model::Outcome;
use crate::{Error, Result};

/// The only process of a trace.
const PID: u32 = 1;
/// Track of the run's phases; slots follow.
const RUN: usize = 0;
/// Tracks of services come after those of as many slots.
const SERVICES: usize = 1_000_000;

/// Writes a trace while the run goes on.
pub struct Trace {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    to: BufWriter<Box<dyn Write + Send>>,
    failure: Option<io::Error>,
    /// Something was written already.
    begun: bool,
    /// Seconds before the first event.
    before: f64,
    timeline: Timeline,
    /// Until when each slot was taken; forever while something is at work in it.
    slots: Vec<f64>,
    /// Slot of the last work of each node.
    placed: HashMap<String, usize>,
    open: IndexMap<String, Attempt>,
    services: IndexMap<String, Service>,
    tracks: usize,
    looked: Option<f64>,
}

/// An attempt at work.
struct Attempt {
    began: f64,
    number: u32,
    reason: String,
}

/// A service that is up or about to be.
struct Service {
    track: usize,
    since: f64,
    ready: Option<f64>,
}

impl Trace {
    /// Creates (or empties) the file, with its parent directories.
    pub fn create(path: &Path) -> Result<Self> {
        let open = || {
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent)?;
            }
            File::create(path)
        };
        let file = open().map_err(|e| Error::io("create", path, e))?;
        Ok(Self::to(path, Box::new(file)))
    }

    fn to(path: &Path, to: Box<dyn Write + Send>) -> Self {
        let state = State {
            to: BufWriter::with_capacity(1 << 16, to),
            failure: None,
            begun: false,
            before: 0.0,
            timeline: Timeline::default(),
            slots: Vec::new(),
            placed: HashMap::new(),
            open: IndexMap::new(),
            services: IndexMap::new(),
            tracks: SERVICES,
            looked: None,
        };
        Self { path: path.to_owned(), state: Mutex::new(state) }
    }

    /// Writes what is known only at the end: what is still at work, counters, the arrows of the critical path. The error of the
    /// first failed write, if one failed.
    pub fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        state.end();
        match &state.failure {
            None => Ok(()),
            Some(e) => Err(Error::io("write", &self.path, e)),
        }
    }
}

impl Observer for Trace {
    fn observe(&self, stamped: &Stamped) {
        let mut state = lock(&self.state);
        state.timeline.apply(stamped);
        state.take(stamped);
        let at_once = match &stamped.event {
            Event::NodeFinished(report) => report.timing.is_some(),
            Event::Alive { .. } => true,
            _ => false,
        };
        if at_once && state.failure.is_none() {
            let flushed = state.to.flush();
            state.failure = flushed.err();
        }
    }
}

impl State {
    fn take(&mut self, Stamped { t, event }: &Stamped) {
        match event {
            Event::RunStarted { run, workflow, load, expand, .. } => {
                self.before = load + expand;
                self.meta("process_name", RUN, &format!("flow {workflow} {run}"));
                self.name_track(RUN, "run");
                self.slice("load", "phase", RUN, (-self.before, -expand), Map::new());
                self.slice("expand", "phase", RUN, (-expand, 0.0), Map::new());
            }
            Event::Looked { seconds } => {
                self.looked = Some(*t);
                self.slice("look", "phase", RUN, (t - seconds, *t), Map::new());
            }
            Event::RunFinished { outcome, .. } => {
                let args = Map::from_iter([("outcome".to_owned(), outcome.as_str().into())]);
                self.slice("run", "phase", RUN, (self.looked.unwrap_or(0.0), *t), args);
            }
            Event::NodeStarted { node, attempt, reason, begin } => {
                let began = begin.as_ref().map_or(*t, |begin| begin.began);
                if *attempt == 1 {
                    self.close(node, *t, "planned again", None);
                    self.place(node, began, f64::INFINITY);
                }
                let attempt = Attempt { began, number: *attempt, reason: reason.clone() };
                self.open.insert(node.clone(), attempt);
            }
            Event::NodeRetrying { node, message, .. } => self.close(node, *t, "retried", Some(message)),
            Event::NodeFinished(report) => self.finished(report, *t),
            Event::ServiceStarting { service, .. } => {
                self.tracks += 1;
                self.name_track(self.tracks, &format!("service {service}"));
                let found = Service { track: self.tracks, since: *t, ready: None };
                self.services.insert(service.clone(), found);
            }
            Event::ServiceReady { service, .. } => {
                if let Some(found) = self.services.get_mut(service) {
                    found.ready = Some(*t);
                }
            }
            Event::ServiceStopped { service, failure } => self.service_ended(service, *t, failure.as_deref()),
            _ => {}
        }
    }

    fn finished(&mut self, report: &NodeReport, t: f64) {
        let ended = report.timing.as_ref().map_or(t, |timing| timing.ended);
        let mut args = Map::new();
        args.insert("outcome".to_owned(), report.outcome.as_str().into());
        args.insert("reason".to_owned(), report.reason.as_deref().into());
        args.insert("key".to_owned(), report.key.as_deref().into());
        args.insert("attempts".to_owned(), report.attempts.into());
        args.insert("bytes".to_owned(), report.bytes.into());
        if let Some(error) = &report.error {
            args.insert("error".to_owned(), error.as_str().into());
        }
        if let Some(begin) = report.timing.as_ref().and_then(|timing| timing.begin.as_ref()) {
            let slot = self.place(&report.id, begin.began, ended);
            let category = if report.outcome == Outcome::Restored { "restore" } else { "node" };
            return self.slice(&report.id, category, slot, (begin.began, ended), args);
        }
        let Some(attempt) = self.open.shift_remove(&report.id) else { return };
        let slot = self.leave(&report.id, ended);
        if attempt.number > 1 {
            args.insert("attempt".to_owned(), attempt.number.into());
        }
        self.slice(&report.id, "node", slot, (attempt.began, ended), args);
        if let Some(timing) = &report.timing {
            let committing = (ended - timing.commit).max(attempt.began);
            let executing = (committing - timing.execute).max(attempt.began);
            for (name, from, to) in [("execute", executing, committing), ("commit", committing, ended)] {
                if to > from && timing.execute > 0.0 {
                    self.slice(name, "phase", slot, (from, to), Map::new());
                }
            }
        }
    }

    /// An attempt that was not the last.
    fn close(&mut self, node: &str, t: f64, outcome: &str, error: Option<&str>) {
        let Some(attempt) = self.open.shift_remove(node) else { return };
        // between two attempts the slot is kept
        let slot = self.placed.get(node).copied().unwrap_or(RUN + 1);
        if outcome != "retried" {
            self.leave(node, t);
        }
        let mut args = Map::new();
        args.insert("outcome".to_owned(), outcome.into());
        args.insert("reason".to_owned(), attempt.reason.into());
        args.insert("attempt".to_owned(), attempt.number.into());
        if let Some(error) = error {
            args.insert("error".to_owned(), error.into());
        }
        self.slice(node, "node", slot, (attempt.began, t), args);
    }

    fn service_ended(&mut self, service: &str, t: f64, failure: Option<&str>) {
        let Some(found) = self.services.shift_remove(service) else { return };
        let ready = found.ready.unwrap_or(t);
        self.slice("starting", "service", found.track, (found.since, ready), Map::new());
        let args = failure.map(|failure| ("failure".to_owned(), failure.into()));
        self.slice(service, "service", found.track, (ready, t), Map::from_iter(args));
    }

    /// The first slot that is free at `from`, taken until `to`.
    fn place(&mut self, node: &str, from: f64, to: f64) -> usize {
        let free = self.slots.iter().position(|until| *until <= from);
        let slot = free.unwrap_or_else(|| {
            self.slots.push(0.0);
            let slot = self.slots.len() - 1;
            self.name_track(slot + 1, &format!("slot {slot}"));
            slot
        });
        self.slots[slot] = to;
        self.placed.insert(node.to_owned(), slot + 1);
        slot + 1
    }

    /// The node's slot is free from `t` on.
    fn leave(&mut self, node: &str, t: f64) -> usize {
        let track = self.placed.get(node).copied().unwrap_or(RUN + 1);
        if let Some(until) = self.slots.get_mut(track - 1) {
            *until = t;
        }
        track
    }

    fn end(&mut self) {
        let now = self.timeline.seconds;
        for node in self.open.keys().cloned().collect::<Vec<_>>() {
            self.close(&node, now, "never finished", None);
        }
        for service in self.services.keys().cloned().collect::<Vec<_>>() {
            self.service_ended(&service, now, None);
        }
        if self.begun && !self.timeline.ended {
            self.slice("run", "phase", RUN, (self.looked.unwrap_or(0.0), now), Map::new());
        }
        self.counters();
        self.arrows();
        let ended = self.write(if self.begun { b"\n]\n" } else { b"[]\n" });
        let flushed = ended.and_then(|()| self.to.flush());
        self.failure = self.failure.take().or(flushed.err());
    }

    /// How many nodes were at work, and how many were ready and waited, at every change.
    fn counters(&mut self) {
        let mut changes: Vec<(u64, i64, i64)> = Vec::new();
        for span in self.timeline.nodes.values() {
            let at = |t: f64| self.micros(t);
            changes.push((at(span.queued), 0, 1));
            changes.push((at(span.began), 1, -1));
            changes.push((at(self.timeline.end(span)), -1, 0));
        }
        changes.sort_unstable();
        let (mut running, mut ready) = (0, 0);
        let mut rest = changes.into_iter().peekable();
        while let Some((ts, more_running, more_ready)) = rest.next() {
            running += more_running;
            ready += more_ready;
            if rest.peek().is_none_or(|next| next.0 != ts) {
                let args = json!({"running": running, "ready": ready});
                self.event(&json!({"name": "nodes", "ph": "C", "ts": ts, "pid": PID, "args": args}));
            }
        }
    }

    /// From each node of the critical path to the next.
    fn arrows(&mut self) {
        let chain = critical_path::find(&self.timeline);
        for (id, pair) in chain.windows(2).enumerate() {
            let [from, to] = pair else { continue };
            let track = |node: &str| self.placed.get(node).copied().unwrap_or(RUN + 1);
            let (tail, head) = (track(&from.node), track(&to.node));
            let (began, ended) = (self.micros(from.began), self.micros(from.began + from.seconds));
            // an arrow belongs to the slice in which it begins
            let leaves = ended.saturating_sub(1).max(began);
            let arrow = |ph: &str, track: usize, ts: u64| {
                json!({"name": "critical path", "cat": "critical path", "ph": ph, "id": id, "ts": ts, "pid": PID, "tid": track,
                    "bp": "e"})
            };
            let events = [arrow("s", tail, leaves), arrow("f", head, self.micros(to.began))];
            events.iter().for_each(|event| self.event(event));
        }
    }

    fn micros(&self, t: f64) -> u64 {
        ((t + self.before).max(0.0) * 1e6).round() as u64
    }

    fn slice(&mut self, name: &str, category: &str, track: usize, at: (f64, f64), args: Map<String, Value>) {
        let ts = self.micros(at.0);
        let dur = self.micros(at.1).saturating_sub(ts);
        self.event(&json!({
            "name": name, "cat": category, "ph": "X", "ts": ts, "dur": dur, "pid": PID, "tid": track, "args": args,
        }));
    }

    fn name_track(&mut self, track: usize, name: &str) {
        self.meta("thread_name", track, name);
        self.event(&json!({"name": "thread_sort_index", "ph": "M", "pid": PID, "tid": track, "args": {"sort_index": track}}));
    }

    fn meta(&mut self, what: &str, track: usize, name: &str) {
        self.event(&json!({"name": what, "ph": "M", "pid": PID, "tid": track, "args": {"name": name}}));
    }

    fn event(&mut self, event: &Value) {
        if self.failure.is_some() {
            return;
        }
        let before: &[u8] = if std::mem::replace(&mut self.begun, true) { b",\n" } else { b"[\n" };
        let written = self.write(before).and_then(|()| Ok(serde_json::to_writer(&mut self.to, event)?));
        self.failure = written.err();
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Begin, Held, Timing};
    use crate::observe::lines::report;

    fn written(events: impl IntoIterator<Item = (f64, Event)>, end: bool) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/trace.json");
        let trace = Trace::create(&path).unwrap();
        for (t, event) in events {
            trace.observe(&Stamped { t, event });
        }
        if end {
            trace.finish().unwrap();
        }
        std::fs::read_to_string(&path).unwrap()
    }

    fn events() -> Vec<(f64, Event)> {
        let begin = |queued: f64, began: f64, after: &[&str], held: Option<Held>| Begin {
            queued,
            began,
            after: after.iter().map(|id| (*id).to_owned()).collect(),
            held,
        };
        let start = |node: &str, begin: Begin| Event::NodeStarted {
            node: node.into(),
            attempt: 1,
            reason: "never ran here".into(),
            begin: Some(begin),
        };
        let done = |node: &str, outcome: Outcome, timing: Timing| {
            let mut report = report(node, outcome);
            report.attempts = 1;
            report.bytes = Some(5);
            report.timing = Some(Box::new(timing));
            Event::NodeFinished(report)
        };
        let held = Some(Held { by: "slot".into(), node: "a".into() });
        vec![
            (
                0.0,
                Event::RunStarted {
                    version: 1,
                    run: "r".into(),
                    workflow: "w".into(),
                    file: "w.json".into(),
                    started_at: "now".into(),
                    load: 0.25,
                    expand: 0.5,
                },
            ),
            (0.1, Event::Looked { seconds: 0.05 }),
            (0.2, start("a", begin(0.15, 0.2, &[], None))),
            (1.2, done("a", Outcome::Ran, Timing { ended: 1.2, execute: 0.8, commit: 0.1, begin: None })),
            (1.3, start("b", begin(0.15, 1.25, &[], held))),
            (1.5, Event::NodeFinished(report("same", Outcome::Fresh))),
            (
                1.6,
                done(
                    "c",
                    Outcome::Restored,
                    Timing { ended: 1.6, begin: Some(begin(1.3, 1.4, &["a"], None)), ..Timing::default() },
                ),
            ),
            (1.7, Event::NodeRetrying { node: "b".into(), attempt: 1, message: "no".into(), wait: 0.1 }),
            (
                1.8,
                Event::NodeStarted {
                    node: "b".into(),
                    attempt: 2,
                    reason: "never ran here".into(),
                    begin: None,
                },
            ),
            (2.0, done("b", Outcome::Ran, Timing { ended: 2.0, execute: 0.1, commit: 0.0, begin: None })),
            (2.1, Event::RunFinished { outcome: "ok".into(), seconds: 2.1, orphans: 0 }),
        ]
    }

    #[test]
    fn tracks_slices_counters_and_arrows() {
        let all: Vec<Value> = serde_json::from_str(&written(events(), true)).unwrap();
        let slices: Vec<String> = all
            .iter()
            .filter(|event| event["ph"] == "X")
            .map(|e| format!("{} {} {}+{} {}", e["tid"], e["name"], e["ts"], e["dur"], e["args"]["outcome"]))
            .collect();
        expect_test::expect![[r#"
            0 "load" 0+250000 null
            0 "expand" 250000+500000 null
            0 "look" 800000+50000 null
            1 "a" 950000+1000000 "ran"
            1 "execute" 1050000+800000 null
            1 "commit" 1850000+100000 null
            2 "c" 2150000+200000 "restored"
            1 "b" 2000000+450000 "retried"
            1 "b" 2550000+200000 "ran"
            1 "execute" 2650000+100000 null
            0 "run" 850000+2000000 "ok""#]]
        .assert_eq(&slices.join("\n"));
        let counts: Vec<String> = all
            .iter()
            .filter(|event| event["ph"] == "C")
            .map(|e| format!("{} {} {}", e["ts"], e["args"]["running"], e["args"]["ready"]))
            .collect();
        assert_eq!(counts.first().map(String::as_str), Some("900000 0 2"));
        assert_eq!(counts.last().map(String::as_str), Some("2750000 0 0"));
        let arrows: Vec<&Value> = all.iter().filter(|event| event["cat"] == "critical path").collect();
        assert_eq!(arrows.len(), 2);
        assert_eq!(
            (&arrows[0]["ph"], &arrows[0]["ts"], &arrows[1]["ts"]),
            (&json!("s"), &json!(1_949_999), &json!(2_000_000))
        );
        let a = all.iter().find(|event| event["name"] == "a").unwrap();
        assert_eq!((&a["args"]["bytes"], &a["args"]["attempts"]), (&json!(5), &json!(1)));
    }

    #[test]
    fn a_file_without_an_end_lacks_only_the_bracket_and_a_run_without_one_shows_what_was_at_work() {
        let cut = written(events().into_iter().take(5), false);
        let closed: Vec<Value> = serde_json::from_str(&format!("{cut}]")).unwrap();
        assert!(closed.iter().any(|event| event["name"] == "a"));
        let all: Vec<Value> = serde_json::from_str(&written(events().into_iter().take(5), true)).unwrap();
        let b = all.iter().find(|event| event["name"] == "b").unwrap();
        assert_eq!(b["args"]["outcome"], "never finished");
        assert_eq!(written([], true), "[]\n");
    }

    #[test]
    fn a_failed_write_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let trace = Trace::to(Path::new("t.json"), Box::new(Full));
        trace.observe(&Stamped { t: 0.0, event: Event::Alive { running: 0, ready: 0 } });
        assert!(trace.finish().unwrap_err().message.starts_with("failed to write t.json: "));
    }
}
