//! `evalscope.table`: all runs side by side, and what was wrong with them. Unaware of how a run is read.

use std::collections::HashSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::columns::Cell;
use super::record::{self, Data, Finder, Format, NAMES, Problem, Reason, Record, Run, Wanted};
use super::sheet::{self, Sheet};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::base::files::normalize;
use crate::stage::table::csv::{LineEnd, TableWriter};

/// The stage.
pub(super) struct Table;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Fail if there is any problem; the problems are written all the same.
    #[serde(default)]
    strict: bool,
    /// The results directory: directories are shown relative to it.
    #[serde(default)]
    results: String,
    /// csv, json or both.
    #[serde(default)]
    format: Format,
    /// Nothing but problems is written if it is `stats`.
    #[serde(default)]
    data: Data,
    /// Write the long table, too.
    #[serde(default)]
    tidy: bool,
}

impl Stage for Table {
    fn name(&self) -> &'static str {
        "evalscope.table"
    }

    fn version(&self) -> u32 {
        3
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "The raw table of evalscope runs: a row per run, in the order of their paths.\n\
                \n\
                Columns: timestamp, config, model, parallel, prompt_length, max_tokens, requests, times in seconds, throughputs in tokens or\n\
                requests per second, GPU memory, then the union of all runs' percentile columns. NaN is 'nan' in CSV and null in JSON; what a\n\
                run lacks is an empty cell or no key. Tidy: one line per run and\n\
                metric, with its unit; written if the parameter 'tidy' says so.\n\
                \n\
                Problems: [{\"dir\", \"file\", \"reason\", \"kept\"}], with \"requests\" (how many) where single requests are meant. It is an error that no run was found.",
        )
        .input_list("runs", "records of evalscope.collect")
        .input_list("args", "all benchmark_args.json: a directory that has one and no summary is listed as a problem")
        .optional_output("csv", "the table as CSV")
        .optional_output("json", "the table as JSON")
        .optional_output("tidy", "CSV: a line per run and metric (config, model, ..., metric, value, unit), with the versions that write such files and the share of failed requests")
        .optional_output("problems", "JSON: what was wrong; declare it 'on_failure' to keep it when the stage fails")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Params>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let records = record::read(ctx)?;
        let mut problems: Vec<Problem> = records.iter().flat_map(|record| record.problems.clone()).collect();
        problems.extend(without_summary(ctx, &params.results, &records));
        problems.sort();
        let runs: Vec<(&Record, &Run)> =
            records.iter().filter_map(|r| r.run.as_ref().map(|run| (r, run))).collect();
        ctx.write_json("problems", &problems)?;
        ctx.log(format!(
            "{} runs; {} problems, of which {} leave a run out; {} directories passed over as no place of a run",
            runs.len(),
            problems.len(),
            problems.iter().filter(|problem| !problem.kept).count(),
            records.iter().filter(|record| record.passed_over()).count()
        ));
        if let Some(first) = problems.first().filter(|_| params.strict) {
            return Err(StageError::new(format!(
                "{} problems (strict), the first: {}/{}: {}",
                problems.len(),
                first.dir,
                first.file,
                json!(first.reason).as_str().unwrap_or_default()
            ))
            .hint("the output 'problems' lists them all"));
        }
        if runs.is_empty() {
            return Err(StageError::new(format!("no run found in '{}'", params.results)).hint(
                "a run is a directory <config>/<YYYYMMDD_HHMMSS>/<model> or deeper with benchmark_summary.json and benchmark_args.json",
            ));
        }
        let percentiles = record::percentile_columns(runs.iter().map(|(_, run)| *run));
        let columns: Vec<&str> = runs[0].1.row.names().chain(percentiles).collect();
        let mut finder = Finder::new(&columns);
        let rows = runs.iter().map(|(_, run)| finder.cells(run).collect::<Vec<_>>());
        let (csv, json) = Wanted { format: params.format, data: params.data }.formats(Data::Stats);
        let sheet = Sheet { csv: csv.then_some("csv"), json: json.then_some("json"), null: "nan" };
        sheet.write(ctx, &columns, rows)?;
        if params.tidy {
            tidy(ctx, &runs)?;
        }
        Ok(Done::Made)
    }
}

/// Directories with args that no record is of.
fn without_summary(ctx: &StageContext, results: &str, records: &[Record]) -> Vec<Problem> {
    let prefix = normalize(Path::new(results));
    let dirs = ctx.files("args").iter().filter_map(|file| {
        let name = if file.name.contains('/') { &*file.name } else { file.path.to_str()? };
        let dir = normalize(Path::new(name).parent()?);
        Some(dir.strip_prefix(&prefix).unwrap_or(&dir).to_str()?.to_owned())
    });
    let known: HashSet<&str> = records.iter().map(|record| &*record.dir).collect();
    dirs.filter(|dir| !known.contains(&**dir))
        .map(|dir| Problem {
            dir,
            file: "benchmark_summary.json".into(),
            reason: Reason::Missing,
            kept: false,
            requests: None,
        })
        .collect()
}

/// The long form.
fn tidy(ctx: &StageContext, runs: &[(&Record, &Run)]) -> Result<(), StageError> {
    let Some((name, file)) = sheet::open(ctx, Some("tidy"))? else { return Ok(()) };
    let mut writer = TableWriter::new(file, name, LineEnd::Crlf);
    let of_metric = ["failure_rate", "metric", "value", "unit"];
    writer.row(["dir", "versions"].iter().chain(&NAMES).chain(&of_metric))?;
    for (record, run) in runs {
        let named = NAMES.iter().map(|name| run.row[name].text());
        let rate = run.requests.and_then(|counts| counts.failure_rate());
        let rate = rate.map_or_else(String::new, |rate| Cell::from(rate).text());
        let lead: Vec<String> =
            [record.dir.clone(), run.family.clone()].into_iter().chain(named).chain([rate]).collect();
        let metrics = run.row.iter().filter(|(name, _)| !NAMES.contains(name));
        for (metric, value) in metrics.chain(run.percentiles.iter()) {
            let value = value.text();
            writer.row(lead.iter().map(String::as_str).chain([metric, &value, unit(metric)]))?;
        }
    }
    sheet::close(name, writer.finish()?)
}

/// The unit of a column; empty for a metric that only a later version of evalscope knows.
fn unit(metric: &str) -> &'static str {
    // a percentile column ends like its metric
    match metric {
        "requests" => "requests",
        "request_throughput" => "req/s",
        "output_throughput" | "total_throughput" => "tok/s",
        "time_taken" | "latency" | "ttft" | "token_latency" | "inter_token_latency" => "s",
        _ if metric.ends_with("(tok/s)") => "tok/s",
        _ if metric.ends_with("_tokens") => "tokens",
        _ if metric.ends_with("_gpu_memory") => "GiB",
        _ if metric.ends_with('_') => "s",
        _ => "",
    }
}
