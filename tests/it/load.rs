//! Loads on the built-in model server: what the client says, held against what the server wrote down.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{LONG, Workspace, nothing_left};

/// A load of `count` prompts on a simulator with a log.
pub(crate) fn loaded(sim: Value, load: Value, count: usize) -> Workspace {
    let mut server = json!({ "log": "sim.jsonl", "seed": 3 });
    server.as_object_mut().unwrap().extend(sim.as_object().unwrap().clone());
    let mut with = json!({
        "endpoints": "${services.s.url}", "model": "sim", "arrival": { "kind": "closed", "concurrency": 4 }, "on_client_bound": "mark",
    });
    with.as_object_mut().unwrap().extend(load.as_object().unwrap().clone());
    Workspace::with(json!({
        "services": { "s": { "uses": "sim.llm", "with": server } },
        "steps": {
            "prompts": {
                "uses": "load.prompts", "with": { "kind": "synthetic", "count": count, "input": 8, "output": 12 },
                "outputs": { "prompts": "out/prompts.jsonl" }
            },
            "load": {
                "uses": "llm.load", "inputs": { "prompts": "${steps.prompts.prompts}" }, "with": with,
                "outputs": { "requests": "out/r.sqlite", "summary": "out/s.json" }
            }
        }
    }))
}

/// The server's log by x-request-id.
fn served(w: &Workspace) -> BTreeMap<String, Value> {
    let lines = w.read("sim.jsonl");
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| Some((line["xid"].as_str()?.to_owned(), line))).collect()
}

fn rows<T: rusqlite::types::FromSql>(w: &Workspace, sql: &str) -> Vec<(String, T)> {
    let db = rusqlite::Connection::open(w.path("out/r.sqlite")).unwrap();
    let mut select = db.prepare(sql).unwrap();
    let found = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    found.map(Result::unwrap).collect()
}

#[test]
fn stamps_lie_after_the_servers_writes_and_close_to_them() {
    let w = loaded(json!({ "ttft_ms": 30, "itl_ms": 4 }), json!({}), 16);
    w.run(&[]).ok().ran(["prompts", "load"]);
    let served = served(&w);
    let firsts: Vec<(String, i64)> = rows(&w, "SELECT xid, first_token_ns FROM requests");
    assert_eq!(firsts.len(), 16);
    let mut lags: Vec<f64> = firsts
        .iter()
        .map(|(xid, first)| (first - served[xid]["chunk_ns"][0].as_i64().unwrap()) as f64 / 1e6)
        .collect();
    lags.sort_by(f64::total_cmp);
    // generous: other tests run beside
    assert!(lags[0] > 0.0 && lags[8] < 20.0, "{lags:?}");
    let summary = w.json("out/s.json");
    assert_eq!(
        (&summary["counts"]["success"], &summary["self_check"]["inflight_max"]),
        (&json!(16), &json!(4))
    );
    let tokens: Vec<(String, i64)> = rows(&w, "SELECT xid, output_tokens FROM requests");
    assert!(
        tokens.iter().all(|(xid, tokens)| served[xid]["tokens"] == *tokens && *tokens == 12),
        "{tokens:?}"
    );
    assert!(served.values().all(|line| line["inflight"].as_u64() <= Some(4)));
    // a measurement stands
    w.run(&[]).ok().all_fresh();
    nothing_left(&w, LONG);
}

