//! Depfiles: what a command says it read is part of what decides its result.

use serde_json::{Value, json};

use crate::support::Workspace;

/// A compiler: `include NAME` (NAME relative to where it runs) stands for that file. It writes what it read as cc does.
const BUILD: &str = r#"#!/bin/sh
set -eu
src=$1; out=$2; dep=$3
: > "$out"
printf 'out.o:' > "$dep"
walk() {
  printf ' \\\n  %s' "$1" >> "$dep"
  while read -r word name; do
    case "$word" in
      include) walk "$name" ;;
      *) echo "$word" >> "$out" ;;
    esac
  done < "$1"
}
walk "$src"
echo >> "$dep"
"#;

fn step() -> Value {
    json!({
        "run": ["./build", "src/a.c", "${outputs.obj}", "${outputs.obj}.d"],
        "outputs": {"obj": "out/a.o"},
        "depfile": "${outputs.obj}.d",
    })
}

/// `src/a.c` includes `inc/a.h`, which includes `inc/b.h`.
fn includes() -> Workspace {
    let w = Workspace::with(json!({"steps": {"cc": step()}}));
    w.script("build", BUILD);
    w.write("src/a.c", "include inc/a.h\nmain\n").write("inc/a.h", "include inc/b.h\na\n");
    w.write("inc/b.h", "b\n").write("inc/other.h", "other\n");
    w
}

#[track_caller]
fn reason(w: &Workspace, expected: &str) {
    let plan = w.flow(&["plan", "flow.json", "--json"]).ok().json();
    assert_eq!(plan["nodes"][0]["reason"], expected);
    let run = w.run(&[]).ok().ran(["cc"]);
    assert_eq!(run.node("cc")["reason"], expected);
}

#[test]
fn what_was_read_is_an_input_from_then_on() {
    let w = includes();
    w.run(&[]).ok().ran(["cc"]);
    assert_eq!(w.read("out/a.o"), "b\na\nmain\n");
    assert_eq!(w.tree("out").len(), 1, "the depfile is not published");
    w.run(&[]).ok().all_fresh();
    w.write("inc/other.h", "edited\n").run(&[]).ok().all_fresh();
    w.write("inc/b.h", "b2\n");
    reason(&w, "discovered input inc/b.h changed");
    assert_eq!(w.read("out/a.o"), "b2\na\nmain\n");
    w.run(&[]).ok().all_fresh();
    // another set of inputs
    w.write("inc/a.h", "include inc/other.h\na\n");
    reason(&w, "discovered input inc/a.h changed");
    assert_eq!(w.read("out/a.o"), "edited\na\nmain\n");
    w.write("inc/b.h", "b3\n").run(&[]).ok().all_fresh();
}

#[test]
fn older_versions_are_hits_whatever_they_included() {
    let w = includes();
    w.run(&[]).ok().ran(["cc"]);
    let first = w.read("out/a.o");
    w.write("inc/a.h", "include inc/other.h\na\n").run(&[]).ok().ran(["cc"]);
    let second = w.read("out/a.o");
    for _ in 0..2 {
        w.write("inc/a.h", "include inc/b.h\na\n").run(&[]).ok().restored(["cc"]);
        assert_eq!(w.read("out/a.o"), first);
        w.write("inc/a.h", "include inc/other.h\na\n").run(&[]).ok().restored(["cc"]);
        assert_eq!(w.read("out/a.o"), second);
    }
    // a deleted one: it cannot be what it was
    w.remove("inc/other.h");
    let plan = w.flow(&["plan", "flow.json", "--json"]).ok().json();
    assert_eq!(plan["nodes"][0]["reason"], "discovered input inc/other.h removed");
    w.run(&[]).exits(1).says("inc/other.h");
    // and back again
    w.write("inc/other.h", "other\n").run(&[]).ok().ran::<0>([]);
    assert_eq!(w.read("out/a.o"), second);
}

#[test]
fn another_workspace_with_the_same_cache_hits() {
    let (one, two) = (includes(), includes());
    let cache = one.path("cache").to_string_lossy().into_owned();
    one.run(&["--cache", &cache]).ok().ran(["cc"]);
    let run = two.run(&["--cache", &cache]).ok().restored(["cc"]);
    assert_eq!(run.node("cc")["key"], one.run(&["--cache", &cache]).ok().node("cc")["key"]);
    two.write("inc/b.h", "other\n").run(&["--cache", &cache]).ok().ran(["cc"]);
    one.write("inc/b.h", "other\n").run(&["--cache", &cache]).ok().restored(["cc"]);
}

