//! Runs after a change of few files: only what the change concerns is looked at, and the outcome is that of a look at everything.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::Workspace;

/// A lattice: node `n<layer>_<i>` takes two nodes of the layer before (sources in the first), and passes on the first line of the first.
fn lattice(layers: usize, width: usize) -> Workspace {
    let mut steps = serde_json::Map::new();
    for layer in 0..layers {
        for i in 0..width {
            let before = |i: usize| match layer {
                0 => format!("src/{}", i % width),
                _ => format!("out/{}_{}", layer - 1, i % width),
            };
            let (first, second) = (before(i), before(i + 1));
            steps.insert(
                format!("n{layer}_{i}"),
                json!({
                    "run": format!("head -n 1 {first} > out/{layer}_{i}; tail -n 1 {second} | tr -d x | wc -l >> out/{layer}_{i}"),
                    "inputs": {"i": [first, second]},
                    "outputs": {"o": format!("out/{layer}_{i}")},
                }),
            );
        }
    }
    let w = Workspace::with(json!({ "steps": steps }));
    for i in 0..width {
        w.write(&format!("src/{i}"), format!("{i}\nx\n"));
    }
    w
}

/// What one run said: nodes it named with their outcome, and how many it did not look at.
pub(crate) struct Said {
    pub(crate) named: Vec<(String, String)>,
    pub(crate) untouched: u64,
    pub(crate) counts: Value,
}

impl Said {
    pub(crate) fn of(w: &Workspace, args: &[&str], ok: bool) -> Self {
        let all: Vec<&str> =
            ["run", "flow.json", "--json", "--events", "events"].iter().chain(args).copied().collect();
        let run = w.flow(&all);
        let json: Value = if ok { run.ok().json() } else { run.exits(1).json() };
        let text = w.read("events");
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |name: &str| events.iter().filter(|e| e["event"] == name).cloned().collect::<Vec<_>>();
        let named = of("node_finished")
            .iter()
            .map(|e| (e["id"].as_str().unwrap().to_owned(), e["outcome"].as_str().unwrap().to_owned()))
            .collect();
        let untouched = of("all_fresh").iter().map(|e| e["nodes"].as_u64().unwrap()).sum();
        Self { named, untouched, counts: json["counts"].clone() }
    }

    pub(crate) fn ran(&self) -> Vec<&str> {
        let mut ran: Vec<&str> =
            self.named.iter().filter(|(_, outcome)| outcome == "ran").map(|(id, _)| id.as_str()).collect();
        ran.sort_unstable();
        ran
    }
}

/// Runs until a run is known at a glance.
pub(crate) fn settle(w: &Workspace) {
    for _ in 0..100 {
        let said = Said::of(w, &[], true);
        if said.named.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no run was known at a glance");
}

#[test]
fn only_what_a_change_concerns_is_looked_at() {
    let w = lattice(4, 6);
    assert_eq!(Said::of(&w, &[], true).ran().len(), 24);
    settle(&w);
    // the first line of source 2 goes on in n0_2 alone; n0_1 takes it, too, and makes the same
    w.write("src/2", "two\nx\n");
    let said = Said::of(&w, &[], true);
    assert_eq!(said.ran(), ["n0_1", "n0_2", "n1_1", "n1_2", "n2_1", "n2_2", "n3_1", "n3_2"]);
    assert_eq!(said.untouched + said.named.len() as u64, 24);
    assert!(said.untouched >= 16, "{}", said.untouched);
    assert_eq!(w.read("out/3_2"), "two\n1\n");
    // what it left is a state that the next run knows
    let again = Said::of(&w, &[], true);
    assert_eq!((again.named.len(), again.untouched), (0, 24));
    // and a look at everything says the same
    let all = w.flow(&["run", "flow.json", "--json", "-v"]).ok().json();
    assert_eq!(all["counts"]["fresh"], 24);
}

#[test]
fn damaged_outputs_are_brought_back_and_nothing_else_is_looked_at() {
    let w = lattice(3, 4);
    Said::of(&w, &[], true);
    settle(&w);
    let before = w.read("out/0_1");
    w.write("out/0_1", "damaged");
    w.remove("out/2_3");
    let said = Said::of(&w, &[], true);
    assert_eq!(said.counts["restored"], 2);
    assert_eq!(said.counts["fresh"], 10);
    assert_eq!(said.untouched, 10);
    assert_eq!(w.read("out/0_1"), before);
    let again = Said::of(&w, &[], true);
    assert_eq!((again.named.len(), again.untouched), (0, 12));
}

#[test]
fn a_failure_is_told_again_until_it_is_mended() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "grep -v bad s > a", "inputs": {"s": "s"}, "outputs": {"a": "a"}},
        "b": {"run": "cat a > b", "inputs": {"a": "a"}, "outputs": {"b": "b"}},
        "c": {"run": "cat t > c", "inputs": {"t": "t"}, "outputs": {"c": "c"}},
        "d": {"run": "cat b c > d", "inputs": {"b": "b", "c": "c"}, "outputs": {"d": "d"}},
    }}));
    w.write("s", "good\n").write("t", "1\n");
    Said::of(&w, &[], true);
    settle(&w);
    w.write("s", "bad\n").write("t", "2\n");
    for _ in 0..2 {
        let said = Said::of(&w, &["--keep-going"], false);
        let of =
            |id: &str| said.named.iter().find(|(name, _)| name == id).map(|(_, outcome)| outcome.clone());
        assert_eq!(of("a").as_deref(), Some("failed"));
        assert_eq!(of("b").as_deref(), Some("skipped"));
        assert_eq!(of("d").as_deref(), Some("skipped"));
        assert!(matches!(of("c").as_deref(), Some("ran" | "fresh")));
        assert_eq!(w.read("d"), "good\n1\n");
    }
    // the source as it was: what ran meanwhile still counts
    w.write("s", "good\n");
    let said = Said::of(&w, &[], true);
    assert_eq!(said.ran(), ["d"]);
    assert_eq!(w.read("d"), "good\n2\n");
    settle(&w);
    // an input that is gone is no change that can be followed
    w.remove("t");
    let error = w.flow(&["run", "flow.json"]).exits(1).stderr;
    assert!(error.contains("input t is not there"), "{error}");
}

