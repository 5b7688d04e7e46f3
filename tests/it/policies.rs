//! Policies and how a run goes: validate, fresh_for, never, force, targets, failures, retries, limits, pools, exit codes, logs.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Workspace;

fn fetch(policy: Value) -> Value {
    let mut steps = json!({
        "fetch": {"uses": "http.fetch", "with": {"url": "${services.web.url}/x.json"}, "outputs": {"body": "body"}},
        "next": {"run": "cat body > next", "inputs": {"b": "body"}, "outputs": {"n": "next"}},
    });
    if !policy.is_null() {
        steps["fetch"]["cache"] = policy;
    }
    json!({"services": {"web": {"uses": "sim.http", "with": {"dir": "www"}}}, "steps": steps})
}

fn served(policy: Value) -> Workspace {
    let w = Workspace::with(fetch(policy));
    w.write("www/x.json", "[1]\n");
    w.run(&[]).ok().ran(["fetch", "next"]);
    w
}

#[test]
fn validate_asks_and_runs_only_what_changed() {
    let w = served(Value::Null);
    let run = w.run(&[]).ok().all_fresh();
    assert_eq!(
        (run.node("fetch")["checked"].clone(), run.node("next")["checked"].clone()),
        (json!(true), json!(false))
    );
    w.remove("body");
    let run = w.run(&[]).ok().ran([]).restored(["fetch"]);
    assert_eq!(run.node("fetch")["checked"], true);
    w.write("www/x.json", "[2]\n");
    w.run(&[]).ok().ran(["fetch", "next"]);
    assert_eq!(w.read("next"), "[2]\n");
    w.run(&[]).ok().all_fresh();
}

#[test]
fn unreachable_fails_and_offline_uses_what_is_known() {
    let url = |url: &str| json!({"steps": {"fetch": {"uses": "http.fetch", "with": {"url": url}, "retry": {"max": 0}, "outputs": {"body": "body"}}}});
    let w = served(Value::Null);
    w.remove("www/x.json");
    w.run(&[]).exits(1).failed(["fetch"]).skipped(["next"]).says("404");
    assert_eq!(w.read("body"), "[1]\n");
    let run = w.run(&["--offline"]).ok().all_fresh();
    assert_eq!(run.node("fetch")["checked"], false);
    assert!(!run.stderr.contains("service"), "no service is started: {}", run.stderr);
    w.remove("body");
    let run = w.run(&["--offline"]).ok().ran([]).restored(["fetch"]);
    assert!(!run.stderr.contains("service"), "{}", run.stderr);
    let record = w.flow(&["log", "show", run.json()["run"].as_str().unwrap(), "--json"]).ok();
    assert!(record.stdout.contains("stale"), "{}", record.stdout);

    let w = Workspace::with(url("http://127.0.0.1:9/x"));
    w.run(&[]).exits(1).failed(["fetch"]).says("127.0.0.1:9");
}

#[test]
fn fresh_for_asks_when_its_time_is_over() {
    let w = served(json!({"fresh_for": "1h"}));
    w.write("www/x.json", "[2]\n");
    let run = w.run(&[]).ok().all_fresh();
    assert_eq!(run.node("fetch")["checked"], false);
    w.workflow(fetch(json!({"fresh_for": "1ms"})));
    w.run(&[]).ok().ran(["fetch", "next"]);
}

#[test]
fn never_runs_each_time_and_still_cuts_off() {
    let w = Workspace::with(json!({"steps": {
        "now": {"run": "echo x >> count; cat s > now", "inputs": {"s": "s"}, "cache": "never", "outputs": {"o": "now"}},
        "next": {"run": "cat now > next", "inputs": {"n": "now"}, "outputs": {"n": "next"}},
        "sample": {"run": "echo $(($(cat s) + 1)) > m", "inputs": {"s": "s"}, "cache": "sample", "outputs": {"m": "m"}},
    }}));
    w.write("s", "1\n");
    w.run(&[]).ok().ran(["now", "next", "sample"]);
    let run = w.run(&[]).ok().ran(["now"]);
    assert_eq!(run.node("now")["reason"], "runs every time (policy never)");
    w.write("s", "2\n");
    w.run(&[]).ok().ran(["now", "next", "sample"]);
    assert_eq!(w.read("count").lines().count(), 3);
    w.remove("m");
    w.run(&[]).ok().ran(["now"]).restored(["sample"]);
}

