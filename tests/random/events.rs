//! What the event stream of any run has to obey, finished or not. Unaware of contents.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::dag::POOL;
use crate::graph::Graph;

/// Nothing starts before all it needs ended well, nor beside more than the slots, the pool or an exclusive node allow; every node
/// ends once.
pub fn check(graph: &Graph, events: &[Value], jobs: usize, finished: bool) -> Result<(), String> {
    let index: BTreeMap<&str, usize> =
        graph.nodes.iter().enumerate().map(|(index, node)| (node.id.as_str(), index)).collect();
    let node_of = |id: &Value| {
        let id = id.as_str().unwrap_or_default();
        index.get(id).copied().ok_or_else(|| format!("{id} is told, and is no node"))
    };
    let mut running: BTreeSet<usize> = BTreeSet::new();
    let mut ended: BTreeMap<usize, &str> = BTreeMap::new();
    // seconds of the run in which each was at work; what comes after, its commit, takes no slot
    let mut spans: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for event in events {
        match event["event"].as_str() {
            Some("node_started") => {
                let node = node_of(&event["node"])?;
                let it = &graph.nodes[node];
                for other in it.producers.union(&it.needs) {
                    if running.contains(other) {
                        return Err(format!(
                            "{} started beside {}, which it needs",
                            it.id, graph.nodes[*other].id
                        ));
                    }
                    // a cached node is reported once it is known that nobody asks for its bytes
                    let Some(end) = ended.get(other) else { continue };
                    let allowed = graph.nodes[*other].step.allow_failure && !it.producers.contains(other);
                    let well = ["fresh", "restored", "cached", "ran", "absent"].contains(end);
                    if !(well || allowed && *end == "failed") {
                        return Err(format!("{} started after {} {end}", it.id, graph.nodes[*other].id));
                    }
                }
                running.insert(node);
                let began = event["begin"]["began"].as_f64().or(event["t"].as_f64());
                spans.insert(node, (began.unwrap_or_default(), f64::INFINITY));
            }
            Some("node_finished") => {
                let node = node_of(&event["id"])?;
                running.remove(&node);
                let outcome = event["outcome"].as_str().unwrap_or_default();
                if let Some(before) = ended.insert(node, outcome) {
                    return Err(format!("{} ended twice: {before}, then {outcome}", graph.nodes[node].id));
                }
                if let Some((began, end)) = spans.get_mut(&node) {
                    let worked = event["timing"]["execute"].as_f64().map(|seconds| *began + seconds);
                    *end = worked.or(event["t"].as_f64()).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    if finished && !running.is_empty() {
        return Err(format!("the run ended, and {running:?} did not"));
    }
    // of what was at work when the run was broken off nobody knows until when
    spans.retain(|_, (_, end)| end.is_finite());
    for (began, _) in spans.values() {
        let at_work = |node: &&usize| (spans[*node].0..spans[*node].1).contains(began);
        let beside: Vec<usize> = spans.keys().filter(at_work).copied().collect();
        let with = |what: &dyn Fn(usize) -> bool| beside.iter().filter(|node| what(**node)).count();
        let pool = with(&|node| graph.nodes[node].step.pool);
        let exclusive = with(&|node| graph.nodes[node].step.exclusive);
        if beside.len() > jobs || pool > POOL as usize || (exclusive > 0 && beside.len() > 1) {
            let ids: Vec<&str> = beside.iter().map(|node| graph.nodes[*node].id.as_str()).collect();
            return Err(format!("with -j {jobs} these ran at once: {ids:?}"));
        }
    }
    Ok(())
}

/// Nodes that the stream says have run.
pub fn ran(events: &[Value]) -> BTreeSet<String> {
    let finished =
        events.iter().filter(|event| event["event"] == "node_finished" && event["outcome"] == "ran");
    finished.filter_map(|event| Some(event["id"].as_str()?.to_owned())).collect()
}
