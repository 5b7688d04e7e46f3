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
    let mut running: BTreeSet<usize> = BTreeSet::new();
    let mut ended: BTreeMap<usize, &str> = BTreeMap::new();
    for event in events {
        match event["event"].as_str() {
            Some("node_started") => {
                let id = event["node"].as_str().unwrap_or_default();
                let node = *index.get(id).ok_or_else(|| format!("{id} started, and is no node"))?;
                let it = &graph.nodes[node];
                for other in it.producers.union(&it.needs) {
                    let end = ended.get(other).copied().unwrap_or("not ended");
                    let allowed = graph.nodes[*other].step.allow_failure && !it.producers.contains(other);
                    let well = ["fresh", "restored", "cached", "ran", "absent"].contains(&end);
                    // a cached node is reported once it is known that nobody asks for its bytes
                    if !well && end != "not ended" && !(allowed && end == "failed") {
                        return Err(format!("{id} started after {} {end}", graph.nodes[*other].id));
                    }
                    if running.contains(other) {
                        return Err(format!(
                            "{id} started beside {}, which it needs",
                            graph.nodes[*other].id
                        ));
                    }
                }
                running.insert(node);
                let with = |what: &dyn Fn(usize) -> bool| running.iter().filter(|node| what(**node)).count();
                let pool = with(&|node| graph.nodes[node].step.pool);
                let exclusive = with(&|node| graph.nodes[node].step.exclusive);
                if running.len() > jobs || pool > POOL as usize || (exclusive > 0 && running.len() > 1) {
                    let ids: Vec<&str> = running.iter().map(|node| graph.nodes[*node].id.as_str()).collect();
                    return Err(format!("with -j {jobs} these ran at once: {ids:?}"));
                }
            }
            Some("node_finished") => {
                let id = event["id"].as_str().unwrap_or_default();
                let node = *index.get(id).ok_or_else(|| format!("{id} ended, and is no node"))?;
                running.remove(&node);
                let outcome = event["outcome"].as_str().unwrap_or_default();
                if let Some(before) = ended.insert(node, outcome) {
                    return Err(format!("{id} ended twice: {before}, then {outcome}"));
                }
            }
            _ => {}
        }
    }
    if finished && !running.is_empty() {
        return Err(format!("the run ended, and {running:?} did not"));
    }
    Ok(())
}

/// Nodes that the stream says have run.
pub fn ran(events: &[Value]) -> BTreeSet<String> {
    let finished =
        events.iter().filter(|event| event["event"] == "node_finished" && event["outcome"] == "ran");
    finished.filter_map(|event| Some(event["id"].as_str()?.to_owned())).collect()
}
