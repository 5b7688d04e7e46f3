//! The vendor evaluation: the published run, and what runs again after small changes.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Run, Workspace};

const WORKFLOW: &str = "workflows/vendor-score.json";

/// 256 rows whose tokens are those of the published run: 119,892 of prompts and 4,096 new ones.
fn published() -> (Workspace, Vec<String>) {
    let w = Workspace::shipped();
    let mut table = csv::Writer::from_path(w.path("xsum.csv")).unwrap();
    table.write_record(["id", "dialogue", "summary"]).unwrap();
    let mut outputs = String::new();
    for row in 0..256 {
        table
            .write_record([&row.to_string(), "an article, with a comma", "a \"short\" summary\nof it"])
            .unwrap();
        let prompt = if row == 0 { 119_892 - 255 * 468 } else { 468 };
        let line = json!({ "id": row.to_string(), "prediction": "a summary", "prompt_tokens": prompt, "new_tokens": 16 });
        outputs += &format!("{line}\n");
    }
    table.flush().unwrap();
    w.write("outputs.jsonl", outputs);
    let run = json!({ "parameters": 70_553_706_496_u64, "duration": 193.57586941402406, "ttft": 0.7435413458806579 });
    w.write("run.json", run.to_string());
    w.write("host.yaml", "data_path: /data\nmodel_path: /model\nvendor: nvidia\nengine: hf\nlog_path: /log\nnproc_per_node: 8\nchip: A100_40_SXM\n");
    w.write("task.yaml", "GPU_NAME: A100\nTFLOPS_FP16: 312\ntask_nums: 256\n");
    let set =
        ["data=xsum.csv", "host=host.yaml", "task=task.yaml", "outputs=outputs.jsonl", "measured=run.json"];
    (w, set.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect())
}

fn run(w: &Workspace, args: &[String]) -> Run {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    w.run_file(WORKFLOW, &args)
}

#[test]
fn the_published_run_and_only_what_the_peak_changes() {
    let (w, args) = published();
    run(&w, &args).ok();
    let close = |found: &Value, expected: f64| {
        let found = found.as_f64().unwrap();
        assert!(((found - expected) / expected).abs() <= 1e-12, "{found} {expected}");
    };
    let report = w.json("out/vendor-score/report.json");
    close(&report["Tps"], 640.5137188603395);
    close(&report["Throughput"], 21.241251614991388);
    close(&report["MFU"], 0.0362104302300752);
    // "a summary" of "a short summary of it": 2 of 2 words, 2 of 5 words; no pair of words
    close(&report["ROUGE1"], 4.0 / 7.0);
    assert_eq!(report["ROUGE2"], json!(0.0));
    let lines = w.read("out/vendor-score/report.txt");
    assert!(lines.starts_with("TTFT:0.7435413458806579\nThroughput:21.2412516149913"), "{lines}");
    assert!(
        lines.contains("\nTps:640.513718860339")
            && lines.contains("\nTime:193.57586941402406\nMFU:0.03621043023007"),
        "{lines}"
    );
    assert_eq!(w.json("out/vendor-score/config.json")["unused"], json!(["host.yaml: log_path"]));
    run(&w, &args).all_fresh();
    let peak = [&args[..], &["--set".to_owned(), "peak_tflops=3120".to_owned()]].concat();
    run(&w, &peak).ran(["summary", "report"]);
    close(&w.json("out/vendor-score/report.json")["MFU"], 0.0036210430230075204);
    // in the task's file: that is read again, and the rows are not
    w.write("task.yaml", "GPU_NAME: A100\nTFLOPS_FP16: 624\ntask_nums: 256\n");
    run(&w, &args).ran(["config", "summary", "report"]);
    close(&w.json("out/vendor-score/report.json")["MFU"], 0.0362104302300752 / 2.0);
}

#[test]
fn more_rows_than_were_answered_are_named() {
    let (w, args) = published();
    run(&w, &args).ok();
    let outputs = w.read("outputs.jsonl");
    w.write("outputs.jsonl", outputs.lines().skip(2).map(|line| format!("{line}\n")).collect::<String>());
    let failed = run(&w, &args).exits(1);
    assert!(
        failed.stderr.contains(
            "2 rows without an output: \"0\" (out/vendor-score/rows.jsonl:1), \"1\" (out/vendor-score/rows.jsonl:2)"
        ),
        "{}",
        failed.stderr
    );
    let skip = [&args[..], &["--set".to_owned(), "on_unmatched=skip".to_owned()]].concat();
    run(&w, &skip).ok();
    assert_eq!(w.json("out/vendor-score/pairs.json")["without_output"], json!(2));
    assert_eq!(w.json("out/vendor-score/mfu.json")["inputs"]["new_tokens"], json!(4096 - 32));
    // no result without its tokens
    fs::write(w.path("outputs.jsonl"), outputs.replacen(",\"new_tokens\":16", "", 1)).unwrap();
    let failed = run(&w, &args).exits(1);
    assert!(
        failed.stderr.contains("parameter new_tokens: missing, and not in run.json, out/vendor-score/config.json, out/vendor-score/pairs.json"),
        "{}",
        failed.stderr
    );
}

#[test]
fn a_peak_that_is_given_does_not_replace_that_of_the_task_file() {
    let (w, args) = published();
    w.write("task.yaml", "GPU_NAME: A100\ntask_nums: 256\n");
    let peak = [&args[..], &["--set".to_owned(), "peak_tflops=312".to_owned()]].concat();
    let failed = run(&w, &peak).exits(1);
    for part in [
        "task.yaml: no 'TFLOPS_FP16' or 'GPU_FP16' or 'GPU_FPxx'; it has: GPU_NAME",
        "add a line TFLOPS_FP16: a number above 0",
        "even where the parameter peak_tflops or task_nums takes its place",
    ] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
}
