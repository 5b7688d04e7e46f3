//! Where boxes and arrows lie: layers from left to right, few crossings, arrows around boxes. Unaware of what they show.

/// Room between two boxes of a layer.
const GAP: f64 = 18.0;
/// Height that an arrow takes where it passes a layer.
const PASS: f64 = 6.0;
/// Room between two layers.
const BETWEEN: f64 = 64.0;

/// A box to be placed.
pub(super) struct Sized {
    pub(super) layer: usize,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Where everything lies; the origin is the left upper corner.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    /// Left upper corner of each box.
    pub(super) boxes: Vec<(f64, f64)>,
    /// Points of each arrow: ends of horizontal pieces, joined by curves between layers; the last is the point of the arrow.
    pub(super) arrows: Vec<Vec<(f64, f64)>>,
}

/// A box, or a place where an arrow passes a layer.
struct Cell {
    layer: usize,
    height: f64,
    /// Middle.
    y: f64,
    before: Vec<usize>,
    after: Vec<usize>,
}

/// Places boxes and arrows (from, to). The result depends on nothing but its arguments.
pub(super) fn layout(boxes: &[Sized], arrows: &[(usize, usize)]) -> Layout {
    let depth = boxes.iter().map(|b| b.layer + 1).max().unwrap_or(0);
    let mut cells: Vec<Cell> = boxes
        .iter()
        .map(|b| Cell { layer: b.layer, height: b.height, y: 0.0, before: vec![], after: vec![] })
        .collect();
    // an arrow that spans several layers passes those between
    let mut ways: Vec<Vec<usize>> = Vec::new();
    for &(from, to) in arrows {
        let mut way = vec![from];
        for layer in boxes[from].layer + 1..boxes[to].layer {
            cells.push(Cell { layer, height: PASS, y: 0.0, before: vec![], after: vec![] });
            way.push(cells.len() - 1);
        }
        way.push(to);
        if boxes[from].layer < boxes[to].layer {
            for pair in way.windows(2) {
                cells[pair[0]].after.push(pair[1]);
                cells[pair[1]].before.push(pair[0]);
            }
        }
        ways.push(way);
    }
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); depth];
    for (ix, cell) in cells.iter().enumerate() {
        layers[cell.layer].push(ix);
    }
    for layer in &layers {
        stack(layer, &mut cells);
    }
    for round in 0..12 {
        let forward = round % 2 == 0;
        for step in 0..depth {
            let layer = if forward { step } else { depth - 1 - step };
            settle(&mut layers[layer], &mut cells, forward);
        }
    }
    let top = cells.iter().map(|c| c.y - c.height / 2.0).fold(f64::INFINITY, f64::min);
    let widths: Vec<f64> = (0..depth)
        .map(|layer| boxes.iter().filter(|b| b.layer == layer).map(|b| b.width).fold(0.0, f64::max))
        .collect();
    let left: Vec<f64> = (0..depth).map(|layer| widths[..layer].iter().map(|w| w + BETWEEN).sum()).collect();
    let mut out = Layout {
        width: widths.iter().map(|w| w + BETWEEN).sum::<f64>() - if depth > 0 { BETWEEN } else { 0.0 },
        height: cells.iter().map(|c| c.y + c.height / 2.0 - top).fold(0.0, f64::max),
        ..Layout::default()
    };
    for (ix, one) in boxes.iter().enumerate() {
        out.boxes.push((left[one.layer], cells[ix].y - top - one.height / 2.0));
    }
    for (way, &(from, to)) in ways.iter().zip(arrows) {
        let y = |ix: usize| cells[ix].y - top;
        let (x, layer) = (left[boxes[from].layer], boxes[from].layer);
        let mut points = vec![(x + boxes[from].width, y(from)), (x + widths[layer], y(from))];
        for &ix in &way[1..way.len() - 1] {
            let x = left[cells[ix].layer];
            points.extend([(x, y(ix)), (x + widths[cells[ix].layer], y(ix))]);
        }
        points.push((left[boxes[to].layer], y(to)));
        out.arrows.push(points);
    }
    out
}