fn counted() -> Value {
    json!({"steps": {
        "a": {"run": "echo a >> log; cat s > a", "inputs": {"s": "s"}, "outputs": {"o": "a"}},
        "b": {"run": "echo b >> log; cat a > b", "inputs": {"a": "a"}, "outputs": {"o": "b"}},
        "c": {"run": "echo c >> log; cat b > c", "inputs": {"b": "b"}, "outputs": {"o": "c"}},
        "other": {"run": "echo other >> log; echo > other", "outputs": {"o": "other"}},
    }})
}

#[test]
fn force_and_no_cache() {
    let w = Workspace::with(counted());
    w.write("s", "1");
    w.run(&[]).ok();
    let run = w.run(&["--force"]).ok().ran(["a", "b", "c", "other"]);
    assert_eq!(run.node("a")["reason"], "forced");
    w.run(&["--force=b"]).ok().ran(["b"]);
    // brackets are literal
    w.flow(&["run", "flow.json", "--force=[ab]"]).exits(2).says("matches no node");
    w.run(&["--force={a,other}"]).ok().ran(["a", "other"]);
    w.run(&["--no-cache"]).ok().ran(["a", "b", "c", "other"]);
    // neither read nor written
    w.write("s", "2");
    w.run(&["--no-cache"]).ok().ran(["a", "b", "c", "other"]);
    assert_eq!(w.read("c"), "2");
    w.run(&[]).ok().ran(["a", "b", "c"]);
}

#[test]
fn targets_bring_only_their_own_bytes() {
    let w = Workspace::with(counted());
    w.write("s", "1");
    w.run(&["c"]).ok().ran(["a", "b", "c"]);
    assert!(!w.has("other"));
    w.remove("a").remove("b").remove("c");
    w.run(&["c"]).ok().ran([]).outcome_is("cached", ["a", "b"]).restored(["c"]);
    assert!(!w.has("a") && !w.has("b") && w.has("c"));
    w.run(&["c", "--restore", "all"]).ok().restored(["a", "b"]);
    w.remove("a").remove("b");
    w.run(&["--restore", "targets"]).ok().ran(["other"]).outcome_is("cached", ["a", "b"]);
    assert!(!w.has("a"));
    // a node that runs gets the bytes it takes
    w.run(&["c", "--force=c"]).ok().ran(["c"]).restored(["b"]).outcome_is("cached", ["a"]);
    w.remove("b");
    w.run(&[]).ok().ran([]).restored(["a", "b"]);
    // by output path, with what it needs, with what needs it
    w.remove("a").remove("b").remove("c");
    w.run(&["b"]).ok().restored(["b"]);
    w.run(&["+b"]).ok().restored(["a"]);
    w.run(&["b+"]).ok().restored(["c"]);
    w.run(&["nothing"]).exits(2).says("'nothing'");
}

