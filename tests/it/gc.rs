//! `flow cache gc`: what goes and what stays, by size, age and runs, and that it is safe beside a running flow.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{LONG, Workspace, signal, wait_for};

/// `a` makes a big file of `s`, `b` one of that, `small` a small one.
fn chain() -> Workspace {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo a >> log; cat s > ${outputs.o}; seq 3000 >> ${outputs.o}", "inputs": {"s": "s"}, "outputs": {"o": "out/a"}},
        "b": {"run": "echo b >> log; cat ${inputs.a} t > ${outputs.o}", "inputs": {"a": "${steps.a.o}", "t": "t"}, "outputs": {"o": "out/b"}},
        "small": {"run": "echo small >> log; cat s > ${outputs.o}", "inputs": {"s": "s"}, "outputs": {"o": "out/small"}},
    }}));
    w.write("s", "1\n").write("t", "1\n");
    w.run(&[]).ok().ran(["a", "b", "small"]);
    w
}

#[track_caller]
fn gc(w: &Workspace, args: &[&str]) -> Value {
    let all: Vec<&str> = ["cache", "gc", "--json"].iter().chain(args).copied().collect();
    w.flow(&all).ok().json()
}

fn stats(w: &Workspace) -> Value {
    w.flow(&["cache", "stats", "--json"]).ok().json()
}

fn blobs(w: &Workspace) -> Vec<PathBuf> {
    let folders = fs::read_dir(w.path("cache/objects")).unwrap().flatten();
    folders
        .flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten())
        .map(|entry| entry.path())
        .collect()
}

/// Makes all blobs look as if they had last been used `days` ago; less than nothing is the future.
fn age(w: &Workspace, days: i64) {
    let span = Duration::from_secs(days.unsigned_abs() * 86_400);
    let then = if days >= 0 { SystemTime::now() - span } else { SystemTime::now() + span };
    for blob in blobs(w) {
        fs::File::open(blob).unwrap().set_modified(then).unwrap();
    }
    let ns = then.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as i64;
    let db = rusqlite::Connection::open(w.path("cache/index.db")).unwrap();
    db.execute("UPDATE small SET used_ns = ?1", [ns]).unwrap();
}

#[test]
fn collected_bytes_still_serve_keys_and_come_back_by_a_run_that_says_why() {
    let w = chain();
    let before = w.tree("out");
    let history = w.flow(&["log"]).ok().stdout;
    let dry = gc(&w, &["--max-size", "0", "--dry-run"]);
    assert_eq!((dry["removed"].as_u64(), dry["dry_run"].as_bool()), (Some(3), Some(true)));
    assert_eq!((blobs(&w).len(), &stats(&w)["small"]), (2, &json!(1)), "a dry run removes nothing");
    let stored = stats(&w)["stored_bytes"].clone();
    let report = gc(&w, &["--max-size", "0"]);
    assert_eq!(
        (&report["removed"], &report["kept"], &report["kept_bytes"]),
        (&json!(3), &json!(0), &json!(0))
    );
    assert_eq!((&report["removed_bytes"], &dry["removed_bytes"]), (&stored, &stored));
    // results, runs and what is in place stay
    let left = stats(&w);
    assert_eq!(
        (&left["results"], &left["blobs"], &left["small"], &left["runs"]),
        (&json!(3), &json!(0), &json!(0), &json!(1))
    );
    assert_eq!(w.flow(&["log"]).ok().stdout, history);
    assert_eq!(w.tree("out"), before);
    w.run(&[]).ok().all_fresh();
    // only `b` is gone: `a` is in place and gives its bytes
    w.remove("out/b");
    let run = w.run(&[]).ok().ran(["b"]);
    assert_eq!(run.node("b")["reason"], "cached bytes of out/b are missing or damaged");
    // `a` is gone, nobody needs its bytes: its digest serves the key of `b`
    gc(&w, &["--max-size", "0"]);
    w.remove("out/a");
    let run = w.run(&["b"]).ok().ran([]);
    assert_eq!((&run.node("a")["outcome"], &run.node("b")["outcome"]), (&json!("cached"), &json!("fresh")));
    assert!(!w.has("out/a"));
    // now they are needed
    w.write("t", "2\n");
    let run = w.run(&["b"]).ok().ran(["a", "b"]);
    assert_eq!(run.node("a")["reason"], "cached bytes of out/a are missing or damaged");
    assert_eq!(run.node("b")["reason"], "input t changed (t)");
    w.flow(&["cache", "verify"]).ok();
}

