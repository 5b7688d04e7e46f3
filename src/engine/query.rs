//! Questions about a workflow and its workspace: what is there, what is left over, why a file or a key is what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::adopt::adopted_in;
use super::evaluate::differing;
use super::facts::{FactFinder, shown};
use super::options::RunOptions;
use super::ours::{covered, left_of, made_below};
use super::plan::{PlanStatus, foresee};
use super::project::Project;
use crate::base::digest::Digest;
use crate::base::{files, suggest};
use crate::error::{Error, Result};
use crate::graph::{Item, Node, NodeIx, Selection, select};
use crate::key::{self, Change, Hash, Visitor};

/// One node with its outputs.
#[derive(Clone, Debug, Serialize)]
pub struct NodeListing {
    /// Node id.
    pub id: String,
    /// Output name and path; a directory's path ends with a slash.
    pub outputs: Vec<(String, String)>,
    /// Its last result was not made by it but adopted.
    pub adopted: bool,
}

/// A node's key, now and at its last success.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Node id.
    pub node: String,
    /// What would become of it now.
    pub status: &'static str,
    /// Why.
    pub reason: Option<String>,
    /// The key now; `None` while something it takes is not made.
    pub key: Option<String>,
    /// The key of the last success.
    pub last_key: Option<String>,
    /// Run of the last success.
    pub last_run: Option<String>,
    /// Run in which the result of the last success was adopted: it was not made by this node.
    pub adopted: Option<String>,
    /// Components of the key now (of the last success, if there is none now).
    pub components: Vec<(String, String)>,
    /// Components that differ from the last success.
    pub changes: Vec<(String, Option<String>, Option<String>)>,
    /// The same in words.
    pub changed: Vec<String>,
    /// Outputs that are not in place, in words.
    pub outputs: Vec<String>,
}

/// Where a file comes from.
#[derive(Clone, Debug, Serialize)]
pub struct Why {
    /// The path asked for.
    pub path: String,
    /// The node that makes it.
    pub node: Option<String>,
    /// Name of its output.
    pub output: Option<String>,
    /// Run that last made it here.
    pub run: Option<String>,
    /// What the node takes: input name and paths.
    pub inputs: BTreeMap<String, Vec<String>>,
    /// Nodes that take it.
    pub taken_by: Vec<String>,
    /// What the node's depfile named at its last success.
    pub discovered: Vec<String>,
    /// Nodes whose depfile named it at their last success.
    pub read_by: Vec<String>,
    /// An orphan: made by an earlier run, declared by no node now.
    pub orphan: bool,
}

/// All nodes with their outputs, in declared order.
pub fn list(project: &Project) -> Vec<NodeListing> {
    let nodes = project.graph.nodes.iter();
    nodes
        .map(|node| NodeListing {
            id: node.id.clone(),
            adopted: adopted_now(project, node).is_some(),
            outputs: node
                .outputs
                .iter()
                .map(|o| (o.name.clone(), if o.dir { format!("{}/", o.path) } else { o.path.clone() }))
                .collect(),
        })
        .collect()
}

/// The run in which a node's last result was adopted, if it was.
fn adopted_now(project: &Project, node: &Node) -> Option<String> {
    let row = project.workspace.node_summary(project.root_file(), &node.id)?;
    let record = project.store.result(&row.key).ok().flatten()?;
    adopted_in(&record).map(str::to_owned)
}

