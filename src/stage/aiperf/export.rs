//! `aiperf.export`: a load by flow as `aiperf profile` would have written it. Unaware of servers.
//!
//! Names, units and shapes are those of aiperf 0.13 (schema 1.4 of its summary); its definitions are those of the rule set flow.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Map, Value, json};

use crate::api::{Done, NoParams, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::base::digest::Digest;
use crate::stage::metrics::recorded::{Clock, Load, Recorded};
use crate::stage::metrics::row::{Kind, Row};
use crate::stage::metrics::rules::{Rules, Timing};
use crate::stage::metrics::slo::Slo;
use crate::stage::metrics::spread::{Spread, sum};
use crate::stage::metrics::summary::{Asked, summarize};
use crate::stage::table::jsonl::write_line;
use crate::stage::table::percentile::Rule;

/// The stage.
pub(super) struct Export;

/// Percentiles of the tool.
const PERCENTS: [f64; 9] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0];

/// A quantity of a request: the tool's name and unit, its value or values; of streams only, or of all requests.
struct Quantity {
    name: &'static str,
    unit: &'static str,
    streamed: bool,
    of: fn(&Timing) -> Measured,
}

/// What a request has of a quantity.
enum Measured {
    None,
    One(f64),
    Many(Vec<f64>),
}

impl From<Option<f64>> for Measured {
    fn from(value: Option<f64>) -> Self {
        value.filter(|value| value.is_finite()).map_or(Self::None, Self::One)
    }
}

fn ms(seconds: f64) -> f64 {
    seconds * 1e3
}

fn per_second(tokens: Option<u64>, seconds: f64) -> Measured {
    tokens.filter(|_| seconds > 0.0).map(|tokens| tokens as f64 / seconds).into()
}

fn tokens(count: Option<u64>) -> Measured {
    count.map(|count| count as f64).into()
}

/// What the tool computes of each request, as far as a load knows it.
const QUANTITIES: [Quantity; 12] = [
    Quantity { name: "request_latency", unit: "ms", streamed: false, of: |t| Some(ms(t.e2el)).into() },
    Quantity { name: "time_to_first_token", unit: "ms", streamed: true, of: |t| Some(ms(t.ttft)).into() },
    Quantity {
        name: "time_to_second_token",
        unit: "ms",
        streamed: true,
        of: |t| t.itl.first().map(|gap| ms(*gap)).into(),
    },
    Quantity {
        name: "time_to_first_output_token",
        unit: "ms",
        streamed: true,
        of: |t| t.ttfo.map(ms).into(),
    },
    Quantity { name: "inter_token_latency", unit: "ms", streamed: true, of: |t| t.tpot.map(ms).into() },
    Quantity {
        name: "inter_chunk_latency",
        unit: "ms",
        streamed: true,
        of: |t| match t.itl.is_empty() {
            true => Measured::None,
            false => Measured::Many(t.itl.iter().map(|gap| ms(*gap)).collect()),
        },
    },
    Quantity {
        name: "decode_duration",
        unit: "ms",
        streamed: true,
        of: |t| Some(ms(t.e2el - t.ttft)).into(),
    },
    Quantity { name: "input_sequence_length", unit: "tokens", streamed: false, of: |t| tokens(t.input) },
    Quantity { name: "output_sequence_length", unit: "tokens", streamed: false, of: |t| tokens(t.output) },
    Quantity {
        name: "output_token_throughput_per_user",
        unit: "tokens/sec/user",
        streamed: true,
        of: |t| t.tpot.filter(|tpot| *tpot > 0.0).map(|tpot| 1.0 / tpot).into(),
    },
    Quantity {
        name: "prefill_throughput_per_user",
        unit: "tokens/sec/user",
        streamed: true,
        of: |t| per_second(t.input, t.ttft),
    },
    Quantity {
        name: "e2e_output_token_throughput",
        unit: "tokens/sec/user",
        streamed: false,
        of: |t| per_second(t.output, t.e2el),
    },
];