#[test]
fn by_age_what_is_published_or_measured_stays() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat s > ${outputs.o}", "inputs": {"s": "s"}, "outputs": {"o": "a"}},
        "m": {"run": "cat s > ${outputs.o}; echo m >> ${outputs.o}", "inputs": {"s": "s"}, "cache": "sample", "outputs": {"o": "m"}},
    }}));
    for text in ["1", "2"] {
        w.write("s", text.repeat(10_000));
        w.run(&[]).ok().ran(["a", "m"]);
    }
    age(&w, 10);
    let young = gc(&w, &["--max-age", "20d"]);
    assert_eq!((&young["removed"], &young["kept"]), (&json!(0), &json!(4)));
    let report = gc(&w, &["--max-age", "5d"]);
    assert_eq!(
        (&report["removed"], &report["kept"], &report["spared_samples"]),
        (&json!(1), &json!(3), &json!(1))
    );
    w.write("s", "1".repeat(10_000));
    let back = w.run(&[]).ok().ran(["a"]).restored(["m"]);
    assert!(back.node("a")["reason"].as_str().unwrap().contains("missing or damaged"));
    // asked for, measurements go too: the node fails rather than measure again by itself
    age(&w, 10);
    let report = gc(&w, &["--max-size", "0", "--samples"]);
    assert_eq!(&report["kept"], &json!(0));
    w.remove("m");
    w.run(&[]).exits(1).failed(["m"]).says("--remeasure 'm'");
}

