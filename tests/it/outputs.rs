//! Outputs: what may be declared, how it is published, what a failure leaves, what becomes of files nobody declares any more.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::Workspace;

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn no_scratch(w: &Workspace) {
    assert!(w.tree("cache/tmp").is_empty(), "{:?}", w.tree("cache/tmp").keys());
}

#[test]
fn a_directory_is_one_output() {
    let w = Workspace::with(json!({"steps": {
        "split": {"run": "mkdir -p ${outputs.parts}/sub; for n in $(cat n); do echo $n > ${outputs.parts}/sub/$n; done",
            "inputs": {"n": "n"}, "outputs": {"parts": "parts/"}},
        "direct": {"run": "mkdir -p d/e; echo 1 > d/e/f; ln -s f d/e/l", "outputs": {"d": "d/"}},
        "list": {"run": "cd ${steps.split.parts}; find . -type f | sort > $OLDPWD/list", "outputs": {"o": "list"}},
        "one": {"run": ["cat", "parts/sub/1"], "stdout": "o", "outputs": {"o": "one"}},
    }}));
    w.write("n", "1 2");
    w.run(&[]).ok().ran(["split", "direct", "list", "one"]);
    assert_eq!((w.read("list"), w.read("one")), ("./sub/1\n./sub/2\n".into(), "1\n".into()));
    assert_eq!(std::fs::read_link(w.path("d/e/l")).unwrap(), Path::new("f"));
    w.run(&[]).ok().all_fresh();
    // an entry more, an entry less, other bytes: all noticed
    w.write("parts/sub/stray", "x");
    w.run(&[]).ok().ran([]).restored(["split"]);
    assert!(!w.has("parts/sub/stray"));
    w.remove("d/e/f");
    w.run(&[]).ok().ran([]).restored(["direct"]);
    assert_eq!(w.read("d/e/f"), "1\n");
    w.write("n", "1 3");
    w.run(&[]).ok().ran(["split", "list"]);
    assert!(!w.has("parts/sub/2") && w.has("parts/sub/3"));
    no_scratch(&w);
}

fn optional(with_list: bool) -> Value {
    let mut steps = json!({
        "maybe": {"run": "if [ -s in-${matrix.n} ]; then cp in-${matrix.n} maybe-${matrix.n}; fi",
            "matrix": {"n": [1, 2, 3]}, "inputs": {"i": "in-${matrix.n}"},
            "outputs": {"o": {"path": "maybe-${matrix.n}", "optional": true}}},
        "next": {"run": "cat ${steps.maybe.o} > next-${matrix.n}", "matrix": {"n": [1, 2, 3]},
            "outputs": {"o": "next-${matrix.n}"}},
    });
    if with_list {
        steps["all"] = json!({"run": "cat ${steps.next.o} /dev/null > all", "outputs": {"o": "all"}});
    }
    json!({"steps": steps})
}

#[test]
fn absent_outputs_are_left_out_and_their_takers_are_absent() {
    let w = Workspace::with(optional(true));
    w.write("in-1", "one\n").write("in-2", "two\n").write("in-3", "three\n");
    w.run(&[]).ok();
    assert_eq!(w.read("all"), "one\ntwo\nthree\n");
    w.write("in-2", "");
    let run = w.run(&[]).ok().ran(["maybe[n=2]", "all"]).outcome_is("absent", ["next[n=2]"]);
    assert_eq!(run.json()["counts"]["failed"], 0);
    assert_eq!(w.read("all"), "one\nthree\n");
    assert!(!w.has("maybe-2") && !w.has("next-2"), "old files of absent outputs go");
    let again = w.run(&[]).ok().ran([]).outcome_is("absent", ["next[n=2]"]);
    assert_eq!(again.json()["counts"]["fresh"], 6);
    // a file of the user's own in that place is neither taken nor removed
    w.write("maybe-2", "mine").write("next-2", "mine, too");
    w.run(&[]).ok().ran([]);
    assert_eq!((w.read("maybe-2"), w.read("next-2")), ("mine".into(), "mine, too".into()));
    w.remove("maybe-2").remove("next-2");
    w.write("in-2", "two\n");
    w.run(&[]).ok().ran([]).restored(["maybe[n=2]", "next[n=2]", "all"]);
    assert_eq!(w.read("all"), "one\ntwo\nthree\n");
}