impl Stage for Export {
    fn name(&self) -> &'static str {
        "aiperf.export"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<NoParams>(
            "Writes profile_export.jsonl and profile_export_aiperf.json of aiperf 0.13 from a load by llm.load.\n\
                \n\
                inter_token_latency is (last text - first text) / (tokens - 1), inter_chunk_latency the gaps between events with text; lengths are those that the server \
                told. Times count from the send; credit_issued_ns is the moment of the schedule. Rates are over the time from the first send to the end of the last request. What \
                aiperf alone knows (its configuration, the HTTP trace) is not written.",
        )
        .input("requests", "the output `requests` of llm.load")
        .input("summary", "the output `summary` of the same load")
        .output_dir("run", "directory: profile_export.jsonl, profile_export_aiperf.json")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<NoParams>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let load: Value = ctx.input("summary")?.read_json()?;
        let Load { rows, known, clock, spoiled } = Load::read(ctx.input("requests")?)?;
        let streamed = load["load"]["stream"] != false;
        let timings: Vec<Option<Timing>> = rows.iter().map(|row| Rules::Flow.timing(row).ok()).collect();
        let dir = ctx.output("run")?.to_owned();
        let path = dir.join("profile_export.jsonl");
        let file = std::fs::File::create(&path).map_err(|e| StageError::io("write", &path, e))?;
        let mut out = std::io::BufWriter::new(file);
        for (number, ((row, known), timing)) in rows.iter().zip(&known).zip(&timings).enumerate() {
            let line = record(number, row, known, timing.as_ref(), &clock, streamed);
            write_line(&mut out, &line, "run")?;
        }
        out.flush().map_err(|e| StageError::io("write", &path, e))?;
        let good: Vec<&Timing> = timings.iter().flatten().collect();
        let mut whole = summary(&rows, &known, &good, &load, &clock, streamed)?;
        if let Some(reasons) = spoiled {
            ctx.log(format!("client_bound: {reasons}"));
            whole["client_bound"] = json!(reasons);
        }
        let path = dir.join("profile_export_aiperf.json");
        std::fs::write(&path, format!("{whole:#}\n")).map_err(|e| StageError::io("write", &path, e))?;
        ctx.log(format!("{} requests, {} failed", rows.len(), rows.len() - good.len()));
        Ok(Done::Made)
    }
}

/// ns since 1970 of a moment of a row.
fn unix(clock: &Clock, seconds: f64) -> i64 {
    clock.unix((seconds * 1e9).round() as i64)
}

/// A line of profile_export.jsonl.
fn record(
    number: usize,
    row: &Row,
    known: &Recorded,
    timing: Option<&Timing>,
    clock: &Clock,
    streamed: bool,
) -> Value {
    let moment = |seconds: Option<f64>| seconds.map(|at| unix(clock, at));
    let scheduled = known.sched.map(|at| clock.unix(at));
    let start = moment(row.send).or(scheduled).or(moment(row.end)).unwrap_or(clock.unix);
    let end = moment(timing.map(|timing| timing.end)).or(moment(row.end)).unwrap_or(start);
    let head = row.events.iter().find(|event| event.2 == Kind::Head).map(|event| event.0);
    let alone = || (row.id.as_str().map_or_else(|| row.id.to_string(), str::to_owned), 0);
    let (name, turn) = known.turn.clone().unwrap_or_else(alone);
    let mut metadata = json!({
        "session_num": number,
        "x_request_id": known.xid,
        "x_correlation_id": if known.turn.is_some() { &name } else { &known.xid },
        "conversation_id": name,
        "turn_index": turn,
        "credit_issued_ns": scheduled,
        "request_start_ns": start,
        "request_ack_ns": moment(head.filter(|_| streamed)),
        "request_end_ns": end.max(start),
        "worker_id": format!("worker_{}", known.shard),
        "record_processor_id": "flow",
        "benchmark_phase": "profiling",
        "was_cancelled": false,
    });
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
    let mut metrics = Map::new();
    for quantity in QUANTITIES.iter().filter(|quantity| streamed || !quantity.streamed) {
        let value = match timing.map_or(Measured::None, quantity.of) {
            Measured::None => continue,
            Measured::One(value) => number_of(quantity, value),
            Measured::Many(values) => json!(values),
        };
        metrics.insert(quantity.name.to_owned(), json!({ "value": value, "unit": quantity.unit }));
    }
    let mut line = json!({ "metadata": metadata, "metrics": metrics });
    if timing.is_none() {
        line["error"] = error(row, known);
    }
    line
}

