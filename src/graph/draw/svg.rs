//! A graph as one SVG file that needs nothing else, for light and dark pages. Unaware of how places are found.

use super::layout::{Sized, layout};
use super::{ArrowKind, Box, Graph, Picture};

/// Width of a letter of the fixed-width font at 12 px.
const LETTER: f64 = 7.3;
const LINE: f64 = 16.0;
const MARGIN: f64 = 20.0;
const HEAD: f64 = 34.0;
/// Longer lines are cut in the middle; the whole text is in the tooltip.
const MOST_LETTERS: usize = 40;

pub(super) const STYLE: &str = "\
:root{color-scheme:light dark}
.back{fill:#fff}
.box,.service{fill:#f3f6fa;stroke:#5b6b80}
.service{fill:#fdf4e3;stroke-dasharray:4 3}
.arrow{fill:none;stroke:#5b6b80;stroke-width:1.2}
.order{stroke-dasharray:1.5 4;stroke-linecap:round}
.uses{stroke-dasharray:5 4}
.head{fill:#5b6b80}
text{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#17202b}
.id{font-weight:600}
text.soft{fill:#5b6b80;font-size:11px}
.title{font-size:14px;font-weight:600}
@media (prefers-color-scheme:dark){
.back{fill:#14181d}
.box,.service{fill:#222a33;stroke:#8b9bb0}
.service{fill:#3a3020}
.arrow{stroke:#8b9bb0}
.head{fill:#8b9bb0}
text{fill:#e8edf3}
text.soft{fill:#9fb0c4}
}";

/// Boxes in layers from left to right, each with its id, number of nodes and stage; dashed: services, dotted: order only.
pub fn svg(graph: &Graph) -> String {
    let picture = Picture::of(graph);
    let labels: Vec<(String, String)> = picture.boxes.iter().map(|one| label(&picture, one)).collect();
    let sized: Vec<Sized> = picture
        .boxes
        .iter()
        .zip(&labels)
        .map(|(one, (id, soft))| {
            let letters = id.chars().count().max(soft.chars().count());
            Sized { layer: one.layer, width: letters as f64 * LETTER + 24.0, height: 2.0 * LINE + 12.0 }
        })
        .collect();
    let ends: Vec<(usize, usize)> = picture.arrows.iter().map(|arrow| (arrow.from, arrow.to)).collect();
    let placed = layout(&sized, &ends);
    let heading = format!("{}: {}", graph.name, picture.size());
    let width = placed.width.max(heading.chars().count() as f64 * 8.6) + 2.0 * MARGIN;
    let height = placed.height + HEAD + 2.0 * MARGIN;
    let (w, h) = (width.ceil(), height.ceil());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\">\n\
         <title>{}</title>\n<style>\n{STYLE}\n</style>\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path class=\"head\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
         <rect class=\"back\" width=\"{w}\" height=\"{h}\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{0}</text>\n\
         <g transform=\"translate({MARGIN} {})\">\n",
        escaped(&heading),
        MARGIN + 14.0,
        MARGIN + HEAD,
    );
    for (arrow, points) in picture.arrows.iter().zip(&placed.arrows) {
        let class = match arrow.kind {
            ArrowKind::Data => "arrow",
            ArrowKind::Order => "arrow order",
            ArrowKind::Service => "arrow uses",
        };
        out.push_str(&format!(
            "<path class=\"{class}\" marker-end=\"url(#head)\" d=\"{}\"/>\n",
            curve(points)
        ));
    }
    for (((one, (id, soft)), size), (x, y)) in
        picture.boxes.iter().zip(&labels).zip(&sized).zip(&placed.boxes)
    {
        let (class, round) = if one.is_service() { ("service", 20) } else { ("box", 4) };
        out.push_str(&format!(
            "<g><title>{}</title><rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{round}\"/>\
             <text class=\"id\" x=\"{}\" y=\"{}\">{}</text><text class=\"soft\" x=\"{5}\" y=\"{}\">{}</text></g>\n",
            escaped(&tooltip(one)),
            short(*x),
            short(*y),
            short(size.width),
            short(size.height),
            short(x + 12.0),
            short(y + LINE + 2.0),
            escaped(id),
            short(y + 2.0 * LINE + 2.0),
            escaped(soft),
        ));
    }
    out.push_str("</g>\n</svg>\n");
    out
}

/// Two lines: step and count, then its axes or what it runs.
fn label(picture: &Picture, one: &Box) -> (String, String) {
    let node = picture.graph.nodes.iter().find(|node| one.count == 1 && node.id == one.id);
    match node {
        Some(node) if !node.axes.is_empty() => {
            let axes: Vec<String> = node.axes.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
            (cut(&node.step), cut(&axes.join(" ")))
        }
        _ => (cut(&one.title()), cut(&one.action)),
    }
}

fn tooltip(one: &Box) -> String {
    let mut text = one.title();
    for more in [one.action.as_str(), one.doc] {
        if !more.is_empty() {
            text.push_str(&format!("\n{more}"));
        }
    }
    text
}

/// Horizontal pieces joined by curves that begin and end horizontally.
fn curve(points: &[(f64, f64)]) -> String {
    let mut out = String::new();
    for (ix, &(x, y)) in points.iter().enumerate() {
        if ix == 0 {
            out.push_str(&format!("M{} {}", short(x), short(y)));
        } else if ix % 2 == 1 {
            out.push_str(&format!("H{}", short(x)));
        } else {
            let (from, before) = points[ix - 1];
            // against the layers only between steps that take of each other
            let bend = if x > from { (x - from) / 2.0 } else { 60.0 };
            out.push_str(&format!(
                "C{} {} {} {} {} {}",
                short(from + bend),
                short(before),
                short(x - bend),
                short(y),
                short(x),
                short(y)
            ));
        }
    }
    out
}

/// At most one digit after the point.
fn short(x: f64) -> f64 {
    // never -0
    (x * 10.0).round() / 10.0 + 0.0
}

fn cut(text: &str) -> String {
    let letters: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if letters.len() <= MOST_LETTERS {
        return letters.into_iter().collect();
    }
    let half = MOST_LETTERS / 2;
    letters[..half - 1].iter().chain(&['…']).chain(&letters[letters.len() - half..]).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // no other control character is allowed in XML
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
