//! The keys of `benchmark_summary.json`, by version, and the columns that they become.
//!
//! Up to 1.6 all times are in seconds; from 1.7 some are in milliseconds, and 1.10 or 1.11 put `Avg` before their names.

use serde_json::{Map, Value};

use super::lenient::Number;

/// The columns that come from the summary, in the order of the table, with the keys that they have had.
pub(super) const COLUMNS: [(&str, &[&str]); 11] = [
    ("requests", &["Total requests", "Total Requests"]),
    ("time_taken", &["Time taken for tests (s)", "Test Duration (s)"]),
    ("output_throughput", &["Output token throughput (tok/s)", "Output Throughput (tok/s)"]),
    ("total_throughput", &["Total token throughput (tok/s)", "Total Throughput (tok/s)"]),
    ("request_throughput", &["Request throughput (req/s)", "Req Throughput (req/s)"]),
    ("latency", &["Average latency (s)", "Avg Latency (s)"]),
    ("ttft", &["Average time to first token (s)", "TTFT (ms)", "Avg TTFT (ms)"]),
    ("token_latency", &["Average time per output token (s)", "TPOT (ms)", "Avg TPOT (ms)"]),
    ("inter_token_latency", &["Average inter-token latency (s)", "ITL (ms)", "Avg ITL (ms)"]),
    ("input_tokens", &["Average input tokens per request", "Avg Input Tokens"]),
    ("output_tokens", &["Average output tokens per request", "Avg Output Tokens"]),
];

/// How many requests succeeded.
const SUCCEEDED: [&str; 2] = ["Succeed requests", "Success Requests"];

/// Which versions write such a summary.
pub(super) fn family(summary: &Map<String, Value>) -> &'static str {
    let has = |key: &str| summary.contains_key(key);
    if has("Avg TTFT (ms)") {
        "1.10-1.14"
    } else if has("TTFT (ms)") || has("Test Duration (s)") {
        "1.7-1.9"
    } else if has("Time taken for tests (s)") {
        "0.17-1.6"
    } else {
        "unknown"
    }
}

/// The value of a column in seconds, tokens or per second; 0 if no key of it is there. `Err`: the key whose value is no number.
pub(super) fn value(summary: &Map<String, Value>, keys: &[&'static str]) -> Result<Number, &'static str> {
    let Some((key, value)) = keys.iter().find_map(|key| Some((*key, summary.get(*key)?))) else {
        return Ok(Number::Int(0));
    };
    let number = Number::of(value).ok_or(key)?;
    Ok(if key.ends_with("(ms)") { number.in_seconds() } else { number })
}

/// How many requests succeeded, if the summary says so.
pub(super) fn succeeded(summary: &Map<String, Value>) -> Option<i64> {
    SUCCEEDED.iter().find_map(|key| summary.get(*key)?.as_f64()).map(|count| count as i64)
}