/// Counts are whole numbers.
fn number_of(quantity: &Quantity, value: f64) -> Value {
    if quantity.unit == "tokens" { json!(value as u64) } else { json!(value) }
}

fn error(row: &Row, known: &Recorded) -> Value {
    let kind = row.error.as_deref().unwrap_or("no token");
    let message = known.message.as_deref().unwrap_or(kind);
    match known.status.filter(|status| *status != 200) {
        Some(code) => json!({ "code": code, "type": kind, "message": message }),
        None => json!({ "type": kind, "message": message }),
    }
}

/// profile_export_aiperf.json.
fn summary(
    rows: &[Row],
    known: &[Recorded],
    good: &[&Timing],
    load: &Value,
    clock: &Clock,
    streamed: bool,
) -> Result<Value, StageError> {
    let slo: Option<Slo> = serde_json::from_value(load["goodput"]["slo"].clone()).ok();
    let asked = Asked { rules: Rules::Flow, percents: Vec::new(), rule: Rule::Linear, slo, window: None };
    let found = summarize(rows, &asked).map_err(StageError::new)?;
    let rates = &found["throughput"];
    let xids: Vec<&str> = known.iter().map(|request| request.xid.as_str()).collect();
    let mut out = Map::new();
    out.insert("schema_version".to_owned(), json!("1.4"));
    out.insert("benchmark_id".to_owned(), json!(&Digest::of(xids.join("\n").as_bytes()).hex()[..12]));
    let scalars = [
        ("request_throughput", "requests/sec", &rates["requests_per_second"]),
        ("request_count", "requests", &found["counts"]["success"]),
        ("error_request_count", "requests", &found["counts"]["failed"]),
        ("output_token_throughput", "tokens/sec", &rates["output_tokens_per_second"]),
        ("total_token_throughput", "tokens/sec", &rates["total_tokens_per_second"]),
        ("total_isl", "tokens", &rates["input_tokens"]),
        ("total_osl", "tokens", &rates["output_tokens"]),
        ("benchmark_duration", "sec", &rates["duration"]),
        ("good_request_count", "requests", &found["goodput"]["good"]),
        ("goodput", "requests/sec", &found["goodput"]["requests_per_second"]),
    ];
    for (name, unit, value) in scalars {
        if let Some(value) = value.as_f64() {
            out.insert(name.to_owned(), json!({ "unit": unit, "avg": value }));
        }
    }
    for quantity in QUANTITIES.iter().filter(|quantity| streamed || !quantity.streamed) {
        let values = good.iter().flat_map(|timing| match (quantity.of)(timing) {
            Measured::None => Vec::new(),
            Measured::One(value) => vec![value],
            Measured::Many(values) => values,
        });
        if let Some(block) = block(quantity.unit, values.collect()) {
            out.insert(quantity.name.to_owned(), block);
        }
    }
    out.insert("was_cancelled".to_owned(), json!(false));
    out.insert("is_complete".to_owned(), json!(true));
    out.insert("error_summary".to_owned(), errors(rows, known));
    let starts = rows.iter().filter_map(|row| row.send).min_by(f64::total_cmp);
    let ends = rows.iter().filter_map(|row| row.end).max_by(f64::total_cmp);
    for (name, at) in [("start_time", starts), ("end_time", ends)] {
        let moment = at.and_then(|at| jiff::Timestamp::from_nanosecond(unix(clock, at).into()).ok());
        out.insert(name.to_owned(), json!(moment.map(|moment| moment.to_string())));
    }
    Ok(Value::Object(out))
}

