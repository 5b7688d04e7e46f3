//! Several flows at once: in one workspace, in two workspaces on one cache, one inside another.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{LONG, Run, Workspace, nothing_left, wait_for};

/// A flow that runs on its own.
fn start(w: &Workspace, args: &[&str]) -> Child {
    w.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Run {
    Run::of(child.wait_with_output().unwrap())
}

/// Nodes that write their names to a log outside of the workspace, and take their time.
fn slow(log: &str, nodes: usize) -> Value {
    let steps: serde_json::Map<String, Value> = (0..nodes)
        .map(|n| {
            let run = format!("echo n{n} >> {log}; sleep 0.2; echo {n} > ${{outputs.o}}");
            (format!("n{n}"), json!({"run": run, "outputs": {"o": format!("out/{n}")}}))
        })
        .collect();
    json!({"name": "slow", "steps": steps})
}

fn sorted_lines(w: &Workspace, path: &str) -> Vec<String> {
    let mut lines: Vec<String> = w.read(path).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A run that holds the workspace until `release` is called.
struct Held<'w> {
    w: &'w Workspace,
    child: Child,
}

fn hold(w: &Workspace) -> Held<'_> {
    w.workflow(json!({"steps": {
        "holder": {"run": "touch started; until [ -e go ]; do sleep 0.01; done; echo x > ${outputs.o}", "outputs": {"o": "out/x"}},
        "other": {"run": "cat s > ${outputs.o}", "inputs": {"s": "s"}, "outputs": {"o": "out/y"}}
    }}));
    w.write("s", "1");
    let child = start(w, &["run", "flow.json", "holder"]);
    wait_for("the node to start", LONG, || w.has("started"));
    Held { w, child }
}

impl Held<'_> {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn release(self) -> Run {
        self.w.write("go", "");
        end(self.child)
    }
}

#[test]
fn two_runs_in_one_workspace_run_each_node_once() {
    let (w, outside) = (Workspace::new(), Workspace::new());
    let log = outside.path("log");
    w.workflow(slow(&log.display().to_string(), 4));
    let one = start(&w, &["run", "flow.json", "-j", "2", "--json"]);
    std::thread::sleep(Duration::from_millis(50));
    let two = start(&w, &["run", "flow.json", "-j", "2", "--json"]);
    let pids = [one.id(), two.id()];
    let (one, two) = (end(one).ok(), end(two).ok());
    assert_eq!(sorted_lines(&outside, "log"), ["n0", "n1", "n2", "n3"]);
    let counts = |run: &Run, outcome: &str| run.json()["counts"][outcome].as_u64().unwrap();
    let mut outcomes =
        [(counts(&one, "ran"), counts(&one, "fresh")), (counts(&two, "ran"), counts(&two, "fresh"))];
    outcomes.sort();
    assert_eq!(outcomes, [(0, 4), (4, 0)]);
    let says = |run: &Run, pid: u32| run.stderr.contains(&format!("waiting for process {pid}"));
    assert!(says(&two, pids[0]) || says(&one, pids[1]), "{}\n{}", one.stderr, two.stderr);
}

#[test]
fn a_second_run_names_the_first_or_does_not_wait() {
    let w = Workspace::new();
    let held = hold(&w);
    let pid = held.pid();
    let refused = w.flow(&["run", "flow.json", "--no-wait"]).exits(4);
    assert!(refused.stderr.contains(&format!("process {pid}")), "{}", refused.stderr);
    let mut second = start(&w, &["run", "flow.json"]);
    std::thread::sleep(Duration::from_millis(100));
    assert!(second.try_wait().unwrap().is_none(), "it did not wait");
    held.release().ok();
    end(second).ok().says(&format!("waiting for process {pid}"));
}

#[test]
fn nothing_that_only_looks_waits() {
    let w = Workspace::new();
    let held = hold(&w);
    let begun = Instant::now();
    w.flow(&["plan", "flow.json", "--json"]).ok();
    w.flow(&["run", "flow.json", "-n"]).ok();
    w.flow(&["key", "flow.json"]).ok();
    w.flow(&["explain", "flow.json", "holder"]).ok();
    w.flow(&["why", "flow.json", "out/x"]).ok();
    w.flow(&["ls", "flow.json"]).ok();
    w.flow(&["graph", "flow.json"]).ok();
    w.flow(&["check", "flow.json"]).ok();
    w.flow(&["log"]).ok();
    w.flow(&["cache", "stats"]).ok();
    assert!(begun.elapsed() < LONG);
    assert!(!w.has("out/x"));
    held.release().ok();
    assert_eq!(w.read("out/x"), "x\n");
    w.run(&[]).ok().ran(["other"]);
}

