//! The Pareto front of points in the plane. Unaware of what the axes mean.

/// Which end of the x axis is better; of y the larger always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Latency.
    SmallerX,
    /// Interactivity.
    LargerX,
}

/// For each point, whether it is on the front: no other point is at least as good on both axes and better on one.
/// Equal points do not exclude each other. The numbers must be finite. O(n log n).
pub fn front(points: &[(f64, f64)], better: Better) -> Vec<bool> {
    let points: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x + 0.0, y + 0.0)).collect(); // -0 is 0
    let by_x = |a: f64, b: f64| match better {
        Better::SmallerX => a.total_cmp(&b),
        Better::LargerX => b.total_cmp(&a),
    };
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| by_x(points[a].0, points[b].0).then(points[b].1.total_cmp(&points[a].1)));
    let mut on_front = vec![false; points.len()];
    let mut best: Option<(f64, f64)> = None;
    for index in order {
        let (x, y) = points[index];
        // everything before is at least as good in x: it is on the front if y beats it all, or if it equals the last one there
        let wins = best.is_none_or(|(best_x, best_y)| y > best_y || (y == best_y && x == best_x));
        on_front[index] = wins;
        if wins {
            best = Some((x, y));
        }
    }
    on_front
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn naive(points: &[(f64, f64)], better: Better) -> Vec<bool> {
        let gain = |a: f64, b: f64| if better == Better::SmallerX { b - a } else { a - b };
        points
            .iter()
            .map(|p| {
                !points.iter().any(|q| {
                    let (x, y) = (gain(q.0, p.0), q.1 - p.1);
                    x >= 0.0 && y >= 0.0 && (x > 0.0 || y > 0.0)
                })
            })
            .collect()
    }

    #[test]
    fn equal_points_share_the_front() {
        let points = [(1.0, 5.0), (1.0, 5.0), (1.0, 4.0), (2.0, 5.0), (2.0, 6.0)];
        assert_eq!(front(&points, Better::SmallerX), [true, true, false, false, true]);
        assert_eq!(front(&points, Better::LargerX), [false, false, false, false, true]);
        assert_eq!(front(&[(-0.0, 5.0), (0.0, 6.0)], Better::SmallerX), [false, true]);
        assert!(front(&[], Better::LargerX).is_empty());
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(points in proptest::collection::vec((0..12i32, 0..12i32), 0..60)) {
            let points: Vec<_> = points.into_iter().map(|(x, y)| (f64::from(x), f64::from(y))).collect();
            for better in [Better::SmallerX, Better::LargerX] {
                prop_assert_eq!(front(&points, better), naive(&points, better));
            }
        }
    }
}
