//! Result trees of evalscope with what does not belong there: each run is in the tables or named, nothing hangs, nothing is read whole.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::evalscope::{WORKFLOW, run};
use crate::support::{Run, Workspace};

const COLUMNS: &str = "request TEXT, start_time REAL, inter_token_latencies TEXT, success INTEGER, response_messages TEXT, \
    completed_time REAL, latency REAL, first_chunk_latency REAL, prompt_tokens INTEGER, completion_tokens INTEGER, \
    max_gpu_memory_cost REAL, time_per_output_token REAL";

/// Summary and args of a run `mine/<place>`.
fn add_run(w: &Workspace, place: &str, model: &str) {
    let summary = json!({"Time taken for tests (s)": 2.0, "Total requests": 4, "Succeed requests": 4, "Average latency (s)": 1.5});
    let args = json!({"model": model, "parallel": 4, "number": 4, "max_tokens": 5, "prompt": "Hi."});
    w.write(&format!("mine/{place}/benchmark_summary.json"), summary.to_string());
    w.write(&format!("mine/{place}/benchmark_args.json"), args.to_string());
}

fn add_row(db: &Connection, gpu: f64) {
    db.execute("INSERT INTO result (success, max_gpu_memory_cost) VALUES (1, ?1)", [gpu]).unwrap();
}

/// The problems that name `file`, and the raw table.
fn problems_of(w: &Workspace, file: &str) -> Vec<Value> {
    let all = w.json("out/evalscope/summary_problems.json");
    all.as_array().unwrap().iter().filter(|problem| problem["file"] == file).cloned().collect()
}

fn raw(w: &Workspace) -> Vec<Value> {
    w.json("out/evalscope/summary_raw.json").as_array().unwrap().clone()
}

#[test]
fn a_long_text_as_database_is_not_held_in_memory() {
    const SIZE: u64 = 256 << 20;
    let w = Workspace::shipped();
    add_run(&w, "c/20260101_000000/m", "m");
    w.write("mine/c/20260101_000000/m/benchmark_data.db", "2026-01-01 this is a log, no database\n");
    // a hole: no disk is used
    let path = w.path("mine/c/20260101_000000/m/benchmark_data.db");
    File::options().write(true).open(&path).unwrap().set_len(SIZE).unwrap();
    let results = format!("results={}", w.path("mine").display());
    let mut child = w.command(&["run", WORKFLOW, "-q", "--set", &results]).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        peak = peak.max(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::yield_now();
    };
    assert!(ended.success());
    assert!((1..SIZE / 2).contains(&peak), "{peak} bytes of memory");
    assert_eq!(problems_of(&w, "benchmark_data.db")[0]["reason"], "unreadable_db");
    assert_eq!((raw(&w).len(), &raw(&w)[0]["max_gpu_memory"]), (1, &json!(0)));
}

