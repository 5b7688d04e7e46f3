//! A graph for Graphviz. Unaware of the other forms.

use super::{ArrowKind, Graph, Picture};

/// A directed graph from left to right; steps as boxes, services as ovals.
pub fn dot(graph: &Graph) -> String {
    let picture = Picture::of(graph);
    let mut out = format!("digraph {} {{\n  rankdir=LR;\n  node [shape=box];\n", quoted(&graph.name));
    for one in &picture.boxes {
        let shape = if one.is_service() { ", shape=oval, style=dashed" } else { "" };
        let label =
            if one.action.is_empty() { one.title() } else { format!("{}\n{}", one.title(), one.action) };
        out.push_str(&format!("  {} [label={}{shape}];\n", quoted(one.id), quoted(&label)));
    }
    for arrow in &picture.arrows {
        let style = match arrow.kind {
            ArrowKind::Data => "",
            ArrowKind::Order => " [style=dotted]",
            ArrowKind::Service => " [style=dashed]",
        };
        let (from, to) = (picture.boxes[arrow.from].id, picture.boxes[arrow.to].id);
        out.push_str(&format!("  {} -> {}{style};\n", quoted(from), quoted(to)));
    }
    out.push_str("}\n");
    out
}

/// A quoted id or label: `\` and `"` escaped, lines as `\n`.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
