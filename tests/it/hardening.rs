//! What a hostile or merely unlucky workspace does: links, lost blobs, foreign files, other file systems, loops.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::Workspace;

/// Removes every blob, the small ones in the index too; results stay.
fn lose_bytes(w: &Workspace) {
    fs::remove_dir_all(w.path("cache/objects")).unwrap();
    fs::create_dir(w.path("cache/objects")).unwrap();
    let db = rusqlite::Connection::open(w.path("cache/index.db")).unwrap();
    db.execute("DELETE FROM small", []).unwrap();
}

#[test]
fn a_link_given_as_output_is_published_as_what_it_leads_to() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo real > ${outputs.a}.real; ln -s a.txt.real ${outputs.a}", "outputs": {"a": "a.txt"}},
        "b": {"run": "mkdir t; echo 1 > t/x; ln -s t b", "outputs": {"b": "b/"}},
        "c": {"run": "cat ${steps.a.a} > ${outputs.c}", "outputs": {"c": "c"}},
    }}));
    let run = w.run(&[]).ok();
    assert_eq!(run.node("a")["attempts"], 1);
    assert_eq!(run.node("c")["attempts"], 1);
    for made in ["a.txt", "b"] {
        assert!(!fs::symlink_metadata(w.path(made)).unwrap().is_symlink(), "{made}");
    }
    assert_eq!((w.read("a.txt"), w.read("b/x")), ("real\n".to_owned(), "1\n".to_owned()));
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_pattern_does_not_follow_links_that_lead_back() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo ${inputs.f} > a", "inputs": {"f": "data/**/*.txt"}, "outputs": {"a": "a"}},
        "b": {"run": "echo ${inputs.f} > b", "inputs": {"f": "data/*/*.txt"}, "outputs": {"b": "b"}},
    }}));
    w.write("data/x/f.txt", "1");
    for name in ["l1", "l2", "l3"] {
        symlink("..", w.path(&format!("data/x/{name}"))).unwrap();
    }
    symlink("x", w.path("data/linked")).unwrap();
    w.run(&[]).ok();
    assert_eq!(w.read("a"), "data/x/f.txt\n");
    assert_eq!(w.read("b"), "data/linked/f.txt data/x/f.txt\n");
}

#[test]
fn a_directory_of_sources_is_taken_without_the_cache_git_orphans_and_own_outputs() {
    let step = |out: &str| {
        json!({"steps": {
            "p": {"run": format!("echo p > {out}"), "outputs": {"p": out}},
            "a": {"run": "ls ${inputs.d}/in > log", "inputs": {"d": "."}, "outputs": {"a": "log"}},
        }})
    };
    let w = Workspace::with(step("in/p"));
    w.write("in/s", "1").write(".git/index", "1");
    w.run(&[]).ok().ran(["p", "a"]);
    assert_eq!(w.read("log"), "p\ns\n");
    w.write(".git/index", "2");
    w.run(&[]).ok().all_fresh();
    w.write("in/s", "2");
    w.run(&[]).ok().ran(["a"]);
    // an orphan is no input: what `a` takes of it does not change when it does
    let w = Workspace::with(step("in/p"));
    w.write("wf.json", r#"{"name": "x", "steps": {}}"#).write("in/s", "1");
    w.run(&[]).ok();
    w.workflow(step("in/q"));
    w.run(&[]).ok();
    w.write("in/p", "other");
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_link_in_a_directory_of_sources_stands_for_what_it_leads_to() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat data/s data/d/t > a", "inputs": {"d": "data/"}, "outputs": {"a": "a"}},
    }}));
    w.write("s", "1").write("other/t", "1").write("data/plain", "x");
    symlink("../s", w.path("data/s")).unwrap();
    symlink("../other", w.path("data/d")).unwrap();
    symlink("..", w.path("other/back")).unwrap();
    symlink("nowhere", w.path("data/dangling")).unwrap();
    fs::remove_file(w.path("other/back")).unwrap();
    symlink("../other", w.path("other/back")).unwrap();
    w.run(&[]).ok().ran(["a"]);
    w.run(&[]).ok().all_fresh();
    w.write("s", "2");
    w.run(&[]).ok().ran(["a"]);
    w.write("other/t", "2");
    w.run(&[]).ok().ran(["a"]);
    assert_eq!(w.read("a"), "22");
}

