//! `flow run --check-determinism`: nodes run twice more, and what they make is compared; results stay as they are.

use serde_json::{Value, json};

use crate::support::{LONG, Run, Workspace, names_in, nothing_left};

fn checked(w: &Workspace, args: &[&str]) -> Run {
    w.run(&[&["--check-determinism", "*"], args].concat())
}

/// The report of one node.
#[track_caller]
fn verdict(run: &Run, id: &str) -> Value {
    let json = run.json();
    let nodes = json["determinism"]["nodes"].as_array().expect("determinism").clone();
    nodes.into_iter().find(|node| node["id"] == id).unwrap_or_else(|| panic!("no {id} in {}", run.stdout))
}

#[test]
fn the_same_bytes_twice_are_the_same_and_nothing_is_left() {
    let w = Workspace::with(json!({"steps": {
        "shell": {"run": "tr a-z A-Z < in > ${outputs.o}; echo ran >> count", "inputs": {"i": "in"}, "outputs": {"o": "up"}},
        "own": {"run": "cp up own; mkdir tree; cp up tree/x", "inputs": {"u": "${steps.shell.o}"}, "outputs": {"o": "own", "t": "tree/"}},
        "list": {"run": ["sort", "own"], "stdout": "o", "outputs": {"o": "sorted"}},
        "stage": {"uses": "csv.join", "inputs": {"left": "l.csv", "right": "l.csv"}, "with": {"on": ["k"]}, "outputs": {"csv": "joined.csv", "report": "report.json"}}}}));
    w.write("in", "a\nb\n").write("l.csv", "k,v\n1,2\n");
    let run = checked(&w, &[]).ok().ran(["shell", "own", "list", "stage"]);
    for node in ["shell", "own", "list", "stage"] {
        assert_eq!(verdict(&run, node)["verdict"], "same", "{node}: {}", run.stderr);
        assert_eq!(verdict(&run, node)["seconds"].as_array().unwrap().len(), 2);
    }
    assert_eq!(
        run.json()["determinism"]["counts"],
        json!({"same": 4, "differs": 0, "failed": 0, "skipped": 0})
    );
    assert_eq!(w.read("count"), "ran\nran\nran\n", "once for the result, twice for the comparison");
    assert_eq!(
        (w.read("up"), w.read("own"), w.read("tree/x")),
        ("A\nB\n".into(), "A\nB\n".into(), "A\nB\n".into())
    );
    assert_eq!(names_in(&w.path("cache/tmp")), [""; 0]);
    // what is fresh is compared, too, and stays fresh
    let run = checked(&w, &[]).ok().ran([]);
    assert_eq!(run.json()["determinism"]["counts"]["same"], 4);
    w.run(&[]).ok().all_fresh();
    nothing_left(&w, LONG);
}

