//! What is made of the requests of evalscope runs: limits and goodput, percentiles by one rule, GPU memory from samples.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::evalscope::{real, run};
use crate::support::Workspace;

/// A run `mine/<config>/<time>/m` with requests (success, ttft, tpot, latency) that took two seconds.
fn add(w: &Workspace, config: &str, parallel: u32, time: &str, requests: &[(bool, f64, Option<f64>, f64)]) {
    let dir = format!("mine/{config}/{time}/m");
    let good = requests.iter().filter(|request| request.0).count();
    let summary =
        json!({"Time taken for tests (s)": 2.0, "Total requests": requests.len(), "Succeed requests": good});
    let args = json!({"parallel": parallel, "number": requests.len(), "max_tokens": 5});
    w.write(&format!("{dir}/benchmark_summary.json"), summary.to_string());
    w.write(&format!("{dir}/benchmark_args.json"), args.to_string());
    let db = Connection::open(w.path(&format!("{dir}/benchmark_data.db"))).unwrap();
    db.execute_batch(
        "CREATE TABLE result (success INTEGER, latency REAL, first_chunk_latency REAL, max_gpu_memory_cost REAL, time_per_output_token REAL)",
    )
    .unwrap();
    for (success, ttft, tpot, latency) in requests {
        let values = (success, success.then_some(latency), success.then_some(ttft), tpot);
        db.execute("INSERT INTO result VALUES (?1, ?2, ?3, 0.0, ?4)", values).unwrap();
    }
}

#[test]
fn limits_give_shares_goodput_and_the_highest_concurrency_that_passes() {
    let w = Workspace::shipped();
    let good = (true, 0.1, Some(0.01), 1.0);
    let slow_first = (true, 0.5, Some(0.01), 1.0);
    let slow_token = (true, 0.1, Some(0.2), 1.0);
    let one_token = (true, 0.1, None, 1.0);
    let failed = (false, 0.0, None, 0.0);
    add(&w, "p4_n4_d", 4, "20260101_000000", &[good; 4]);
    add(&w, "p4_n4_d", 4, "20260102_000000", &[good, good, good, slow_first]);
    add(&w, "p8_n4_d", 8, "20260103_000000", &[good, good, good, failed]);
    add(&w, "p16_n4_d", 16, "20260104_000000", &[good, slow_first, slow_token, one_token]);
    add(&w, "p32_n4_d", 32, "20260105_000000", &[good; 4]);
    w.write("mine/p32_n4_d/20260105_000000/m/benchmark_data.db", "no database");
    let slo = r#"slo={"ttft": 0.2, "tpot": 0.1}"#;
    let args = ["--set", slo, "--set", "share=0.75"];
    run(&w, &w.path("mine"), &args).ok();
    let rows = w.json("out/evalscope/summary_slo.json");
    let of = |row: &Value| {
        let names = ["parallel", "requests", "failed", "conforming", "share", "goodput", "passes"];
        json!(names.map(|name| row[name].clone()))
    };
    let mut found: Vec<Value> = rows.as_array().unwrap().iter().map(of).collect();
    found.sort_by_key(|row| row[0].as_u64());
    assert_eq!(
        found,
        [
            json!([4, 4, 0, 4, 1.0, 2.0, true]),
            json!([4, 4, 0, 3, 0.75, 1.5, true]),
            json!([8, 4, 1, 3, 0.75, 1.5, true]),
            json!([16, 4, 0, 1, 0.25, 0.5, false]),
            json!([32, 4, 0, null, null, null, null]),
        ]
    );
    assert_eq!((&rows[0]["slo_ttft"], &rows[0]["slo_e2el"]), (&json!(0.2), &Value::Null));
    let highest = |w: &Workspace| w.json("out/evalscope/summary_slo_highest.json");
    let group = json!([{
        "config": "p*_n*_d", "model": "m", "prompt_length": "short", "max_tokens": 5, "slo_ttft": 0.2, "slo_tpot": 0.1, "slo_e2el": null,
        "required_share": 0.75, "runs": 5, "unknown": 1, "levels": 3, "highest": 8, "share": 0.75, "goodput": 1.5, "first_failing": 16
    }]);
    assert_eq!(highest(&w), group);
    // another share reads no run again; 7 of 8 keep the limits at 4
    let again = run(&w, &w.path("mine"), &["--set", slo, "--set", "share=0.9"]).ok().ran(["slo"]);
    again.ok();
    assert_eq!((&highest(&w)[0]["highest"], &highest(&w)[0]["first_failing"]), (&Value::Null, &json!(4)));
    assert!(
        w.read("out/evalscope/summary_slo_highest.csv")
            .contains("\r\np*_n*_d,m,short,5,0.2,0.1,,0.9,5,1,3,,,,4\r\n")
    );
    // without limits there is no table
    run(&w, &w.path("mine"), &[]).ok();
    assert!(!w.has("out/evalscope/summary_slo.csv"));
}

