//! A graph as JSON: every node, whatever their number. Unaware of the other forms.

use serde_json::{Map, Value, json};

use super::{Graph, NodeAction, ServiceAction, services};
use crate::graph::{Arg, ShellPart};

/// `{"workflow", "nodes": [{id, step, stage | command, inputs, outputs, needs?, services?, doc?}], "edges": [[from, to]], "services":
/// [{id, simulator | command}]}`. What is only known while running stands as its reference, a secret as its name.
pub fn json(graph: &Graph) -> Value {
    let mut edges = Vec::new();
    let mut nodes = Vec::new();
    for (ix, node) in graph.nodes.iter().enumerate() {
        let mut from: Vec<usize> = graph.dependencies(ix).collect();
        from.sort_unstable();
        from.dedup();
        edges.extend(from.into_iter().map(|from| json!([graph.nodes[from].id, node.id])));
        let mut one = Map::new();
        one.insert("id".to_owned(), json!(node.id));
        one.insert("step".to_owned(), json!(node.step));
        add_action(&mut one, &node.action);
        let inputs = node.inputs.iter().map(|input| {
            let paths: Vec<String> = input.items.iter().map(|item| graph.item_path(item)).collect();
            (input.name.clone(), json!(paths))
        });
        one.insert("inputs".to_owned(), Value::Object(inputs.collect()));
        let outputs = node.outputs.iter().map(|output| {
            let slash = if output.dir { "/" } else { "" };
            (output.name.clone(), json!(format!("{}{slash}", output.path)))
        });
        one.insert("outputs".to_owned(), Value::Object(outputs.collect()));
        if !node.needs.is_empty() {
            let needs: Vec<&str> = node.needs.iter().map(|ix| graph.nodes[*ix].id.as_str()).collect();
            one.insert("needs".to_owned(), json!(needs));
        }
        if !node.services.is_empty() {
            one.insert("services".to_owned(), json!(services(graph, node)));
        }
        if !node.doc.is_empty() {
            one.insert("doc".to_owned(), json!(node.doc));
        }
        nodes.push(Value::Object(one));
    }
    let services: Vec<Value> = graph
        .services
        .iter()
        .map(|service| {
            let mut one = Map::new();
            one.insert("id".to_owned(), json!(service.id));
            match &service.action {
                ServiceAction::Simulator { name, .. } => {
                    one.insert("simulator".to_owned(), json!(name));
                }
                ServiceAction::Command(action) => add_action(&mut one, action),
            }
            Value::Object(one)
        })
        .collect();
    json!({"workflow": graph.name, "nodes": nodes, "edges": edges, "services": services})
}

/// `stage`, or `command` as argument list or shell text.
fn add_action(one: &mut Map<String, Value>, action: &NodeAction) {
    match action {
        NodeAction::Stage { name, .. } => one.insert("stage".to_owned(), json!(name)),
        NodeAction::Argv { args, .. } => {
            let args: Vec<String> = args.iter().map(Arg::identity).collect();
            one.insert("command".to_owned(), json!(args))
        }
        NodeAction::Shell { parts, .. } => {
            let text: String = parts.iter().map(ShellPart::identity).collect();
            one.insert("command".to_owned(), json!(text))
        }
    };
}
