//! Damage of every kind in the cache: each is named by `flow cache verify`, none is ever used, and nothing is lost by it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{LONG, Workspace, wait_for};

/// A small file, one too big for the index that compresses, one that does not, and a directory of both.
fn made() -> Workspace {
    let w = Workspace::with(json!({"steps": {
        "small": {"run": "echo small; cat s > ${outputs.o}", "inputs": {"s": "s"}, "outputs": {"o": "out/small"}},
        "text": {"run": "cat ${inputs.s} > out/text; seq 20000 >> out/text", "inputs": {"s": "${steps.small.o}"}, "outputs": {"o": "out/text"}},
        "noise": {"run": "cat ${inputs.s} noise > ${outputs.o}", "inputs": {"s": "${steps.small.o}", "n": "noise"}, "outputs": {"o": "out/noise"}},
        "tree": {"run": "cp ${inputs.t} ${outputs.d}/t; cp ${inputs.s} ${outputs.d}/s",
                 "inputs": {"t": "${steps.text.o}", "s": "${steps.small.o}"}, "outputs": {"d": "out/tree/"}},
    }}));
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = (0..60_000).map(|_| random.u8(..)).collect();
    w.write("s", "1\n").write("noise", noise);
    w.run(&[]).ok().ran(["small", "text", "noise", "tree"]);
    w
}