#[test]
fn limits_that_mean_nothing_are_refused() {
    let w = Workspace::shipped();
    for (set, says) in [
        ("slo={}", "at least one of ttft, tpot, e2el"),
        (r#"slo={"ttft": 0}"#, "seconds above 0"),
        (r#"slo={"tftt": 1}"#, "tftt"),
        ("share=1.5", "share above 0"),
        (r#"percentiles={"at": []}"#, "percents from 0 to 100"),
        (r#"percentiles={"at": [50, 50]}"#, "each percent once"),
        (r#"percentiles={"at": [50], "rule": "median"}"#, "median"),
    ] {
        let refused = w.run_file("workflows/evalscope.json", &["--set", set]).exits(3);
        refused.says(says);
    }
}

#[test]
fn percentiles_of_the_requests_are_those_of_the_tool_by_its_own_rule() {
    let Some(real) = real() else { return };
    for (case, rule, at, ms) in [
        ("v1.2.0", "floor-index", "[10, 25, 50, 66, 75, 80, 90, 95, 98, 99]", 1.0),
        ("v1.14.1", "nearest", "[1, 5, 10, 25, 50, 75, 90, 95, 99]", 1000.0),
    ] {
        let w = Workspace::shipped();
        let set = format!(r#"percentiles={{"rule": "{rule}", "at": {at}}}"#);
        run(&w, &real.join(case).join("results"), &["--set", &set]).ok();
        let recomputed = w.json("out/evalscope/summary_percentiles.json");
        let raw = w.json("out/evalscope/summary_raw.json");
        let mut compared = 0;
        for (ours, theirs) in recomputed.as_array().unwrap().iter().zip(raw.as_array().unwrap()) {
            assert_eq!((&ours["rule"], &ours["timestamp"]), (&json!(rule), &theirs["timestamp"]));
            for (column, value) in ours.as_object().unwrap().iter().filter(|(name, _)| name.contains("p_")) {
                // the tool rounds to four decimals, of milliseconds where it writes such
                let scale =
                    if ["_ttft_", "_itl_", "_tpot_"].iter().any(|m| column.ends_with(m)) { ms } else { 1.0 };
                let (a, b) = (value.as_f64().unwrap(), theirs[column].as_f64().unwrap());
                assert!((a - b).abs() * scale <= 0.500_001e-4, "{case} {column}: {a} {b}");
                compared += 1;
            }
        }
        assert!(compared >= 72, "{compared}");
    }
}

#[test]
fn sampled_memory_stands_where_the_tool_measured_none() {
    let w = Workspace::shipped();
    add(&w, "c", 4, "20260101_000000", &[(true, 0.1, None, 1.0)]);
    add(&w, "c", 4, "20260102_000000", &[(true, 0.1, None, 1.0), (false, 0.0, None, 0.0)]);
    let samples = "timestamp, memory.used [MiB]\n2026/01/01 00:00:00.001, 1024 MiB\n2026/01/01 00:00:00.502, 2048 MiB\n";
    w.write("mine/c/20260101_000000/m/gpu_samples.csv", samples);
    run(&w, &w.path("mine"), &["--set", "tidy=true"]).ok();
    let gpu = |n: usize| {
        let raw = w.json("out/evalscope/summary_raw.json");
        json!(["avg", "max", "min"].map(|name| raw[n][format!("{name}_gpu_memory")].clone()))
    };
    assert_eq!((gpu(0), gpu(1)), (json!([1.5, 2.0, 1.0]), json!([0, 0, 0])));
    let tidy = w.read("out/evalscope/summary_tidy.csv");
    assert!(tidy.starts_with("dir,versions,timestamp,config,model,parallel,prompt_length,max_tokens,failure_rate,metric,value,unit\r\n"));
    assert!(tidy.contains(",0.0,max_gpu_memory,2.0,GiB\r\n"), "{tidy}");
    assert!(tidy.contains(",0.5,time_taken,2.0,s\r\n"), "{tidy}");
    // what the tool measured comes first
    let db = Connection::open(w.path("mine/c/20260101_000000/m/benchmark_data.db")).unwrap();
    db.execute("UPDATE result SET max_gpu_memory_cost = 7.0", []).unwrap();
    db.close().unwrap();
    w.write("mine/c/20260102_000000/m/gpu_samples.csv", "timestamp, memory.used [MiB]\nx, [N/A]\n");
    run(&w, &w.path("mine"), &[]).ok();
    assert_eq!((gpu(0), gpu(1)), (json!([7.0, 7.0, 7.0]), json!([0, 0, 0])));
    let problems = w.json("out/evalscope/summary_problems.json");
    let of_samples = problems.as_array().unwrap().iter().find(|p| p["file"] == "gpu_samples.csv").unwrap();
    assert_eq!((&of_samples["reason"], &of_samples["kept"]), (&json!("wrong_type"), &json!(true)));
}
