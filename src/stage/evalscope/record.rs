//! What one run directory comes to: the output of `evalscope.collect`, the input of the tables.

use indexmap::IndexSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::{Cell, Columns};
use super::percentiles;
use crate::api::{InputFile, StageContext, StageError};
use crate::stage::metrics::slo::Slo;
use crate::stage::table::percentile::Rule;

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
    /// How many requests it is about, if it is not about the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<u64>,
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
    /// Lists of token times in the database are no lists of numbers: left out of the percentiles.
    UnreadableTokens,
    /// No request succeeded: not in the statistics.
    NoSuccess,
    /// Samples of GPU memory that lack a GPU of the others: left out.
    IncompleteSamples,
    /// flow wrote the run from a load that its client could not keep up with: the numbers say little of the server.
    ClientBound,
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
    pub(super) number: Cell,
    /// Columns of the raw table, in order, without the percentiles.
    pub(super) row: Columns,
    /// Percentile columns, in order; `null` is NaN.
    pub(super) percentiles: Columns,
    /// Whether a request succeeded.
    pub(super) succeeded: bool,
    /// From the database; from the summary where that could not be read; `None` if it does not say so either.
    pub(super) requests: Option<Requests>,
    /// The limits that the requests were held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slo: Option<Slo>,
    /// Percentiles of the requests in the database, if they were asked for and it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) recomputed: Option<Recomputed>,
}

/// Percentiles by one named rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Recomputed {
    pub(super) rule: Rule,
    /// Of how many successful requests.
    pub(super) requests: u64,
    /// Named as the columns of the raw table; `null` is NaN.
    pub(super) columns: Columns,
}

/// Counts of the requests of a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Requests {
    pub(super) requests: u64,
    pub(super) succeeded: u64,
    /// Succeeded within all limits; there if limits were given and the database could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) conforming: Option<u64>,
}

impl Requests {
    /// Requests that did not succeed.
    pub(super) fn failed(&self) -> u64 {
        self.requests.saturating_sub(self.succeeded)
    }

    /// The share of requests that failed; `None` of no requests.
    pub(super) fn failure_rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.failed() as f64 / self.requests as f64)
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

/// Columns of the raw table that name a run.
pub(super) const NAMES: [&str; 6] =
    ["timestamp", "config", "model", "parallel", "prompt_length", "max_tokens"];

/// The records of the input `runs`, in the order of the tables: by path, part by part.
pub(super) fn read(ctx: &StageContext) -> Result<Vec<Record>, StageError> {
    let read =
        |file: &InputFile| file.read_json().map_err(|e| e.hint("give the outputs of evalscope.collect"));
    let mut records: Vec<Record> = ctx.files("runs").iter().map(read).collect::<Result<_, _>>()?;
    records.sort_by(|a, b| a.dir.split('/').cmp(b.dir.split('/')));
    Ok(records)
}

/// All percentile columns of several runs, in the order of the table.
pub(super) fn percentile_columns<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<&'r str> {
    in_order(runs.map(|run| &run.percentiles))
}

/// Finds the cells of a header in runs. Where they are is found once for all runs whose columns have the same names.
pub(super) struct Finder<'h> {
    header: &'h [&'h str],
    /// Runs with other names each, and the places of their cells.
    known: Vec<(&'h Run, Vec<Place>)>,
}

#[derive(Clone, Copy)]
enum Place {
    Row(usize),
    Percentiles(usize),
    Nowhere,
}

impl<'h> Finder<'h> {
    pub(super) fn new(header: &'h [&'h str]) -> Self {
        Self { header, known: Vec::new() }
    }

    /// The cell of each column; `None`: the run lacks it.
    pub(super) fn cells<'f>(
        &'f mut self,
        run: &'h Run,
    ) -> impl Iterator<Item = Option<&'h Cell>> + use<'f, 'h> {
        let alike =
            |(other, _): &(&Run, _)| run.row.shares(&other.row) && run.percentiles.shares(&other.percentiles);
        let found = self.known.iter().position(alike).unwrap_or_else(|| {
            let place = |column: &&str| {
                let of_percentiles = || run.percentiles.place(column).map(Place::Percentiles);
                run.row.place(column).map(Place::Row).or_else(of_percentiles).unwrap_or(Place::Nowhere)
            };
            self.known.push((run, self.header.iter().map(place).collect()));
            self.known.len() - 1
        });
        self.known[found].1.iter().map(|place| match *place {
            Place::Row(at) => Some(run.row.at(at)),
            Place::Percentiles(at) => Some(run.percentiles.at(at)),
            Place::Nowhere => None,
        })
    }
}

/// Each of the percentile columns once, in the order of the table.
pub(super) fn in_order<'r>(all: impl Iterator<Item = &'r Columns>) -> Vec<&'r str> {
    let mut columns: IndexSet<&str> = IndexSet::new();
    let mut seen: Vec<&Columns> = Vec::new();
    for found in all {
        if !seen.iter().any(|other| other.shares(found)) {
            columns.extend(found.names());
            seen.push(found);
        }
    }
    let mut columns: Vec<&str> = columns.into_iter().collect();
    columns.sort_by(|a, b| percentiles::order(a, b));
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_a_whole_file_is_written_as_ever() {
        let text = r#"{"dir":"d","file":"f","reason":"no_table","kept":true}"#;
        let old: Problem = serde_json::from_str(text).unwrap();
        assert_eq!((old.requests, serde_json::to_string(&old).unwrap().as_str()), (None, text));
        let new = Problem { reason: Reason::UnreadableTokens, requests: Some(2), ..old };
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(text, r#"{"dir":"d","file":"f","reason":"unreadable_tokens","kept":true,"requests":2}"#);
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), new);
    }
}
