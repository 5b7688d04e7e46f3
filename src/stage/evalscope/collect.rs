//! `evalscope.collect`: the files of one run directory as a small record. Unaware of the other runs.

use std::path::Path;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::columns::{Cell, Columns};
use super::database::{self, Unusable};
use super::lenient::{self, Number};
use super::options::At;
use super::record::{Problem, Reason, Record, Requests, Run};
use super::tally::Tally;
use super::{fields, gpu_samples, percentiles};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::stage::metrics::slo::Slo;

/// The stage.
pub(super) struct Collect;

/// The files of a run.
const SUMMARY: &str = "benchmark_summary.json";
const ARGS: &str = "benchmark_args.json";
const PERCENTILE: &str = "benchmark_percentile.json";
const DATABASE: &str = "benchmark_data.db";

/// No JSON file of the tool has so many bytes.
const LONGEST: u64 = 64 << 20;

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
    /// Percentiles that are computed from the requests in the database, by one rule for all versions.
    percentiles: Option<At>,
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
    // the first part is of the config, whatever it looks like
    let at = 1 + parts.iter().skip(1).position(|part| is_timestamp(part))?;
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
        5
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Reads one run directory of `evalscope perf` (0.17 to 1.14) into a small record.\n\
                \n\
                Keys of all versions become the same columns in seconds. Bare NaN and Infinity are understood. A damaged\n\
                summary, args or percentile file leaves the run out; a database that is missing or cannot be read gives GPU memory 0 and keeps it;\n\
                both are listed as problems. So are, where percentiles are asked for, requests whose list of token times is no list of numbers: it is\n\
                left out of itl_; and a run that flow's own load wrote although its client could not keep up. Of the args only\n\
                model, parallel, number, max_tokens and the length of the prompt are taken: keys and headers stay where they are. The database is opened read-only, and as immutable where no -wal or -journal lies beside it.\n\
                \n\
                Where the database holds no GPU memory above 0 and gpu_samples.csv lies in the directory (nvidia-smi --query-gpu=timestamp,memory.used\n\
                --format=csv), avg, max and min of that are taken, in GiB.",
        )
        .input_list("run", "the files of the run directory")
        .output("record", "JSON: columns, percentiles, counts of requests, problems")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        params.slo.map_or(Ok(()), |slo| slo.check())?;
        params.percentiles.map_or(Ok(()), |at| at.check())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let tally = Tally::new(params.slo, params.percentiles.clone());
        let files = Files(ctx.files("run").iter().map(|file| (file.file_name(), &*file.path)).collect());
        let record = collect(&files, params.dir(), tally);
        if record.passed_over() {
            ctx.log(format!(
                "passed over: {} is no place of a run (<config>/<YYYYMMDD_HHMMSS>/<model> or deeper)",
                record.dir
            ));
        }
        for problem in &record.problems {
            let what = if problem.kept { "warning" } else { "left out" };
            let of = problem.requests.map_or_else(String::new, |count| format!(" ({count} requests)"));
            ctx.log(format!("{what}: {}/{}: {}{of}", problem.dir, problem.file, json!(problem.reason)));
        }
        let bytes =
            serde_json::to_vec(&record).map_err(|e| StageError::new(format!("output 'record': {e}")))?;
        ctx.write("record", &bytes)?;
        Ok(Done::Made)
    }
}

/// The files of a run by name.
struct Files<'f>(Vec<(&'f str, &'f Path)>);

impl Files<'_> {
    fn path(&self, name: &str) -> Option<&Path> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, path)| *path)
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(name)?).ok()
    }

    fn is_long(&self, name: &str) -> bool {
        let size = self.path(name).and_then(|path| std::fs::metadata(path).ok()).map(|meta| meta.len());
        size.is_some_and(|size| size > LONGEST)
    }

    /// A JSON file; `Err` says why it is none.
    fn json(&self, name: &str) -> Result<Value, Reason> {
        if self.is_long(name) {
            return Err(Reason::InvalidJson);
        }
        let bytes = self.bytes(name).ok_or(Reason::Missing)?;
        lenient::parse(&bytes).map_err(|_| Reason::InvalidJson)
    }
}

fn object(value: Value) -> Result<Map<String, Value>, Reason> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Reason::WrongType),
    }
}

