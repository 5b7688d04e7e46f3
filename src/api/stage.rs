//! The stage trait, its errors, and the catalog through which the engine sees stages.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Signature, StageContext};

/// A built-in or user-made stage. Its outputs are a pure function of its key wherever the domain allows.
pub trait Stage: Send + Sync {
    /// `domain.verb`, e.g. `csv.join`; with the version part of every key.
    fn name(&self) -> &'static str;

    /// Raised whenever the same inputs could give other bytes.
    fn version(&self) -> u32;

    /// Inputs, outputs, parameters, default policy.
    fn signature(&self) -> Signature;

    /// Checks parameters before anything runs. Late references are present as their identity text.
    fn check(&self, with: &Value) -> Result<(), ParamFault>;

    /// Does the work: reads `ctx.input(..)`, writes `ctx.output(..)`. With `ctx.previous` (policy validate, equal key)
    /// it may answer [`Done::Unchanged`].
    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError>;
}

/// How an attempt ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The outputs were written.
    Made,
    /// The previous result stands (only with `ctx.previous`).
    Unchanged,
}

/// A parameter that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamFault {
    /// Place inside `with`, e.g. `expect.min_bytes`; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// A failed attempt.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// What is wrong: names file, place and what was expected. May have several lines.
    pub message: String,
    /// What to try.
    pub hints: Vec<String>,
    /// Trying again could help (a 503, a broken connection).
    pub retryable: bool,
    /// The server asked to wait this long.
    pub retry_after: Option<std::time::Duration>,
}

impl StageError {
    /// A failure that would only repeat.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new(), retryable: false, retry_after: None }
    }

    /// A failure that may pass.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(message) }
    }

    /// A failed system call on a file.
    pub fn io(what: &str, path: &std::path::Path, cause: impl std::fmt::Display) -> Self {
        Self::new(format!("failed to {what} {}: {cause}", path.display()))
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// Reads typed parameters, naming the place of the first one that does not fit.
pub fn parse_params<P: DeserializeOwned>(with: &Value) -> Result<P, ParamFault> {
    serde_path_to_error::deserialize(with.clone()).map_err(|error| ParamFault {
        path: match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        },
        message: error.inner().to_string(),
    })
}

/// `with` where a secret (`{"secret": ..}`) that is not filled in yet stands as text, so that types can be checked.
pub fn secrets_as_text(with: &Value) -> Value {
    match with {
        Value::Object(map) if map.get("secret").is_some_and(Value::is_string) => Value::from("secret"),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), secrets_as_text(v))).collect(),
        other => other.clone(),
    }
}

/// [`Stage::check`] of a stage whose parameters `P` say all there is to check.
pub fn check_params<P: DeserializeOwned>(with: &Value) -> Result<(), ParamFault> {
    parse_params::<P>(with).map(drop)
}

/// A built-in service simulator, as `flow check` and the docs see it.
#[derive(Clone)]
pub struct SimulatorInfo {
    /// `sim.http`
    pub name: &'static str,
    /// Part of the identity of every service that uses it.
    pub version: u32,
    /// One line.
    pub doc: &'static str,
    /// JSON Schema of its parameters.
    pub params: schemars::Schema,
    /// Checks parameters.
    pub check: fn(&Value) -> Result<(), ParamFault>,
}

/// A stage and, once it was asked for, its signature: making the schema of the parameters takes longer than most of a node's expansion.
#[derive(Clone)]
struct Known {
    stage: Arc<dyn Stage>,
    signature: Arc<OnceLock<Signature>>,
}

/// All stages and simulators by name.
#[derive(Clone, Default)]
pub struct Catalog {
    stages: BTreeMap<&'static str, Known>,
    simulators: BTreeMap<&'static str, SimulatorInfo>,
}

impl Catalog {
    /// Adds a stage; a later one of the same name replaces the earlier.
    pub fn add(&mut self, stage: impl Stage + 'static) {
        let known = |stage| Known { stage, signature: Arc::default() };
        self.stages.insert(stage.name(), known(Arc::new(stage)));
    }

    /// Adds a simulator.
    pub fn add_simulator(&mut self, info: SimulatorInfo) {
        self.simulators.insert(info.name, info);
    }

    /// The stage of this name.
    pub fn stage(&self, name: &str) -> Option<&Arc<dyn Stage>> {
        self.stages.get(name).map(|known| &known.stage)
    }

    /// The signature of the stage of this name.
    pub fn signature(&self, name: &str) -> Option<&Signature> {
        self.stages.get(name).map(|known| known.signature.get_or_init(|| known.stage.signature()))
    }

    /// The simulator of this name.
    pub fn simulator(&self, name: &str) -> Option<&SimulatorInfo> {
        self.simulators.get(name)
    }

    /// All stages in name order.
    pub fn stages(&self) -> impl Iterator<Item = &Arc<dyn Stage>> {
        self.stages.values().map(|known| &known.stage)
    }

    /// All simulators in name order.
    pub fn simulators(&self) -> impl Iterator<Item = &SimulatorInfo> {
        self.simulators.values()
    }
}