#[test]
fn whatever_writes_takes_the_lock() {
    let w = Workspace::new();
    let held = hold(&w);
    for args in [
        &["clean", "flow.json", "--no-wait"][..],
        &["clean", "flow.json", "--orphans", "--no-wait"],
        &["exec", "--no-wait", "flow.json", "other", "--", "true"],
        &["cache", "gc", "--no-wait"],
        &["run", "flow.json", "other", "--no-wait"],
    ] {
        let run = w.flow(args);
        assert!(
            run.code == Some(4) && run.stderr.contains("is in use by process"),
            "{args:?}: {:?} {}",
            run.code,
            run.stderr
        );
    }
    let waits = start(&w, &["clean", "flow.json"]);
    std::thread::sleep(Duration::from_millis(50));
    held.release().ok();
    end(waits).ok();
    assert!(!w.has("out/x"), "clean came after the run");
}

#[test]
fn two_workspaces_on_one_cache_run_each_node_once() {
    let (one, two, outside) = (Workspace::new(), Workspace::new(), Workspace::new());
    let (log, cache) =
        (outside.path("log").display().to_string(), outside.path("cache").display().to_string());
    one.workflow(slow(&log, 4));
    two.workflow(slow(&log, 4));
    let args = ["run", "flow.json", "-j", "2", "--json", "--cache", &cache];
    let first = start(&one, &args);
    std::thread::sleep(Duration::from_millis(50));
    let second = start(&two, &args);
    let (first, second) = (end(first).ok(), end(second).ok());
    assert_eq!(sorted_lines(&outside, "log"), ["n0", "n1", "n2", "n3"]);
    assert_eq!(one.tree("out"), two.tree("out"));
    let ran = |run: &Run| run.json()["counts"]["ran"].as_u64().unwrap();
    assert_eq!(ran(&first) + ran(&second), 4);
    assert!(!one.has("cache") && !two.has("cache"));
    // nobody waits for what is there
    assert_eq!(ran(&end(start(&two, &args)).ok()), 0);
}

#[test]
fn other_parameters_on_the_same_output_come_one_after_the_other() {
    let w = Workspace::with(json!({
        "params": {"text": "none"},
        "steps": {
            "a": {"run": "sleep 0.1; echo ${params.text} > out/a", "outputs": {"o": "out/a"}},
            "b": {"run": "sleep 0.1; cat out/a > out/b", "inputs": {"a": "${steps.a.o}"}, "outputs": {"o": "out/b"}}
        }
    }));
    let runs: Vec<Child> = ["one", "two"]
        .iter()
        .map(|text| start(&w, &["run", "flow.json", "--set", &format!("text={text}")]))
        .collect();
    for run in runs {
        end(run).ok();
    }
    assert_eq!(w.read("out/a"), w.read("out/b"), "one of the runs came in between");
    // both results stand
    for text in ["one", "two"] {
        w.run(&["--set", &format!("text={text}")]).ok().ran([]);
        assert_eq!(w.read("out/b"), format!("{text}\n"));
    }
}

#[test]
fn a_flow_inside_a_run_of_its_workspace_is_refused_at_once() {
    let flow = crate::support::flow_binary().display().to_string();
    for inner in [
        format!("{flow} run inner.json"),
        format!("{flow} clean inner.json"),
        format!("{flow} cache gc"),
        // without what flow put into the environment
        format!("env -u FLOW_ROOT {flow} run inner.json"),
    ] {
        let w = Workspace::new();
        w.write(
            "inner.json",
            r#"{"name": "inner", "steps": {"i": {"run": "echo i > i", "outputs": {"o": "i"}}}}"#,
        );
        w.workflow(json!({"steps": {"outer": {
            "run": format!("code=0; {inner} 2> said || code=$?; echo $code > ${{outputs.code}}"),
            "outputs": {"code": "code"}, "timeout": "20s"
        }}}));
        w.run(&[]).ok();
        assert_eq!(w.read("code"), "4\n", "{inner}: {}", w.read("said"));
        assert!(w.read("said").contains("already running in this workspace"), "{}", w.read("said"));
        assert!(!w.has("i"));
    }
}

#[test]
fn looking_at_the_workspace_from_inside_a_run_works() {
    let flow = crate::support::flow_binary().display();
    let w = Workspace::with(json!({"steps": {"outer": {
        "run": format!("{flow} plan flow.json && {flow} key flow.json > ${{outputs.key}}"), "outputs": {"key": "key"}, "timeout": "20s"
    }}}));
    w.run(&[]).ok();
    assert_eq!(w.read("key"), w.flow(&["key", "flow.json"]).ok().stdout);
}

