//! What a run would do, without doing it: one pass over the graph, probes aside nothing is started.

use serde::Serialize;

use super::adopt::undecided;
use super::evaluate::{Keyed, Verdict, artifacts_of, evaluate, looks};
use super::facts::{FactFinder, Outputs};
use super::options::RunOptions;
use super::project::Project;
use crate::error::Result;
use crate::graph::{Item, Node, NodeIx, Output, Selection, select};
use crate::key::{Change, Reason};
use crate::model::Artifact;

/// What would become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanStatus {
    /// Outputs in place, nothing to do.
    Fresh,
    /// A hit whose bytes nobody asks for.
    Cached,
    /// Outputs would be brought from the cache.
    WouldRestore,
    /// The stage would be asked whether its result stands.
    WouldCheck,
    /// What is there would be recorded as its result.
    WouldAdopt,
    /// It would run.
    WouldRun,
    /// It depends on bytes that are not made yet.
    MayRun,
    /// An input it takes is absent.
    Absent,
    /// It would fail before it starts.
    WouldFail,
}

impl PlanStatus {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Cached => "cached",
            Self::WouldRestore => "would_restore",
            Self::WouldCheck => "would_check",
            Self::WouldAdopt => "would_adopt",
            Self::WouldRun => "would_run",
            Self::MayRun => "may_run",
            Self::Absent => "absent",
            Self::WouldFail => "would_fail",
        }
    }
}

/// One node of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedNode {
    /// Node id.
    pub id: String,
    /// What would become of it.
    pub status: PlanStatus,
    /// Why.
    pub reason: Option<String>,
    /// `b3:...`, where it is known already.
    pub key: Option<String>,
    /// The step's line of documentation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub doc: String,
}

/// What the pass knows of a node.
#[derive(Default)]
pub(super) struct Foreseen {
    pub(super) status: Option<PlanStatus>,
    pub(super) reason: Option<String>,
    pub(super) artifacts: Option<Vec<Artifact>>,
    pub(super) keyed: Option<Keyed>,
    /// What differs from the last success, if that is why it would run.
    pub(super) changes: Vec<Change>,
}

impl Outputs for Vec<Foreseen> {
    fn artifacts(&self, node: NodeIx) -> Option<&[Artifact]> {
        self[node].artifacts.as_deref()
    }
}

impl Foreseen {
    fn decided(&mut self, status: PlanStatus, keyed: Keyed, reason: Reason) {
        self.status = Some(status);
        self.reason = Some(reason.to_string());
        self.keyed = Some(keyed);
        if let Reason::Changed(changes) = reason {
            self.changes = changes;
        }
    }
}

/// What lies in the places of a node's outputs; `None` if one is missing, or cannot be told from what others put there.
fn there(project: &Project, finder: &FactFinder, node: &Node) -> Option<Vec<Artifact>> {
    let look = |output: &Output| {
        let found = finder.content(project, &project.root.join(&output.path)).ok()?;
        match found {
            _ if output.append => None,
            Some(content) => Some(content.artifact.clone()),
            None => output.optional.then_some(Artifact::Absent),
        }
    };
    node.outputs.iter().map(look).collect()
}

/// Plans the selected nodes, in topological order.
pub fn plan(project: &Project, options: &RunOptions) -> Result<Vec<PlannedNode>> {
    let selection = select(&project.graph, &options.targets)?;
    let foreseen = foresee(project, options, &selection);
    let nodes = project.graph.ordered(&selection.nodes);
    Ok(nodes
        .map(|ix| {
            let node = &project.graph.nodes[ix];
            let seen = &foreseen[ix];
            PlannedNode {
                id: node.id.clone(),
                status: seen.status.unwrap_or(PlanStatus::MayRun),
                reason: seen.reason.clone(),
                key: seen.keyed.as_ref().map(|keyed| keyed.key.to_string()),
                doc: node.doc.clone(),
            }
        })
        .collect())
}