/// First places: one below the other.
fn stack(layer: &[usize], cells: &mut [Cell]) {
    let mut y = 0.0;
    for &ix in layer {
        cells[ix].y = y + cells[ix].height / 2.0;
        y += cells[ix].height + GAP;
    }
}

/// Moves the cells of a layer as near as possible to the mean of their neighbours, without overlaps.
fn settle(layer: &mut [usize], cells: &mut [Cell], forward: bool) {
    let wish = |ix: usize, cells: &[Cell]| {
        let near = if forward { &cells[ix].before } else { &cells[ix].after };
        let sum: f64 = near.iter().map(|n| cells[*n].y).sum();
        if near.is_empty() { cells[ix].y } else { sum / near.len() as f64 }
    };
    let mut wished: Vec<(usize, f64)> = layer.iter().map(|ix| (*ix, wish(*ix, cells))).collect();
    wished.sort_by(|a, b| a.1.total_cmp(&b.1));
    // blocks of touching cells, each at the mean of what its cells wish: (first cell, number, top, height)
    let mut blocks: Vec<(usize, usize, f64, f64)> = Vec::new();
    for (place, &(ix, y)) in wished.iter().enumerate() {
        let height = cells[ix].height;
        blocks.push((place, 1, y - height / 2.0, height));
        while let [.., (first, n, top, height), (_, m, next_top, next_height)] = blocks[..] {
            if top + height + GAP <= next_top {
                break;
            }
            let shifted = next_top - height - GAP;
            let mean = (top * n as f64 + shifted * m as f64) / (n + m) as f64;
            blocks.truncate(blocks.len() - 2);
            blocks.push((first, n + m, mean, height + GAP + next_height));
        }
    }
    for (first, n, mut top, _) in blocks {
        for &(ix, _) in &wished[first..first + n] {
            cells[ix].y = top + cells[ix].height / 2.0;
            top += cells[ix].height + GAP;
        }
    }
    for (place, (ix, _)) in layer.iter_mut().zip(wished) {
        *place = ix;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(layers: &[usize]) -> Vec<Sized> {
        layers.iter().map(|layer| Sized { layer: *layer, width: 100.0, height: 40.0 }).collect()
    }

    #[test]
    fn a_chain_is_straight_and_a_long_arrow_passes_between() {
        let out = layout(&sized(&[0, 1, 2]), &[(0, 1), (1, 2), (0, 2)]);
        assert_eq!(out.boxes.iter().map(|b| b.0).collect::<Vec<_>>(), [0.0, 164.0, 328.0]);
        assert_eq!(out.arrows[2].len(), 5, "it has a piece in the layer between");
        let passing = out.arrows[2][2].1;
        let (top, bottom) = (out.boxes[1].1, out.boxes[1].1 + 40.0);
        assert!(passing < top || passing > bottom, "{passing} crosses {top}..{bottom}");
        assert_eq!(out.width, 428.0);
    }

    #[test]
    fn boxes_of_a_layer_never_overlap_and_crossings_go() {
        let boxes = sized(&[0, 0, 0, 1, 1, 1]);
        let out = layout(&boxes, &[(0, 5), (1, 4), (2, 3)]);
        let mut ys: Vec<f64> = out.boxes[3..].iter().map(|b| b.1).collect();
        assert!(ys[2] < ys[1] && ys[1] < ys[0], "the second layer is turned round: {ys:?}");
        ys.sort_by(f64::total_cmp);
        assert!(ys.windows(2).all(|pair| pair[1] - pair[0] >= 40.0 + GAP - 1e-9), "{ys:?}");
        assert!(out.boxes.iter().all(|b| b.1 >= 0.0 && b.1 + 40.0 <= out.height + 1e-9));
    }

    #[test]
    fn nothing_has_no_size() {
        let out = layout(&[], &[]);
        assert_eq!((out.width, out.height), (0.0, 0.0));
    }
}
