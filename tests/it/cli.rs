//! The command line: what each command prints where, in which shape, and with which exit code.

use std::collections::BTreeSet;

use expect_test::expect;
use serde_json::{Value, json};

use crate::support::{Run, Workspace, repository};

/// `a` from `s`, `b` from `a`, `free` from nothing, two nodes of `m`.
fn chain() -> Workspace {
    let w = Workspace::with(json!({"name": "chain", "steps": {
        "a": {"run": "cat s > ${outputs.a}; echo made a", "inputs": {"s": "s"}, "outputs": {"a": "out/a"}, "doc": "copies s"},
        "b": {"run": ["cat", "${steps.a.a}"], "stdout": "b", "outputs": {"b": "out/b"}},
        "free": {"run": "echo free > ${outputs.o}", "outputs": {"o": "out/free"}, "cache": "never"},
        "m": {"matrix": {"k": ["x", "y z"]}, "run": "echo ${matrix.k} > ${outputs.o}", "outputs": {"o": "out/m/${matrix.k.index}/"}, "cwd": "."}
    }}));
    w.write("s", "1");
    let mut workflow = w.json("flow.json");
    workflow["steps"]["m"]["outputs"]["o"] = json!("out/m/${matrix.k.index}");
    workflow["steps"]["m"].as_object_mut().unwrap().remove("cwd");
    workflow["steps"]["free"].as_object_mut().unwrap().remove("cache");
    w.workflow(workflow);
    w
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_object_of_run_json() {
    let w = chain();
    let run = w.flow(&["run", "flow.json", "--json"]).ok();
    let json = run.json();
    assert_eq!(keys(&json), ["run", "workflow", "outcome", "plan_digest", "counts", "seconds", "nodes"]);
    assert_eq!(json["workflow"], "chain");
    assert_eq!(json["outcome"], "ok");
    assert_eq!(json["plan_digest"].as_str().unwrap().len(), "b3:".len() + 64);
    let counts = json!({"fresh": 0, "restored": 0, "cached": 0, "ran": 5, "failed": 0, "skipped": 0, "absent": 0, "cancelled": 0});
    assert_eq!(json["counts"], counts);
    assert_eq!(keys(&json["counts"]), keys(&counts));
    assert!(json["seconds"].as_f64().unwrap() > 0.0);
    let b = run.node("b");
    assert_eq!(keys(&b), ["id", "outcome", "reason", "key", "seconds", "attempts", "checked", "device"]);
    assert_eq!(
        (&b["outcome"], &b["attempts"], &b["checked"], &b["device"]),
        (&json!("ran"), &json!(1), &json!(false), &Value::Null)
    );
    assert!(b["key"].as_str().unwrap().starts_with("b3:"));
    let ids: Vec<&str> =
        json["nodes"].as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 5);
    assert!(ids.contains(&"m[k=\"y z\"]"), "{ids:?}");
    // fresh ones are left out unless -v
    let again = w.flow(&["run", "flow.json", "--json"]).ok().json();
    assert_eq!((&again["nodes"], &again["counts"]["fresh"]), (&json!([]), &json!(5)));
    assert_eq!(again["plan_digest"], json["plan_digest"]);
    assert_eq!(w.run(&[]).ok().json()["nodes"].as_array().unwrap().len(), 5);
    // the talk goes to standard error, and with -q there is none
    let quiet = w.flow(&["run", "flow.json", "--json", "-q", "--force"]).ok();
    assert_eq!((quiet.json()["counts"]["ran"].as_u64(), quiet.stderr.as_str()), (Some(5), ""));
}

#[test]
fn run_json_of_a_failed_run() {
    let w = chain();
    w.remove("s");
    let run = w.flow(&["run", "flow.json", "--json", "-k"]).exits(1);
    let json = run.json();
    assert_eq!(json["outcome"], "failed");
    assert_eq!(
        (&json["counts"]["failed"], &json["counts"]["skipped"], &json["counts"]["ran"]),
        (&json!(1), &json!(1), &json!(3))
    );
    assert!(run.node("a")["error"].as_str().unwrap().contains("input s is not there"));
    assert_eq!(run.node("b")["reason"], "a failed");
}