/// The blob files, the largest first.
fn blobs(w: &Workspace) -> Vec<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for folder in fs::read_dir(w.path("cache/objects")).unwrap().flatten() {
        for entry in fs::read_dir(folder.path()).unwrap().flatten() {
            found.push((entry.metadata().unwrap().len(), entry.path()));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

fn index(w: &Workspace) -> rusqlite::Connection {
    rusqlite::Connection::open(w.path("cache/index.db")).unwrap()
}

/// The only state file of the workspace.
fn state(w: &Workspace) -> PathBuf {
    let dir = fs::read_dir(w.path("cache/workspaces")).unwrap().flatten().next().unwrap();
    dir.path().join("state.db")
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// `flow cache verify --json` and its report; it exits with 4 if something is damaged.
#[track_caller]
fn verify(w: &Workspace, damaged: bool) -> Value {
    w.flow(&["cache", "verify", "--json"]).exits(if damaged { 4 } else { 0 }).json()
}

/// How many there are of what `verify` names.
fn count(report: &Value, list: &str) -> usize {
    report[list].as_array().unwrap_or_else(|| panic!("{list} in {report}")).len()
}

type Tree = BTreeMap<String, Vec<u8>>;

/// Without its outputs the workspace is made whole again from the damaged cache: these nodes run, the rest is restored.
#[track_caller]
fn made_whole<const N: usize>(w: &Workspace, before: &Tree, what: &str, rerun: [&str; N]) {
    w.remove("out");
    let run = w.run(&[]).ok();
    assert_eq!(w.tree("out"), *before, "{what}");
    let expected: Vec<&str> = { rerun }.to_vec();
    assert_eq!(run.with_outcome("ran").into_iter().collect::<Vec<_>>(), expected, "{what}: {}", run.stderr);
    for node in rerun {
        let reason = run.node(node)["reason"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains("missing or damaged"), "{what}: {node} ran: {reason}");
    }
    verify(w, false);
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_damaged_blob_file_is_named_never_used_and_made_again() {
    type Damage = fn(&Path);
    let kinds: [(&str, &str, Damage); 9] = [
        ("first byte flipped", "corrupt", |path| flip(path, 0)),
        ("a bit flipped", "corrupt", |path| flip(path, fs::metadata(path).unwrap().len() / 2)),
        ("last byte flipped", "corrupt", |path| flip(path, fs::metadata(path).unwrap().len() - 1)),
        ("truncated", "corrupt", |path| {
            let half = fs::metadata(path).unwrap().len() / 2;
            fs::File::options().write(true).open(path).unwrap().set_len(half).unwrap();
        }),
        ("longer", "corrupt", |path| {
            let more = [fs::read(path).unwrap(), b"more".to_vec()].concat();
            fs::write(path, more).unwrap();
        }),
        ("empty", "corrupt", |path| fs::write(path, b"").unwrap()),
        ("missing", "", |path| fs::remove_file(path).unwrap()),
        ("a directory", "corrupt", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir_all(path.join("sub")).unwrap();
        }),
        ("a pipe", "corrupt", |path| {
            fs::remove_file(path).unwrap();
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
    ];
    let w = made();
    let before = w.tree("out");
    let nodes = ["noise", "text"];
    for (what, list, damage) in kinds {
        for (blob, node) in blobs(&w).iter().zip(nodes) {
            let what = format!("{what}: {node}");
            damage(blob);
            let report = verify(&w, !list.is_empty());
            assert!(count(&report, "incomplete") >= 1, "{what}: {report}");
            if !list.is_empty() {
                let named = format!("b3:{}", blob.file_name().unwrap().to_str().unwrap());
                assert_eq!(report[list], json!([named]), "{what}");
            }
            // looking took nothing away, and what is in place is not touched
            assert_eq!(verify(&w, !list.is_empty()), report, "{what}");
            w.run(&[]).ok().all_fresh();
            made_whole(&w, &before, &what, [node]);
        }
    }
}

#[test]
fn damaged_small_blobs_in_the_index_are_named_never_used_and_made_again() {
    let w = made();
    let before = w.tree("out");
    for (what, sql, named) in [
        ("flipped", "UPDATE small SET packed = CAST(x'00' || substr(packed, 2) AS BLOB)", true),
        ("truncated", "UPDATE small SET packed = substr(packed, 1, length(packed) - 1)", true),
        ("empty", "UPDATE small SET packed = x''", true),
        ("of another type", "UPDATE small SET packed = 7", true),
        ("missing", "DELETE FROM small", false),
    ] {
        let changed = index(&w).execute(sql, []).unwrap();
        assert_eq!(changed, 2, "the small file and the list of the directory");
        let report = verify(&w, named);
        assert_eq!(count(&report, "corrupt"), if named { changed } else { 0 }, "{what}");
        made_whole(&w, &before, what, ["small", "tree"]);
    }
}

#[test]
fn repair_takes_away_what_is_damaged_and_only_that() {
    let w = made();
    let before = w.tree("out");
    let blobs = blobs(&w);
    flip(&blobs[0], 100);
    fs::remove_file(&blobs[1]).unwrap();
    fs::create_dir(&blobs[1]).unwrap();
    index(&w)
        .execute("UPDATE small SET packed = CAST(x'00' || packed AS BLOB) WHERE length(packed) < 10", [])
        .unwrap();
    w.write("cache/objects/stray", "no blob");
    let run = w.flow(&["cache", "verify"]).exits(4).says("--repair").says("nothing wrong is ever used");
    assert!(run.stdout.contains("corrupt: 3\n") && run.stdout.contains("  stray\n"), "{}", run.stdout);
    let report = w.flow(&["cache", "verify", "--repair", "--json"]).ok().says("taken away").json();
    assert_eq!((count(&report, "corrupt"), report["removed"].as_u64()), (3, Some(3)));
    assert!(!blobs[0].exists() && !blobs[1].exists() && w.has("cache/objects/stray"));
    assert_eq!(count(&verify(&w, false), "incomplete"), 4);
    made_whole(&w, &before, "after repair", ["noise", "small", "text"]);
}

#[test]
fn a_flipped_bit_in_a_result_is_noticed_and_only_its_node_runs_again() {
    for in_place in [true, false] {
        let w = made();
        let before = w.tree("out");
        let db = index(&w);
        let (key, mut row): (Vec<u8>, Vec<u8>) = db
            .query_row("SELECT key, record FROM results ORDER BY length(record) DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        let middle = row.len() / 2;
        row[middle] ^= 4;
        db.execute("UPDATE results SET record = ?2 WHERE key = ?1", (&key, &row)).unwrap();
        drop(db);
        let report = verify(&w, true);
        assert_eq!((count(&report, "damaged_results"), count(&report, "corrupt")), (1, 0));
        w.flow(&["cache", "gc", "--max-size", "0"]).exits(4).says("1 results in the index are damaged");
        if !in_place {
            w.remove("out");
        }
        let run = w.run(&[]).ok();
        assert_eq!(run.with_outcome("ran").len(), 1, "{}", run.stderr);
        assert!(
            run.stderr.contains("its result is not in the cache")
                || run.stdout.contains("its result is not in the cache")
        );
        assert_eq!(w.tree("out"), before);
        verify(&w, false);
        w.run(&[]).ok().all_fresh();
    }
}

#[test]
fn a_measurement_whose_result_is_lost_is_not_silently_measured_again() {
    let w = Workspace::with(json!({"steps": {
        "m": {"run": "echo x >> log; wc -l < log > m", "outputs": {"m": "m"}, "cache": "sample"},
    }}));
    w.run(&[]).ok();
    index(&w).execute("UPDATE results SET record = x'01'", []).unwrap();
    w.run(&[]).exits(1).failed(["m"]).says("--remeasure 'm'");
    assert_eq!((w.read("m"), w.read("log")), ("1\n".to_owned(), "x\n".to_owned()));
    w.run(&["--remeasure", "m"]).ok().ran(["m"]);
    w.run(&[]).ok().all_fresh();
}

/// Puts a database out of order in one of many ways.
fn damage_database(path: &Path, how: &str) {
    let len = fs::metadata(path).unwrap().len();
    match how {
        "garbage" => fs::write(path, vec![0x5A; 20_000]).unwrap(),
        "truncated" => {
            fs::File::options().write(true).open(path).unwrap().set_len(len / 2 / 4096 * 4096 + 17).unwrap();
        }
        "a page of zeros" => {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.write_all_at(&[0; 4096], 4096).unwrap();
        }
        "a page of noise" => {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.write_all_at(&[0xEE; 4096], 2 * 4096).unwrap();
        }
        "zero bytes" => fs::write(path, b"").unwrap(),
        "a foreign log beside it" => {
            fs::write(format!("{}-wal", path.display()), vec![0xA5; 9000]).unwrap();
        }
        other => panic!("{other}"),
    }
}

const OUT_OF_ORDER: [&str; 6] =
    ["garbage", "truncated", "a page of zeros", "a page of noise", "zero bytes", "a foreign log beside it"];

/// What SQLite itself gets over.
const HARMLESS: [&str; 2] = ["zero bytes", "a foreign log beside it"];

#[test]
fn a_damaged_index_is_refused_with_a_way_out_that_keeps_everything_else() {
    for how in OUT_OF_ORDER {
        let w = made();
        let before = w.tree("out");
        let blobs_before = w.tree("cache/objects");
        let path = w.path("cache/index.db");
        damage_database(&path, how);
        let damaged = fs::read(&path).unwrap();
        let run = w.run(&["--progress", "plain"]);
        assert_eq!(w.tree("out"), before, "{how}");
        // SQLite ignores a log that is not its own, takes an empty file for a new database, and may not need the damaged page
        if run.code == Some(4) {
            run.says("index.db").says("the file is damaged").says("flow cache verify --repair");
            assert!(fs::read(&path).unwrap() == damaged, "{how}: the damaged file was touched");
        } else {
            run.ok();
        }
        if !HARMLESS.contains(&how) {
            assert_eq!(w.flow(&["cache", "verify"]).code, Some(4), "{how}");
            let damaged = fs::read(&path).unwrap();
            let report = w.flow(&["cache", "verify", "--repair", "--json"]).ok().json();
            assert_eq!(report["rebuilt"][0]["file"], "index.db", "{how}");
            assert_eq!(report["rebuilt"][0]["kept_as"], "index.db.damaged-1", "{how}");
            assert!(fs::read(w.path("cache/index.db.damaged-1")).unwrap() == damaged, "{how}");
        }
        assert_eq!(w.tree("cache/objects"), blobs_before, "{how}");
        assert!(w.flow(&["log"]).ok().stdout.lines().count() >= 2, "{how}: the history is still there");
        w.run(&[]).ok();
        assert_eq!(w.tree("out"), before, "{how}");
        verify(&w, false);
        w.run(&[]).ok().all_fresh();
    }
}

#[test]
fn a_damaged_workspace_state_is_refused_with_a_way_out_and_no_node_runs_after_it() {
    for how in OUT_OF_ORDER {
        let w = made();
        let before = w.tree("out");
        let path = state(&w);
        damage_database(&path, how);
        let damaged = fs::read(&path).unwrap();
        let run = w.run(&["--progress", "plain"]);
        assert_eq!(w.tree("out"), before, "{how}");
        if run.code == Some(4) {
            run.says("state.db").says("the file is damaged");
            assert!(fs::read(&path).unwrap() == damaged, "{how}: the damaged file was touched");
        } else {
            run.ok();
        }
        if !HARMLESS.contains(&how) {
            assert_eq!(count(&verify(&w, true), "damaged_databases"), 1, "{how}");
            let report = w.flow(&["cache", "verify", "--repair", "--json"]).ok().json();
            assert_eq!(count(&report, "rebuilt"), 1, "{how}");
        }
        w.run(&[]).ok().all_fresh();
        assert_eq!(w.tree("out"), before, "{how}");
        verify(&w, false);
    }
}

#[test]
fn gc_takes_nothing_while_it_cannot_be_told_what_is_published() {
    let w = made();
    let blobs = w.tree("cache/objects");
    damage_database(&state(&w), "garbage");
    w.flow(&["cache", "gc", "--max-age", "0s"]).exits(4).says("state.db").says("the file is damaged");
    assert_eq!(w.tree("cache/objects"), blobs);
}

#[test]
fn databases_of_a_newer_format_are_refused_and_not_touched() {
    let w = made();
    let before = w.tree("out");
    for path in [w.path("cache/index.db"), state(&w)] {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let version = |number: Option<i64>| -> i64 {
            let db = rusqlite::Connection::open(&path).unwrap();
            if let Some(number) = number {
                db.pragma_update(None, "user_version", number).unwrap();
            }
            db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
        };
        let now = version(None);
        version(Some(99));
        let bytes = fs::read(&path).unwrap();
        w.write("s", "2\n");
        for args in [&["run", "flow.json"][..], &["plan", "flow.json"], &["cache", "gc", "--max-size", "0"]] {
            w.flow(args)
                .exits(4)
                .says(&name)
                .says("format version 99")
                .says(&format!("up to {now}"))
                .says("--cache DIR");
        }
        w.flow(&["cache", "verify", "--repair"]).exits(4).says("format version 99");
        assert!(fs::read(&path).unwrap() == bytes, "{name} was touched");
        assert_eq!(w.tree("out"), before);
        w.write("s", "1\n");
        version(Some(now));
        w.run(&[]).ok().all_fresh();
    }
}

#[test]
fn what_is_kept_of_earlier_runs_to_save_work_is_not_believed_if_it_is_damaged() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat s > out", "inputs": {"s": "s"}, "outputs": {"o": "out"}},
    }}));
    // everything but the database
    let kept = || -> Vec<PathBuf> {
        let dir = state(&w).parent().unwrap().to_owned();
        let found = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
        found.filter(|path| path.is_file() && !path.to_string_lossy().contains("state.db")).collect()
    };
    w.write("s", "first");
    for what in ["a flipped bit", "cut", "garbage", "another format", "empty"] {
        wait_for("a run that leaves something", LONG, || {
            w.flow(&["run", "flow.json"]).ok();
            !kept().is_empty()
        });
        w.write("s", what);
        for path in kept() {
            let mut bytes = fs::read(&path).unwrap();
            match what {
                "a flipped bit" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                }
                "cut" => bytes.truncate(bytes.len() / 2),
                "garbage" => bytes = vec![7; 5000],
                "another format" => bytes[..4].copy_from_slice(b"next"),
                _ => bytes.clear(),
            }
            fs::write(&path, bytes).unwrap();
        }
        w.flow(&["run", "flow.json"]).ok();
        assert_eq!(w.read("out"), what);
        w.flow(&["run", "flow.json"]).ok();
    }
}

