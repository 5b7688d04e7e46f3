//! Percentiles by named rules. Unaware of where the values come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which value of `n` sorted ones stands for the `p`-th percentile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Between the two values around place `(n - 1) p / 100`, counted from 0: `numpy.percentile` without a method, bit for bit.
    #[default]
    Linear,
    /// Nearest rank: the value at `ceil(n p / 100) - 1`, at least the first. evalscope from 1.10 or 1.11.
    Nearest,
    /// The value at `floor(n p / 100)`, at most the last. evalscope up to 1.9.
    FloorIndex,
}

impl Rule {
    /// As in parameters and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Nearest => "nearest",
            Self::FloorIndex => "floor-index",
        }
    }

    /// The rule of this [`name`](Self::name).
    pub fn named(name: &str) -> Option<Self> {
        [Self::Linear, Self::Nearest, Self::FloorIndex].into_iter().find(|rule| rule.name() == name)
    }
}

/// The percentile `percent` (0 to 100; what is outside counts as the nearer end) of values in ascending order without NaN, in their own unit.
/// `None` of no values, and if `percent` is NaN.
pub fn percentile(sorted: &[f64], percent: f64, rule: Rule) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    if percent.is_nan() {
        return None;
    }
    let percent = percent.clamp(0.0, 100.0);
    let n = sorted.len() as f64;
    // a cast from below 0 gives 0
    match rule {
        Rule::Nearest => Some(sorted[(((n * percent / 100.0).ceil() - 1.0) as usize).min(last)]),
        Rule::FloorIndex => Some(sorted[((n * percent / 100.0) as usize).min(last)]),
        Rule::Linear => {
            let place = (n - 1.0) * (percent / 100.0);
            let at = (place as usize).min(last);
            let (low, high, part) = (sorted[at], sorted[(at + 1).min(last)], place.fract());
            let step = high - low;
            // numpy comes from the nearer side
            Some(if part >= 0.5 { high - step * (1.0 - part) } else { low + step * part })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_numpy_and_of_the_rules_by_hand() {
        let values = [1.5, 2.25, 4.0, 8.125, 16.0];
        // numpy.percentile(values, [0, 10, 33, 50, 90, 99, 100])
        let linear = [1.5, 1.8, 2.81, 4.0, 12.850000000000001, 15.685, 16.0];
        for (percent, expected) in [0.0, 10.0, 33.0, 50.0, 90.0, 99.0, 100.0].into_iter().zip(linear) {
            assert_eq!(percentile(&values, percent, Rule::Linear), Some(expected), "{percent}");
        }
        let places =
            |rule| [0.0, 20.0, 21.0, 50.0, 80.0, 100.0].map(|p| percentile(&values, p, rule).unwrap());
        assert_eq!(places(Rule::Nearest), [1.5, 1.5, 2.25, 4.0, 8.125, 16.0]);
        assert_eq!(places(Rule::FloorIndex), [1.5, 2.25, 2.25, 4.0, 16.0, 16.0]);
        for rule in [Rule::Linear, Rule::Nearest, Rule::FloorIndex] {
            assert_eq!(percentile(&[], 50.0, rule), None);
            assert_eq!(percentile(&values, f64::NAN, rule), None);
            assert_eq!(percentile(&[7.0], 99.0, rule), Some(7.0));
            assert_eq!(
                (percentile(&values, -1.0, rule), percentile(&values, 101.0, rule)),
                (Some(1.5), Some(16.0))
            );
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.name());
        }
    }

    proptest! {
        /// By counting and in integers, without indices from floats.
        #[test]
        fn like_the_definitions(mut values in prop::collection::vec(-1e6..1e6f64, 1..60), percent in 0u64..=100) {
            values.sort_by(f64::total_cmp);
            let n = values.len() as u64;
            let nearest = values.iter().zip(1u64..).find(|(_, rank)| rank * 100 >= n * percent).unwrap();
            prop_assert_eq!(percentile(&values, percent as f64, Rule::Nearest), Some(*nearest.0));
            let floor = values.iter().zip(0u64..).take_while(|(_, index)| index * 100 <= n * percent).last().unwrap();
            prop_assert_eq!(percentile(&values, percent as f64, Rule::FloorIndex), Some(*floor.0));
            let (at, rest) = ((n - 1) * percent / 100, (n - 1) * percent % 100);
            let (low, high) = (values[at as usize], values[(at + 1).min(n - 1) as usize]);
            let linear = (low * (100 - rest) as f64 + high * rest as f64) / 100.0;
            let found = percentile(&values, percent as f64, Rule::Linear).unwrap();
            prop_assert!((found - linear).abs() <= 1e-9 * (1.0 + low.abs() + high.abs()), "{} {}", found, linear);
        }
    }
}
