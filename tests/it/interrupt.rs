//! Ctrl-C and SIGTERM: nothing new starts, what runs is ended, what is published is whole, and the next run goes on.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{LONG, Run, Workspace, names_in, nothing_left, signal, wait_for};

fn start(w: &Workspace, args: &[&str]) -> Child {
    w.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Run {
    Run::of(child.wait_with_output().unwrap())
}

/// `done` is published, `busy` writes its output itself and waits, `after` needs it, `queued` finds no slot.
fn busy(wait: &str) -> Workspace {
    let w = Workspace::with(json!({"steps": {
        "done": {"run": "cat s > ${outputs.o}; cat s > ${outputs.p}", "inputs": {"s": "s"}, "outputs": {"o": "out/done", "p": "out/done2"}},
        "busy": {
            "run": format!("cat s > out/busy; if [ -e hold ]; then touch started; {wait}; fi"),
            "inputs": {"s": "s", "d": "${steps.done.o}"}, "outputs": {"o": "out/busy"}
        },
        "queued": {"run": "cat s > ${outputs.o}", "inputs": {"s": "s", "d": "${steps.done.o}"}, "outputs": {"o": "out/queued"}},
        "after": {"run": "cat ${inputs.b} > ${outputs.o}", "inputs": {"b": "${steps.busy.o}"}, "outputs": {"o": "out/after"}}
    }}));
    w.write("s", "old");
    w.run(&[]).ok();
    w.write("s", "new").write("hold", "");
    w
}

/// Everything that was published is whole, what was set aside is back.
fn whole(w: &Workspace) {
    assert_eq!((w.read("out/done"), w.read("out/done2")), ("new".to_owned(), "new".to_owned()));
    for path in ["out/busy", "out/after"] {
        assert_eq!(w.read(path), "old", "{path}");
    }
    assert_eq!(names_in(&w.path("cache/tmp")), [""; 0]);
    nothing_left(w, LONG);
}

fn goes_on(w: &Workspace) {
    w.remove("hold");
    let run = w.run(&[]).ok();
    let ran = run.with_outcome("ran");
    assert!(ran.contains("busy") && ran.contains("after") && !ran.contains("done"), "{ran:?}");
    for path in ["out/done", "out/busy", "out/queued", "out/after"] {
        assert_eq!(w.read(path), "new", "{path}");
    }
}

#[test]
fn once_asks_children_to_end_and_the_next_run_goes_on() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 130)] {
        let w = busy("trap 'echo asked > asked; exit 1' TERM; setsid sleep 1000 & sleep 1000 & wait");
        let child = start(&w, &["run", "flow.json", "-j", "1", "--json", "-v"]);
        wait_for("the node to start", LONG, || w.has("started"));
        // the trap may not be set yet
        std::thread::sleep(Duration::from_millis(30));
        let begun = Instant::now();
        signal(child.id(), name);
        let run = end(child).exits(code);
        assert!(begun.elapsed() < Duration::from_secs(4), "the grace was used up");
        assert_eq!(w.read("asked"), "asked\n");
        assert_eq!(run.json()["outcome"], "cancelled");
        let cancelled = run.with_outcome("cancelled");
        assert!(cancelled.contains("busy") && cancelled.contains("after"), "{cancelled:?}");
        assert!(run.with_outcome("failed").is_empty() && run.with_outcome("skipped").is_empty());
        whole(&w);
        goes_on(&w);
    }
}

#[test]
fn nothing_is_started_any_more() {
    let steps: serde_json::Map<String, Value> = (0..40)
        .map(|n| {
            let run = format!("echo {n} >> log; sleep 0.02; echo {n} > out/{n}");
            (format!("n{n:02}"), json!({"run": run, "outputs": {"o": format!("out/{n}")}}))
        })
        .collect();
    let w = Workspace::with(json!({"steps": steps}));
    let child = start(&w, &["run", "flow.json", "-j", "2"]);
    wait_for("some nodes", LONG, || w.has("log") && w.read("log").lines().count() >= 3);
    signal(child.id(), "INT");
    end(child).exits(130);
    let first = w.read("log").lines().count();
    assert!(first < 40, "all of them ran");
    let made = w.tree("out");
    for (name, bytes) in &made {
        assert_eq!(*bytes, format!("{name}\n").into_bytes());
    }
    nothing_left(&w, LONG);
    // what was made is not made again
    let run = w.run(&[]).ok();
    assert_eq!(run.json()["counts"]["ran"].as_u64().unwrap() as usize, 40 - made.len());
    assert_eq!(w.tree("out").len(), 40);
}

#[test]
fn twice_kills_at_once() {
    let w = busy("trap '' TERM; while :; do sleep 1; done");
    let child = start(&w, &["run", "flow.json", "-j", "1"]);
    wait_for("the node to start", LONG, || w.has("started"));
    let begun = Instant::now();
    signal(child.id(), "INT");
    std::thread::sleep(Duration::from_millis(200));
    signal(child.id(), "INT");
    end(child).exits(130);
    assert!(begun.elapsed() < Duration::from_secs(4), "the grace of 5 s was waited for");
    whole(&w);
    goes_on(&w);
}

