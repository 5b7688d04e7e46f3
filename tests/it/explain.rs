//! `flow explain` and the reason of a run name what changed; what changes the key is always visible.

use std::sync::Arc;

use flow::api::Catalog;
use flow::engine::{self, Interrupts, Project, RunOptions, Session};
use flow::event::{Event, Sink};
use flow::front::LoadRequest;
use flow::front::builder::WorkflowBuilder;
use serde_json::{Value, json};

use crate::support::Workspace;

/// What `flow explain` says of a node.
struct Explained {
    key: String,
    changed: Vec<String>,
    text: String,
}

fn explain(w: &Workspace, node: &str) -> Explained {
    let text = w.flow(&["explain", "flow.json", node]).ok().stdout;
    let lines = |name: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix(name)).map(|s| s.trim().to_owned()).collect()
    };
    let changed = lines("changed:").into_iter().filter(|line| line != "nothing").collect();
    Explained { key: lines("key now:").remove(0), changed, text }
}

/// `explain` says exactly this, and the run that follows gives it as its reason.
#[track_caller]
fn changed(w: &Workspace, node: &str, expected: &str) {
    let explained = explain(w, node);
    assert_eq!(explained.changed, [expected], "{}", explained.text);
    assert_eq!(w.run(&[]).ok().node(node)["reason"], expected);
    assert_eq!(explain(w, node).changed, [""; 0]);
    w.run(&[]).ok().all_fresh();
}

#[test]
fn an_input_and_a_command() {
    let a = |run: &str| json!({"steps": {"a": {"run": run, "inputs": {"s": "s"}, "outputs": {"a": "a"}}}});
    let w = Workspace::with(a("cat s > a"));
    w.write("s", "1");
    assert!(explain(&w, "a").text.contains("never ran here"));
    w.run(&[]).ok();
    assert!(explain(&w, "a").text.contains("changed:  nothing"));
    w.write("s", "2");
    changed(&w, "a", "input s changed (s)");
    w.workflow(a("cat s s > a"));
    changed(&w, "a", "command changed");
}

#[test]
fn a_parameter_of_a_stage() {
    let with = |on: &str| {
        json!({"params": {"on": [on]}, "steps": {"j": {"uses": "csv.join",
            "inputs": {"left": "l.csv", "right": "r.csv"}, "with": {"on": "${params.on}"},
            "outputs": {"csv": "j.csv"}}}})
    };
    let w = Workspace::with(with("k"));
    w.write("l.csv", "k,m,a\n1,1,x\n").write("r.csv", "k,m,b\n1,1,y\n");
    w.run(&[]).ok().ran(["j"]);
    w.workflow(with("m"));
    changed(&w, "j", "parameter on changed");
}

#[test]
fn variables_set_and_passed() {
    let step = |value: &str| {
        json!({"steps": {"a": {"run": "echo $SET $${PASSED:-none} > a", "env": {"SET": value},
            "pass_env": ["PASSED"], "outputs": {"a": "a"}}}})
    };
    let w = Workspace::with(step("1"));
    w.run(&[]).ok();
    assert_eq!(w.read("a"), "1 none\n");
    w.workflow(step("2"));
    changed(&w, "a", "environment variable SET changed");
    let w = w.env("PASSED", "p");
    changed(&w, "a", "environment variable PASSED changed");
    assert_eq!(w.read("a"), "2 p\n");
    // anything else of the environment decides nothing
    let w = w.env("OTHER", "x");
    w.run(&[]).ok().all_fresh();
}

#[test]
fn an_empty_variable_is_not_an_unset_one() {
    let w = Workspace::with(json!({"steps": {"a": {"run": "echo $${X-unset} > a", "pass_env": ["X"],
        "outputs": {"a": "a"}}}}));
    w.run(&[]).ok();
    let w = w.env("X", "");
    changed(&w, "a", "environment variable X changed");
    assert_eq!(w.read("a"), "\n");
}