#[test]
fn two_thousand_requests_with_every_fault_are_counted_as_the_server_made_them() {
    const COUNT: usize = 2000;
    let kinds = ["status_429", "status_500", "hang", "abort", "stall", "stream_error"];
    let faults: Value =
        kinds.iter().map(|kind| ((*kind).to_owned(), json!(0.05))).collect::<serde_json::Map<_, _>>().into();
    let limits = json!({ "first_byte": 0.8, "stall": 0.8 });
    let load = json!({ "timeouts": limits, "arrival": { "kind": "closed", "concurrency": 128 } });
    let w = loaded(json!({ "ttft_ms": 1, "itl_ms": 0.5, "faults": faults }), load, COUNT);
    w.run(&[]).ok();
    let summary = w.json("out/s.json");
    let failures: BTreeMap<String, u64> = serde_json::from_value(summary["failures"].clone()).unwrap();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let served = served(&w);
    for line in served.values() {
        let kind = match line["fault"].as_str() {
            None => continue,
            Some("status_429") => "status_429",
            Some("status_500") => "status_5xx",
            Some("hang") => "timeout_first_byte",
            Some("abort") => "closed",
            Some("stall") => "timeout_stall",
            Some("stream_error") => "stream_error",
            Some(other) => panic!("{other}"),
        };
        *expected.entry(kind.to_owned()).or_default() += 1;
    }
    // a connection that is aborted with bytes unread is reset
    let mut found = failures.clone();
    let reset = found.remove("reset").unwrap_or(0);
    *found.entry("closed".to_owned()).or_default() += reset;
    assert_eq!((found, served.len()), (expected.clone(), COUNT), "{failures:?}");
    assert!(expected.len() == 6 && expected.values().all(|count| (60..=145).contains(count)), "{expected:?}");
    let total: u64 = failures.values().sum();
    assert_eq!(
        summary["counts"],
        json!({
            "total": COUNT, "success": COUNT as u64 - total, "failed": total, "outside_window": 0, "without_token_counts": 0, "failures": failures
        })
    );
    // each by its id, and what the client gave up on the server sees closed
    let ends: Vec<(String, i64)> = rows(&w, "SELECT xid, end_ns FROM requests WHERE failure LIKE 'timeout%'");
    let mut delays: Vec<f64> = ends
        .iter()
        .map(|(xid, end)| (served[xid]["closed_ns"].as_i64().unwrap() - end) as f64 / 1e6)
        .collect();
    delays.sort_by(f64::total_cmp);
    // generous at the end: other tests run beside
    assert!(delays[delays.len() * 9 / 10] < 50.0, "{delays:?}");
}

#[test]
fn the_percentiles_of_four_servers_are_those_of_their_logs_together() {
    let w = loaded(
        json!({}),
        json!({ "dispatch": "least_in_flight", "arrival": { "kind": "closed", "concurrency": 16 } }),
        160,
    );
    let mut workflow = w.json("flow.json");
    let mut urls = Vec::new();
    workflow["services"] = json!({});
    for (n, ttft) in [8, 20, 45, 90].into_iter().enumerate() {
        let with = json!({ "ttft_ms": ttft, "itl_ms": 1, "log": "sim.jsonl", "seed": n });
        workflow["services"][format!("s{n}")] = json!({ "uses": "sim.llm", "with": with });
        urls.push(format!("${{services.s{n}.url}}"));
    }
    workflow["steps"]["load"]["with"]["endpoints"] = json!(urls);
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok();
    let (served, summary) = (served(&w), w.json("out/s.json"));
    assert_eq!((served.len(), &summary["counts"]["success"]), (160, &json!(160)));
    let counts: Vec<(String, i64)> =
        rows(&w, "SELECT endpoint, count(*) FROM requests GROUP BY endpoint ORDER BY 2");
    assert!(counts.len() == 4 && counts[3].1 > 2 * counts[0].1, "the fast one has more: {counts:?}");
    // the same moment of the send, and the server's own of its write
    let sends: Vec<(String, i64)> = rows(&w, "SELECT xid, send0_ns FROM requests");
    let mut truth: Vec<f64> = sends
        .iter()
        .map(|(xid, send)| (served[xid]["chunk_ns"][0].as_i64().unwrap() - send) as f64 / 1e9)
        .collect();
    truth.sort_by(f64::total_cmp);
    for (name, percent) in [("p50", 50.0), ("p90", 90.0), ("p99", 99.0)] {
        let at: f64 = percent / 100.0 * 159.0;
        let below = truth[at as usize];
        let expected = below + (truth[(at as usize + 1).min(159)] - below) * at.fract();
        let found = summary["metrics"]["ttft"][name].as_f64().unwrap();
        // later by the reading of it
        assert!(found >= expected && found - expected < 0.02, "{name}: {found} {expected}");
    }
}

