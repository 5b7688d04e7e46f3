//! A graph as lines for a terminal. Unaware of the other forms.

use super::{ArrowKind, Graph, Picture};

/// What there is, and under each step or node what it needs.
pub fn text(graph: &Graph) -> String {
    let picture = Picture::of(graph);
    let name = if graph.name.is_empty() { "the workflow" } else { &graph.name };
    let mut out = format!("{name}: {}\n", picture.size());
    let width =
        picture.boxes.iter().map(|b| b.title().chars().count()).filter(|n| *n <= 60).max().unwrap_or(0);
    for (ix, one) in picture.boxes.iter().enumerate() {
        let kind = if one.is_service() { "service " } else { "" };
        out.push('\n');
        out.push_str(format!("{:<width$}  {kind}{}", one.title(), one.action).trim_end());
        out.push('\n');
        let mut needs: Vec<_> = picture.arrows.iter().filter(|arrow| arrow.to == ix).collect();
        needs.sort_by_key(|arrow| std::cmp::Reverse(arrow.kind));
        for arrow in needs {
            let from = picture.boxes[arrow.from].title();
            out.push_str(&match arrow.kind {
                ArrowKind::Data => format!("  <- {from}\n"),
                ArrowKind::Order => format!("  <- {from} (order only)\n"),
                ArrowKind::Service => format!("  <- {from} (service)\n"),
            });
        }
    }
    out
}