#[test]
fn failures_stop_or_go_on() {
    let steps = json!({"steps": {
        "bad": {"run": "echo last words; exit 7", "outputs": {"o": "bad"}},
        "after": {"run": "cat bad > after", "inputs": {"b": "bad"}, "outputs": {"o": "after"}},
        "far": {"run": "cat after > far", "inputs": {"a": "after"}, "outputs": {"o": "far"}},
        "good": {"run": "echo > good", "outputs": {"o": "good"}},
        "then": {"run": "cat good > then", "inputs": {"g": "good"}, "outputs": {"o": "then"}},
    }});
    let w = Workspace::with(steps.clone());
    let run = w.run(&["-k"]).exits(1).failed(["bad"]).skipped(["after", "far"]).ran(["good", "then"]);
    assert!(run.stderr.contains("exit status 7") && run.stderr.contains("last words"), "{}", run.stderr);
    assert!(run.stderr.contains("cache/logs/"), "says where the log is: {}", run.stderr);
    assert_eq!(run.json()["outcome"], "failed");
    let log = w.flow(&["log", "output", "bad"]).ok();
    assert_eq!(log.stdout, "last words\n");
    // without -k nothing new starts
    let w = Workspace::with(steps);
    let run = w.run(&["-j", "1"]).exits(1).failed(["bad"]);
    assert!(!run.with_outcome("ran").contains("then"), "{}", run.stdout);
    let json = run.json();
    let sum: u64 = json["counts"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(sum, 5, "every node is counted: {}", json["counts"]);
}

#[test]
fn an_allowed_failure_fails_nothing() {
    let w = Workspace::with(json!({"steps": {
        "lint": {"run": "exit 1", "allow_failure": true, "outputs": {"o": "lint"}},
        "report": {"run": "cat lint > report", "inputs": {"l": "lint"}, "outputs": {"o": "report"}},
        "after": {"run": "echo > after", "needs": ["lint"], "outputs": {"o": "after"}},
    }}));
    let run = w.run(&[]).ok().failed(["lint"]).skipped(["report"]).ran(["after"]);
    assert_eq!(run.json()["outcome"], "ok");
}

#[test]
fn needs_is_order_and_nothing_else() {
    let steps = |text: &str| {
        json!({"steps": {
            "second": {"run": "echo second >> order; echo > second", "needs": ["first"], "outputs": {"o": "second"}},
            "first": {"run": format!("echo first >> order; echo {text} > first"), "outputs": {"o": "first"}},
        }})
    };
    let w = Workspace::with(steps("1"));
    w.run(&["-j", "4"]).ok();
    assert_eq!(w.read("order"), "first\nsecond\n");
    w.workflow(steps("2"));
    w.run(&[]).ok().ran(["first"]);
    w.workflow(json!({"steps": {"first": {"run": "exit 1"}, "second": {"run": "true", "needs": ["first"]}}}));
    w.run(&["-k"]).exits(1).failed(["first"]).skipped(["second"]);
}

#[test]
fn a_command_is_tried_again() {
    let step = |max: u32| {
        json!({"steps": {"a": {"run": "echo x >> tries; [ $(wc -l < tries) -ge 3 ]; echo ok > ${outputs.o}",
            "retry": {"max": max, "backoff": "1ms"}, "outputs": {"o": "o"}}}})
    };
    let w = Workspace::with(step(1));
    w.run(&[]).exits(1).failed(["a"]);
    assert_eq!(w.read("tries").lines().count(), 2);
    w.remove("tries");
    w.workflow(step(2));
    let run = w.run(&[]).ok().ran(["a"]);
    assert_eq!(run.node("a")["attempts"], 3);
    assert_eq!(w.read("o"), "ok\n");
}

/// Whether a process with that command line argument is left.
fn alive(mark: &str) -> bool {
    Command::new("pgrep").args(["-f", mark]).output().unwrap().status.success()
}

#[test]
fn a_time_limit_ends_everything() {
    let mark = format!("31.{}", std::process::id());
    let w = Workspace::with(json!({"steps": {"a": {
        "run": format!("trap 'echo asked >&2; exit 0' TERM; (setsid sleep {mark} &) ; sleep {mark} & wait"),
        "timeout": "300ms", "outputs": {"o": "o"}}}}));
    let begun = Instant::now();
    w.run(&[]).exits(1).failed(["a"]).says("timed out after 0.3").says("asked");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!alive(&mark), "no grandchild is left");
}