#[test]
fn whatever_the_framing_the_text_is_the_same() {
    let mut texts: Vec<Vec<(String, String)>> = Vec::new();
    for sim in [
        json!({}),
        json!({ "crlf": true, "comments": true, "done": false }),
        json!({ "cut": "event" }),
        json!({ "cut": "utf8" }),
        json!({ "early_head": true, "chunk": 1 }),
        json!({ "buffer": true }),
    ] {
        let mut sim = sim;
        sim.as_object_mut()
            .unwrap()
            .extend(json!({ "multibyte": true, "ttft_ms": 1, "itl_ms": 0.2 }).as_object().unwrap().clone());
        let w = loaded(sim, json!({ "save_text": true, "request_id": "t" }), 6);
        w.run(&[]).ok();
        assert_eq!(w.json("out/s.json")["counts"]["success"], 6);
        let found = rows(&w, "SELECT xid, text FROM requests ORDER BY number");
        assert!(found.iter().all(|(_, text): &(String, String)| !text.is_ascii()), "{found:?}");
        texts.push(found);
    }
    assert!(texts.iter().all(|found| *found == texts[0]), "{texts:?}");
}

#[test]
fn the_metrics_of_the_table_are_those_of_the_summary() {
    let w = loaded(json!({ "ttft_ms": 5, "itl_ms": 10, "reasoning": 3 }), json!({}), 12);
    let mut workflow = w.json("flow.json");
    for rules in ["flow", "vllm", "aisbench", "evalscope-new"] {
        workflow["steps"][rules] = json!({
            "uses": "metrics.compute", "inputs": { "requests": "${steps.load.requests}" }, "with": { "rules": rules },
            "outputs": { "summary": format!("out/{rules}.json") }
        });
    }
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok();
    let (ours, flow) = (w.json("out/s.json"), w.json("out/flow.json"));
    for part in ["counts", "metrics", "throughput"] {
        assert_eq!(ours[part], flow[part], "{part}");
    }
    // with a role chunk first, tools that take it for a token report less
    let ttft = |name: &str| w.json(&format!("out/{name}.json"))["metrics"]["ttft"]["mean"].as_f64().unwrap();
    assert!(ttft("vllm") <= ttft("flow") && ttft("evalscope-new") == ttft("flow"));
    assert!(
        flow["metrics"]["ttfo"]["mean"].as_f64().unwrap() > ttft("flow") + 0.002,
        "after three tokens of reasoning"
    );
}

#[test]
fn a_pause_of_the_server_is_not_hidden() {
    let sim = json!({ "ttft_ms": 2, "itl_ms": 0.1, "pauses": [{ "at": 0.5, "for": 0.6 }] });
    let load =
        json!({ "arrival": { "kind": "constant", "rate": 100 }, "requests": 200, "max_concurrency": 4 });
    let w = loaded(sim, load, 50);
    w.run(&[]).ok();
    let summary = w.json("out/s.json");
    let p90 = |from: &str| summary[from]["metrics"]["ttft"]["p90"].as_f64().unwrap();
    assert!(
        p90("from_schedule") > 0.3 && p90("from_send") < 0.1,
        "{} {}",
        p90("from_schedule"),
        p90("from_send")
    );
    assert_eq!(summary["from_send"]["hides_waiting"], true);
    assert_eq!(summary["self_check"]["inflight_max"], 4);
    let mut workflow = w.json("flow.json");
    for from in ["send", "schedule"] {
        workflow["steps"][from] = json!({
            "uses": "metrics.compute", "inputs": { "requests": "${steps.load.requests}" }, "with": { "from": from },
            "outputs": { "summary": format!("out/{from}.json") }
        });
    }
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok();
    for from in ["send", "schedule"] {
        assert_eq!(
            w.json(&format!("out/{from}.json"))["metrics"],
            summary[format!("from_{from}")]["metrics"],
            "{from}"
        );
    }
}

