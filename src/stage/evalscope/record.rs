//! What one run directory comes to: the output of `evalscope.collect`, the input of the tables.

use indexmap::{IndexMap, IndexSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::database::Found;
use super::percentiles;
use crate::api::{StageContext, StageError};

/// Something wrong with a run directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Problem {
    /// The run directory, relative to the results directory.
    pub(super) dir: String,
    /// The file in it.
    pub(super) file: String,
    pub(super) reason: Reason,
    /// Whether the run is in the tables nevertheless.
    pub(super) kept: bool,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    InvalidJson,
    WrongType,
    Missing,
    UnreadableDb,
    NoTable,
    /// No request succeeded: not in the statistics.
    NoSuccess,
}

/// One run directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Relative to the results directory.
    pub(super) dir: String,
    pub(super) problems: Vec<Problem>,
    /// `None` if the run is left out.
    pub(super) run: Option<Run>,
}

impl Record {
    /// It is no place of a run.
    pub(super) fn passed_over(&self) -> bool {
        self.run.is_none() && self.problems.is_empty()
    }
}

/// A run that is in the tables.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// The versions of evalscope that write such files.
    pub(super) family: String,
    /// How many requests were asked for.
    pub(super) number: Value,
    /// Columns of the raw table, in order, without the percentiles.
    pub(super) row: IndexMap<String, Value>,
    /// Percentile columns, in order; `null` is NaN.
    pub(super) percentiles: IndexMap<String, Value>,
    /// Whether a request succeeded.
    pub(super) succeeded: bool,
    /// From the database, if it could be read.
    pub(super) requests: Option<Requests>,
}

/// Counts of the requests of a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Requests {
    pub(super) requests: u64,
    pub(super) succeeded: u64,
    /// Succeeded within all limits; there if limits were given.
    pub(super) conforming: Option<u64>,
}

impl Requests {
    pub(super) fn new(found: &Found, limits: bool) -> Self {
        Self {
            requests: found.requests,
            succeeded: found.succeeded,
            conforming: limits.then_some(found.conforming),
        }
    }
}

/// Which tables are wanted, and in which format.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Which formats are written: outputs of the other are left out, if they are optional.
    #[serde(default)]
    pub(super) format: Format,
    /// Which tables are written.
    #[serde(default)]
    pub(super) data: Data,
}

/// Formats of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Csv,
    Json,
    #[default]
    Both,
}

/// Tables of evalscope runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Data {
    /// A row per run.
    Raw,
    /// A row per configuration.
    Stats,
    #[default]
    Both,
}

impl Wanted {
    /// Whether tables that are no `other` are wanted as CSV, and as JSON.
    pub(super) fn formats(self, other: Data) -> (bool, bool) {
        let any = self.data != other;
        (any && self.format != Format::Json, any && self.format != Format::Csv)
    }
}

/// The records of the input `runs`, in the order of the tables: by path, part by part.
pub(super) fn read(ctx: &StageContext) -> Result<Vec<Record>, StageError> {
    let mut records = Vec::new();
    for file in ctx.files("runs") {
        let record: Record = serde_json::from_slice(&file.read()?).map_err(|e| {
            StageError::new(format!("{}:{}: {e}", file.name, e.line()))
                .hint("give the outputs of evalscope.collect")
        })?;
        records.push(record);
    }
    records.sort_by(|a, b| a.dir.split('/').cmp(b.dir.split('/')));
    Ok(records)
}

/// All percentile columns of several runs, in the order of the table.
pub(super) fn percentile_columns<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<&'r str> {
    let columns: IndexSet<&str> = runs.flat_map(|run| run.percentiles.keys().map(String::as_str)).collect();
    let mut columns: Vec<&str> = columns.into_iter().collect();
    columns.sort_by(|a, b| percentiles::order(a, b));
    columns
}
