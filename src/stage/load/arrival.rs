//! When requests are sent: closed loops have a number in flight, open loops a schedule that does not wait for answers. Unaware of
//! what is sent.

use fastrand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::params::LONGEST;
use crate::api::ParamFault;

/// The most requests of a schedule.
const MOST: usize = 10_000_000;

/// The pattern of arrivals; rates per second, times in seconds.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Arrival {
    /// So many in flight: the next is sent when one has ended. Hides what the server's pauses would have cost others.
    Closed {
        /// Requests in flight.
        concurrency: usize,
    },
    /// Equal gaps.
    Constant {
        /// Requests per second.
        rate: f64,
    },
    /// Gaps of an exponential distribution. With a number of requests all times are scaled so that the last gap ends at requests / rate.
    Poisson {
        /// Requests per second.
        rate: f64,
    },
    /// Gaps of a gamma distribution of shape `burstiness` (1: poisson, below: in bursts, above: more even); scaled as poisson.
    Gamma {
        /// Requests per second.
        rate: f64,
        /// The shape, above 0.
        burstiness: f64,
    },
    /// A rate that rises or falls from `from` to `to` over `over` seconds, and stays there.
    Ramp {
        /// At the start.
        from: f64,
        /// At the end.
        to: f64,
        /// How long it takes.
        over: f64,
        /// How.
        #[serde(default)]
        shape: Shape,
        /// Number of steps of shape `steps`.
        #[serde(default = "ten")]
        steps: u32,
    },
    /// `size` at once, every `every` seconds.
    Burst {
        /// Requests of a burst.
        size: u64,
        /// From one burst to the next.
        every: f64,
    },
    /// The times of the input `trace`, from its first: mooncake JSON Lines (`timestamp` in ms) or CSV with a column `timestamp` or `Timestamp`
    /// in seconds (BurstGPT).
    Trace {
        /// How much faster than recorded.
        #[serde(default = "one")]
        speed: f64,
    },
}

fn ten() -> u32 {
    10
}

fn one() -> f64 {
    1.0
}

/// How a rate changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    /// By equal amounts.
    #[default]
    Linear,
    /// By equal factors.
    Exponential,
    /// In `steps` equal steps.
    Steps,
}

/// How long a load goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extent {
    /// At most so many.
    pub(super) requests: Option<u64>,
    /// None is begun later, seconds.
    pub(super) duration: Option<f64>,
}

impl Arrival {
    /// What does not fit.
    pub(super) fn check(&self) -> Result<(), ParamFault> {
        let fault = |name: &str, message: &str| {
            Err(ParamFault { path: format!("arrival.{name}"), message: message.into() })
        };
        let good = |value: f64| value > 0.0 && value.is_finite();
        let above = "expected a number above 0";
        match *self {
            Self::Closed { concurrency: 0 } => fault("concurrency", "expected at least 1"),
            Self::Constant { rate } | Self::Poisson { rate } | Self::Gamma { rate, .. } if !good(rate) => {
                fault("rate", above)
            }
            Self::Gamma { burstiness, .. } if !good(burstiness) => fault("burstiness", above),
            Self::Ramp { over, .. } if !good(over) => fault("over", above),
            Self::Ramp { steps: 0, .. } => fault("steps", "expected at least 1"),
            Self::Ramp { from, .. } if !(from >= 0.0 && from.is_finite()) => {
                fault("from", "expected 0 or more")
            }
            Self::Ramp { to, .. } if !good(to) => fault("to", above),
            Self::Ramp { from, shape: Shape::Exponential, .. } if from <= 0.0 => {
                fault("from", "an exponential ramp begins above 0")
            }
            Self::Burst { size: 0, .. } => fault("size", "expected at least 1"),
            Self::Burst { every, .. } if !good(every) => fault("every", above),
            Self::Trace { speed } if !good(speed) => fault("speed", above),
            _ => Ok(()),
        }
    }

    /// The rate that is asked for; `None` where there is no single one.
    pub(super) fn rate(&self) -> Option<f64> {
        match self {
            Self::Constant { rate } | Self::Poisson { rate } | Self::Gamma { rate, .. } => Some(*rate),
            _ => None,
        }
    }