#[test]
fn one_load_in_a_line() {
    let w = Workspace::with(
        json!({ "services": { "s": { "uses": "sim.llm", "with": { "ttft_ms": 1, "itl_ms": 0.5 } } }, "steps": {
        "go": { "run": "true", "outputs": {} }
    } }),
    );
    let (up, url) = crate::services::up(&w);
    let line = [
        "load",
        "--endpoint",
        &url,
        "--model",
        "sim",
        "--concurrency",
        "2",
        "-n",
        "10",
        "--max-tokens",
        "5",
        "--mark-client-bound",
        "--out",
        "res",
    ];
    let run = w.flow(&line).ok();
    assert!(
        run.stdout.starts_with("requests  10 ok, 0 failed\n") && run.stdout.contains("\nttft "),
        "{}",
        run.stdout
    );
    for file in ["load.json", "prompts.jsonl", "requests.sqlite", "summary.json"] {
        assert!(w.has(&format!("res/{file}")), "{file}");
    }
    let again = w.flow(&[&line[..], &["--json"]].concat()).ok();
    assert_eq!(again.json()["counts"]["success"], 10, "it measures again");
    let wrong = w.flow(&[
        "load",
        "--endpoint",
        "http://127.0.0.1:9",
        "--model",
        "m",
        "--concurrency",
        "1",
        "-n",
        "2",
        "--out",
        "res",
    ]);
    wrong.exits(1).says("no request succeeded: {\"connect\":2}");
    // names are taken as they are, and a password is not written down
    std::fs::create_dir(w.path("a [b] *")).unwrap();
    std::fs::write(w.path("a [b] */${x}.jsonl"), "{\"prompt\": \"p\"}\n").unwrap();
    let odd = [
        "--endpoint",
        &url,
        "--model",
        "${params.m}",
        "--prompts",
        "a [b] */${x}.jsonl",
        "--out",
        "o${x} [d]",
    ];
    let rest = ["--concurrency", "1", "-n", "2", "--max-tokens", "3", "--mark-client-bound", "--json"];
    let run = w.flow(&[&["load"], &odd[..], &rest[..]].concat()).ok();
    assert_eq!(
        (&run.json()["counts"]["success"], &run.json()["load"]["model"]),
        (&json!(2), &json!("${params.m}"))
    );
    let secret = url.replace("http://", "http://me:hidden@");
    let mut line = line;
    (line[2], line[line.len() - 1]) = (&secret, "kept");
    w.flow(&line).exits(2).says("a user or a password in the URL");
    assert!(!w.has("kept/load.json"));
    drop(up);
}

