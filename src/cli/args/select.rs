//! A workflow file, its parameters, and which of its nodes: the arguments that commands share. Unaware of what a node is.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::later::LaterOptions;
use super::values;

/// A workflow file and how its parameters are set.
#[derive(Args, Clone, Debug)]
pub struct FileArgs {
    /// Workflow file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Set a parameter (`prefix.KEY` for one of an include); the value is JSON if it parses, else text. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::setting)]
    pub set: Vec<(String, Value)>,
    /// Apply a profile of the workflow.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Parameters from a JSON file; `--set` wins over it. Repeatable, the last one wins.
    #[arg(long, value_name = "FILE")]
    pub params: Vec<PathBuf>,
    /// Devices that may be leased: `gpu:auto`, `gpu:0,2,3` of the machine, `gpu:8` for eight virtual ones [default: what the
    /// workflow says, else gpu:auto].
    #[arg(long, value_name = "SPEC")]
    pub devices: Option<String>,
    /// The hardware that measurements are asked for, as `flow devices --json` printed it there: none is made, those that are
    /// missing fail.
    #[arg(long, value_name = "FILE")]
    pub hardware: Option<PathBuf>,
}

/// Options that `run` and `plan` have in common.
#[derive(Args, Clone, Debug)]
pub struct SelectArgs {
    /// The workflow.
    #[command(flatten)]
    pub workflow: FileArgs,
    /// Node id, step id, output path or pattern (`*`, `?`, `{a,b}`); `+T` adds what T needs, `T+` what needs T [default: all].
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Nodes to run although their results are known; their results are written.
    #[arg(long, value_name = "PATTERN", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    pub force: Option<String>,
    /// Measure samples that match PATTERN again.
    #[arg(long, value_name = "PATTERN")]
    pub remeasure: Option<String>,
    /// Record what lies in the places of all outputs as the result of nodes that match PATTERN and have none: nothing runs.
    #[arg(long, value_name = "PATTERN", conflicts_with = "no_cache")]
    pub adopt: Option<String>,
    /// Neither read nor write results of the cache.
    #[arg(long)]
    pub no_cache: bool,
    /// Ask nobody whether a result is still valid; it is used as it is.
    #[arg(long)]
    pub offline: bool,
    /// Whose outputs are brought into place [default: all without TARGET, else targets].
    #[arg(long, value_name = "WHICH")]
    pub restore: Option<Restore>,
    #[command(flatten)]
    pub(super) later: LaterOptions,
}

/// Whose outputs are brought into place.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// Of all nodes.
    All,
    /// Of the targets.
    Targets,
}
