//! `--frozen`: nothing runs; hits are restored, validating stages asked, and every node that would run is named.

use serde_json::json;

use crate::support::Workspace;

fn chain() -> Workspace {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat s > ${outputs.o}; echo a >> log", "inputs": {"s": "s"}, "outputs": {"o": "a"}},
        "b": {"run": "cat a > ${outputs.o}; echo b >> log", "inputs": {"a": "a"}, "outputs": {"o": "b"}, "allow_failure": true},
        "c": {"run": "cat b > ${outputs.o}; echo c >> log", "inputs": {"b": "b"}, "outputs": {"o": "c"}},
        "other": {"run": "cat t > ${outputs.o}; echo other >> log", "inputs": {"t": "t"}, "outputs": {"o": "other"}},
    }}));
    w.write("s", "1").write("t", "1");
    w
}

#[test]
fn what_is_up_to_date_passes_and_hits_are_brought() {
    let w = chain();
    w.run(&["-j", "1"]).ok();
    let log = w.read("log");
    w.run(&["--frozen"]).ok().all_fresh();
    w.remove("c").write("b", "damaged");
    w.run(&["--frozen"]).ok().restored(["b", "c"]);
    assert_eq!((w.read("b"), w.read("log")), ("1".to_owned(), log));
    // known at a glance, too
    assert_eq!(w.flow(&["run", "flow.json", "-q", "--frozen"]).ok().stderr, "");
}

#[test]
fn every_node_that_would_run_is_named_with_its_reason_and_nothing_runs() {
    let w = chain();
    let run = w.run(&["--frozen"]).exits(1).failed(["a", "other"]).skipped(["b", "c"]);
    assert_eq!(run.node("a")["error"], "would run: never ran here");
    let run =
        run.says("--frozen: 2 nodes are not up to date, and 2 more need what they make; nothing was run");
    drop(run);
    assert!(!w.has("a") && !w.has("log"));

    w.run(&["-j", "1"]).ok();
    let before = (w.tree("."), w.read("log")).1;
    w.write("t", "2").write("b", "damaged");
    let mut workflow = w.json("flow.json");
    workflow["steps"]["b"]["env"] = json!({"X": "1"});
    w.workflow(workflow);
    // also one whose failure would be allowed, and the others are looked at all the same
    let run = w.run(&["--frozen"]).exits(1).failed(["b", "other"]).skipped(["c"]);
    assert_eq!(run.node("other")["error"], "would run: input t changed (t)");
    assert_eq!(run.node("b")["error"], "would run: environment variable X added");
    assert_eq!(w.read("log"), before);
    w.run(&["--frozen", "a"]).ok();
    w.run(&["--frozen", "+other"]).exits(1);
    for other in ["--force", "--no-cache", "--adopt=a", "--remeasure=a", "-n"] {
        w.flow(&["run", "flow.json", "--frozen", other]).exits(2);
    }
}

#[test]
fn lost_bytes_would_have_to_be_made_again() {
    let w = chain();
    // too large for the index
    w.write("s", "x".repeat(100_000));
    w.run(&["-j", "1"]).ok();
    w.remove("c").remove("cache/objects");
    let run = w.run(&["--frozen"]).exits(1).failed(["c"]);
    assert_eq!(run.node("c")["error"], "would run: cached bytes of c are missing or damaged");
}

#[test]
fn validating_stages_are_asked_and_what_runs_every_time_is_passed_over() {
    let w = Workspace::with(json!({
        "services": {"web": {"uses": "sim.http", "with": {"dir": "www"}}},
        "steps": {
            "fetch": {"uses": "http.fetch", "with": {"url": "${services.web.url}/x"}, "outputs": {"body": "body"}},
            "always": {"run": "echo x >> always.log; echo 1 > ${outputs.o}", "outputs": {"o": "always"}, "cache": "never"},
            "takes": {"run": "cat always > ${outputs.o}", "inputs": {"i": "always"}, "outputs": {"o": "takes"}},
            "after": {"run": "echo 1 > ${outputs.o}", "needs": ["always"], "outputs": {"o": "after"}},
        }
    }));
    w.write("www/x", "1");
    // never ran: what takes its output cannot be known, what only comes after it can
    let run = w.run(&["--frozen"]).exits(1).failed(["fetch", "takes", "after"]).skipped(["always"]);
    assert_eq!(run.node("takes")["error"], "would run: always runs every time and has no result here");

    w.run(&[]).ok();
    let run = w.run(&["--frozen"]).ok().outcome_is("fresh", ["fetch", "always", "takes", "after"]);
    assert_eq!(run.node("fetch")["checked"], true);
    assert_eq!(w.read("always.log"), "x\n");

    w.write("www/x", "other");
    let run = w.run(&["--frozen"]).exits(1).failed(["fetch"]);
    assert_eq!(run.node("fetch")["error"], "would run: it changed at its source");
    assert_eq!(w.read("body"), "1");
    w.run(&["--frozen", "--offline"]).ok();
    // the answer that was thrown away left nothing behind
    w.run(&[]).ok().ran(["fetch", "always"]);
    assert_eq!(w.read("body"), "other");
}