#[test]
fn all_absent_gives_an_empty_list() {
    let w = Workspace::with(optional(true));
    w.write("in-1", "").write("in-2", "").write("in-3", "");
    w.run(&[]).ok().outcome_is("absent", ["next[n=1]", "next[n=2]", "next[n=3]"]);
    assert_eq!(w.read("all"), "");
}

#[test]
fn a_report_is_published_although_its_attempt_failed() {
    let w = Workspace::with(json!({"steps": {
        "check": {"run": "echo bad $(cat s) > ${outputs.report}; echo bad > direct; echo x > ${outputs.data}; exit $(cat s)",
            "inputs": {"s": "s"},
            "outputs": {"report": {"path": "report", "on_failure": true},
                "direct": {"path": "direct", "on_failure": true}, "data": "data"}},
        "next": {"run": "cat report > next", "inputs": {"r": "report"}, "outputs": {"n": "next"}},
    }}));
    w.write("s", "0");
    w.run(&[]).ok();
    w.write("data", "");
    w.run(&[]).ok().restored(["check"]);
    w.write("s", "3");
    w.run(&["-k"]).exits(1).failed(["check"]).skipped(["next"]);
    assert_eq!((w.read("report"), w.read("direct")), ("bad 3\n".into(), "bad\n".into()));
    assert_eq!((w.read("data"), w.read("next")), ("x\n".into(), "bad 0\n".into()), "the rest stays");
    // a failed attempt is no result
    w.run(&["-k"]).exits(1).failed(["check"]);
    w.write("s", "0");
    w.run(&[]).ok().ran([]).restored(["check"]);
    assert_eq!(w.read("report"), "bad 0\n");
    no_scratch(&w);
}

fn append(text: &str, more: &str) -> Value {
    let mut steps = json!({
        "one": {"run": format!("mkdir ${{outputs.log}}/dir; echo {text} > ${{outputs.log}}/dir/f; echo {text} > ${{outputs.log}}/{text}"),
            "outputs": {"log": {"path": "log/", "append": true}}},
        "list": {"run": "ls ${steps.one.log} > list", "outputs": {"o": "list"}},
    });
    if !more.is_empty() {
        steps["two"] = json!({"run": format!("echo {more} > ${{outputs.log}}/{more}"),
            "outputs": {"log": {"path": "log/", "append": true}}});
    }
    json!({"steps": steps})
}

#[test]
fn append_directories_only_grow() {
    let steps = |text: &str| {
        json!({"steps": {
            "one": {"run": format!("echo {text} > ${{outputs.log}}/{text}"), "outputs": {"log": {"path": "log/", "append": true}}},
            "two": {"run": "mkdir ${outputs.log}/t; echo two > ${outputs.log}/t/f", "outputs": {"log": {"path": "log/", "append": true}}},
        }})
    };
    let w = Workspace::with(steps("a"));
    w.write("log/mine", "mine");
    w.run(&[]).ok().ran(["one", "two"]);
    w.workflow(steps("b"));
    w.run(&[]).ok().ran(["one"]);
    assert_eq!(w.tree("log").keys().collect::<Vec<_>>(), ["a", "b", "mine", "t/f"]);
    w.run(&[]).ok().all_fresh();
    // nothing of it is an orphan
    assert_eq!(w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout, "");
    // damaged or lost present entries come back; former ones are nobody's business
    w.write("log/b", "damaged").remove("log/t").remove("log/a");
    w.run(&[]).ok().ran([]).restored(["one", "two"]);
    assert_eq!((w.read("log/b"), w.read("log/t/f"), w.has("log/a")), ("b\n".into(), "two\n".into(), false));
    // back to the first: its entry is known
    w.workflow(steps("a"));
    w.run(&[]).ok().ran([]).restored(["one"]);
    assert_eq!(w.read("log/a"), "a\n");
    // clean takes the present entries only
    w.flow(&["clean", "flow.json"]).ok();
    assert_eq!(w.tree("log").keys().collect::<Vec<_>>(), ["b", "mine"]);
    no_scratch(&w);
}

