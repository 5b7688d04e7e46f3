//! A result row: what a key gave. Unaware of how it is stored and of what makes a key.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::LOCAL;
use crate::model::Artifact;

/// Version of [`ResultRecord`]; raised when a field changes its meaning.
pub const RESULT_VERSION: u32 = 1;

/// The recorded result of one key. It is valid alone: nothing else in the index is needed to use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultRecord {
    /// Of this form, as the engine counts it.
    pub version: u32,
    /// Id of the node that made it; another node with an equal key uses it too.
    pub node: String,
    /// Id of the run that made it.
    pub run: String,
    /// When it was made, ns since 1970.
    pub made_at_ns: i64,
    /// When it was last found to be valid (policy `validate`), ns since 1970.
    pub checked_at_ns: i64,
    /// How long the successful attempt took.
    pub seconds: f64,
    /// Output name and content, in the order of the declaration.
    pub outputs: Vec<(String, Artifact)>,
    /// What the stage recorded beside its outputs (validators, provenance, metrics).
    /// A member `"policy": "sample"` makes `gc` spare the bytes of its outputs.
    pub record: Map<String, Value>,
}

impl ResultRecord {
    /// True for a measurement, whose bytes cannot be made again.
    pub fn is_sample(&self) -> bool {
        self.record.get("policy").and_then(Value::as_str) == Some("sample")
    }

    /// True for a result that stands in the workspace that made it only (the stage said so): whatever hands results on to others passes it over.
    pub fn is_local(&self) -> bool {
        self.record.contains_key(LOCAL)
    }
}
