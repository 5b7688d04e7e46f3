//! `flow log critical-path`: which nodes decided how long a run took, from its record.

use serde_json::{Value, json};

use crate::support::{LONG, Workspace, nothing_left, signal, wait_for};

/// The chain of the last run: id, what it waited for, and for which node.
fn chain(w: &Workspace) -> Vec<(String, String, String)> {
    let json = w.flow(&["log", "critical-path", "--json"]).ok().json();
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let nodes = json["nodes"].as_array().unwrap();
    nodes.iter().map(|node| (text(&node["id"]), text(&node["for"]), text(&node["node"]))).collect()
}

fn link(id: &str, what: &str, node: &str) -> (String, String, String) {
    (id.to_owned(), what.to_owned(), node.to_owned())
}

/// A command that takes a while and writes its output.
fn slow(seconds: &str, input: &str) -> Value {
    json!({"run": format!("sleep {seconds}; cat ${{inputs.i}} > ${{outputs.o}}"), "inputs": {"i": input}})
}

fn step(mut step: Value, path: &str) -> Value {
    step["outputs"] = json!({"o": path});
    step
}

#[test]
fn the_chain_goes_through_the_slowest_branch_and_over_what_was_fresh() {
    let w = Workspace::with(json!({"steps": {
        "a": step(slow("0.1", "s"), "a"),
        "long": step(slow("0.4", "a"), "long"),
        "short": step(slow("0", "a"), "short"),
        "end": {"run": "cat ${inputs.i} > ${outputs.o}", "inputs": {"i": ["long", "short"]}, "outputs": {"o": "end"}},
    }}));
    w.write("s", "1");
    w.run(&["-j", "4"]).ok();
    let expected =
        [link("a", "start", ""), link("long", "dependency", "a"), link("end", "dependency", "long")];
    assert_eq!(chain(&w), expected);

    let json = w.flow(&["log", "critical-path", "last", "--json"]).ok().json();
    let long = &json["nodes"][1];
    let number = |name: &str| long[name].as_f64().unwrap();
    assert!(number("seconds") >= 0.4 && number("start") >= 0.1, "{long}");
    assert!(number("share") > 0.3 && number("share") <= 1.0, "{long}");
    // without it the short branch would decide
    assert!(number("saves") > 0.2 && number("saves") <= number("seconds"), "{long}");
    let text = w.flow(&["log", "critical-path"]).ok().stdout;
    assert!(text.contains("SAVES") && text.contains("3 nodes in a row took"), "{text}");

    // nothing to do: nothing decided
    w.run(&[]).ok().all_fresh();
    assert_eq!(chain(&w), []);
    assert!(w.flow(&["log", "critical-path"]).ok().stdout.contains("no node had anything to do"));

    // what is fresh and what is restored has its place: `a` runs and makes the same bytes
    w.workflow(json!({"steps": {
        "a": step(json!({"run": "sleep 0.1; cat ${inputs.i} > ${outputs.o}; true", "inputs": {"i": "s"}}), "a"),
        "mid": step(slow("0", "long"), "mid"),
        "long": step(slow("0.4", "a"), "long"),
    }}));
    w.run(&["-j", "4"]).ok().ran(["a", "mid"]);
    assert_eq!(chain(&w), [link("a", "start", ""), link("mid", "dependency", "a")]);
    w.remove("a").remove("mid");
    w.run(&["mid"]).ok().restored(["mid"]);
    assert_eq!(chain(&w), [link("mid", "start", "")]);
}

#[test]
fn slots_and_pools_are_named() {
    let pooled = |path: &str| json!({"run": ["sleep", "0.1"], "stdout": "o", "outputs": {"o": path}, "resources": {"pool": {"db": 1}}});
    let free = |path: &str| json!({"run": ["sleep", "0.1"], "stdout": "o", "outputs": {"o": path}, "env": {"N": path}});
    let w = Workspace::with(json!({"steps": {"a": free("a"), "b": free("b")}}));
    w.run(&["-j", "1"]).ok();
    assert_eq!(chain(&w), [link("a", "start", ""), link("b", "slot", "a")]);

    let mut b = pooled("b");
    b["env"] = json!({"N": "b"});
    let w = Workspace::with(json!({"resources": {"pools": {"db": 1}}, "steps": {"a": pooled("a"), "b": b}}));
    w.run(&["-j", "4"]).ok();
    assert_eq!(chain(&w), [link("a", "start", ""), link("b", "pool db", "a")]);
}

#[test]
fn a_killed_run_has_its_length_and_names_what_was_at_work() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo 1 > a", "outputs": {"a": "a"}},
        "b": {"run": "sleep 600; cat a > b", "inputs": {"a": "a"}, "outputs": {"b": "b"}},
    }}));
    let mut run = w.command(&["run", "flow.json"]).spawn().unwrap();
    let begun = std::time::Instant::now();
    let record = |w: &Workspace| w.flow(&["log", "show", "--json"]);
    let lived = || {
        let shown = record(&w);
        (shown.code == Some(0)).then(|| shown.json()["seconds"].as_f64().unwrap())
    };
    // the record tells how long, though nothing happens
    wait_for("a record of a second", LONG, || lived().is_some_and(|seconds| seconds > 1.0));
    signal(run.id(), "KILL");
    run.wait().unwrap();
    let most = begun.elapsed().as_secs_f64();
    nothing_left(&w, LONG);
    let shown = record(&w).ok().json();
    assert_eq!((&shown["outcome"], &shown["running"]), (&json!("unfinished"), &json!(["b"])));
    let seconds = shown["seconds"].as_f64().unwrap();
    assert!(seconds > 1.0 && seconds < most, "{seconds} of {most}");
    assert_eq!(chain(&w), [link("a", "start", ""), link("b", "dependency", "a")]);
    let text = w.flow(&["log", "critical-path"]).ok().stdout;
    assert!(text.contains("b  (never finished)") && text.contains("unfinished in"), "{text}");
}