#[test]
fn bytes_that_were_lost_and_come_out_otherwise_are_followed_everywhere() {
    // `a` makes other bytes each time; the consumer of a damaged `a` is not the only one
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "date +%s%N > a", "outputs": {"a": "a"}},
        "b": {"run": "cat a s > b", "inputs": {"a": "a", "s": "s"}, "outputs": {"b": "b"}},
        "c": {"run": "cat a > c", "inputs": {"a": "a"}, "outputs": {"c": "c"}},
    }}));
    w.write("s", "1\n");
    Said::of(&w, &[], true);
    settle(&w);
    let old = w.read("a");
    // the bytes of `a` are nowhere any more
    w.remove("a");
    w.flow(&["cache", "gc", "--max-size", "0"]).ok();
    w.write("s", "2\n");
    Said::of(&w, &[], true);
    settle(&w);
    let new = w.read("a");
    assert_ne!(old, new);
    assert_eq!(w.read("b"), format!("{new}2\n"));
    assert_eq!(w.read("c"), new);
}

/// Runs until there is a certificate whose files are old enough to be told by their stats.
fn settled(w: &Workspace) {
    w.run(&[]).ok();
    w.flow(&["run", "flow.json"]).ok();
    std::thread::sleep(Duration::from_millis(200));
    w.flow(&["run", "flow.json"]).ok();
}

#[test]
fn a_tool_that_another_node_takes_as_an_input_concerns_both() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "./tool > out/a; true", "tools": ["./tool"], "outputs": {"o": "out/a"}},
        "b": {"run": "wc -c < tool > out/b", "inputs": {"t": "tool"}, "outputs": {"o": "out/b"}}
    }}));
    w.script("tool", "#!/bin/sh\necho v1\n");
    settled(&w);
    w.script("tool", "#!/bin/sh\necho v2\n");
    w.flow(&["run", "flow.json"]).ok();
    assert_eq!(w.read("out/a"), "v2\n");
}

#[test]
fn a_workflow_that_a_node_takes_as_an_input_concerns_all() {
    let w = Workspace::new();
    let path = w.path("flow.json").to_str().unwrap().to_owned();
    let workflow = |word: &str| {
        let step = json!({"run": format!("echo {word} > out/a; true"), "outputs": {"o": "out/a"}});
        w.workflow(json!({"steps": {
            "a": step,
            "b": {"run": "wc -c flow.json > out/b; true", "inputs": {"t": path}, "outputs": {"o": "out/b"}}
        }}));
    };
    workflow("one");
    settled(&w);
    workflow("two");
    w.flow(&["run", "flow.json"]).ok();
    assert_eq!(w.read("out/a"), "two\n");
}

#[test]
fn a_directory_that_a_depfile_names_is_looked_at() {
    let w = Workspace::with(json!({"steps": {"cc": {
        "run": "cat src/* > ${outputs.o}; echo 'o: src' > ${outputs.o}.d",
        "depfile": "${outputs.o}.d",
        "outputs": {"o": "out/o"}
    }}}));
    w.write("src/a", "one\n");
    settled(&w);
    w.write("src/a", "two\n");
    w.flow(&["run", "flow.json"]).ok();
    assert_eq!(w.read("out/o"), "two\n");
    settled(&w);
    w.write("src/b", "three\n");
    w.flow(&["run", "flow.json"]).ok();
    assert_eq!(w.read("out/o"), "two\nthree\n");
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_no_reason_to_wait() {
    let w = Workspace::with(json!({"steps": {
        "s": {"run": "wc -c in > out/s; true", "inputs": {"i": "in"}, "outputs": {"o": "out/s"}}
    }}));
    w.write("in", "x");
    settled(&w);
    w.remove("in");
    assert!(std::process::Command::new("mkfifo").arg(w.path("in")).status().unwrap().success());
    let run = w.flow(&["run", "flow.json"]);
    assert_ne!(run.code, Some(0));
    run.says("in is neither a file nor a directory");
}
