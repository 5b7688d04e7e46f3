//! The freshness gate: a run in which a fetch failed publishes no new version, and files of earlier runs never count as fetched.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Run, Workspace};

const FILE: &str = "workflows/inferencemax.json";
const OUT: &str = "out/inferencemax";
const BODIES: &str = "workflows/data/inferencemax/data/inference-performance";

/// The shipped workflows; the server's faults are in its parameters, and retries wait for next to nothing.
fn project() -> Workspace {
    let w = Workspace::shipped();
    let mut workflow = w.json(FILE);
    workflow["steps"]["fetch"]["retry"] = json!({"max": 2, "backoff": "1ms", "max_backoff": "2ms"});
    w.write(FILE, workflow.to_string());
    w
}

/// From now on the server has these faults. (Its identity changes, so every body is fetched anew.)
fn faults(w: &Workspace, faults: Value) {
    let mut workflow = w.json(FILE);
    workflow["services"]["dashboard"]["with"]["faults"] = faults;
    w.write(FILE, workflow.to_string());
}

/// Every served body is another one than before.
fn change_all_bodies(w: &Workspace) {
    for entry in fs::read_dir(w.path(BODIES)).unwrap() {
        let path = entry.unwrap().path();
        let mut items: Vec<Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        items[0]["x"] = json!(77.125);
        fs::write(&path, serde_json::to_vec(&items).unwrap()).unwrap();
    }
}

fn run(w: &Workspace, args: &[&str]) -> Run {
    w.run_file(FILE, args)
}

fn steps(run: &Run, outcome: &str) -> BTreeSet<String> {
    run.with_outcome(outcome).into_iter().map(|id| id.split('[').next().unwrap().to_owned()).collect()
}

fn set<const N: usize>(list: [&str; N]) -> BTreeSet<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// After a good run nothing can be fetched: nothing moves.
#[track_caller]
fn nothing_can_be_fetched(fault: Value, status: &str, attempts: u64) {
    let w = project();
    run(&w, &[]).ok();
    let before = w.tree(OUT);
    change_all_bodies(&w);
    faults(&w, json!([fault]));
    let failed = run(&w, &["-k"]).exits(1);
    assert_eq!(failed.json()["outcome"], "failed");
    assert_eq!(failed.with_outcome("failed").len(), 18);
    assert_eq!(steps(&failed, "failed"), set(["fetch"]));
    assert_eq!(failed.json()["counts"]["ran"], 0);
    assert_eq!(failed.json()["counts"]["skipped"], 80 - 2 - 18);
    let node = failed.node("fetch[model=gpt-oss-120b,seq=8k_1k,kind=e2e]");
    assert_eq!(node["attempts"], attempts, "{node}");
    assert!(w.tree(OUT) == before, "something moved");
    let failed = failed
        .says(status)
        .says("http://127.0.0.1:")
        .says("/data/inference-performance/gpt-oss-120b-8k_1k-e2e.json");
    drop(failed);

    // without --keep-going too
    run(&w, &[]).exits(1).says(status);
    assert!(w.tree(OUT) == before, "something moved");

    // well again: everything new, one more version
    faults(&w, json!([]));
    run(&w, &[]).ok();
    assert!(w.read(&format!("{OUT}/inference_max_merged.csv")).contains("77.125"));
    assert_eq!(versions(&w).len(), 2);
}

fn versions(w: &Workspace) -> Vec<String> {
    let dir = fs::read_dir(w.path(&format!("{OUT}/versions")));
    let mut names: Vec<String> =
        dir.map(|d| d.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()).unwrap_or_default();
    names.sort();
    names
}

#[test]
fn every_url_is_not_found() {
    nothing_can_be_fetched(json!({"match": "*", "status": 404}), "answered 404", 1);
}

#[test]
fn every_url_has_a_server_fault() {
    nothing_can_be_fetched(json!({"match": "*", "status": 500}), "answered 500", 3);
}

#[test]
fn every_answer_is_cut_in_mid_body() {
    nothing_can_be_fetched(json!({"match": "*", "cut_after": 100}), "(status 200)", 3);
}

#[test]
fn one_of_eighteen_is_not_found() {
    let w = project();
    run(&w, &[]).ok();
    let before = w.tree(OUT);
    change_all_bodies(&w);
    let one = "gpt-oss-120b-8k_1k-e2e";
    faults(&w, json!([{"match": format!("*{one}*"), "status": 404}]));
    let failed = run(&w, &["-k"]).exits(1).failed(["fetch[model=gpt-oss-120b,seq=8k_1k,kind=e2e]"]);
    let failed = failed.says("404").says(&format!("/data/inference-performance/{one}.json"));
    assert_eq!(failed.json()["counts"]["ran"], 17 * 4, "the chains of the others");
    let gather = ["clean_report", "tables", "merge", "verify", "version", "report"];
    let mut skipped: BTreeSet<String> = gather.iter().map(|step| format!("process.{step}")).collect();
    skipped.insert("wrap[model=gpt-oss-120b,seq=8k_1k,kind=e2e]".into());
    for step in ["clean", "convert"] {
        skipped.insert(format!("process.{step}[file=\"{OUT}/raw/02_03_gpt-oss-120b_8k_1k_e2e.json\"]"));
    }
    assert_eq!(failed.with_outcome("skipped"), skipped);
    let after = w.tree(OUT);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (path, bytes) in &before {
        let chain = path.contains(one) || path.contains("02_03_gpt-oss-120b_8k_1k_e2e");
        let stays = chain || !path.contains('/') || path.starts_with("versions/");
        // the verdict of a file stays the same as long as its size and number of points do
        if !path.starts_with("verdicts/") {
            assert_eq!(*bytes == after[path], stays, "{path}");
        }
    }
    assert_eq!(versions(&w).len(), 1);
}

