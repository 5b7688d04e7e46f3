//! `flow run --trace FILE` and `flow log trace`: Chrome trace events of a run.

use serde_json::{Value, json};

use crate::support::{LONG, Workspace, nothing_left, signal, wait_for};

fn slices(trace: &Value, category: &str) -> Vec<Value> {
    let all = trace.as_array().expect("an array");
    all.iter().filter(|event| event["ph"] == "X" && event["cat"] == category).cloned().collect()
}

fn named<'t>(slices: &'t [Value], name: &str) -> &'t Value {
    slices.iter().find(|slice| slice["name"] == name).unwrap_or_else(|| panic!("no {name} in {slices:?}"))
}

fn end(slice: &Value) -> u64 {
    slice["ts"].as_u64().unwrap() + slice["dur"].as_u64().unwrap()
}

#[test]
fn a_run_is_a_trace_with_slots_phases_counters_and_arrows() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "sleep 0.1; echo hello > ${outputs.o}", "outputs": {"o": "a"}},
        "b": {"run": "sleep 0.1; echo b > ${outputs.o}", "outputs": {"o": "b"}},
        "c": {"run": "cat ${inputs.i} > ${outputs.o}", "inputs": {"i": ["a", "b"]}, "outputs": {"o": "c"}},
    }}));
    w.run(&["-j", "2", "--trace", "out/t.json"]).ok();
    let trace = w.json("out/t.json");
    let nodes = slices(&trace, "node");
    assert_eq!(nodes.len(), 3);
    let a = named(&nodes, "a");
    assert_eq!((&a["args"]["outcome"], &a["args"]["reason"]), (&json!("ran"), &json!("never ran here")));
    assert_eq!((&a["args"]["attempts"], &a["args"]["bytes"]), (&json!(1), &json!(6)));
    assert!(a["args"]["key"].as_str().unwrap().starts_with("b3:"));
    assert!(a["dur"].as_u64().unwrap() >= 100_000, "microseconds: {a}");
    // two at once are on two tracks, each with a name
    assert_ne!(a["tid"], named(&nodes, "b")["tid"]);
    let tracks: Vec<&Value> =
        trace.as_array().unwrap().iter().filter(|e| e["name"] == "thread_name").collect();
    let names: Vec<&str> = tracks.iter().map(|event| event["args"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["run", "slot 0", "slot 1"]);
    assert!(named(&nodes, "c")["ts"].as_u64().unwrap() >= end(a));
    // phases: of the run, one after the other, and of a node inside it
    let phases = slices(&trace, "phase");
    let order = ["load", "expand", "look", "run"].map(|name| named(&phases, name)["ts"].as_u64().unwrap());
    assert!(order.is_sorted() && order[0] == 0, "{order:?}");
    assert!(end(named(&phases, "run")) >= end(named(&nodes, "c")));
    let within = |phase: &Value| {
        nodes.iter().any(|node| {
            node["tid"] == phase["tid"]
                && node["ts"].as_u64() <= phase["ts"].as_u64()
                && end(phase) <= end(node)
        })
    };
    let inner: Vec<&Value> = phases.iter().filter(|phase| phase["tid"] != 0).collect();
    assert!(inner.iter().any(|p| p["name"] == "execute") && inner.iter().any(|p| p["name"] == "commit"));
    assert!(inner.into_iter().all(within), "{trace}");
    let counts: Vec<u64> = trace
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["ph"] == "C")
        .map(|event| event["args"]["running"].as_u64().unwrap())
        .collect();
    assert_eq!((counts.iter().max(), counts.last()), (Some(&2), Some(&0)));
    let arrows = trace.as_array().unwrap().iter().filter(|event| event["cat"] == "critical path");
    assert_eq!(arrows.map(|event| event["ph"].as_str().unwrap()).collect::<Vec<_>>(), ["s", "f"]);

    // the record gives the same file again
    w.flow(&["log", "trace", "-o", "again.json"]).ok();
    assert_eq!(w.read("again.json"), w.read("out/t.json"));

    // what is restored is on a slot, what is fresh is not there
    w.remove("c");
    w.run(&["--trace", "out/t.json"]).ok().restored(["c"]);
    let trace = w.json("out/t.json");
    assert_eq!(slices(&trace, "node").len(), 0);
    assert_eq!(slices(&trace, "restore")[0]["name"], "c");
}

#[test]
fn a_failed_run_has_its_trace_with_every_attempt() {
    let w = Workspace::with(json!({"steps": {
        "bad": {"run": "exit 3", "outputs": {"o": "o"}, "retry": {"max": 1, "backoff": "1ms"}},
    }}));
    w.run(&["--trace", "t.json"]).exits(1);
    let nodes = slices(&w.json("t.json"), "node");
    let outcomes: Vec<&str> = nodes.iter().map(|node| node["args"]["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["retried", "failed"]);
    assert!(nodes[1]["args"]["error"].as_str().unwrap().contains('3'), "{nodes:?}");
}

#[test]
fn an_interrupted_run_has_its_trace_and_a_killed_one_lacks_only_the_bracket() {
    for how in ["INT", "KILL"] {
        let w = Workspace::with(json!({"steps": {
            "a": {"run": "echo 1 > a", "outputs": {"a": "a"}},
            "b": {"run": "touch up; sleep 600; cat a > b", "inputs": {"a": "a"}, "outputs": {"b": "b"}},
        }}));
        let mut run = w.command(&["run", "flow.json", "-q", "--trace", "t.json"]).spawn().unwrap();
        wait_for("b in the record", LONG, || {
            let shown = w.flow(&["log", "show", "--json"]);
            shown.code == Some(0) && shown.json()["running"] == json!(["b"]) && w.has("up")
        });
        wait_for("a in the file", LONG, || w.read("t.json").contains("\"name\":\"a\""));
        signal(run.id(), how);
        run.wait().unwrap();
        nothing_left(&w, LONG);
        let text = w.read("t.json");
        if how == "INT" {
            let nodes = slices(&serde_json::from_str(&text).unwrap(), "node");
            assert_eq!(named(&nodes, "b")["args"]["outcome"], "cancelled");
        } else {
            let trace: Value = serde_json::from_str(&format!("{text}]")).unwrap();
            named(&slices(&trace, "node"), "a");
            // the record knows also what was at work
            w.flow(&["log", "trace", "-o", "whole.json"]).ok();
            assert_eq!(
                named(&slices(&w.json("whole.json"), "node"), "b")["args"]["outcome"],
                "never finished"
            );
        }
    }
}