/// Files that earlier runs of this workflow published, that no node declares now and no other workflow claims.
pub fn orphans(project: &Project) -> Vec<String> {
    let rows = project.workspace.published();
    let mine = project.root_file();
    let others: BTreeSet<&str> =
        rows.iter().filter(|row| row.workflow != mine).map(|row| row.path.as_str()).collect();
    let made = &project.graph.made_by;
    let sorted = std::cell::OnceCell::new();
    let mut orphans = BTreeSet::new();
    for row in rows.iter().filter(|row| row.workflow == mine && !row.append) {
        let path = row.path.as_str();
        if others.contains(path) || covered(path, |at| made.contains_key(at)) {
            continue;
        }
        let place = project.root.join(path);
        if std::fs::symlink_metadata(&place).is_err() {
            continue;
        }
        // a directory in which nodes make files now; a file there is what is left of an earlier workflow, and in their way
        let sorted = sorted.get_or_init(|| made.keys().map(String::as_str).collect());
        if place.is_dir() && made_below(sorted, path) {
            let left = left_of(project, row, true).unwrap_or_default().into_iter();
            orphans.extend(left.filter(|path| !covered(path, |at| others.contains(at))));
        } else {
            orphans.insert(row.path.clone());
        }
    }
    orphans.into_iter().collect()
}

/// Directories that earlier runs of this workflow published, in the places of which nodes make single outputs now, and of which nothing
/// else is left.
pub(super) fn used_up(project: &Project) -> Vec<String> {
    let made: BTreeSet<&str> = project.graph.made_by.keys().map(String::as_str).collect();
    let mine = project.root_file();
    let rows = project.workspace.published().into_iter();
    rows.filter(|row| row.workflow == mine && !row.append)
        .filter(|row| !covered(&row.path, |at| project.graph.made_by.contains_key(at)))
        .filter(|row| made_below(&made, &row.path))
        .filter(|row| left_of(project, row, false).is_some_and(|left| left.is_empty()))
        .map(|row| row.path)
        .collect()
}

/// The one node that `text` means.
pub(super) fn node_named(project: &Project, text: &str) -> Result<NodeIx> {
    if let Some(ix) = project.graph.by_id.get(text) {
        return Ok(*ix);
    }
    let found = crate::graph::one(&project.graph, text)?;
    let mut found = found.iter();
    match (found.next(), found.next()) {
        (Some(ix), None) => Ok(ix),
        _ => {
            let ids: Vec<&str> = project
                .graph
                .nodes
                .iter()
                .filter(|node| node.step == text)
                .map(|node| node.id.as_str())
                .take(3)
                .collect();
            Err(Error::usage(format!("'{text}' means several nodes"))
                .hint(format!("name one of them, e.g. '{}'", ids.first().copied().unwrap_or(text))))
        }
    }
}

/// Explains a node's key.
pub fn explain(project: &Project, text: &str) -> Result<Explanation> {
    let ix = node_named(project, text)?;
    let node = &project.graph.nodes[ix];
    let options = RunOptions { targets: vec![node.id.clone()], ..RunOptions::default() };
    let selection = select(&project.graph, &options.targets)?;
    let foreseen = foresee(project, &options, &selection);
    let seen = &foreseen[ix];
    let last = project.workspace.node(project.root_file(), &node.id);
    let now = seen.keyed.as_ref().map(|keyed| keyed.manifest.clone());
    let changes: Vec<Change> = match (&last, &now) {
        (Some(last), Some(now)) => key::changes(&last.manifest, now),
        _ => Vec::new(),
    };
    let mut outputs = Vec::new();
    if let Some(record) =
        seen.keyed.as_ref().and_then(|keyed| project.store.result(&keyed.key).ok().flatten())
    {
        for (_, reason) in differing(project, &FactFinder::default(), node, &record)? {
            outputs.push(reason.to_string());
        }
    }
    Ok(Explanation {
        node: node.id.clone(),
        status: seen.status.unwrap_or(PlanStatus::MayRun).as_str(),
        reason: seen.reason.clone(),
        key: seen.keyed.as_ref().map(|keyed| keyed.key.to_string()),
        last_key: last.as_ref().map(|row| row.key.to_string()),
        last_run: last.as_ref().map(|row| row.run.clone()),
        adopted: adopted_now(project, node),
        components: now.or_else(|| last.as_ref().map(|row| row.manifest.clone())).unwrap_or_default(),
        changed: changes.iter().map(ToString::to_string).collect(),
        changes: changes.into_iter().map(|c| (c.component, c.old, c.new)).collect(),
        outputs,
    })
}