#[test]
fn a_difference_is_told_with_its_place_both_digests_and_a_likely_cause() {
    let w = Workspace::with(json!({"steps": {
        "random": {"run": "echo head > ${outputs.o}; head -c 8 /dev/urandom | od -An -tx1 >> ${outputs.o}", "outputs": {"o": "out/r"}},
        "time": {"run": "date +%Y-%m-%dT%H:%M:%S.%N > ${outputs.o}", "outputs": {"o": "out/t"}},
        "path": {"run": "echo made ${outputs.o} > ${outputs.o}", "outputs": {"o": "out/p"}},
        "tree": {"run": "mkdir -p tree/deep; echo same > tree/a; echo $$ > tree/deep/pid; touch tree/$$", "outputs": {"o": "tree/"}},
        "after": {"run": "cp out/r copy", "inputs": {"r": "${steps.random.o}"}, "outputs": {"o": "copy"}}}}));
    w.run(&[]).ok();
    let before = (w.read("out/r"), w.read("out/t"), w.tree("tree"));
    let run = checked(&w, &["-j", "4"]).exits(1).ran([]);
    assert_eq!((w.read("out/r"), w.read("out/t"), w.tree("tree")), before, "the result stays as it is");
    let found = verdict(&run, "random");
    assert_eq!(found["verdict"], "differs");
    let difference = &found["differences"][0];
    assert_eq!(
        (&difference["output"], &difference["path"], &difference["line"]),
        (&json!("o"), &json!("out/r"), &json!(2))
    );
    assert!(difference["offset"].as_u64().unwrap() >= 5);
    let digest = |name: &str| difference[name].as_str().unwrap().to_owned();
    assert!(
        digest("first").starts_with("b3:")
            && digest("second").starts_with("b3:")
            && digest("first") != digest("second")
    );
    let hint = |node: &str| verdict(&run, node)["differences"][0]["hints"][0].as_str().unwrap().to_owned();
    assert!(hint("random").contains("fixed seed"), "{}", hint("random"));
    assert!(hint("time").contains("time stamp"), "{}", hint("time"));
    assert!(hint("path").contains("scratch directory"), "{}", hint("path"));
    let tree = &verdict(&run, "tree")["differences"][0];
    assert!(tree["files"].as_u64().unwrap() >= 3, "{tree}");
    assert!(tree["file"].is_string(), "{tree}");
    assert_eq!(verdict(&run, "after")["verdict"], "same");
    let run = run
        .says("differs")
        .says("output 'o' (out/r): content from byte")
        .says("determinism: 1 same, 4 differs");
    assert!(run.stderr.contains("help: it looks like a time stamp"), "{}", run.stderr);
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_recorded_result_that_is_another_shows_what_is_not_declared() {
    let w =
        Workspace::with(json!({"steps": {"s": {"run": "cat config > ${outputs.o}", "outputs": {"o": "o"}}}}));
    w.write("config", "1\n");
    w.run(&[]).ok();
    w.write("config", "2\n");
    let run = checked(&w, &[]).exits(1).ran([]).says("the recorded result is another");
    assert!(verdict(&run, "s")["differences"][0]["hints"][0].as_str().unwrap().contains("--strict"));
    assert_eq!(w.read("o"), "1\n");
}

#[test]
fn what_is_not_meant_to_repeat_is_skipped_with_the_reason() {
    let w = Workspace::with(json!({
        "services": {"web": {"uses": "sim.http", "with": {"dir": "www"}}},
        "steps": {
            "sample": {"run": "date +%N > ${outputs.o}", "cache": "sample", "outputs": {"o": "a"}},
            "never": {"run": "date +%N > ${outputs.o}", "cache": "never", "outputs": {"o": "b"}},
            "fetch": {"uses": "http.fetch", "with": {"url": "${services.web.url}/x"}, "outputs": {"body": "c"}},
            "served": {"run": "echo ${services.web.port} > ${outputs.o}", "outputs": {"o": "d"}},
            "bad": {"run": "exit 3", "allow_failure": true, "outputs": {"o": "e"}}}}));
    w.write("www/x", "1");
    let run = checked(&w, &[]).ok();
    for (node, why) in [
        ("sample", "policy sample"),
        ("never", "policy never"),
        ("fetch", "services"),
        ("served", "services"),
        ("bad", "it is failed"),
    ] {
        let found = verdict(&run, node);
        assert_eq!(found["verdict"], "skipped", "{node}");
        assert!(found["reason"].as_str().unwrap().contains(why), "{found}");
    }
    assert_eq!(run.json()["determinism"]["counts"]["skipped"], 5);
}

#[test]
fn only_what_matches_is_compared_and_what_it_takes_is_brought() {
    let w = Workspace::with(json!({"steps": {
        "first": {"run": "echo $$ > ${outputs.o}", "outputs": {"o": "first"}},
        "last": {"run": "cat first > ${outputs.o}", "inputs": {"f": "${steps.first.o}"}, "outputs": {"o": "last"}}}}));
    w.run(&[]).ok();
    w.remove("first");
    let run = w.run(&["last", "--check-determinism", "last"]).ok().restored(["first"]);
    assert_eq!(run.json()["determinism"]["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(verdict(&run, "last")["verdict"], "same");
    w.run(&["--check-determinism", "lost*"]).exits(2).says("--check-determinism=lost* matches no node");
    w.run(&["last", "--check-determinism", "first"]).exits(1).says("differs");
    // without the option there is no word of it
    assert!(w.run(&[]).ok().json().get("determinism").is_none());
}

#[test]
fn a_run_that_fails_only_now_and_then_is_told() {
    let w = Workspace::with(json!({"steps": {
        "once": {"run": "test ! -e made; touch made; echo x > ${outputs.o}", "outputs": {"o": "o"}},
        "spoils": {"run": "echo $$ >> in; cat in > spoilt", "inputs": {"i": "in"}, "outputs": {"o": "spoilt"}},
        "place": {"run": "test ! -e twice; touch twice; echo new > place", "outputs": {"o": "place"}}}}));
    w.write("in", "1\n");
    w.run(&["once", "place"]).ok();
    let run = w.run(&["once", "place", "--check-determinism", "*"]).exits(1).says("exit status 1");
    assert_eq!(verdict(&run, "once")["verdict"], "failed");
    assert_eq!(verdict(&run, "place")["verdict"], "failed");
    assert_eq!(w.read("place"), "new\n");
    w.run(&["once", "place"]).ok().all_fresh();
}

#[test]
fn two_runs_behind_the_wall() {
    let w =
        Workspace::with(json!({"steps": {"s": {"run": "cat secret > ${outputs.o}", "outputs": {"o": "o"}}}}));
    w.write("secret", "1\n");
    w.run(&[]).ok();
    let run = checked(&w, &["--strict"]);
    if run.code == Some(4) {
        return eprintln!("skipped: {}", run.stderr);
    }
    let found = verdict(&run.exits(1), "s");
    assert!(found["reason"].as_str().unwrap().contains("read secret"), "{found}");
}