#[test]
fn a_file_never_replaces_a_directory_of_other_peoples_files() {
    for run in ["echo 1 > ${outputs.a}", "echo 1 > out"] {
        let w = Workspace::with(json!({"steps": {"a": {"run": run, "outputs": {"a": "out"}}}}));
        w.write("out/user.txt", "precious");
        w.run(&[]).exits(1).failed(["a"]).says("out/user.txt");
        assert_eq!(w.read("out/user.txt"), "precious");
        // what flow published itself is replaced
        let w =
            Workspace::with(json!({"steps": {"a": {"run": "echo 1 > out/x", "outputs": {"a": "out/x"}}}}));
        w.run(&[]).ok();
        w.workflow(json!({"steps": {"a": {"run": run, "outputs": {"a": "out"}}}}));
        w.run(&[]).ok();
        assert_eq!(w.read("out"), "1\n");
    }
}

#[test]
fn an_output_below_a_file_says_what_to_do() {
    for run in ["echo 1 > ${outputs.a}", "echo 1 > out/x"] {
        let w = Workspace::with(json!({"steps": {"a": {"run": "echo 1 > out", "outputs": {"a": "out"}}}}));
        w.run(&[]).ok();
        w.workflow(json!({"steps": {"a": {"run": run, "outputs": {"a": "out/x"}}}}));
        w.run(&[]).exits(1).failed(["a"]).says("out is a file").says("--orphans");
        w.flow(&["clean", "flow.json", "--orphans"]).ok();
        w.run(&[]).ok();
        assert_eq!(w.read("out/x"), "1\n");
    }
}

#[test]
fn an_entry_of_an_append_directory_may_come_from_any_of_its_makers() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo a > ${outputs.v}/a", "outputs": {"v": {"path": "v/", "append": true}}},
        "b": {"run": "echo b > ${outputs.v}/b", "outputs": {"v": {"path": "v/", "append": true}}},
        "t": {"run": "cat ${inputs.e} > t", "inputs": {"e": "v/b"}, "outputs": {"t": "t"}},
        "l": {"run": "ls ${inputs.all} > l; ls ${inputs.one} >> l", "inputs": {"all": "*/", "one": "v/"}, "outputs": {"l": "l"}},
    }}));
    w.run(&[]).ok();
    assert_eq!(w.read("t"), "b\n");
    assert_eq!(w.read("l"), "a\nb\na\nb\n");
    w.remove("v/b");
    w.run(&[]).ok().restored(["b"]);
}

