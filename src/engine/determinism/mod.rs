//! `--check-determinism`: after a run, nodes run twice more in scratch, and what they make is compared. Unaware of how a node is run.

mod compare;
mod trial;

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use compare::{Difference, Entry, Listing};

use super::attempt::{Failure, Given, Job};
use super::command::makes_in_place;
use super::evaluate::{Keyed, means};
use super::facts::FactFinder;
use super::machine::wants;
use super::run::{capacity, demand};
use super::schedule::Scheduler;
use super::scratch::Scratch;
use super::session::Session;
use crate::api::CancelToken;
use crate::error::{Kind, Result};
use crate::event::{Determinism, DeterminismReport, Event, OutputDifference};
use crate::graph::{Node, NodeIx, Selection};
use crate::model::{Artifact, ExclusiveScope, Outcome, Policy, TreeEntryKind};

/// Attempt numbers of the two runs: out of the way of those of the run itself.
const RUNS: [u32; 2] = [1_000_001, 1_000_002];

/// What the run knows of a node that is to be checked.
pub(super) struct Subject {
    pub(super) ix: NodeIx,
    pub(super) outcome: Option<Outcome>,
    /// `None` if the node never got a key.
    pub(super) keyed: Option<Keyed>,
    pub(super) given: Given,
    /// The recorded outputs.
    pub(super) artifacts: Vec<Artifact>,
}

/// Nodes of the selection that are to be checked, in topological order.
pub(super) fn subjects(session: &Session, selection: &Selection) -> Vec<NodeIx> {
    let Some(pattern) = &session.options.check_determinism else { return Vec::new() };
    let graph = &session.project.graph;
    let meant = |ix: &NodeIx| means(pattern, &graph.nodes[*ix]).unwrap_or(false);
    graph.ordered(&selection.nodes).filter(meant).collect()
}

/// Why a node is never compared, if it is not.
pub(super) fn exempt(node: &Node) -> Option<String> {
    if !node.services.is_empty() {
        return Some("it uses services, whose state is no input".to_owned());
    }
    let why = match node.policy {
        Policy::Pure => return None,
        Policy::Sample => "a measurement is never the same",
        Policy::Validate | Policy::FreshFor(_) => "its result depends on what is outside",
        Policy::Never => "it may act on the world",
    };
    Some(format!("policy {}: {why}", node.policy.as_str()))
}

/// Checks all subjects, as many at once as the run may; `None` if all that were compared are the same.
pub(super) fn check(session: &Session, finder: &FactFinder, subjects: Vec<Subject>) -> Option<Kind> {
    let graph = &session.project.graph;
    // what is up and unused may have devices
    session.services.stop_all(session);
    let wanted = subjects.iter().map(|subject| wants(&graph.nodes[subject.ix]));
    let fleet = session.project.fleet(wanted, &session.sink);
    let mut scheduler = Scheduler::new(capacity(&session.project, &session.options), fleet);
    let mut waiting = HashMap::new();
    let mut reports: Vec<(NodeIx, DeterminismReport)> = Vec::new();
    for subject in subjects {
        let node = &graph.nodes[subject.ix];
        match (exempt(node).or_else(|| unusable(subject.outcome)), session.project.lacks(node)) {
            (Some(reason), _) => reports.push((subject.ix, skipped(node, reason))),
            (None, Some(error)) => {
                let report = failed(node, &error.into());
                session.emit(Event::DeterminismChecked(report.clone()));
                reports.push((subject.ix, report));
            }
            (None, None) => {
                let mut demand = demand(node);
                if makes_in_place(node) {
                    // its declared outputs are away for a while: nobody else may want them
                    demand.exclusive = Some(ExclusiveScope::Run);
                }
                scheduler.push(subject.ix, demand, 0);
                waiting.insert(subject.ix, subject);
            }
        }
    }
    if !waiting.is_empty() {
        session.note(format!("determinism: two more runs of {} nodes", waiting.len()));
    }
    let token = CancelToken::default();
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        loop {
            if session.stopping() {
                token.cancel();
                scheduler.drain();
            }
            while let Some(ix) = scheduler.next() {
                let Some(mut subject) = waiting.remove(&ix) else { continue };
                subject.given.lease = scheduler.lease(ix);
                let (sender, token) = (sender.clone(), &token);
                scope.spawn(move || {
                    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        one(session, finder, subject, token)
                    }));
                    let report = checked.unwrap_or_else(|_| {
                        let node = &session.project.graph.nodes[ix];
                        failed(node, &Failure::new("a bug in flow: the comparison panicked"))
                    });
                    // the receiver is gone only if the run is over
                    let _ = sender.send((ix, report));
                });
            }
            // what is ready and does not start waits for what another run has
            if scheduler.running() == 0 && scheduler.ready() == 0 {
                break;
            }
            if let Ok((ix, report)) = receiver.recv_timeout(Duration::from_millis(50)) {
                scheduler.finish(ix);
                session.emit(Event::DeterminismChecked(report.clone()));
                reports.push((ix, report));
            }
            session.check_watched();
        }
    });
    tell(session, reports)
}

/// Says what was skipped, and the counts.
fn tell(session: &Session, mut reports: Vec<(NodeIx, DeterminismReport)>) -> Option<Kind> {
    reports.sort_by_key(|(ix, _)| *ix);
    for (_, report) in reports.iter().filter(|(_, report)| report.verdict == Determinism::Skipped) {
        session.emit(Event::DeterminismChecked(report.clone()));
    }
    let count = |verdict: Determinism| reports.iter().filter(|(_, report)| report.verdict == verdict).count();
    let all = [Determinism::Same, Determinism::Differs, Determinism::Failed, Determinism::Skipped];
    let words: Vec<String> = all
        .into_iter()
        .filter(|verdict| count(*verdict) > 0)
        .map(|verdict| format!("{} {}", count(verdict), verdict.as_str()))
        .collect();
    session.note(format!("determinism: {}", words.join(", ")));
    (count(Determinism::Differs) + count(Determinism::Failed) > 0).then_some(Kind::Step)
}