#[test]
fn runs_of_two_workspaces_with_the_same_node_make_it_once() {
    let (one, two) = (includes(), includes());
    let cache = one.path("cache").to_string_lossy().into_owned();
    let slow = format!("{BUILD}echo run >> '{}'\nsleep 0.3\n", one.path("log").display());
    one.script("build", &slow);
    two.script("build", &slow);
    std::thread::scope(|scope| {
        for w in [&one, &two] {
            scope.spawn(|| w.run(&["--cache", &cache]).ok());
        }
    });
    assert_eq!(one.read("log"), "run\n");
    assert_eq!(one.read("out/a.o"), two.read("out/a.o"));
}

#[test]
fn explain_and_why_name_what_was_discovered() {
    let w = includes();
    w.run(&[]).ok();
    let explain = w.flow(&["explain", "flow.json", "cc", "--json"]);
    let text = if explain.code == Some(0) {
        explain.stdout
    } else {
        w.flow(&["explain", "flow.json", "cc"]).ok().stdout
    };
    assert!(text.contains("discovered.inc/b.h") && text.contains("${outputs.obj}.d"), "{text}");
    w.write("inc/b.h", "b2\n");
    let text = w.flow(&["explain", "flow.json", "cc"]).ok().stdout;
    assert!(text.contains("changed:  discovered input inc/b.h changed"), "{text}");
    let text = w.flow(&["why", "flow.json", "inc/b.h"]).ok().stdout;
    assert!(text.contains("read by cc"), "{text}");
    let text = w.flow(&["why", "flow.json", "out/a.o"]).ok().stdout;
    assert!(text.contains("from its depfile:\n    inc/a.h\n    inc/b.h\n"), "{text}");
    // a changed command: what was discovered is not known for it
    let mut changed = step();
    changed["env"] = json!({"X": "1"});
    w.workflow(json!({"steps": {"cc": changed}}));
    let text = w.flow(&["explain", "flow.json", "cc"]).ok().stdout;
    assert!(text.contains("changed:  environment variable X added\n\n"), "{text}");
}

