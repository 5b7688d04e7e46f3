//! `--adopt PATTERN`: what lies in the declared places becomes the result, and nothing runs.

use serde_json::json;

use crate::support::Workspace;

/// A workspace in which another tool has made everything but `c`.
fn made_elsewhere() -> Workspace {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo a >> log; cat s > ${outputs.o}; cp s ${outputs.d}", "inputs": {"s": "s"},
            "outputs": {"o": "a", "d": "dir/", "maybe": {"path": "maybe", "optional": true}}},
        "b": {"run": "echo b >> log; cat a > ${outputs.o}", "inputs": {"i": "a"}, "outputs": {"o": "b"}},
        "c": {"run": "echo c >> log; cat b > ${outputs.o}", "inputs": {"i": "b"}, "outputs": {"o": "c"}},
    }}));
    w.write("s", "1").write("a", "made by make").write("dir/x", "x").write("b", "b by make");
    w
}

#[test]
fn what_is_there_is_the_result_and_stays_it() {
    let w = made_elsewhere();
    let planned = w.flow(&["plan", "flow.json", "--adopt", "{a,b}"]).ok().stdout;
    assert!(planned.contains("would_adopt  a") && planned.contains("would_adopt  b"), "{planned}");
    assert!(planned.contains("would_run    c"), "what is adopted is known before: {planned}");

    let run = w.flow(&["run", "flow.json", "--adopt", "{a,b}"]).ok();
    for line in
        ["fresh     a  adopted: never ran here", "fresh     b  adopted: never ran here", "1 ran, 2 fresh"]
    {
        assert!(run.stderr.contains(line), "{line} in\n{}", run.stderr);
    }
    assert_eq!((w.read("log"), w.read("c")), ("c\n".to_owned(), "b by make".to_owned()));
    w.run(&[]).ok().all_fresh();
    // it is in the cache
    w.remove("a").remove("dir").remove("b");
    w.run(&[]).ok().restored(["a", "b"]);
    assert_eq!((w.read("a"), w.read("dir/x")), ("made by make".to_owned(), "x".to_owned()));

    // told wherever one asks
    let log = w.flow(&["log", "--json"]).ok().json();
    let adopting = log[0]["run"].as_str().unwrap();
    let shown = w.flow(&["log", "show", adopting, "--json"]).ok().json();
    let adopted: Vec<&str> = shown["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["adopted"] == true)
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    assert_eq!(adopted, ["a", "b"]);
    let explained = w.flow(&["explain", "flow.json", "a"]).ok().stdout;
    assert!(explained.contains(&format!("adopted:  what lay there in run {adopting}")), "{explained}");
    let listed = w.flow(&["ls", "flow.json"]).ok().stdout;
    let marked: Vec<&str> = listed.lines().filter(|line| line.ends_with("adopted")).collect();
    assert!(marked.len() == 4 && marked.iter().all(|line| !line.starts_with('c')), "{listed}");

    // until it runs
    w.write("s", "2");
    w.run(&[]).ok().ran(["a", "b", "c"]);
    assert!(!w.flow(&["explain", "flow.json", "a"]).ok().stdout.contains("adopted"));
    assert!(!w.flow(&["ls", "flow.json"]).ok().stdout.contains("adopted"));
}

#[test]
fn all_outputs_have_to_be_there_and_only_nodes_without_a_result_are_adopted() {
    let w = made_elsewhere();
    w.remove("dir");
    let run = w.run(&["--adopt", "a"]).exits(1).failed(["a"]);
    assert_eq!(run.node("a")["error"], "cannot be adopted: output 'd' (dir) is not there");
    assert!(!w.has("log"));
    w.flow(&["run", "flow.json", "--adopt", "nosuch"])
        .exits(2)
        .says("matches no node that has a result to keep");

    w.write("dir", "a file");
    let run = w.run(&["--adopt", "a"]).exits(1);
    assert!(
        run.node("a")["error"].as_str().unwrap().contains("was declared as a directory"),
        "{}",
        run.stdout
    );
    w.remove("dir").write("dir/x", "x").write("maybe", "too");
    w.run(&["--adopt", "*"]).exits(1).failed(["c"]);
    w.run(&["--adopt", "a"]).ok().ran(["c"]);
    assert_eq!(w.read("maybe"), "too");

    // a result that stands is not replaced by what lies there: that is restored
    w.write("b", "edited");
    let run = w.run(&["--adopt", "*"]).ok().restored(["b"]);
    assert_eq!(run.json()["counts"]["fresh"], 2);
    assert_eq!(w.read("b"), "b by make");
    // a changed key is: b's command is another one, and what b made stands for it
    let mut workflow = w.json("flow.json");
    workflow["steps"]["b"]["run"] = "echo b >> log; tac a > ${outputs.o}".into();
    w.workflow(workflow);
    let run = w.run(&["--adopt", "b"]).ok().outcome_is("fresh", ["a", "b", "c"]);
    assert_eq!(run.node("b")["reason"], "adopted: command changed");
    assert_eq!(run.node("b")["adopted"], true);
}

#[test]
fn what_an_earlier_success_made_comes_from_the_cache() {
    let step = |command: &str| json!({"steps": {"a": {"run": command, "outputs": {"o": "o", "log": {"path": "all/", "append": true}}}}});
    let w = Workspace::with(step("echo 1 > ${outputs.o}; echo 1 > ${outputs.log}/one"));
    w.run(&[]).ok().ran(["a"]);
    w.workflow(step("echo 2 > ${outputs.o}; echo 2 > ${outputs.log}/two"));
    w.remove("o").remove("all/one");
    w.run(&["--adopt", "a"]).ok().outcome_is("fresh", ["a"]);
    assert_eq!((w.read("o"), w.read("all/one")), ("1\n".to_owned(), "1\n".to_owned()));
    w.run(&[]).ok().all_fresh();
    // what another tool put into an append directory is not known to be this node's
    let w = Workspace::with(step("true"));
    w.write("o", "1").write("all/one", "1");
    let run = w.run(&["--adopt", "a"]).exits(1);
    assert!(run.node("a")["error"].as_str().unwrap().contains("append directory 'log' (all) is not known"));
}

#[test]
fn what_a_command_with_a_depfile_reads_is_not_known_before_it_ran() {
    let w = Workspace::with(
        json!({"steps": {"a": {"run": "echo 1 > ${outputs.o}; echo 'o: s' > dep", "depfile": "dep",
        "outputs": {"o": "o"}}}}),
    );
    w.write("s", "1").write("o", "by make");
    w.flow(&["run", "flow.json", "--adopt", "a"])
        .exits(2)
        .says("--adopt=a matches no node that has a result to keep");
    w.run(&[]).ok().ran(["a"]);
}