#[test]
fn outputs_may_lie_on_another_file_system() {
    let Ok(other) = tempfile::Builder::new().prefix("flow-it-").tempdir_in("/dev/shm") else { return };
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat s > out/a; test ! -e stop", "inputs": {"s": "s"}, "outputs": {"a": "out/a"}},
        "b": {"run": "cat s > ${outputs.b}", "inputs": {"s": "s"}, "outputs": {"b": "out/b"}},
        "c": {"run": "mkdir out/c; cat s > out/c/x", "inputs": {"s": "s"}, "outputs": {"c": "out/c/"}},
        "d": {"run": "cat s > ${outputs.d}/x", "inputs": {"s": "s"}, "outputs": {"d": "out/d/"}},
    }}));
    symlink(other.path(), w.path("out")).unwrap();
    for text in ["1", "2"] {
        w.write("s", text);
        w.run(&[]).ok().ran(["a", "b", "c", "d"]);
        for made in ["out/a", "out/b", "out/c/x", "out/d/x"] {
            assert_eq!(w.read(made), text);
        }
        w.run(&[]).ok().all_fresh();
    }
    w.write("s", "3").write("stop", "");
    w.run(&["-k"]).exits(1).failed(["a"]);
    assert_eq!(w.read("out/a"), "2");
    let names: Vec<_> = fs::read_dir(other.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn a_cached_producer_whose_bytes_are_lost_runs_again_and_nothing_else_starts_early() {
    let w = Workspace::with(json!({"steps": {
        "p": {"run": "echo p > p", "outputs": {"p": "p"}},
        "slow": {"run": "cat s; sleep 0.3; echo slow > slow", "inputs": {"s": "s"}, "outputs": {"o": "slow"}},
        "one": {"run": "cat ${steps.p.p} s > one", "inputs": {"s": "s"}, "outputs": {"o": "one"}},
        "two": {"run": "cat ${steps.p.p} s s > two", "inputs": {"s": "s"}, "outputs": {"o": "two"}},
        "both": {"run": "cat ${steps.p.p} ${steps.slow.o} > both; cat s", "inputs": {"s": "s"}, "outputs": {"o": "both"}},
    }}));
    w.write("s", "1\n");
    w.run(&[]).ok();
    w.remove("p").write("s", "2\n");
    lose_bytes(&w);
    let targets = ["one", "two", "both", "--restore", "targets"];
    w.run(&targets).ok().ran(["p", "one", "two", "both", "slow"]);
    assert_eq!(w.read("both"), "p\nslow\n");
    assert_eq!((w.read("one"), w.read("two")), ("p\n2\n".to_owned(), "p\n2\n2\n".to_owned()));
}

#[test]
fn a_producer_that_makes_other_bytes_when_its_own_are_lost_takes_its_dependents_along() {
    let w = Workspace::with(json!({"steps": {
        "p": {"run": "cat hidden > p", "outputs": {"p": "p"}},
        "cached": {"run": "cat ${steps.p.p} > cached", "outputs": {"o": "cached"}},
        "after": {"run": "cat ${steps.cached.o} > after", "outputs": {"o": "after"}},
        "taker": {"run": "cat ${steps.p.p} s > taker", "inputs": {"s": "s"}, "outputs": {"o": "taker"}},
    }}));
    w.write("s", "1").write("hidden", "old ");
    w.run(&[]).ok();
    w.remove("p").write("s", "2").write("hidden", "new ");
    lose_bytes(&w);
    w.run(&[]).ok().ran(["p", "cached", "after", "taker"]);
    for (made, text) in [("cached", "new "), ("after", "new "), ("taker", "new 2")] {
        assert_eq!(w.read(made), text, "{made}");
    }
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_lost_tree_object_makes_its_node_run_again_only_if_its_place_does_not_tell() {
    let w = Workspace::with(json!({"steps": {
        "p": {"run": "echo 1 > ${outputs.d}/x; echo 2 > ${outputs.d}/y", "outputs": {"d": "d/"}},
        "log": {"run": "echo v > ${outputs.v}/v1", "outputs": {"v": {"path": "versions/", "append": true}}},
        "in": {"run": "cat d/x > in", "inputs": {"x": "d/x"}, "outputs": {"o": "in"}},
    }}));
    w.run(&[]).ok();
    w.remove("versions/v1");
    lose_bytes(&w);
    w.run(&[]).ok().ran(["log"]);
    // what is no longer whole does not tell what it held, and entries never tell whose they are
    w.remove("d/y");
    lose_bytes(&w);
    w.run(&[]).ok().ran(["p", "log"]);
    assert_eq!(w.read("d/y"), "2\n");
    assert_eq!((w.read("in"), w.read("versions/v1")), ("1\n".to_owned(), "v\n".to_owned()));
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_measurement_whose_bytes_are_lost_fails_and_what_does_not_need_it_goes_on() {
    let w = Workspace::with(json!({"steps": {
        "m": {"run": "date +%N > m", "cache": "sample", "outputs": {"m": "m"}},
        "x": {"run": "cat ${steps.m.m} s > x", "inputs": {"s": "s"}, "outputs": {"o": "x"}},
        "y": {"run": "cat s > y", "inputs": {"s": "s"}, "outputs": {"o": "y"}},
    }}));
    w.write("s", "1");
    w.run(&[]).ok();
    w.remove("m").write("s", "2");
    lose_bytes(&w);
    w.run(&["-k"]).exits(1).failed(["m"]).skipped(["x"]).ran(["y"]).says("--remeasure");
}

#[test]
fn a_directory_is_read_after_what_nodes_make_in_it_came_back() {
    let w = Workspace::with(json!({"steps": {
        "p": {"run": "echo p > d/p", "outputs": {"p": "d/p"}},
        "t": {"run": "cat d/* > t; echo ran >> calls", "inputs": {"d": "d/"}, "outputs": {"t": "t"}},
    }}));
    w.write("d/s", "s\n");
    w.run(&[]).ok();
    w.remove("d/p");
    w.run(&["t"]).ok().outcome_is("fresh", ["t"]);
    assert_eq!((w.read("t"), w.read("calls")), ("p\ns\n".to_owned(), "ran\n".to_owned()));
}

#[test]
fn absent_outputs_in_a_list_do_not_shift_what_is_looked_at() {
    let w = Workspace::with(json!({"steps": {
        "p": {"run": "true", "outputs": {"d": {"path": "d/", "optional": true}}},
        "q": {"run": "echo q > q", "outputs": {"q": "q"}},
        "t": {"run": "cat ${inputs.all} > t", "inputs": {"all": ["d/x", "q"]}, "outputs": {"t": "t"}},
    }}));
    w.run(&[]).ok();
    assert_eq!(w.read("t"), "q\n");
}

#[test]
fn nodes_with_one_key_run_once_and_a_failed_one_does_not_take_the_other_along() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo x >> ../calls; echo 1 > ${outputs.o}", "cwd": "w", "outputs": {"o": "a"}},
        "b": {"run": "echo x >> ../calls; echo 1 > ${outputs.o}", "cwd": "w", "outputs": {"o": "b"}},
    }}));
    w.write("w/keep", "");
    w.run(&[]).ok();
    assert_eq!((w.read("a"), w.read("b"), w.read("calls")), ("1\n".into(), "1\n".into(), "x\n".into()));
}

