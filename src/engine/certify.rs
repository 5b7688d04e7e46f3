//! When a run earns a certificate, and a run that is one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificate::{Certified, Witness, environment, write, young};
use super::compiled::{self, ABSENT, Tables, Texts};
use super::facts::{FactFinder, Outputs};
use super::options::RunSummary;
use super::run::expected;
use super::session::{Session, started_text};
use crate::base::clock;
use crate::base::digest::Digest;
use crate::base::files::Stat;
use crate::event::{EVENT_VERSION, Event, Sink};
use crate::graph::{Item, Selection};
use crate::model::{Artifact, Policy, Tool};

/// Writes the certificate of a run after which nothing is left to do, if nothing stands against it. `artifacts`: of each selected node.
pub(super) fn certify(session: &Session, finder: &FactFinder, selection: &Selection, outputs: &dyn Outputs) {
    let Some((place, extra)) = &session.options.certificate else { return };
    // without a certificate the next run looks at everything again: no harm
    let Some(Evidence { mut certified, witnesses, others }) =
        evidence(session, finder, selection, outputs, extra)
    else {
        return;
    };
    if selection.nodes.len() == session.project.graph.nodes.len()
        && let Some(tables) = tables(session, finder, outputs, &witnesses, &others)
    {
        certified.plan =
            Texts::of(&session.project.graph).and_then(|texts| compiled::write(place, tables, &texts));
        certified.listed = certified.plan.and_then(|_| session.project.listed.write(place));
    }
    let witnesses: Vec<Witness> = witnesses.into_values().collect();
    let _ = write(place, &certified, &witnesses);
}

/// What a certificate is made of: the witnesses by path, as the files are named in it.
struct Evidence {
    certified: Certified,
    witnesses: BTreeMap<String, Witness>,
    /// Device and inode of every tool, and of every file that declares something.
    others: HashSet<(u64, u64)>,
}

fn evidence(
    session: &Session,
    finder: &FactFinder,
    selection: &Selection,
    outputs: &dyn Outputs,
    extra: &[PathBuf],
) -> Option<Evidence> {
    let project = &session.project;
    // what it runs at the end, no certificate runs
    if project.graph.on_finish.is_some() {
        return None;
    }
    // also one that a depfile names
    if finder.saw_a_directory() {
        return None;
    }
    let mut asked = project.asked.clone();
    let mut others = Vec::new();
    for ix in selection.nodes.iter() {
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
                others.push(project.root.join(program));
                continue;
            }
            // another program of that name, earlier in the path, would be meant next time
            asked.env.insert("PATH".to_owned(), environment("PATH"));
            for dir in std::env::split_paths(&std::env::var_os("PATH")?) {
                let candidate = dir.join(program);
                let there = candidate.is_file();
                asked.files.insert(candidate.to_str()?.to_owned(), there);
                if there && Stat::following(&candidate).ok()?.executable() {
                    others.push(candidate);
                    break;
                }
            }
        }
    }
    let then = session.started_ns;
    if asked.dirs.values().flatten().any(|stat| young(stat, then)) {
        return None;
    }
    let mut witnesses = BTreeMap::new();
    let mut absent = BTreeSet::new();
    for (path, content) in finder.seen() {
        let name = named(&path, &project.root)?;
        match content {
            Some(content) => {
                let witness = Witness::new(&name, Some(&content.stat), &content.artifact, then)?;
                witnesses.insert(name, witness);
            }
            None => {
                absent.insert(name);
            }
        }
    }
    // outputs that were written in this run are looked at by the next one
    for ix in selection.nodes.iter() {
        for (output, artifact) in project.graph.nodes[ix].outputs.iter().zip(outputs.artifacts(ix)?) {
            if output.append {
                return None;
            }
            if witnesses.contains_key(&output.path) || absent.contains(&output.path) {
                continue;
            }
            if *artifact == Artifact::Absent {
                absent.insert(output.path.clone());
            } else {
                witnesses.insert(output.path.clone(), Witness::new(&output.path, None, artifact, then)?);
            }
        }
    }
    let items =
        selection.nodes.iter().flat_map(|ix| &project.graph.nodes[ix].inputs).flat_map(|input| &input.items);
    let mut sources = items.filter_map(|item| match item {
        Item::Source { path, .. } => Some(path),
        Item::Made { .. } | Item::Within { .. } => None,
    });
    if !sources.all(|path| witnesses.contains_key(path)) {
        return None;
    }
    for source in &project.loaded.as_ref()?.sources.0 {
        let (name, witness) = declared(&source.path, Some(Digest::of(source.text.as_bytes())), then)?;
        witnesses.insert(name, witness);
        others.push(source.path.clone());
    }
    for file in extra {
        let (name, witness) = declared(file, None, then)?;
        witnesses.insert(name, witness);
        others.push(file.clone());
    }
    let certified = Certified {
        workflow: project.graph.name.clone(),
        file: project.graph.file.clone(),
        nodes: selection.nodes.len(),
        plan_digest: project.plan_digest(),
        orphans: super::query::orphans(project),
        boot: clock::boot_id(),
        asked,
        plan: None,
        listed: None,
        absent,
    };
    let others = others.iter().map(|path| Stat::following(path).ok().map(|stat| (stat.device, stat.inode)));
    Some(Evidence { certified, witnesses, others: others.collect::<Option<_>>()? })
}