/// Why a node of this run cannot be compared, if it cannot.
fn unusable(outcome: Option<Outcome>) -> Option<String> {
    match outcome {
        Some(Outcome::Fresh | Outcome::Restored | Outcome::Cached | Outcome::Ran) => None,
        Some(Outcome::Absent) => Some("an input it takes is absent".to_owned()),
        Some(other) => Some(format!("in this run it is {}", other.as_str())),
        None => Some("the run ended before it".to_owned()),
    }
}

fn report(node: &Node, verdict: Determinism) -> DeterminismReport {
    let id = node.id.clone();
    DeterminismReport { id, verdict, reason: None, seconds: Vec::new(), differences: Vec::new() }
}

fn skipped(node: &Node, reason: String) -> DeterminismReport {
    DeterminismReport { reason: Some(reason), ..report(node, Determinism::Skipped) }
}

fn failed(node: &Node, failure: &Failure) -> DeterminismReport {
    DeterminismReport { reason: Some(failure.message.clone()), ..report(node, Determinism::Failed) }
}

/// Runs one node twice and compares.
fn one(session: &Session, finder: &FactFinder, subject: Subject, cancel: &CancelToken) -> DeterminismReport {
    let node = &session.project.graph.nodes[subject.ix];
    let mut scratch = RUNS.map(|run| Scratch::new(session, subject.ix, run));
    let found = compared(session, finder, &subject, &mut scratch, cancel);
    let undone = scratch.into_iter().map(Scratch::undo).find_map(std::result::Result::err);
    match undone.map_or(found, |error| Err(error.into())) {
        Ok(report) => report,
        Err(failure) if failure.cancelled => skipped(node, "the run was ended".to_owned()),
        Err(failure) => failed(node, &failure),
    }
}

fn compared<'s>(
    session: &'s Session,
    finder: &'s FactFinder,
    subject: &Subject,
    scratch: &mut [Scratch<'s>; 2],
    cancel: &CancelToken,
) -> Result<DeterminismReport, Failure> {
    let node = &session.project.graph.nodes[subject.ix];
    let Some(keyed) = &subject.keyed else { return Err(Failure::new("it has no key")) };
    let run = |scratch: &mut Scratch<'s>| {
        Job::new(session, finder, subject.ix, subject.given.clone(), cancel.clone()).trial(keyed, scratch)
    };
    let [first, second] = scratch;
    let (first, second) = (run(first)?, run(second)?);
    let names = RUNS.map(|run| format!("{}.{run}", subject.ix));
    let scratch = [names[0].as_str(), names[1].as_str()];
    let mut differences = Vec::new();
    for (index, output) in node.outputs.iter().enumerate() {
        let found = match (&first.outputs[index], &second.outputs[index]) {
            (None, None) => None,
            (Some(a), Some(b)) => compare::compare(a, b, scratch)?,
            (a, _) => Some(Difference {
                what: if a.is_some() { "only the first run made it" } else { "only the second run made it" },
                files: 1,
                ..Difference::default()
            }),
        };
        let found = match found {
            Some(found) => Some(found),
            // both runs agree: so should the recorded result
            None => recorded(session, &subject.artifacts[index], second.outputs[index].as_deref())?,
        };
        differences.extend(found.map(|found| shown(output, found)));
    }
    let verdict = if differences.is_empty() { Determinism::Same } else { Determinism::Differs };
    Ok(DeterminismReport {
        seconds: vec![first.seconds, second.seconds],
        differences,
        ..report(node, verdict)
    })
}

/// The difference between the recorded output and what two runs made alike.
fn recorded(session: &Session, artifact: &Artifact, made: Option<&Path>) -> Result<Option<Difference>> {
    let mut old = Listing::new();
    match artifact {
        Artifact::Absent => {}
        Artifact::File { digest, exec, .. } => {
            old.insert(String::new(), Entry::File { digest: *digest, exec: *exec });
        }
        Artifact::Tree { digest, .. } => {
            // what is in it is not known any more
            let Some(entries) = session.project.store.tree(digest)? else { return Ok(None) };
            old.extend(entries.into_iter().map(|entry| {
                let of = match entry.kind {
                    TreeEntryKind::File { digest, exec, .. } => Entry::File { digest, exec },
                    TreeEntryKind::Link { target } => Entry::Link(target),
                    TreeEntryKind::Dir => Entry::Empty,
                };
                (entry.path, of)
            }));
        }
    }
    let new = made.map(compare::list).transpose()?.unwrap_or_default();
    Ok(compare::from_record(&old, &new))
}

fn shown(output: &crate::graph::Output, found: Difference) -> OutputDifference {
    let digest = |side: &Option<compare::Side>| side.as_ref()?.digest.map(|digest| digest.to_string());
    let lines = [&found.first, &found.second]
        .into_iter()
        .flatten()
        .map(|side| side.text.chars().take(compare::SHOWN).collect())
        .filter(|_| found.offset.is_some())
        .collect();
    OutputDifference {
        output: output.name.clone(),
        path: output.path.clone(),
        first: digest(&found.first),
        second: digest(&found.second),
        lines,
        file: (!found.file.is_empty()).then_some(found.file),
        what: found.what.to_owned(),
        offset: found.offset,
        line: found.line,
        files: found.files,
        hints: found.causes.into_iter().map(str::to_owned).collect(),
    }
}
