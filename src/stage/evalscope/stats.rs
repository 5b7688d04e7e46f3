//! `evalscope.stats`: the repeats of each configuration as mean, deviation and extremes. Unaware of how a run is read.

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::columns::Cell;
use super::record::{self, Data, Finder, Run, Wanted};
use super::sheet::{Row, Sheet};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, check_params};

/// The stage.
pub(super) struct Stats;

/// Fields with statistics, in order; percentile columns follow.
const FIELDS: [&str; 13] = [
    "output_throughput",
    "total_throughput",
    "request_throughput",
    "latency",
    "ttft",
    "token_latency",
    "inter_token_latency",
    "input_tokens",
    "output_tokens",
    "time_taken",
    "avg_gpu_memory",
    "max_gpu_memory",
    "min_gpu_memory",
];

impl Stage for Stats {
    fn name(&self) -> &'static str {
        "evalscope.stats"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Wanted>(
            "Statistics of evalscope runs with equal config, model, parallel, number of requests, prompt length and max_tokens.\n\
                \n\
                Of each field and percentile column: mean, sample standard deviation (n - 1; 0 for one run), min, max over the runs. NaN and\n\
                what a run lacks are left out; without any value the cell is empty (null in JSON). Runs in which no request succeeded are left\n\
                out, and a group that has only such runs is not there; evalscope.table names them. A percentile column is a statistic of\n\
                percentiles, not a percentile of all requests.",
        )
        .input_list("runs", "records of evalscope.collect")
        .optional_output("csv", "the statistics as CSV")
        .optional_output("json", "the statistics as JSON")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Wanted>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let records = record::read(ctx)?;
        let all: Vec<&Run> = records.iter().filter_map(|record| record.run.as_ref()).collect();
        let runs: Vec<&Run> = all.iter().copied().filter(|run| run.succeeded).collect();
        let mut groups: IndexMap<String, Vec<&Run>> = IndexMap::new();
        for run in &runs {
            groups.entry(group(run)).or_default().push(run);
        }
        let fields: Vec<&str> =
            FIELDS.into_iter().chain(record::percentile_columns(all.iter().copied())).collect();
        let mut finder = Finder::new(&fields);
        let rows = groups.values().map(|runs| row(runs, &mut finder));
        ctx.log(format!(
            "{} groups of {} runs; {} runs without a success left out",
            groups.len(),
            runs.len(),
            all.len() - runs.len()
        ));
        let names =
            ["config", "count", "model", "parallel", "prompt_length", "max_tokens"].map(str::to_owned);
        let header: Vec<String> =
            names.into_iter().chain(fields.iter().flat_map(|field| of_field(field))).collect();
        let (csv, json) = ctx.params::<Wanted>()?.formats(Data::Raw);
        let sheet = Sheet { csv: csv.then_some("csv"), json: json.then_some("json"), null: "" };
        sheet.write(ctx, &header, rows)?;
        Ok(Done::Made)
    }
}

/// What runs of a group have in common.
fn group(run: &Run) -> String {
    let of_row = |name: &str| run.row[name].json();
    json!([
        of_row("config"),
        of_row("model"),
        of_row("parallel"),
        run.number.json(),
        of_row("prompt_length"),
        of_row("max_tokens")
    ])
    .to_string()
}

fn of_field(field: &str) -> [String; 4] {
    ["avg", "std", "min", "max"].map(|statistic| format!("{field}_{statistic}"))
}

/// The cells of the header for one group.
fn row<'r>(runs: &[&'r Run], finder: &mut Finder<'r>) -> Row {
    let first = &runs[0].row;
    let mut row = vec![Some(first["config"].clone()), Some((runs.len() as u64).into())];
    row.extend(["model", "parallel", "prompt_length", "max_tokens"].map(|name| Some(first[name].clone())));
    let cells: Vec<Vec<Option<&Cell>>> = runs.iter().map(|run| finder.cells(run).collect()).collect();
    for field in 0..cells[0].len() {
        let values: Vec<f64> = cells.iter().filter_map(|cells| cells[field]?.as_f64()).collect();
        let statistics = spread(&values).map_or([const { Cell::Null }; 4], |found| found.map(Cell::from));
        row.extend(statistics.map(Some));
    }
    row
}

/// Mean, sample standard deviation, min, max; `None` of nothing.
fn spread(values: &[f64]) -> Option<[f64; 4]> {
    let n = values.len() as f64;
    // from the first on: equal values have a deviation of exactly 0
    let start = *values.first()?;
    let mean = start + values.iter().map(|value| value - start).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = if values.len() < 2 { 0.0 } else { (squares / (n - 1.0)).sqrt() };
    let lowest = values.iter().copied().reduce(f64::min)?;
    let highest = values.iter().copied().reduce(f64::max)?;
    Some([mean, deviation, lowest, highest])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Sums of integers are exact: n times the squares is a sum over all pairs.
        #[test]
        fn spread_by_pairs(values in prop::collection::vec(-1000i64..1000, 0..30)) {
            let floats: Vec<f64> = values.iter().map(|value| *value as f64).collect();
            let Some([mean, deviation, lowest, highest]) = spread(&floats) else {
                prop_assert!(values.is_empty());
                return Ok(());
            };
            let n = values.len() as i64;
            prop_assert!((mean * n as f64 - values.iter().sum::<i64>() as f64).abs() < 1e-6);
            let pairs: i64 = values.iter().flat_map(|a| values.iter().map(move |b| (a - b).pow(2))).sum();
            let expected = if n < 2 { 0.0 } else { (pairs as f64 / (2 * n * (n - 1)) as f64).sqrt() };
            prop_assert!((deviation - expected).abs() <= 1e-9 * (1.0 + expected), "{} {}", deviation, expected);
            prop_assert!(values.iter().all(|value| (lowest..=highest).contains(&(*value as f64))));
            prop_assert!(floats.contains(&lowest) && floats.contains(&highest));
        }
    }
}