/// The statistics of one quantity; `None` of no values.
fn block(unit: &str, values: Vec<f64>) -> Option<Value> {
    let total = sum(values.iter().copied());
    let spread = Spread::of(values, &PERCENTS, Rule::Linear)?;
    let mut out = Map::from_iter([("unit".to_owned(), json!(unit)), ("avg".to_owned(), json!(spread.mean))]);
    out.extend(spread.percentiles.iter().map(|(percent, value)| (format!("p{percent}"), json!(value))));
    for (name, value) in [("min", spread.min), ("max", spread.max), ("std", spread.std)] {
        out.insert(name.to_owned(), json!(value));
    }
    out.insert("count".to_owned(), json!(spread.n));
    out.insert("sum".to_owned(), json!(total));
    Some(Value::Object(out))
}

/// Failures that are alike, with their number.
fn errors(rows: &[Row], known: &[Recorded]) -> Value {
    let mut counts: BTreeMap<String, (Value, u64)> = BTreeMap::new();
    for (row, known) in rows.iter().zip(known).filter(|(row, _)| Rules::Flow.timing(row).is_err()) {
        let error = error(row, known);
        counts.entry(error.to_string()).or_insert((error, 0)).1 += 1;
    }
    counts.into_values().map(|(error, count)| json!({ "error_details": error, "count": count })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_and_its_failure() {
        let row: Row = serde_json::from_value(json!({
            "id": "p1", "send": 10.0, "end": 12.0, "input_tokens": 8, "output_tokens": 3, "success": true,
            "events": [[10.25, null, "head"], [10.5, 1, "content"], [10.75, 1, "content"], [11.5, 1, "content"]],
        }))
        .unwrap();
        let known = Recorded {
            xid: "x-0-1".into(),
            shard: 1,
            sched: None,
            status: Some(200),
            message: None,
            text: None,
            turn: None,
        };
        let clock = Clock { host: "h".into(), monotonic: 0, unix: 1_000_000_000_000_000_000 };
        let timing = Rules::Flow.timing(&row).unwrap();
        let line = record(0, &row, &known, Some(&timing), &clock, true);
        assert_eq!(line["metadata"]["request_start_ns"], 1_000_000_010_000_000_000_i64);
        assert_eq!(line["metadata"]["request_ack_ns"], 1_000_000_010_250_000_000_i64);
        assert_eq!(line["metadata"]["request_end_ns"], 1_000_000_011_500_000_000_i64);
        assert_eq!(line["metrics"]["time_to_first_token"], json!({ "value": 500.0, "unit": "ms" }));
        assert_eq!(line["metrics"]["inter_chunk_latency"]["value"], json!([250.0, 750.0]));
        assert_eq!(line["metrics"]["inter_token_latency"]["value"], 500.0);
        assert_eq!(line["metrics"]["output_sequence_length"]["value"], 3);
        assert!(line.get("error").is_none());
        let whole = record(0, &row, &known, Some(&timing), &clock, false);
        let names: Vec<&String> = whole["metrics"].as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            [
                "request_latency",
                "input_sequence_length",
                "output_sequence_length",
                "e2e_output_token_throughput"
            ]
        );
        let refused = Row { success: false, error: Some("status_429".into()), ..row.clone() };
        let known = Recorded { status: Some(429), message: Some("slow down".into()), ..known };
        let line = record(3, &refused, &known, None, &clock, true);
        assert_eq!(line["metrics"], json!({}));
        assert_eq!(line["error"], json!({ "code": 429, "type": "status_429", "message": "slow down" }));
        assert_eq!(
            errors(&[refused.clone(), refused], &[known.clone(), known]),
            json!([{ "error_details": line["error"], "count": 2 }])
        );
    }
}
