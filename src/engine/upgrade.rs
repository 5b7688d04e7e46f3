//! The note after an upgrade: which nodes run only because flow, or one of its stages, is another version. Unaware of what they do.

use std::collections::{BTreeMap, BTreeSet};

use super::options::RunOptions;
use super::plan::{Foreseen, PlanStatus, foresee};
use super::project::Project;
use crate::error::Result;
use crate::graph::{NodeAction, NodeIx, Selection, select};
use crate::key::{self, Change, Components};

/// Components of a manifest that only flow itself changes.
const OURS: [&str; 2] = ["format", "stage version"];

/// Whether nothing but the version of flow or of the stage differs.
pub(super) fn only_versions(changes: &[Change]) -> bool {
    !changes.is_empty() && changes.iter().all(|change| OURS.contains(&change.component.as_str()))
}

/// What decides whether nodes run again after an upgrade: flow's version, the key format, the versions of the stages.
fn versions(project: &Project) -> BTreeMap<String, String> {
    let ours = [("flow", env!("CARGO_PKG_VERSION").to_owned()), ("key format", key::FORMAT.to_owned())];
    let stages = project.catalog.stages().map(|stage| (stage.name(), stage.version().to_string()));
    ours.into_iter().chain(stages).map(|(name, version)| (name.to_owned(), version)).collect()
}

/// The line to say before anything starts, if nodes run only because of an upgrade. The workspace's state knows the versions of the
/// last run that left nothing behind; while they are the same, nothing else is looked at.
pub(super) fn upgrade_note(project: &Project, options: &RunOptions, selection: &Selection) -> Option<String> {
    // few of many rows are read: this flow has looked at all of them before
    if project.workspace.is_sparse() {
        return None;
    }
    let then = project.workspace.versions(project.root_file());
    if then.as_ref() == Some(&versions(project)) || !project.workspace.has_nodes(project.root_file()) {
        return None;
    }
    let foreseen = foresee(project, options, selection);
    let (mut runs, mut samples) = (0, 0);
    let mut causes: BTreeSet<String> = BTreeSet::new();
    let mut upgraded = vec![false; project.graph.nodes.len()];
    for ix in project.graph.ordered(&selection.nodes) {
        let changes = changes(project, &foreseen, &upgraded, ix);
        if !only_versions(&changes) {
            continue;
        }
        upgraded[ix] = true;
        match foreseen[ix].status {
            Some(PlanStatus::WouldFail) => samples += 1,
            Some(PlanStatus::WouldAdopt) => continue,
            _ => runs += 1,
        }
        causes.extend(changes.iter().map(|change| cause(project, ix, change)));
    }
    if runs + samples == 0 {
        return None;
    }
    let version = env!("CARGO_PKG_VERSION");
    let was = then.and_then(|mut then| then.remove("flow")).filter(|then| then != version);
    let was = was.map_or_else(String::new, |was| format!(" (was {was})"));
    let causes: Vec<String> = causes.into_iter().collect();
    let mut parts = Vec::new();
    if runs > 0 {
        let (nodes, run) = if runs == 1 { ("node", "runs") } else { ("nodes", "run") };
        parts.push(format!("{runs} {nodes} {run} again only because of that"));
    }
    if samples > 0 {
        let (nodes, need) = if samples == 1 { ("measurement", "needs") } else { ("measurements", "need") };
        parts.push(format!("{samples} {nodes} {need} --adopt or --remeasure"));
    }
    Some(format!("flow {version}{was}: {}: {}", causes.join(", "), parts.join(", ")))
}

/// The same for the targets of `options`.
pub fn upgrade_note_for(project: &Project, options: &RunOptions) -> Result<Option<String>> {
    Ok(upgrade_note(project, options, &select(&project.graph, &options.targets)?))
}

/// What is known to differ from the node's last success; empty if nothing, or if it does not run.
fn changes(project: &Project, foreseen: &[Foreseen], upgraded: &[bool], ix: NodeIx) -> Vec<Change> {
    let node = &project.graph.nodes[ix];
    let seen = &foreseen[ix];
    match seen.status {
        Some(PlanStatus::WouldRun | PlanStatus::WouldFail | PlanStatus::WouldAdopt) => seen.changes.clone(),
        // its inputs are not known yet; if they wait for nothing but upgraded nodes, its own version still decides
        Some(PlanStatus::MayRun) => {
            let unmade = |p: &&NodeIx| {
                matches!(
                    foreseen[**p].status,
                    Some(PlanStatus::WouldRun | PlanStatus::MayRun | PlanStatus::WouldFail)
                )
            };
            if !node.producers.iter().filter(unmade).all(|p| upgraded[*p]) {
                return Vec::new();
            }
            let Some(row) = project.workspace.node(project.root_file(), &node.id) else { return Vec::new() };
            let mut now = Components::new();
            key::walk(&project.graph, node, None, &mut now);
            let ours = |all: &Components| -> Components {
                all.iter().filter(|(name, _)| OURS.contains(&name.as_str())).cloned().collect()
            };
            key::changes(&ours(&row.manifest), &ours(&now))
        }
        _ => Vec::new(),
    }
}

/// `stage csv.join 2 -> 3`, `key format 1 -> 2`.
fn cause(project: &Project, ix: NodeIx, change: &Change) -> String {
    let what = match (&project.graph.nodes[ix].action, change.component.as_str()) {
        (NodeAction::Stage { name, .. }, "stage version") => format!("stage {name}"),
        _ => "key format".to_owned(),
    };
    let text = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
    format!("{what} {} -> {}", text(&change.old), text(&change.new))
}

/// Notes the versions of now once no result of another one is left: after a whole run that ended well, or if there were none.
pub(super) fn settle(project: &Project, whole: bool) {
    if project.workspace.is_sparse() {
        return;
    }
    let now = versions(project);
    let fresh = !project.workspace.has_nodes(project.root_file());
    if (whole || fresh) && project.workspace.versions(project.root_file()).as_ref() != Some(&now) {
        project.workspace.put_versions(project.root_file(), now);
    }
}
