//! When a node runs again, and what became of it. Unaware of keys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an equal key means (workflow format, section 7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// The recorded result.
    Pure,
    /// The stage is asked once per run.
    Validate,
    /// As validate, but not asked while the last check is younger.
    FreshFor(Duration),
    /// A measurement: stands until `--remeasure`.
    Sample,
    /// Runs whenever selected.
    Never,
}

impl Policy {
    /// As written in a workflow.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Validate => "validate",
            Self::FreshFor(_) => "fresh_for",
            Self::Sample => "sample",
            Self::Never => "never",
        }
    }
}

/// How often and how patiently a failed attempt is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Further attempts after the first.
    pub max: u32,
    /// Wait before the second attempt; doubled each time, with full jitter on the upper half.
    pub backoff: Duration,
    /// Longest wait.
    pub max_backoff: Duration,
}

/// What became of a node in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Outcome {
    /// Outputs in place, nothing produced.
    Fresh,
    /// Brought from the cache.
    Restored,
    /// A hit whose bytes nobody asked for.
    Cached,
    /// Ran.
    Ran,
    /// Failed.
    Failed,
    /// Something it needs failed.
    Skipped,
    /// An input it takes is absent, so it has nothing to do.
    Absent,
    /// The run was ended first.
    Cancelled,
}

impl Outcome {
    /// All outcomes in the order in which counts are printed.
    pub const ALL: [Self; 8] = [
        Self::Fresh,
        Self::Restored,
        Self::Cached,
        Self::Ran,
        Self::Failed,
        Self::Skipped,
        Self::Absent,
        Self::Cancelled,
    ];

    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Restored => "restored",
            Self::Cached => "cached",
            Self::Ran => "ran",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Absent => "absent",
            Self::Cancelled => "cancelled",
        }
    }
}