/// The pass itself.
pub(super) fn foresee(project: &Project, options: &RunOptions, selection: &Selection) -> Vec<Foreseen> {
    let finder = FactFinder::default();
    let nodes = || selection.nodes.iter().map(|ix| &project.graph.nodes[ix]);
    finder.ask_probes(project, nodes());
    finder.prefetch(project, nodes().flat_map(|node| looks(project, node)));
    let wanted = super::run::wanted(project, options, selection);
    let mut out: Vec<Foreseen> = (0..project.graph.nodes.len()).map(|_| Foreseen::default()).collect();
    for ix in project.graph.ordered(&selection.nodes) {
        let node = &project.graph.nodes[ix];
        let unmade = |p: &&NodeIx| {
            let undone = matches!(
                out[**p].status,
                Some(PlanStatus::WouldRun | PlanStatus::MayRun | PlanStatus::WouldFail)
            );
            undone || (out[**p].status == Some(PlanStatus::WouldAdopt) && out[**p].artifacts.is_none())
        };
        if let Some(producer) = node.feeders().find(|p| unmade(&p)) {
            let verb = match out[producer].status {
                Some(PlanStatus::WouldRun) => "would run",
                Some(PlanStatus::WouldFail) => "would fail",
                Some(PlanStatus::WouldAdopt) => "would be adopted",
                _ => "may run",
            };
            out[ix].status = Some(PlanStatus::MayRun);
            out[ix].reason = Some(format!("{} {verb}", project.graph.nodes[producer].id));
            continue;
        }
        // what lies in a directory is known once all of it is there
        let away = |p: &&NodeIx| {
            use PlanStatus::{Cached, WouldCheck, WouldRestore};
            matches!(out[**p].status, Some(WouldRestore | WouldCheck | Cached))
        };
        let inside = node.inputs.iter().flat_map(|input| &input.items).find_map(|item| match item {
            Item::Source { inside, .. } => inside.iter().find(away),
            _ => None,
        });
        if let Some(producer) = inside {
            out[ix].status = Some(PlanStatus::MayRun);
            out[ix].reason = Some(format!("{} is not in place", project.graph.nodes[*producer].id));
            continue;
        }
        let mut seen = Foreseen::default();
        match evaluate(project, &finder, options, node, &out) {
            Verdict::Absent => {
                seen.status = Some(PlanStatus::Absent);
                seen.reason = Some("an input it takes is absent".to_owned());
                seen.artifacts = Some(vec![Artifact::Absent; node.outputs.len()]);
            }
            Verdict::Hit { keyed, record, differing, .. } => {
                seen.artifacts = Some(artifacts_of(&record, node));
                seen.reason = differing.first().map(|(_, reason)| reason.to_string());
                seen.status = Some(match (differing.is_empty(), wanted.contains(ix)) {
                    (true, _) => PlanStatus::Fresh,
                    (false, true) => PlanStatus::WouldRestore,
                    (false, false) => PlanStatus::Cached,
                });
                seen.keyed = Some(keyed);
            }
            Verdict::Check { keyed, record } => {
                seen.artifacts = Some(artifacts_of(&record, node));
                seen.status = Some(PlanStatus::WouldCheck);
                seen.keyed = Some(keyed);
            }
            Verdict::Run { keyed, reason } => seen.decided(PlanStatus::WouldRun, keyed, reason),
            Verdict::Adopt { keyed, reason } => {
                seen.artifacts = there(project, &finder, node);
                seen.decided(PlanStatus::WouldAdopt, keyed, reason);
            }
            Verdict::Undecided { keyed, reason } => {
                let error = undecided(node, &reason.to_string());
                seen.decided(PlanStatus::WouldFail, keyed, reason);
                seen.reason = Some(error.message);
            }
            Verdict::Bytes(producer) => {
                seen.status = Some(PlanStatus::MayRun);
                let id = &project.graph.nodes[producer].id;
                seen.reason = Some(format!("the cache has lost what {id} made"));
            }
            Verdict::Fault(error) => {
                seen.status = Some(PlanStatus::WouldFail);
                seen.reason = Some(error.message);
            }
        }
        out[ix] = seen;
    }
    out
}
