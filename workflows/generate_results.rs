//! Makes the small results of benchmark tools that the shipped workflows run on: `cargo run --example generate-results [DIRECTORY]`
//! (default `workflows/data`). Every number comes from the seeded generator below; none is a measurement. Unaware of workflows.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Map, Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let root = std::env::args().nth(1).unwrap_or_else(|| "workflows/data".to_owned());
    for (path, bytes) in files()? {
        let path = Path::new(&root).join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    Ok(())
}

/// Every file, by its path below the data directory.
fn files() -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut random = Random(20261122);
    for (parallel, repeat) in [(4, 1), (4, 2), (16, 1), (16, 2), (64, 1)] {
        let place = format!("evalscope/small_p{parallel}/2026010{repeat}_120000/demo-8b");
        evalscope(&mut files, &place, &mut random, parallel, false)?;
    }
    let place = "evalscope/small_p16_new/20260103_120000/demo-8b/parallel_16_number_20";
    evalscope(&mut files, place, &mut random, 16, true)?;
    Ok(files)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (high - low) * (((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// One request; times in seconds.
struct Request {
    ttft: f64,
    tpot: f64,
    tokens: i64,
}

impl Request {
    fn latency(&self) -> f64 {
        self.ttft + self.tpot * (self.tokens - 1) as f64
    }
}

fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// The four files of a run, as 1.2 (`new`: 1.14) writes them.
fn evalscope(
    files: &mut BTreeMap<String, Vec<u8>>,
    place: &str,
    random: &mut Random,
    parallel: u32,
    new: bool,
) -> Result<()> {
    const INPUT: i64 = 12;
    let load = f64::from(parallel).sqrt();
    let requests: Vec<Request> = (0..20)
        .map(|_| Request {
            ttft: random.between(0.02, 0.03) * load,
            tpot: random.between(0.004, 0.006) * load,
            tokens: random.between(20.0, 60.0) as i64,
        })
        .collect();
    let count = requests.len() as f64;
    let mean = |value: &dyn Fn(&Request) -> f64| round(requests.iter().map(value).sum::<f64>() / count);
    let tokens: i64 = requests.iter().map(|request| request.tokens).sum();
    let duration =
        round(requests.iter().map(Request::latency).sum::<f64>() / f64::from(parallel.min(20)) * 1.1);
    let rate = |tokens: i64| round(tokens as f64 / duration);
    let total = tokens + INPUT * requests.len() as i64;
    let ms = |seconds: f64| round(seconds * 1000.0);
    let (ttft, tpot) = (mean(&|request| request.ttft), mean(&|request| request.tpot));
    let summary = if new {
        json!({
            "Test Duration (s)": duration, "Concurrency": parallel, "Request Rate (req/s)": -1.0,
            "Total Requests": 20, "Success Requests": 20, "Failed Requests": 0,
            "Req Throughput (req/s)": round(count / duration), "Avg Latency (s)": mean(&Request::latency),
            "Avg Input Tokens": INPUT as f64, "Output Throughput (tok/s)": rate(tokens),
            "Total Throughput (tok/s)": rate(total), "Avg TTFT (ms)": ms(ttft), "Avg TPOT (ms)": ms(tpot),
            "Avg ITL (ms)": ms(tpot), "Avg Output Tokens": mean(&|request| request.tokens as f64)
        })
    } else {
        json!({
            "Time taken for tests (s)": duration, "Number of concurrency": parallel, "Total requests": 20,
            "Succeed requests": 20, "Failed requests": 0, "Output token throughput (tok/s)": rate(tokens),
            "Total token throughput (tok/s)": rate(total), "Request throughput (req/s)": round(count / duration),
            "Average latency (s)": mean(&Request::latency), "Average time to first token (s)": ttft,
            "Average time per output token (s)": tpot, "Average inter-token latency (s)": tpot,
            "Average input tokens per request": INPUT as f64,
            "Average output tokens per request": mean(&|request| request.tokens as f64)
        })
    };
    let sorted = |value: &dyn Fn(&Request) -> f64| {
        let mut values: Vec<f64> = requests.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let metrics: [(&str, Vec<f64>); 6] = [
        ("TTFT", sorted(&|request| request.ttft)),
        ("ITL", sorted(&|request| request.tpot)),
        ("TPOT", sorted(&|request| request.tpot)),
        ("Latency", sorted(&Request::latency)),
        ("Output tokens", sorted(&|request| request.tokens as f64)),
        ("Output (tok/s)", sorted(&|request| request.tokens as f64 / request.latency())),
    ];
    let percentiles: Vec<Value> = [10.0, 50.0, 90.0, 99.0]
        .iter()
        .map(|percent: &f64| {
            let mut row = Map::from_iter([("Percentiles".to_owned(), json!(format!("{percent}%")))]);
            for (name, values) in &metrics {
                let at = if new {
                    (count * percent / 100.0).ceil() - 1.0
                } else {
                    (count * percent / 100.0).floor()
                };
                let value = values[(at as usize).min(values.len() - 1)];
                let in_ms = new && matches!(*name, "TTFT" | "ITL" | "TPOT");
                let unit = if in_ms {
                    " (ms)"
                } else if matches!(*name, "TTFT" | "ITL" | "TPOT" | "Latency") {
                    " (s)"
                } else {
                    ""
                };
                row.insert(format!("{name}{unit}"), json!(if in_ms { ms(value) } else { round(value) }));
            }
            Value::Object(row)
        })
        .collect();
    let args = json!({
        "model": "demo-8b", "api": "openai", "url": "http://127.0.0.1:8000/v1/chat/completions", "headers": {},
        "api_key": null, "number": 20, "parallel": parallel, "rate": -1, "prompt": "Say hello.", "max_tokens": 64, "stream": true
    });
    let mut add = |name: &str, bytes: Vec<u8>| files.insert(format!("{place}/{name}"), bytes);
    add("benchmark_summary.json", serde_json::to_vec_pretty(&summary)?);
    add("benchmark_args.json", serde_json::to_vec_pretty(&args)?);
    add("benchmark_percentile.json", serde_json::to_vec_pretty(&percentiles)?);
    add("benchmark_data.db", database(&requests, INPUT)?);
    Ok(())
}

fn database(requests: &[Request], input: i64) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("x.db");
    let db = Connection::open(&path)?;
    db.execute_batch(
        "CREATE TABLE result (request TEXT, start_time REAL, inter_token_latencies TEXT, success INTEGER, response_messages TEXT,
         completed_time REAL, latency REAL, first_chunk_latency REAL, prompt_tokens INTEGER, completion_tokens INTEGER,
         max_gpu_memory_cost REAL, time_per_output_token REAL)",
    )?;
    for (index, request) in requests.iter().enumerate() {
        db.execute(
            "INSERT INTO result VALUES ('{}', ?1, '[]', 1, 'gARdlC4=', ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                index as f64,
                index as f64 + request.latency(),
                request.latency(),
                request.ttft,
                input,
                request.tokens,
                17.5,
                request.tpot,
            ),
        )?;
    }
    db.close().map_err(|(_, e)| e)?;
    let mut bytes = fs::read(path)?;
    // which version of SQLite wrote it: the same bytes from any
    bytes[96..100].copy_from_slice(&3_040_000_u32.to_be_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_results_are_what_the_generator_makes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/data");
        let made = files().unwrap();
        for (path, bytes) in &made {
            let committed = fs::read(root.join(path)).unwrap_or_default();
            assert!(committed == *bytes, "{path}: run `cargo run --example generate-results`");
        }
        let size: usize = made.values().map(Vec::len).sum();
        assert!(size < 200_000, "{size} bytes");
    }
}