#[test]
fn an_entry_is_never_replaced() {
    let w = Workspace::with(append("same", ""));
    w.write("log/same", "mine, other bytes");
    w.run(&[]).exits(1).failed(["one"]).says("log/same exists already with other content");
    assert_eq!(w.read("log/same"), "mine, other bytes");
    assert!(!w.has("log/dir"), "not one entry of it is published");
    w.run(&[]).exits(1).failed(["one"]).says("log/same exists already with other content");
    assert_eq!(w.read("log/same"), "mine, other bytes");
    // equal bytes are no conflict
    w.write("log/same", "same\n");
    w.run(&[]).ok().ran(["list"]);
}

#[test]
fn the_taker_of_an_append_directory_sees_its_producers_entries_only() {
    let w = Workspace::with(append("x", "y"));
    w.write("log/mine", "mine");
    w.run(&[]).ok();
    let seen = w.read("list");
    w.write("log/other", "more");
    w.run(&[]).ok().all_fresh();
    assert!(lines(&seen).contains(&"x"), "{seen}");
    // another entry of the other producer changes nothing for it
    w.workflow(append("x", "z"));
    w.run(&[]).ok().ran(["two"]);
}

#[test]
fn what_a_failed_command_wrote_itself_is_undone() {
    let step = |exit: u32, text: &str| {
        json!({"steps": {"a": {
            "run": format!("[ ! -e o/file ] && [ ! -e o/dir ]; mkdir o/dir; echo {text} > o/file; echo {text} > o/dir/x; exit {exit}"),
            "outputs": {"file": "o/file", "dir": "o/dir/"}}}})
    };
    let w = Workspace::with(step(1, "half"));
    w.run(&[]).exits(1).failed(["a"]);
    assert!(!w.has("o/file") && !w.has("o/dir"), "half made outputs go");
    w.workflow(step(0, "good"));
    w.run(&[]).ok().ran(["a"]);
    w.workflow(step(1, "bad"));
    w.run(&[]).exits(1).failed(["a"]);
    assert_eq!((w.read("o/file"), w.read("o/dir/x")), ("good\n".into(), "good\n".into()));
    w.workflow(step(0, "good"));
    w.run(&[]).ok().all_fresh();
    no_scratch(&w);
}

