//! Statistics of one quantity. Unaware of what it is.

use serde_json::{Map, Value, json};

use crate::stage::table::percentile::{Rule, percentile};

/// Mean, deviation, extremes and percentiles of some values, in their unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// How many values.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the values themselves (divided by n): `numpy.std` without `ddof`.
    pub std: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// Percentiles asked for, with their values.
    pub percentiles: Vec<(f64, f64)>,
}

/// The sum of some values, taken in ascending order: the same however they were split and put together.
pub fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    // the sum of none is -0
    values.iter().sum::<f64>() + 0.0
}

impl Spread {
    /// `None` of none. The order of the values is of no matter: sums are taken in ascending order. Where one of them is NaN, so is everything but
    /// `n`, as numpy has it.
    pub fn of(mut values: Vec<f64>, percents: &[f64], rule: Rule) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let n = values.len();
        if values.iter().any(|value| value.is_nan()) {
            let percentiles = percents.iter().map(|percent| (*percent, f64::NAN)).collect();
            return Some(Self {
                n,
                mean: f64::NAN,
                std: f64::NAN,
                min: f64::NAN,
                max: f64::NAN,
                percentiles,
            });
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let at = |percent: &f64| Some((*percent, percentile(&values, *percent, rule)?));
        let percentiles = percents.iter().filter_map(at).collect();
        Some(Self { n, mean, std: (squares / n as f64).sqrt(), min, max, percentiles })
    }

    /// `{"n", "mean", "std", "min", "max", "p50", ...}`
    pub fn json(&self) -> Value {
        let mut map = Map::new();
        map.insert("n".to_owned(), json!(self.n));
        for (name, value) in [("mean", self.mean), ("std", self.std), ("min", self.min), ("max", self.max)] {
            map.insert(name.to_owned(), json!(value));
        }
        map.extend(self.percentiles.iter().map(|(percent, value)| (format!("p{percent}"), json!(value))));
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn by_hand() {
        let spread = Spread::of(vec![4.0, 2.0, 9.0], &[50.0, 99.9], Rule::Linear).unwrap();
        assert_eq!((spread.n, spread.mean, spread.min, spread.max), (3, 5.0, 2.0, 9.0));
        assert!((spread.std - (26.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(spread.json()["p50"], json!(4.0));
        assert!(spread.json().get("p99.9").is_some());
        assert_eq!(Spread::of(Vec::new(), &[50.0], Rule::Linear), None);
        // 0/0 has a sign that is the machine's
        for nan in [f64::NAN, -f64::NAN] {
            let found = Spread::of(vec![5.0, nan], &[50.0], Rule::Linear).unwrap().json();
            let numbers = ["mean", "std", "min", "max", "p50"].map(|name| &found[name]);
            assert_eq!((&found["n"], numbers), (&json!(2), [&Value::Null; 5]));
        }
    }

    proptest! {
        #[test]
        fn parts_put_together_are_the_whole(values in prop::collection::vec(-1e6f64..1e6, 1..200), cuts in prop::collection::vec(0usize..200, 0..5)) {
            let whole = Spread::of(values.clone(), &[1.0, 50.0, 99.0], Rule::Nearest).unwrap();
            let mut parts: Vec<Vec<f64>> = vec![Vec::new(); cuts.len() + 1];
            for (n, value) in values.iter().enumerate() {
                let part = cuts.iter().filter(|cut| n % **cut.max(&&1) == 0).count();
                parts[part].push(*value);
            }
            let merged = Spread::of(parts.concat(), &[1.0, 50.0, 99.0], Rule::Nearest).unwrap();
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn as_a_naive_computation(values in prop::collection::vec(-1e3f64..1e3, 1..100)) {
            let spread = Spread::of(values.clone(), &[], Rule::Linear).unwrap();
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let mean_of_squares = values.iter().map(|value| value * value).sum::<f64>() / n;
            prop_assert!((spread.mean - mean).abs() <= 1e-9 * (1.0 + mean.abs()));
            prop_assert!((spread.std * spread.std - (mean_of_squares - mean * mean)).abs() <= 1e-6 * (1.0 + mean_of_squares));
            prop_assert!(values.iter().all(|value| spread.min <= *value && *value <= spread.max));
            prop_assert!(values.contains(&spread.min) && values.contains(&spread.max));
        }
    }
}
