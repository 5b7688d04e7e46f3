//! The InferenceMAX pipeline on real data, and what an edit of it makes run again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::{Run, Workspace, fixtures};

const BODIES: &str = "workflows/data/inferencemax/data/inference-performance";
const FULL: &str = "workflows/full.json";
const TABLES: [&str; 3] =
    ["inference_max_e2e.csv", "inference_max_interactivity.csv", "inference_max_merged.csv"];

fn real() -> Option<PathBuf> {
    fixtures().map(|root| root.join("inferencemax"))
}

fn value(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn full(w: &Workspace, args: &[&str]) -> Run {
    w.run_file(FULL, args)
}

/// Applies an edit to a served body.
fn edit(w: &Workspace, body: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let path = format!("{BODIES}/{body}.json");
    let mut items: Vec<Value> = serde_json::from_str(&w.read(&path)).unwrap();
    change(&mut items);
    w.write(&path, serde_json::to_vec(&items).unwrap());
}

/// The server of the copied workflows writes an access log. Done before the first run: it is part of the service's identity.
fn with_access_log(w: &Workspace) {
    let mut workflow = w.json("workflows/inferencemax.json");
    workflow["services"]["dashboard"]["with"]["access_log"] = "access.jsonl".into();
    w.write("workflows/inferencemax.json", workflow.to_string());
}

/// The requests of the last run, and an empty log again.
fn requests(w: &Workspace) -> Vec<Value> {
    let lines = w.read("access.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    w.remove("access.jsonl");
    lines
}

fn ids<const N: usize>(list: [&str; N]) -> BTreeSet<String> {
    list.iter().map(|id| (*id).to_owned()).collect()
}

fn versions(w: &Workspace, out: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(w.path(&format!("{out}/versions")))
        .map(|dir| dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// Every version holds what its metadata says.
#[track_caller]
fn versions_are_intact(w: &Workspace, out: &str) {
    for version in versions(w, out) {
        let metadata = w.json(&format!("{out}/versions/{version}/metadata.json"));
        assert!(metadata["version"].as_str().unwrap().contains(&version), "{metadata}");
        for file in metadata["files"].as_array().unwrap() {
            let path = w.path(&format!("{out}/versions/{version}/{}", file["name"].as_str().unwrap()));
            let digest = blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string();
            assert!(file["digest"].as_str().unwrap().ends_with(&digest), "{}", path.display());
        }
    }
}

#[track_caller]
fn is_the_expected_oct23(w: &Workspace, out: &str, real: &Path) {
    let expected = real.join("oct23/expected");
    for table in TABLES {
        let same =
            fs::read(w.path(&format!("{out}/{table}"))).unwrap() == fs::read(expected.join(table)).unwrap();
        assert!(same, "{table}");
    }
    let merged = w.read(&format!("{out}/{}", TABLES[2]));
    assert_eq!(merged.lines().count(), 1340);
    assert_eq!(merged.lines().next().unwrap().split(',').count(), 20);

    let join = w.json(&format!("{out}/join_report.json"));
    let conflicts = value(&expected.join("join-conflicts.json"));
    assert_eq!(conflicts.as_array().unwrap().len(), 23);
    assert_eq!(join["conflicts"], conflicts);
    assert_eq!(join["matched_keys"], 1339);
    assert_eq!(join["match_rate"], 1.0);
    for empty in ["left_only", "right_only", "duplicates"] {
        assert_eq!(join[empty], json!([]), "{empty}");
    }

    let verify = w.json(&format!("{out}/verify_report.json"));
    assert_eq!(verify["pareto"], json!({"checked": 2678, "equal": 2678}));
    assert_eq!(verify["cost"], json!({"checked": 8034, "within_rounding": 8034}));
    assert_eq!(verify["tok_s_per_mw"], json!({"checked": 2678, "within_rounding": 2678}));
    assert_eq!(verify["differences"], json!([]));

    let columns = w.json(&format!("{out}/columns.json"));
    let columns = columns.as_array().unwrap();
    for column in merged.lines().next().unwrap().split(',') {
        // the merged table's own names are those of the tables with a prefix
        let plain = column.trim_start_matches("e2e_").trim_start_matches("inter_");
        let entry = columns.iter().find(|c| c["name"] == column || c["name"] == plain);
        let entry = entry.unwrap_or_else(|| panic!("{column} is not in columns.json"));
        assert_eq!(entry.as_object().unwrap().keys().collect::<Vec<_>>(), ["name", "unit", "meaning"]);
    }

    let clean = w.json(&format!("{out}/clean_report.json"));
    let files = clean["files"].as_array().unwrap();
    assert_eq!(files.len(), 18);
    let points = |name: &str| files.iter().map(|f| f[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((points("points"), points("valid_points")), (2678, 2678));
    for file in files {
        assert_eq!((&file["ok"], &file["code"]), (&json!(true), &Value::Null), "{file}");
        assert!(file["file"].is_string() && file["bytes"].is_u64(), "{file}");
    }
    assert_eq!(clean["skipped"], json!([]));

    assert!(w.read(&format!("{out}/report.md")).contains("1339 rows"));
    assert_eq!(versions(w, out).len(), 1);
    let version = format!("{out}/versions/{}", versions(w, out)[0]);
    assert_eq!(fs::read_dir(w.path(&format!("{version}/raw"))).unwrap().count(), 18);
    versions_are_intact(w, out);
}

#[test]
fn the_real_files_give_the_original_tables() {
    let Some(real) = real() else { return };
    let w = Workspace::shipped();
    let raw = format!("raw={}", real.join("oct23/raw").display());
    let args = ["--set", &raw, "--set", "out=out/oct23"];
    let run = w.run_file("workflows/inferencemax-process.json", &args).ok();
    assert_eq!(run.json()["counts"]["ran"], 18 + 1 + 18 + 5);
    is_the_expected_oct23(&w, "out/oct23", &real);
    w.run_file("workflows/inferencemax-process.json", &args).ok().all_fresh();
}

/// A saved file, its numbers as they are spelt.
#[derive(Deserialize)]
struct Saved<'a> {
    metadata: BTreeMap<String, Value>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[test]
fn the_same_through_the_network() {
    let Some(real) = real() else { return };
    let w = Workspace::shipped();
    w.remove("workflows/data/inferencemax");
    for entry in fs::read_dir(real.join("oct23/raw")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let saved: Saved = serde_json::from_str(&text).unwrap();
        let url = saved.metadata["url"].as_str().unwrap();
        w.write(&format!("workflows/data/inferencemax{url}"), saved.data.get());
    }
    let run = w.run_file("workflows/inferencemax.json", &[]).ok();
    assert_eq!(run.json()["counts"]["ran"], 18 * 4 + 6);
    is_the_expected_oct23(&w, "out/inferencemax", &real);

    // what it fetched are plain files for the other workflow, and neither claims what is the other's
    let args = ["--set", "raw=out/inferencemax/raw", "--set", "out=out/again"];
    w.run_file("workflows/inferencemax-process.json", &args).ok();
    is_the_expected_oct23(&w, "out/again", &real);
    w.flow(&["clean", "workflows/inferencemax-process.json", "--orphans", "--set", "out=out/again"]).ok();
    w.run_file("workflows/inferencemax.json", &[]).ok().all_fresh();
}

#[test]
fn damaged_and_foreign_files_are_quarantined_and_the_rest_goes_on() {
    let w = Workspace::shipped();
    let file = "workflows/inferencemax-process.json";
    w.run_file(file, &["--set", "out=good"]).ok();
    let saved = "workflows/data/inferencemax/saved";
    let whole = w.read(&format!("{saved}/01_01_llama-3_3-70b-instruct-fp8_1k_1k_e2e.json"));
    w.write(&format!("{saved}/04_truncated.json"), &whole[..whole.len() / 2]);
    w.write(&format!("{saved}/05_foreign.json"), r#"{"name": "some other program's"}"#);
    w.write(&format!("{saved}/06_binary.json"), [0u8, 159, 146, 150]);
    w.write(&format!("{saved}/notes.txt"), "not for us");
    w.write(&format!("{saved}/07_summary.json"), "{}");
    let run = w.run_file(file, &["--set", "out=bad"]).ok();
    assert_eq!(run.with_outcome("absent").len(), 4, "{:?}", run.with_outcome("absent"));

    let report = w.json("bad/clean_report.json");
    let invalid: Vec<(&str, &str)> = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["ok"] == false)
        .map(|f| (f["file"].as_str().unwrap(), f["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        invalid,
        [
            ("04_truncated.json", "json_parse"),
            ("05_foreign.json", "missing_key"),
            ("06_binary.json", "json_parse")
        ]
    );
    assert_eq!(report["skipped"], json!(["07_summary.json"]));
    assert_eq!(
        w.tree("bad/quarantine").keys().collect::<Vec<_>>(),
        ["04_truncated.json", "05_foreign.json", "06_binary.json"]
    );
    assert_eq!(w.read("bad/quarantine/04_truncated.json"), &whole[..whole.len() / 2]);
    for table in TABLES {
        assert_eq!(w.read(&format!("bad/{table}")), w.read(&format!("good/{table}")), "{table}");
    }
    let page = w.read("bad/report.md");
    for (name, code) in invalid {
        assert!(page.contains(name) && page.contains(code), "{name}: {page}");
    }
    assert_eq!(versions(&w, "bad"), versions(&w, "good"), "the same content has the same version");

    // mended: it is a file like the others, and the copy in quarantine goes
    w.write(&format!("{saved}/04_truncated.json"), &whole);
    w.run_file(file, &["--set", "out=bad"]).ok();
    assert!(!w.has("bad/quarantine/04_truncated.json") && w.has("bad/clean/04_truncated.json"));
}

#[test]
fn an_invalid_body_fails_the_fetching_workflow_after_its_report() {
    let w = Workspace::shipped();
    let file = "workflows/inferencemax.json";
    w.run_file(file, &[]).ok();
    let before = w.tree("out/inferencemax");
    w.write(&format!("{BODIES}/gpt-oss-120b-1k_8k-e2e.json"), "[]");
    let run = w.run_file(file, &["-k"]).exits(1).failed(["process.clean_report"]);
    assert_eq!(
        run.with_outcome("skipped"),
        ids(["process.tables", "process.merge", "process.verify", "process.version", "process.report"])
    );
    let name = "02_02_gpt-oss-120b_1k_8k_e2e.json";
    let run = run.says(name).says("empty_data").says("workflows/").says("quarantine");
    drop(run);
    let report = w.json("out/inferencemax/clean_report.json");
    let entry = report["files"].as_array().unwrap().iter().find(|f| f["file"] == name).unwrap().clone();
    assert_eq!((&entry["ok"], &entry["code"]), (&json!(false), &json!("empty_data")));
    let after = w.tree("out/inferencemax");
    for kept in before.keys().filter(|path| path.starts_with("versions/") || !path.contains('/')) {
        if kept != "clean_report.json" {
            assert!(before[kept] == after[kept], "{kept}");
        }
    }
    // asked otherwise, the rest goes on
    w.run_file(file, &["--set", "on_invalid=quarantine"]).ok();
    assert!(w.has(&format!("out/inferencemax/quarantine/{name}")));
    assert_eq!(versions(&w, "out/inferencemax").len(), 2);
}

#[test]
fn the_cleaning_fixture_gets_the_verdicts_of_the_original() {
    let Some(real) = real() else { return };
    let w = Workspace::shipped();
    let raw = format!("raw={}", real.join("cleaning/raw").display());
    let run =
        w.run_file("workflows/inferencemax-process.json", &["--set", &raw, "--set", "out=o", "clean_report"]);
    run.ok();
    let expected = value(&real.join("cleaning/expected.json"));
    let expected = expected["analysed"].as_object().unwrap();
    let report = w.json("o/clean_report.json");
    let files = report["files"].as_array().unwrap();
    assert_eq!(files.len(), expected.len());
    for file in files {
        let name = file["file"].as_str().unwrap();
        let wanted = &expected[name];
        assert_eq!(file["ok"], wanted["valid"], "{name}");
        assert_eq!(file["bytes"], wanted["file_size"], "{name}");
        for (ours, original) in [("points", "total_data_points"), ("valid_points", "valid_data_points")] {
            if let Some(count) = wanted.get(original) {
                assert_eq!(file[ours], *count, "{name} {ours}");
            }
        }
        assert_eq!(file["code"].is_null(), file["ok"] == true, "{name}");
        let quarantined = w.has(&format!("o/quarantine/{name}"));
        assert_eq!(quarantined, file["ok"] == false, "{name}");
        if quarantined {
            let original = fs::read(real.join("cleaning/raw").join(name)).unwrap();
            assert!(original == fs::read(w.path(&format!("o/quarantine/{name}"))).unwrap(), "{name}");
        }
    }
    assert_eq!(report["skipped"], json!(["skip_me_README.json", "skip_me_summary.json"]));
    let codes: BTreeSet<&str> = files.iter().filter_map(|f| f["code"].as_str()).collect();
    let all = [
        "data_not_list",
        "empty_data",
        "json_parse",
        "missing_key",
        "no_valid_point",
        "root_not_object",
        "too_small",
    ];
    assert_eq!(codes, BTreeSet::from(all));
}

#[test]
fn the_newer_api_gives_its_table_and_both_cost_models() {
    let Some(real) = real() else { return };
    let w = Workspace::shipped();
    let raw = format!("raw={}", real.join("v3/api").display());
    let args = ["--set", &raw, "--set", "date=2026-02-20", "--set", "out=o"];
    w.run_file("workflows/inferencemax-api.json", &args).ok().ran(["benchmarks", "enrich"]);
    let expected = real.join("v3/expected");
    let table = "inference_max_benchmarks.csv";
    assert!(fs::read(w.path(&format!("o/{table}"))).unwrap() == fs::read(expected.join(table)).unwrap());
    assert_eq!(w.json("o/enriched.json")["rows"], value(&expected.join("enriched.json"))["rows"]);
    let unknown =
        w.json("o/enriched.json")["rows"].as_array().unwrap().iter().any(|r| r["known_hardware"] == false);
    assert!(unknown, "the fixture has a GPU without a price");
    w.run_file("workflows/inferencemax-api.json", &args).ok().all_fresh();
}

#[test]
fn a_second_run_asks_for_every_file_and_gets_no_body() {
    let w = Workspace::shipped();
    with_access_log(&w);
    full(&w, &[]).ok();
    let first = requests(&w);
    assert_eq!(first.len(), 18);
    assert!(first.iter().all(|r| r["status"] == 200 && r["conditional"] == false));

    let run = full(&w, &[]).ok().all_fresh();
    let checked = run.json()["nodes"].as_array().unwrap().iter().filter(|n| n["checked"] == true).count();
    assert_eq!(checked, 18);
    let second = requests(&w);
    assert_eq!(second.len(), 18);
    assert!(second.iter().all(|r| r["status"] == 304 && r["conditional"] == true && r["bytes"] == 0));
    assert!(second.iter().all(|r| r["method"] == "GET"));

    let run = full(&w, &["--offline"]).ok().all_fresh();
    assert!(!w.has("access.jsonl"), "no service is started offline");
    assert!(!run.stderr.contains("dashboard"), "{}", run.stderr);

    // outputs that went come back without a body being sent
    w.remove("out/inferencemax");
    let run = full(&w, &[]).ok();
    assert_eq!(run.json()["counts"]["ran"], 0);
    assert!(requests(&w).iter().all(|r| r["status"] == 304));
}

/// Nodes that a change of the body of `gpt-oss-120b`, `8k_1k`, `e2e` makes run: its own chain.
fn chain(steps: &[&str]) -> BTreeSet<String> {
    let file = "file=\"out/inferencemax/raw/02_03_gpt-oss-120b_8k_1k_e2e.json\"";
    let axes = "model=gpt-oss-120b,seq=8k_1k,kind=e2e";
    steps
        .iter()
        .map(|step| match *step {
            "fetch" | "wrap" => format!("inferencemax.{step}[{axes}]"),
            "clean" | "convert" => format!("inferencemax.process.{step}[{file}]"),
            gather => format!("inferencemax.process.{gather}"),
        })
        .collect()
}

const BODY: &str = "gpt-oss-120b-8k_1k-e2e";

#[test]
fn a_changed_body_runs_its_own_chain_and_what_gathers_it() {
    let w = Workspace::shipped();
    with_access_log(&w);
    full(&w, &[]).ok();
    requests(&w);
    let before = w.tree("out/inferencemax");
    let served = w.read(&format!("{BODIES}/{BODY}.json"));
    edit(&w, BODY, |items| items[0]["x"] = json!(77.125));
    let run = full(&w, &[]).ok();
    // clean_report is not among them: neither size nor number of points of that file changed
    let all = chain(&["fetch", "wrap", "clean", "convert", "tables", "merge", "verify", "version", "report"]);
    let mut ran = run.with_outcome("ran");
    ran.remove("inferencemax.process.clean_report");
    assert_eq!(ran, all);
    assert_eq!(run.json()["counts"]["failed"], 0);
    let answers = requests(&w);
    let bodies: Vec<&Value> = answers.iter().filter(|r| r["status"] == 200).collect();
    assert_eq!((answers.len(), bodies.len()), (18, 1));
    assert!(bodies[0]["path"].as_str().unwrap().contains(BODY));
    assert!(w.read("out/inferencemax/inference_max_merged.csv").contains("77.125"));
    let two = versions(&w, "out/inferencemax");
    assert_eq!(two.len(), 2);

    // and back: no third version, and everything as it was
    w.write(&format!("{BODIES}/{BODY}.json"), &served);
    let run = full(&w, &[]).ok();
    assert_eq!(run.with_outcome("ran"), chain(&["fetch"]));
    assert_eq!(versions(&w, "out/inferencemax"), two);
    versions_are_intact(&w, "out/inferencemax");
    for (path, bytes) in &before {
        assert!(w.tree("out/inferencemax")[path] == *bytes, "{path}");
    }
    full(&w, &[]).ok().all_fresh();
}

#[test]
fn an_item_that_is_no_object_changes_the_reports_only() {
    let w = Workspace::shipped();
    full(&w, &[]).ok();
    let version = versions(&w, "out/inferencemax");
    edit(&w, BODY, |items| items.push(json!("a stray text")));
    let run = full(&w, &[]).ok();
    assert_eq!(run.with_outcome("ran"), chain(&["fetch", "wrap", "clean", "clean_report", "report"]));
    for still in ["tables", "merge", "verify", "version"] {
        assert_eq!(run.node(&format!("inferencemax.process.{still}"))["outcome"], "fresh", "{still}");
    }
    assert_eq!(versions(&w, "out/inferencemax"), version);
    let report = w.json("out/inferencemax/clean_report.json");
    let file =
        report["files"].as_array().unwrap().iter().find(|f| f["file"] == "02_03_gpt-oss-120b_8k_1k_e2e.json");
    let file = file.unwrap();
    assert_eq!(file["points"].as_u64().unwrap(), file["valid_points"].as_u64().unwrap() + 1);
}

#[test]
fn a_dropped_model_leaves_no_row_and_its_files_are_orphans() {
    let w = Workspace::shipped();
    full(&w, &[]).ok();
    let models = "inferencemax.models=[\"llama-3_3-70b-instruct-fp8\",\"gpt-oss-120b\"]";
    let set = ["--set", models];
    let run = full(&w, &set).ok();
    assert!(run.with_outcome("ran").contains("inferencemax.process.tables"));
    for (path, bytes) in w.tree("out/inferencemax") {
        let left_over = path.contains("deepseek") || path.starts_with("versions/");
        let text = String::from_utf8_lossy(&bytes);
        assert!(left_over || !text.contains("DeepSeek"), "{path}");
    }
    assert!(w.read("out/inferencemax/inference_max_merged.csv").contains("gpt-oss"));
    let listed = w.flow(&["ls", FULL, "--orphans", "--set", models]).ok().stdout;
    let expected: BTreeSet<String> = w
        .tree("out/inferencemax")
        .into_keys()
        .filter(|path| path.contains("deepseek") && !path.starts_with("versions/"))
        .map(|path| format!("out/inferencemax/{path}"))
        .collect();
    assert_eq!(expected.len(), 6 * 5, "bodies, raw, clean, verdicts, rows");
    assert_eq!(listed.lines().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    full(&w, &set).ok().all_fresh();

    w.flow(&["clean", FULL, "--orphans", "--set", models]).ok();
    assert!(expected.iter().all(|path| !w.has(path)));
    full(&w, &set).ok().all_fresh();
}

#[test]
fn another_port_changes_nothing() {
    let w = Workspace::shipped();
    full(&w, &[]).ok();
    let node = "inferencemax.fetch[model=gpt-oss-120b,seq=8k_1k,kind=e2e]";
    let before = w.flow(&["explain", FULL, node]).ok().stdout;
    let mut workflow = w.json("workflows/inferencemax.json");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    workflow["services"]["dashboard"]["port"] = port.into();
    w.write("workflows/inferencemax.json", workflow.to_string());
    assert_eq!(w.flow(&["explain", FULL, node]).ok().stdout, before);
    let run = full(&w, &[]).ok().all_fresh();
    assert!(run.stderr.contains(&format!(":{port}")), "{}", run.stderr);
    let after = w.flow(&["explain", FULL, node]).ok().stdout;
    assert!(after.contains("changed:  nothing"), "{after}");
}

#[test]
fn the_workflow_in_rust_is_the_one_in_json() {
    let dir = crate::support::flow_binary().parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--offline", "--example", "inferencemax"]);
    if dir.ends_with("release") {
        build.arg("--release");
    }
    // what cargo tells this test of its package would make build scripts run again
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
            build.env_remove(name);
        }
    }
    let built = build.current_dir(crate::support::repository()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let w = Workspace::shipped();
    let json = w.run_file("workflows/inferencemax.json", &[]).ok().json();
    let mut example = Command::new(dir.join("examples/inferencemax"));
    let output = example.args(["run", "--json", "-v"]).current_dir(w.root()).output().unwrap();
    let rust = Run::of(output).ok();
    assert_eq!(rust.json()["plan_digest"], json["plan_digest"]);
    assert_eq!(rust.json()["workflow"], "inferencemax");
    rust.all_fresh();
}