#[test]
fn what_the_last_runs_made_or_used_is_pinned() {
    let w = chain();
    let edit = |text: &str| {
        w.write("s", format!("{text}\n"));
        w.run(&[]).ok()
    };
    edit("2").ran(["a", "b", "small"]);
    edit("3").ran(["a", "b", "small"]);
    // used, not made
    edit("1").ran([]).restored(["a", "b", "small"]);
    edit("4").ran(["a", "b", "small"]);
    assert_eq!((blobs(&w).len(), &stats(&w)["small"]), (8, &json!(4)));
    // pinned against size and age: of 4, which made its own, and of 1, which it restored
    let report = gc(&w, &["--keep-runs", "2", "--max-size", "0"]);
    assert_eq!(
        (&report["removed"], &report["kept"], &report["spared_runs"]),
        (&json!(6), &json!(6), &json!(6))
    );
    edit("1").ran([]).restored(["a", "b", "small"]);
    edit("4").ran([]).restored(["a", "b", "small"]);
    edit("2").ran(["a", "b", "small"]);
    // alone: everything but that and what is published
    let report = gc(&w, &["--keep-runs", "1"]);
    assert_eq!((&report["removed"], &report["kept"]), (&json!(6), &json!(3)));
    w.flow(&["cache", "verify"]).ok();
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_clock_that_was_wrong_keeps_gc_neither_from_everything_nor_from_nothing() {
    let w = chain();
    w.write("s", "2\n");
    w.run(&[]).ok();
    // stamps of the future: counted as used now, said, and set to now so that they grow old at last
    age(&w, -3000);
    let report = gc(&w, &["--max-age", "1d"]);
    assert_eq!((&report["removed"], &report["from_future"]), (&json!(0), &json!(6)));
    let report = gc(&w, &["--max-age", "1d"]);
    assert_eq!((&report["removed"], &report["from_future"]), (&json!(0), &json!(0)));
    assert!(
        blobs(&w).iter().all(|blob| fs::metadata(blob).unwrap().modified().unwrap() <= SystemTime::now())
    );
    age(&w, -3000);
    assert_eq!(gc(&w, &["--max-size", "0"])["removed"], 6);
    // a clock far ahead makes everything old: what is in place keeps its bytes, and every result its row
    let w = chain();
    w.write("s", "2\n");
    w.run(&[]).ok();
    age(&w, 20_000);
    let report = gc(&w, &["--max-age", "365d"]);
    assert_eq!((&report["removed"], &report["kept"]), (&json!(3), &json!(3)));
    assert_eq!(stats(&w)["results"], 6);
    w.remove("out");
    w.run(&[]).ok().ran([]).restored(["a", "b", "small"]);
}

fn stopped(child: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// `flow` that stops at a point.
fn stop_at(w: &Workspace, args: &[&str], point: &str) -> Child {
    let mut command = w.command(args);
    let child = command
        .env("FLOW_FAILPOINT_STOP", point)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the process to stop", LONG, || stopped(&child));
    child
}

/// Another workspace that uses the cache of `w`.
fn beside(w: &Workspace) -> (Workspace, String) {
    let other = Workspace::new();
    for file in ["flow.json", "s", "t"] {
        other.write(file, w.read(file));
    }
    (other, w.path("cache").display().to_string())
}

#[test]
fn what_a_run_has_just_stored_is_never_taken_from_it() {
    let w = chain();
    let (other, cache) = beside(&w);
    w.write("s", "9\n");
    age(&w, 3);
    // stored, not yet in any result; then in a result, not yet published; then published
    for point in ["blob_written:1", "blob_written:2", "result_row:1", "result_row:2"] {
        let text = format!("{point}\n");
        w.write("s", &text);
        // one node at a time, none of which writes to the index but its result: a stopped process in a transaction holds up all
        let mut run = stop_at(&w, &["run", "flow.json", "b", "-q", "-j", "1"], point);
        let report = other.flow(&["cache", "gc", "--max-size", "0", "--json", "--cache", &cache]).ok().json();
        signal(run.id(), "CONT");
        assert!(run.wait().unwrap().success(), "{point}");
        assert!(
            report["spared_recent"].as_u64().unwrap() >= 1
                || point.starts_with("blob")
                || point.starts_with("unc"),
            "{point}: {report}"
        );
        let checked = w.flow(&["cache", "verify", "--json"]).ok().json();
        let made = checked["incomplete"].as_array().unwrap().iter().filter(|of| {
            let log = w.flow(&["log", "show", "--json"]).ok().stdout;
            log.contains(of["key"].as_str().unwrap())
        });
        assert_eq!(made.count(), 0, "{point}: {checked}");
        w.remove("out");
        w.run(&["b"]).ok().ran([]).restored(["b"]);
        w.run(&["a"]).ok().ran([]).restored(["a"]);
        age(&w, 3);
    }
}

#[test]
fn a_blob_that_is_used_while_gc_is_about_to_take_it_stays() {
    let w = chain();
    let before = w.tree("out");
    age(&w, 3);
    // another process has the cache open all the time
    let (other, cache) = beside(&w);
    for point in ["gc_listed", "gc_aside:1", "gc_aside:2"] {
        age(&w, 3);
        let args = ["cache", "gc", "--max-size", "0", "--json", "--cache", &cache];
        let holder = stop_at(&other, &["cache", "verify", "--cache", &cache], "opened");
        let collector = stop_at(&other, &args, point);
        // the run finds its bytes in the cache, or makes them again: never anything else
        w.remove("out");
        let run = w.run(&[]).ok();
        assert_eq!(w.tree("out"), before, "{point}");
        if point == "gc_listed" {
            assert_eq!(run.with_outcome("restored").len(), 3, "{point}: {}", run.stderr);
        }
        signal(collector.id(), "CONT");
        let output = collector.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        signal(holder.id(), "CONT");
        holder.wait_with_output().unwrap();
        if point == "gc_listed" {
            assert_eq!((&report["removed"], &report["spared_recent"]), (&json!(0), &json!(3)), "{point}");
        }
        w.remove("out");
        w.run(&[]).ok();
        assert_eq!(w.tree("out"), before, "{point}");
        w.flow(&["cache", "verify"]).ok();
    }
}

#[test]
fn a_killed_gc_leaves_a_whole_cache() {
    let w = chain();
    let before = w.tree("out");
    for point in ["gc_listed", "gc_aside:1", "gc_aside:2", "uncommitted:1"] {
        let mut command = w.command(&["cache", "gc", "--max-size", "0"]);
        let status = command
            .env("FLOW_FAILPOINT", point)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), None, "{point}");
        w.flow(&["cache", "verify"]).ok();
        assert_eq!(crate::support::names_in(&w.path("cache/tmp")), [""; 0], "{point}");
        w.remove("out");
        w.run(&[]).ok();
        assert_eq!(w.tree("out"), before, "{point}");
    }
}

#[test]
fn many_runs_and_many_collections_at_once_never_give_a_wrong_or_failed_run() {
    let w = chain();
    let (other, cache) = beside(&w);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut count = 0;
            while !w.has("over") {
                // old stamps, so that nothing is spared for being recent
                age(&w, 3);
                other.flow(&["cache", "gc", "--max-size", "0", "--cache", &cache]).ok();
                count += 1;
            }
            count
        });
        for n in 0..12 {
            w.write("s", format!("{}\n", n % 3));
            w.run(&[]).ok();
            let small = w.read("out/small");
            assert_eq!(small, format!("{}\n", n % 3));
            assert_eq!(w.read("out/b"), format!("{}1\n", w.read("out/a")));
            w.remove("out");
            w.run(&[]).ok();
            assert_eq!(w.read("out/small"), small);
        }
        w.write("over", "");
        assert!(collector.join().unwrap() > 3);
    });
    w.flow(&["cache", "verify"]).ok();
}
