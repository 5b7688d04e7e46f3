//! kill -9 of flow at many moments: one run later everything is as if nothing had happened, and no process is left.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{LONG, Workspace, names_in, nothing_left, processes_of, signal, wait_for};

/// Longest time until nothing of a killed run is left.
const GONE: Duration = Duration::from_secs(2);

/// Edits that a chain of kills goes through.
const EDITS: usize = 7;

/// How a run is killed.
#[derive(Debug)]
enum Kill {
    /// At a point in the code, for the N-th time.
    At(&'static str),
    /// The same, if the run comes there so often: how much is done at once differs from run to run.
    If(&'static str),
    /// So long after its start.
    After(Duration),
}

/// Every way of making outputs, a service, and a grandchild that leaves its session.
fn edit_to(w: &Workspace, edit: usize) {
    // longer than what is kept in the index
    let long = format!("{edit} some line of text\n").repeat(2000);
    w.write("served/body.json", format!("[{edit}]")).write("long", long).write("edit", edit.to_string());
    w.workflow(json!({
        "services": {"files": {"uses": "sim.http", "with": {"dir": "served"}}},
        "steps": {
            "direct": {
                "run": "printf half > out/direct; echo half; setsid sleep 1000 >/dev/null 2>&1 & cat edit long > out/direct",
                "inputs": {"edit": "edit", "long": "long"},
                "outputs": {"o": "out/direct"}
            },
            "pair": {
                "run": "cat ${inputs.d} > ${outputs.a}; echo a; wc -c < ${inputs.d} > ${outputs.b}",
                "inputs": {"d": "${steps.direct.o}"},
                "outputs": {"a": "out/pair/a", "b": "out/pair/b"}
            },
            "tree": {
                "run": "mkdir -p ${outputs.t}/sub; cp ${inputs.a} ${outputs.t}/sub/x; echo t; cp ${inputs.b} ${outputs.t}/y",
                "inputs": {"a": "${steps.pair.a}", "b": "${steps.pair.b}"},
                "outputs": {"t": "out/tree/"}
            },
            "fetch": {
                "uses": "http.fetch",
                "with": {"url": "${services.files.url}/body.json"},
                "outputs": {"body": "out/body.json"}
            },
            "version": {
                "run": "cp ${inputs.body} ${outputs.v}/v-$(cat edit).json; echo v",
                "inputs": {"body": "${steps.fetch.body}", "edit": "edit"},
                "outputs": {"v": {"path": "out/versions/", "append": true}}
            },
            "many": {
                "run": "cat ${inputs.t}/y edit > out/many.${matrix.n}; echo ${matrix.n}",
                "matrix": {"n": [1, 2, 3]},
                "inputs": {"t": "${steps.tree.t}", "edit": "edit"},
                "outputs": {"o": "out/many.${matrix.n}"}
            }
        }
    }));
}

type Tree = BTreeMap<String, Vec<u8>>;

/// The output tree of a clean run after each edit, without the versions of earlier edits, and how long a run takes.
fn clean() -> &'static (Vec<Tree>, Duration) {
    static CLEAN: OnceLock<(Vec<Tree>, Duration)> = OnceLock::new();
    CLEAN.get_or_init(|| {
        let mut longest = Duration::ZERO;
        let trees = (0..EDITS)
            .map(|edit| {
                let w = Workspace::new();
                edit_to(&w, edit);
                let begun = Instant::now();
                w.run(&[]).ok();
                longest = longest.max(begun.elapsed());
                w.tree("out")
            })
            .collect();
        (trees, longest)
    })
}

/// What must be there after `edit` when all edits before were run.
fn expected(edit: usize) -> Tree {
    (0..edit).fold(clean().0[edit].clone(), |mut tree, earlier| {
        tree.insert(format!("versions/v-{earlier}.json"), format!("[{earlier}]").into_bytes());
        tree
    })
}

/// Starts a run and kills it; then nothing of it may be left.
fn killed(w: &Workspace, kill: &Kill) -> ExitStatus {
    let mut command = w.command(&["run", "flow.json", "-q"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if let Kill::At(point) | Kill::If(point) = kill {
        command.env("FLOW_FAILPOINT", point);
    }
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    if let Kill::After(moment) = kill {
        std::thread::sleep(moment.saturating_sub(begun.elapsed()));
        child.kill().unwrap();
    }
    let mut status = None;
    wait_for("flow to end", LONG, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    nothing_left(w, GONE);
    status.unwrap()
}

/// A chain of edits, each run killed once, then run once. Says how many runs were killed.
fn chain(kills: &[Kill]) -> usize {
    let w = Workspace::new();
    edit_to(&w, 0);
    w.run(&[]).ok();
    let mut count = 0;
    for (kill, edit) in kills.iter().zip(1..EDITS) {
        edit_to(&w, edit);
        let status = killed(&w, kill);
        let by_kill = status.signal() == Some(9);
        count += usize::from(by_kill);
        assert!(by_kill || !matches!(kill, Kill::At(_)), "{kill:?} was never reached: {status}");
        settled(&w, edit, &format!("{kill:?}"));
    }
    assert!(kills.len() < EDITS);
    count
}

/// One run, and everything is as after clean runs.
#[track_caller]
fn settled(w: &Workspace, edit: usize, what: &str) {
    let run = w.run(&[]).ok();
    let (tree, expected) = (w.tree("out"), expected(edit));
    let differing: Vec<&String> =
        tree.keys().chain(expected.keys()).filter(|path| tree.get(*path) != expected.get(*path)).collect();
    assert!(differing.is_empty(), "after {what}: {differing:?}\n{}\n{}", run.stdout, run.stderr);
    assert_eq!(names_in(&w.path("cache/tmp")), [""; 0], "after {what}");
    nothing_left(w, GONE);
}

fn at(points: &[&'static str]) {
    let kills: Vec<Kill> = points.iter().map(|point| Kill::At(point)).collect();
    assert_eq!(chain(&kills), points.len());
}

#[test]
fn while_a_command_runs() {
    at(&["running:1", "running:2", "running:3", "running:4", "running:5", "running:6"]);
}

#[test]
fn when_a_blob_is_written() {
    at(&["blob_written:1", "blob_written:2", "blob_written:3", "blob_written:4", "blob_written:3"]);
}

#[test]
fn before_a_blob_has_its_name() {
    // each edit makes one content that is too long for the index
    at(&["blob_unplaced:1", "blob_unplaced:1"]);
}

#[test]
fn before_a_transaction_of_either_database_is_committed() {
    let sure = ["uncommitted:1", "uncommitted:2", "uncommitted:3"].map(Kill::At);
    let later = ["uncommitted:5", "uncommitted:8", "uncommitted:11"].map(Kill::If);
    let kills: Vec<Kill> = sure.into_iter().chain(later).collect();
    assert!(chain(&kills) >= 3);
}

#[test]
fn when_a_line_of_the_run_record_is_written() {
    at(&["record_line:1", "record_line:2", "record_line:5", "record_line:12", "record_line:18"]);
}

#[test]
fn when_a_result_row_is_written() {
    at(&["result_row:1", "result_row:2", "result_row:3", "result_row:4", "result_row:5", "result_row:7"]);
}

#[test]
fn between_two_renames() {
    at(&[
        "between_renames:1",
        "between_renames:2",
        "between_renames:1",
        "set_aside:1",
        "set_aside:2",
        "set_aside:4",
    ]);
}

#[test]
fn before_a_workspace_row_is_committed() {
    at(&["workspace_row:1", "workspace_row:2", "workspace_row:3", "workspace_row:5", "workspace_row:8"]);
}

#[test]
fn while_a_service_starts() {
    at(&["service_start", "service_start"]);
}

#[test]
fn at_any_time() {
    // the clean run may have been held up by other tests: then these are faster, and have to be killed earlier
    let mut run = clean().1;
    let mut killed = 0;
    for _ in 0..4 {
        let moments: Vec<Kill> = (0..20).map(|n| Kill::After(run * n / 20)).collect();
        killed += moments.chunks(EDITS - 1).map(chain).sum::<usize>();
        if killed >= 10 {
            return;
        }
        run /= 2;
    }
    panic!("only {killed} of 80 runs were killed before they ended");
}

#[test]
fn a_kill_during_recovery_loses_nothing() {
    let w = Workspace::with(json!({"steps": {"a": {
        "run": "printf half > out; printf half > out2; echo up; if [ -e hold ]; then sleep 1000; fi; cat s > out; cat s > out2",
        "inputs": {"s": "s"},
        "outputs": {"o": "out", "p": "out2"}
    }}}));
    // nothing is in the cache that could bring the old files back
    w.write("s", "old");
    w.run(&["--no-cache"]).ok();
    w.write("s", "new").write("hold", "");
    for kills in [
        vec!["set_aside:1"],
        vec!["set_aside:2"],
        vec!["running"],
        vec!["running", "put_back:1"],
        vec!["running", "put_back:2"],
        vec!["running", "put_back:1", "put_back:1"],
    ] {
        for kill in &kills {
            assert_eq!(killed(&w, &Kill::At(kill)).signal(), Some(9), "{kills:?}");
        }
        w.flow(&["clean", "flow.json", "--orphans"]).ok();
        assert_eq!((w.read("out"), w.read("out2")), ("old".to_owned(), "old".to_owned()), "{kills:?}");
        assert_eq!(names_in(&w.path("cache/tmp")), [""; 0], "{kills:?}");
    }
}

#[test]
fn after_the_result_row_nothing_runs_twice() {
    for (point, runs) in [("running", 2), ("blob_written", 2), ("result_row", 1), ("workspace_row", 1)] {
        let w = Workspace::with(json!({"steps": {"a": {
            "run": "echo ran >> log; echo up; echo x > out/a; echo y > ${outputs.b}", "outputs": {"a": "out/a", "b": "out/b"}
        }}}));
        assert_eq!(killed(&w, &Kill::At(point)).signal(), Some(9), "{point}");
        w.run(&[]).ok();
        assert_eq!(w.read("log").lines().count(), runs, "{point}");
        assert_eq!((w.read("out/a"), w.read("out/b")), ("x\n".to_owned(), "y\n".to_owned()), "{point}");
        w.run(&[]).ok().all_fresh();
    }
}

#[test]
fn without_the_guard_the_next_run_ends_what_is_left() {
    let w = Workspace::with(json!({"steps": {"a": {
        "run": "if [ -e hold ]; then setsid sleep 1000 & touch started; sleep 1000; fi; echo x > ${outputs.o}", "outputs": {"o": "o"}
    }}}));
    w.write("hold", "");
    let mut child = w.command(&["run", "flow.json", "-q"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the node to start", LONG, || w.has("started"));
    for (pid, _) in processes_of(&w).iter().filter(|(_, line)| line.contains("__guard")) {
        signal(*pid, "KILL");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(processes_of(&w).len() >= 2, "{:?}", processes_of(&w));
    w.remove("hold");
    w.run(&[]).ok().ran(["a"]).says("processes that run");
    nothing_left(&w, GONE);
}

#[test]
fn with_the_cache_and_the_outputs_on_other_file_systems() {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    let shared = Path::new("/dev/shm");
    let w = Workspace::with(json!({"steps": {"a": {
        "run": "printf half > out/a; mkdir out/t; cp s out/t/x; echo up; cat s > out/a; cat s > ${outputs.b}", "inputs": {"s": "s"},
        "outputs": {"a": "out/a", "b": "out/b", "t": "out/t/"}
    }}}));
    if device(shared).is_none() || device(shared) == device(w.root()) {
        return;
    }
    let other = tempfile::tempdir_in(shared).unwrap();
    let cache = other.path().join("cache").display().to_string();
    std::fs::create_dir(other.path().join("out")).unwrap();
    let check = |text: &str| {
        assert_eq!(
            (w.read("out/a"), w.read("out/b"), w.read("out/t/x")),
            (text.into(), text.into(), text.into())
        );
        assert_eq!(names_in(&w.path(".flow/tmp")), [""; 0]);
        assert_eq!(names_in(&w.path("out")), ["a", "b", "t"]);
    };
    for (outputs, cache) in [("here", cache.as_str()), ("there", cache.as_str()), ("there", "cache")] {
        let out = w.path("out");
        let _ = std::fs::remove_file(&out).or_else(|_| std::fs::remove_dir_all(&out));
        if outputs == "there" {
            std::os::unix::fs::symlink(other.path().join("out"), &out).unwrap();
        }
        w.write("s", "old");
        w.run(&["--cache", cache]).ok();
        check("old");
        for point in
            ["running", "set_aside:1", "set_aside:2", "between_renames:1", "between_renames:2", "result_row"]
        {
            let text = format!("{outputs} {cache} {point}");
            w.write("s", &text);
            let mut command = w.command(&["run", "flow.json", "-q", "--cache", cache]);
            let status = command.env("FLOW_FAILPOINT", point).stderr(Stdio::null()).status().unwrap();
            assert_eq!(status.signal(), Some(9), "{outputs} {point}");
            w.run(&["--cache", cache]).ok();
            check(&text);
        }
    }
}
