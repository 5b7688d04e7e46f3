//! When a run with nothing to do earns a certificate, and a run that is one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificate::{Certified, Witness, environment, witness, write, young};
use super::facts::FactFinder;
use super::options::RunSummary;
use super::session::{Session, started_text};
use crate::base::clock;
use crate::base::digest::Digest;
use crate::base::files::Stat;
use crate::event::{EVENT_VERSION, Event, Sink};
use crate::graph::Selection;
use crate::model::{Artifact, Policy, Tool};

/// Writes the certificate of a run in which every selected node was fresh, if nothing stands against it.
pub(super) fn certify(session: &Session, finder: &FactFinder, selection: &Selection) {
    let Some((place, extra)) = &session.options.certificate else { return };
    // without a certificate the next run looks at everything again: no harm
    let Some((certified, witnesses)) = evidence(session, finder, selection, extra) else { return };
    let _ = write(place, &certified, &witnesses);
}

fn evidence(
    session: &Session,
    finder: &FactFinder,
    selection: &Selection,
    extra: &[PathBuf],
) -> Option<(Certified, Vec<Witness>)> {
    let project = &session.project;
    let mut asked = project.asked.clone();
    for &ix in &selection.nodes {
        let node = &project.graph.nodes[ix];
        if node.policy != Policy::Pure || !node.services.is_empty() {
            return None;
        }
        for name in &node.pass_env {
            asked.env.insert(name.clone(), environment(name));
        }
        for tool in &node.tools {
            let Tool::Program(program) = tool else { return None };
            if program.contains('/') {
                continue;
            }
            // another program of that name, earlier in the path, would be meant next time
            asked.env.insert("PATH".to_owned(), environment("PATH"));
            for dir in std::env::split_paths(&std::env::var_os("PATH")?) {
                let candidate = dir.join(program);
                let there = candidate.is_file();
                asked.files.insert(candidate.to_str()?.to_owned(), there);
                if there && Stat::following(&candidate).ok()?.executable() {
                    break;
                }
            }
        }
    }
    let mut witnesses = Vec::new();
    let mut absent = std::collections::BTreeSet::new();
    for (path, content) in finder.seen() {
        match content {
            Some(content) => witnesses.push(witness(&path, &content.stat, &content.artifact, &project.root)?),
            None => {
                absent.insert(path.strip_prefix(&project.root).unwrap_or(&path).to_str()?.to_owned());
            }
        }
    }
    for source in &project.loaded.sources.0 {
        witnesses.push(declared(&source.path, Some(Digest::of(source.text.as_bytes())))?);
    }
    for file in extra {
        witnesses.push(declared(file, None)?);
    }
    let then = session.started_ns;
    let dirs = asked.dirs.values().flatten();
    if witnesses.iter().map(|w| &w.stat).chain(dirs).any(|stat| young(stat, then)) {
        return None;
    }
    let certified = Certified {
        workflow: project.graph.name.clone(),
        file: project.graph.file.clone(),
        nodes: selection.nodes.len(),
        plan_digest: project.plan_digest(),
        orphans: super::query::orphans(project),
        boot: clock::boot_id(),
        asked,
        absent,
    };
    Some((certified, witnesses))
}

/// A file that was read to declare the workflow; with `expected`, it still has the content that was read.
fn declared(path: &Path, expected: Option<Digest>) -> Option<Witness> {
    let stat = Stat::following(path).ok()?;
    let digest = Digest::of(&std::fs::read(path).ok()?);
    if expected.is_some_and(|expected| expected != digest) {
        return None;
    }
    let artifact = Artifact::File { digest, size: stat.size, exec: stat.executable() };
    witness(path, &stat, &artifact, Path::new(""))
}

/// A whole run by certificate: it tells what a run with nothing to do tells, but lists no node.
pub fn run_certified(certified: &Certified, run: &str, sink: &Arc<dyn Sink>) -> RunSummary {
    let begun = std::time::Instant::now();
    sink.emit(Event::RunStarted {
        version: EVENT_VERSION,
        run: run.to_owned(),
        workflow: certified.workflow.clone(),
        file: certified.file.clone(),
        started_at: started_text(),
        load: 0.0,
        expand: 0.0,
    });
    sink.emit(Event::Planned { nodes: certified.nodes, plan_digest: certified.plan_digest.to_string() });
    sink.emit(Event::AllFresh { nodes: certified.nodes });
    sink.emit(Event::RunFinished {
        outcome: "ok".to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        orphans: certified.orphans.len(),
    });
    RunSummary {
        run: run.to_owned(),
        plan_digest: certified.plan_digest,
        failure: None,
        elapsed: begun.elapsed(),
        seen: Vec::new(),
    }
}
