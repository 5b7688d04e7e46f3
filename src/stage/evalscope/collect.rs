//! `evalscope.collect`: one run directory as a small record. Unaware of the other runs.

use std::path::Path;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::database::{self, Slo, Unusable};
use super::lenient::{self, Number};
use super::record::{Problem, Reason, Record, Requests, Run};
use super::{fields, percentiles};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};

/// The stage.
pub(super) struct Collect;

/// The files of a run.
const SUMMARY: &str = "benchmark_summary.json";
const ARGS: &str = "benchmark_args.json";
const PERCENTILE: &str = "benchmark_percentile.json";
const DATABASE: &str = "benchmark_data.db";

/// Prompts of more code points are long.
const LONG: usize = 50;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The run directory relative to the results directory: `<config>/<YYYYMMDD_HHMMSS>/<model>` or deeper. The name of a file in
    /// it will do.
    dir: String,
    /// Limits in seconds: how many requests kept them is counted.
    slo: Option<Slo>,
}

impl Params {
    fn dir(&self) -> &str {
        let dir = self.dir.trim_end_matches('/');
        [SUMMARY, ARGS].iter().find_map(|file| dir.strip_suffix(file)?.strip_suffix('/')).unwrap_or(dir)
    }
}

/// Where a run directory lies.
struct Place<'a> {
    config: String,
    timestamp: &'a str,
    folder: &'a str,
}

/// The parts of a path relative to the results directory; `None` if it is no place of a run.
fn place(dir: &str) -> Option<Place<'_>> {
    let parts: Vec<&str> = dir.split('/').collect();
    let at = parts.iter().position(|part| is_timestamp(part)).filter(|at| *at > 0)?;
    let folder = parts.get(at + 1)?;
    Some(Place { config: parts[..at].join("/"), timestamp: parts[at], folder })
}

/// `YYYYMMDD_HHMMSS`
fn is_timestamp(part: &str) -> bool {
    part.len() == 15
        && part.bytes().enumerate().all(|(i, b)| if i == 8 { b == b'_' } else { b.is_ascii_digit() })
}

impl Stage for Collect {
    fn name(&self) -> &'static str {
        "evalscope.collect"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Reads one run directory of `evalscope perf` (0.17 to 1.14) into a small record.\n\
                \n\
                Keys of all versions become the same columns in seconds. Bare NaN and Infinity are understood. A damaged\n\
                summary, args or percentile file leaves the run out; a database that is missing or cannot be read gives GPU memory 0 and keeps it;\n\
                both are listed as problems. Of the args only model, parallel, number, max_tokens and the length of the prompt are taken:\n\
                keys and headers stay where they are. The database is opened read-only, and as immutable where no -wal or -journal lies beside it.",
        )
        .input("run", "the run directory")
        .output("record", "JSON: columns, percentiles, counts of requests, problems")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        let limits = params.slo.map_or([None; 3], |slo| [slo.ttft, slo.tpot, slo.e2el]);
        if params.slo.is_some() && limits.iter().all(Option::is_none) {
            return Err(ParamFault {
                path: "slo".into(),
                message: "expected at least one of ttft, tpot, e2el".into(),
            });
        }
        if limits.iter().flatten().any(|limit| !(*limit > 0.0 && limit.is_finite())) {
            return Err(ParamFault {
                path: "slo".into(),
                message: "a limit is a number of seconds above 0".into(),
            });
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let record = collect(&ctx.input("run")?.path, params.dir(), params.slo);
        if record.passed_over() {
            ctx.log(format!(
                "passed over: {} is no place of a run (<config>/<YYYYMMDD_HHMMSS>/<model> or deeper)",
                record.dir
            ));
        }
        for problem in &record.problems {
            let what = if problem.kept { "warning" } else { "left out" };
            ctx.log(format!("{what}: {}/{}: {}", problem.dir, problem.file, json!(problem.reason)));
        }
        ctx.write_json("record", &record)?;
        Ok(Done::Made)
    }
}

/// A JSON file of a run; `Err` says why it is none.
fn json_file(path: &Path) -> Result<Value, Reason> {
    match std::fs::read(path) {
        Ok(bytes) => lenient::parse(&bytes).map_err(|_| Reason::InvalidJson),
        Err(_) => Err(Reason::Missing),
    }
}

