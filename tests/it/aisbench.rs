//! The AISBench workflow on real results of two tools' runs, on damaged ones, and after small changes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Run, Workspace, fixtures};

const WORKFLOW: &str = "workflows/aisbench-merge.json";

fn real(case: &str) -> Option<PathBuf> {
    fixtures().map(|root| root.join("aisbench").join(case))
}

/// The pods of a fixture: every directory but that of the merge.
fn pods(case: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(case.join("performances")).unwrap().map(|entry| entry.unwrap().path());
    let mut pods: Vec<PathBuf> = entries.filter(|path| !path.ends_with("merge_results")).collect();
    pods.sort();
    pods
}

fn run(w: &Workspace, pods: &[PathBuf], set: &[&str]) -> Run {
    let mut args = vec!["--set".to_owned(), format!("performances={}", json!(pods))];
    args.extend(set.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    w.run_file(WORKFLOW, &args)
}

/// Numbers to 1e-9, whole ones exactly, everything else as it is.
fn same(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let (mut left, mut right): (Vec<_>, Vec<_>) = (a.keys().collect(), b.keys().collect());
            left.sort();
            right.sort();
            assert_eq!(left, right, "{place}");
            a.iter().for_each(|(key, value)| same(value, &b[key], &format!("{place}.{key}")));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| same(a, b, &format!("{place}[{i}]")));
        }
        (Value::Number(a), Value::Number(b)) if b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-9 * b.abs().max(1e-3), "{place}: {a} {b}");
        }
        (a, b) => assert_eq!(a, b, "{place}"),
    }
}

#[test]
fn every_expected_file_of_the_fixtures() {
    for (case, max, set) in [
        ("two_pods", 1, &["stage=total"][..]),
        ("pressure_stable", 13, &["stage=stable", "stable_rule=release"]),
    ] {
        let Some(real) = real(case) else { return };
        let w = Workspace::shipped();
        let max = format!("max_concurrency={max}");
        run(&w, &pods(&real), &[&[max.as_str()], set].concat()).ok();
        let tool =
            |name: &str| fs::read_to_string(real.join("performances/merge_results").join(name)).unwrap();
        assert_eq!(w.read("out/aisbench/merged.csv"), tool("merged.csv"), "{case}");
        assert_eq!(w.read("out/aisbench/merged.json"), tool("merged.json"), "{case}");
        let expected: Value =
            serde_json::from_str(&fs::read_to_string(real.join("expected_exact.json")).unwrap()).unwrap();
        same(&w.json("out/aisbench/merged_exact.json"), &expected["merged"], case);
    }
}

#[test]
fn each_pod_alone_is_as_the_tool_reported_it() {
    for (case, set) in [("two_pods", "stage=total"), ("pressure_stable", "stage=stable")] {
        let Some(real) = real(case) else { return };
        let expected: Value =
            serde_json::from_str(&fs::read_to_string(real.join("expected_exact.json")).unwrap()).unwrap();
        for pod in pods(&real) {
            let w = Workspace::shipped();
            // the limit comes from the tool's own json
            run(&w, std::slice::from_ref(&pod), &[set]).ok();
            for ending in ["csv", "json"] {
                let tool = fs::read_to_string(pod.join(format!("syntheticdataset.{ending}"))).unwrap();
                assert_eq!(w.read(&format!("out/aisbench/merged.{ending}")), tool, "{}", pod.display());
            }
            let mut found = w.json("out/aisbench/merged_exact.json");
            let expected = &expected["models"][pod.file_name().unwrap().to_str().unwrap()];
            found["files"] = expected["files"].clone();
            same(&found, expected, &pod.display().to_string());
        }
    }
}