#[test]
fn a_file_of_the_users_own_is_put_back_too() {
    let w = Workspace::with(json!({"steps": {"a": {"run": "echo new > o; exit 1", "outputs": {"o": "o"}}}}));
    w.script("o", "mine");
    w.run(&[]).exits(1);
    assert_eq!(w.read("o"), "mine");
    assert_eq!(w.path("o").metadata().unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn what_was_declared_must_be_made_and_be_of_its_kind() {
    for (run, outputs, message) in [
        ("true", json!({"o": "o"}), "output 'o' (o) was not made"),
        ("mkdir o", json!({"o": "o"}), "output 'o' (o) is a directory, and was declared as a file"),
        ("echo > o", json!({"o": "o/"}), "output 'o' (o) is a file, and was declared as a directory"),
        ("mkfifo o", json!({"o": "o"}), "neither a file nor a directory"),
        ("rm -r ${outputs.o}; echo > ${outputs.o}", json!({"o": "o/"}), "declared as a directory"),
        ("ln -s nowhere o", json!({"o": "o"}), "output 'o' (o)"),
        ("echo > x", json!({"x": "x", "y": "y", "z": "z"}), "output 'z' (z) was not made"),
    ] {
        let w = Workspace::with(json!({"steps": {"a": {"run": run, "outputs": outputs}}}));
        w.run(&[]).exits(1).failed(["a"]).says(message);
        assert!(!w.has("o") && !w.has("x"), "{run}");
        no_scratch(&w);
    }
}

#[test]
fn an_old_file_is_never_taken_for_a_new_output() {
    let w = Workspace::with(
        json!({"steps": {"a": {"run": "cat s > o", "inputs": {"s": "s"}, "outputs": {"o": "o"}}}}),
    );
    w.write("s", "1");
    w.run(&[]).ok();
    w.workflow(json!({"steps": {"a": {"run": "true", "inputs": {"s": "s"}, "outputs": {"o": "o"}}}}));
    w.run(&[]).exits(1).failed(["a"]).says("was not made");
    assert_eq!(w.read("o"), "1");
}

#[test]
fn scratch_paths_streams_and_modes() {
    let w = Workspace::with(json!({"steps": {
        "scratch": {"run": ["sh", "-c", "test ! -e deep; echo 1 > \"$1\"; chmod +x \"$1\"", "sh", "${outputs.o}"],
            "outputs": {"o": "deep/er/tool.sh"}},
        "streams": {"run": ["tr", "a-z", "A-Z"], "stdin": "i", "stdout": "o", "inputs": {"i": "in"},
            "outputs": {"o": "streams/out"}},
        "elsewhere": {"run": ["sh", "-c", "pwd > here; cat \"$1\" > \"$2\"", "sh", "${inputs.i}", "${outputs.o}"],
            "cwd": "sub", "inputs": {"i": "in"}, "outputs": {"o": "from-sub", "here": "sub/here"}},
        "script": {"run": ["sh", "s.sh"], "cwd": "sub", "outputs": {"o": "sub/by-script"}},
    }}));
    w.write("in", "text").write("sub/s.sh", "echo 1 > by-script\n");
    w.run(&[]).ok();
    assert_eq!((w.read("streams/out"), w.read("from-sub")), ("TEXT".into(), "text".into()));
    assert!(w.read("sub/here").trim().ends_with("/sub"));
    let mode = || w.path("deep/er/tool.sh").metadata().unwrap().permissions().mode() & 0o111;
    assert_ne!(mode(), 0);
    w.remove("deep");
    w.run(&[]).ok().restored(["scratch"]);
    assert_ne!(mode(), 0, "restored with its x-bit");
    std::fs::set_permissions(w.path("deep/er/tool.sh"), std::fs::Permissions::from_mode(0o644)).unwrap();
    w.run(&[]).ok().restored(["scratch"]);
    assert_ne!(mode(), 0);
    w.write("sub/s.sh", "echo 2 > by-script\n");
    w.run(&[]).ok().ran(["script"]);
}

#[test]
fn odd_names() {
    for name in ["a b", "it's", "two\nlines", "quo\"te", "$HOME", "ü", "-n", "*", "back\\slash", "[x]", "#"]
    {
        let w = Workspace::with(json!({"params": {"n": name}, "steps": {
            "shell": {"run": "cat ${inputs.i} > ${outputs.o}", "inputs": {"i": ["src/in"]}, "outputs": {"o": "s/${params.n}"}},
            "argv": {"run": ["cat", "${steps.shell.o}"], "stdout": "o", "outputs": {"o": "a/${params.n}/x"}},
            "direct": {"run": ["sh", "-c", "cat \"$1\" > \"$2\"", "sh", "${steps.argv.o}", "d/${params.n}"],
                "implicit": false, "outputs": {"o": "d/${params.n}"}},
        }}));
        w.write("src/in", name);
        w.run(&[]).ok().ran(["shell", "argv", "direct"]);
        assert_eq!(w.read(&format!("d/{name}")), name);
        w.run(&[]).ok().all_fresh();
        w.remove(&format!("s/{name}"));
        w.run(&[]).ok().restored(["shell"]);
    }
}

#[test]
fn a_command_that_changes_what_it_names_is_told_to_declare_it() {
    let w = Workspace::with(json!({"steps": {"a": {
        "run": ["sh", "-c", "echo x >> \"$0\"; echo > o", "state"], "outputs": {"o": "o"}}}}));
    w.write("state", "1");
    w.run(&[]).exits(1).failed(["a"]).says("state").says("declare it as an output");
}

#[test]
fn an_input_that_changes_meanwhile_voids_the_attempt_once() {
    let w = Workspace::with(json!({"steps": {"a": {
        "run": "cat s > o; if [ ! -e once ]; then touch once; echo 2 > s; fi", "inputs": {"s": "s"}, "outputs": {"o": "o"}}}}));
    w.write("s", "1\n");
    let run = w.run(&[]).ok().ran(["a"]);
    assert_eq!(w.read("o"), "2\n", "{}", run.stderr);
    assert!(run.stderr.contains("s changed meanwhile"), "{}", run.stderr);
    w.run(&[]).ok().all_fresh();

    let w = Workspace::with(json!({"steps": {"a": {
        "run": "cat s > o; echo x >> s", "inputs": {"s": "s"}, "outputs": {"o": "o"}}}}));
    w.write("s", "1\n");
    w.run(&[]).exits(1).failed(["a"]).says("input s keeps changing");
    assert!(!w.has("o"));
    assert_eq!(lines(&w.read("s")).len(), 3, "two attempts");
}

fn letters(values: &[&str]) -> Value {
    json!({"steps": {
        "make": {"run": "echo ${matrix.v} > out/${matrix.v}.txt", "matrix": {"v": values}, "outputs": {"o": "out/${matrix.v}.txt"}},
        "tree": {"run": "mkdir -p out/t-${matrix.v}; echo ${matrix.v} > out/t-${matrix.v}/f", "matrix": {"v": values}, "outputs": {"o": "out/t-${matrix.v}/"}},
        "all": {"run": "cat ${inputs.all} > all", "inputs": {"all": "out/*.txt"}, "outputs": {"o": "all"}},
        "deep": {"run": "cat ${inputs.all} > deep", "inputs": {"all": "out/**/f"}, "needs": ["tree"], "outputs": {"o": "deep"}},
    }})
}

#[test]
fn orphans_are_named_and_never_matched() {
    let w = Workspace::with(letters(&["a", "b", "c"]));
    w.write("out/mine.txt", "mine\n").write("out/own/f", "own\n");
    w.run(&[]).ok();
    assert_eq!(w.read("all"), "a\nb\nc\nmine\n");
    assert_eq!(w.read("deep"), "own\n", "the content of a declared directory is no plain file");
    assert_eq!(w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout, "");
    w.workflow(letters(&["a", "c"]));
    w.flow(&["run", "flow.json"]).ok().says("2 orphan");
    assert_eq!(w.read("all"), "a\nc\nmine\n", "no orphan is matched");
    assert_eq!(w.read("deep"), "own\n", "nor what lies in one");
    let orphans = w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout;
    assert_eq!(lines(&orphans), ["out/b.txt", "out/t-b"]);
    assert!(w.has("out/b.txt"));
    let told = w.flow(&["clean", "flow.json", "--orphans", "--dry-run"]).ok();
    assert_eq!(told.stdout, orphans);
    assert!(w.has("out/b.txt"));
    w.flow(&["clean", "flow.json", "--orphans"]).ok();
    assert!(!w.has("out/b.txt") && !w.has("out/t-b") && w.has("out/mine.txt") && w.has("out/a.txt"));
    assert_eq!(w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout, "");
    w.run(&[]).ok().all_fresh();
    // and it comes back from the cache
    w.workflow(letters(&["a", "b", "c"]));
    w.run(&[]).ok().ran([]);
    assert_eq!((w.read("all"), w.read("out/t-b/f")), ("a\nb\nc\nmine\n".into(), "b\n".into()));
}

#[test]
fn a_file_that_became_a_directory_is_no_orphan() {
    let file = json!({"steps": {"a": {"run": "echo 1 > ${outputs.o}", "outputs": {"o": "o/x"}}}});
    let dir = json!({"steps": {"a": {"run": "echo 2 > ${outputs.o}/x", "outputs": {"o": "o/"}}}});
    let w = Workspace::with(file.clone());
    w.run(&[]).ok();
    for (workflow, text) in [(dir, "2\n"), (file, "1\n")] {
        w.workflow(workflow);
        w.run(&[]).ok();
        assert_eq!(w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout, "");
        w.flow(&["clean", "flow.json", "--orphans"]).ok();
        assert_eq!(w.read("o/x"), text);
    }
}

#[test]
fn a_directory_that_became_a_file_is_replaced_if_it_is_as_flow_published_it() {
    let dir = json!({"steps": {"s": {
        "run": "mkdir -p ${outputs.o}/sub ${outputs.o}/empty; echo 1 > ${outputs.o}/a; echo 2 > ${outputs.o}/sub/b; ln -s a ${outputs.o}/l",
        "outputs": {"o": "p/"}
    }}});
    for run in ["echo 1 > ${outputs.o}", "echo 1 > p"] {
        let file = json!({"steps": {"s": {"run": run, "outputs": {"o": "p"}}}});
        let w = Workspace::with(dir.clone());
        // there and back, made and from the cache
        for _ in 0..2 {
            w.workflow(dir.clone());
            w.run(&[]).ok();
            assert_eq!(w.read("p/sub/b"), "2\n");
            w.workflow(file.clone());
            w.run(&[]).ok();
            assert_eq!(w.read("p"), "1\n");
        }
        // whatever else lies there, or is different, stays
        let (a, b) = ("p/a", "p/sub/b");
        for (path, text) in
            [("p/mine", "x"), ("p/empty/mine", "x"), ("p/sub/mine", "x"), (a, "x"), (b, "x"), ("p/l", "x")]
        {
            w.workflow(dir.clone());
            w.run(&[]).ok();
            if w.has(path) {
                w.remove(path);
            }
            w.write(path, text);
            w.workflow(file.clone());
            w.run(&[]).exits(1).failed(["s"]).says(&format!("not as they are now: {path}"));
            assert_eq!(w.read(path), text);
            w.remove("p");
        }
        // a part of it
        w.workflow(dir.clone());
        w.run(&[]).ok();
        w.workflow(json!({"steps": {"s": {"run": "echo 3 > ${outputs.o}", "outputs": {"o": "p/sub"}}}}));
        w.run(&[]).ok();
        assert_eq!((w.read("p/sub"), w.read("p/a")), ("3\n".into(), "1\n".into()));
    }
}

#[test]
fn what_is_left_of_a_directory_is_an_orphan_as_long_as_it_is_as_published() {
    let dir = json!({"steps": {"s": {
        "run": "mkdir -p ${outputs.o}/d; for n in a b c d/e; do echo $n > ${outputs.o}/$n; done", "outputs": {"o": "p/"}
    }}});
    let w = Workspace::with(dir);
    w.run(&[]).ok();
    w.workflow(json!({"steps": {"s": {"run": "echo new > ${outputs.o}", "outputs": {"o": "p/b"}}}}));
    w.write("p/mine", "mine").write("p/c", "changed");
    w.flow(&["run", "flow.json"]).ok().says("2 orphans");
    let orphans = w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout;
    assert_eq!(lines(&orphans), ["p/a", "p/d/e"]);
    let why = w.flow(&["why", "flow.json", "p/a"]).ok().stdout;
    assert!(why.starts_with("p/a is an orphan: s made it once"), "{why}");
    w.flow(&["run", "flow.json"]).ok().says("2 orphans");
    assert_eq!(w.flow(&["clean", "flow.json", "--orphans"]).ok().stdout, orphans);
    assert_eq!(w.tree("p").into_keys().collect::<Vec<_>>(), ["b", "c", "mine"]);
    assert!(!w.has("p/d"));
    assert_eq!(
        (w.read("p/b"), w.read("p/c"), w.read("p/mine")),
        ("new\n".into(), "changed".into(), "mine".into())
    );
    w.run(&[]).ok().all_fresh();
    // what nothing is left of is nobody's any more
    w.remove("p/c");
    w.flow(&["clean", "flow.json", "--orphans"]).ok();
    w.write("p/a", "a\n");
    assert_eq!(w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout, "");
}

#[test]
fn another_output_path_moves_the_result() {
    let at = |path: &str| json!({"steps": {"a": {"run": "echo x > ${outputs.o}", "outputs": {"o": path}}}});
    let w = Workspace::with(at("old/x"));
    w.run(&[]).ok().ran(["a"]);
    w.workflow(at("new/x"));
    w.run(&[]).ok().ran([]).restored(["a"]);
    assert_eq!(lines(&w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout), ["old/x"]);
}

#[test]
fn one_workflow_removes_nothing_of_another() {
    let w = Workspace::new();
    let named = |name: &str, values: &[&str]| {
        let mut workflow = letters(values);
        workflow["name"] = name.into();
        serde_json::to_string(&workflow).unwrap()
    };
    w.write("one.json", named("one", &["a", "b"])).write("two.json", named("two", &["b", "c"]));
    w.run_file("one.json", &[]).ok();
    w.run_file("two.json", &[]).ok();
    // what the other published is a plain file to it
    assert_eq!(w.read("all"), "a\nb\nc\n");
    w.write("one.json", named("one", &["a"]));
    assert_eq!(w.flow(&["ls", "one.json", "--orphans"]).ok().stdout, "");
    w.flow(&["clean", "one.json", "--orphans"]).ok();
    w.flow(&["clean", "two.json", "--orphans"]).ok();
    for file in ["out/a.txt", "out/b.txt", "out/c.txt", "out/t-b/f"] {
        assert!(w.has(file), "{file}");
    }
    // all of one goes, what two published stays
    w.flow(&["clean", "one.json"]).ok();
    assert!(!w.has("out/a.txt") && w.has("out/b.txt") && w.has("out/c.txt"));
}

#[test]
fn files_of_one_shipped_workflow_are_plain_to_another() {
    let w = Workspace::shipped();
    w.run_file("workflows/inferencemax.json", &[]).ok();
    let args = ["--set", "raw=out/inferencemax/raw", "--set", "out=out/second"];
    let run = w.run_file("workflows/inferencemax-process.json", &args).ok();
    assert_eq!(run.with_outcome("failed").len(), 0);
    let names = ["inference_max_merged.csv", "inference_max_e2e.csv", "inference_max_interactivity.csv"];
    for name in names {
        let (first, second) =
            (w.read(&format!("out/inferencemax/{name}")), w.read(&format!("out/second/{name}")));
        assert!(first.lines().count() > 1);
        assert_eq!(first, second, "{name}");
    }
    w.run_file("workflows/inferencemax-process.json", &args).ok().all_fresh();
    // the first workflow's files are no orphans of the second, and the other way round
    let before = w.tree("out");
    w.flow(&[
        "clean",
        "workflows/inferencemax-process.json",
        "--orphans",
        "--set",
        "raw=out/inferencemax/raw",
        "--set",
        "out=out/third",
    ])
    .ok();
    w.flow(&["clean", "workflows/inferencemax.json", "--orphans"]).ok();
    let after = w.tree("out");
    let lost: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
    assert!(lost.iter().all(|path| path.starts_with("second/")), "{lost:?}");
    w.run_file("workflows/inferencemax.json", &[]).ok().ran([]).restored([]);
}

#[test]
fn a_published_output_is_never_a_link() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "d=$(dirname ${outputs.s}); echo 1 > $d/f; ln -s f ${outputs.s}; echo 2 > kept; ln -s kept direct",
            "outputs": {"s": "s", "direct": "direct"}},
        "b": {"run": "cat s direct > b", "inputs": {"s": "s", "d": "direct"}, "outputs": {"o": "b"}},
    }}));
    w.run(&[]).ok().ran(["a", "b"]);
    assert_eq!(w.read("b"), "1\n2\n");
    for path in ["s", "direct"] {
        assert!(std::fs::symlink_metadata(w.path(path)).unwrap().is_file(), "{path}");
    }
    w.run(&[]).ok().all_fresh();
    let w = Workspace::with(json!({"steps": {"a": {"run": "ln -s in d", "outputs": {"d": "d/"}}}}));
    w.write("in/x", "");
    w.run(&[]).ok().ran(["a"]);
    assert!(w.has("in/x") && w.has("d/x"), "a directory of its own");
    assert!(!std::fs::symlink_metadata(w.path("d")).unwrap().is_symlink());
}