#[test]
fn a_flow_inside_a_run_works_on_another_workspace_but_not_back_again() {
    let flow = crate::support::flow_binary().display().to_string();
    let (outer, inner) = (Workspace::new(), Workspace::new());
    let (there, back) = (inner.root().display(), outer.root().display());
    outer.workflow(json!({"steps": {"outer": {
        "run": format!("{flow} -C {there} run flow.json && cp {there}/i ${{outputs.o}}"), "outputs": {"o": "o"}, "timeout": "20s"
    }}}));
    inner.workflow(json!({"steps": {"i": {
        "run": format!("code=0; {flow} -C {back} run flow.json 2> said || code=$?; echo $code > ${{outputs.o}}"), "outputs": {"o": "i"}
    }}}));
    outer.run(&[]).ok();
    assert_eq!(outer.read("o"), "4\n");
    assert!(inner.read("said").contains("already running in this workspace"), "{}", inner.read("said"));
    nothing_left(&outer, LONG);
}

#[test]
fn gc_beside_a_run_loses_nothing() {
    let (one, two, outside) = (Workspace::new(), Workspace::new(), Workspace::new());
    let cache = outside.path("cache").display().to_string();
    // bytes that are on disk only in the cache by the time the last node takes them
    let long = "some text\n".repeat(4000);
    one.write("long", &long);
    one.workflow(json!({"steps": {
        "a": {"run": "cat long long > out/a", "inputs": {"l": "long"}, "outputs": {"o": "out/a"}},
        "b": {"run": "touch started; until [ -e go ]; do sleep 0.01; done; rm out/a; wc -c < long > out/b", "inputs": {"l": "long"}, "needs": ["a"], "outputs": {"o": "out/b"}}
    }}));
    let run = start(&one, &["run", "flow.json", "--cache", &cache]);
    wait_for("b to start", LONG, || one.has("started"));
    for args in [
        &["cache", "gc", "--cache", &cache, "--max-size", "0"][..],
        &["cache", "gc", "--cache", &cache, "--keep-runs", "0"],
        &["cache", "gc", "--cache", &cache, "--max-age", "0s"],
    ] {
        two.flow(args).ok();
    }
    one.write("go", "");
    end(run).ok();
    // the one that was removed is restored, not made again
    one.run(&["--cache", &cache]).ok().ran([]).restored(["a"]);
    assert_eq!(one.read("out/a"), format!("{long}{long}"));
    two.flow(&["cache", "verify", "--cache", &cache]).ok();
}

#[test]
fn two_runs_with_the_same_nodes_in_another_order_do_not_wait_for_each_other() {
    let workflow = |flipped: bool| {
        let mut steps = serde_json::Map::new();
        let mut add = |run: String| {
            let id = format!("n{:03}", steps.len());
            steps.insert(id, json!({"run": run}));
        };
        for round in 0..4 {
            // short ones of its own, so that the next are put together
            (0..60).for_each(|n| add(format!("/bin/true {flipped}-{round}-{n}")));
            let mut shared: Vec<String> = (0..4).map(|n| format!("sleep 0.2{round}{n}")).collect();
            if flipped {
                shared.reverse();
            }
            shared.into_iter().for_each(&mut add);
        }
        json!({"name": "w", "steps": steps})
    };
    let (one, two) = (Workspace::with(workflow(false)), Workspace::with(workflow(true)));
    let cache = one.path("cache").to_str().unwrap().to_owned();
    let args = ["run", "flow.json", "-j1", "--cache", &cache];
    let runs = [start(&one, &args), start(&two, &args)];
    let begun = Instant::now();
    for run in runs {
        end(run).ok();
    }
    assert!(begun.elapsed() < LONG);
}

#[test]
fn what_is_done_is_kept_while_a_long_node_runs_on_its_thread() {
    let quick = (0..100).map(|n| format!("/bin/true {n}"));
    let slow = (0..3).map(|n| format!("sleep 0.5{n}")).chain(["sleep 60".to_owned()]);
    let steps: serde_json::Map<String, Value> =
        quick.chain(slow).enumerate().map(|(n, run)| (format!("n{n:03}"), json!({"run": run}))).collect();
    let w = Workspace::with(json!({"name": "w", "steps": steps}));
    let mut child = start(&w, &["run", "flow.json", "-j1", "--events", "events"]);
    wait_for("the last node to start", LONG, || {
        w.has("events")
            && w.read("events").lines().any(|line| line.contains("node_started") && line.contains("n103"))
    });
    wait_for("the others to be kept", LONG, || {
        w.read("events").lines().filter(|line| line.contains("node_finished")).count() == 103
    });
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_left(&w, LONG);
    let text = w.read("events");
    let taken = |id: &str| {
        let line = text.lines().find(|line| line.contains("node_finished") && line.contains(id)).unwrap();
        serde_json::from_str::<Value>(line).unwrap()["seconds"].as_f64().unwrap()
    };
    assert!((0.5..0.9).contains(&taken("n100")), "{}", taken("n100"));
}
