//! A disk that is full or read-only while a node stores, commits, publishes or is recorded: a clear error, the old outputs in place,
//! and the next run with room goes on as if nothing had happened.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::{Disks, Run, Workspace, names_in};

/// Writes `${s}` and, if `fill` is there, first fills the disk on which the cache is.
fn filling(out: &str) -> Workspace {
    let fill = "if [ -e fill ]; then cat /dev/zero > cache/filler 2>/dev/null || true; fi";
    let w = Workspace::with(json!({"steps": {
        "a": {"run": format!("{fill}; cat s > {out}"), "inputs": {"s": "s"}, "outputs": {"o": "out/a"}},
        "b": {"run": "cat ${inputs.a} s > ${outputs.o}", "inputs": {"a": "${steps.a.o}", "s": "s"}, "outputs": {"o": "out/b"}},
    }}));
    fs::create_dir_all(w.path("cache")).unwrap();
    fs::create_dir_all(w.path("out")).unwrap();
    w
}

#[track_caller]
fn out_of_room(run: Run) -> Run {
    let text = &run.stderr;
    assert!(text.contains("No space left on device") || text.contains("database or disk is full"), "{text}");
    run.exits(4).says("make room")
}

fn noise(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(size as u64);
    (0..size).map(|_| random.u8(..)).collect()
}

#[test]
fn while_a_blob_is_stored() {
    for place in ["${outputs.o}", "out/a"] {
        let w = filling(place);
        let Some(disk) = Disks::new(&w, "mount -t tmpfs -o size=1500k none cache") else { return };
        w.write("s", "old");
        disk.run(&w).ok().ran(["a", "b"]);
        w.write("s", noise(2 << 20));
        // what else was being written while the disk was full, the record of the run say, may have failed as well
        out_of_room(disk.run(&w));
        assert_eq!((w.read("out/a"), w.read("out/b")), ("old".to_owned(), "oldold".to_owned()));
        let tmp = disk.path(&w, "cache/tmp");
        assert_eq!((names_in(&tmp), names_in(&w.path(".flow/tmp"))), (vec![], vec![]), "{place}");
        // less to store, or more room
        w.write("s", "new");
        disk.run(&w).ok().ran(["a", "b"]);
        disk.sh(&w, "mount -o remount,size=20m cache");
        w.write("s", noise(2 << 20));
        disk.run(&w).ok().ran(["a", "b"]);
        disk.flow(&w, &["cache", "verify"]).ok();
        disk.run(&w).ok().all_fresh();
    }
}

#[test]
fn while_the_index_commits() {
    for place in ["${outputs.o}", "out/a"] {
        let w = filling(place);
        let Some(disk) = Disks::new(&w, "mount -t tmpfs -o size=1m none cache") else { return };
        w.write("s", "old");
        disk.run(&w).ok().ran(["a", "b"]);
        // small enough for the index; the command leaves no byte free
        w.write("s", "new").write("fill", "");
        out_of_room(disk.run(&w)).says("failed    a").says("index.db");
        assert_eq!((w.read("out/a"), w.read("out/b")), ("old".to_owned(), "oldold".to_owned()), "{place}");
        // not even the databases can be opened now: said, and nothing else happens
        out_of_room(disk.run(&w));
        assert_eq!(w.read("out/a"), "old");
        w.remove("fill");
        disk.sh(&w, "rm cache/filler");
        disk.run(&w).ok().ran(["a", "b"]);
        assert_eq!((w.read("out/a"), w.read("out/b")), ("new".to_owned(), "newnew".to_owned()));
        disk.flow(&w, &["cache", "verify"]).ok();
        disk.run(&w).ok().all_fresh();
    }
}

#[test]
fn while_an_output_is_published() {
    let w = Workspace::with(json!({"steps": {
        "file": {"run": "cat s > ${outputs.o}", "inputs": {"s": "s"}, "outputs": {"o": "out/file"}},
        "tree": {"run": "cp s ${outputs.o}/x; echo 1 > ${outputs.o}/y", "inputs": {"s": "s"}, "outputs": {"o": "out/tree/"}},
    }}));
    fs::create_dir(w.path("out")).unwrap();
    let Some(disk) = Disks::new(&w, "mount -t tmpfs -o size=256k none out") else { return };
    let seen = || {
        let read = |path| fs::read(disk.path(&w, path)).unwrap();
        (read("out/file"), read("out/tree/x"), read("out/tree/y"))
    };
    let old = (b"old".to_vec(), b"old".to_vec(), b"1\n".to_vec());
    w.write("s", "old");
    disk.run(&w).ok().ran(["file", "tree"]);
    assert_eq!(seen(), old);
    let new = noise(300_000);
    w.write("s", &new);
    out_of_room(disk.flow(&w, &["run", "flow.json", "--json", "-v", "-k"])).failed(["file", "tree"]);
    assert_eq!(seen(), old, "the old outputs are still in place");
    assert_eq!(names_in(&disk.path(&w, "out")), ["file", "tree"]);
    // the work is done and stored: with room it is only brought into place
    disk.sh(&w, "mount -o remount,size=8m out");
    disk.run(&w).ok().ran([]).restored(["file", "tree"]);
    assert_eq!(seen(), (new.clone(), new, b"1\n".to_vec()));
    disk.run(&w).ok().all_fresh();
}