fn object(value: Value) -> Result<Map<String, Value>, Reason> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Reason::WrongType),
    }
}

/// Reads a directory; what is wrong with it is in the record. One that is no place of a run is passed over.
fn collect(path: &Path, dir: &str, slo: Option<Slo>) -> Record {
    let Some(place) = place(dir) else {
        return Record { dir: dir.to_owned(), problems: Vec::new(), run: None };
    };
    let mut problems = Vec::new();
    let mut problem = |file: &str, reason, kept| {
        problems.push(Problem { dir: dir.to_owned(), file: file.to_owned(), reason, kept });
    };
    let summary = json_file(&path.join(SUMMARY)).and_then(object);
    let args = json_file(&path.join(ARGS)).and_then(object);
    let columns = match json_file(&path.join(PERCENTILE)) {
        Ok(value) => percentiles::columns(&value).ok_or(Reason::WrongType),
        Err(Reason::Missing) => {
            if summary.is_ok() && args.is_ok() {
                problem(PERCENTILE, Reason::Missing, true);
            }
            Ok(Vec::new())
        }
        Err(reason) => Err(reason),
    };
    let (summary, args, columns) = match (summary, args, columns) {
        (Ok(summary), Ok(args), Ok(columns)) => (summary, args, columns),
        (summary, args, columns) => {
            for (file, fault) in [(SUMMARY, summary.err()), (ARGS, args.err()), (PERCENTILE, columns.err())] {
                if let Some(reason) = fault {
                    problem(file, reason, false);
                }
            }
            return Record { dir: dir.to_owned(), problems, run: None };
        }
    };
    let mut values = IndexMap::new();
    for (column, keys) in fields::COLUMNS {
        match fields::value(&summary, keys) {
            Ok(number) => values.insert(column, number),
            Err(_) => {
                problem(SUMMARY, Reason::WrongType, false);
                return Record { dir: dir.to_owned(), problems, run: None };
            }
        };
    }
    let scanned = database::scan(&path.join(DATABASE), slo);
    if let Err(unusable) = scanned {
        let reason = match unusable {
            Unusable::Missing => Reason::Missing,
            Unusable::Unreadable => Reason::UnreadableDb,
            Unusable::NoTable => Reason::NoTable,
        };
        problem(DATABASE, reason, true);
    }
    let requests = values["requests"].as_f64();
    let succeeded = fields::succeeded(&summary).is_none_or(|count| count > 0 || requests == 0.0);
    if !succeeded {
        problem(SUMMARY, Reason::NoSuccess, true);
    }
    let model = args.get("model").and_then(Value::as_str).unwrap_or(place.folder);
    let prompt_length = match args.get("prompt") {
        None => "short",
        Some(Value::String(prompt)) if prompt.chars().count() > LONG => "long",
        Some(Value::String(_)) => "short",
        Some(_) => "unknown",
    };
    let of_args = |name: &str| args.get(name).filter(|value| value.is_number() || value.is_null()).cloned();
    let mut row: IndexMap<String, Value> = [
        ("timestamp", json!(place.timestamp)),
        ("config", json!(place.config)),
        ("model", json!(model)),
        ("parallel", of_args("parallel").unwrap_or(json!(0))),
        ("prompt_length", json!(prompt_length)),
        ("max_tokens", of_args("max_tokens").unwrap_or(json!(0))),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    row.extend(values.iter().map(|(name, number)| ((*name).to_owned(), number.json())));
    // evalscope never measures below 0, and 0 is what a missing measurement gives
    let gpu = scanned.ok().and_then(|found| found.gpu).unwrap_or_default();
    for (name, value) in ["avg_gpu_memory", "max_gpu_memory", "min_gpu_memory"].iter().zip(gpu) {
        let value = if value == 0.0 { Number::Int(0) } else { Number::Float(value) };
        row.insert((*name).to_owned(), value.json());
    }
    let run = Run {
        family: fields::family(&summary).to_owned(),
        number: of_args("number").unwrap_or(Value::Null),
        row,
        percentiles: columns.into_iter().map(|(name, number)| (name, number.json())).collect(),
        succeeded,
        requests: scanned.ok().map(|found| Requests::new(&found, slo.is_some())),
    };
    Record { dir: dir.to_owned(), problems, run: Some(run) }
}