#[test]
fn a_directory_that_cannot_be_read_is_an_error_that_names_it() {
    const NOBODY: u32 = 65534;
    let w = Workspace::shipped();
    add_run(&w, "c/20260101_000000/m", "m");
    add_run(&w, "c/20260102_000000/m", "m");
    let locked = w.path("mine/c/20260102_000000");
    let mode = |mode: u32| fs::set_permissions(&locked, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    let results = format!("results={}", w.path("mine").display());
    let mut command = w.command(&["run", WORKFLOW, "--json", "-v", "--set", &results]);
    if fs::read_dir(&locked).is_ok() {
        // permissions say nothing to root
        let owned = std::process::Command::new("chown")
            .args(["-R", &format!("{NOBODY}:{NOBODY}")])
            .arg(w.root())
            .status();
        if !owned.is_ok_and(|status| status.success()) {
            eprintln!("skipped: running as root, and files cannot be given to another user");
            return;
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output();
    mode(0o755);
    match output {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: another user than root cannot execute the binary");
        }
        output => {
            let failed = Run::of(output.unwrap());
            failed.exits(4).says("20260102_000000, which cannot be read: permission denied");
        }
    }
}

#[test]
fn a_loop_of_links_ends() {
    let w = Workspace::shipped();
    add_run(&w, "c/20260101_000000/m", "m");
    symlink("..", w.path("mine/c/up")).unwrap();
    symlink("self", w.path("mine/self")).unwrap();
    symlink(w.path("mine"), w.path("mine/c/20260101_000000/m/round")).unwrap();
    run(&w, &w.path("mine"), &[]).ok();
    assert_eq!(raw(&w).len(), 1);
    run(&w, &w.path("mine"), &[]).ok().all_fresh();
}

#[test]
fn a_name_with_everything_in_it_comes_back_from_the_csv() {
    let model = "org/\"Größe, 大\"\r\n;x'\t模型";
    let w = Workspace::shipped();
    add_run(&w, "p4, \"c\" é/20260101_000000/Größe, \"大\" 'x' $HOME", model);
    add_run(&w, "p8/20260101_000000/m", "m");
    let first = run(&w, &w.path("mine"), &["--set", "tidy=true"]).ok();
    assert_eq!(first.with_outcome("ran").iter().filter(|id| id.starts_with("collect")).count(), 2);
    for table in ["raw", "stats", "tidy"] {
        let text = w.read(&format!("out/evalscope/summary_{table}.csv"));
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().unwrap().clone();
        let row = reader.records().next().unwrap().unwrap();
        let cell = |name: &str| &row[header.iter().position(|column| column == name).unwrap()];
        assert_eq!((cell("model"), cell("config")), (model, "p4, \"c\" é"), "{table}");
    }
    assert_eq!(raw(&w)[0]["model"], model);
    run(&w, &w.path("mine"), &["--set", "tidy=true"]).ok().all_fresh();
}

#[test]
fn a_directory_where_a_file_should_be() {
    let w = Workspace::shipped();
    for (day, file) in
        ["benchmark_summary.json", "benchmark_percentile.json", "benchmark_data.db", "gpu_samples.csv"]
            .into_iter()
            .enumerate()
    {
        let place = format!("c/2026010{day}_000000/m");
        add_run(&w, &place, "m");
        if day == 0 {
            w.remove(&format!("mine/{place}/{file}"));
        }
        w.write(&format!("mine/{place}/{file}/inside"), "x");
    }
    add_run(&w, "c/20260104_000000/m", "m");
    run(&w, &w.path("mine"), &[]).ok();
    let shown = |file: &str| -> Vec<Value> {
        problems_of(&w, file).iter().map(|p| json!([p["dir"], p["reason"], p["kept"]])).collect()
    };
    // what is no file is not there
    assert_eq!(shown("benchmark_summary.json"), [json!(["c/20260100_000000/m", "missing", false])]);
    for file in ["benchmark_percentile.json", "benchmark_data.db"] {
        let days: Vec<Value> =
            (1..5).map(|day| json!([format!("c/2026010{day}_000000/m"), "missing", true])).collect();
        assert_eq!(shown(file), days);
    }
    assert_eq!(raw(&w).len(), 4);
}

#[test]
fn a_database_in_use_is_read_with_its_log() {
    let w = Workspace::shipped();
    add_run(&w, "c/20260101_000000/m", "m");
    let db = Connection::open(w.path("mine/c/20260101_000000/m/benchmark_data.db")).unwrap();
    db.execute_batch(&format!("PRAGMA journal_mode = WAL; CREATE TABLE result ({COLUMNS});")).unwrap();
    add_row(&db, 8.0);
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    // this one is in the -wal only
    add_row(&db, 4.0);
    assert!(fs::metadata(w.path("mine/c/20260101_000000/m/benchmark_data.db-wal")).unwrap().len() > 0);
    run(&w, &w.path("mine"), &[]).ok();
    let row = &raw(&w)[0];
    assert_eq!(
        [&row["avg_gpu_memory"], &row["max_gpu_memory"], &row["min_gpu_memory"]],
        [&json!(6.0), &json!(8.0), &json!(4.0)]
    );
    // a row that is not committed is not there
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    add_row(&db, 100.0);
    run(&w, &w.path("mine"), &["--set", "format=json"]).ok();
    assert_eq!(raw(&w)[0]["max_gpu_memory"], 8.0);
    db.execute_batch("COMMIT").unwrap();
    run(&w, &w.path("mine"), &[]).ok();
    assert_eq!(raw(&w)[0]["max_gpu_memory"], 100.0);
}

#[test]
fn a_load_that_the_client_spoiled_is_named() {
    let w = Workspace::shipped();
    add_run(&w, "c/20260101_000000/m", "m");
    let mut args = w.json("mine/c/20260101_000000/m/benchmark_args.json");
    args["client_bound"] = json!(["lag"]);
    w.write("mine/c/20260101_000000/m/benchmark_args.json", args.to_string());
    run(&w, &w.path("mine"), &[]).ok();
    assert_eq!(
        problems_of(&w, "benchmark_args.json"),
        [
            json!({"dir": "c/20260101_000000/m", "file": "benchmark_args.json", "reason": "client_bound", "kept": true})
        ]
    );
    assert_eq!(raw(&w).len(), 1);
    run(&w, &w.path("mine"), &["--set", "strict=true"]).exits(1).says("benchmark_args.json: client_bound");
}

#[test]
fn odd_files_and_names_in_a_tree_lose_no_run() {
    let w = Workspace::shipped();
    for place in ["c/20260101_000000/link", "20260101_000000/20260101_000001/m", "c/20260101_000000/text"] {
        add_run(&w, place, "m");
    }
    // what leads nowhere is not there
    symlink("nowhere", w.path("mine/c/20260101_000000/link/benchmark_data.db")).unwrap();
    symlink("nowhere", w.path("mine/c/20260101_000000/link/gpu_samples.csv")).unwrap();
    let mut args = w.json("mine/c/20260101_000000/text/benchmark_args.json");
    args["parallel"] = json!("4");
    w.write("mine/c/20260101_000000/text/benchmark_args.json", args.to_string());
    // also where the directory's name has what is a wildcard elsewhere, or is written in another way
    fs::rename(w.path("mine"), w.path("res[v1]")).unwrap();
    for results in ["res[v1]".to_owned(), "./res[v1]/.".to_owned(), w.path("res[v1]").display().to_string()] {
        w.run_file(WORKFLOW, &["--set", &format!("results={results}")]).ok();
        let configs: Vec<Value> = raw(&w).iter().map(|row| row["config"].clone()).collect();
        assert_eq!(configs, ["20260101_000000", "c"], "{results}");
        let left_out: Vec<Value> = w.json("out/evalscope/summary_problems.json").as_array().unwrap().clone();
        let left_out: Vec<&Value> = left_out.iter().filter(|problem| problem["kept"] == false).collect();
        assert_eq!(
            left_out,
            [
                &json!({"dir": "c/20260101_000000/text", "file": "benchmark_args.json", "reason": "wrong_type", "kept": false})
            ],
            "{results}"
        );
    }
    // the link leads somewhere now, and nothing else changed
    let db = Connection::open(w.path("res[v1]/c/20260101_000000/link/nowhere")).unwrap();
    db.execute_batch(&format!("CREATE TABLE result ({COLUMNS});")).unwrap();
    add_row(&db, 3.0);
    drop(db);
    w.run_file(WORKFLOW, &["--set", "results=res[v1]"]).ok();
    assert_eq!(raw(&w)[1]["max_gpu_memory"], 3.0);
}

#[test]
fn samples_without_one_of_the_gpus_are_named() {
    let w = Workspace::shipped();
    add_run(&w, "c/20260101_000000/m", "m");
    let lines = ["timestamp, index, memory.used [MiB]", "t, 0, 1024 MiB", "t, 1, 1024 MiB", "t, 0, 1024 MiB"];
    let sampled = |more: &[&str]| {
        w.write(
            "mine/c/20260101_000000/m/gpu_samples.csv",
            lines.iter().chain(more).map(|line| format!("{line}\n")).collect::<String>(),
        );
        run(&w, &w.path("mine"), &[]).ok();
        (raw(&w)[0]["avg_gpu_memory"].clone(), problems_of(&w, "gpu_samples.csv"))
    };
    // sampling ended within the last one
    assert_eq!(sampled(&[]), (json!(2.0), vec![]));
    let named = json!({"dir": "c/20260101_000000/m", "file": "gpu_samples.csv", "reason": "incomplete_samples", "kept": true});
    assert_eq!(sampled(&["t, 0, 1024 MiB", "t, 1, 1024 MiB"]), (json!(2.0), vec![named]));
}

#[test]
fn goodput_of_runs_whose_time_is_not_known_is_not_known() {
    let w = Workspace::shipped();
    for (place, time) in [("c/20260101_000000/m", json!(10.0)), ("c/20260101_000001/m", json!(null))] {
        add_run(&w, place, "m");
        let mut summary = w.json(&format!("mine/{place}/benchmark_summary.json"));
        summary["Time taken for tests (s)"] = time;
        w.write(&format!("mine/{place}/benchmark_summary.json"), summary.to_string());
        let db = Connection::open(w.path(&format!("mine/{place}/benchmark_data.db"))).unwrap();
        // a view is read as a table is
        db.execute_batch(&format!("CREATE TABLE t ({COLUMNS}); CREATE VIEW result AS SELECT * FROM t;"))
            .unwrap();
        let insert = "INSERT INTO t (success, first_chunk_latency, inter_token_latencies, max_gpu_memory_cost) VALUES (1, 0.1, '[0.5]', 2.0)";
        db.execute(insert, []).unwrap();
    }
    run(&w, &w.path("mine"), &["--set", r#"slo={"ttft": 0.5}"#, "--set", r#"percentiles={"at": [100]}"#])
        .ok();
    let highest = &w.json("out/evalscope/summary_slo_highest.json")[0];
    assert_eq!(
        (&highest["runs"], &highest["share"], &highest["goodput"]),
        (&json!(2), &json!(1.0), &json!(null))
    );
    assert_eq!(w.json("out/evalscope/summary_slo.json")[0]["goodput"], json!(0.1));
    assert_eq!(w.json("out/evalscope/summary_percentiles.json")[0]["100p_itl_"], json!(0.5));
    assert_eq!(raw(&w)[0]["max_gpu_memory"], 2.0);
}

#[test]
fn token_times_that_cannot_be_read_are_counted() {
    let w = Workspace::shipped();
    add_run(&w, "c/20260101_000000/m", "m");
    let db = Connection::open(w.path("mine/c/20260101_000000/m/benchmark_data.db")).unwrap();
    db.execute_batch(&format!("CREATE TABLE result ({COLUMNS});")).unwrap();
    for list in ["'[0.5, NaN]'", "'[]'", "'[9.0, '", "7", "NULL"] {
        db.execute(&format!("INSERT INTO result (success, inter_token_latencies) VALUES (1, {list})"), [])
            .unwrap();
    }
    let problem = |args: &[&str]| {
        run(&w, &w.path("mine"), args).ok();
        problems_of(&w, "benchmark_data.db")
    };
    let asked = ["--set", r#"percentiles={"at": [100]}"#];
    assert_eq!(
        problem(&asked),
        [
            json!({"dir": "c/20260101_000000/m", "file": "benchmark_data.db", "reason": "unreadable_tokens", "kept": true, "requests": 2})
        ]
    );
    assert_eq!(w.json("out/evalscope/summary_percentiles.json")[0]["100p_itl_"], json!(0.5));
    run(&w, &w.path("mine"), &[&asked[..], &["--set", "strict=true"]].concat())
        .exits(1)
        .says("benchmark_data.db: unreadable_tokens");
    // without percentiles nobody reads them
    assert_eq!(problem(&[]), [] as [Value; 0]);
}