/// Reads a directory; what is wrong with it is in the record. One that is no place of a run is passed over.
fn collect(files: &Files, dir: &str, mut tally: Tally) -> Record {
    let slo = tally.slo();
    let Some(place) = place(dir) else {
        return Record { dir: dir.to_owned(), problems: Vec::new(), run: None };
    };
    let mut problems = Vec::new();
    let mut problem = |file: &str, reason, kept| {
        let (dir, file) = (dir.to_owned(), file.to_owned());
        problems.push(Problem { dir, file, reason, kept, requests: None });
    };
    let summary = files.json(SUMMARY).and_then(object);
    let args = files.json(ARGS).and_then(object);
    let columns = match files.json(PERCENTILE) {
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
    let mut of_args = [Cell::Int(0), Cell::Int(0), Cell::Null];
    for (name, cell) in ["parallel", "max_tokens", "number"].into_iter().zip(&mut of_args) {
        let Some(value) = args.get(name) else { continue };
        let Some(number) = Number::of(value) else {
            problem(ARGS, Reason::WrongType, false);
            return Record { dir: dir.to_owned(), problems, run: None };
        };
        *cell = number.cell();
    }
    let [parallel, max_tokens, number] = of_args;
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
    let scanned = match files.path(DATABASE) {
        Some(path) => database::scan(path, tally.depth(), |row| tally.add(row)),
        None => Err(Unusable::Missing),
    };
    let tally = scanned.is_ok().then_some(tally);
    if let Err(unusable) = scanned {
        let reason = match unusable {
            Unusable::Missing => Reason::Missing,
            Unusable::Unreadable => Reason::UnreadableDb,
            Unusable::NoTable => Reason::NoTable,
        };
        problem(DATABASE, reason, true);
    }
    // evalscope never measures below 0, and 0 is what a missing measurement gives
    let of_rows = tally.as_ref().and_then(Tally::gpu).filter(|[_, highest, _]| *highest > 0.0);
    let gpu = match (of_rows, files.bytes(gpu_samples::FILE)) {
        (Some(found), _) => found,
        (None, None) => [0.0; 3],
        (None, Some(bytes)) => match gpu_samples::read(&bytes) {
            Ok(samples) => {
                if samples.left_out > 0 {
                    problem(gpu_samples::FILE, Reason::IncompleteSamples, true);
                }
                samples.memory.unwrap_or_default()
            }
            Err(_) => {
                problem(gpu_samples::FILE, Reason::WrongType, true);
                [0.0; 3]
            }
        },
    };
    let requests = values["requests"].as_f64();
    let good = fields::succeeded(&summary);
    let succeeded = good.is_none_or(|count| count > 0 || requests == 0.0);
    if !succeeded {
        problem(SUMMARY, Reason::NoSuccess, true);
    }
    if args.get("client_bound").is_some_and(|reasons| !reasons.is_null()) {
        problem(ARGS, Reason::ClientBound, true);
    }
    let unreadable = tally.as_ref().map_or(0, Tally::unreadable);
    if unreadable > 0 {
        problems.push(Problem {
            dir: dir.to_owned(),
            file: DATABASE.to_owned(),
            reason: Reason::UnreadableTokens,
            kept: true,
            requests: Some(unreadable),
        });
    }
    let model = args.get("model").and_then(Value::as_str).unwrap_or(place.folder);
    let prompt_length = match args.get("prompt") {
        None => "short",
        Some(Value::String(prompt)) if prompt.chars().count() > LONG => "long",
        Some(Value::String(_)) => "short",
        Some(_) => "unknown",
    };
    let mut row = Columns::default();
    row.insert("timestamp", place.timestamp);
    row.insert("config", &*place.config);
    row.insert("model", model);
    row.insert("parallel", parallel);
    row.insert("prompt_length", prompt_length);
    row.insert("max_tokens", max_tokens);
    values.iter().for_each(|(name, number)| row.insert(name, number.cell()));
    for (name, value) in ["avg_gpu_memory", "max_gpu_memory", "min_gpu_memory"].iter().zip(gpu) {
        row.insert(name, if value == 0.0 { Cell::Int(0) } else { value.into() });
    }
    let mut percentiles = Columns::default();
    columns.iter().for_each(|(name, number)| percentiles.insert(name, number.cell()));
    let of_summary = good.map(|good| Requests {
        requests: requests.max(0.0) as u64,
        succeeded: good.max(0) as u64,
        conforming: None,
    });
    let counts = tally.as_ref().map(Tally::counts).or(of_summary);
    let run = Run {
        family: fields::family(&summary).to_owned(),
        number,
        row,
        percentiles,
        succeeded,
        requests: counts,
        slo,
        recomputed: tally.and_then(Tally::recomputed),
    };
    Record { dir: dir.to_owned(), problems, run: Some(run) }
}