#[test]
fn what_is_exported_for_aisbench_is_read_back_to_the_same_numbers() {
    let faults = json!({ "status_500": 0.1, "stream_error": 0.1 });
    let w = loaded(json!({ "ttft_ms": 4, "itl_ms": 1, "faults": faults }), json!({ "save_text": true }), 40);
    let mut workflow = w.json("flow.json");
    let steps = json!({
        "export": {
            "uses": "aisbench.export", "with": { "dataset": "d1" },
            "inputs": { "requests": "${steps.load.requests}", "summary": "${steps.load.summary}", "prompts": "${steps.prompts.prompts}" },
            "outputs": { "pod": "out/performances/m1/" }
        },
        "import": {
            "uses": "aisbench.import", "inputs": { "pod": "${steps.export.pod}" },
            "outputs": { "requests": "out/m1.jsonl", "pod": "out/m1.json" }
        },
        "direct": {
            "uses": "metrics.compute", "inputs": { "requests": "${steps.load.requests}" }, "with": { "rules": "aisbench" },
            "outputs": { "summary": "out/direct.json" }
        },
        "back": {
            "uses": "metrics.compute", "inputs": { "requests": "${steps.import.requests}" }, "with": { "rules": "aisbench" },
            "outputs": { "summary": "out/back.json" }
        }
    });
    workflow["steps"].as_object_mut().unwrap().extend(steps.as_object().unwrap().clone());
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok();
    let (direct, back) = (w.json("out/direct.json"), w.json("out/back.json"));
    for part in ["metrics", "throughput"] {
        assert_eq!(direct[part], back[part], "{part}");
    }
    let pod = w.json("out/m1.json");
    assert_eq!((&pod["requests"], &pod["max_concurrency"]), (&json!(40), &json!(4)));
    assert_eq!(pod["failed"], direct["counts"]["failed"]);
    assert!(pod["failed"].as_u64() > Some(0) && pod["host"].is_string(), "{pod}");
    let details = w.read("out/performances/m1/d1_details.jsonl");
    let first: Value = serde_json::from_str(details.lines().next().unwrap()).unwrap();
    assert_eq!(first["input"][0]["content"].as_str().unwrap().split(' ').count(), 8);
    assert!(details.lines().any(|line| line.contains("\"error_info\":\"status_5xx\"")));
    assert_eq!(w.json("out/performances/m1/d1.json")["Total Requests"]["total"], 40);
}

#[test]
fn a_limit_per_token_needs_a_count_of_tokens() {
    let w = loaded(json!({ "usage": "never", "ttft_ms": 1, "itl_ms": 1 }), json!({}), 8);
    let mut workflow = w.json("flow.json");
    workflow["steps"]["search"] = json!({
        "uses": "llm.search", "inputs": { "prompts": "${steps.prompts.prompts}" },
        "with": {
            "over": "concurrency", "min": 1, "max": 4,
            "load": { "endpoints": "${services.s.url}", "model": "sim", "requests": 8, "slo": { "tpot": 0.5 }, "on_client_bound": "mark" }
        },
        "outputs": { "result": "out/found.json" }
    });
    workflow["steps"]["sweep"] = json!({
        "uses": "load.sweep", "inputs": { "summaries": "${steps.load.summary}", "requests": "${steps.load.requests}" },
        "outputs": { "table": "out/sweep.csv" }
    });
    w.write("flow.json", workflow.to_string());
    w.run(&[]).exits(1).failed(["search"]).says("at 1 it is not known which requests keep the limit of tpot");
    let throughput = &w.json("out/s.json")["throughput"];
    assert_eq!(
        (&throughput["output_tokens"], &throughput["output_tokens_per_second"]),
        (&json!(null), &json!(null))
    );
    let table = w.read("out/sweep.csv");
    let column =
        table.lines().next().unwrap().split(',').position(|name| name == "output_tokens_per_second").unwrap();
    assert_eq!(table.lines().nth(1).unwrap().split(',').nth(column), Some(""));
}