#[test]
fn a_run_with_nothing_to_do_notices_what_was_discovered() {
    let w = includes();
    w.run(&[]).ok().ran(["cc"]);
    // known at a glance once the files are older than a tick
    let glance = |w: &Workspace| {
        w.flow(&["run", "flow.json", "--json", "--events", "events"]).ok().all_fresh();
        w.read("events").contains("all_fresh")
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !glance(&w) {
        assert!(std::time::Instant::now() < deadline, "no run was known at a glance");
    }
    w.write("inc/b.h", "b2\n").run(&[]).ok().ran(["cc"]);
    while !glance(&w) {
        assert!(std::time::Instant::now() < deadline, "no run was known at a glance");
    }
    w.remove("inc/b.h").run(&[]).exits(1).failed(["cc"]);
}

#[test]
fn two_nodes_with_the_same_command_share_the_result() {
    let w = includes();
    let copy = |to: &str| json!({"run": ["./build", "src/a.c", "${outputs.obj}", "${outputs.obj}.d"], "outputs": {"obj": to}, "depfile": "${outputs.obj}.d"});
    w.workflow(json!({"steps": {"one": copy("out/1.o"), "two": copy("out/2.o")}}));
    let run = w.run(&[]).ok();
    assert_eq!((run.with_outcome("ran").len(), run.with_outcome("restored").len()), (1, 1));
    assert_eq!(w.read("out/1.o"), w.read("out/2.o"));
}

#[test]
fn a_depfile_in_the_workspace_is_taken_away_or_published_as_an_output() {
    let w = includes();
    let at = |depfile: &str, outputs: Value| json!({"steps": {"cc": {"run": ["./build", "src/a.c", "${outputs.obj}", "deps/x/a.d"], "outputs": outputs, "depfile": depfile}}});
    w.workflow(at("deps/x/a.d", json!({"obj": "out/a.o"})));
    w.run(&[]).ok().ran(["cc"]);
    assert!(!w.has("deps"));
    w.write("inc/b.h", "b2\n").run(&[]).ok().ran(["cc"]);
    // as an output
    w.workflow(at("deps/x/a.d", json!({"obj": "out/a.o", "deps": "deps/x/a.d"})));
    w.run(&[]).ok().ran(["cc"]);
    assert!(w.read("deps/x/a.d").contains("inc/b.h"));
    w.remove("deps/x/a.d").run(&[]).ok().restored(["cc"]);
    w.write("inc/b.h", "b3\n").run(&[]).ok().ran(["cc"]);
    // a step that fails puts back what stood there
    w.workflow(at("deps/x/a.d", json!({"obj": "out/a.o"})));
    w.run(&[]).ok();
    w.write("deps/x/a.d", "mine\n").write("inc/b.h", "include inc/none.h\n").run(&[]).exits(1);
    assert_eq!(w.read("deps/x/a.d"), "mine\n");
}

/// A step that writes this as its depfile, beside an output.
fn naming(text: &str) -> Value {
    json!({
        "run": ["sh", "-c", "printf '%b' \"$0\" > deps.d; echo made > out", text],
        "outputs": {"out": "out"},
        "depfile": "deps.d",
    })
}

/// Runs one step with such a depfile, which fails, and gives the error.
#[track_caller]
fn refused(w: &Workspace, text: &str) -> String {
    w.workflow(json!({"steps": {"s": naming(text)}}));
    let run = w.run(&[]).exits(1).failed(["s"]);
    assert!(!w.has("out"), "nothing is published");
    run.node("s")["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_depfile_that_says_nothing_of_use_is_refused_with_its_line() {
    let w = Workspace::new();
    w.write("here.h", "").write("fifo/x", "");
    assert_eq!(refused(&w, "out: here.h \\\\\\n  gone.h\\n"), "deps.d:2: names gone.h, which is not there");
    assert_eq!(
        refused(&w, "out: here.h\\nhere.h gone.h\\n"),
        "deps.d:2: expected 'target: file ...', found a line without a colon: here.h"
    );
    assert_eq!(refused(&w, "out: $(HEADERS)\\n"), "deps.d:1: a variable: '$' itself is written '$$'");
    assert!(refused(&w, "out: a\\\\ \\0377.h\\n").starts_with("deps.d:1: a file name that is not UTF-8: "));
    assert!(refused(&w, "out: cache/index.db\\n").ends_with("lies in a directory of flow's own"));
    w.workflow(
        json!({"steps": {"s": {"run": "echo x > out", "outputs": {"out": "out"}, "depfile": "deps.d"}}}),
    );
    w.run(&[]).exits(1).failed(["s"]).says("depfile deps.d was not written");
    // one of an earlier attempt is none of this one
    w.write("deps.d", "out: here.h\n").run(&[]).exits(1).failed(["s"]);
    assert_eq!(w.read("deps.d"), "out: here.h\n");
}

#[test]
fn a_depfile_that_names_nothing_or_its_own_files_adds_nothing() {
    let w = Workspace::new();
    let own = format!("out: out deps.d here.h\\n{}/here.h:\\n", w.root().display());
    for text in ["", "out:\\n", "# nothing\\n", own.as_str()] {
        w.write("here.h", "1");
        let mut step = naming(text);
        step["inputs"] = json!({"h": "here.h"});
        w.workflow(json!({"steps": {"s": step}}));
        w.run(&[]).ok().ran(["s"]);
        w.run(&[]).ok().all_fresh();
        let text = w.flow(&["explain", "flow.json", "s"]).ok().stdout;
        assert!(text.contains("discovered ") && !text.contains("discovered.") && !w.has("deps.d"), "{text}");
    }
}

#[test]
fn odd_and_absolute_names_and_names_from_elsewhere() {
    let w = Workspace::new();
    w.write("sub/in dir/a b#1$.h", "1")
        .write("sub/local.h", "1")
        .write("real/x.h", "1")
        .write("real/up.h", "1");
    std::os::unix::fs::symlink("../real", w.path("sub/link")).unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("sys.h"), "1").unwrap();
    let mut step = naming(&format!(
        "../out: in\\\\ dir/a\\\\ b\\\\#1$$.h ./local.h {}/sub/../real/x.h link/../real/up.h \\\\\\n {}/sys.h /dev/null\\n",
        w.root().display(),
        outside.path().display()
    ));
    step["run"][2] = json!("printf '%b' \"$0\" > ../deps.d; echo made > ../out");
    step["cwd"] = json!("sub");
    w.workflow(json!({"steps": {"s": step}}));
    w.run(&[]).ok().ran(["s"]).says("/dev/null is no file");
    let text = w.flow(&["explain", "flow.json", "s"]).ok().stdout;
    let names: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("discovered.")?.split("  ").next()).collect();
    assert_eq!(names, ["real/up.h", "real/x.h", "sub/in dir/a b#1$.h", "sub/local.h", "sys.h"]);
    for path in ["real/up.h", "real/x.h", "sub/in dir/a b#1$.h", "sub/local.h"] {
        w.write(path, "2");
        let run = w.run(&[]).ok().ran(["s"]);
        assert_eq!(run.node("s")["reason"], format!("discovered input {path} changed"));
    }
    std::fs::write(outside.path().join("sys.h"), "2").unwrap();
    assert_eq!(w.run(&[]).ok().ran(["s"]).node("s")["reason"], "discovered input sys.h changed");
    std::fs::remove_file(outside.path().join("sys.h")).unwrap();
    let plan = w.flow(&["plan", "flow.json", "--json"]).ok().json();
    assert_eq!(plan["nodes"][0]["reason"], "discovered input sys.h removed");
}

