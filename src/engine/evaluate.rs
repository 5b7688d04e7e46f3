//! What a node needs, once its producers are done: nothing, its bytes, a check, or a run - and why.

use std::sync::Arc;

use super::adopt::adoptable;
use super::facts::{FactFinder, Missing, Outputs};
use super::options::{Force, RunOptions};
use super::project::Project;
use super::retention;
use super::second_level::look_up;
use super::upgrade::only_versions;
use crate::base::clock;
use crate::base::digest::Digest;
use crate::error::{Error, Result};
use crate::graph::{Node, NodeIx, Output, matcher};
use crate::key::{self, Components, Facts, Reason};
use crate::model::{Artifact, Policy};
use crate::store::{Content, Look, ResultRecord};

/// A node's key and what it stands for.
#[derive(Clone)]
pub(super) struct Keyed {
    pub(super) key: Digest,
    pub(super) manifest: Components,
    pub(super) facts: Facts,
}

impl Keyed {
    /// By facts; of a node with a depfile they may be those of either level.
    pub(super) fn new(project: &Project, node: &Node, facts: Facts) -> Self {
        let manifest = key::manifest(&project.graph, node, &facts);
        let key = key::hash_of(&manifest);
        Self { key, manifest, facts }
    }

    /// The key without what a depfile named: known before the node has run.
    pub(super) fn first_key(&self, project: &Project, node: &Node) -> Digest {
        match self.facts.discovered {
            None => self.key,
            Some(_) => key::hash(&project.graph, node, &Facts { discovered: None, ..self.facts.clone() }),
        }
    }
}

/// What a node needs.
pub(super) enum Verdict {
    /// A one-file input is absent.
    Absent,
    /// The recorded result stands. `differing`: outputs that are not in place, with the reason.
    Hit { keyed: Keyed, record: Arc<ResultRecord>, differing: Vec<(usize, Reason)>, stale: bool },
    /// The stage has to be asked.
    Check { keyed: Keyed, record: Arc<ResultRecord> },
    /// It has to run.
    Run { keyed: Keyed, reason: Reason },
    /// What is there becomes its result (`--adopt`).
    Adopt { keyed: Keyed, reason: Reason },
    /// A measurement of another version of flow or of its stage: it neither stands nor is it repeated by itself.
    Undecided { keyed: Keyed, reason: Reason },
    /// Its key needs bytes of this producer that the cache has lost.
    Bytes(NodeIx),
    /// It cannot run.
    Fault(Error),
}

/// Decides about one node.
pub(super) fn evaluate(
    project: &Project,
    finder: &FactFinder,
    options: &RunOptions,
    node: &Node,
    outputs: &dyn Outputs,
) -> Verdict {
    match decide(project, finder, options, node, outputs) {
        // with --frozen nothing runs, and stages are asked all the same
        Ok(verdict @ Verdict::Run { .. }) if options.frozen => verdict,
        Ok(verdict @ (Verdict::Run { .. } | Verdict::Check { .. })) => {
            project.lacks(node).map_or(verdict, Verdict::Fault)
        }
        Ok(verdict) => verdict,
        Err(error) => Verdict::Fault(error),
    }
}