#[test]
fn the_capacity_of_a_server_is_found() {
    // 4 slots of 75 ms: 53 requests per second, 4 in flight without a queue
    let w = Workspace::with(json!({
        "services": { "s": { "uses": "sim.llm", "with": { "ttft_ms": 60, "itl_ms": 15, "tokens": 2, "slots": 4 } } },
        "steps": {
            "prompts": {
                "uses": "load.prompts", "with": { "kind": "synthetic", "count": 50, "input": 4, "output": 2 },
                "outputs": { "prompts": "out/prompts.jsonl" }
            },
            "rate": {
                "uses": "llm.search", "inputs": { "prompts": "${steps.prompts.prompts}" },
                "with": {
                    "over": "rate", "min": 27, "max": 216, "tolerance": 0.05,
                    "load": {
                        "endpoints": "${services.s.url}", "model": "sim", "duration": 3, "slo": { "e2el": 0.2 }, "on_client_bound": "mark"
                    }
                },
                "outputs": { "result": "out/rate.json" }
            },
            "concurrency": {
                "uses": "llm.search", "inputs": { "prompts": "${steps.prompts.prompts}" }, "needs": ["rate"],
                "with": {
                    "over": "concurrency", "min": 1, "max": 64,
                    "load": {
                        "endpoints": "${services.s.url}", "model": "sim", "requests": 24, "slo": { "ttft": 0.12 }, "share": null, "on_client_bound": "mark"
                    }
                },
                "outputs": { "result": "out/concurrency.json" }
            }
        }
    }));
    let wrong = w.run(&[]);
    wrong.exits(3).says("load.share");
    let mut workflow = w.json("flow.json");
    workflow["steps"]["concurrency"]["with"]["load"].as_object_mut().unwrap().remove("share");
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok();
    // other tests run beside and take the processor: then less is found, never more
    let mut tries = 0;
    loop {
        let (rate, concurrency) = (w.json("out/rate.json"), w.json("out/concurrency.json"));
        let found = |of: &Value, name: &str| of[name].as_f64().unwrap_or(0.0);
        let (highest, failing) = (found(&rate, "highest"), found(&rate, "lowest_failing"));
        assert!(
            highest < 57.5 && (highest == 0.0 || failing > highest && failing <= highest * 1.051),
            "{rate}"
        );
        assert!(found(&concurrency, "highest") <= 4.0, "{concurrency}");
        tries += 1;
        if highest >= 48.0 && found(&concurrency, "highest") >= 3.0 {
            break;
        }
        assert!(tries < 6, "{rate} {concurrency}");
        w.run(&["--remeasure", "*"]).ok();
    }
}

#[test]
fn the_vendor_evaluation_with_its_runs_agrees_with_the_rows() {
    let w = Workspace::shipped();
    let file = "workflows/vendor-eval.json";
    w.run_file(file, &[]).ok();
    let report = w.json("out/vendor/report.json");
    let db = |name: &str| rusqlite::Connection::open(w.path(&format!("out/vendor/{name}.sqlite"))).unwrap();
    let of = |name: &str, sql: &str| -> f64 { db(name).query_row(sql, [], |row| row.get(0)).unwrap() };
    let ttft = of("first", "SELECT avg((first_token_ns - send0_ns) / 1e9) FROM requests");
    let time = of("throughput", "SELECT (max(last_token_ns) - min(send0_ns)) / 1e9 FROM requests");
    let tokens = of("throughput", "SELECT sum(input_tokens + output_tokens) * 1.0 FROM requests");
    let new = of("throughput", "SELECT sum(output_tokens) * 1.0 FROM requests");
    let close = |name: &str, expected: f64| {
        let found = report[name].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-6, "{name}: {found}, {expected}");
    };
    close("TTFT", ttft);
    close("Time", time);
    close("Tps", tokens / time);
    close("Throughput", new / (time - ttft));
    // two devices of 10 TFLOPS, 10^9 parameters
    close("MFU", tokens / time * 2.0 * 1e9 / (10.0 * 1e12 * 2.0));
    // the model's size is in the summary alone
    let run = w.run_file(file, &["--set", "parameters=2000000000"]).ok();
    run.ran(["score.summary", "score.report"]);
}

