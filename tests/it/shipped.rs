//! What the repository ships works as it is: its workflows, schemas and generated pages.

use std::fs;

use serde_json::json;

use crate::support::{Workspace, repository};

/// The workflow files, by name.
fn workflows() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(repository().join("workflows"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .map(|name| format!("workflows/{name}"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_workflow_passes_the_check_with_each_of_its_profiles() {
    let w = Workspace::shipped();
    assert!(workflows().len() >= 4);
    for file in workflows() {
        let check = w.flow(&["check", &file]).ok();
        assert!(check.stderr.starts_with(&format!("{file}: ok, ")), "{}", check.stderr);
        let json = w.json(&file);
        assert_eq!(json["$schema"], "../schemas/workflow.schema.json", "{file}");
        assert!(json["description"].is_string(), "{file}");
        for profile in json["profiles"].as_object().into_iter().flat_map(|all| all.keys()) {
            w.flow(&["check", &file, "--profile", profile]).ok();
            w.flow(&["plan", &file, "--profile", profile]).ok();
        }
    }
    // the whole has the profiles of its parts
    w.flow(&["check", "workflows/full.json", "--profile", "live"]).ok();
    assert!(!w.has("out"), "neither check nor plan writes outputs");
}

#[test]
fn full_includes_every_workflow_and_runs_on_a_fresh_machine() {
    let w = Workspace::shipped();
    let full = w.json("workflows/full.json");
    let mut included: Vec<String> = full["include"]
        .as_array()
        .unwrap()
        .iter()
        .map(|include| format!("workflows/{}", include["file"].as_str().unwrap()))
        .collect();
    // included by another one
    included.extend(["workflows/inferencemax-process.json".to_owned(), "workflows/full.json".to_owned()]);
    included.sort();
    assert_eq!(included, workflows());

    let run = w.run_file("workflows/full.json", &[]).ok();
    assert_eq!(run.json()["outcome"], "ok");
    // the vendor's files are read once for both of its workflows
    assert_eq!((&run.json()["counts"]["ran"], &run.json()["counts"]["restored"]), (&json!(131), &json!(1)));
    for output in [
        "inferencemax/inference_max_interactivity.csv",
        "inferencemax/inference_max_e2e.csv",
        "inferencemax/inference_max_merged.csv",
        "inferencemax/clean_report.json",
        "inferencemax/join_report.json",
        "inferencemax/verify_report.json",
        "inferencemax/columns.json",
        "inferencemax/report.md",
        "inferencemax/versions",
        "inferencemax-api/inference_max_benchmarks.csv",
        "inferencemax-api/enriched.json",
        "evalscope/summary_raw.csv",
        "evalscope/summary_stats.json",
        "evalscope/summary_problems.json",
        "aisbench/merged.csv",
        "aisbench/merge_report.json",
        "vendor/report.txt",
        "sweep/sweep.csv",
        "multi-pod/merge_results/merged.csv",
        "multi-pod/report.md",
        "vendor-score/report.txt",
    ] {
        assert!(w.has(&format!("out/{output}")), "{output}");
    }
    let top: Vec<String> = fs::read_dir(w.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(top.iter().all(|name| ["workflows", "out", "cache"].contains(&name.as_str())), "{top:?}");
    w.run_file("workflows/full.json", &[]).ok().all_fresh();

    // each by itself makes the same
    for (file, name) in [
        ("inferencemax", "inferencemax"),
        ("inferencemax-api", "inferencemax-api"),
        ("evalscope", "evalscope"),
        ("aisbench-merge", "aisbench"),
        ("vendor-score", "vendor-score"),
    ] {
        let before = w.tree(&format!("out/{name}"));
        w.run_file(&format!("workflows/{file}.json"), &[]).ok();
        assert!(w.tree(&format!("out/{name}")) == before, "{name}");
    }
    w.run_file("workflows/full.json", &[]).ok().all_fresh();
}

#[test]
fn the_small_data_is_what_its_generator_makes() {
    // its own test compares the bytes; here: the data says that it is ours and is complete
    let data = repository().join("workflows/data/inferencemax");
    let count = |dir: &str| fs::read_dir(data.join(dir)).unwrap().count();
    assert_eq!(count("data/inference-performance"), 18);
    assert_eq!(count("saved"), 18);
}

#[test]
fn the_schema_in_the_repository_is_what_flow_prints() {
    let w = Workspace::new();
    let printed = w.flow(&["schema"]).ok();
    let kept = fs::read_to_string(repository().join("schemas/workflow.schema.json")).unwrap();
    assert_eq!(printed.stdout, kept);
    let schema = printed.json();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
    // what editors show: every key of a step has a text
    let text = printed.stdout;
    for key in ["on_failure", "fresh_for", "exclusive", "repeats"] {
        assert!(text.contains(&format!("\"{key}\"")), "{key}");
    }
}

#[test]
fn every_stage_of_the_contract_is_listed_and_described() {
    let w = Workspace::new();
    let list = w.flow(&["stages"]).ok().stdout;
    let page = fs::read_to_string(repository().join("docs/reference/stages.md")).unwrap();
    let contract = [
        "aisbench.import",
        "archive.prune",
        "archive.version",
        "bench.merge",
        "bench.report",
        "csv.join",
        "eval.mfu",
        "eval.rouge",
        "evalscope.collect",
        "evalscope.stats",
        "evalscope.table",
        "http.fetch",
        "inferencemax.api",
        "inferencemax.clean",
        "inferencemax.clean_report",
        "inferencemax.convert",
        "inferencemax.enrich",
        "inferencemax.tables",
        "inferencemax.verify",
        "metrics.compute",
        "inferencemax.wrap",
        "report.markdown",
        "sim.http",
        "sim.llm",
        "table.compare",
        "vendor.config",
        "vendor.report",
        "xsum.read",
    ];
    for name in contract {
        assert!(list.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} in\n{list}");
        let described = w.flow(&["stages", name]).ok().stdout;
        assert!(described.starts_with(&format!("{name} (version ")), "{described}");
        assert!(page.contains(&format!("## {name}\n")), "{name} in docs/reference/stages.md");
    }
    w.flow(&["stages", "http.fech"]).exits(2).says("http.fetch");
}

#[test]
fn ignored_files_are_those_that_flow_makes() {
    let ignored = fs::read_to_string(repository().join(".gitignore")).unwrap();
    for line in ["/target", "/cache", "/out", "/.flow"] {
        assert!(ignored.lines().any(|l| l == line), "{line}");
    }
    assert_eq!(json!(ignored.lines().count()), json!(4));
}
