//! `evalscope.slo`: how many requests of each run kept the limits, and the highest concurrency that does. Unaware of how a run is read.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::columns::Cell;
use super::record::{self, Format, NAMES, Run};
use super::sheet::{Row, Sheet};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::stage::metrics::slo::Slo;

/// The stage.
pub(super) struct SloTable;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The limits that evalscope.collect was given. Null: nothing is written.
    slo: Option<Slo>,
    /// The share of requests that have to keep the limits for a concurrency to pass, above 0 and at most 1.
    #[serde(default = "Params::share")]
    share: f64,
    /// csv, json or both.
    #[serde(default)]
    format: Format,
}

impl Params {
    /// Limits of serving benchmarks are commonly meant for 99% of the requests.
    fn share() -> f64 {
        0.99
    }
}

impl Stage for SloTable {
    fn name(&self) -> &'static str {
        "evalscope.slo"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Which runs of evalscope kept limits (SLO), their goodput, and the highest concurrency that passes.\n\
                \n\
                Conforming: requests that succeeded and kept all limits; one that failed, or lacks a time that has a limit, does not conform.\n\
                share = conforming / requests; goodput = conforming / time_taken, in requests per second; a run passes if its share reaches\n\
                the parameter 'share'. A run whose database cannot be read has empty cells.\n\
                \n\
                Highest: runs with equal model, prompt length, max_tokens and config, where p<parallel> and n<number> in the config count as\n\
                equal; runs with equal concurrency are taken together. 'highest' is the highest concurrency that passes, empty if none does,\n\
                'first_failing' the lowest that does not.",
        )
        .input_list("runs", "records of evalscope.collect with the same limits")
        .optional_output("csv", "a row per run as CSV")
        .optional_output("json", "a row per run as JSON")
        .optional_output("highest", "the highest concurrency of each group as CSV")
        .optional_output("highest_json", "the same as JSON")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        if !(params.share > 0.0 && params.share <= 1.0) {
            return Err(ParamFault {
                path: "share".into(),
                message: "expected a share above 0, at most 1".into(),
            });
        }
        params.slo.map_or(Ok(()), |slo| slo.check())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let Some(slo) = params.slo else {
            ctx.log("no limits: nothing to say");
            return Ok(Done::Made);
        };
        let records = record::read(ctx)?;
        let runs: Vec<&Run> = records.iter().filter_map(|record| record.run.as_ref()).collect();
        if let Some(other) = runs.iter().find(|run| run.slo != Some(slo)) {
            return Err(StageError::new(format!(
                "the run {} {} was held against other limits",
                other.row["config"].text(),
                other.row["timestamp"].text()
            ))
            .hint("give evalscope.collect and evalscope.slo the same 'slo'"));
        }
        let (csv, json) = (params.format != Format::Json, params.format != Format::Csv);
        const LIMITS: [&str; 3] = ["slo_ttft", "slo_tpot", "slo_e2el"];
        let header: Vec<&str> = NAMES
            .into_iter()
            .chain(LIMITS)
            .chain(["requests", "failed", "conforming", "share", "goodput", "passes"])
            .collect();
        let sheet = Sheet { csv: csv.then_some("csv"), json: json.then_some("json"), null: "" };
        sheet.write(ctx, &header, runs.iter().map(|run| of_run(run, slo, params.share)))?;

        let mut groups: IndexMap<String, Vec<&Run>> = IndexMap::new();
        for run in &runs {
            groups.entry(json!(group(run).map(|cell| cell.json())).to_string()).or_default().push(run);
        }
        let header: Vec<&str> = ["config", "model", "prompt_length", "max_tokens"]
            .into_iter()
            .chain(LIMITS)
            .chain([
                "required_share",
                "runs",
                "unknown",
                "levels",
                "highest",
                "share",
                "goodput",
                "first_failing",
            ])
            .collect();
        let sheet = Sheet { csv: csv.then_some("highest"), json: json.then_some("highest_json"), null: "" };
        sheet.write(ctx, &header, groups.values().map(|runs| highest(runs, slo, params.share)))?;
        let unknown = runs.iter().filter(|run| conforming(run).is_none()).count();
        ctx.log(format!(
            "{} runs in {} groups; of {unknown} the database cannot be read",
            runs.len(),
            groups.len()
        ));
        Ok(Done::Made)
    }
}

/// Requests and those that conform, if that is known and there are any.
fn conforming(run: &Run) -> Option<(u64, u64)> {
    let counts = run.requests.filter(|counts| counts.requests > 0)?;
    Some((counts.requests, counts.conforming?))
}

