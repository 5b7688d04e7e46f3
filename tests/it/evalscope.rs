//! The evalscope workflow on real results of three versions, on damaged ones, and after small changes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Run, Workspace, fixtures};

pub const WORKFLOW: &str = "workflows/evalscope.json";

pub fn real() -> Option<PathBuf> {
    fixtures().map(|root| root.join("evalscope"))
}

pub fn run(w: &Workspace, results: &Path, args: &[&str]) -> Run {
    let results = format!("results={}", results.display());
    w.run_file(WORKFLOW, &[&["--set", &results], args].concat())
}

/// Numbers by value, everything else as it is.
fn same(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{place}: {:?}\n{:?}", a.keys(), b.keys());
            a.iter().for_each(|(key, value)| same(value, &b[key], &format!("{place}.{key}")));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| same(a, b, &format!("{place}[{i}]")));
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-9 * b.abs(), "{place}: {a} {b}");
        }
        (a, b) => assert_eq!(a, b, "{place}"),
    }
}

/// The same of tables: cells that are numbers on both sides by value.
fn same_table(found: &str, expected: &str, place: &str) {
    let records = |text: &str| -> Vec<csv::StringRecord> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        reader.records().map(Result::unwrap).collect()
    };
    assert!(found.ends_with("\r\n"));
    let (found, expected) = (records(found), records(expected));
    assert_eq!((&found[0], found.len()), (&expected[0], expected.len()), "{place}");
    for (line, (found, expected)) in found.iter().zip(&expected).enumerate() {
        for (column, (a, b)) in found.iter().zip(expected).enumerate() {
            match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(x), Ok(y)) if x.is_nan() && y.is_nan() => {}
                (Ok(x), Ok(y)) => {
                    assert!((x - y).abs() <= 1e-9 * y.abs(), "{place}:{line}:{column}: {a} {b}")
                }
                _ => assert_eq!(a, b, "{place}:{line}:{column}"),
            }
        }
    }
}

#[test]
fn every_expected_file_of_the_fixtures() {
    let Some(real) = real() else { return };
    for case in ["v1.2.0", "v1.2.0_nostream", "v1.14.1", "broken"] {
        let w = Workspace::shipped();
        run(&w, &real.join(case).join("results"), &[]).ok();
        let expected = |name: &str| fs::read_to_string(real.join(case).join("expected").join(name)).unwrap();
        let json = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        for table in ["raw", "stats"] {
            let (csv, name) = (format!("summary_{table}.csv"), format!("summary_{table}.json"));
            same_table(&w.read(&format!("out/evalscope/{csv}")), &expected(&csv), &format!("{case}/{csv}"));
            same(
                &w.json(&format!("out/evalscope/{name}")),
                &json(&expected(&name)),
                &format!("{case}/{name}"),
            );
        }
        let problems = |value: Value| -> Vec<(Value, Value)> {
            value.as_array().unwrap().iter().map(|p| (p["dir"].clone(), p["kept"].clone())).collect()
        };
        // directories that have only one of the two files are listed, too; the fixtures pass over them
        let passed_over = |p: &Value| p["reason"] == "missing" && p["kept"] == false;
        let listed: Vec<Value> =
            serde_json::from_value(w.json("out/evalscope/summary_problems.json")).unwrap();
        assert_eq!(listed.iter().filter(|p| passed_over(p)).count(), if case == "broken" { 2 } else { 0 });
        let found = problems(listed.into_iter().filter(|p| !passed_over(p)).collect());
        assert_eq!(found, problems(json(&expected("summary_problems.json"))), "{case}");
    }
}

