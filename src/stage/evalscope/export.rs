//! `evalscope.export`: a load by flow as `evalscope perf` 1.14 would have written it. Unaware of servers.

use std::path::Path;

use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use crate::api::{Done, NoParams, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::stage::metrics::recorded::Load;
use crate::stage::metrics::row::Row;
use crate::stage::metrics::rules::{Rules, Timing};
use crate::stage::metrics::summary::{Asked, summarize};
use crate::stage::table::percentile::{Rule, percentile};

/// The stage.
pub(super) struct Export;

/// The table of the tool, from 1.1 on.
const TABLE: &str = "CREATE TABLE result(request TEXT, start_time REAL, inter_token_latencies TEXT, success INTEGER, response_messages TEXT,
    completed_time REAL, latency REAL, first_chunk_latency REAL, prompt_tokens INTEGER, completion_tokens INTEGER, max_gpu_memory_cost REAL,
    time_per_output_token REAL, request_id TEXT, is_stream INTEGER)";

/// Percentiles between the least and the greatest.
const PERCENTS: [f64; 9] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0];

impl Stage for Export {
    fn name(&self) -> &'static str {
        "evalscope.export"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<NoParams>(
            "Writes a run directory of `evalscope perf` 1.14 from a load by llm.load: summary, percentiles, args and database.\n\
                \n\
                Metrics and percentiles are those of the rule set evalscope-new, not rounded (the tool rounds to 2 or 4 decimals). response_messages, which the tool \
                fills with a pickle, is empty, and so is the column of GPU memory; a streamed answer of one token has a TPOT of 0 in the database and none in the percentiles, as in the tool; Decode (tok/s) is not written. evalscope.collect reads it back.",
        )
        .input("requests", "the output `requests` of llm.load")
        .input("summary", "the output `summary` of the same load")
        .output_dir("run", "directory: benchmark_summary.json, benchmark_percentile.json, benchmark_args.json, benchmark_data.db")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<NoParams>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let load: Value = ctx.input("summary")?.read_json()?;
        let Load { rows, spoiled, .. } = Load::read(ctx.input("requests")?)?;
        let timings: Vec<Result<Timing, String>> =
            rows.iter().map(|row| Rules::EvalscopeNew.timing(row)).collect();
        let dir = ctx.output("run")?;
        let asked = Asked {
            rules: Rules::EvalscopeNew,
            percents: Vec::new(),
            rule: Rule::Nearest,
            slo: None,
            window: None,
        };
        let found = summarize(&rows, &asked).map_err(StageError::new)?;
        write(dir, "benchmark_summary.json", &summary(&found, &load))?;
        let good: Vec<&Timing> = timings.iter().filter_map(|timing| timing.as_ref().ok()).collect();
        let stream = load["load"]["stream"] != false;
        write(dir, "benchmark_percentile.json", &percentiles(&good, stream))?;
        let mut args = args(&load, rows.len());
        if let Some(reasons) = &spoiled {
            args["client_bound"] = json!(reasons);
        }
        write(dir, "benchmark_args.json", &args)?;
        let path = dir.join("benchmark_data.db");
        store(&path, &rows, &timings, stream)
            .map_err(|e| StageError::new(format!("output 'run': benchmark_data.db: {e}")))?;
        ctx.log(format!("{} requests, {} failed", rows.len(), rows.len() - good.len()));
        if let Some(reasons) = spoiled {
            ctx.log(format!("client_bound: {reasons}"));
        }
        Ok(Done::Made)
    }
}