/// Seconds that a run took, if that is known.
fn taken(run: &Run) -> Option<f64> {
    run.row["time_taken"].as_f64().filter(|seconds| *seconds > 0.0)
}

/// Requests per second; none conforming is 0, however long it took.
fn goodput(conforming: u64, seconds: Option<f64>) -> Cell {
    match conforming {
        0 => Cell::Float(0.0),
        _ => seconds.map(|seconds| conforming as f64 / seconds).into(),
    }
}

fn limits(slo: Slo) -> [Cell; 3] {
    slo.limits().map(|(_, limit)| limit.into())
}

fn of_run(run: &Run, slo: Slo, required: f64) -> Row {
    let known = conforming(run);
    let share = known.map(|(requests, conforming)| conforming as f64 / requests as f64);
    let cells: [Cell; 6] = [
        run.requests.map(|counts| counts.requests).into(),
        run.requests.map(|counts| counts.failed()).into(),
        known.map(|(_, conforming)| conforming).into(),
        share.into(),
        known.map_or(Cell::Null, |(_, conforming)| goodput(conforming, taken(run))),
        share.map(|share| share >= required).into(),
    ];
    NAMES.iter().map(|name| run.row[name].clone()).chain(limits(slo)).chain(cells).map(Some).collect()
}

/// What runs that differ in concurrency only have in common.
fn group(run: &Run) -> [Cell; 4] {
    let config = starred(&run.row["config"].text(), 'p', &run.row["parallel"].text());
    let config = starred(&config, 'n', &run.number.text());
    [
        config.as_str().into(),
        run.row["model"].clone(),
        run.row["prompt_length"].clone(),
        run.row["max_tokens"].clone(),
    ]
}

/// The config with `<letter>*` in the place of each word `<letter><number>`; words end at `_`, `-`, `.` and `/`.
fn starred(config: &str, letter: char, number: &str) -> String {
    let word = format!("{letter}{number}");
    config
        .split_inclusive(['_', '-', '.', '/'])
        .map(|part| match part.strip_prefix(&word) {
            Some(end) if end.is_empty() || end.len() == 1 && !end.chars().all(char::is_alphanumeric) => {
                format!("{letter}*{end}")
            }
            _ => part.to_owned(),
        })
        .collect()
}

/// The runs of a group with one concurrency, together.
struct Level {
    parallel: f64,
    cell: Cell,
    requests: u64,
    conforming: u64,
    /// Of all its runs; `None` if that of one is not known.
    seconds: Option<f64>,
}

impl Level {
    fn share(&self) -> f64 {
        self.conforming as f64 / self.requests as f64
    }
}

fn highest(runs: &[&Run], slo: Slo, required: f64) -> Row {
    let mut levels: Vec<Level> = Vec::new();
    let mut unknown = 0_u64;
    for run in runs {
        let cell = &run.row["parallel"];
        let (Some(parallel), Some((requests, conforming))) = (cell.as_f64(), conforming(run)) else {
            unknown += 1;
            continue;
        };
        match levels.iter_mut().find(|known| known.parallel == parallel) {
            Some(known) => {
                known.requests += requests;
                known.conforming += conforming;
                known.seconds = known.seconds.zip(taken(run)).map(|(sum, seconds)| sum + seconds);
            }
            None => {
                levels.push(Level { parallel, cell: cell.clone(), requests, conforming, seconds: taken(run) })
            }
        }
    }
    levels.sort_by(|a, b| a.parallel.total_cmp(&b.parallel));
    let best = levels.iter().rev().find(|level| level.share() >= required);
    let failing = levels.iter().find(|level| level.share() < required);
    let cells: [Cell; 8] = [
        required.into(),
        (runs.len() as u64).into(),
        unknown.into(),
        (levels.len() as u64).into(),
        best.map_or(Cell::Null, |level| level.cell.clone()),
        best.map(Level::share).into(),
        best.map_or(Cell::Null, |level| goodput(level.conforming, level.seconds)),
        failing.map_or(Cell::Null, |level| level.cell.clone()),
    ];
    group(runs[0]).into_iter().chain(limits(slo)).chain(cells).map(Some).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_config() {
        for (config, expected) in [
            ("p32_n100_dp_long", "p*_n100_dp_long"),
            ("x/p32", "x/p*"),
            ("p32", "p*"),
            ("p320_p32x_ap32", "p320_p32x_ap32"),
            ("tp8-p32-p32.b", "tp8-p*-p*.b"),
        ] {
            assert_eq!(starred(config, 'p', "32"), expected);
        }
    }
}
