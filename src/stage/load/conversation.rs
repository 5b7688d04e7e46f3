//! A prompt of several turns: each is sent after the answer of the one before and a time to think, with all that was said. Unaware of connections.

use fastrand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::params::LONGEST;
use crate::api::ParamFault;

/// The most turns of a conversation.
pub(super) const MOST_TURNS: usize = 10_000;

/// What is said next, in a line of a file of prompts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    /// What the user says.
    pub(super) content: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_tokens: Option<u64>,
    /// Seconds from the end of the answer before to the send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) think: Option<f64>,
}

/// A turn after the first as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Later {
    /// The user's message, JSON.
    pub(super) message: Vec<u8>,
    /// The body after the list of messages.
    pub(super) after: Vec<u8>,
    /// Seconds, if the turn says so itself.
    pub(super) think: Option<f64>,
}

/// What was said, growing: the body of each turn is made of it.
pub(super) struct History(Vec<u8>);

impl History {
    /// `opening`: the first body up to the end of its messages, without the bracket.
    pub(super) fn new(opening: &[u8]) -> Self {
        Self(opening.to_vec())
    }

    /// The body of the next turn, after `answer`.
    pub(super) fn next(&mut self, answer: &str, turn: &Later) -> Vec<u8> {
        self.0.push(b',');
        self.0.extend_from_slice(json!({ "role": "assistant", "content": answer }).to_string().as_bytes());
        self.0.push(b',');
        self.0.extend_from_slice(&turn.message);
        [self.0.as_slice(), &turn.after].concat()
    }
}

/// Seconds between an answer and the next turn: a number, or drawn by the seed.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected seconds, or {\"dist\": \"uniform\", \"min\", \"max\"} or {\"dist\": \"exp\", \"mean\"}"
)]
pub(super) enum Think {
    /// Always the same.
    Fixed(f64),
    Drawn(Drawn),
}

/// A distribution of seconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "dist", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Drawn {
    /// All equally often.
    Uniform {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
    },
    /// Exponential.
    Exp {
        /// The mean.
        mean: f64,
    },
}

impl Default for Think {
    fn default() -> Self {
        Self::Fixed(0.0)
    }
}

impl Think {
    pub(super) fn check(self) -> Result<(), ParamFault> {
        let fine = |seconds: f64| (0.0..=LONGEST).contains(&seconds);
        let good = match self {
            Self::Fixed(seconds) | Self::Drawn(Drawn::Exp { mean: seconds }) => fine(seconds),
            Self::Drawn(Drawn::Uniform { min, max }) => fine(min) && fine(max) && min <= max,
        };
        let message = "expected seconds from 0 to 1e9, and min no more than max".into();
        if good { Ok(()) } else { Err(ParamFault { path: "think".into(), message }) }
    }

    /// Of the request of this number.
    pub(super) fn seconds(self, seed: u64, number: u64) -> f64 {
        let mut rng = Rng::with_seed(seed ^ number.wrapping_add(1).wrapping_mul(0xD134_2543_DE82_EF95));
        match self {
            Self::Fixed(seconds) => seconds,
            Self::Drawn(Drawn::Uniform { min, max }) => min + (max - min) * rng.f64(),
            Self::Drawn(Drawn::Exp { mean }) => -mean * (1.0 - rng.f64()).ln(),
        }
    }
}

/// How conversations went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conversations {
    pub(super) begun: u64,
    /// All turns were answered.
    pub(super) whole: u64,
    /// A turn failed: what comes after it has no history.
    pub(super) failed: u64,
    /// The time was over, or the load was ended.
    pub(super) over: u64,
    /// Turns that were not sent because of either.
    pub(super) not_sent: u64,
}

impl Conversations {
    pub(super) fn add(&mut self, other: Self) {
        self.begun += other.begun;
        self.whole += other.whole;
        self.failed += other.failed;
        self.over += other.over;
        self.not_sent += other.not_sent;
    }

    pub(super) fn json(self) -> Value {
        json!({
            "begun": self.begun, "whole": self.whole, "ended_by_failure": self.failed, "ended_by_time": self.over,
            "turns_not_sent": self.not_sent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_holds_what_was_said() {
        let mut history = History::new(br#"{"messages":[{"role":"user","content":"a"}"#);
        let turn = |text: &str| Later {
            message: json!({ "role": "user", "content": text }).to_string().into_bytes(),
            after: br#"],"model":"m"}"#.to_vec(),
            think: None,
        };
        history.next("b \"quoted\"\n", &turn("c"));
        let body: Value = serde_json::from_slice(&history.next("d", &turn("e"))).unwrap();
        let said: Vec<&str> =
            body["messages"].as_array().unwrap().iter().filter_map(|m| m["content"].as_str()).collect();
        assert_eq!((said, &body["model"]), (vec!["a", "b \"quoted\"\n", "c", "d", "e"], &json!("m")));
    }

    #[test]
    fn times_to_think_depend_on_the_seed() {
        let think: Think = serde_json::from_value(json!({ "dist": "exp", "mean": 2.0 })).unwrap();
        let mean = (0..20_000).map(|n| think.seconds(7, n)).sum::<f64>() / 20_000.0;
        assert!((mean - 2.0).abs() < 0.1, "{mean}");
        assert_eq!(think.seconds(7, 3), think.seconds(7, 3));
        let uniform: Think =
            serde_json::from_value(json!({ "dist": "uniform", "min": 1.0, "max": 2.0 })).unwrap();
        assert!((0..1000).all(|n| (1.0..2.0).contains(&uniform.seconds(1, n))));
        assert!(uniform.check().is_ok() && Think::Fixed(-1.0).check().is_err());
        assert!(Think::Drawn(Drawn::Uniform { min: 2.0, max: 1.0 }).check().is_err());
    }
}