#[test]
fn a_directory_input_is_all_that_lies_in_it() {
    let w = Workspace::with(json!({"steps": {
        "make": {"run": "if [ -s s ]; then cat s > d/made; fi", "inputs": {"s": "s"}, "outputs": {"o": {"path": "d/made", "optional": true}}},
        "list": {"run": "cat d/* > list", "inputs": {"d": "d/"}, "outputs": {"o": "list"}},
    }}));
    w.write("s", "").write("d/own", "own\n");
    w.run(&[]).ok();
    assert_eq!(w.read("list"), "own\n");
    w.write("s", "made\n");
    w.run(&[]).ok().ran(["make", "list"]);
    assert_eq!(w.read("list"), "made\nown\n");
    w.write("d/own", "OWN\n");
    w.run(&[]).ok().ran(["list"]);
    w.write("d/own", "own\n");
    w.run(&[]).ok().ran([]);
    // its bytes are gone: what lies in the directory is known only with them
    w.remove("d/made");
    let plan = w.flow(&["plan", "flow.json", "list", "--json"]).ok().json();
    assert_eq!(plan["nodes"][1]["status"], "may_run", "{plan}");
    w.run(&["list"]).ok().ran([]);
    assert_eq!(w.read("list"), "made\nown\n");
}

#[test]
fn a_command_that_damages_what_another_made_fails_and_does_no_harm() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "echo 1 > a", "outputs": {"o": "a"}},
        "b": {"run": "cat a > b; echo x >> a", "inputs": {"a": "a"}, "outputs": {"o": "b"}},
        "c": {"run": "cat a > c", "inputs": {"a": "a"}, "needs": ["b"], "outputs": {"o": "c"}},
    }}));
    w.run(&["-k"]).exits(1).failed(["b"]).says("input a keeps changing");
    assert!(!w.has("b"));
    w.run(&["c", "-k"]).exits(1);
    w.workflow(json!({"steps": {
        "a": {"run": "echo 1 > a", "outputs": {"o": "a"}},
        "c": {"run": "cat a > c", "inputs": {"a": "a"}, "outputs": {"o": "c"}},
    }}));
    w.run(&[]).ok().ran(["c"]);
    assert_eq!((w.read("a"), w.read("c")), ("1\n".into(), "1\n".into()));
}

