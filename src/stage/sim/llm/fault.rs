//! Which fault hits which request. Unaware of HTTP.

use schemars::JsonSchema;
use serde::Deserialize;

/// The share of the requests that each fault hits.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Faults {
    /// Status 429 with Retry-After: 1.
    pub(super) status_429: f64,
    /// Status 500.
    pub(super) status_500: f64,
    /// No answer ever, on a connection that stays open.
    pub(super) hang: f64,
    /// The connection is closed after half of the tokens.
    pub(super) abort: f64,
    /// Nothing comes any more after half of the tokens; the connection stays open and the slot taken until the client leaves.
    pub(super) stall: f64,
    /// After half of the tokens an event with an error; where no stream is asked for, status 500.
    pub(super) stream_error: f64,
    /// An answer without a token.
    pub(super) empty: f64,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Status429,
    Status500,
    Hang,
    Abort,
    Stall,
    StreamError,
    Empty,
}

impl Kind {
    /// Its name in the parameters and in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Status429 => "status_429",
            Self::Status500 => "status_500",
            Self::Hang => "hang",
            Self::Abort => "abort",
            Self::Stall => "stall",
            Self::StreamError => "stream_error",
            Self::Empty => "empty",
        }
    }
}

impl Faults {
    fn rates(&self) -> [(Kind, f64); 7] {
        [
            (Kind::Status429, self.status_429),
            (Kind::Status500, self.status_500),
            (Kind::Hang, self.hang),
            (Kind::Abort, self.abort),
            (Kind::Stall, self.stall),
            (Kind::StreamError, self.stream_error),
            (Kind::Empty, self.empty),
        ]
    }

    /// The place and the reason why they cannot be used, if so.
    pub(super) fn fault(&self) -> Option<(String, String)> {
        for (kind, rate) in self.rates() {
            if !(0.0..=1.0).contains(&rate) {
                return Some((format!("faults.{}", kind.name()), format!("is {rate} (expected 0 to 1)")));
            }
        }
        let sum: f64 = self.rates().iter().map(|(_, rate)| rate).sum();
        (sum > 1.0 + 1e-9).then(|| ("faults".to_owned(), format!("add up to {sum} (expected at most 1)")))
    }

    /// The fault that hits the request of this number.
    pub(super) fn draw(&self, seed: u64, number: u64) -> Option<Kind> {
        let rates = self.rates();
        if rates.iter().all(|(_, rate)| *rate == 0.0) {
            return None;
        }
        // an odd multiplier: numbers that follow each other get seeds far from each other
        let seed = seed ^ number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut left = fastrand::Rng::with_seed(seed).f64();
        for (kind, rate) in rates {
            if left < rate {
                return Some(kind);
            }
            left -= rate;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_asked_for_and_repeat() {
        let faults = Faults { status_429: 0.2, abort: 0.1, empty: 0.05, ..Faults::default() };
        let draw = |seed| (0..20_000).map(|n| faults.draw(seed, n)).collect::<Vec<_>>();
        let drawn = draw(7);
        assert_eq!(drawn, draw(7));
        assert_ne!(drawn, draw(8));
        let count = |kind| drawn.iter().filter(|k| **k == kind).count() as f64 / 20_000.0;
        for (kind, share) in [
            (Some(Kind::Status429), 0.2),
            (Some(Kind::Abort), 0.1),
            (Some(Kind::Empty), 0.05),
            (Some(Kind::Hang), 0.0),
            (None, 0.65),
        ] {
            assert!((count(kind) - share).abs() < 0.01, "{kind:?} {}", count(kind));
        }
        let all = Faults { hang: 1.0, ..Faults::default() };
        assert!((0..1000).all(|n| all.draw(0, n) == Some(Kind::Hang)));
    }
}
