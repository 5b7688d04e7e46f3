//! A graph as a Mermaid flowchart, for Markdown. Unaware of the other forms.

use super::{ArrowKind, Graph, Picture};

/// A flowchart from left to right; steps as boxes, services as rounded ones.
pub fn mermaid(graph: &Graph) -> String {
    let picture = Picture::of(graph);
    let mut out = String::from("flowchart LR\n");
    for (ix, one) in picture.boxes.iter().enumerate() {
        let (open, close) = if one.is_service() { ("([", "])") } else { ("[", "]") };
        let action =
            if one.action.is_empty() { String::new() } else { format!("<br/>{}", escaped(&one.action)) };
        out.push_str(&format!("  n{ix}{open}\"{}{action}\"{close}\n", escaped(&one.title())));
    }
    for arrow in &picture.arrows {
        let line = match arrow.kind {
            ArrowKind::Data => "-->",
            ArrowKind::Order => "-.->",
            ArrowKind::Service => "---",
        };
        out.push_str(&format!("  n{} {line} n{}\n", arrow.from, arrow.to));
    }
    out
}

/// Everything that means something in a label, as an entity code.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | '`' | '\\' | ';' | '*' | '_' | '~' | '\n' => {
                out.push_str(&format!("#{};", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}