#[test]
fn exit_codes() {
    let w = chain();
    w.flow(&["run", "flow.json", "-q"]).exits(0);
    w.flow(&["run"]).exits(2);
    w.flow(&["run", "flow.json", "--no-such-option"]).exits(2);
    w.flow(&["no-such-command"]).exits(2);
    w.flow(&["run", "flow.json", "no-such-target"]).exits(2);
    w.flow(&["--version"]).exits(0);
    w.flow(&["--help"]).exits(0);
    w.write("bad.json", "{");
    w.flow(&["run", "bad.json"]).exits(3);
    w.flow(&["check", "bad.json"]).exits(3);
    w.flow(&["check", "flow.json"]).exits(0);
    w.workflow(json!({"steps": {"a": {"run": "exit 5"}}}));
    w.flow(&["run", "flow.json"]).exits(1);
    w.workflow(json!({"steps": {"a": {"run": "true", "tools": ["no-such-tool"]}}}));
    w.flow(&["run", "flow.json"]).exits(4);
    w.flow(&["-C", "no-such-directory", "check", "flow.json"]).exits(4);
}

#[test]
fn wrong_usage_leaves_no_run_behind() {
    let w = chain();
    w.flow(&["run", "flow.json", "no-such-target"]).exits(2);
    assert_eq!(w.flow(&["log", "--json"]).ok().json(), json!([]));
}

#[test]
fn quiet_says_failures_only_and_a_pipe_gets_plain_lines() {
    let w = chain();
    let quiet = w.flow(&["run", "flow.json", "-q"]).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let plain = w.flow(&["run", "flow.json", "--force"]).ok();
    assert_eq!(plain.stdout, "");
    assert!(!plain.stderr.contains('\u{1b}') && !plain.stderr.contains('\r'), "{:?}", plain.stderr);
    for line in ["ran       a", "ran       m[k=\"y z\"]"] {
        assert!(plain.stderr.contains(line), "{line} in\n{}", plain.stderr);
    }
    assert!(plain.stderr.lines().last().unwrap().contains("5 ran"), "{}", plain.stderr);
}

