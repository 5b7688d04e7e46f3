//! Makes the small data that the shipped InferenceMAX workflows run on: `cargo run --example generate-data [DIRECTORY]`
//! (default `workflows/data`). Every number comes from the seeded generator below and the published formulas; none is a
//! measurement. Unaware of workflows.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use flow::stage::inferencemax::hardware::{DashboardPrice, Owner, base_gpu};
use flow::stage::inferencemax::pareto::{self, Better};
use flow::stage::inferencemax::wrap;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Slug, display name, relative cost of a token.
const MODELS: [(&str, &str, f64); 3] = [
    ("llama-3_3-70b-instruct-fp8", "Llama 3.3 70B Instruct", 1.0),
    ("gpt-oss-120b", "gpt-oss 120B", 0.4),
    ("deepseek-r1-0528", "DeepSeek R1 0528", 1.6),
];

/// Slug, input and output tokens.
const SEQUENCES: [(&str, f64, f64); 3] =
    [("1k_1k", 1024.0, 1024.0), ("1k_8k", 1024.0, 8192.0), ("8k_1k", 8192.0, 1024.0)];

/// Hardware key, relative speed, precisions it runs.
const HARDWARE: [(&str, f64, &[&str]); 8] = [
    ("h100", 1.0, &["fp8"]),
    ("h200", 1.2, &["fp8"]),
    ("h200_trt", 1.4, &["fp8"]),
    ("b200", 2.2, &["fp4", "fp8"]),
    ("b200_trt", 2.5, &["fp4", "fp8"]),
    ("gb200", 2.9, &["fp4"]),
    ("mi300x", 0.9, &["fp8"]),
    ("mi355x", 1.9, &["fp4", "fp8"]),
];

/// Newest date of the newer API's data.
const DATE: &str = "2026-01-15";

fn main() -> Result<()> {
    let root = std::env::args().nth(1).unwrap_or_else(|| "workflows/data".to_owned());
    for (path, text) in files()? {
        let path = Path::new(&root).join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

/// Every file, by its path below the data directory.
fn files() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut random = Random(20251023);
    let names: BTreeMap<String, String> =
        MODELS.iter().map(|(slug, name, _)| ((*slug).to_owned(), (*name).to_owned())).collect();
    for (i, (model, _, size)) in MODELS.iter().enumerate() {
        for (j, (sequence, input, output)) in SEQUENCES.iter().enumerate() {
            let points = points(&mut random, *size, *input, *output);
            for (kind, better) in [("e2e", Better::SmallerX), ("interactivity", Better::LargerX)] {
                let file = format!("{model}-{sequence}-{kind}.json");
                let body = chart(&points, better)?;
                let metadata = wrap::Params {
                    model: (*model).to_owned(),
                    sequence: (*sequence).to_owned(),
                    url: format!("/data/inference-performance/{file}"),
                    names: names.clone(),
                }
                .metadata()?;
                files.insert(
                    format!("inferencemax/saved/{:02}_{:02}_{model}_{sequence}_{kind}.json", i + 1, j + 1),
                    wrap::saved_file(&file, &body, &metadata)?,
                );
                files.insert(format!("inferencemax/data/inference-performance/{file}"), body);
            }
        }
    }
    let (mut availability, mut random) = (Vec::new(), Random(20260115));
    for (model, size) in [("dsr1", 1.6), ("gptoss120b", 0.4)] {
        let rows = benchmarks(&mut random, model, size);
        for row in &rows {
            let entry: serde_json::Map<_, _> = [
                "model",
                "isl",
                "osl",
                "precision",
                "hardware",
                "framework",
                "spec_method",
                "disagg",
                "date",
            ]
            .iter()
            .map(|name| ((*name).to_owned(), row[*name].clone()))
            .collect();
            let entry = Value::Object(entry);
            if !availability.contains(&entry) {
                availability.push(entry);
            }
        }
        files.insert(format!("inferencemax-api/benchmarks-{model}.json"), lines(&rows));
    }
    files.insert("inferencemax-api/availability.json".to_owned(), lines(&availability));
    Ok(files)
}

/// SplitMix64: the same numbers on every machine and in every version of this file.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between `low` and `high`.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next() >> 11) as f64 / (1u64 << 53) as f64)
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() % from.len() as u64) as usize]
    }
}