fn summary(found: &Value, load: &Value) -> Value {
    let (counts, rates) = (&found["counts"], &found["throughput"]);
    let mean =
        |metric: &str, scale: f64| found["metrics"][metric]["mean"].as_f64().map_or(0.0, |x| x * scale);
    let rate = |name: &str| rates[name].as_f64().unwrap_or(0.0);
    let stream = load["load"]["stream"] != false;
    let total = &counts["total"];
    json!({
        "Test Duration (s)": rate("duration"),
        "Concurrency": limit(load),
        "Request Rate (req/s)": load["load"]["arrival"]["rate"].as_f64().unwrap_or(-1.0),
        "Total Requests": total,
        "Success Requests": counts["success"],
        "Failed Requests": counts["failed"],
        "Stream Requests": if stream { total.clone() } else { json!(0) },
        "Non-Stream Requests": if stream { json!(0) } else { total.clone() },
        "Req Throughput (req/s)": rate("requests_per_second"),
        "Avg Latency (s)": mean("e2el", 1.0),
        "Avg Input Tokens": mean("input_tokens", 1.0),
        "Output Throughput (tok/s)": rate("output_tokens_per_second"),
        "Total Throughput (tok/s)": rate("total_tokens_per_second"),
        "Avg TTFT (ms)": mean("ttft", 1e3),
        "Avg TPOT (ms)": mean("tpot", 1e3),
        "Avg ITL (ms)": mean("itl", 1e3),
        "Avg Output Tokens": mean("output_tokens", 1.0),
        "Input Throughput (tok/s)": rate("input_tokens_per_second"),
    })
}

/// Requests in flight: what was asked for, else what there were.
fn limit(load: &Value) -> u64 {
    let asked = [
        &load["load"]["arrival"]["concurrency"],
        &load["load"]["max_concurrency"],
        &load["self_check"]["inflight_max"],
    ];
    asked.into_iter().find_map(Value::as_u64).unwrap_or(0)
}

fn args(load: &Value, count: usize) -> Value {
    let arrival = &load["load"]["arrival"];
    json!({
        "model": load["load"]["model"],
        "api": "openai",
        "number": count,
        "parallel": limit(load),
        "rate": arrival["rate"].as_f64().unwrap_or(-1.0),
        "open_loop": load["loop"] == "open",
        "stream": load["load"]["stream"],
        "seed": load["load"]["seed"],
        "duration": load["load"]["duration"],
        "written_by": concat!("flow ", env!("CARGO_PKG_VERSION")),
    })
}

/// The rows `min`, `1%` to `99%`, `max`: each column by itself. Of streams an answer without a time per token has none; of others it is 0.
fn percentiles(good: &[&Timing], stream: bool) -> Value {
    let per_second =
        |tokens: Option<f64>, t: &Timing| tokens.filter(|_| t.e2el > 0.0).map(|tokens| tokens / t.e2el);
    let (input, output) = (|t: &Timing| t.input.map(|n| n as f64), |t: &Timing| t.output.map(|n| n as f64));
    let of = |value: &dyn Fn(&Timing) -> Option<f64>| -> Vec<f64> {
        let mut values: Vec<f64> = good.iter().filter_map(|timing| value(timing)).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let mut gaps: Vec<f64> = good.iter().flat_map(|t| t.itl.iter().map(|gap| gap * 1e3)).collect();
    gaps.sort_by(f64::total_cmp);
    let columns = [
        ("Latency (s)", of(&|t| Some(t.e2el))),
        ("TTFT (ms)", of(&|t| Some(t.ttft * 1e3))),
        ("ITL (ms)", gaps),
        ("TPOT (ms)", of(&|t| Some(t.tpot.unwrap_or(0.0) * 1e3).filter(|tpot| *tpot > 0.0 || !stream))),
        ("Input tokens", of(&input)),
        ("Output tokens", of(&output)),
        ("Output (tok/s)", of(&|t| per_second(output(t), t))),
        ("Total (tok/s)", of(&|t| per_second(input(t).zip(output(t)).map(|(a, b)| a + b), t))),
    ];
    let row = |name: String, percent: f64| {
        let mut row = Map::from_iter([("Percentiles".to_owned(), json!(name))]);
        for (column, values) in &columns {
            row.insert((*column).to_owned(), json!(percentile(values, percent, Rule::Nearest)));
        }
        Value::Object(row)
    };
    let between = PERCENTS.map(|percent| row(format!("{percent}%"), percent));
    let ends = |name: &str, percent| row(name.to_owned(), percent);
    [ends("min", 0.0)].into_iter().chain(between).chain([ends("max", 100.0)]).collect()
}

fn store(
    path: &Path,
    rows: &[Row],
    timings: &[Result<Timing, String>],
    stream: bool,
) -> rusqlite::Result<()> {
    let mut db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    let all = db.transaction()?;
    all.execute_batch(TABLE)?;
    {
        let mut insert = all.prepare(
            "INSERT INTO result(start_time, inter_token_latencies, success, completed_time, latency, first_chunk_latency, prompt_tokens,
                completion_tokens, max_gpu_memory_cost, time_per_output_token, request_id, is_stream) VALUES (?,?,?,?,?,?,?,?,0.0,?,?,?)",
        )?;
        for (row, timing) in rows.iter().zip(timings) {
            let timing = timing.as_ref().ok();
            let count = |tokens: Option<u64>| tokens.and_then(|tokens| i64::try_from(tokens).ok());
            let gaps = timing.map(|timing| json!(timing.itl).to_string());
            insert.execute(params![
                row.send,
                gaps.unwrap_or_else(|| "[]".to_owned()),
                timing.is_some(),
                timing.map(|timing| timing.end).or(row.end),
                timing.map(|timing| timing.e2el),
                timing.map(|timing| timing.ttft),
                timing.and_then(|timing| count(timing.input)),
                timing.and_then(|timing| count(timing.output)),
                timing.map(|timing| timing.tpot.unwrap_or(0.0)),
                row.id.as_str().map_or_else(|| row.id.to_string(), str::to_owned),
                stream,
            ])?;
        }
    }
    all.commit()
}