#[test]
fn clean_removes_outputs_and_a_run_brings_them_back() {
    let w = Workspace::with(letters(&["a"]));
    w.write("out/mine.txt", "mine\n").write("out/own/f", "");
    w.run(&[]).ok();
    let before = w.tree("out");
    w.flow(&["clean", "flow.json"]).ok();
    assert_eq!(w.tree("out").keys().collect::<Vec<_>>(), ["mine.txt", "own/f"]);
    assert!(!w.has("all"));
    w.run(&[]).ok().ran([]);
    assert_eq!(w.tree("out"), before);
}

#[test]
fn a_directory_in_its_place_tells_what_is_in_it_when_the_cache_has_lost_the_list() {
    let definition = |command: &str| {
        json!({"steps": {
            "made": {"run": "cp s ${outputs.d}/x", "inputs": {"s": "s"}, "outputs": {"d": "out/d/"}},
            "taker": {"run": command, "inputs": {"x": "out/d/x"}, "outputs": {"o": "out/o"}},
        }})
    };
    let w = Workspace::with(definition("cat ${inputs.x} > ${outputs.o}"));
    w.write("s", "text\n");
    w.run(&[]).ok().ran(["made", "taker"]);
    w.flow(&["cache", "gc", "--max-size", "0"]).ok();
    w.workflow(definition("tr a-z A-Z < ${inputs.x} > ${outputs.o}"));
    w.run(&[]).ok().ran(["taker"]).outcome_is("fresh", ["made"]);
    assert_eq!(w.read("out/o"), "TEXT\n");
    // and when it is not in its place, it is made again
    w.flow(&["cache", "gc", "--max-size", "0"]).ok();
    w.remove("out/d/x");
    w.run(&[]).ok().ran(["made"]).outcome_is("fresh", ["taker"]);
}