#[test]
fn while_the_run_record_is_written() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat noise; cat s > ${outputs.o}", "inputs": {"s": "s", "n": "noise"}, "outputs": {"o": "a"}},
    }}));
    let lines: String = noise(60_000)
        .iter()
        .map(|byte| format!("{byte:02x}{}", if byte % 8 == 0 { "\n" } else { "" }))
        .collect();
    w.write("s", "1").write("noise", lines);
    fs::create_dir_all(w.path("cache/runs")).unwrap();
    let Some(disk) = Disks::new(&w, "mount -t tmpfs -o size=16k none cache/runs") else { return };
    let run =
        out_of_room(disk.run(&w)).says("failed to write the run record").says("what the run did stands");
    // the summary is whole all the same
    assert_eq!(run.ran(["a"]).node("a")["outcome"], "ran");
    assert_eq!(w.read("a"), "1");
    // the record is like that of a killed run
    let listed = disk.flow(&w, &["log"]).ok().stdout;
    assert!(listed.contains("unfinished"), "{listed}");
    disk.sh(&w, "mount -o remount,size=8m cache/runs");
    disk.run(&w).ok().all_fresh();
    disk.flow(&w, &["cache", "verify"]).ok();
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_like_a_full_disk() {
    let w = filling("${outputs.o}");
    w.write("s", "old");
    w.run(&[]).ok();
    w.write("s", noise(3 << 20));
    // of the signal only the error is left
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" run flow.json --json -v";
    let plain = w.command(&[]);
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(plain.get_program())
        .current_dir(w.root())
        .output()
        .unwrap();
    let run = Run::of(output);
    assert!([Some(1), Some(4)].contains(&run.code), "{}", run.stderr);
    assert!(run.stderr.contains("File too large"), "{}", run.stderr);
    assert_eq!((w.read("out/a"), w.read("out/b")), ("old".to_owned(), "oldold".to_owned()));
    w.run(&[]).ok().ran(["a", "b"]);
    w.flow(&["cache", "verify"]).ok();
}

#[test]
fn a_read_only_cache_is_refused_before_anything_runs_and_nothing_changes() {
    let w = filling("${outputs.o}");
    w.write("s", "old");
    w.run(&[]).ok();
    w.flow(&["run", "flow.json"]).ok();
    let cache = w.tree("cache");
    let Some(disk) = Disks::new(&w, "mount --bind cache cache; mount -o remount,ro,bind cache") else {
        return;
    };
    for text in ["old", "new"] {
        w.write("s", text);
        for args in [
            &["run", "flow.json"][..],
            &["plan", "flow.json"],
            &["cache", "verify"],
            &["cache", "gc"],
            &["log"],
        ] {
            let run = disk.flow(&w, args).exits(4).says("Read-only file system");
            run.says("must be able to write there").says("--cache DIR");
        }
        assert_eq!((w.read("out/a"), w.read("out/b")), ("old".to_owned(), "oldold".to_owned()));
    }
    assert_eq!(w.tree("cache"), cache);
    // the way out that the hint names: a copy serves everything that the original has
    w.write("s", "old");
    disk.sh(&w, "cp -r cache copy; rm -r out");
    let copied = disk.flow(&w, &["run", "flow.json", "--json", "-v", "--cache", "copy"]).ok();
    copied.ran([]).restored(["a", "b"]);
    disk.sh(&w, "umount cache");
    disk.run(&w).ok().all_fresh();
}

#[test]
fn read_only_outputs_are_an_error_and_the_work_is_not_lost() {
    let w = filling("${outputs.o}");
    w.write("s", "old");
    w.run(&[]).ok();
    let Some(disk) = Disks::new(&w, "mount --bind out out; mount -o remount,ro,bind out") else { return };
    w.write("s", "new");
    disk.run(&w).exits(4).failed(["a"]).says("Read-only file system").says("out/a");
    assert_eq!((w.read("out/a"), w.read("out/b")), ("old".to_owned(), "oldold".to_owned()));
    disk.sh(&w, "umount out");
    disk.run(&w).ok().ran(["b"]).restored(["a"]);
    assert_eq!((w.read("out/a"), w.read("out/b")), ("new".to_owned(), "newnew".to_owned()));
}