#[test]
fn files_that_are_there_never_count_as_fetched() {
    // a first run: the one that failed was never there, so nothing is gathered
    let w = project();
    faults(&w, json!([{"match": "*gpt-oss-120b-8k_1k-e2e*", "status": 404}]));
    run(&w, &["-k"]).exits(1);
    for gathered in
        ["inference_max_e2e.csv", "inference_max_merged.csv", "clean_report.json", "report.md", "versions"]
    {
        assert!(!w.has(&format!("{OUT}/{gathered}")), "{gathered}");
    }
    assert_eq!(w.tree(&format!("{OUT}/bodies")).len(), 17);

    // a body put there by hand is not a fetched one either
    let body = "gpt-oss-120b-8k_1k-e2e.json";
    w.write(&format!("{OUT}/bodies/{body}"), w.read(&format!("{BODIES}/{body}")));
    run(&w, &["-k"]).exits(1).failed(["fetch[model=gpt-oss-120b,seq=8k_1k,kind=e2e]"]);
    assert!(!w.has(&format!("{OUT}/inference_max_e2e.csv")) && !w.has(&format!("{OUT}/versions")));
}

#[test]
fn a_changed_list_does_not_let_old_files_through() {
    let w = project();
    run(&w, &[]).ok();
    // the files of the second model were fetched by the run before; now only the third one's can be
    w.remove(&format!("{BODIES}/deepseek-r1-0528-1k_1k-e2e.json"));
    let before = w.tree(OUT);
    run(&w, &["-k"]).exits(1).failed(["fetch[model=deepseek-r1-0528,seq=1k_1k,kind=e2e]"]).says("404");
    assert!(w.tree(OUT) == before);
    // not even when all of its chain is asked for by name
    run(&w, &["process.tables"]).exits(1);
    // offline is asked for and said
    let run = run(&w, &["--offline"]).ok().all_fresh();
    assert_eq!(run.json()["counts"]["ran"], 0);
}

#[test]
fn outputs_of_a_failed_attempt_that_say_so_are_published() {
    let w = Workspace::shipped();
    let file = "workflows/inferencemax-process.json";
    let args = ["--set", "on_invalid=fail"];
    w.run_file(file, &args).ok();
    let before = w.tree("out/inferencemax-process");
    w.write("workflows/data/inferencemax/saved/04_foreign.json", "{}");
    w.run_file(file, &[&args[..], &["-k"]].concat()).exits(1).failed(["clean_report"]);
    let after = w.tree("out/inferencemax-process");
    let changed: BTreeSet<&String> =
        after.keys().filter(|path| before.get(*path) != after.get(*path)).collect();
    let expected = ["clean_report.json", "quarantine/04_foreign.json", "verdicts/04_foreign.json"];
    assert_eq!(changed.into_iter().collect::<Vec<_>>(), expected);

    // the same failure again, although its report is in place
    w.run_file(file, &[&args[..], &["-k"]].concat()).exits(1).failed(["clean_report"]);
    w.remove("workflows/data/inferencemax/saved/04_foreign.json");
    w.run_file(file, &args).ok();
    assert!(w.tree("out/inferencemax-process").get("clean_report.json") == before.get("clean_report.json"));
}

#[test]
fn passing_faults_are_tried_again() {
    let w = project();
    faults(
        &w,
        json!([
            {"match": "*gpt-oss-120b-8k_1k-e2e*", "status": 503, "times": 1},
            {"match": "*gpt-oss-120b-8k_1k-e2e*", "cut_after": 50, "times": 1},
            {"match": "*llama*1k_1k-e2e*", "status": 429, "retry_after": 0, "times": 2},
        ]),
    );
    let run = run(&w, &[]).ok();
    assert_eq!(run.node("fetch[model=gpt-oss-120b,seq=8k_1k,kind=e2e]")["attempts"], 3);
    assert_eq!(run.node("fetch[model=llama-3_3-70b-instruct-fp8,seq=1k_1k,kind=e2e]")["attempts"], 3);
    assert_eq!(run.node("fetch[model=gpt-oss-120b,seq=8k_1k,kind=interactivity]")["attempts"], 1);
    assert_eq!(versions(&w).len(), 1);
}