#[test]
fn what_is_exported_for_evalscope_is_collected_to_the_same_numbers() {
    let w = loaded(json!({ "ttft_ms": 4, "itl_ms": 1, "faults": { "status_500": 0.1 } }), json!({}), 40);
    let mut workflow = w.json("flow.json");
    let steps = json!({
        "export": {
            "uses": "evalscope.export", "inputs": { "requests": "${steps.load.requests}", "summary": "${steps.load.summary}" },
            "outputs": { "run": "out/results/p4/20260102_030405/sim/" }
        },
        "collect": {
            "uses": "evalscope.collect",
            "inputs": { "run": [
                "out/results/p4/20260102_030405/sim/benchmark_summary.json", "out/results/p4/20260102_030405/sim/benchmark_args.json",
                "out/results/p4/20260102_030405/sim/benchmark_percentile.json", "out/results/p4/20260102_030405/sim/benchmark_data.db"
            ] },
            "with": { "dir": "p4/20260102_030405/sim", "percentiles": { "rule": "nearest", "at": [50, 99] } },
            "outputs": { "record": "out/record.json" }
        },
        "direct": {
            "uses": "metrics.compute", "inputs": { "requests": "${steps.load.requests}" },
            "with": { "rules": "evalscope-new", "percentiles": [50, 99] }, "outputs": { "summary": "out/direct.json" }
        }
    });
    workflow["steps"].as_object_mut().unwrap().extend(steps.as_object().unwrap().clone());
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok();
    let (record, direct) = (w.json("out/record.json"), w.json("out/direct.json"));
    let run = &record["run"];
    // on a machine that has much to do the client may not keep up, and the record says so
    let mut problems = record["problems"].as_array().unwrap().iter();
    assert!(problems.all(|problem| problem["reason"] == "client_bound"), "{}", record["problems"]);
    assert_eq!(run["family"], "1.10-1.14");
    assert_eq!(run["requests"]["requests"], 40);
    assert_eq!(run["requests"]["succeeded"], direct["counts"]["success"]);
    let close = |found: &Value, expected: &Value, what: &str| {
        let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{what}: {found} {expected}");
    };
    for (column, metric) in
        [("latency", "e2el"), ("ttft", "ttft"), ("token_latency", "tpot"), ("inter_token_latency", "itl")]
    {
        close(&run["row"][column], &direct["metrics"][metric]["mean"], column);
        let short = if column == "token_latency" {
            "tpot"
        } else if metric == "e2el" {
            "latency"
        } else {
            metric
        };
        for p in ["50", "99"] {
            close(
                &run["recomputed"]["columns"][format!("{p}p_{short}_")],
                &direct["metrics"][metric][format!("p{p}")],
                column,
            );
        }
    }
    close(&run["row"]["request_throughput"], &direct["throughput"]["requests_per_second"], "rate");
}

#[test]
fn the_steady_state_is_that_of_the_rows_in_its_window() {
    let load = json!({ "trim": { "warmup": "25%", "cooldown": 0.01 } });
    let w = loaded(json!({ "ttft_ms": 5, "itl_ms": 1 }), load, 40);
    w.run(&[]).ok();
    let steady = w.json("out/s.json")["steady"].clone();
    let mut workflow = w.json("flow.json");
    for part in ["stable", "trim"] {
        workflow["steps"][part] = json!({
            "uses": "metrics.compute", "inputs": { "requests": "${steps.load.requests}" },
            "with": { "window": steady[part]["window"] }, "outputs": { "summary": format!("out/{part}.json") }
        });
    }
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok();
    assert_eq!(w.json("out/trim.json")["metrics"], steady["trim"]["metrics"]);
    assert_eq!(w.json("out/trim.json")["throughput"], steady["trim"]["throughput"]);
    let (all, stable) = (&steady["all"], &steady["stable"]);
    assert_eq!((&all["n"], &all["metrics"]), (&json!(40), &w.json("out/s.json")["metrics"]));
    // the window of metrics.compute ends before its end: the rule's own takes what is sent at it
    let (n, inside) =
        (stable["n"].as_u64().unwrap(), w.json("out/stable.json")["counts"]["success"].as_u64().unwrap());
    assert!((30..40).contains(&n) && (inside == n || inside + 1 == n), "{n} {inside}");
    let seconds = |part: &str, side: &str| steady[part]["window"][side].as_f64().unwrap();
    assert!((seconds("trim", "from") - 0.25 * seconds("all", "to")).abs() < 1e-9, "{steady}");
    assert!((seconds("all", "to") - seconds("trim", "to") - 0.01).abs() < 1e-9, "{steady}");
    assert!(steady["trim"]["n"].as_u64() < Some(40), "{steady}");
}

