//! Runs that are known at one glance to have nothing to do, and everything that must end that knowledge.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::Workspace;

fn workspace() -> Workspace {
    let w = Workspace::with(json!({
        "params": {"word": "one"},
        "steps": {
            "a": {"run": "cat s > a", "inputs": {"s": "s"}, "outputs": {"a": "a"}},
            "b": {"run": "cat a t.sh > b; echo ${params.word} ${env.REFERRED} >> b", "inputs": {"a": "a"}, "outputs": {"b": "b"},
                "tools": ["./t.sh"], "pass_env": ["PASSED"]},
            "all": {"run": ["cat", "${inputs.f}"], "stdout": "o", "inputs": {"f": "data/*.txt"}, "outputs": {"o": "all"}},
            "each": {"matrix": {"f": {"glob": "data/*.txt"}}, "run": "cat ${inputs.f} > ${outputs.o}", "inputs": {"f": "${matrix.f}"},
                "outputs": {"o": "each/${matrix.f.name}"}},
            "maybe": {"run": "test ! -s s2 || cp s2 maybe", "inputs": {"s": "s2"}, "outputs": {"o": {"path": "maybe", "optional": true}}},
        }
    }))
    .env("REFERRED", "1")
    .env("PASSED", "1");
    w.script("t.sh", "echo tool")
        .write("s", "1")
        .write("s2", "")
        .write("data/x.txt", "x")
        .write("params.json", "{}");
    w
}

/// One run; whether it was known at a glance, and how many nodes were fresh, ran, or were restored.
fn run(w: &Workspace, args: &[&str]) -> (bool, u64, u64, u64) {
    let all: Vec<&str> = ["run", "flow.json", "--json", "--events", "events", "--params", "params.json"]
        .iter()
        .chain(args)
        .copied()
        .collect();
    let json: Value = w.flow(&all).ok().json();
    let count = |outcome: &str| json["counts"][outcome].as_u64().unwrap();
    let events = w.read("events");
    let glance = events.contains("all_fresh") && !events.contains("node_finished");
    (glance, count("fresh"), count("ran"), count("restored"))
}

/// Runs until a run is known at a glance: files must be older than a tick.
fn settle(w: &Workspace) {
    for _ in 0..50 {
        if run(w, &[]).0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no run was known at a glance");
}

#[test]
fn a_glance_says_what_a_look_would() {
    let w = workspace();
    assert_eq!(run(&w, &[]), (false, 0, 5, 0));
    settle(&w);
    assert_eq!(run(&w, &[]), (true, 5, 0, 0));
    // more is shown than a glance knows, or something else is asked
    assert_eq!(w.run(&[]).ok().json()["nodes"].as_array().unwrap().len(), 5);
    assert_eq!(w.flow(&["run", "flow.json", "-q", "--params", "params.json", "b"]).ok().stderr, "");
    // it is a run like any other in the log
    assert!(w.flow(&["log"]).ok().stdout.lines().filter(|line| line.contains("5 fresh")).count() >= 2);
}

#[test]
fn whatever_decides_a_result_ends_it() {
    let w = workspace();
    run(&w, &[]);
    let set_back = |path: &str, text: &str| {
        let stamp = std::fs::metadata(w.path(path)).unwrap().modified().unwrap();
        w.write(path, text);
        std::fs::File::options().append(true).open(w.path(path)).unwrap().set_modified(stamp).unwrap();
    };
    // what changes, how, and how many nodes then run or are restored
    type Case<'a> = (&'a str, &'a dyn Fn(), (u64, u64));
    let changes: [Case<'_>; 12] = [
        (
            "an input",
            &|| {
                w.write("s", "2");
            },
            (2, 0),
        ),
        ("an input of equal size, its mtime put back", &|| set_back("s", "3"), (2, 0)),
        ("an output, its mtime put back", &|| set_back("a", "X"), (0, 1)),
        (
            "an output gone",
            &|| {
                w.remove("all");
            },
            (0, 1),
        ),
        (
            "a new file that two patterns match",
            &|| {
                w.write("data/y.txt", "y");
            },
            (2, 0),
        ),
        (
            "it is gone again",
            &|| {
                w.remove("data/y.txt");
            },
            (0, 1),
        ),
        (
            "a tool",
            &|| {
                w.script("t.sh", "echo other");
            },
            (1, 0),
        ),
        (
            "an optional output appears",
            &|| {
                w.write("s2", "now");
            },
            (1, 0),
        ),
        (
            "it is deleted",
            &|| {
                w.remove("maybe");
            },
            (0, 1),
        ),
        (
            "the params file",
            &|| {
                w.write("params.json", r#"{"word": "two"}"#);
            },
            (1, 0),
        ),
        (
            "the workflow",
            &|| {
                let text = w.read("flow.json").replace("cat s > a", "cat s > a; true");
                w.write("flow.json", text);
            },
            (1, 0),
        ),
        (
            "a touch",
            &|| {
                let file = std::fs::File::options().append(true).open(w.path("s")).unwrap();
                file.set_modified(std::time::SystemTime::now()).unwrap();
            },
            (0, 0),
        ),
    ];
    for (what, change, expected) in changes {
        settle(&w);
        change();
        let (glance, _, ran, restored) = run(&w, &[]);
        assert_eq!((ran, restored), expected, "{what}");
        assert!(!glance || what == "a touch", "{what}");
    }
    settle(&w);
    let all = |w: &Workspace| run(w, &[]);
    let w = w.env("PASSED", "2");
    assert_eq!(all(&w).2, 1, "a passed variable");
    settle(&w);
    let w = w.env("REFERRED", "2");
    assert_eq!(all(&w).2, 1, "a variable in a reference");
    settle(&w);
    assert_eq!(run(&w, &["--set", "word=three"]).2, 1, "a parameter");
}

#[test]
fn nodes_that_always_have_something_to_do_are_never_taken_for_fresh() {
    let w = Workspace::with(json!({"steps": {
        "n": {"run": "date +%N > n", "outputs": {"n": "n"}, "cache": "never"},
        "p": {"run": "echo 1 > p", "outputs": {"p": "p"}},
    }}));
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(
            w.flow(&["run", "flow.json", "--json"]).ok().json()["counts"]["ran"].as_u64().map(|n| n > 0),
            Some(true)
        );
    }
}
