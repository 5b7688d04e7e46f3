//! The stages one after the other on the real files of 2025-10-23: the two tables byte for byte. Unaware of the engine.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    benchmarks::Benchmarks, clean::Clean, convert::Convert, enrich::Enrich, tables::Tables, verify::Verify,
    wrap::Wrap,
};
use crate::stage::harness::{Bench, Finished, fixtures};

fn raw_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Clean, convert, tables; the files are given in reverse so that the order must come from their names.
fn tables(files: &[(String, Vec<u8>)]) -> Finished {
    let mut tables = Bench::new(&Tables, json!({}));
    for (name, bytes) in files.iter().rev() {
        let cleaned = Bench::new(&Clean, json!({}))
            .file("file", name, bytes)
            .run(&["data", "quarantined", "verdict"])
            .ok();
        assert_eq!(cleaned.json("verdict")["ok"], true, "{name}");
        let rows =
            Bench::new(&Convert, json!({})).file("data", name, cleaned.text("data")).run(&["rows"]).ok();
        tables = tables.file("rows", name, rows.text("rows"));
    }
    tables.run(&["e2e", "interactivity", "columns"]).ok()
}

fn assert_expected(made: &Finished, dir: &Path) {
    for kind in ["e2e", "interactivity"] {
        let expected =
            std::fs::read_to_string(dir.join(format!("expected/inference_max_{kind}.csv"))).unwrap();
        assert!(made.text(kind) == expected, "the {kind} table differs");
    }
}

/// The published values of both tables, `rows` in all, agree with what they are recomputed from.
fn assert_verified(e2e: &Path, interactivity: &Path, rows: u64) {
    let report = Bench::new(&Verify, json!({}))
        .path("e2e", e2e)
        .path("interactivity", interactivity)
        .run(&["report"])
        .ok()
        .json("report");
    assert_eq!(
        report,
        json!({
            "pareto": {"checked": rows, "equal": rows},
            "cost": {"checked": 3 * rows, "within_rounding": 3 * rows},
            "tok_s_per_mw": {"checked": rows, "within_rounding": rows},
            "differences": [], "unknown_hardware": {}, "not_checked": {}
        })
    );
}

#[test]
fn the_tables_of_the_original_agree_whole() {
    let Some(root) = fixtures() else { return };
    let dir = root.join("inferencemax/oct23/expected");
    let table = |kind| dir.join(format!("inference_max_{kind}.csv"));
    assert_verified(&table("e2e"), &table("interactivity"), 2678);
}

#[test]
fn saved_files_give_the_tables_of_the_original() {
    let Some(root) = fixtures() else { return };
    let dir = root.join("inferencemax/oct23");
    let files: Vec<_> = raw_files(&dir.join("raw"))
        .iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    assert_eq!(files.len(), 18);
    let made = tables(&files);
    assert_expected(&made, &dir);
    let columns = made.json("columns");
    assert_eq!(columns.as_array().unwrap().len(), 22);
    assert!(columns.as_array().unwrap().iter().all(|column| column["meaning"] != super::columns::UNKNOWN));
}

#[test]
fn served_bodies_give_the_same_tables() {
    let Some(root) = fixtures() else { return };
    let dir = root.join("inferencemax/oct23");
    let models = ["llama-3_3-70b-instruct-fp8", "gpt-oss-120b", "deepseek-r1-0528"];
    let names = json!({
        "llama-3_3-70b-instruct-fp8": "Llama 3.3 70B Instruct", "gpt-oss-120b": "gpt-oss 120B", "deepseek-r1-0528": "DeepSeek R1 0528"
    });
    let sequences = ["1k_1k", "1k_8k", "8k_1k"];
    let mut files = Vec::new();
    for path in raw_files(&dir.join("raw")) {
        let saved: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let url = saved["metadata"]["url"].as_str().unwrap();
        let stem = url.strip_prefix("/data/inference-performance/").unwrap();
        let model = models.iter().position(|slug| stem.starts_with(slug)).unwrap();
        let sequence = sequences.iter().position(|slug| stem.contains(slug)).unwrap();
        let done = Bench::new(
            &Wrap,
            json!({"model": models[model], "sequence": sequences[sequence], "url": url, "names": names}),
        )
        .file("body", stem, saved["data"].to_string())
        .run(&["file"])
        .ok();
        files.push((format!("{:02}_{:02}_{stem}", model + 1, sequence + 1), done.text("file").into_bytes()));
    }
    files.sort();
    assert_expected(&tables(&files), &dir);
}

#[test]
fn the_shipped_data_passes_every_stage() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/data");
    let files: Vec<_> = raw_files(&data.join("inferencemax/saved"))
        .iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    let made = tables(&files);
    assert_verified(&made.path("e2e"), &made.path("interactivity"), 216);
    let api = data.join("inferencemax-api");
    let table = Bench::new(&Benchmarks, json!({}))
        .path("benchmarks", &api.join("benchmarks-dsr1.json"))
        .path("benchmarks", &api.join("benchmarks-gptoss120b.json"))
        .path("availability", &api.join("availability.json"))
        .run(&["csv", "report"])
        .ok();
    let report = table.json("report");
    assert_eq!((&report["rows"], &report["kept"]), (&json!(26), &json!(24)));
    let costs =
        Bench::new(&Enrich, json!({})).path("csv", &table.path("csv")).run(&["enriched", "report"]).ok();
    assert_eq!(costs.json("report")["unknown_hardware"], json!({"gb300": 6}));
}