/// Whether a value fits a schema: the part of JSON Schema that ours use.
fn fits(schema: &Value, root: &Value, value: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        return fits(root.pointer(name.trim_start_matches('#')).expect("a known $ref"), root, value);
    }
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    };
    let right = match &schema["type"] {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
        _ => true,
    };
    if !right {
        return Err(format!("{value} is no {}", schema["type"]));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{value} is not {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|known| !known.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        value.get(name).ok_or_else(|| format!("{value} has no '{name}'"))?;
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(held) = value.get(name) {
            fits(inner, root, held).map_err(|e| format!("{name}: {e}"))?;
        }
    }
    if let Some(items) = schema.get("items") {
        value.as_array().into_iter().flatten().try_for_each(|item| fits(items, root, item))?;
    }
    for (choice, most) in [("oneOf", 1), ("anyOf", usize::MAX)] {
        if let Some(choices) = schema[choice].as_array() {
            let results: Vec<_> = choices.iter().map(|choice| fits(choice, root, value)).collect();
            let fitting = results.iter().filter(|r| r.is_ok()).count();
            if fitting == 0 || fitting > most {
                return Err(format!("{value} fits {fitting} of {choice}: {results:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn events_are_json_lines_of_the_published_schema() {
    let w = chain();
    w.write("site/x.json", "[1]");
    w.workflow(json!({
        "services": {"web": {"uses": "sim.http", "with": {"dir": "site"}}},
        "steps": {
            "get": {"uses": "http.fetch", "with": {"url": "${services.web.url}/x.json"}, "outputs": {"body": "out/x"}},
            "again": {"run": "echo no; exit 1", "retry": {"max": 1, "backoff": "1ms"}},
            "after": {"run": "true", "needs": ["again"]}
        }
    }));
    w.flow(&["run", "flow.json", "-q", "-k", "--events", "events.jsonl"]).exits(1);
    let schema: Value = serde_json::from_str(
        &std::fs::read_to_string(repository().join("schemas/event.schema.json")).unwrap(),
    )
    .unwrap();
    let text = w.read("events.jsonl");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for event in &events {
        fits(&schema, &schema, event).unwrap_or_else(|e| panic!("{event}: {e}"));
    }
    assert!(fits(&schema, &schema, &json!({"t": 0.0, "event": "node_started", "node": 1})).is_err());
    let kinds: Vec<&str> = events.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds[1], *kinds.last().unwrap()), ("run_started", "planned", "run_finished"));
    // said now and then, by the clock
    let all: BTreeSet<&str> = kinds.iter().copied().filter(|kind| *kind != "alive").collect();
    assert_eq!(
        all.into_iter().collect::<Vec<_>>(),
        [
            "log",
            "looked",
            "node_finished",
            "node_retrying",
            "node_started",
            "planned",
            "run_finished",
            "run_started",
            "service_ready",
            "service_starting",
            "service_stopped"
        ]
    );
    let times: Vec<f64> = events.iter().map(|e| e["t"].as_f64().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
}

fn statuses(run: &Run) -> Vec<(String, String)> {
    let nodes = run.json()["nodes"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    nodes.as_array().unwrap().iter().map(|n| (text(&n["id"]), text(&n["status"]))).collect()
}

#[test]
fn plan_says_what_would_become_of_each_node() {
    let w = chain();
    w.write("site/x.json", "[1]");
    let mut workflow = w.json("flow.json");
    workflow["services"] = json!({"web": {"uses": "sim.http", "with": {"dir": "site"}}});
    workflow["steps"]["get"] = json!({"uses": "http.fetch", "with": {"url": "${services.web.url}/x.json"}, "outputs": {"body": "out/x"}});
    w.workflow(workflow);
    let plan = |args: &[&str]| {
        let all: Vec<&str> = ["plan", "flow.json", "--json"].iter().chain(args).copied().collect();
        w.flow(&all).ok()
    };
    let status = |run: &Run, id: &str| {
        statuses(run).into_iter().find(|(known, _)| known == id).unwrap_or_else(|| panic!("{id}")).1
    };
    let first = plan(&[]);
    assert_eq!(keys(&first.json()), ["workflow", "plan_digest", "counts", "nodes"]);
    assert_eq!((status(&first, "a").as_str(), status(&first, "b").as_str()), ("would_run", "may_run"));
    assert_eq!(keys(&first.json()["nodes"][0])[..4], ["id", "status", "reason", "key"]);
    assert!(!w.has("out"), "a plan makes nothing");
    w.run(&[]).ok();
    let after = plan(&[]);
    assert_eq!(after.json()["plan_digest"], w.run(&[]).ok().json()["plan_digest"]);
    assert_eq!((status(&after, "a").as_str(), status(&after, "get").as_str()), ("fresh", "would_check"));
    assert_eq!(status(&plan(&["--offline"]), "get"), "fresh");
    w.remove("out/b");
    assert_eq!(status(&plan(&[]), "b"), "would_restore");
    w.write("s", "2");
    let edited = plan(&[]);
    let a = edited.json()["nodes"].as_array().unwrap().iter().find(|n| n["id"] == "a").unwrap().clone();
    assert_eq!((&a["status"], &a["reason"]), (&json!("would_run"), &json!("input s changed (s)")));
    assert_eq!(status(&edited, "b"), "may_run");
    assert_eq!(statuses(&plan(&["free"])).len(), 1);
    // -n is the same, and neither runs anything
    let dry = w.flow(&["run", "flow.json", "-n", "--json"]).ok();
    assert_eq!(dry.json(), edited.json());
    assert_eq!(w.read("out/a"), "1");
}

#[test]
fn key_is_the_same_before_and_after_a_run_and_another_after_an_edit() {
    let w = chain();
    let key = |args: &[&str]| {
        let all: Vec<&str> = ["key", "flow.json"].iter().chain(args).copied().collect();
        w.flow(&all).ok().stdout
    };
    let before = key(&[]);
    assert_eq!(before.trim().len(), 64);
    let free = key(&["free"]);
    w.run(&[]).ok();
    assert_eq!(key(&[]), before);
    w.write("s", "2");
    assert_ne!(key(&[]), before);
    assert_eq!(key(&["free"]), free);
    w.write("s", "1");
    assert_eq!(key(&[]), before);
}

#[test]
fn why_explain_and_ls() {
    let w = chain();
    let run = w.run(&[]).ok().json()["run"].as_str().unwrap().to_owned();
    let why = |path: &str| w.flow(&["why", "flow.json", path]).ok().stdout.replace(&run, "RUN");
    expect![[r#"
        out/b is output 'b' of b
        last made or found in run RUN
          from steps.a.a:
            out/a
    "#]]
    .assert_eq(&why("out/b"));
    expect![[r#"
        s is a source: no node makes it
          taken by a
    "#]]
    .assert_eq(&why("s"));
    assert_eq!(why(&w.path("out/b").canonicalize().unwrap().display().to_string()), why("./out/b"));
    expect![[r#"
        node        output  path
        a           a       out/a
        b           b       out/b
        free        o       out/free
        m[k=x]      o       out/m/01
        m[k="y z"]  o       out/m/02
    "#]]
    .assert_eq(&w.flow(&["ls", "flow.json"]).ok().stdout);
    assert_eq!(w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout, "");
    let mut workflow = w.json("flow.json");
    workflow["steps"].as_object_mut().unwrap().remove("free");
    workflow["steps"]["b"]["env"] = json!({"NEW": "1"});
    w.workflow(workflow);
    assert_eq!(w.flow(&["ls", "flow.json", "--orphans"]).ok().stdout, "out/free\n");
    expect![[r#"
        out/free is an orphan: free made it once, and no node declares it now
    "#]]
    .assert_eq(&why("out/free"));
    let explained = w.flow(&["explain", "flow.json", "b"]).ok().stdout;
    assert!(explained.contains("changed:  environment variable NEW added"), "{explained}");
}

#[test]
fn graph_in_every_form() {
    let w = chain();
    let graph = |form: &str| w.flow(&["graph", "flow.json", "--format", form]).ok();
    assert_eq!(w.flow(&["graph", "flow.json"]).ok().stdout, graph("text").stdout);
    expect![[r#"
        chain: 5 nodes of 4 steps

        a           cat

        b           cat
          <- a

        free        echo

        m[k=x]      echo

        m[k="y z"]  echo
    "#]]
    .assert_eq(&graph("text").stdout);
    assert!(graph("dot").stdout.contains("  \"a\" -> \"b\";\n"));
    assert!(graph("mermaid").stdout.starts_with("flowchart LR\n"));
    let svg = graph("svg").stdout;
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains(">free<"), "{svg}");
    let json = graph("json").json();
    assert_eq!(json["edges"], json!([["a", "b"]]));
    assert_eq!(json["nodes"][0]["inputs"], json!({"s": ["s"]}));
    assert_eq!(json["nodes"][1]["command"], json!(["cat", "${inputs.steps.a.a}"]));
    w.flow(&["graph", "flow.json", "--format", "png"]).exits(2);
}

#[test]
fn the_log_of_past_runs() {
    let w = chain();
    w.run(&[]).ok();
    w.write("s", "2");
    w.run(&[]).ok();
    let list = w.flow(&["log", "--json"]).ok().json();
    let list = list.as_array().unwrap().clone();
    assert_eq!(list.len(), 2);
    let id = |at: usize| list[at]["run"].as_str().unwrap().to_owned();
    let text = w.flow(&["log"]).ok().stdout;
    assert!(text.contains(&id(0)) && text.contains(&id(1)), "{text}");
    let show = w.flow(&["log", "show", "last", "--json"]).ok().json();
    assert_eq!(show["run"], id(1).as_str());
    assert_eq!(show["counts"]["ran"], 2);
    assert_eq!(w.flow(&["log", &id(1), "--json"]).ok().json(), show);
    assert!(w.flow(&["log", "show"]).ok().stdout.contains("input s changed"));
    assert_eq!(w.flow(&["log", "output", "a"]).ok().stdout, "made a\n");
    let diff = w.flow(&["log", "diff", &id(0), "last"]).ok().stdout;
    assert!(diff.contains('a') && diff.contains('b'), "{diff}");
    let changed = w.flow(&["log", "diff", &id(0), &id(1), "--json"]).ok();
    assert!(changed.json().is_object() || changed.json().is_array());
}

#[test]
fn clean_removes_outputs_and_nothing_else() {
    let w = chain();
    w.run(&[]).ok();
    w.write("out/mine", "not of flow");
    let dry = w.flow(&["clean", "flow.json", "-n"]).ok();
    assert_eq!(dry.stdout, "out/a\nout/b\nout/free\nout/m/01\nout/m/02\n");
    assert!(w.has("out/a"));
    let clean = w.flow(&["clean", "flow.json"]).ok();
    assert_eq!(clean.stdout, dry.stdout);
    assert_eq!(w.tree("out").into_keys().collect::<Vec<_>>(), ["mine"]);
    assert_eq!(w.read("s"), "1");
    w.run(&[]).ok().restored(["a", "b", "free", "m[k=x]", "m[k=\"y z\"]"]);
}

#[test]
fn stages_schema_and_completions() {
    let w = Workspace::new();
    let stages = w.flow(&["stages"]).ok().stdout;
    for stage in ["csv.join", "http.fetch", "inferencemax.clean", "sim.http", "table.compare"] {
        assert!(stages.contains(stage), "{stage} in\n{stages}");
    }
    let join = w.flow(&["stages", "csv.join"]).ok().stdout;
    for word in ["left", "on_duplicate", "cross"] {
        assert!(join.contains(word), "{word} in\n{join}");
    }
    let schema = w.flow(&["schema"]).ok().stdout;
    let shipped = std::fs::read_to_string(repository().join("schemas/workflow.schema.json")).unwrap();
    assert_eq!(schema, shipped);
    for shell in ["bash", "zsh", "fish"] {
        assert!(w.flow(&["completions", shell]).ok().stdout.contains("explain"));
    }
    assert!(w.tree(".").is_empty(), "none of these needs or makes anything");
}

#[test]
fn the_cache() {
    let w = chain();
    w.run(&[]).ok();
    w.write("big.json", "");
    let stats = w.flow(&["cache", "stats", "--json"]).ok().json();
    assert_eq!(stats["results"], 5, "{stats}");
    assert!(w.flow(&["cache", "stats"]).ok().stdout.contains("results: 5\n"));
    w.flow(&["cache", "verify"]).ok();
    assert!(w.flow(&["cache", "verify", "--json"]).ok().json().is_object());
    w.flow(&["cache", "gc", "-n", "--max-size", "0"]).ok();
    w.flow(&["cache", "gc", "--keep-runs", "1"]).ok();
    w.run(&[]).ok().all_fresh();
}

#[test]
fn the_cache_finds_damage() {
    let w = Workspace::with(
        json!({"steps": {"a": {"run": "head -c 200000 /dev/urandom > ${outputs.o}", "outputs": {"o": "o"}}}}),
    );
    w.run(&[]).ok();
    let blob = w.tree("cache/objects").into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let mut bytes = blob.1;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::set_permissions(
        w.path("cache/objects").join(&blob.0),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    w.write(&format!("cache/objects/{}", blob.0), bytes);
    w.flow(&["cache", "verify"]).exits(4).says("damaged");
}

#[test]
fn the_workspace_is_where_flow_runs_or_c_and_the_cache_where_it_is_said() {
    let w = chain();
    w.write("sub/deeper/x", "");
    let from = |dir: &str, args: &[&str]| Run::of(w.command(args).current_dir(w.path(dir)).output().unwrap());
    // -C: as if started there
    from("sub/deeper", &["-C", "../..", "run", "flow.json", "-q"]).ok();
    assert!(w.has("out/a") && w.has("cache/index.db") && !w.has("sub/deeper/cache"));
    // without it the workspace is the subdirectory: its own outputs, its own cache, its own sources
    w.write("sub/s", "sub");
    from("sub", &["run", "../flow.json", "-q"]).ok();
    assert_eq!(w.read("sub/out/a"), "sub");
    assert!(w.has("sub/cache/index.db"));
    assert_eq!(w.read("out/a"), "1");
    // another cache: nothing in cache/
    let w = chain();
    w.flow(&["run", "flow.json", "-q", "--cache", "elsewhere"]).ok();
    assert!(w.has("elsewhere/index.db") && !w.has("cache"));
    let w = chain().env("FLOW_CACHE", w.path("shared").display().to_string());
    w.flow(&["run", "flow.json", "-q"]).ok();
    assert!(!w.has("cache"));
    w.remove("out");
    w.run(&[]).ok().with_outcome("restored");
    // the option wins over the variable
    w.flow(&["run", "flow.json", "-q", "--cache", "own"]).ok();
    assert!(w.has("own/index.db"));
}