#[test]
fn twice_kills_services_too() {
    let w = Workspace::with(json!({
        "services": {"s": {"run": "trap '' TERM; echo ready; while :; do sleep 1; done", "ready": {"log": "ready"}, "stop": "60s"}},
        "steps": {"a": {"run": "touch started; sleep 1000 # ${services.s.url}", "outputs": {"o": "o"}}}
    }));
    let child = start(&w, &["run", "flow.json"]);
    wait_for("the node to start", LONG, || w.has("started"));
    let begun = Instant::now();
    signal(child.id(), "INT");
    std::thread::sleep(Duration::from_millis(300));
    signal(child.id(), "INT");
    end(child).exits(130);
    assert!(begun.elapsed() < Duration::from_secs(10));
    nothing_left(&w, LONG);
}

#[test]
fn a_long_request_is_ended() {
    let w = Workspace::with(json!({
        "services": {"s": {"uses": "sim.http", "with": {"dir": "served", "access_log": "access", "faults": [{"match": "a", "delay_ms": 60000}]}}},
        "steps": {"f": {"uses": "http.fetch", "with": {"url": "${services.s.url}/a"}, "outputs": {"body": "out/a"}}}
    }));
    w.write("served/a", "A");
    let mut child = start(&w, &["run", "flow.json", "-v"]);
    {
        use std::io::{BufRead, BufReader};
        let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        assert!(
            lines.map_while(Result::ok).any(|line| line.contains("ready in")),
            "the service was not started"
        );
    }
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    signal(child.id(), "INT");
    child.stderr.take();
    end(child).exits(130);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!w.has("out/a"));
    nothing_left(&w, LONG);
}

#[test]
fn a_service_that_does_not_become_ready_is_ended() {
    let w = Workspace::with(json!({
        "services": {"s": {"run": "touch started; sleep 1000", "ready": {"log": "never"}}},
        "steps": {"a": {"run": "echo ${services.s.url} > ${outputs.o}", "outputs": {"o": "o"}}}
    }));
    let child = start(&w, &["run", "flow.json", "--json", "-v"]);
    wait_for("the service to start", LONG, || w.has("started"));
    signal(child.id(), "INT");
    let run = end(child).exits(130);
    assert_eq!(run.with_outcome("cancelled").len(), 1, "{}", run.stderr);
    nothing_left(&w, LONG);
}

#[test]
fn a_wait_for_another_attempt_is_ended() {
    let w = Workspace::with(json!({"steps": {"a": {
        "run": "echo try >> log; exit 1", "outputs": {"o": "o"}, "retry": {"max": 5, "backoff": "60s", "max_backoff": "60s"}
    }}}));
    let child = start(&w, &["run", "flow.json"]);
    wait_for("the first attempt", LONG, || w.has("log"));
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    signal(child.id(), "INT");
    end(child).exits(130);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(w.read("log"), "try\n");
}

#[test]
fn while_it_waits_for_the_workspace() {
    let w = busy("sleep 1000");
    let first = start(&w, &["run", "flow.json"]);
    wait_for("the node to start", LONG, || w.has("started"));
    for (args, name, code) in [
        (&["run", "flow.json"][..], "INT", 130),
        (&["run", "flow.json"], "TERM", 143),
        (&["clean", "flow.json"], "INT", 130),
    ] {
        let mut second = start(&w, args);
        {
            use std::io::{BufRead, BufReader};
            let mut line = String::new();
            BufReader::new(second.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
            assert!(line.contains(&format!("waiting for process {}", first.id())), "{line}");
        }
        signal(second.id(), name);
        end(second).exits(code);
    }
    signal(first.id(), "TERM");
    end(first).exits(143);
    whole(&w);
}

#[test]
fn while_another_workspace_makes_the_same_node() {
    let (one, two, outside) = (Workspace::new(), Workspace::new(), Workspace::new());
    let (cache, go) = (outside.path("cache").display().to_string(), outside.path("go").display().to_string());
    for w in [&one, &two] {
        w.workflow(json!({"steps": {"a": {
            "run": format!("touch started; until [ -e {go} ]; do sleep 0.01; done; echo x > ${{outputs.o}}"), "outputs": {"o": "o"}
        }}}));
    }
    let args = ["run", "flow.json", "--cache", &cache];
    let first = start(&one, &args);
    wait_for("the node to start", LONG, || one.has("started"));
    let mut second = start(&two, &args);
    {
        use std::io::{BufRead, BufReader};
        let mut line = String::new();
        BufReader::new(second.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(&format!("waiting for process {}", first.id())), "{line}");
    }
    signal(second.id(), "INT");
    end(second).exits(130);
    // the one that works is killed: the other one does it
    let second = start(&two, &args);
    signal(first.id(), "KILL");
    assert_eq!(end(first).code, None);
    outside.write("go", "");
    end(second).ok();
    assert_eq!(two.read("o"), "x\n");
    nothing_left(&one, LONG);
}

#[test]
fn the_log_of_an_interrupted_run_says_so() {
    let w = busy("sleep 1000");
    let child = start(&w, &["run", "flow.json"]);
    wait_for("the node to start", LONG, || w.has("started"));
    signal(child.id(), "INT");
    end(child).exits(130);
    let log = w.flow(&["log", "--json"]).ok().json();
    assert!(log.to_string().contains("cancelled"), "{log}");
}
