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
    for (pod, begin, concurrency) in [("demo-8b-pod-a", 5000.0, 4), ("demo-8b-pod-b", 5000.25, 3)] {
        aisbench(&mut files, pod, &mut random, begin, concurrency)?;
    }
    vendor(&mut files, &mut random)?;
    Ok(files)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next() >> 11) as f64 / (1u64 << 53) as f64)
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
    let schema =
        "CREATE TABLE result (request TEXT, start_time REAL, inter_token_latencies TEXT, success INTEGER, response_messages TEXT,
         completed_time REAL, latency REAL, first_chunk_latency REAL, prompt_tokens INTEGER, completion_tokens INTEGER,
         max_gpu_memory_cost REAL, time_per_output_token REAL)";
    sqlite(schema, |db| {
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
        Ok(())
    })
}

/// What AISBench writes of one pod: 24 requests, `concurrency` at a time from `begin` (seconds of a monotonic clock); one is answered by an error.
fn aisbench(
    files: &mut BTreeMap<String, Vec<u8>>,
    pod: &str,
    random: &mut Random,
    begin: f64,
    concurrency: usize,
) -> Result<()> {
    const DATABASE: &str = "0a1b2c3d.db";
    let mut free = vec![begin; concurrency];
    let mut details = Vec::new();
    let mut blobs = Vec::new();
    for id in 0..24 {
        let slot = (0..concurrency).min_by(|a, b| free[*a].total_cmp(&free[*b])).unwrap_or(0);
        let (input, output) = (random.between(20.0, 40.0) as i64, random.between(10.0, 30.0) as i64);
        let failed = id == 17;
        let mut points = vec![free[slot]];
        let mut at = free[slot] + random.between(0.03, 0.06);
        if !failed {
            points.push(at);
            // the tokens, the reason of the end, the usage
            for _ in 0..output + 2 {
                at += random.between(0.004, 0.006);
                points.push(at);
            }
        }
        free[slot] = at + 0.001;
        let points: Vec<f64> = points.iter().map(|point| (point * 1e6).round() / 1e6).collect();
        let uuid = format!("{:016x}{:016x}", random.next(), random.next());
        blobs.push(npy(&points));
        let line = json!({
            "data_abbr": "demo-set", "id": id, "success": !failed, "error_info": if failed { "HTTP status 503" } else { "" },
            "time_points": { "__db_ref__": blobs.len() }, "input_tokens": if failed { 0 } else { input },
            "output_tokens": if failed { 0 } else { output }, "extra_perf_data": {}, "extra_details_data": {},
            "input": [{ "role": "user", "content": "A" }], "uuid": uuid, "turn_id": 0, "prediction": "", "db_name": DATABASE
        });
        details.push((at, line));
    }
    // in the order of their completion
    details.sort_by(|a, b| a.0.total_cmp(&b.0));
    let lines: String = details.iter().map(|(_, line)| format!("{line}\n")).collect();
    let mut add =
        |name: &str, bytes: Vec<u8>| files.insert(format!("aisbench/performances/{pod}/{name}"), bytes);
    add("demo-set_details.jsonl", lines.into_bytes());
    let limit = json!({ "Max Concurrency": { "total": concurrency } });
    add("syntheticdataset.json", serde_json::to_vec_pretty(&limit)?);
    add(
        &format!("db_data/{DATABASE}"),
        sqlite(
            "CREATE TABLE numpy_store (id INTEGER PRIMARY KEY AUTOINCREMENT, arr_blob BLOB NOT NULL)",
            |db| {
                blobs.iter().try_for_each(|blob| {
                    db.execute("INSERT INTO numpy_store (arr_blob) VALUES (?1)", [blob]).map(drop)
                })
            },
        )?,
    );
    Ok(())
}

/// What a vendor evaluation starts from: 14 rows, two of them without an article or a summary, and what a model is said to have answered.
fn vendor(files: &mut BTreeMap<String, Vec<u8>>, random: &mut Random) -> Result<()> {
    const WORDS: [&str; 24] = [
        "the", "river", "town", "council", "bridge", "opened", "after", "repairs", "a", "market", "new",
        "school", "closed", "for", "winter", "storm", "farmers", "sold", "apples", "in", "autumn", "trains",
        "were", "late",
    ];
    let mut sentence = |words: usize| -> Vec<&str> {
        (0..words).map(|_| WORDS[random.between(0.0, WORDS.len() as f64) as usize]).collect()
    };
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["id", "dialogue", "summary"])?;
    let mut outputs = String::new();
    for id in 0..14 {
        let article: Vec<String> = (0..3).map(|_| sentence(9).join(" ") + ".").collect();
        let summary = sentence(8);
        let (has_article, has_summary) = (id != 4, id != 9);
        let text = if has_article { article.join(" ") } else { String::new() };
        let reference = if has_summary { summary.join(" ") + "." } else { String::new() };
        table.write_record([format!("row-{id}"), text, reference])?;
        if has_article && has_summary {
            // half of the summary, and something else
            let answer = [&summary[..4], &sentence(4)[..]].concat().join(" ");
            let line = json!({ "id": format!("row-{id}"), "prediction": answer, "prompt_tokens": 43, "new_tokens": 8 });
            outputs += &format!("{line}\n");
        }
    }
    let run = json!({ "parameters": 1_000_000_000_u64, "duration": 2.5, "ttft": 0.05 });
    let mut add = |name: &str, bytes: Vec<u8>| files.insert(format!("vendor/{name}"), bytes);
    add("xsum.csv", table.into_inner()?);
    add("outputs.jsonl", outputs.into_bytes());
    add("run.json", serde_json::to_vec_pretty(&run)?);
    let host = "VENDOR: demo\nengine: hf\nchip: DEMO_80\nnproc_per_node: 2\ndata_path: xsum.csv\nmodel_path: demo-1b\n";
    add("host.yaml", host.into());
    add("DEMO_80.yaml", "GPU_NAME: DEMO_80\nTFLOPS_FP16: 10\ntask_nums: 14\n".into());
    Ok(())
}

/// A `.npy` file, version 1.0, one dimension of `<f8`.
fn npy(numbers: &[f64]) -> Vec<u8> {
    let dictionary = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({},), }}", numbers.len());
    let header = format!("{dictionary:<117}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out
}

/// The bytes of a database: the same from any version of SQLite.
fn sqlite(schema: &str, fill: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("x.db");
    let db = Connection::open(&path)?;
    db.execute_batch(schema)?;
    fill(&db)?;
    db.close().map_err(|(_, e)| e)?;
    let mut bytes = fs::read(path)?;
    // which version wrote it
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