#[test]
fn a_directory_is_all_that_lies_in_it() {
    let w = Workspace::with(json!({"steps": {"s": naming("out: data\\n")}}));
    w.write("data/a", "1").write("data/sub/b", "1");
    w.run(&[]).ok().ran(["s"]);
    w.run(&[]).ok().all_fresh();
    w.write("data/sub/c", "new").run(&[]).ok().ran(["s"]);
    w.remove("data/sub/c").run(&[]).ok().ran::<0>([]);
}

/// `gen` makes two headers, and `s` says that it read one.
fn generated(more: Value) -> Workspace {
    let mut s = naming("out: gen/a.h\\n");
    s["run"][2] = json!("printf '%b' \"$0\" > deps.d; cat gen/a.h > out");
    for (key, value) in more.as_object().unwrap() {
        s[key] = value.clone();
    }
    let w = Workspace::with(json!({"steps": {
        "s": s,
        "gen": {
            "run": "sed -n 1p spec > gen/a.h; sed -n 2p spec > gen/b.h",
            "inputs": {"spec": "spec"}, "outputs": {"a": "gen/a.h", "b": "gen/b.h"},
        },
    }}));
    w.write("spec", "a\nb\n");
    w
}

#[test]
fn a_file_that_another_step_makes_has_to_be_declared() {
    let w = generated(json!({}));
    // in whatever order they ran
    w.run(&["gen"]).ok().ran(["gen"]);
    let run = w.run(&["-k"]).exits(1).failed(["s"]);
    assert_eq!(
        run.node("s")["error"],
        "deps.d: s read gen/a.h, which gen makes, and does not say that it comes after it"
    );
    run.says("declare what it reads under 'inputs', or add \"needs\": [\"gen\"]");
    // what it depends on by way of another step is not enough
    let w = generated(json!({"needs": ["mid"]}));
    let mut flow = w.json("flow.json");
    flow["steps"]["mid"] =
        json!({"run": "cat gen/b.h > mid", "inputs": {"b": "${steps.gen.b}"}, "outputs": {"m": "mid"}});
    w.workflow(flow);
    w.run(&["-k"]).exits(1).failed(["s"]).says("does not say that it comes after it");
}

#[test]
fn generated_files_by_needs_are_inputs_as_far_as_they_are_read() {
    let w = generated(json!({"needs": ["gen"]}));
    w.run(&[]).ok().ran(["gen", "s"]);
    w.run(&[]).ok().all_fresh();
    w.write("spec", "a\nB\n").run(&[]).ok().ran(["gen"]);
    w.write("spec", "A\nB\n");
    let plan = w.flow(&["plan", "flow.json", "--json"]).ok().json();
    let status = |id: &str| {
        plan["nodes"].as_array().unwrap().iter().find(|n| n["id"] == id).unwrap()["status"].clone()
    };
    assert_eq!((status("gen"), status("s")), (json!("would_run"), json!("may_run")));
    let run = w.run(&[]).ok().ran(["gen", "s"]);
    assert_eq!(run.node("s")["reason"], "discovered input gen/a.h changed");
    // a damaged one is brought back before it is read
    w.write("gen/a.h", "edited").run(&[]).ok().restored(["gen"]);
    w.remove("out").remove("gen").run(&["s"]).ok();
    assert_eq!(w.read("out"), "A\n");
    assert!(!w.has("gen"));
    w.run(&["s", "--force=s"]).ok().ran(["s"]);
    assert_eq!(w.read("out"), "A\n", "what it needs was brought before it ran");
    // a declared input is enough, too
    let w = generated(json!({"inputs": {"b": "${steps.gen.b}"}}));
    w.run(&[]).ok().ran(["gen", "s"]);
}