    /// Moments in ns after the start, ascending; `None` for a closed loop. `trace`: recorded times in seconds, ascending. `Err`: it has too
    /// many, or goes on for too long.
    pub(super) fn schedule(
        &self,
        extent: Extent,
        seed: u64,
        trace: &[f64],
    ) -> Result<Option<Vec<u64>>, String> {
        let mut rng = Rng::with_seed(seed ^ 0x5ced_0000_a221_7a15);
        // one more than is allowed tells that there are too many
        let most = extent.requests.unwrap_or(u64::MAX).min(MOST as u64 + 1);
        let end = extent.duration.unwrap_or(f64::INFINITY);
        let times: Vec<f64> = match self {
            Self::Closed { .. } => return Ok(None),
            Self::Constant { rate } => taken((0..most).map(|n| n as f64 / rate), end),
            Self::Poisson { rate } => gaps(|| exponential(&mut rng) / rate, *rate, extent),
            Self::Gamma { rate, burstiness } => {
                gaps(|| gamma(&mut rng, *burstiness) / (rate * burstiness), *rate, extent)
            }
            Self::Ramp { from, to, over, shape, steps } => {
                let ramp = Ramp { from: *from, to: *to, over: *over, shape: *shape, steps: *steps };
                taken((0..most).map(|n| ramp.time(n as f64)), end)
            }
            Self::Burst { size, every } => taken((0..most).map(|n| (n / size) as f64 * every), end),
            Self::Trace { speed } => {
                let first = trace.first().copied().unwrap_or(0.0);
                let count = usize::try_from(most).unwrap_or(usize::MAX);
                taken(trace.iter().take(count).map(|t| (t - first) / speed), end)
            }
        };
        if times.len() > MOST {
            return Err(format!("the schedule has more than {MOST} requests"));
        }
        match times.last() {
            Some(last) if *last > LONGEST => {
                Err(format!("the schedule goes on for {last:.3e} s (expected at most {LONGEST:e})"))
            }
            _ => Ok(Some(times.into_iter().map(|seconds| (seconds * 1e9) as u64).collect())),
        }
    }
}

fn taken(times: impl Iterator<Item = f64>, end: f64) -> Vec<f64> {
    times.take_while(|t| *t < end).collect()
}

/// The first request is sent at 0, the others after a gap each.
fn gaps(mut gap: impl FnMut() -> f64, rate: f64, extent: Extent) -> Vec<f64> {
    let (mut at, mut times) = (0.0, Vec::new());
    match extent.requests {
        Some(count) if extent.duration.is_none() => {
            for _ in 0..count.min(MOST as u64 + 1) {
                times.push(at);
                at += gap();
            }
            // `at` is where the last gap ends
            let scale = if at > 0.0 { count as f64 / rate / at } else { 1.0 };
            times.iter_mut().for_each(|t| *t *= scale);
        }
        most => {
            while times.len() <= MOST
                && at < extent.duration.unwrap_or(0.0)
                && most.is_none_or(|most| (times.len() as u64) < most)
            {
                times.push(at);
                at += gap();
            }
        }
    }
    times
}

/// Mean 1.
fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}

fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

