//! The only thing the engine says to the world. Versioned; console, progress, record and trace are readers of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Outcome;

/// Version of the event stream; raised when a field changes its meaning or goes.
pub const EVENT_VERSION: u32 = 1;

/// One line of the event stream.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Stamped {
    /// Seconds since the run started.
    pub t: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// First event.
    RunStarted {
        /// Version of the event stream.
        version: u32,
        /// Run id.
        run: String,
        /// Workflow name.
        workflow: String,
        /// Workflow file as given.
        file: String,
        /// RFC 3339, UTC.
        started_at: String,
    },
    /// The graph is known.
    Planned {
        /// Selected nodes.
        nodes: usize,
        /// Digest of the expanded graph.
        plan_digest: String,
    },
    /// Something worth saying that is no failure (a waiting lock, an orphan count).
    Note {
        /// One line.
        message: String,
    },
    /// An attempt begins.
    NodeStarted {
        /// Node id.
        node: String,
        /// From 1.
        attempt: u32,
        /// Why it runs.
        reason: String,
    },
    /// A line of a node's or service's output, secrets masked.
    Log {
        /// Node or service id.
        node: String,
        /// Without newline.
        line: String,
    },
    /// An attempt failed and another will follow.
    NodeRetrying {
        /// Node id.
        node: String,
        /// The failed attempt, from 1.
        attempt: u32,
        /// Why.
        message: String,
        /// Wait before the next, seconds.
        wait: f64,
    },
    /// A node's outcome is known.
    NodeFinished(NodeReport),
    /// Every selected node is fresh, known without looking at each: instead of their `node_finished`.
    AllFresh {
        /// How many.
        nodes: usize,
    },
    /// A service is being started.
    ServiceStarting {
        /// Service id.
        service: String,
    },
    /// A service is up.
    ServiceReady {
        /// Service id.
        service: String,
        /// Its URL.
        url: String,
        /// Process id.
        pid: u32,
        /// Seconds from start to ready.
        seconds: f64,
    },
    /// A service is down.
    ServiceStopped {
        /// Service id.
        service: String,
        /// Why, if nobody asked for it.
        failure: Option<String>,
    },
    /// Last event.
    RunFinished {
        /// `ok`, `failed`, `cancelled`.
        outcome: String,
        /// Seconds in all.
        seconds: f64,
        /// Number of orphans.
        orphans: usize,
    },
}

/// What became of one node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NodeReport {
    /// Node id.
    pub id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it ran, or why not.
    pub reason: Option<String>,
    /// `b3:...`; null if it never got that far.
    pub key: Option<String>,
    /// Seconds of all attempts.
    pub seconds: f64,
    /// Attempts made.
    pub attempts: u32,
    /// A validating stage was asked.
    pub checked: bool,
    /// Used unchecked because of `--offline`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// A failure that does not fail the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allowed: bool,
    /// Leased device.
    pub device: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Last lines of its log, if it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
    /// Where the whole log is, relative to the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// What the stage recorded (provenance of a fetch and so on).
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub record: serde_json::Map<String, serde_json::Value>,
}

/// Takes events; called from any thread.
pub trait Sink: Send + Sync {
    /// One event.
    fn emit(&self, event: Event);
}
