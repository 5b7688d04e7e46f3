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
