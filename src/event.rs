//! The only thing the engine says to the world. Versioned; console, progress, record and trace are readers of it.

use std::time::Instant;

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
        /// Before this event: seconds in which the workflow was read and checked.
        #[serde(default)]
        load: f64,
        /// Before this event: seconds in which it was expanded and the store opened.
        #[serde(default)]
        expand: f64,
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
    /// Probes were asked, and the files of all selected nodes were looked at.
    Looked {
        /// Seconds it took, up to this event.
        seconds: f64,
    },
    /// The run goes on: said now and then, so that the record of a killed run tells how long it lived.
    Alive {
        /// Nodes at work.
        running: usize,
        /// Nodes that could be, and wait for a slot, a pool or memory.
        ready: usize,
    },
    /// An attempt begins.
    NodeStarted {
        /// Node id.
        node: String,
        /// From 1.
        attempt: u32,
        /// Why it runs.
        reason: String,
        /// With the first attempt: how it came to begin now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        begin: Option<Begin>,
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
    /// A node ran twice more, for comparison.
    DeterminismChecked(DeterminismReport),
    /// A service is being started.
    ServiceStarting {
        /// Service id, with `#N` for instance N where there may be several.
        service: String,
        /// Devices that it leases.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        devices: Vec<LeasedDevice>,
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

/// A device as it was leased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeasedDevice {
    /// In the order of the PCI bus.
    pub index: u32,
    /// `GPU-...`, `MIG-...`; `virtual-N` for a virtual one.
    pub uuid: String,
    /// As the driver names it.
    pub model: String,
    /// The service whose instance has it; null if the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
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
    /// What was there was recorded as its result (`--adopt`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// A failure that does not fail the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allowed: bool,
    /// Indices of the devices that it leased, itself or by its services: `gpu:0,1`.
    pub device: Option<String>,
    /// The same in full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lease: Vec<LeasedDevice>,
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
    /// Bytes of its outputs, if it made or brought them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it did what it did; null if it had nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Box<Timing>>,
}

impl NodeReport {
    /// Not one of the many that had nothing to do.
    pub fn worth_a_line(&self) -> bool {
        self.outcome != Outcome::Fresh || self.adopted
    }
}

/// How a node came to begin when it did. Times are stamps of the stream: seconds since the run started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Begin {
    /// When all it takes was there and it was ready to begin.
    pub queued: f64,
    /// When it began.
    pub began: f64,
    /// The nodes that did something in this run and whose end it waited for, the last one first; at most two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What it waited for although it was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// What a node that was ready waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// `slot`, `memory`, `exclusive`, `device` (or an instance of a service), or `pool NAME`.
    pub by: String,
    /// The node whose end gave it free.
    pub node: String,
}

/// When a node did what it did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// When it was done: a stamp of the stream, a little earlier than that of this event.
    pub ended: f64,
    /// Seconds of the last attempt in its command or stage.
    pub execute: f64,
    /// Seconds of storing and publishing what it made.
    pub commit: f64,
    /// How it came to begin, if no `node_started` said so (it was restored).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<Begin>,
}

/// What `--check-determinism` found out about one node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeterminismReport {
    /// Node id.
    pub id: String,
    /// What was found.
    pub verdict: Determinism,
    /// Why it was not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds of each run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seconds: Vec<f64>,
    /// Outputs that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<OutputDifference>,
}

/// The verdict on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Determinism {
    /// Both runs made the same bytes.
    Same,
    /// They did not.
    Differs,
    /// It is not meant to, or could not be compared.
    Skipped,
    /// A run failed.
    Failed,
}

impl Determinism {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// Where one output of two runs differs first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutputDifference {
    /// Name of the output.
    pub output: String,
    /// Its declared path.
    pub path: String,
    /// The first differing file of a directory, relative to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// `content`, `only the first run made it`, ...
    pub what: String,
    /// First differing byte, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Its line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Digest of the file as the first run made it, or as it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// Digest of the file as the second run made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
    /// The differing lines, or what of them is near the difference; secrets masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// How many files differ.
    pub files: usize,
    /// What the difference looks like, and what to do about it.
    pub hints: Vec<String>,
}

/// Takes events; called from any thread.
pub trait Sink: Send + Sync {
    /// One event.
    fn emit(&self, event: Event);

    /// When its clock stood at zero.
    fn begun(&self) -> Instant;
}