#[test]
fn a_tool_by_path_by_name_and_by_version() {
    let w = Workspace::with(json!({"steps": {
        "path": {"run": "bin/tool > p", "tools": ["bin/tool"], "outputs": {"o": "p"}},
        "name": {"run": "named > n", "tools": ["named"], "outputs": {"o": "n"}},
        "version": {"run": "bin/v > v", "tools": [{"version": ["bin/v"]}], "outputs": {"o": "v"}},
    }}));
    w.script("bin/tool", "#!/bin/sh\necho 1\n").script("onpath/named", "#!/bin/sh\necho 1\n");
    w.script("bin/v", "#!/bin/sh\necho v1\n");
    let path = format!("{}:{}", w.path("onpath").display(), std::env::var("PATH").unwrap());
    let w = w.env("PATH", path);
    w.run(&[]).ok().ran(["path", "name", "version"]);
    w.script("bin/tool", "#!/bin/sh\necho 2\n");
    changed(&w, "path", "tool bin/tool changed");
    w.script("onpath/named", "#!/bin/sh\necho 2\n");
    changed(&w, "name", "tool named changed");
    // another file, the same answer
    w.script("bin/v", "#!/bin/sh\n# rebuilt\necho v1\n");
    w.run(&[]).ok().all_fresh();
    w.script("bin/v", "#!/bin/sh\necho v2\n");
    changed(&w, "version", "tool bin/v changed");
    assert_eq!((w.read("p"), w.read("n"), w.read("v")), ("2\n".into(), "2\n".into(), "v2\n".into()));
}

#[test]
fn a_tool_that_is_missing_or_a_probe_that_fails_is_an_error_and_no_key() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo > a", "tools": ["no-such-tool"], "outputs": {"o": "a"}},
    }}));
    w.run(&[]).exits(4).failed(["a"]).says("no-such-tool");
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo > a", "tools": [{"version": ["sh", "-c", "echo sick >&2; exit 3"]}], "outputs": {"o": "a"}},
    }}));
    w.run(&[]).exits(4).failed(["a"]).says("sick");
}

#[test]
fn a_missing_and_a_changed_output() {
    let w = Workspace::with(json!({"steps": {"a": {"run": "echo x > o/a", "outputs": {"a": "o/a"}}}}));
    w.run(&[]).ok();
    w.remove("o/a");
    let explained = explain(&w, "a");
    assert!(explained.text.contains("output o/a is missing"), "{}", explained.text);
    assert_eq!(explained.changed, [""; 0]);
    assert_eq!(w.run(&[]).ok().restored(["a"]).node("a")["reason"], "output o/a is missing");
    w.write("o/a", "y");
    assert!(explain(&w, "a").text.contains("output o/a was changed"));
    assert_eq!(w.run(&[]).ok().restored(["a"]).node("a")["reason"], "output o/a was changed");
}

#[test]
fn a_service_by_its_definition_never_by_its_port() {
    let service = |dir: &str, extra: Value| {
        let mut service = json!({"uses": "sim.http", "with": {"dir": dir}});
        for (key, value) in extra.as_object().unwrap() {
            service[key] = value.clone();
        }
        json!({
            "services": {"web": service},
            "steps": {"a": {"run": ["sh", "-c", "echo \"$1\" | cut -d: -f1 > a", "sh", "${services.web.url}"],
                "outputs": {"a": "a"}}},
        })
    };
    let w = Workspace::with(service("one", json!({})));
    w.write("one/x", "1").write("two/x", "1");
    w.run(&[]).ok().ran(["a"]);
    let first = explain(&w, "a");
    assert!(first.text.contains("${services.web.url}"), "{}", first.text);
    // a served file is not in its identity, nor is the port
    w.write("one/x", "2");
    w.workflow(service("one", json!({"port": 45_871})));
    let other = explain(&w, "a");
    assert_eq!((other.key, other.changed), (first.key, vec![]));
    w.run(&[]).ok().all_fresh();
    w.workflow(service("two", json!({})));
    changed(&w, "a", "service web changed");
}

