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

/// A load that no client can deliver, kept.
fn spoiled() -> Workspace {
    // a million per second is more than one thread sends
    let load = json!({ "arrival": { "kind": "constant", "rate": 1_000_000 }, "save_text": true, "on_client_bound": "mark" });
    let w = loaded(json!({ "ttft_ms": 1, "itl_ms": 1 }), load, 300);
    let mut workflow = w.json("flow.json");
    workflow["steps"].as_object_mut().unwrap().extend(
        json!({
            "compute": {
                "uses": "metrics.compute", "inputs": { "requests": "${steps.load.requests}" }, "outputs": { "summary": "out/compute.json" }
            },
            "vllm": {
                "uses": "vllm.export", "inputs": { "requests": "${steps.load.requests}", "summary": "${steps.load.summary}" },
                "outputs": { "result": "out/serve.json" }
            },
            "aiperf": {
                "uses": "aiperf.export", "inputs": { "requests": "${steps.load.requests}", "summary": "${steps.load.summary}" },
                "outputs": { "run": "out/aiperf/" }
            },
            "evalscope": {
                "uses": "evalscope.export", "inputs": { "requests": "${steps.load.requests}", "summary": "${steps.load.summary}" },
                "outputs": { "run": "out/evalscope/" }
            },
            "aisbench": {
                "uses": "aisbench.export", "with": { "dataset": "d" },
                "inputs": { "requests": "${steps.load.requests}", "summary": "${steps.load.summary}" }, "outputs": { "pod": "out/performances/m/" }
            },
            "import": {
                "uses": "aisbench.import", "inputs": { "pod": "${steps.aisbench.pod}" },
                "outputs": { "requests": "out/m.jsonl", "pod": "out/m.json" }
            },
            "merge": {
                "uses": "bench.merge", "inputs": { "requests": "${steps.import.requests}", "pods": "${steps.import.pod}" },
                "outputs": { "requests": "out/merged.jsonl", "report": "out/report.json" }
            },
            "report": {
                "uses": "bench.report", "inputs": { "requests": "${steps.merge.requests}", "report": "${steps.merge.report}" },
                "outputs": { "csv": "out/all.csv", "json": "out/all.json", "exact": "out/exact.json" }
            },
            "answers": {
                "uses": "load.answers", "inputs": { "requests": "${steps.load.requests}" },
                "outputs": { "outputs": "out/answers.jsonl", "measured": "out/measured.json" }
            },
            "mfu": {
                "uses": "eval.mfu", "inputs": { "measured": "${steps.answers.measured}" },
                "with": { "parameters": 1, "prompt_tokens": 1, "new_tokens": 1, "peak_tflops": 1, "gpus": 1 }, "outputs": { "summary": "out/mfu.json" }
            }
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    w.write("flow.json", workflow.to_string());
    w
}

#[test]
fn everything_made_of_a_load_that_the_client_spoiled_says_so() {
    let w = spoiled();
    w.run(&[]).ok();
    let reasons = w.json("out/s.json")["self_check"]["reasons"].as_array().unwrap().clone();
    let reasons: Vec<&str> = reasons.iter().filter_map(Value::as_str).collect();
    assert!(!reasons.is_empty());
    let all = json!(reasons.join("; "));
    for file in [
        "compute.json",
        "serve.json",
        "aiperf/profile_export_aiperf.json",
        "evalscope/benchmark_args.json",
        "performances/m/clock.json",
        "m.json",
        "measured.json",
        "mfu.json",
    ] {
        assert_eq!(w.json(&format!("out/{file}"))["client_bound"], all, "{file}");
    }
    assert_eq!(w.json("out/report.json")["pods"][0]["client_bound"], all);
    assert_eq!(w.json("out/exact.json")["client_bound"], json!({ "m": all }));
}

#[test]
fn a_load_that_the_client_spoiled_stands_in_its_workspace_only() {
    let shared = tempfile::tempdir().unwrap();
    let cache = ["--cache", shared.path().to_str().unwrap()];
    let (one, other) = (spoiled(), spoiled());
    one.run(&cache).ok();
    // the prompts come from the cache, the load does not
    let run = other.run(&cache).ok();
    assert!(run.with_outcome("ran").contains("load"), "{}", run.stderr);
    run.restored(["prompts"]);
    other.run(&cache).ok().all_fresh();
    one.run(&cache).ok().all_fresh();
    // its bytes can be had again here, and gc spares them as it spares every measurement
    one.flow(&["cache", "gc", "--keep-runs", "9", "--max-size", "0", cache[0], cache[1]]).ok();
    std::fs::remove_file(one.path("out/r.sqlite")).unwrap();
    one.run(&cache).ok().restored(["load"]);
}

/// The first token of half the requests never came: that is an error, or counted.
#[test]
fn failed_requests_of_the_load_for_the_first_token_are_not_forgotten() {
    let w = loaded(json!({ "ttft_ms": 2, "itl_ms": 1 }), json!({ "save_text": true }), 12);
    let mut workflow = w.json("flow.json");
    workflow["services"]["bad"] =
        json!({ "uses": "sim.llm", "with": { "seed": 3, "ttft_ms": 2, "faults": { "status_500": 0.5 } } });
    let mut first = workflow["steps"]["load"].clone();
    first["with"]["endpoints"] = json!("${services.bad.url}");
    first["outputs"] = json!({ "requests": "out/first.sqlite", "summary": "out/first.json" });
    workflow["steps"]["first"] = first;
    workflow["steps"]["answers"] = json!({
        "uses": "load.answers", "with": { "on_failed": "fail" },
        "inputs": { "requests": "${steps.load.requests}", "first": "${steps.first.requests}" },
        "outputs": { "outputs": "out/answers.jsonl", "measured": "out/measured.json" }
    });
    w.write("flow.json", workflow.to_string());
    w.run(&[]).exits(1).says("first.sqlite: request").says("on_failed: skip");
    workflow["steps"]["answers"]["with"]["on_failed"] = json!("skip");
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok().ran(["answers"]);
    let (measured, failed) =
        (w.json("out/measured.json"), w.json("out/first.json")["counts"]["failed"].clone());
    assert!(failed.as_u64().is_some_and(|failed| failed > 0 && failed < 12), "{failed}");
    assert_eq!((&measured["requests"], &measured["failed"]), (&json!(12), &json!(0)));
    assert_eq!(measured["first"], json!({ "requests": 12, "failed": failed }));
    // one load is not two
    workflow["steps"]["twice"] = json!({
        "uses": "metrics.compute", "inputs": { "requests": ["${steps.load.requests}", "${steps.load.requests}"] },
        "outputs": { "summary": "out/twice.json" }
    });
    w.write("flow.json", workflow.to_string());
    w.run(&[]).exits(1).says("are one load");
}
