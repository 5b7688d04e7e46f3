//! From a file to nodes: matrices, references between them, globs, repeats, includes, profiles, parameters, targets.

use std::collections::BTreeSet;

use flow::api::Catalog;
use flow::engine::Project;
use flow::front::LoadRequest;
use flow::front::builder::WorkflowBuilder;
use serde_json::{Value, json};

use crate::support::Workspace;

/// Ids of all nodes of `flow plan`, in declared order.
fn planned(w: &Workspace, args: &[&str]) -> Vec<String> {
    let all: Vec<&str> = ["plan", "flow.json", "--json"].iter().chain(args).copied().collect();
    let json = w.flow(&all).ok().json();
    json["nodes"].as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap().to_owned()).collect()
}

fn digest(w: &Workspace) -> String {
    w.flow(&["plan", "flow.json", "--json"]).ok().json()["plan_digest"].as_str().unwrap().to_owned()
}

#[track_caller]
fn refused(workflow: Value, message: &str) {
    let w = Workspace::with(workflow);
    w.flow(&["check", "flow.json"]).exits(3).says(message);
}

/// A producer with three axes, and takers with fewer.
fn joins() -> Value {
    json!({
        "params": {"models": ["a", "b"], "kinds": ["x", "y"]},
        "steps": {
            "make": {"run": "echo ${matrix.model}${matrix.seq}${matrix.kind} > ${outputs.o}",
                "matrix": {"model": "${params.models}", "seq": [1, 2], "kind": "${params.kinds}"},
                "outputs": {"o": "make/${matrix.model}-${matrix.seq}-${matrix.kind}"}},
            "all": {"run": "cat ${steps.make.o} > ${outputs.o}", "outputs": {"o": "all"}},
            "kinds": {"run": "cat ${steps.make.o} > ${outputs.o}", "matrix": {"seq": [2, 1], "model": "${params.models}"},
                "outputs": {"o": "kinds/${matrix.model}-${matrix.seq}"}},
            "one": {"run": ["cat", "${steps.make.o}"], "stdout": "o",
                "matrix": {"model": ["b"], "seq": [1], "kind": ["y"]}, "outputs": {"o": "one"}},
            "fixed": {"run": "cat ${steps.make[kind=y].o} > ${outputs.o}", "outputs": {"o": "fixed"}},
            "point": {"run": ["cat", "${inputs.i}"], "stdout": "o",
                "inputs": {"i": "${steps.make[model=a,seq=2,kind=x].o}"}, "outputs": {"o": "point"}},
            "mixed": {"run": ["cat", "${steps.make[kind=x].o}"], "stdout": "o", "matrix": {"model": ["a", "b"]},
                "outputs": {"o": "mixed-${matrix.model}"}},
            "other": {"run": "cat ${steps.make[seq=1,kind=x].o} > ${outputs.o}", "matrix": {"n": [1]}, "outputs": {"o": "other"}},
        },
    })
}

#[test]
fn axes_are_joined_gathered_and_fixed() {
    let w = Workspace::with(joins());
    w.run(&[]).ok();
    let words = |path: &str| w.read(path).replace('\n', " ");
    assert_eq!(words("all"), "a1x a1y a2x a2y b1x b1y b2x b2y ", "row-major in the producer's order");
    assert_eq!(words("kinds/a-2"), "a2x a2y ");
    assert_eq!(words("one"), "b1y ");
    assert_eq!(words("fixed"), "a1y a2y b1y b2y ");
    assert_eq!(words("point"), "a2x ");
    assert_eq!(words("mixed-b"), "b1x b2x ");
    assert_eq!(words("other"), "a1x b1x ");
    let ids = planned(&w, &[]);
    assert_eq!(ids[0], "make[model=a,seq=1,kind=x]");
    assert_eq!(ids[9], "kinds[seq=2,model=a]");
    // one value more: only what is new runs
    let mut more = joins();
    more["params"]["kinds"] = json!(["x", "y", "z"]);
    w.workflow(more);
    let ran = w.run(&[]).ok().with_outcome("ran");
    assert!(ran.contains("all") && ran.contains("make[model=a,seq=1,kind=z]"), "{ran:?}");
    assert!(
        !ran.contains("fixed")
            && !ran.contains("mixed[model=a]")
            && !ran.contains("make[model=a,seq=1,kind=x]")
    );
}