/// Runs eight commands that note when they begin and end; gives the most that ran at once.
fn most_at_once(resources: &Value, common: &Value, jobs: &str) -> usize {
    let w = Workspace::with(json!({"resources": common, "steps": {"a": {
        "run": "echo begin >> log; sleep 0.08; echo end >> log", "matrix": {"n": [1, 2, 3, 4, 5, 6]},
        "env": {"N": "${matrix.n}"}, "resources": resources}}}));
    w.run(&["-j", jobs]).ok();
    let (mut now, mut most) = (0_usize, 0);
    for line in w.read("log").lines() {
        now = if line == "begin" { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    most
}

#[test]
fn slots_pools_and_exclusivity_are_kept() {
    assert_eq!(most_at_once(&json!({}), &json!({}), "1"), 1);
    assert_eq!(most_at_once(&json!({"cpu": 2}), &json!({}), "5"), 2);
    assert_eq!(most_at_once(&json!({"pool": {"db": 2}}), &json!({"pools": {"db": 4}}), "6"), 2);
    assert_eq!(most_at_once(&json!({"exclusive": true}), &json!({}), "6"), 1);
    assert_eq!(most_at_once(&json!({"exclusive": "db"}), &json!({"pools": {"db": 4}}), "6"), 1);
    assert!(most_at_once(&json!({}), &json!({}), "6") > 2, "and nothing waits without a reason");
    // more CPUs than there are slots: alone, not never
    assert_eq!(most_at_once(&json!({"cpu": 64}), &json!({}), "2"), 1);
}

#[test]
fn exit_codes() {
    let w = Workspace::with(json!({"steps": {"a": {"run": "exit 9"}}}));
    w.run(&[]).exits(1);
    w.run(&["--no-such-option"]).exits(2);
    w.flow(&["run"]).exits(2);
    w.run(&["no-such-target"]).exits(2);
    w.flow(&["run", "none.json"]).exits(3);
    w.write("bad.json", "{");
    w.flow(&["run", "bad.json"]).exits(3);
    w.workflow(json!({"steps": {"a": {"run": "true", "nonsense": 1}}}));
    w.run(&[]).exits(3).says("nonsense");
    w.workflow(json!({"steps": {"a": {"run": "true", "tools": ["no-such-tool"]}}}));
    w.run(&[]).exits(4);
    w.workflow(json!({"resources": {"pools": {"p": 1}}, "steps": {"a": {"run": "true", "resources": {"pool": {"p": 2}}}}}));
    w.run(&[]).exits(3).says("the pool 'p'");
    w.workflow(json!({"steps": {"a": {"run": ["no-such-program"]}}}));
    let code = w.run(&[]).says("no-such-program").code;
    assert!(matches!(code, Some(1 | 4)), "{code:?}");
    w.workflow(json!({"steps": {"a": {"run": "cat missing > o", "inputs": {"m": "missing"}, "outputs": {"o": "o"}}}}));
    w.run(&[]).exits(1).says("input missing is not there");
}

#[test]
fn equal_nodes_run_once() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo x >> log; echo 1 > ${outputs.o}", "outputs": {"o": "a"}},
        "b": {"run": "echo x >> log; echo 1 > ${outputs.o}", "outputs": {"o": "b"}},
    }}));
    w.run(&["-j", "4"]).ok();
    assert_eq!((w.read("log"), w.read("a"), w.read("b")), ("x\n".into(), "1\n".into(), "1\n".into()));
}

#[test]
fn only_what_is_declared_reaches_a_command() {
    let w = Workspace::with(json!({
        "env": {"A": "file", "B": "file"},
        "steps": {"a": {"run": ["env"], "stdout": "o", "env": {"B": "step"}, "pass_env": ["C"], "outputs": {"o": "o"}}},
    }))
    .env("C", "passed")
    .env("D", "secret")
    .env("LANG", "de_DE");
    w.run(&[]).ok();
    let text = w.read("o");
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.retain(|name| !name.starts_with("FLOW_") && !["PATH", "HOME"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["A", "B", "C", "LANG", "TZ"]);
    for line in ["A=file", "B=step", "C=passed", "LANG=C.UTF-8", "TZ=UTC"] {
        assert!(text.lines().any(|known| known == line), "{line} in {text}");
    }
}

/// Takes the bytes of every large blob away, or damages them.
fn lose_blobs(w: &Workspace, damage: bool) {
    let blobs: Vec<String> = w.tree("cache/objects").into_keys().collect();
    assert!(!blobs.is_empty());
    for blob in blobs {
        let path = w.path("cache/objects").join(blob);
        if damage { std::fs::write(path, "damaged").unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
}

#[test]
fn lost_bytes_are_made_again_and_a_sample_is_not() {
    let steps = json!({"steps": {
        "a": {"run": "seq 30000 | sed s/^/$(cat s)/ > a", "inputs": {"s": "s"}, "outputs": {"o": "a"}},
        "b": {"run": "tail -n 1 a > b", "inputs": {"a": "a"}, "outputs": {"o": "b"}},
    }});
    for damage in [false, true] {
        let w = Workspace::with(steps.clone());
        w.write("s", "1");
        w.run(&[]).ok();
        let whole = w.read("a");
        lose_blobs(&w, damage);
        w.run(&[]).ok().all_fresh();
        w.remove("a");
        let run = w.run(&[]).ok().ran(["a"]);
        assert!(run.node("a")["reason"].as_str().unwrap().contains("missing or damaged"), "{}", run.stdout);
        assert_eq!(w.read("a"), whole);
        w.remove("a");
        w.run(&[]).ok().ran([]).restored(["a"]);
        // asked for by a dependent that has to run, though nobody else wants it
        lose_blobs(&w, damage);
        w.remove("a");
        w.run(&["b", "--force=b"]).ok().ran(["a", "b"]);
    }
    let mut sample = steps;
    sample["steps"]["a"]["cache"] = "sample".into();
    let w = Workspace::with(sample);
    w.write("s", "1");
    w.run(&[]).ok();
    lose_blobs(&w, false);
    w.remove("a");
    w.run(&["-k"]).exits(1).failed(["a"]).says("--remeasure");
    assert!(!w.has("a"));
}

#[test]
fn equal_nodes_that_fail_both_fail() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo x >> log; exit 1", "outputs": {"o": "a"}},
        "b": {"run": "echo x >> log; exit 1", "outputs": {"o": "b"}},
        "c": {"run": "cat b > c", "inputs": {"b": "b"}, "outputs": {"o": "c"}},
    }}));
    w.run(&["-k", "-j", "4"]).exits(1).failed(["a", "b"]).skipped(["c"]);
}