/// A path as a certificate names it.
pub(super) fn named(path: &Path, root: &Path) -> Option<String> {
    Some(path.strip_prefix(root).unwrap_or(path).to_str()?.to_owned())
}

/// The tables of the compiled plan; `None` if a node takes or makes something else than single files, or one of `others`: what that
/// concerns beside the node, no table says.
fn tables(
    session: &Session,
    finder: &FactFinder,
    outputs: &dyn Outputs,
    witnesses: &BTreeMap<String, Witness>,
    others: &HashSet<(u64, u64)>,
) -> Option<Tables> {
    let project = &session.project;
    let graph = &project.graph;
    let entries: HashMap<&str, u32> =
        witnesses.keys().enumerate().map(|(n, path)| (path.as_str(), n as u32)).collect();
    let mut tables = Tables {
        name: graph.name.clone(),
        file: graph.file.clone(),
        files: graph.files.clone(),
        resources: graph.resources.clone(),
        secrets: super::session::secret_names(graph),
        order: graph.order.iter().map(|ix| *ix as u32).collect(),
        ..Tables::default()
    };
    for (ix, node) in graph.nodes.iter().enumerate() {
        if node.depfile().is_some() || node.resources.jobserver.is_some() {
            return None;
        }
        tables.weights.push(u32::try_from(expected(project, node)).unwrap_or(u32::MAX));
        tables.dependents.push(graph.dependents(ix).map(|dependent| dependent as u32));
        let mut takes = Vec::new();
        for item in node.inputs.iter().flat_map(|input| &input.items) {
            match item {
                Item::Made { .. } => {}
                Item::Source { path, inside } if inside.is_empty() => {
                    let entry = *entries.get(path.as_str())?;
                    let path = project.root.join(path);
                    let clash = match finder.known(&path) {
                        Some(content) => others.contains(&(content.stat.device, content.stat.inode)),
                        None => is_one_of(&path, others),
                    };
                    if clash {
                        return None;
                    }
                    takes.push(entry);
                }
                Item::Source { .. } | Item::Within { .. } => return None,
            }
        }
        tables.takes.push(takes);
        let mut makes = Vec::new();
        for (output, artifact) in node.outputs.iter().zip(outputs.artifacts(ix)?) {
            makes.push(match artifact {
                Artifact::File { .. }
                    if !output.append && !is_one_of(&project.root.join(&output.path), others) =>
                {
                    *entries.get(output.path.as_str())?
                }
                Artifact::Absent => ABSENT,
                _ => return None,
            });
        }
        tables.makes.push(makes);
    }
    Some(tables)
}

/// Whether what is at a path is one of some files, by whatever name.
pub(super) fn is_one_of(path: &Path, others: &HashSet<(u64, u64)>) -> bool {
    Stat::following(path).is_ok_and(|stat| others.contains(&(stat.device, stat.inode)))
}

/// A file that was read to declare the workflow; with `expected`, it still has the content that was read.
pub(super) fn declared(path: &Path, expected: Option<Digest>, then: i64) -> Option<(String, Witness)> {
    let stat = Stat::following(path).ok()?;
    let digest = Digest::of(&std::fs::read(path).ok()?);
    if expected.is_some_and(|expected| expected != digest) {
        return None;
    }
    let artifact = Artifact::File { digest, size: stat.size, exec: stat.executable() };
    let name = path.to_str()?.to_owned();
    let witness = Witness::new(&name, Some(&stat), &artifact, then)?;
    Some((name, witness))
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
        incomplete: false,
        elapsed: begun.elapsed(),
        seen: Vec::new(),
    }
}