/// Mean `shape` (Marsaglia and Tsang, 2000).
fn gamma(rng: &mut Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = (1.0 - rng.f64()).powf(1.0 / shape);
        return gamma(rng, shape + 1.0) * boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.f64()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

struct Ramp {
    from: f64,
    to: f64,
    over: f64,
    shape: Shape,
    steps: u32,
}

impl Ramp {
    /// When the request that `before` others precede is due: where the integral of the rate reaches `before`.
    fn time(&self, before: f64) -> f64 {
        let Self { from, to, over, .. } = *self;
        match self.shape {
            Shape::Linear => {
                let whole = (from + to) / 2.0 * over;
                if before >= whole {
                    return over + (before - whole) / to;
                }
                let slope = (to - from) / over;
                // the smaller root, in the form that loses no digits
                2.0 * before
                    / (from + (from * from + 2.0 * slope * before).max(0.0).sqrt()).max(f64::MIN_POSITIVE)
            }
            Shape::Exponential => {
                let growth = (to / from).ln() / over;
                if growth == 0.0 {
                    return before / from;
                }
                let whole = (to - from) / growth;
                if before >= whole {
                    return over + (before - whole) / to;
                }
                (1.0 + before * growth / from).ln() / growth
            }
            Shape::Steps => {
                let (length, mut left) = (over / f64::from(self.steps), before);
                for step in 0..self.steps {
                    // the first step has the first rate, the last one the last
                    let part =
                        if self.steps == 1 { 1.0 } else { f64::from(step) / f64::from(self.steps - 1) };
                    let rate = from + (to - from) * part;
                    if left < rate * length {
                        return f64::from(step) * length + left / rate;
                    }
                    left -= rate * length;
                }
                over + left / to
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn times(arrival: serde_json::Value, requests: Option<u64>, duration: Option<f64>) -> Vec<f64> {
        let arrival: Arrival = serde_json::from_value(arrival).unwrap();
        arrival.check().unwrap();
        let trace = [10.0, 10.5, 12.5];
        let found = arrival.schedule(Extent { requests, duration }, 7, &trace).unwrap().unwrap();
        assert!(found.is_sorted());
        found.iter().map(|ns| *ns as f64 / 1e9).collect()
    }

    #[test]
    fn fixed_patterns_by_hand() {
        assert_eq!(times(json!({"kind": "constant", "rate": 4}), Some(3), None), [0.0, 0.25, 0.5]);
        assert_eq!(times(json!({"kind": "constant", "rate": 4}), None, Some(0.6)), [0.0, 0.25, 0.5]);
        assert_eq!(
            times(json!({"kind": "burst", "size": 2, "every": 3}), Some(5), None),
            [0.0, 0.0, 3.0, 3.0, 6.0]
        );
        assert_eq!(times(json!({"kind": "trace", "speed": 2}), None, None), [0.0, 0.25, 1.25]);
        // from 0 to 10 per second in 2 s: n requests after sqrt(2 n 2 / 10)
        let ramp = times(json!({"kind": "ramp", "from": 0, "to": 10, "over": 2}), Some(21), None);
        assert!((ramp[4] - (1.6f64).sqrt()).abs() < 1e-8 && (ramp[20] - 3.0).abs() < 1e-8, "{ramp:?}");
        let steps = times(
            json!({"kind": "ramp", "from": 1, "to": 4, "over": 4, "shape": "steps", "steps": 2}),
            Some(12),
            None,
        );
        assert_eq!(&steps[..5], &[0.0, 1.0, 2.0, 2.25, 2.5]);
        assert_eq!((steps[10], steps[11]), (4.0, 4.25));
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let refused = |arrival: serde_json::Value, requests, duration| {
            let arrival: Arrival = serde_json::from_value(arrival).unwrap();
            arrival.schedule(Extent { requests, duration }, 7, &[0.0, 1e300]).unwrap_err()
        };
        for arrival in [
            json!({"kind": "constant", "rate": 1e300}),
            json!({"kind": "poisson", "rate": 1e300}),
            json!({"kind": "burst", "size": u64::MAX, "every": 1}),
        ] {
            let many = "the schedule has more than 10000000 requests";
            assert_eq!(refused(arrival.clone(), None, Some(1.0)), many, "{arrival}");
            assert_eq!(refused(arrival.clone(), Some(u64::MAX), None), many, "{arrival}");
        }
        let long = "the schedule goes on for 1.000e300 s (expected at most 1e9)";
        assert_eq!(refused(json!({"kind": "trace"}), None, None), long);
        assert_eq!(refused(json!({"kind": "constant", "rate": 1e-300}), Some(2), None), long);
    }

    #[test]
    fn ramps_deliver_the_integral_of_their_rate() {
        for shape in ["linear", "exponential", "steps"] {
            let found = times(
                json!({"kind": "ramp", "from": 50, "to": 500, "over": 4, "shape": shape, "steps": 8}),
                None,
                Some(6.0),
            );
            let step = 1e-4;
            let rate = |t: f64| match shape {
                _ if t >= 4.0 => 500.0,
                "linear" => 50.0 + 450.0 * t / 4.0,
                "exponential" => 50.0 * 10f64.powf(t / 4.0),
                _ => 50.0 + 450.0 * (t / 0.5).floor() / 7.0,
            };
            let due: f64 = (0..60_000).map(|n| rate((f64::from(n) + 0.5) * step) * step).sum();
            assert!((found.len() as f64 - due).abs() < 2.0, "{shape}: {} of {due}", found.len());
        }
    }

    #[test]
    fn random_gaps_have_their_mean_and_deviation() {
        for (arrival, shape) in [
            (json!({"kind": "poisson", "rate": 100}), 1.0),
            (json!({"kind": "gamma", "rate": 100, "burstiness": 0.3}), 0.3),
            (json!({"kind": "gamma", "rate": 100, "burstiness": 5}), 5.0),
        ] {
            let found = times(arrival.clone(), Some(40_000), None);
            let gaps: Vec<f64> = found.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!((mean - 0.01).abs() < 1e-4, "{arrival}: {mean}");
            let wanted = 1.0 / shape;
            assert!((variance / mean / mean - wanted).abs() < 0.08 * wanted, "{arrival}: {variance}");
            let open = times(arrival.clone(), None, Some(100.0));
            assert!(
                (open.len() as f64 - 10_000.0).abs() < 500.0 / shape.min(1.0),
                "{arrival}: {}",
                open.len()
            );
            assert_eq!(found, times(arrival, Some(40_000), None), "the seed decides");
        }
    }
}