/// One measured configuration.
struct Point {
    conc: u32,
    hw_key: &'static str,
    precision: &'static str,
    tp: u32,
    /// Tokens/s/GPU, 3 decimals.
    throughput: f64,
    /// End-to-end latency, s, 3 decimals.
    latency: f64,
    /// Tokens/s/user, 3 decimals.
    interactivity: f64,
}

/// Four kinds of hardware at three concurrencies each: more at once means more throughput and slower users.
fn points(random: &mut Random, size: f64, input: f64, output: f64) -> Vec<Point> {
    let mut keys = HARDWARE.to_vec();
    while keys.len() > 4 {
        keys.remove((random.next() % keys.len() as u64) as usize);
    }
    let mut points = Vec::new();
    for (hw_key, speed, precisions) in keys {
        for conc in [4, 16, 64] {
            let (tp, precision) = (random.choose(&[2, 4, 8]), random.choose(precisions));
            let fp4 = if precision == "fp4" { 1.3 } else { 1.0 };
            let alone = 30.0 * speed * fp4 * (1.0 + f64::from(tp) / 4.0) / size * random.between(0.85, 1.15);
            let interactivity = alone / (1.0 + f64::from(conc) / (12.0 * f64::from(tp)));
            let first_token = 0.1 + input * size / (9000.0 * speed) * (1.0 + f64::from(conc) / 48.0);
            points.push(Point {
                conc,
                hw_key,
                precision,
                tp,
                throughput: round(
                    f64::from(conc) * interactivity / f64::from(tp) * (input + output) / output,
                    1e3,
                ),
                latency: round(first_token + output / interactivity, 1e3),
                interactivity: round(interactivity, 1e3),
            });
        }
    }
    points
}

/// A response body: a bare array, one record per line, values with 3 decimals.
fn chart(points: &[Point], better: Better) -> Result<String> {
    let x = |point: &Point| match better {
        Better::SmallerX => point.latency,
        Better::LargerX => point.interactivity,
    };
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, point) in points.iter().enumerate() {
        groups.entry(point.hw_key).or_default().push(index);
    }
    let mut roof = vec![false; points.len()];
    for group in groups.values() {
        let plane: Vec<_> =
            group.iter().map(|&index| (x(&points[index]), points[index].throughput)).collect();
        for (&index, on_front) in group.iter().zip(pareto::front(&plane, better)) {
            roof[index] = on_front;
        }
    }
    let mut records = Vec::new();
    for (point, roof) in points.iter().zip(roof) {
        let price = DashboardPrice::of(base_gpu(point.hw_key)).ok_or("hardware without price")?;
        let value = |y: f64| json!({"roof": roof, "y": number(y, 1e3)});
        let mut record = json!({"conc": point.conc});
        for owner in Owner::ALL {
            record[owner.field()] = value(price.cost(owner, point.throughput));
        }
        record["hwKey"] = json!(point.hw_key);
        record["precision"] = json!(point.precision);
        record["tp"] = json!(point.tp);
        record["tpPerGpu"] = value(point.throughput);
        record["tpPerMw"] = value(price.tok_s_per_mw(point.throughput));
        record["x"] = number(x(point), 1e3);
        record["y"] = number(point.throughput, 1e3);
        records.push(record);
    }
    Ok(lines(&records))
}