fn write(dir: &Path, name: &str, value: &Value) -> Result<(), StageError> {
    let path = dir.join(name);
    let text = format!("{value:#}\n");
    std::fs::write(&path, text).map_err(|e| StageError::io("write", &path, e))
}

#[cfg(test)]
mod tests {
    use super::super::database::{Depth, scan};
    use super::super::options::At;
    use super::super::percentiles::columns;
    use super::super::tally::Tally;
    use super::*;

    /// One answer of four has one token; the last event of each is at twice its time to the first.
    fn rows() -> Vec<Row> {
        let row = |id: u32| {
            let (first, tokens) = (0.25 * f64::from(id), if id == 3 { 1 } else { id + 5 });
            let events = if id == 3 {
                json!([[first, 1, "content"], [first, null, "usage"]])
            } else {
                json!([[first, 1, "content"], [2.0 * first, tokens - 1, "content"]])
            };
            let row = json!({
                "id": id, "send": 0.0, "events": events, "input_tokens": 7, "output_tokens": tokens, "success": true
            });
            serde_json::from_value(row).unwrap()
        };
        (1..=4).map(row).collect()
    }

    #[test]
    fn the_database_has_the_percentiles_of_the_file() {
        for stream in [true, false] {
            let rows = rows();
            let timings: Vec<_> = rows.iter().map(|row| Rules::EvalscopeNew.timing(row)).collect();
            let good: Vec<&Timing> = timings.iter().map(|timing| timing.as_ref().unwrap()).collect();
            let file = columns(&percentiles(&good, stream)).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("benchmark_data.db");
            store(&path, &rows, &timings, stream).unwrap();
            let mut tally = Tally::new(None, Some(At { rule: Rule::Nearest, at: PERCENTS.to_vec() }));
            scan(&path, Depth::Tokens, |row| tally.add(row)).unwrap();
            let found = tally.recomputed().unwrap().columns;
            let mut compared = 0;
            for (column, number) in file.iter().filter(|(column, _)| column.contains("p_")) {
                let found: f64 = found[column].json().as_f64().unwrap();
                let expected = number.as_f64();
                assert!(
                    (found - expected).abs() <= 1e-12 * expected.abs(),
                    "{stream} {column} {found} {expected}"
                );
                compared += 1;
            }
            assert_eq!(compared, PERCENTS.len() * 8);
            let least = file.iter().find(|(column, _)| column == "1p_tpot_").unwrap().1.as_f64();
            assert_eq!(least > 0.0, stream, "an answer of one token has no time per token in a stream");
        }
    }
}