#[test]
fn identity_files_of_a_service_are_in_the_key() {
    let w = Workspace::with(json!({
        "services": {"web": {"uses": "sim.http", "with": {"dir": "www"}, "identity": {"files": ["www/*"]}}},
        "steps": {"a": {"run": ["sh", "-c", "echo > a", "sh", "${services.web.url}"], "outputs": {"a": "a"}}},
    }));
    w.write("www/x", "1");
    w.run(&[]).ok().ran(["a"]);
    w.write("www/x", "2");
    changed(&w, "a", "service web changed");
}

/// Takes nothing.
struct Silent;

impl Sink for Silent {
    fn emit(&self, _event: Event) {}

    fn begun(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}

#[test]
fn the_version_of_a_stage() {
    let w = Workspace::new();
    let open = |version: u32| {
        let mut wf = WorkflowBuilder::new("versions");
        wf.step("a")
            .uses_fn("my.write", version, move |ctx| ctx.write("o", version.to_string().as_bytes()))
            .output("o", "o");
        let mut catalog = Catalog::default();
        let request = LoadRequest { file: wf.file(), root: w.root().to_owned(), ..LoadRequest::default() };
        let loaded = wf.load(&request, &mut catalog).unwrap();
        Project::with_loaded(loaded, w.root(), None, &catalog).unwrap()
    };
    let run = |version: u32| {
        let project = open(version);
        let mut session =
            Session::new(project, RunOptions::default(), Arc::new(Silent), Interrupts::default()).unwrap();
        assert_eq!(engine::run(&mut session).unwrap().failure, None);
    };
    run(1);
    assert_eq!(w.read("o"), "1");
    assert!(engine::explain(&open(1), "a").unwrap().changed.is_empty());
    assert_eq!(engine::explain(&open(2), "a").unwrap().changed, ["stage version 1 -> 2"]);
    run(2);
    assert_eq!(w.read("o"), "2");
}

#[test]
fn inputs_that_come_go_or_change_their_order_are_named() {
    let w = Workspace::with(json!({"steps": {
        "all": {"run": ["cat", "${inputs.in}"], "inputs": {"in": "in/*"}, "stdout": "o", "outputs": {"o": "all"}},
    }}));
    w.write("in/a", "a").write("in/b", "b");
    w.run(&[]).ok();
    w.write("in/c", "c");
    changed_one_of(&w, "all", "input in: in/c added");
    w.remove("in/a");
    changed_one_of(&w, "all", "input in: in/a removed");
    w.write("in/b", "B");
    changed(&w, "all", "input in changed (in/b)");

    let listed = |files: [&str; 2]| {
        json!({"steps": {"all": {"run": ["cat", "${inputs.in}"], "inputs": {"in": files}, "stdout": "o",
            "outputs": {"o": "all"}}}})
    };
    w.workflow(listed(["in/b", "in/c"]));
    w.run(&[]).ok();
    w.workflow(listed(["in/c", "in/b"]));
    changed(&w, "all", "input in: order of files changed");
    assert_eq!(w.read("all"), "cB");
}

/// The number of files may be said, too; the reason leaves it out.
#[track_caller]
fn changed_one_of(w: &Workspace, node: &str, expected: &str) {
    let explained = explain(w, node);
    assert!(explained.changed.iter().any(|line| line == expected), "{}", explained.text);
    assert_eq!(w.run(&[]).ok().ran([node]).node(node)["reason"], expected);
}

#[test]
fn equal_names_outside_the_root_are_told_apart() {
    let outside = Workspace::new();
    outside.write("one/f", "1").write("two/f", "2");
    let file = |dir: &str| outside.path(&format!("{dir}/f")).display().to_string();
    let w = Workspace::with(json!({"steps": {"all": {"run": ["cat", "${inputs.in}"],
        "inputs": {"in": [file("one"), file("two")]}, "stdout": "o", "outputs": {"o": "all"}}}}));
    w.run(&[]).ok();
    assert_eq!(w.read("all"), "12");
    outside.write("one/f", "2");
    let explained = explain(&w, "all");
    assert_eq!(explained.changed.len(), 1, "{}", explained.text);
    w.run(&[]).ok().ran(["all"]);
    assert_eq!(w.read("all"), "22");
}

#[test]
fn literal_text_is_never_taken_for_a_reference() {
    // two different commands must never share a key
    let text = |run: Value, x: &str| json!({"params": {"x": x}, "steps": {"a": {"run": run, "outputs": {"o": "o"}}}});
    for (one, two) in [
        (text(json!("echo ${params.x} > o"), "a' 'b"), text(json!("echo 'a' 'b' > o"), "")),
        (
            text(json!(["sh", "-c", "printf %s \"$1\" > o", "sh", "$${workflow.dir}"]), ""),
            text(json!(["sh", "-c", "printf %s \"$1\" > o", "sh", "${workflow.dir}"]), ""),
        ),
    ] {
        let w = Workspace::with(one);
        w.run(&[]).ok().ran(["a"]);
        let first = w.read("o");
        let key = explain(&w, "a").key;
        w.workflow(two);
        assert_ne!(explain(&w, "a").key, key);
        w.run(&[]).ok().ran(["a"]);
        assert_ne!(w.read("o"), first);
    }
}

/// The same with one object of the step written in another order.
fn reordered(base: &Value, key: &str) -> Value {
    let mut edited = base.clone();
    let map = edited["steps"]["x"][key].as_object_mut().unwrap();
    let turned = map.clone().into_iter().rev().collect();
    *map = turned;
    edited
}

/// A step and all single edits of it: (what, whether the key changes, the edited workflow).
fn edits() -> (Value, Vec<(&'static str, bool, Value)>) {
    let base = json!({
        "env": {"TOP": "1"},
        "params": {"p": "1"},
        "services": {"web": {"uses": "sim.http", "with": {"dir": "in"}}},
        "resources": {"pools": {"db": 2}},
        "steps": {
            "x": {
                "run": ["sh", "s.sh", "${params.p}", "${inputs.one}", "${services.web.url}", "${outputs.o}"],
                "cwd": "sub", "stdin": "one", "stdout": "std",
                "inputs": {"one": "in/a", "all": ["in/a", "in/b"]},
                "outputs": {"o": "o", "std": "std", "opt": {"path": "opt", "optional": true}},
                "env": {"A": "1", "B": "2"}, "pass_env": ["P"], "tools": ["cat", "sh"],
            },
            "other": {"run": ["true"]},
        },
    });
    let edit = |pointer: &str, value: Value| {
        let mut edited = base.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = edited.pointer_mut(parent).unwrap();
        match parent {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            other => other[key] = value,
        }
        edited
    };
    let step = |key: &str, value: Value| edit(&format!("/steps/x/{key}"), value);
    let list = vec![
        ("argument", true, step("run/0", json!("bash"))),
        ("parameter", true, edit("/params/p", json!("2"))),
        ("cwd", true, step("cwd", json!("in"))),
        ("stdin", true, step("stdin", json!(null))),
        ("stdout", true, step("stdout", json!("o"))),
        ("input path", true, step("inputs/one", json!("in/b"))),
        ("input order", true, step("inputs/all", json!(["in/b", "in/a"]))),
        ("input more", true, step("inputs/all", json!(["in/a", "in/b", "in/c"]))),
        ("input less", true, step("inputs/all", json!(["in/a"]))),
        ("input twice", true, step("inputs/all", json!(["in/a", "in/b", "in/a"]))),
        ("input one or list", true, step("inputs/all", json!("in/a"))),
        ("input added", true, step("inputs/new", json!("in/c"))),
        ("env value", true, step("env/A", json!("2"))),
        ("env type", true, step("env/A", json!(1))),
        ("env added", true, step("env/C", json!("3"))),
        ("env of the file", true, edit("/env/TOP", json!("2"))),
        ("pass_env", true, step("pass_env", json!(["P", "Q"]))),
        ("tools", true, step("tools", json!(["cat", "sh", "tr"]))),
        ("output order", false, reordered(&base, "outputs")),
        ("inputs order", false, reordered(&base, "inputs")),
        ("tool order", false, step("tools", json!(["sh", "cat"]))),
        ("service", true, edit("/services/web/with/dir", json!("sub"))),
        ("service env", true, edit("/services/web/env", json!({"Z": "1"}))),
        ("service port", false, edit("/services/web/port", json!(45_872))),
        ("service stop", false, edit("/services/web/stop", json!("1s"))),
        ("output path", false, step("outputs/std", json!("elsewhere/std"))),
        (
            "output flag",
            true,
            step("outputs/opt", json!({"path": "opt", "optional": true, "on_failure": true})),
        ),
        ("output kind", true, step("outputs/opt", json!({"path": "opt/", "optional": true}))),
        ("output added", true, step("outputs/new", json!({"path": "new", "optional": true}))),
        ("doc", false, step("doc", json!("a doc"))),
        ("resources", false, step("resources", json!({"cpu": 2, "pool": {"db": 1}}))),
        ("retry", false, step("retry", json!({"max": 1}))),
        ("timeout", false, step("timeout", json!("1m"))),
        ("allow_failure", false, step("allow_failure", json!(true))),
        ("needs", false, step("needs", json!(["other"]))),
        ("policy", false, step("cache", json!("pure"))),
    ];
    (base, list)
}

#[test]
fn whatever_changes_the_key_is_seen_and_nothing_else_is() {
    let (base, edits) = edits();
    let w = Workspace::with(base.clone());
    w.write("in/a", "a").write("in/b", "b").write("in/c", "c").write("sub/.keep", "");
    w.write("s.sh", "echo > \"$4\"\n").write("sub/s.sh", "echo > \"$4\"; cat\n");
    w.run(&["x"]).ok().ran(["x"]);
    let before = explain(&w, "x");
    assert_eq!(before.changed, [""; 0], "{}", before.text);
    for (what, changes, mut workflow) in edits {
        if what == "stdin" {
            workflow["steps"]["x"].as_object_mut().unwrap().remove("stdin");
        }
        if what == "input one or list" {
            // nothing else may change
            workflow["steps"]["x"]["inputs"]["all"] = json!("in/a");
        }
        w.workflow(workflow);
        let now = explain(&w, "x");
        assert_eq!(now.key != before.key, changes, "{what}: {}", now.text);
        assert_eq!(!now.changed.is_empty(), changes, "{what}: {}", now.text);
    }
    for (what, path, text) in [("content", "in/a", "A"), ("script", "s.sh", "# other\n")] {
        w.workflow(base.clone());
        w.write(path, text);
        let now = explain(&w, "x");
        assert!(now.key != before.key && !now.changed.is_empty(), "{what}: {}", now.text);
    }
    w.script("in/b", "b");
    assert!(explain(&w, "x").text.contains("executable"));
}

#[test]
fn a_node_with_the_key_of_another_says_whose_result_it_takes() {
    let step = |path: &str| json!({"run": "echo 1 > ${outputs.o}", "outputs": {"o": path}});
    let w = Workspace::with(json!({"steps": {"a": step("a"), "b": step("b")}}));
    let run = w.run(&["-j", "1"]).ok().ran(["a"]).restored(["b"]);
    assert_eq!(run.node("b")["reason"], "never ran here, and a has the same key");
    w.remove("b");
    assert_eq!(w.run(&[]).ok().restored(["b"]).node("b")["reason"], "output b is missing");
}
