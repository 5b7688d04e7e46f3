//! Targets: which nodes a run is about, and which of them were asked for by name. Unaware of what will run.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher};

use super::node::{Graph, NodeIx};
use super::node_set::NodeSet;
use super::pattern::normal;
use crate::base::suggest;
use crate::error::{Error, Result};

/// A selection of nodes.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Asked for: their outputs are brought into place.
    pub targets: NodeSet,
    /// Targets and everything they need.
    pub nodes: NodeSet,
}

/// All nodes, all of them targets.
pub fn select_all(graph: &Graph) -> Selection {
    let all = NodeSet::all(graph.nodes.len());
    Selection { targets: all.clone(), nodes: all }
}

/// Resolves targets: exact node id, step id, output path, then pattern; `+T` makes targets of what it needs, too, `T+` of what needs it.
pub fn select(graph: &Graph, targets: &[String]) -> Result<Selection> {
    if targets.is_empty() {
        return Ok(select_all(graph));
    }
    let mut asked = NodeSet::default();
    for target in targets {
        let (text, up) = target.strip_prefix('+').map_or((target.as_str(), false), |rest| (rest, true));
        let (text, down) = text.strip_suffix('+').map_or((text, false), |rest| (rest, true));
        let found = one(graph, text)?;
        if up {
            asked.extend(closure(graph, &found, true).iter());
        }
        if down {
            asked.extend(closure(graph, &found, false).iter());
        }
        asked.extend(found.iter());
    }
    let nodes = closure(graph, &asked, true);
    Ok(Selection { targets: asked, nodes })
}

/// Nodes that a target text means.
pub fn one(graph: &Graph, text: &str) -> Result<NodeSet> {
    if let Some(ix) = graph.by_id.get(text) {
        return Ok([*ix].into_iter().collect());
    }
    let of_step = |name: &dyn Fn(&str) -> bool| -> NodeSet {
        graph.nodes.iter().enumerate().filter(|(_, node)| name(&node.step)).map(|(ix, _)| ix).collect()
    };
    let step = of_step(&|step| step == text);
    if !step.is_empty() {
        return Ok(step);
    }
    if let Some(made) = graph.made_by.get(&normal(text)) {
        return Ok(made.iter().map(|(ix, _)| *ix).collect());
    }
    let matcher = matcher(text)?;
    let found: NodeSet = graph
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| {
            matcher.is_match(&node.id)
                || matcher.is_match(&node.step)
                || node.outputs.iter().any(|output| matcher.is_match(&output.path))
        })
        .map(|(ix, _)| ix)
        .collect();
    if found.is_empty() {
        let known =
            |node: &'_ super::Node| if text.contains('[') { node.id.clone() } else { node.step.clone() };
        let known: BTreeSet<String> = graph.nodes.iter().map(known).collect();
        let mut error = Error::usage(format!("no node, step or output matches '{text}'"));
        // of an included workflow
        let last = |step: &&String| step.rsplit('.').next() == Some(text);
        if let Some(step) = known.iter().find(last) {
            error = error.hint(format!("did you mean '{step}'?"));
        } else if let Some(hint) = suggest::hint(text, known.iter().map(String::as_str)) {
            error = error.hint(hint);
        }
        return Err(error.hint("flow ls FILE lists nodes and outputs"));
    }
    Ok(found)
}

/// A pattern over ids: `*` and `?` match anything, braces choose, brackets are literal.
pub fn matcher(text: &str) -> Result<GlobMatcher> {
    let escaped: String =
        text.chars().flat_map(|c| if matches!(c, '[' | ']') { vec!['\\', c] } else { vec![c] }).collect();
    GlobBuilder::new(&escaped)
        .literal_separator(false)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|e| Error::usage(format!("'{text}' is not a pattern: {}", e.kind())))
}

fn closure(graph: &Graph, from: &NodeSet, up: bool) -> NodeSet {
    let mut seen = from.clone();
    let mut stack: Vec<NodeIx> = from.iter().collect();
    while let Some(ix) = stack.pop() {
        let next: Vec<NodeIx> =
            if up { graph.dependencies(ix).collect() } else { graph.dependents(ix).collect() };
        for other in next {
            if seen.insert(other) {
                stack.push(other);
            }
        }
    }
    seen
}
