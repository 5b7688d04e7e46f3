//! A number of the parameters that is fixed or drawn. Unaware of what it measures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number, or a distribution to draw it from.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, or {\"dist\": \"uniform\" | \"exp\" | \"lognormal\", ...}")]
pub(super) enum Quantity {
    /// Always this.
    Fixed(f64),
    /// Drawn anew each time.
    Drawn(Dist),
}

/// A distribution.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "dist", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Dist {
    /// Any number from `low` to `high`, equally likely.
    Uniform {
        /// The least.
        low: f64,
        /// The greatest.
        high: f64,
    },
    /// Exponential.
    Exp {
        /// Its mean.
        mean: f64,
    },
    /// Lognormal.
    Lognormal {
        /// The mean of what is drawn (not of its logarithm).
        mean: f64,
        /// The standard deviation of its logarithm.
        sigma: f64,
    },
}

impl Quantity {
    /// Why it cannot be used, if so; every number it has must be from `least` to `most`.
    pub(super) fn fault(&self, least: f64, most: f64) -> Option<String> {
        let within = |name: &str, value: f64| {
            let good = (least..=most).contains(&value);
            (!good).then(|| format!("{name}is {value} (expected {least} to {most})"))
        };
        match *self {
            Self::Fixed(value) => within("", value),
            Self::Drawn(Dist::Uniform { low, high }) if low > high => {
                Some(format!("has low {low} above high {high}"))
            }
            Self::Drawn(Dist::Uniform { low, high }) => within("low ", low).or_else(|| within("high ", high)),
            Self::Drawn(Dist::Exp { mean }) => within("mean ", mean),
            Self::Drawn(Dist::Lognormal { sigma, .. }) if !(0.0..=10.0).contains(&sigma) => {
                Some(format!("sigma is {sigma} (expected 0 to 10)"))
            }
            Self::Drawn(Dist::Lognormal { mean, .. }) => within("mean ", mean),
        }
    }

    /// The next number.
    pub(super) fn draw(&self, random: &mut fastrand::Rng) -> f64 {
        match *self {
            Self::Fixed(value) => value,
            Self::Drawn(Dist::Uniform { low, high }) => low + (high - low) * random.f64(),
            Self::Drawn(Dist::Exp { mean }) => -mean * (1.0 - random.f64()).ln(),
            Self::Drawn(Dist::Lognormal { mean, .. }) if mean <= 0.0 => 0.0,
            Self::Drawn(Dist::Lognormal { mean, sigma }) => {
                let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
                (mean.ln() - sigma * sigma / 2.0 + sigma * normal).exp()
            }
        }
    }

    /// The next number as milliseconds, in nanoseconds; at most a day.
    pub(super) fn draw_ns(&self, random: &mut fastrand::Rng) -> u64 {
        (self.draw(random).clamp(0.0, 86_400_000.0) * 1e6) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_means_are_those_asked_for() {
        let mut random = fastrand::Rng::with_seed(1);
        for dist in [
            Dist::Uniform { low: 5.0, high: 15.0 },
            Dist::Exp { mean: 10.0 },
            Dist::Lognormal { mean: 10.0, sigma: 0.5 },
        ] {
            let quantity = Quantity::Drawn(dist);
            let sum: f64 = (0..100_000).map(|_| quantity.draw(&mut random)).sum();
            assert!((sum / 1e5 - 10.0).abs() < 0.15, "{dist:?} {}", sum / 1e5);
        }
        assert_eq!(Quantity::Fixed(2.5).draw_ns(&mut random), 2_500_000);
    }
}