#[test]
fn a_damaged_run_record_is_named_hides_no_other_and_stays_when_it_is_taken_away() {
    let w = made();
    w.write("s", "2\n");
    w.run(&[]).ok();
    let mut records: Vec<PathBuf> =
        fs::read_dir(w.path("cache/runs")).unwrap().flatten().map(|entry| entry.path()).collect();
    records.sort();
    assert_eq!(records.len(), 2);
    let middle = fs::metadata(&records[0]).unwrap().len() / 2;
    flip(&records[0], middle);
    let id = records[0].file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
    let log = w.flow(&["log"]).ok().says(&format!("run {id} is left out"));
    assert!(!log.stdout.contains(&id) && log.stdout.contains("ok"), "{}", log.stdout);
    w.flow(&["log", "show", &id]).exits(4).says("failed to read the run record").says("--repair");
    // which blobs that run used cannot be told
    w.flow(&["cache", "gc", "--keep-runs", "2"]).exits(4).says("run record");
    let report = verify(&w, true);
    assert_eq!(report["damaged_runs"][0][0], json!(id));
    w.flow(&["cache", "verify", "--repair"]).ok();
    verify(&w, false);
    assert!(w.has(&format!("cache/runs/{id}.jsonl.zst.damaged")));
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_run_record_of_a_newer_format_is_refused() {
    let w = made();
    let record = fs::read_dir(w.path("cache/runs")).unwrap().flatten().next().unwrap().path();
    let line = br#"{"format":"flow-run","version":99,"run":"x"}"#;
    let id = "20991231-000000-ffff";
    let newer = record.with_file_name(format!("{id}.jsonl.zst"));
    fs::write(&newer, zstd::encode_all(&[&line[..], b"\n"].concat()[..], 1).unwrap()).unwrap();
    w.flow(&["log", "show", id]).exits(4).says("version 99");
    w.flow(&["log"]).ok().says("version 99");
    w.run(&[]).ok().all_fresh();
}

#[test]
fn the_journal_of_a_killed_command_that_cannot_be_read_loses_no_old_file() {
    let w = Workspace::with(json!({"steps": {"a": {
        "run": "cat s > out; echo up; cat s > out", "inputs": {"s": "s"}, "outputs": {"o": "out"}
    }}}));
    w.write("s", "old");
    w.run(&["--no-cache"]).ok();
    w.write("s", "new");
    let killed = w.command(&["run", "flow.json", "-q"]).env("FLOW_FAILPOINT", "running").output().unwrap();
    assert_eq!(killed.status.code(), None);
    let scratch = fs::read_dir(w.path("cache/tmp")).unwrap().flatten().next().unwrap().path();
    for damaged in [&b""[..], &[0; 4096]] {
        fs::write(scratch.join("asides"), damaged).unwrap();
        w.run(&[]).exits(4).says("asides").says("put back what you need");
        assert_eq!(fs::read_to_string(scratch.join("aside.0")).unwrap(), "old");
    }
    fs::remove_dir_all(&scratch).unwrap();
    w.run(&[]).ok().ran(["a"]);
    assert_eq!(w.read("out"), "new");
}

/// Sets the time stamps of everything in the workspace.
fn stamp(w: &Workspace, when: &str) {
    let status = Command::new("find")
        .args([".", "-not", "-name", "*.db*", "-exec", "touch", "-h", "-d", when, "{}", "+"])
        .current_dir(w.root())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_clock_that_jumps_changes_nothing_that_content_decides() {
    let w = made();
    let before = w.tree("out");
    for (when, text) in [("2099-01-01", "7\n"), ("1971-01-01", "8\n"), ("now", "9\n")] {
        stamp(&w, when);
        w.run(&[]).ok().all_fresh();
        w.flow(&["run", "flow.json"]).ok();
        // an edit that keeps size and time stamp
        w.write("s", text);
        stamp(&w, when);
        w.run(&[]).ok().ran(["small", "text", "noise", "tree"]);
        w.write("s", "1\n");
        stamp(&w, when);
        assert!(w.run(&[]).ok().with_outcome("ran").is_empty(), "{when}");
        assert_eq!(w.tree("out"), before, "{when}");
    }
}

#[test]
fn a_result_of_the_future_is_checked_again_instead_of_being_fresh_for_years() {
    let w = Workspace::with(json!({
        "services": {"web": {"uses": "sim.http", "with": {"dir": "www"}}},
        "steps": {"fetch": {"uses": "http.fetch", "with": {"url": "${services.web.url}/x"}, "outputs": {"body": "body"}, "cache": {"fresh_for": "1h"}}},
    }));
    w.write("www/x", "1");
    w.run(&[]).ok().ran(["fetch"]);
    w.run(&[]).ok().all_fresh();
    w.write("www/x", "2");
    w.run(&[]).ok().all_fresh();
    // what a run writes while the clock is ten years ahead
    let db = index(&w);
    let (key, row): (Vec<u8>, Vec<u8>) =
        db.query_row("SELECT key, record FROM results", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let packed = &row[9..];
    let json = if packed.starts_with(b"{") { packed.to_vec() } else { zstd::decode_all(packed).unwrap() };
    let mut record: Value = serde_json::from_slice(&json).unwrap();
    let ahead = record["checked_at_ns"].as_i64().unwrap() + 10 * 365 * 86_400 * 1_000_000_000;
    record["checked_at_ns"] = ahead.into();
    record["made_at_ns"] = ahead.into();
    db.execute("UPDATE results SET record = ?2 WHERE key = ?1", (&key, record.to_string().into_bytes()))
        .unwrap();
    drop(db);
    w.run(&[]).ok();
    assert_eq!(w.read("body"), "2");
}

#[test]
fn foreign_things_among_the_blobs_are_named_and_left_alone() {
    let w = made();
    w.write("cache/objects/notes.txt", "mine").write("cache/objects/ab/README", "mine");
    symlink("nowhere", w.path("cache/objects/link")).unwrap();
    let report = verify(&w, false);
    assert_eq!(report["foreign"], json!(["ab/README", "link", "notes.txt"]));
    w.flow(&["cache", "verify", "--repair"]).ok();
    w.flow(&["cache", "gc", "--max-size", "0", "--samples"]).ok();
    assert!(w.has("cache/objects/notes.txt") && w.has("cache/objects/ab/README"));
}