#[test]
fn going_back_to_an_earlier_state_restores() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat s > a", "inputs": {"s": "s"}, "outputs": {"a": "a"}},
        "b": {"run": "cat ${steps.a.a} > b", "outputs": {"b": "b"}},
    }}));
    w.write("s", "A");
    w.run(&[]).ok().ran(["a", "b"]);
    w.write("s", "B");
    w.run(&[]).ok().ran(["a", "b"]);
    w.write("s", "A");
    w.run(&[]).ok().ran([]).restored(["a", "b"]);
    assert_eq!(w.read("b"), "A");
}

#[test]
fn damaged_blobs_are_never_used() {
    let w = Workspace::with(json!({"steps": {
        "big": {"run": "seq 1 20000 | tr '1234567890' 'qzwxecrvtb' > big", "outputs": {"o": "big"}},
        "end": {"run": "wc -l < ${steps.big.o} > end", "outputs": {"o": "end"}},
    }}));
    w.run(&[]).ok();
    let good = w.read("big");
    w.remove("big");
    for file in w.tree("cache/objects").keys() {
        let path = w.path(&format!("cache/objects/{file}"));
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }
    w.run(&[]).ok().ran(["big"]).says("missing or damaged");
    assert_eq!(w.read("big"), good);
    w.remove("big");
    w.run(&[]).ok().restored(["big"]);
}

#[test]
fn an_edit_while_a_node_runs_never_becomes_its_result() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat s > a; test -e once || { touch once; printf 2 > s; }", "inputs": {"s": "s"}, "outputs": {"a": "a"}},
    }}));
    w.write("s", "1");
    w.run(&[]).ok();
    assert_eq!((w.read("a"), w.read("s")), ("2".to_owned(), "2".to_owned()));
    w.write("s", "1");
    w.run(&[]).ok().ran(["a"]);
    assert_eq!(w.read("a"), "1");
}

#[test]
fn closed_streams_and_a_bare_environment_do_no_harm() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": ["/bin/sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo 1 > a"], "outputs": {"a": "a"}},
    }}));
    let shell = format!("exec {} run flow.json -v <&- | true", crate::support::flow_binary().display());
    let status = std::process::Command::new("/bin/sh")
        .args([
            "-c",
            &format!("{shell}; {} run flow.json --force >&- 2>&-", crate::support::flow_binary().display()),
        ])
        .current_dir(w.root())
        .env_clear()
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(w.read("a"), "1\n");
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "(setsid sleep 300 & echo $! > pid) >/dev/null 2>&1; echo 1 > a", "outputs": {"a": "a"}},
    }}));
    let begun = Instant::now();
    w.run(&[]).ok();
    let pid = w.read("pid");
    let proc = std::path::PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    let gone = || fs::read_to_string(&proc).map_or(true, |stat| stat.contains(") Z "));
    while !gone() {
        assert!(begun.elapsed() < Duration::from_secs(8), "process {pid} is left");
        std::thread::yield_now();
    }
}

#[test]
fn a_consumer_of_an_append_directory_sees_only_present_entries() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo x > ${outputs.v}/v$(cat s)", "inputs": {"s": "s"}, "outputs": {"v": {"path": "v/", "append": true}}},
        "l": {"run": "ls ${steps.a.v} > l", "outputs": {"l": "l"}},
    }}));
    for n in ["1", "2"] {
        w.write("s", n);
        w.run(&[]).ok().ran(["a", "l"]);
        assert_eq!(w.read("l"), format!("v{n}\n"));
    }
    assert!(w.has("v/v1") && w.has("v/v2"));
}

#[test]
fn an_input_that_a_command_moves_away_is_not_lost() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "mv s a", "inputs": {"s": "s"}, "outputs": {"a": "a"}},
    }}));
    w.write("s", "precious");
    w.run(&[]).exits(1).failed(["a"]).says("keeps changing");
    assert_eq!(w.read("s"), "precious");
}