#[test]
fn conversations_grow_by_what_the_server_said() {
    let w = loaded(
        json!({ "ttft_ms": 4, "itl_ms": 1 }),
        json!({ "think": 0.02, "arrival": { "kind": "closed", "concurrency": 3 } }),
        6,
    );
    let mut workflow = w.json("flow.json");
    workflow["steps"]["prompts"]["with"]["turns"] = json!(4);
    workflow["steps"]["pod"] = json!({
        "uses": "aiperf.export", "inputs": { "requests": "${steps.load.requests}", "summary": "${steps.load.summary}" },
        "outputs": { "run": "out/aiperf/" }
    });
    w.write("flow.json", workflow.to_string());
    w.run(&[]).ok();
    let summary = w.json("out/s.json");
    assert_eq!((&summary["counts"]["success"], &summary["conversations"]["whole"]), (&json!(24), &json!(6)));
    assert!(summary["self_check"]["inflight_max"].as_u64() <= Some(3));
    // 8 words a turn, 12 tokens an answer: the server counts what it was given
    let tokens: Vec<(String, i64)> =
        rows(&w, "SELECT conversation || '/' || turn, input_tokens FROM requests ORDER BY number");
    for (n, (place, tokens)) in tokens.iter().enumerate() {
        let turn = n as i64 % 4;
        assert_eq!(*place, format!("{}/{turn}", n / 4));
        assert!((8 * (turn + 1)..=8 * (turn + 1) + 12 * turn).contains(tokens), "{place} {tokens}");
        assert!(turn == 0 || *tokens > tokens_before(&w, n), "{place}");
    }
    let by_turn = summary["by_turn"].as_array().unwrap();
    assert!(by_turn.len() == 4 && by_turn.iter().all(|turn| turn["n"] == 6), "{by_turn:?}");
    let lines = w.read("out/aiperf/profile_export.jsonl");
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["metadata"]["conversation_id"], &last["metadata"]["turn_index"]),
        (&json!("5"), &json!(3))
    );
    // the answer before is whole, and the user has thought
    let gaps: Vec<(String, i64)> = rows(
        &w,
        "SELECT next.xid, next.send0_ns - before.end_ns FROM requests AS next JOIN requests AS before
            ON next.conversation = before.conversation AND next.turn = before.turn + 1",
    );
    assert!(gaps.len() == 18 && gaps.iter().all(|(_, gap)| *gap >= 20_000_000), "{gaps:?}");
}

fn tokens_before(w: &Workspace, n: usize) -> i64 {
    let all: Vec<(String, i64)> = rows(w, "SELECT xid, input_tokens FROM requests ORDER BY number");
    all[n - 1].1
}

#[test]
fn two_loads_into_one_directory_take_turns() {
    let w = Workspace::with(json!({
        "services": { "s": { "uses": "sim.llm", "with": { "ttft_ms": 100, "itl_ms": 1 } } }, "steps": { "go": { "run": "true", "outputs": {} } }
    }));
    let (up, url) = crate::services::up(&w);
    let line = |count: &str| {
        let words = [
            "load",
            "--endpoint",
            &url,
            "--model",
            "sim",
            "--concurrency",
            "1",
            "--max-tokens",
            "3",
            "--mark-client-bound",
            "--out",
            "res",
            "-n",
            count,
        ];
        let mut command = w.command(&words);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let one = line("30");
    crate::support::wait_for("the first load", LONG, || w.has("res/load.json"));
    let mut other = line("7");
    // the second says that it waits, and has written nothing
    let mut told = std::io::BufReader::new(other.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("waiting for") {
        assert!(std::io::BufRead::read_line(&mut told, &mut said).unwrap() > 0, "{said}");
    }
    assert_eq!(w.json("res/load.json")["steps"]["load"]["with"]["requests"], 30);
    let one = one.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&one.stdout).starts_with("requests  30 ok"), "{one:?}");
    let drained = std::thread::spawn(move || std::io::Read::read_to_string(&mut told, &mut String::new()));
    let other = other.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&other.stdout).starts_with("requests  7 ok"), "{other:?}");
    let _ = drained.join();
    drop(up);
}