/// Rows of the newer API, among them hardware without price, a sequence outside the usual three, and a throughput of 0.
fn benchmarks(random: &mut Random, model: &str, size: f64) -> Vec<Value> {
    let mut rows = Vec::new();
    for (hardware, speed) in [("h200", 1.2), ("mi355x", 1.9), ("b300", 2.8), ("gb300", 3.2)] {
        for (isl, osl) in [(8192, 1024), (1024, 1024), (1024, 8192), (2048, 512)] {
            if osl == 512 && hardware != "h200" {
                continue;
            }
            let conc = random.choose(&[4, 16, 64]);
            let tp = random.choose(&[4, 8]);
            let framework = random.choose(if hardware == "mi355x" { &["sglang"] } else { &["vllm", "trt"] });
            let interactivity =
                40.0 * speed / size * random.between(0.85, 1.15) / (1.0 + f64::from(conc) / 90.0);
            let output = if hardware == "b300" && osl == 8192 {
                0.0
            } else {
                f64::from(conc) * interactivity / f64::from(tp)
            };
            let input = output * f64::from(isl) / f64::from(osl);
            let mut metrics = json!({
                "tput_per_gpu": number(input + output, 1e6),
                "output_tput_per_gpu": number(output, 1e6),
                "input_tput_per_gpu": number(input, 1e6),
            });
            let first_token = f64::from(isl) * size / (9000.0 * speed);
            let token = 1.0 / interactivity;
            let latency = first_token + token * f64::from(osl);
            for (name, seconds) in
                [("ttft", first_token), ("tpot", token), ("itl", token * 1.02), ("e2el", latency)]
            {
                for (statistic, factor) in [("mean", 1.04), ("median", 1.0), ("p99", 1.7), ("std", 0.12)] {
                    metrics[format!("{statistic}_{name}")] = number(seconds * factor, 1e6);
                }
            }
            for (statistic, factor) in [("median", 1.0), ("mean", 1.04), ("p99", 1.7)] {
                metrics[format!("{statistic}_intvty")] = number(interactivity / factor, 1e6);
            }
            let run = random.next() % 9_000_000 + 1_000_000;
            rows.push(json!({
                "hardware": hardware, "framework": framework, "model": model,
                "precision": if hardware == "h200" { "fp8" } else { "fp4" },
                "spec_method": random.choose(&["none", "mtp"]), "disagg": false, "is_multinode": false,
                "prefill_tp": tp, "prefill_ep": 1, "prefill_dp_attention": false, "prefill_num_workers": 0,
                "decode_tp": tp, "decode_ep": 1, "decode_dp_attention": false, "decode_num_workers": 0,
                "num_prefill_gpu": tp, "num_decode_gpu": tp, "isl": isl, "osl": osl, "conc": conc,
                "image": if run.is_multiple_of(5) { Value::Null } else { json!(format!("example/{framework}:v{}", run % 7)) },
                "metrics": metrics, "date": DATE,
                "run_url": format!("https://example.invalid/runs/{run}/attempts/1"),
            }));
        }
    }
    rows
}

/// `value` rounded to steps of 1 / `scale`.
fn round(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

/// The rounded value as JSON; a whole number without decimals, as the sources write it.
fn number(value: f64, scale: f64) -> Value {
    let rounded = round(value, scale);
    if rounded.fract() == 0.0 { json!(rounded as i64) } else { json!(rounded) }
}

/// A JSON array, one item per line.
fn lines(items: &[Value]) -> String {
    let mut out = String::from("[");
    for (index, item) in items.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\n{item}");
    }
    out.push_str("\n]\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(root: &Path, below: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{below}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(root, &path, found);
            } else {
                found.insert(path.clone(), fs::read_to_string(root.join(&path)).unwrap());
            }
        }
    }

    #[test]
    fn the_committed_data_is_what_the_generator_makes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/data");
        let mut committed = BTreeMap::new();
        walk(&root, "inferencemax", &mut committed);
        walk(&root, "inferencemax-api", &mut committed);
        let made = files().unwrap();
        assert_eq!(committed.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>());
        for (path, text) in &made {
            assert!(committed[path] == *text, "{path}: run `cargo run --example generate-data`");
        }
        let size: usize = made.values().map(String::len).sum();
        assert!(size < 300_000, "{size} bytes");
    }
}
