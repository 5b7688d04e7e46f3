//! How long prompts and answers are: fixed, or drawn. Unaware of text.

use fastrand::Rng;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::ParamFault;

/// A length in words or tokens.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Length {
    /// Always the same.
    Fixed(u64),
    /// Drawn for each.
    Drawn(Drawn),
}

/// A distribution of lengths, its ends included.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "dist", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Drawn {
    /// All equally often.
    Uniform {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// Normal, rounded; what lies outside is set to the nearer end.
    Gaussian {
        /// The middle.
        mean: f64,
        /// The standard deviation.
        std: f64,
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// The k-th length from `min` on comes in proportion to k to the power -`alpha`.
    Zipf {
        /// Above 1.
        alpha: f64,
        /// The least, which comes most often.
        min: u64,
        /// The greatest.
        max: u64,
    },
}

/// The longest that can be asked for.
const LONGEST: u64 = 1 << 20;

impl Length {
    /// What does not fit.
    pub(super) fn check(&self, path: &str) -> Result<(), ParamFault> {
        let fault = |message: &str| Err(ParamFault { path: path.into(), message: message.into() });
        let (least, greatest) = match *self {
            Self::Fixed(length) => (length, length),
            Self::Drawn(
                Drawn::Uniform { min, max } | Drawn::Gaussian { min, max, .. } | Drawn::Zipf { min, max, .. },
            ) => (min, max),
        };
        if !(1..=LONGEST).contains(&least) || !(least..=LONGEST).contains(&greatest) {
            return fault(&format!("expected 1 <= min <= max <= {LONGEST}"));
        }
        match *self {
            Self::Drawn(Drawn::Gaussian { mean, std, .. })
                if !(mean.is_finite() && std >= 0.0 && std.is_finite()) =>
            {
                fault("expected a mean, and a std of 0 or more")
            }
            Self::Drawn(Drawn::Zipf { alpha, .. }) if !(alpha > 1.0 && alpha.is_finite()) => {
                fault("expected alpha above 1")
            }
            _ => Ok(()),
        }
    }

    /// A way to draw from it.
    pub(super) fn sampler(self) -> impl FnMut(&mut Rng) -> u64 {
        let sums: Vec<f64> = match self {
            Self::Drawn(Drawn::Zipf { alpha, min, max }) => (1..=max - min + 1)
                .scan(0.0, |sum, rank| {
                    *sum += (rank as f64).powf(-alpha);
                    Some(*sum)
                })
                .collect(),
            _ => Vec::new(),
        };
        move |rng| match self {
            Self::Fixed(length) => length,
            Self::Drawn(Drawn::Uniform { min, max }) => rng.u64(min..=max),
            Self::Drawn(Drawn::Gaussian { mean, std, min, max }) => {
                let normal =
                    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
                ((mean + std * normal).round().max(0.0) as u64).clamp(min, max)
            }
            Self::Drawn(Drawn::Zipf { min, max, .. }) => {
                let drawn = rng.f64() * sums.last().copied().unwrap_or(1.0);
                (min + sums.partition_point(|sum| *sum <= drawn) as u64).min(max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn draws_have_their_distribution() {
        let drawn = |value: serde_json::Value| {
            let length: Length = serde_json::from_value(value).unwrap();
            length.check("input").unwrap();
            let (mut rng, mut draw) = (Rng::with_seed(3), length.sampler());
            (0..20_000).map(|_| draw(&mut rng) as f64).collect::<Vec<f64>>()
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!(drawn(json!(7)).iter().all(|length| *length == 7.0));
        let uniform = drawn(json!({"dist": "uniform", "min": 10, "max": 20}));
        assert!((mean(&uniform) - 15.0).abs() < 0.1 && uniform.contains(&10.0) && uniform.contains(&20.0));
        let gaussian = drawn(json!({"dist": "gaussian", "mean": 100, "std": 10, "min": 80, "max": 200}));
        assert!((mean(&gaussian) - 100.2).abs() < 0.5 && gaussian.iter().all(|length| *length >= 80.0));
        let zipf = drawn(json!({"dist": "zipf", "alpha": 2, "min": 5, "max": 1000}));
        let least = zipf.iter().filter(|length| **length == 5.0).count() as f64 / zipf.len() as f64;
        assert!((least - 0.608).abs() < 0.02, "1 / (1 + 1/4 + 1/9 ...) = {least}");
        for bad in [
            json!(0),
            json!({"dist": "uniform", "min": 3, "max": 2}),
            json!({"dist": "zipf", "alpha": 1, "min": 1, "max": 2}),
        ] {
            let length: Length = serde_json::from_value(bad.clone()).unwrap();
            assert!(length.check("input").is_err(), "{bad}");
        }
    }
}