#[test]
fn a_new_run_is_the_only_one_that_is_read() {
    let Some(real) = real() else { return };
    let w = Workspace::shipped();
    let dir = |n: u32| format!("mine/p32/20260101_00000{n}/m");
    let add = |n: u32| {
        let from = real.join("v1.2.0/results/p64_n100_dp_short/20261121_215844/Qwen3-VL-235B-A22B-Instruct");
        for entry in fs::read_dir(from).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            w.write(&format!("{}/{name}", dir(n)), fs::read(entry.path()).unwrap());
        }
    };
    (1..4).for_each(add);
    let results = w.path("mine");
    assert_eq!(run(&w, &results, &[]).ok().with_outcome("ran").len(), 7);
    run(&w, &results, &[]).ok().all_fresh();
    add(4);
    let again = run(&w, &results, &[]).ok();
    assert_eq!(again.with_outcome("ran").len(), 5, "{:?}", again.with_outcome("ran"));
    assert_eq!(w.json("out/evalscope/summary_stats.json")[0]["count"], 4);
    // a key of the args is nowhere in what is written
    let args: String = w.read(&format!("{}/benchmark_args.json", dir(1)));
    w.write(
        &format!("{}/benchmark_args.json", dir(1)),
        args.replace("\"api_key\": null", "\"api_key\": \"sk-geheim\""),
    );
    run(&w, &results, &[]).ok();
    for (path, bytes) in w.tree("out").into_iter().chain(w.tree("cache")) {
        assert!(!bytes.windows(9).any(|part| part == b"sk-geheim"), "{path}");
    }
}

#[test]
fn strict_and_nothing_found_are_failures_that_keep_the_list() {
    let Some(real) = real() else { return };
    let w = Workspace::shipped();
    let failed = run(&w, &real.join("broken/results"), &["--set", "strict=true"]).exits(1);
    failed.says("b02_truncated_summary");
    assert_eq!(w.json("out/evalscope/summary_problems.json").as_array().unwrap().len(), 12);
    let none = run(&w, &real.join("broken/results/b16_no_runs"), &[]).exits(1);
    none.says("no run found");
}

#[test]
fn one_format_and_one_table() {
    let Some(real) = real() else { return };
    let w = Workspace::shipped();
    run(&w, &real.join("v1.2.0/results"), &["--set", "format=csv", "--set", "data=stats"]).ok();
    let names: Vec<String> =
        w.tree("out/evalscope").into_keys().filter(|name| !name.starts_with("runs/")).collect();
    assert_eq!(names, ["summary_problems.json", "summary_stats.csv"]);
}

#[test]
fn runs_without_a_success_are_named_and_in_no_statistic() {
    let w = Workspace::shipped();
    let run_of = |n: u32, succeeded: u32, latency: f64| {
        let summary = json!({
            "Time taken for tests (s)": 1.5, "Total requests": 10, "Succeed requests": succeeded,
            "Average latency (s)": latency
        });
        let dir = format!("mine/c/2026010{n}_000000/m");
        w.write(&format!("{dir}/benchmark_summary.json"), summary.to_string());
        w.write(
            &format!("{dir}/benchmark_args.json"),
            json!({"parallel": 4, "number": 10, "max_tokens": 5}).to_string(),
        );
    };
    run_of(1, 10, 2.0);
    run_of(2, 0, -1.0);
    run_of(3, 10, 4.0);
    // no place of a run
    w.write("mine/notes/benchmark_summary.json", "{}").write("mine/notes/benchmark_args.json", "{}");
    run(&w, &w.path("mine"), &[]).ok();
    let stats = w.json("out/evalscope/summary_stats.json");
    assert_eq!((&stats[0]["count"], &stats[0]["latency_avg"]), (&json!(2), &json!(3.0)));
    assert_eq!(w.json("out/evalscope/summary_raw.json").as_array().unwrap().len(), 3);
    let problems = w.json("out/evalscope/summary_problems.json");
    let without: Vec<&Value> =
        problems.as_array().unwrap().iter().filter(|p| p["reason"] == "no_success").collect();
    assert_eq!(
        without,
        [
            &json!({"dir": "c/20260102_000000/m", "file": "benchmark_summary.json", "reason": "no_success", "kept": true})
        ]
    );
}