/// The shipped pods, copied to `trees/<tree>/`.
fn copied(w: &Workspace, tree: &str) -> Vec<PathBuf> {
    ["demo-8b-pod-a", "demo-8b-pod-b"]
        .map(|pod| {
            let to = w.path(&format!("trees/{tree}/{pod}"));
            copy(&w.path("workflows/data/aisbench/performances").join(pod), &to);
            to
        })
        .to_vec()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// Adds `seconds` to all time points of a pod.
fn shift(pod: &Path, seconds: f64) {
    let db = rusqlite::Connection::open(pod.join("db_data/0a1b2c3d.db")).unwrap();
    let mut select = db.prepare("SELECT id, arr_blob FROM numpy_store").unwrap();
    let rows = select.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    let rows: Vec<(i64, Vec<u8>)> = rows.map(Result::unwrap).collect();
    for (id, blob) in rows {
        // ten bytes before the header, which says its own length
        let header = 10 + usize::from(u16::from_le_bytes([blob[8], blob[9]]));
        let mut moved = blob[..header].to_vec();
        for number in blob[header..].as_chunks::<8>().0 {
            moved.extend_from_slice(&(f64::from_le_bytes(*number) + seconds).to_le_bytes());
        }
        db.execute("UPDATE numpy_store SET arr_blob = ?1 WHERE id = ?2", (moved, id)).unwrap();
    }
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn only_what_changed_runs_again() {
    let w = Workspace::shipped();
    assert_eq!(w.run_file(WORKFLOW, &[]).ok().with_outcome("ran").len(), 4);
    w.run_file(WORKFLOW, &[]).all_fresh();
    w.run_file(WORKFLOW, &["--set", "stage=stable"]).ran(["report"]);
    // the order of completion is of no matter
    let details = w.path("workflows/data/aisbench/performances/demo-8b-pod-a/demo-set_details.jsonl");
    let mut lines: Vec<String> = fs::read_to_string(&details).unwrap().lines().map(str::to_owned).collect();
    lines.reverse();
    fs::write(&details, lines.join("\n")).unwrap();
    let ran = w.run_file(WORKFLOW, &["--set", "stage=stable"]).ok().with_outcome("ran");
    assert!(ran.iter().any(|node| node.starts_with("import")) && !ran.contains("report"), "{ran:?}");
}

#[test]
fn equal_names_of_databases_do_no_harm_and_parts_are_the_whole() {
    let w = Workspace::shipped();
    let pods = copied(&w, "x");
    let mean = |found: &Value| found["total_stage"]["metrics"]["E2EL_s"]["Average"].as_f64().unwrap();
    let of = |pods: &[PathBuf]| {
        run(&w, pods, &[]).ok();
        w.json("out/aisbench/merged_exact.json")
    };
    let parts = [of(&pods[..1]), of(&pods[1..])];
    let whole = of(&pods);
    let count = |found: &Value, name: &str| found["total_stage"]["common"][name].as_u64().unwrap();
    for name in
        ["total", "success", "failed", "input_tokens", "generated_tokens", "itl_intervals", "max_concurrency"]
    {
        assert_eq!(count(&whole, name), parts.iter().map(|part| count(part, name)).sum::<u64>(), "{name}");
    }
    let weighted: f64 = parts.iter().map(|part| mean(part) * count(part, "success") as f64).sum();
    assert!((mean(&whole) - weighted / count(&whole, "success") as f64).abs() < 1e-12);
    let report = w.json("out/aisbench/merge_report.json");
    assert_eq!(report["name_collisions"][0]["name"], json!("0a1b2c3d.db"));
    let alone: f64 =
        parts.iter().map(|part| part["total_stage"]["common"]["request_throughput"].as_f64().unwrap()).sum();
    assert!((report["sum_of_pods"].as_f64().unwrap() - alone).abs() < 1e-9);
    assert_eq!(report["union"], whole["total_stage"]["common"]["request_throughput"]);
}

#[test]
fn a_request_that_is_there_twice_is_refused_with_both_places() {
    let w = Workspace::shipped();
    let mut pods = copied(&w, "x");
    pods.push(copied(&w, "y").remove(0));
    let failed = run(&w, &pods, &[]).exits(1);
    for part in [
        "24 requests are there twice",
        "trees/x/demo-8b-pod-a/demo-set_details.jsonl:",
        "trees/y/demo-8b-pod-a/demo-set_details.jsonl:",
        "and 21 more",
        "on_duplicate: drop",
    ] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    // under another name it is the same request
    fs::rename(&pods[2], w.path("trees/y/demo-8b-pod-a.bak")).unwrap();
    pods[2] = w.path("trees/y/demo-8b-pod-a.bak");
    let failed = run(&w, &pods, &[]).exits(1);
    assert!(failed.stderr.contains("24 requests are there twice"), "{}", failed.stderr);
    run(&w, &pods, &["on_duplicate=drop"]).ok();
    let report = w.json("out/aisbench/merge_report.json");
    assert_eq!(report["duplicates"].as_array().unwrap().len(), 24);
    let requests: Vec<&Value> =
        report["pods"].as_array().unwrap().iter().map(|pod| &pod["requests"]).collect();
    assert_eq!(requests, [&json!(24), &json!(24), &json!(0)]);
}

#[test]
fn clocks_that_cannot_be_compared_are_refused() {
    let w = Workspace::shipped();
    let exact = |w: &Workspace| w.json("out/aisbench/merged_exact.json");
    let pods = copied(&w, "x");
    run(&w, &pods, &[]).ok();
    let before = exact(&w);
    shift(&pods[1], 86_400.0);
    let failed = run(&w, &pods, &[]).exits(1);
    for part in ["demo-8b-pod-b begins 86399.4 s after demo-8b-pod-a ended", "align: start"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    run(&w, &pods, &["align=start"]).ok();
    let report = w.json("out/aisbench/merge_report.json");
    assert_eq!(report["pods"][0]["window"][0], report["pods"][1]["window"][0]);
    // with both clocks known nothing is lost
    for (pod, host, monotonic) in [(&pods[0], "a", 4000.0), (&pods[1], "b", 90_400.0)] {
        let clock = json!({ "host": host, "monotonic": monotonic, "unix": 1_700_000_000.0 });
        fs::write(pod.join("clock.json"), clock.to_string()).unwrap();
    }
    run(&w, &pods, &[]).ok();
    let after = exact(&w);
    let duration = |found: &Value| found["total_stage"]["common"]["benchmark_duration_s"].as_f64().unwrap();
    assert!((duration(&before) - duration(&after)).abs() < 1e-6, "{before} {after}");
    fs::remove_file(pods[1].join("clock.json")).unwrap();
    fs::write(pods[1].join("clock.json"), r#"{"host": "b"}"#).unwrap();
    assert!(
        run(&w, &pods, &[]).exits(1).stderr.contains("demo-8b-pod-b/clock.json:1: missing field `monotonic`")
    );
}

#[test]
fn what_is_damaged_is_named() {
    let blob = |pod: &Path, sql: &str| {
        rusqlite::Connection::open(pod.join("db_data/0a1b2c3d.db")).unwrap().execute_batch(sql).unwrap();
    };
    let details = |pod: &Path| pod.join("demo-set_details.jsonl");
    type Damage<'d> = (&'d str, &'d dyn Fn(&Path), &'d [&'d str]);
    let cases: &[Damage] = &[
        (
            "no details",
            &|pod| fs::remove_file(details(pod)).unwrap(),
            &["demo-8b-pod-a: holds no *_details.jsonl"],
        ),
        ("empty details", &|pod| fs::write(details(pod), "").unwrap(), &["demo-8b-pod-a: no requests"]),
        (
            "no database",
            &|pod| fs::remove_file(pod.join("db_data/0a1b2c3d.db")).unwrap(),
            &["demo-set_details.jsonl:1: its database", "db_data/0a1b2c3d.db is missing"],
        ),
        (
            "text as database",
            &|pod| fs::write(pod.join("db_data/0a1b2c3d.db"), "text").unwrap(),
            &["0a1b2c3d.db: ", "not a database"],
        ),
        (
            "a row less",
            &|pod| blob(pod, "DELETE FROM numpy_store WHERE id = 3"),
            &["has no time points with id 3"],
        ),
        (
            "a short blob",
            &|pod| blob(pod, "UPDATE numpy_store SET arr_blob = substr(arr_blob, 1, 130) WHERE id = 5"),
            &["0a1b2c3d.db: id 5: expected", "numbers, found 2 bytes"],
        ),
        (
            "text as blob",
            &|pod| blob(pod, "UPDATE numpy_store SET arr_blob = 'x' WHERE id = 5"),
            &["0a1b2c3d.db: id 5: "],
        ),
        (
            "a cut line",
            &|pod| {
                let text = fs::read_to_string(details(pod)).unwrap();
                fs::write(details(pod), &text[..text.len() - 9]).unwrap();
            },
            &["demo-set_details.jsonl:24: EOF"],
        ),
        (
            "no uuid",
            &|pod| replace(&details(pod), "\"uuid\"", "\"uid\""),
            &["demo-set_details.jsonl:1: missing field `uuid`"],
        ),
        (
            "a word that Python writes",
            &|pod| replace(&details(pod), "\"success\":true", "\"success\":NaN"),
            &["demo-set_details.jsonl:1: bare NaN is not JSON (column ", "write null in its place"],
        ),
        (
            "such a word in the tool's json",
            &|pod| fs::write(pod.join("syntheticdataset.json"), "{\n\"Max Concurrency\": Infinity}").unwrap(),
            &["syntheticdataset.json:2: bare Infinity is not JSON (column 20)"],
        ),
        (
            "a path",
            &|pod| replace(&details(pod), "\"0a1b2c3d.db\"", "\"../0a1b2c3d.db\""),
            &["db_name: expected a file name, found '../0a1b2c3d.db'"],
        ),
        (
            "the tool's json",
            &|pod| fs::write(pod.join("syntheticdataset.json"), "{").unwrap(),
            &["syntheticdataset.json:1: EOF"],
        ),
        (
            "no limit",
            &|pod| fs::remove_file(pod.join("syntheticdataset.json")).unwrap(),
            &["max_concurrency: not known of demo-8b-pod-a", "give max_concurrency"],
        ),
        (
            "no limit but 0",
            &|pod| {
                for pod in [pod, &pod.with_file_name("demo-8b-pod-b")] {
                    let zero = json!({"Max Concurrency": {"total": 0}});
                    fs::write(pod.join("syntheticdataset.json"), zero.to_string()).unwrap();
                }
            },
            &[
                "max_concurrency: out/aisbench/merge_report.json: expected a whole number above 0, found 0",
                "the tool's json says Max Concurrency 0 of demo-8b-pod-a, demo-8b-pod-b",
            ],
        ),
    ];
    for (case, damage, parts) in cases {
        let w = Workspace::shipped();
        let pods = copied(&w, "x");
        damage(&pods[0]);
        let failed = run(&w, &pods, &[]).exits(1);
        for part in *parts {
            assert!(failed.stderr.contains(part), "{case}: {part}: {}", failed.stderr);
        }
    }
}

#[test]
fn what_a_merge_wrote_is_no_pod_and_nothing_is_no_report() {
    let w = Workspace::shipped();
    let failed = run(&w, &[], &[]).exits(1);
    assert!(failed.stderr.contains("no pods: there is nothing to merge"), "{}", failed.stderr);
    let pods = copied(&w, "x");
    let merged = w.path("trees/x/merge_results");
    copy(&pods[0], &merged);
    let failed = run(&w, &[merged], &[]).exits(1);
    assert!(
        failed.stderr.contains("trees/x/merge_results: this is what a merge wrote, not a pod"),
        "{}",
        failed.stderr
    );
    let text = fs::read_to_string(pods[0].join("demo-set_details.jsonl")).unwrap();
    fs::write(pods[0].join("demo-set_details.jsonl"), text.replace("\"success\":true", "\"success\":false"))
        .unwrap();
    let failed = run(&w, &pods[..1], &[]).exits(1);
    assert!(failed.stderr.contains("none of 24 requests succeeded"), "{}", failed.stderr);
    let failed = run(&w, &pods[1..], &["stage=stable", "max_concurrency=20"]).exits(1);
    assert!(
        failed.stderr.contains("no stable stage: 20 requests were never in flight twice"),
        "{}",
        failed.stderr
    );
}