#[test]
fn a_stage_has_a_time_limit_too() {
    let w = Workspace::with(json!({
        "services": {"web": {"uses": "sim.http", "with": {"dir": "www", "faults": [{"match": "*", "delay_ms": 20000}]}}},
        "steps": {"fetch": {"uses": "http.fetch", "with": {"url": "${services.web.url}/x"}, "timeout": "300ms",
            "retry": {"max": 0}, "outputs": {"body": "body"}}},
    }));
    w.write("www/x", "1");
    let begun = Instant::now();
    w.run(&[]).exits(1).failed(["fetch"]).says("timed out after 0.3");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_command_that_runs_out_of_time_is_tried_again() {
    let w = Workspace::with(json!({"steps": {"a": {
        "run": "if [ -e once ]; then echo ok > o; else touch once; sleep 30; fi",
        "timeout": "500ms", "retry": {"max": 1, "backoff": "1ms"}, "outputs": {"o": "o"}}}}));
    let run = w.run(&[]).ok().ran(["a"]);
    assert_eq!(run.node("a")["attempts"], 2);
}

#[test]
fn every_node_has_a_log_of_its_own() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "for i in $(seq 30); do echo line $i of ${matrix.n}; done; [ ${matrix.n} != 2 ]", "matrix": {"n": [1, 2]}},
        "quiet": {"run": "true"},
    }}));
    let run = w.run(&["-k"]).exits(1).failed(["a[n=2]"]);
    let shown: Vec<&str> = run.stderr.lines().filter(|line| line.contains("of 2")).collect();
    assert!(shown.iter().any(|line| line.contains("line 30 of 2")), "{}", run.stderr);
    assert_eq!(w.flow(&["log", "output", "a[n=1]"]).ok().stdout.lines().count(), 30);
    assert_eq!(w.flow(&["log", "output", "a[n=2]"]).ok().stdout.lines().last(), Some("line 30 of 2"));
    assert_eq!(w.tree("cache/logs").len(), 2, "a silent node has no file");
}

#[test]
fn a_sample_is_measured_again_only_when_asked() {
    let w = Workspace::with(json!({"steps": {
        "m": {"run": "echo x >> log; wc -l < log > m", "outputs": {"m": "m"}, "cache": "sample"},
        "p": {"run": "echo y >> log2; cat m > p", "inputs": {"m": "m"}, "outputs": {"p": "p"}},
    }}));
    w.run(&[]).ok().ran(["m", "p"]);
    w.flow(&["run", "flow.json", "--remeasure", "p"]).exits(2).says("matches no sample");
    w.flow(&["run", "flow.json", "--force=zzz"]).exits(2).says("matches no node");
    assert_eq!(
        w.run(&["--remeasure", "m*"]).ok().ran(["m", "p"]).node("m")["reason"],
        "measured again (--remeasure)"
    );
    assert_eq!(w.read("p").trim(), "2");
    w.run(&[]).ok().all_fresh();
}