#[test]
fn what_changes_while_the_command_runs_is_read_again() {
    // the first attempt edits what it read; the second does not
    let w = Workspace::with(json!({"steps": {"s": {
        "run": "cat h > out; [ -e twice ] || { touch twice; echo new > h; }; echo 'out: h' > deps.d",
        "outputs": {"out": "out"}, "depfile": "deps.d",
    }}}));
    w.write("h", "old\n");
    let run = w.run(&[]).ok().ran(["s"]).says("h changed meanwhile");
    assert_eq!(run.node("s")["attempts"], 2);
    assert_eq!(w.read("out"), "new\n");
    w.run(&[]).ok().all_fresh();
    // one that never stops is a failure
    let mut flow = w.json("flow.json");
    flow["steps"]["s"]["run"] = json!("cat h > out; date +%N >> h; echo 'out: h' > deps.d");
    w.workflow(flow);
    w.run(&[])
        .exits(1)
        .failed(["s"])
        .says("the depfile names h; if the command itself writes it, declare it as an output");
}

#[test]
fn where_a_depfile_may_not_lie() {
    let w = Workspace::new();
    w.write("in", "");
    let check = |step: Value| {
        w.workflow(json!({"steps": {"s": step, "other": {"run": "true", "outputs": {"d": "other/"}}}}));
        w.flow(&["check", "flow.json"]).exits(3).stderr
    };
    let at = |depfile: &str| json!({"run": ["cp", "in", "${outputs.o}"], "outputs": {"o": "o"}, "depfile": depfile, "matrix": {"m": [1]}});
    for (depfile, part) in [
        ("../x.d", "the depfile of s[m=1] is outside the workspace: ../x.d"),
        ("/x.d", "is outside the workspace: /x.d"),
        ("x/", "the depfile of s[m=1] is a directory"),
        ("cache/x.d", "lies in a directory of flow's own or of git: cache/x.d"),
        ("other/x.d", "lies in an output of other: other/x.d"),
        ("in", "is an input of it, too: in"),
        ("${outputs.none}.d", "unknown output 'none' of this step"),
        ("${services.x.url}", "a late reference"),
        ("${steps.other.d}", "is not known in 'depfile'"),
    ] {
        let text = check(at(depfile));
        assert!(text.contains(part), "{depfile}:\n{text}");
    }
    let mut twice = at("x.d");
    twice["matrix"] = json!({"m": [1, 2]});
    twice["outputs"] = json!({"o": "o/${matrix.m}"});
    assert!(check(twice).contains("the depfile of s[m=2] is that of s[m=1], too: x.d"));
    let text = check(json!({"uses": "csv.join", "depfile": "x.d"}));
    assert!(text.contains("'depfile' does not go with 'uses'"), "{text}");
}

#[test]
fn a_c_compiler_writes_what_is_understood() {
    let w = Workspace::with(json!({"steps": {"cc": {
        "run": ["cc", "-MD", "-MP", "-MF", "${outputs.obj}.d", "-Iinc", "-c", "src/a.c", "-o", "${outputs.obj}"],
        "outputs": {"obj": "out/a.o"}, "depfile": "${outputs.obj}.d",
    }}}));
    if w.command(&[]).get_program().is_empty()
        || std::process::Command::new("cc").arg("--version").output().is_err()
    {
        eprintln!("skipped: there is no cc");
        return;
    }
    w.write("src/a.c", "#include <stddef.h>\n#include \"with blank.h\"\nint main(void) { return X; }\n");
    w.write("inc/with blank.h", "#define X 0\n");
    w.run(&[]).ok().ran(["cc"]);
    w.run(&[]).ok().all_fresh();
    let text = w.flow(&["explain", "flow.json", "cc"]).ok().stdout;
    assert!(text.contains("discovered.stddef.h") && text.contains("discovered.inc/with blank.h"), "{text}");
    w.write("inc/with blank.h", "#define X 1\n");
    let run = w.run(&[]).ok().ran(["cc"]);
    assert_eq!(run.node("cc")["reason"], "discovered input inc/with blank.h changed");
}