fn decide(
    project: &Project,
    finder: &FactFinder,
    options: &RunOptions,
    node: &Node,
    outputs: &dyn Outputs,
) -> Result<Verdict> {
    let facts = match finder.facts(project, node, outputs) {
        Ok(facts) => facts,
        Err(Missing::Absent) => return Ok(Verdict::Absent),
        Err(Missing::Input(path)) => {
            return Err(Error::step(format!("input {path} is not there, and no step makes it")).hint(
                "check the path (relative to the workspace root), or declare it as an output of a step",
            ));
        }
        Err(Missing::Lost(producer)) => return Ok(Verdict::Bytes(producer)),
        Err(Missing::Fault(error)) => return Err(error),
    };
    let keyed = Keyed::new(project, node, facts);
    let run = |keyed, reason| Ok(Verdict::Run { keyed, reason });
    if node.policy == Policy::Never {
        return run(keyed, Reason::Never);
    }
    if forced(options, node)? {
        return run(keyed, Reason::Forced);
    }
    if node.policy == Policy::Sample
        && let Some(pattern) = &options.remeasure
        && means(pattern, node)?
    {
        return run(keyed, Reason::Remeasured);
    }
    if options.no_cache {
        return run(keyed, Reason::NoCache);
    }
    let (keyed, record) = match node.depfile() {
        None => {
            let record = project.store.result_at_first(&keyed.key)?.filter(|record| fits(record, node));
            (keyed, record)
        }
        Some(_) => match second_level(project, finder, node, keyed, outputs) {
            Ok(found) => found,
            Err(Missing::Lost(producer)) => return Ok(Verdict::Bytes(producer)),
            Err(Missing::Fault(error)) => return Err(error),
            Err(Missing::Absent | Missing::Input(_)) => {
                return Err(Error::bug("a discovered input that is not there has no fact"));
            }
        },
    };
    let Some(record) = record else {
        let reason = match project.workspace.node(project.root_file(), &node.id) {
            None => Reason::NeverRan,
            Some(row) if row.key == keyed.key && node.policy == Policy::Sample => {
                return Err(Error::step(format!(
                    "{}, and a measurement is never repeated by itself",
                    Reason::ResultLost
                ))
                .hint(format!("measure again with --remeasure '{}'", node.id)));
            }
            Some(row) if row.key == keyed.key => Reason::ResultLost,
            Some(row) => match key::changes(&row.manifest, &keyed.manifest) {
                // the same as far as it is known, and nothing tells what it discovered then
                changes if changes.is_empty() => Reason::ResultLost,
                changes => Reason::Changed(changes),
            },
        };
        if let Some(pattern) = &options.adopt
            && adoptable(node)
            && means(pattern, node)?
        {
            return Ok(Verdict::Adopt { keyed, reason });
        }
        if node.policy == Policy::Sample
            && let Reason::Changed(changes) = &reason
            && only_versions(changes)
        {
            return Ok(Verdict::Undecided { keyed, reason });
        }
        return run(keyed, reason);
    };
    let ask = match &node.policy {
        Policy::Validate => true,
        Policy::FreshFor(span) => {
            let age = clock::now_ns() - record.checked_at_ns;
            !(0..span.as_nanos() as i64).contains(&age)
        }
        _ => false,
    };
    if ask && !options.offline {
        return Ok(Verdict::Check { keyed, record });
    }
    let mut differing = differing(project, finder, node, &record)?;
    // not the place changed, but what is wanted there: back to an earlier result
    if !differing.is_empty() {
        let reason = match project.workspace.node(project.root_file(), &node.id) {
            Some(row) if row.key != keyed.key => {
                Some(Reason::Changed(key::changes(&row.manifest, &keyed.manifest)))
            }
            None if record.node != node.id => Some(Reason::Equal(record.node.clone())),
            _ => None,
        };
        if let Some(reason) = reason {
            differing.iter_mut().for_each(|(_, of_place)| *of_place = reason.clone());
        }
    }
    Ok(Verdict::Hit { keyed, record, differing, stale: ask })
}

/// The result of a node with a depfile, else the key that it would have if it discovered what it did last.
fn second_level(
    project: &Project,
    finder: &FactFinder,
    node: &Node,
    first: Keyed,
    outputs: &dyn Outputs,
) -> std::result::Result<(Keyed, Option<Arc<ResultRecord>>), Missing> {
    let mut looked = look_up(project, finder, node, &first, outputs)?;
    if let Some((keyed, record)) = looked.hit.take() {
        return Ok((keyed, Some(record)));
    }
    let last = project.workspace.node(project.root_file(), &node.id);
    Ok((looked.nearest(project, node, first, last.as_ref().map(|row| &row.manifest)), None))
}

/// Whether `--force` means this node.
fn forced(options: &RunOptions, node: &Node) -> Result<bool> {
    match &options.force {
        Force::Nothing => Ok(false),
        Force::All => Ok(true),
        Force::Matching(text) => means(text, node),
    }
}

/// A pattern that means nothing is a slip.
pub(super) fn check_patterns(
    project: &Project,
    options: &RunOptions,
    selection: &crate::graph::Selection,
) -> Result<()> {
    let forced = match &options.force {
        Force::Matching(pattern) => Some(pattern),
        _ => None,
    };
    let given = [
        ("--force", "node", forced),
        ("--remeasure", "sample", options.remeasure.as_ref()),
        ("--adopt", "node that has a result to keep", options.adopt.as_ref()),
        ("--check-determinism", "node", options.check_determinism.as_ref()),
    ];
    for (option, what, pattern) in given {
        let Some(pattern) = pattern else { continue };
        let mut any = false;
        for ix in selection.nodes.iter() {
            let node = &project.graph.nodes[ix];
            let fit = match option {
                "--force" | "--check-determinism" => true,
                "--adopt" => adoptable(node),
                _ => node.policy == Policy::Sample,
            };
            any |= means(pattern, node)? && fit;
        }
        if !any {
            return Err(Error::usage(format!("{option}={pattern} matches no {what}")).hint(
                "steps of an included workflow carry its prefix: '*.fetch*'; flow ls FILE lists the nodes",
            ));
        }
    }
    Ok(())
}

/// Whether a pattern of the command line means this node: its id, its step, or a pattern of either.
pub(super) fn means(text: &str, node: &Node) -> Result<bool> {
    let matcher = matcher(text)?;
    Ok(node.id == *text || node.step == *text || matcher.is_match(&node.id) || matcher.is_match(&node.step))
}

