//! Percentiles by named rules. Unaware of where the values come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which value of `n` sorted ones stands for the `p`-th percentile. Ranks are exact: 99.9 is 999/10, not the float nearest to it.
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
    match rule {
        Rule::Nearest => {
            let (whole, rest) = share(sorted.len(), percent);
            Some(sorted[(whole + usize::from(rest)).saturating_sub(1).min(last)])
        }
        Rule::FloorIndex => Some(sorted[share(sorted.len(), percent).0.min(last)]),
        Rule::Linear => {
            let place = last as f64 * (percent / 100.0);
            let at = (place as usize).min(last);
            let (low, high, part) = (sorted[at], sorted[(at + 1).min(last)], place.fract());
            let step = high - low;
            // numpy comes from the nearer side
            Some(if part >= 0.5 { high - step * (1.0 - part) } else { low + step * part })
        }
    }
}

/// `n percent / 100`, from 0 to 100 percent: its whole part, and whether more is left. The percent is the decimal number that it is written as.
fn share(n: usize, percent: f64) -> (usize, bool) {
    let written = format!("{:e}", percent.abs());
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let (ones, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // at most 17 digits and n below 2^64: below 10^37
    let digits: u128 = format!("{ones}{part}").parse().unwrap_or(0);
    let scale = exponent.parse::<i32>().unwrap_or(0) - 2 - i32::try_from(part.len()).unwrap_or(0);
    let power = |of: i32| u32::try_from(of).ok().and_then(|of| 10_u128.checked_pow(of));
    let product = n as u128 * digits;
    if let Some(power) = power(scale) {
        return (usize::try_from(product.saturating_mul(power)).unwrap_or(usize::MAX), false);
    }
    // a power beyond 10^38 is more than the product
    let power = power(-scale).unwrap_or(u128::MAX);
    (usize::try_from(product / power).unwrap_or(usize::MAX), !product.is_multiple_of(power))
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

    #[test]
    fn ranks_are_those_of_the_percent_as_it_is_written() {
        let at = |n: u32, percent, rule| {
            percentile(&(0..n).map(f64::from).collect::<Vec<_>>(), percent, rule).unwrap()
        };
        // counted from 0
        for (n, percent, nearest, floor) in [
            (41_000, 99.9, 40_958.0, 40_959.0),
            (250, 64.4, 160.0, 161.0),
            (375, 18.4, 68.0, 69.0),
            (1000, 99.9, 998.0, 999.0),
            (3, 1e-300, 0.0, 0.0),
            (3, 5e-324, 0.0, 0.0),
            (3, -0.0, 0.0, 0.0),
            (3, 1e2, 2.0, 2.0),
            (1_000_000, 1e-4, 0.0, 1.0),
            (1_000_000, 99.999_999_999_999_99, 999_999.0, 999_999.0),
        ] {
            assert_eq!(at(n, percent, Rule::Nearest), nearest, "{n} {percent}");
            assert_eq!(at(n, percent, Rule::FloorIndex), floor, "{n} {percent}");
        }
    }

    proptest! {
        /// Of thousandths of a percent, in integers.
        #[test]
        fn a_share_in_integers(n in 0_usize..1_000_000_000, thousandths in 0_usize..=100_000) {
            let product = n * thousandths;
            let percent: f64 = format!("{}.{:03}", thousandths / 1000, thousandths % 1000).parse().unwrap();
            prop_assert_eq!(share(n, percent), (product / 100_000, product % 100_000 > 0));
        }

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