/// Explains where a file comes from. `path` is relative to the root, or absolute.
pub fn why(project: &Project, path: &Path) -> Result<Why> {
    let inside = files::normalize(path.strip_prefix(&project.root).unwrap_or(path));
    let text = inside.to_string_lossy().into_owned();
    let graph = &project.graph;
    let maker = graph.made_by.get(&text).and_then(|made| made.first().copied()).or_else(|| {
        graph.nodes.iter().enumerate().find_map(|(ix, node)| {
            let within = |dir: &str| text.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
            node.outputs.iter().position(|output| output.dir && within(&output.path)).map(|o| (ix, o))
        })
    });
    let taken_by: Vec<String> = graph
        .nodes
        .iter()
        .filter(|node| node.inputs.iter().flat_map(|i| &i.items).any(|item| graph.item_path(item) == text))
        .map(|node| node.id.clone())
        .collect();
    let discovered = |node: &Node| -> Vec<String> {
        let row = node.depfile().and_then(|_| project.workspace.node(project.root_file(), &node.id));
        let names =
            row.iter().flat_map(|row| &row.manifest).filter_map(|(name, _)| key::discovered_path(name));
        names.map(str::to_owned).collect()
    };
    let read_by: Vec<String> = graph
        .nodes
        .iter()
        .filter(|node| discovered(node).contains(&shown(&text)))
        .map(|node| node.id.clone())
        .collect();
    let orphan = orphans(project).contains(&text);
    let published = project.workspace.published();
    // what is left of a directory has no row of its own
    let mut rows = published.iter().rev().filter(|row| row.workflow == project.root_file());
    let row = rows.find(|row| inside.starts_with(&row.path));
    let Some((ix, output)) = maker else {
        if taken_by.is_empty() && read_by.is_empty() && !orphan {
            let known = graph.made_by.keys().map(String::as_str);
            let mut error = Error::usage(format!("no node makes or takes '{text}'"));
            if let Some(name) = suggest::nearest(&text, known) {
                error = error.hint(format!("did you mean '{name}'?"));
            }
            return Err(error.hint("flow ls FILE lists nodes and outputs"));
        }
        return Ok(Why {
            path: text,
            node: row.filter(|_| orphan).map(|row| row.node.clone()),
            output: None,
            run: None,
            inputs: BTreeMap::new(),
            taken_by,
            discovered: Vec::new(),
            read_by,
            orphan,
        });
    };
    let node = &graph.nodes[ix];
    Ok(Why {
        path: text,
        node: Some(node.id.clone()),
        output: Some(node.outputs[output].name.clone()),
        run: project.workspace.node_summary(project.root_file(), &node.id).map(|row| row.run.clone()),
        inputs: node
            .inputs
            .iter()
            .map(|input| (input.name.clone(), input.items.iter().map(|item| graph.item_path(item)).collect()))
            .collect(),
        taken_by,
        discovered: discovered(node),
        read_by,
        orphan,
    })
}

/// One digest for a CI cache key: static manifests and the digests of files that no node makes.
pub fn source_key(project: &Project, targets: &[String]) -> Result<Digest> {
    let Selection { nodes, .. } = select(&project.graph, targets)?;
    let mut hash = Hash::default();
    hash.component("plan", &key::plan_digest(&project.graph, &mut nodes.iter()).to_string());
    let mut sources: BTreeSet<&str> = BTreeSet::new();
    for ix in nodes.iter() {
        for item in project.graph.nodes[ix].inputs.iter().flat_map(|input| &input.items) {
            if let Item::Source { path, .. } = item {
                sources.insert(path);
            }
        }
    }
    let finder = FactFinder::default();
    for path in sources {
        // what this graph makes is no source, wherever it lies
        let made = |name: &str| project.graph.made_by.contains_key(name);
        let content = finder.source(project, &project.root.join(path), &made)?;
        let digest = content.and_then(|content| content.artifact.digest());
        hash.component(path, &digest.map_or_else(|| "missing".to_owned(), |digest| digest.to_string()));
    }
    Ok(hash.digest())
}