/// A record has an artifact for every declared output; anything else was written by a broken flow.
pub(super) fn fits(record: &ResultRecord, node: &Node) -> bool {
    node.outputs.iter().all(|output| record.outputs.iter().any(|(name, _)| *name == output.name))
}

/// The recorded artifacts in the order of the node's outputs.
pub(super) fn artifacts_of(record: &ResultRecord, node: &Node) -> Vec<Artifact> {
    node.outputs
        .iter()
        .map(|output| {
            let found = record.outputs.iter().find(|(name, _)| *name == output.name);
            found.map_or(Artifact::Absent, |(_, artifact)| artifact.clone())
        })
        .collect()
}

/// Outputs whose place does not hold what the record says.
pub(super) fn differing(
    project: &Project,
    finder: &FactFinder,
    node: &Node,
    record: &ResultRecord,
) -> Result<Vec<(usize, Reason)>> {
    let mut out = Vec::new();
    for (index, artifact) in artifacts_of(record, node).iter().enumerate() {
        if let Some(reason) = differs(project, finder, &node.outputs[index], artifact)? {
            out.push((index, reason));
        }
    }
    Ok(out)
}

fn differs(
    project: &Project,
    finder: &FactFinder,
    output: &Output,
    artifact: &Artifact,
) -> Result<Option<Reason>> {
    let path = project.root.join(&output.path);
    if output.append {
        let Some(entries) = entries(project, artifact)? else {
            return Ok(Some(Reason::OutputMissing(output.path.clone())));
        };
        for (name, entry) in entries {
            let path = path.join(&name);
            let shown = format!("{}/{name}", output.path);
            let content = finder.content(project, &path)?;
            if content.is_none() && retention::is_removed(project, &shown) {
                continue;
            }
            if let Some(reason) = compare(&content, &entry, &shown) {
                return Ok(Some(reason));
            }
        }
        return Ok(None);
    }
    if *artifact == Artifact::Absent {
        // only a file of our own is in the way
        let ours = project.workspace.published_path(&output.path);
        let there = ours && finder.content(project, &path)?.is_some();
        return Ok(there.then(|| Reason::OutputChanged(output.path.clone())));
    }
    Ok(compare(&finder.content(project, &path)?, artifact, &output.path))
}

fn compare(content: &Option<Arc<Content>>, artifact: &Artifact, path: &str) -> Option<Reason> {
    match content {
        None => Some(Reason::OutputMissing(path.to_owned())),
        Some(content) if content.artifact == *artifact => None,
        Some(_) => Some(Reason::OutputChanged(path.to_owned())),
    }
}

/// Top-level entries of what a node contributes to an append directory; `None` if the cache has lost the list of them.
pub(super) fn entries(project: &Project, artifact: &Artifact) -> Result<Option<Vec<(String, Artifact)>>> {
    use crate::model::{TreeEntry, TreeEntryKind};
    let Some(digest) = artifact.digest() else { return Ok(Some(Vec::new())) };
    let Some(tree) = project.store.tree(&digest)? else { return Ok(None) };
    let mut out: Vec<(String, Vec<TreeEntry>)> = Vec::new();
    let mut files = Vec::new();
    for entry in tree {
        match entry.path.split_once('/') {
            None => match entry.kind {
                TreeEntryKind::File { digest, size, exec } => {
                    files.push((entry.path, Artifact::File { digest, size, exec }));
                }
                TreeEntryKind::Dir => files.push((entry.path, crate::store::tree_artifact(&[])?)),
                TreeEntryKind::Link { .. } => {}
            },
            Some((top, rest)) => {
                let inner = TreeEntry { path: rest.to_owned(), kind: entry.kind };
                match out.last_mut() {
                    Some((name, list)) if name == top => list.push(inner),
                    _ => out.push((top.to_owned(), vec![inner])),
                }
            }
        }
    }
    for (name, list) in out {
        files.push((name, crate::store::tree_artifact(&list)?));
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Some(files))
}

/// Everything that a look at `node` will ask for: to be prefetched together.
pub(super) fn looks<'a>(project: &'a Project, node: &'a Node) -> impl Iterator<Item = Look> + 'a {
    use crate::graph::Item;
    let look = |path: &str, tree| Look { path: project.root.join(path), tree };
    let outputs =
        node.outputs.iter().filter(|output| !output.append).map(move |output| look(&output.path, true));
    let inputs = node.inputs.iter().flat_map(|input| &input.items).filter_map(move |item| match item {
        // what counts of a directory depends on who asks
        Item::Source { path, inside } if inside.is_empty() => Some(look(path, false)),
        _ => None,
    });
    outputs.chain(inputs)
}