#[test]
fn references_that_cannot_be_joined_are_refused() {
    let with = |step: Value| {
        json!({"steps": {
            "make": {"run": "x", "matrix": {"m": ["a", "b"]}, "outputs": {"o": "o/${matrix.m}"}}, "take": step}})
    };
    refused(with(json!({"run": "cat ${steps.make[n=1].o}"})), "no axis 'n'");
    refused(with(json!({"run": "cat ${steps.make[m=c].o}"})), "no node with m=c");
    refused(with(json!({"run": "cat ${steps.make.o}", "matrix": {"m": ["a", "c"]}})), "no node with m=c");
    refused(with(json!({"run": ["cat"], "stdin": "i", "inputs": {"i": "${steps.make.o}"}})), "one file");
    refused(with(json!({"run": "x", "matrix": {"m": ["a", "a"]}, "outputs": {"o": "p"}})), "equal");
    refused(with(json!({"run": "x", "matrix": {"m": ["a", "b"]}, "outputs": {"o": "same"}})), "same");
}

#[test]
fn include_and_exclude() {
    let matrix = |matrix: Value| {
        let w = Workspace::with(json!({"steps": {"s": {"run": "true", "matrix": matrix}}}));
        planned(&w, &[])
    };
    assert_eq!(
        matrix(json!({"a": [1, 2], "b": ["x", "y"], "exclude": [{"a": 1, "b": "x"}, {"b": "y", "a": 2}]})),
        ["s[a=1,b=y]", "s[a=2,b=x]"]
    );
    assert_eq!(
        matrix(
            json!({"a": [1, 2], "b": ["x"], "exclude": [{"a": 1}], "include": [{"a": 3, "b": "z"}, {"extra": "v"}]})
        ),
        ["s[a=2,b=x]", "s[a=3,b=z]"]
    );
    assert_eq!(
        matrix(json!({"include": [{"m": "a", "n": 1}, {"m": "b", "n": 2}]})),
        ["s[m=a,n=1]", "s[m=b,n=2]"]
    );
    assert_eq!(
        matrix(json!({"a": {"start": 1, "end": 8, "factor": 2}})),
        ["s[a=1]", "s[a=2]", "s[a=4]", "s[a=8]"]
    );
    assert_eq!(
        matrix(json!({"a": ["x y", "", "p/q", "ok.v-1_2"]})),
        [r#"s[a="x y"]"#, r#"s[a=""]"#, r#"s[a="p/q"]"#, "s[a=ok.v-1_2]"]
    );
    refused(
        json!({"steps": {"s": {"run": "true", "matrix": {"a": [1], "b": [1], "include": [{"a": 2}]}}}}),
        "every axis",
    );
}

#[test]
fn a_variable_of_include_is_no_axis() {
    let w = Workspace::with(json!({"steps": {
        "s": {"run": "echo ${matrix.a}${matrix.v} > ${outputs.o}",
            "matrix": {"a": [1, 2], "include": [{"v": "d"}, {"a": 2, "v": "two"}]}, "outputs": {"o": "o${matrix.a}"}},
        "t": {"run": "cat ${steps.s.o} > ${outputs.o}", "matrix": {"a": [2]}, "outputs": {"o": "t"}},
    }}));
    w.run(&[]).ok();
    assert_eq!((w.read("o1"), w.read("t")), ("1d\n".into(), "2two\n".into()));
}

#[test]
fn raising_repeats_runs_the_new_samples_only() {
    let steps = |n: u32| {
        json!({"steps": {
            "bench": {"run": "echo x >> log; echo ${matrix.m} > ${outputs.o}", "matrix": {"m": ["a"]}, "repeats": n,
                "outputs": {"o": "bench/${matrix.m}.json"}},
            "each": {"run": "cat ${steps.bench.o} > ${outputs.o}", "matrix": {"m": ["a"]}, "repeats": n, "outputs": {"o": "each.txt"}},
            "all": {"run": "cat ${steps.bench.o} > ${outputs.o}", "outputs": {"o": "all"}},
        }})
    };
    let w = Workspace::with(steps(3));
    w.run(&[]).ok();
    assert_eq!(w.tree("bench").keys().collect::<Vec<_>>(), ["a.1.json", "a.2.json", "a.3.json"]);
    assert!(w.has("each.1.txt") && w.has("each.3.txt"));
    assert_eq!(w.read("log").lines().count(), 3, "samples are independent");
    w.workflow(steps(5));
    let ran = w.run(&[]).ok().with_outcome("ran");
    let expected =
        ["bench[m=a,repeat=4]", "bench[m=a,repeat=5]", "each[m=a,repeat=4]", "each[m=a,repeat=5]", "all"];
    assert_eq!(ran, expected.iter().map(|id| (*id).to_owned()).collect());
    // a step without repeats is sample 1
    w.workflow(json!({"steps": {"bench": {"run": "echo x >> log; echo ${matrix.m} > ${outputs.o}", "matrix": {"m": ["a"]},
        "outputs": {"o": "single"}}}}));
    w.run(&[]).ok().ran([]).restored(["bench[m=a]"]);
}

#[test]
fn glob_axes_over_files_and_over_outputs() {
    let w = Workspace::with(json!({
        "params": {"in": "in"},
        "steps": {
            "clean": {"run": "echo ${matrix.f.index} ${matrix.f.name} ${matrix.f.stem} ${matrix.f.rel} > ${outputs.o}",
                "matrix": {"f": {"glob": "${params.in}/**/*.txt"}}, "inputs": {"f": "${matrix.f}"},
                "outputs": {"o": "clean/${matrix.f.stem}.c"}},
            "next": {"run": "cat ${matrix.f} > ${outputs.o}", "matrix": {"f": {"glob": ["clean/*.c", "in/[d]*.txt"]}}, "inputs": {"f": "${matrix.f}"},
                "outputs": {"o": "next/${matrix.f.name}"}},
            "joined": {"run": "cat ${steps.clean.o} > ${outputs.o}", "matrix": {"f": {"glob": "${params.in}/**/*.txt"}},
                "outputs": {"o": "joined/${matrix.f.stem}"}},
            "refs": {"run": "echo ${matrix.f.name} > ${outputs.o}", "matrix": {"f": {"glob": "${steps.clean.o}"}}, "inputs": {"f": "${matrix.f}"},
                "outputs": {"o": "refs/${matrix.f.stem}"}},
            "dirs": {"run": "ls ${matrix.d} > ${outputs.o}", "matrix": {"d": {"glob": "in/*/"}}, "inputs": {"d": "${matrix.d}"},
                "outputs": {"o": "dirs/${matrix.d.name}"}},
        },
    }));
    w.write("in/b.txt", "")
        .write("in/a.txt", "")
        .write("in/sub/c.txt", "")
        .write("in/no.md", "")
        .write("in/.hid.txt", "");
    w.run(&[]).ok();
    assert_eq!(
        planned(&w, &["clean"]),
        [r#"clean[f="in/a.txt"]"#, r#"clean[f="in/b.txt"]"#, r#"clean[f="in/sub/c.txt"]"#]
    );
    assert_eq!(w.read("next/c.c"), "03 c.txt c sub/c.txt\n");
    assert_eq!(w.tree("next").len(), 3);
    assert_eq!(w.read("joined/a"), "01 a.txt a a.txt\n");
    assert_eq!((w.read("refs/b"), w.read("dirs/sub")), ("b.c\n".into(), "c.txt\n".into()));
    // a file more: its own chain, and those whose place in the list moved
    w.write("in/d.txt", "");
    let ran = w.run(&[]).ok().with_outcome("ran");
    assert!(ran.contains(r#"clean[f="in/d.txt"]"#) && ran.contains(r#"next[f="clean/d.c"]"#), "{ran:?}");
    assert!(!ran.contains(r#"clean[f="in/a.txt"]"#), "{ran:?}");
    // a file less: its outputs are orphans, and no axis has them
    w.remove("in/d.txt");
    w.run(&[]).ok();
    assert_eq!(planned(&w, &["next"]).len(), 6, "three, and what they need");
    let orphans = w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout;
    assert!(orphans.contains("clean/d.c") && orphans.contains("next/d.c"), "{orphans}");
    // no file at all: no nodes, and gathered lists are empty
    w.remove("in/a.txt").remove("in/b.txt").remove("in/sub");
    assert_eq!(planned(&w, &[]), [""; 0]);
}

#[test]
fn text_that_a_reference_brings_into_a_pattern_is_literal() {
    let w = Workspace::with(json!({"params": {"dir": "in[1]", "pattern": "in*/*"}, "steps": {
        "a": {"run": "cat ${inputs.i} > ${outputs.o}", "inputs": {"i": "${params.dir}/*"}, "outputs": {"o": "a"}},
        "b": {"run": "cat ${inputs.i} > ${outputs.o}", "inputs": {"i": "${params.pattern}"}, "outputs": {"o": "b"}},
    }}));
    w.write("in[1]/x", "bracket\n").write("in1/x", "plain\n");
    w.run(&[]).ok();
    assert_eq!((w.read("a"), w.read("b")), ("bracket\n".into(), "plain\nbracket\n".into()));
}

fn including(w: &Workspace) {
    w.write("lib/inner.json", json!({
        "name": "inner", "params": {"src": "none", "out": "inner-out", "word": "inner"},
        "env": {"E": "of-inner"},
        "profiles": {"loud": {"params": {"word": "LOUD"}, "env": {"E": "of-profile"}}},
        "steps": {
            "one": {"run": "cat ${inputs.s} > ${outputs.o}; echo ${params.word} $E >> ${outputs.o}",
                "matrix": {"k": ["x", "y"]}, "inputs": {"s": "${params.src}"}, "outputs": {"o": "${params.out}/${matrix.k}"}},
            "dir": {"run": ["sh", "${workflow.dir}/s.sh"], "outputs": {"o": "${params.out}/dir"}},
        },
    }).to_string());
    w.write("lib/s.sh", "mkdir -p outer; echo dir > outer/dir\n");
}

#[test]
fn includes_take_references_and_keep_their_axes() {
    let w = Workspace::with(json!({
        "params": {"to": "outer"},
        "include": [{"file": "lib/inner.json", "as": "in", "params": {"src": "${steps.make.o}", "out": "${params.to}"}}],
        "steps": {
            "make": {"run": "echo ${matrix.k} > ${outputs.o}", "matrix": {"k": ["x", "y"]}, "outputs": {"o": "made-${matrix.k}"}},
            "last": {"run": "cat ${steps.in.one.o} > ${outputs.o}", "outputs": {"o": "last"}},
        },
    }));
    including(&w);
    w.run(&[]).ok();
    assert_eq!(w.read("last"), "x\ninner of-inner\ny\ninner of-inner\n");
    assert_eq!(w.read("outer/dir"), "dir\n");
    assert!(planned(&w, &[]).contains(&"in.one[k=x]".to_owned()));
    // a profile of the include only
    w.run(&["--profile", "loud", "in.one[k=x]"]).ok().ran(["in.one[k=x]"]);
    assert_eq!(w.read("outer/x"), "x\nLOUD of-profile\n");
    w.run(&["--profile", "none"]).exits(2).says("none");
}

#[test]
fn parameters_in_rising_priority() {
    let w = Workspace::new();
    including(&w);
    w.write("src", "");
    let root = |params: Value| {
        json!({
            "include": [{"file": "lib/inner.json", "as": "in", "params": params}],
            "params": {"word": "root"},
            "profiles": {"loud": {"params": {"word": "ROOT"}}},
            "steps": {"say": {"run": ["echo", "${params.word}"], "stdout": "o", "outputs": {"o": "said"}}},
        })
    };
    let words = |args: &[&str]| -> (String, String) {
        w.run(args).ok();
        let inner = w.read("inner-out/x");
        (w.read("said").trim().to_owned(), inner.split(' ').next().unwrap().to_owned())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let targets = ["say", "in.one"];
    let with = |more: &[&'static str]| -> Vec<&'static str> {
        targets.iter().copied().chain(more.iter().copied()).collect()
    };
    w.workflow(root(json!({"src": "src"})));
    assert_eq!(words(&with(&[])), pair("root", "inner"));
    assert_eq!(words(&with(&["--profile", "loud"])), pair("ROOT", "LOUD"));
    w.workflow(root(json!({"src": "src", "word": "given"})));
    assert_eq!(words(&with(&["--profile", "loud"])), pair("ROOT", "given"));
    w.write("p.json", json!({"word": "file"}).to_string());
    assert_eq!(words(&with(&["--profile", "loud", "--params", "p.json"])), pair("file", "given"));
    let set = ["--params", "p.json", "--set", "word=set", "--set", "in.word=deep"];
    assert_eq!(words(&with(&set)), pair("set", "deep"));
    w.run(&["--set", "wrod=x"]).exits(2).says("word");
}

#[test]
fn a_set_value_is_json_if_it_parses() {
    let w = Workspace::with(json!({"params": {"list": ["a"]}, "steps": {
        "s": {"run": ["echo", "${matrix.v}", "${params.list}"], "stdout": "o", "matrix": {"v": "${params.list}"}, "outputs": {"o": "o/${matrix.v}"}}}}));
    w.run(&["--set", r#"list=["p", "q"]"#]).ok().ran(["s[v=p]", "s[v=q]"]);
    assert_eq!(w.read("o/q"), "q p q\n", "a list becomes arguments of its own");
    w.run(&["--set", "list=text"]).exits(3).says("not a list");
}

#[test]
fn values_in_shell_text_and_in_arguments() {
    let w = Workspace::with(json!({
        "params": {"s": "it's $HOME \"x\"; exit 1", "n": 1.5, "b": true, "l": ["a b", "c"]},
        "steps": {
            "shell": {"run": "printf '%s|' ${params.s} ${params.n} ${params.b} ${params.l} $${HOME:+home} > ${outputs.o}", "outputs": {"o": "shell"}},
            "argv": {"run": ["printf", "%s|", "${params.s}", "x${params.n}y", "${params.l}", "$${HOME}", "--in=${inputs.i}", "${inputs.i}"],
                "stdout": "o", "inputs": {"i": ["in/2", "in/1"]}, "outputs": {"o": "argv"}},
        },
    }));
    w.write("in/1", "").write("in/2", "");
    w.run(&[]).ok();
    assert_eq!(w.read("shell"), "it's $HOME \"x\"; exit 1|1.5|true|a b|c|home|");
    assert_eq!(w.read("argv"), "it's $HOME \"x\"; exit 1|x1.5y|a b|c|${HOME}|--in=in/2|--in=in/1|in/2|in/1|");
}

#[test]
fn targets_by_id_step_path_and_pattern() {
    let w = Workspace::with(joins());
    let set = |args: &[&str]| -> BTreeSet<String> { planned(&w, args).into_iter().collect() };
    let ids = |list: &[&str]| -> BTreeSet<String> { list.iter().map(|id| (*id).to_owned()).collect() };
    assert_eq!(set(&["make[model=a,seq=1,kind=x]"]), ids(&["make[model=a,seq=1,kind=x]"]));
    assert_eq!(set(&["make"]).len(), 8);
    assert_eq!(set(&["make/a-1-x"]), ids(&["make[model=a,seq=1,kind=x]"]));
    assert_eq!(set(&["./make/a-1-x"]), ids(&["make[model=a,seq=1,kind=x]"]));
    assert_eq!(set(&["make[model=a,*]"]).len(), 4, "brackets are literal");
    assert_eq!(set(&["make[model=?,seq=1,kind={x,y}]"]).len(), 4);
    assert_eq!(set(&["mixed-*"]), {
        let mut all = ids(&["mixed[model=a]", "mixed[model=b]"]);
        all.extend(set(&["make[*kind=x]"]));
        all
    });
    assert_eq!(set(&["point"]), ids(&["make[model=a,seq=2,kind=x]", "point"]));
    // what it needs is planned anyhow; +T makes targets of it
    w.run(&["point"]).ok();
    w.remove("make/a-2-x").remove("point");
    w.run(&["point"]).ok().restored(["point"]).outcome_is("cached", ["make[model=a,seq=2,kind=x]"]);
    w.run(&["+point"]).ok().restored(["make[model=a,seq=2,kind=x]"]);
    let down = w.run(&["make[model=a,seq=2,kind=x]+"]).ok();
    let taken = ["all", "point", "mixed[model=a]", "kinds[seq=2,model=a]"];
    assert!(taken.iter().all(|id| down.json()["nodes"].as_array().unwrap().iter().any(|n| n["id"] == **id)));
}

#[test]
fn loops_and_double_outputs_are_shown() {
    refused(
        json!({"steps": {
            "a": {"run": "x", "inputs": {"i": "${steps.c.o}"}, "outputs": {"o": "a"}},
            "b": {"run": "x", "inputs": {"i": "${steps.a.o}"}, "outputs": {"o": "b"}},
            "c": {"run": "x", "inputs": {"i": "${steps.b.o}"}, "outputs": {"o": "c"}}}}),
        "->",
    );
    refused(
        json!({"steps": {"a": {"run": "x", "inputs": {"i": "b"}, "outputs": {"o": "a"}},
            "b": {"run": "x", "inputs": {"i": "a"}, "outputs": {"o": "b"}}}}),
        "->",
    );
    refused(
        json!({"steps": {"a": {"run": "x", "matrix": {"f": {"glob": "o/*"}}, "outputs": {"o": "p/${matrix.f.name}"}},
            "b": {"run": "x", "matrix": {"f": {"glob": "p/*"}}, "outputs": {"o": "o/${matrix.f.name}"}}}}),
        "->",
    );
    for (one, two) in [("o", "o"), ("o", "./o"), ("o/", "o/x"), ("o", "o/x"), ("o/../o/x", "o/")] {
        refused(
            json!({"steps": {"a": {"run": "x", "outputs": {"o": one}}, "b": {"run": "x", "outputs": {"o": two}}}}),
            "'o",
        );
    }
    refused(json!({"steps": {"a": {"run": "x", "outputs": {"o": "../o"}}}}), "outside");
    refused(json!({"steps": {"a": {"run": "x", "outputs": {"o": "/tmp/o"}}}}), "outside");
    refused(json!({"steps": {"a": {"run": "x", "outputs": {"o": "cache/o"}}}}), "cache");
}

#[test]
fn the_plan_digest_knows_what_decides() {
    let base = |extra: Value| {
        let mut workflow = joins();
        for (pointer, value) in extra.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            workflow.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        workflow
    };
    let w = Workspace::with(base(json!({})));
    let first = digest(&w);
    w.run(&[]).ok();
    assert_eq!(digest(&w), first, "the same before and after a run");
    for (edit, same) in [
        (json!({"/steps/all/doc": "says"}), true),
        (json!({"/steps/all/resources": {"cpu": 2}}), true),
        (json!({"/$schema": "x.json"}), true),
        (json!({"/steps/all/run": "cat ${steps.make.o} ${steps.one.o} > ${outputs.o}"}), false),
        (
            json!({"/params/models": ["a"], "/steps/one/matrix/model": ["a"], "/steps/mixed/matrix/model": ["a"]}),
            false,
        ),
        (json!({"/steps/all/needs": ["other"]}), false),
    ] {
        w.workflow(base(edit.clone()));
        assert_eq!(digest(&w) == first, same, "{edit}");
    }
}

#[test]
fn rust_and_json_make_the_same_plan() {
    let w = Workspace::with(json!({
        "name": "same",
        "params": {"models": ["a", "b"], "out": "out"},
        "services": {"web": {"uses": "sim.http", "with": {"dir": "www"}}},
        "steps": {
            "fetch": {"uses": "http.fetch", "with": {"url": "${services.web.url}/${matrix.m}"}, "matrix": {"m": "${params.models}"},
                "outputs": {"body": "${params.out}/${matrix.m}"}},
            "cat": {"run": ["cat", "${inputs.all}"], "stdout": "o", "inputs": {"all": "${steps.fetch.body}"},
                "outputs": {"o": {"path": "${params.out}/all", "optional": true}}, "env": {"A": "1"}},
        },
    }));
    let mut wf = WorkflowBuilder::new("same");
    let models = wf.param("models", ["a", "b"]);
    let out = wf.param("out", "out");
    wf.service("web", json!({"uses": "sim.http", "with": {"dir": "www"}}));
    let fetch = wf
        .step("fetch")
        .matrix("m", &models)
        .uses(flow::prelude::Uses::new("http.fetch", json!({"url": "${services.web.url}/${matrix.m}"})))
        .output("body", format!("{out}/${{matrix.m}}"));
    wf.step("cat")
        .output_with("o", json!({"path": format!("{out}/all"), "optional": true}))
        .set("env", json!({"A": "1"}))
        .input("all", fetch.out("body"))
        .run(["cat", "${inputs.all}"])
        .set("stdout", "o");
    let mut catalog: Catalog = flow::stage::catalog();
    let request = LoadRequest { file: wf.file(), root: w.root().to_owned(), ..LoadRequest::default() };
    let loaded = wf.load(&request, &mut catalog).unwrap();
    let project = Project::with_loaded(loaded, w.root(), None, &catalog).unwrap();
    assert_eq!(project.plan_digest().to_string(), digest(&w));
}

#[test]
fn steps_need_not_stand_in_order_and_paths_link_as_references_do() {
    let w = Workspace::with(json!({"steps": {
        "last": {"run": "cat d/* b ./c > last", "inputs": {"i": ["d/*", "./b", "x/../c"]}, "outputs": {"o": "last"}},
        "c": {"run": "cat b > c", "inputs": {"b": "b"}, "outputs": {"o": "./c"}},
        "d": {"run": "echo ${matrix.n} > d/${matrix.n}", "matrix": {"n": [2, 1]}, "outputs": {"o": "d/${matrix.n}"}},
        "b": {"run": "echo b > b", "outputs": {"o": "b"}},
    }}));
    w.write("d/0", "0\n");
    w.run(&["-j", "8"]).ok();
    assert_eq!(w.read("last"), "0\n1\n2\nb\nb\n");
    w.run(&[]).ok().all_fresh();
}

#[test]
fn an_output_of_an_append_directory_is_no_match() {
    let w = Workspace::with(json!({"steps": {
        "log": {"run": "echo 1 > ${outputs.l}/e", "outputs": {"l": {"path": "log/", "append": true}}},
        "all": {"run": "cat ${inputs.l} /dev/null > all", "inputs": {"l": "log/*"}, "outputs": {"o": "all"}},
    }}));
    w.write("log/mine", "mine\n");
    w.run(&[]).ok();
    let first = w.read("all");
    w.run(&[]).ok().all_fresh();
    assert_eq!(w.read("all"), first, "the second run sees what the first saw");
}
