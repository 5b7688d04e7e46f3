//! What loads are written as for other tools: the same numbers as those of their rows.

use serde_json::{Value, json};

use crate::load::loaded;
use crate::support::Workspace;

/// A load with a step `export`, and metrics of the same rows by rule sets.
fn exported(load: Value, export: Value, rules: &[&str]) -> Workspace {
    let faults = json!({ "status_500": 0.1, "stream_error": 0.1 });
    let w = loaded(json!({ "ttft_ms": 4, "itl_ms": 1, "faults": faults }), load, 40);
    let mut workflow = w.json("flow.json");
    let mut step =
        json!({ "inputs": { "requests": "${steps.load.requests}", "summary": "${steps.load.summary}" } });
    step.as_object_mut().unwrap().extend(export.as_object().unwrap().clone());
    workflow["steps"]["export"] = step;
    for rules in rules {
        workflow["steps"][rules] = json!({
            "uses": "metrics.compute", "inputs": { "requests": "${steps.load.requests}" },
            "with": { "rules": rules, "percentiles": [50, 90, 99] }, "outputs": { "summary": format!("out/{rules}.json") }
        });
    }
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok();
    w
}

#[track_caller]
fn close(found: &Value, expected: &Value, scale: f64) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap() * scale);
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} {expected}");
}

#[test]
fn the_json_of_vllm_bench_has_the_numbers_of_the_rows() {
    for (first, rules) in [("text", "flow"), ("chunk", "vllm")] {
        let w = exported(
            json!({ "save_text": true, "slo": { "e2el": 0.017 } }),
            json!({ "uses": "vllm.export", "with": { "first": first, "percentiles": [90, 99] }, "outputs": { "result": "out/serve.json" } }),
            &[rules],
        );
        let (found, direct) = (w.json("out/serve.json"), w.json(&format!("out/{rules}.json")));
        for metric in ["ttft", "tpot", "itl", "e2el"] {
            for (theirs, ours) in
                [("mean", "mean"), ("median", "p50"), ("std", "std"), ("p90", "p90"), ("p99", "p99")]
            {
                close(&found[format!("{theirs}_{metric}_ms")], &direct["metrics"][metric][ours], 1e3);
            }
        }
        for (theirs, ours) in [
            ("duration", "duration"),
            ("request_throughput", "requests_per_second"),
            ("output_throughput", "output_tokens_per_second"),
            ("total_token_throughput", "total_tokens_per_second"),
        ] {
            close(&found[theirs], &direct["throughput"][ours], 1.0);
        }
        let counts = &direct["counts"];
        assert_eq!((&found["completed"], &found["failed"]), (&counts["success"], &counts["failed"]));
        assert!(counts["failed"].as_u64() > Some(0));
        for list in [
            "input_lens",
            "output_lens",
            "ttfts",
            "itls",
            "latencies",
            "start_times",
            "queue_times",
            "generated_texts",
            "errors",
        ] {
            assert_eq!(found[list].as_array().unwrap().len(), 40, "{list}");
        }
        let errors = found["errors"].as_array().unwrap();
        let failed = errors.iter().filter(|error| *error != "").count();
        assert_eq!(found["failed"], failed);
        assert_eq!(
            [&found["backend"], &found["request_rate"], &found["max_concurrency"], &found["num_prompts"]],
            [&json!("openai-chat"), &json!("inf"), &json!(4), &json!(40)]
        );
        assert!(found["request_goodput"].is_number() && found["date"].as_str().unwrap().len() == 15);
    }
}

#[test]
fn what_waits_for_a_place_is_queue_time_for_vllm() {
    let arrival = json!({ "kind": "constant", "rate": 2000 });
    let w = exported(
        json!({ "arrival": arrival, "max_concurrency": 2 }),
        json!({ "uses": "vllm.export", "with": { "detailed": false }, "outputs": { "result": "out/serve.json" } }),
        &[],
    );
    let (found, summary) = (w.json("out/serve.json"), w.json("out/s.json"));
    assert_eq!((&found["request_rate"], &found["burstiness"]), (&json!(2000.0), &json!("inf")));
    close(&found["p99_e2el_including_client_queue_ms"], &summary["metrics"]["e2el"]["p99"], 1e3);
    assert!(found["mean_client_queue_time_ms"].as_f64() > found["mean_e2el_ms"].as_f64(), "{found}");
    assert!(found.get("ttfts").is_none() && found["queue_times"].as_array().unwrap().len() == 40);
}

#[test]
fn the_files_of_aiperf_have_the_numbers_of_the_rows() {
    let w = exported(
        json!({ "slo": { "e2el": 0.017 } }),
        json!({ "uses": "aiperf.export", "outputs": { "run": "out/aiperf/" } }),
        &["flow"],
    );
    let (found, direct) = (w.json("out/aiperf/profile_export_aiperf.json"), w.json("out/flow.json"));
    for (theirs, ours) in [
        ("time_to_first_token", "ttft"),
        ("inter_token_latency", "tpot"),
        ("inter_chunk_latency", "itl"),
        ("request_latency", "e2el"),
        ("time_to_first_output_token", "ttfo"),
    ] {
        for (stat, of) in [("avg", "mean"), ("p50", "p50"), ("p99", "p99"), ("std", "std"), ("count", "n")] {
            let scale = if stat == "count" { 1.0 } else { 1e3 };
            close(&found[theirs][stat], &direct["metrics"][ours][of], scale);
        }
        assert_eq!(found[theirs]["unit"], "ms");
    }
    close(&found["request_throughput"]["avg"], &direct["throughput"]["requests_per_second"], 1.0);
    close(&found["total_osl"]["avg"], &direct["throughput"]["output_tokens"], 1.0);
    close(&found["good_request_count"]["avg"], &w.json("out/s.json")["goodput"]["good"], 1.0);
    let lines = w.read("out/aiperf/profile_export.jsonl");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed = lines.iter().filter(|line| line.get("error").is_some()).count();
    assert_eq!((lines.len(), json!(failed)), (40, direct["counts"]["failed"].clone()));
    let listed: u64 =
        found["error_summary"].as_array().unwrap().iter().filter_map(|error| error["count"].as_u64()).sum();
    assert_eq!(json!(listed), direct["counts"]["failed"]);
    // on the wall clock
    let start = lines[0]["metadata"]["request_start_ns"].as_i64().unwrap();
    assert!(start > 1_700_000_000_000_000_000, "{start}");
}
