//! What a workflow comes to: merging, binding, types, the example workflows.

use serde_json::json;

use super::{Project, catalog, examples};
use crate::front::{LoadRequest, load};
use crate::model::{
    Action, AxisValues, Command, ExclusiveScope, Expr, ExprKind, ParamScope, Policy, Probe, ServiceAction,
    Tool,
};
use crate::observe::diagnostic::draw;

/// Plain values as JSON, references as written.
fn plain(expr: &Expr) -> serde_json::Value {
    use crate::model::Part;
    match &expr.kind {
        ExprKind::Null => json!(null),
        ExprKind::Bool(flag) => json!(flag),
        ExprKind::Number(number) => json!(number),
        ExprKind::Text(text) => {
            let parts = text.parts.iter().map(|part| match part {
                Part::Lit(text) => text.clone(),
                Part::Ref(reference, _) => format!("<{reference}>"),
            });
            json!(parts.collect::<String>())
        }
        ExprKind::List(items) => items.iter().map(plain).collect(),
        ExprKind::Map(map) => {
            serde_json::Value::Object(map.iter().map(|(k, v)| (k.clone(), plain(v))).collect())
        }
        ExprKind::Secret { name, format } => json!(format!("secret {name} {format}")),
    }
}

#[test]
fn every_key_of_a_step_is_typed() {
    let loaded = Project::body(
        r#"  "resources": {"pools": {"net": {"size": 4, "scope": "run"}}},
  "steps": {
    "first": {"run": ["true"]},
    "a": {
      "doc": "what it does", "run": ["cat", "${inputs.in}"], "cwd": "src", "stdin": "in", "stdout": "o", "implicit": false, "depfile": "${outputs.o}.d",
      "inputs": {"in": ["a", ["b", "c/**/*.json"]]},
      "outputs": {"o": "out/o", "d": {"path": "out/d/", "append": true, "optional": true, "on_failure": true}},
      "matrix": {"n": {"start": 1, "end": 512, "factor": 2}, "f": {"glob": "in/*.json"}, "s": {"start": 0.5, "end": 2, "step": 0.5},
                 "include": [{"n": 1, "extra": "x"}], "exclude": [{"n": 2}]},
      "repeats": 3, "needs": ["first"], "env": {"A": 1, "T": {"secret": "TOKEN", "format": "Bearer {}"}}, "pass_env": ["USER"],
      "tools": ["python3", {"version": ["vllm", "--version"], "files": ["x/*"]}],
      "resources": {"cpu": 2, "mem": "40GiB", "pool": {"net": 2}, "exclusive": "net"},
      "retry": {"max": 5, "backoff": "200ms"}, "timeout": "2h", "cache": "sample", "allow_failure": true, "executor": "local"
    }
  }"#,
    )
    .ok();
    let step = &loaded.workflow.steps["a"];
    let Action::Run { command: Command::Argv(argv), cwd, stdin, stdout, depfile, implicit } = &step.action
    else {
        panic!()
    };
    assert_eq!(argv.iter().map(plain).collect::<Vec<_>>(), [json!("cat"), json!("<inputs.in>")]);
    assert_eq!(plain(cwd.as_ref().unwrap()), json!("src"));
    assert_eq!(
        (stdin.as_ref().unwrap().value.as_str(), stdout.as_ref().unwrap().value.as_str()),
        ("in", "o")
    );
    assert!(!implicit);
    assert_eq!(plain(depfile.as_ref().unwrap()), json!("<outputs.o>.d"));
    assert_eq!(plain(&step.inputs["in"]), json!(["a", ["b", "c/**/*.json"]]));
    let dir = &step.outputs["d"];
    assert!(dir.append && dir.optional && dir.on_failure && !step.outputs["o"].append);
    let AxisValues::Ladder(n) = &step.matrix.axes["n"].values else { panic!() };
    assert_eq!(json!(n), json!([1, 2, 4, 8, 16, 32, 64, 128, 256, 512]));
    let AxisValues::Ladder(s) = &step.matrix.axes["s"].values else { panic!() };
    assert_eq!(json!(s), json!([0.5, 1, 1.5, 2]));
    assert!(matches!(&step.matrix.axes["f"].values, AxisValues::Glob(_)));
    assert_eq!(step.repeats.as_ref().unwrap().value, 3);
    assert_eq!(plain(&step.env["T"]), json!("secret TOKEN Bearer {}"));
    assert_eq!(step.tools[0], Tool::Program("python3".into()));
    assert_eq!((step.resources.cpu, step.resources.mem), (2, 40 << 30));
    assert_eq!(step.resources.exclusive, Some(ExclusiveScope::Pool("net".into())));
    let retry = step.retry.as_ref().unwrap();
    assert_eq!((retry.max, retry.backoff.as_millis(), retry.max_backoff.as_secs()), (5, 200, 60));
    assert_eq!(step.timeout.unwrap().as_secs(), 7200);
    assert_eq!(step.policy.as_ref().unwrap().value, Policy::Sample);
    assert!(step.allow_failure);
    assert_eq!(loaded.workflow.resources.pools["net"].size, 4);
}

#[test]
fn services_are_typed() {
    let loaded = Project::body(
        r#"  "services": {
    "sim": {"uses": "sim.http", "with": {"dir": "${workflow.dir}/data"}},
    "real": {"run": "serve --port ${service.port} --to ${services.sim.url}", "shell": ["bash", "-c"], "port": 8080,
             "ready": {"http": "/health", "timeout": "10m"}, "stop": "2s", "identity": {"tools": ["vllm"], "files": ["m/*"]}}
  }, "steps": {}"#,
    )
    .ok();
    let sim = &loaded.workflow.services["sim"];
    assert!(matches!(&sim.action, ServiceAction::Uses { .. }) && sim.ready.probe == Probe::Announce);
    assert_eq!(loaded.workflow.dir, ".");
    let real = &loaded.workflow.services["real"];
    assert_eq!((real.port, real.stop.as_secs(), real.ready.timeout.as_secs()), (Some(8080), 2, 600));
    assert_eq!(real.ready.probe, Probe::Http("/health".into()));
}

#[test]
fn defaults_are_merged_under_each_step() {
    let loaded = Project::body(
        r#"  "defaults": {"timeout": "5m", "shell": ["bash", "-c"], "env": {"A": "1", "B": "2"}, "with": {"url": "u"}},
  "steps": {
    "a": {"run": "true", "env": {"B": null, "C": "3"}},
    "b": {"uses": "http.fetch", "timeout": "1m", "outputs": {"body": "b"}}
  }"#,
    )
    .ok();
    let (a, b) = (&loaded.workflow.steps["a"], &loaded.workflow.steps["b"]);
    assert_eq!(a.env.keys().collect::<Vec<_>>(), ["A", "C"]);
    assert_eq!((a.timeout.unwrap().as_secs(), b.timeout.unwrap().as_secs()), (300, 60));
    assert!(
        matches!(&a.action, Action::Run { command: Command::Shell { shell, .. }, .. } if shell[0] == "bash")
    );
    assert!(matches!(&b.action, Action::Uses { with, .. } if plain(&with["url"]) == json!("u")));
}

#[test]
fn a_profile_merges_and_replaces_services_whole() {
    let project = |profile: &str| {
        Project::body(
            r#"  "params": {"a": {"x": 1, "y": 2}, "b": 1},
  "services": {"s": {"uses": "sim.http", "with": {"dir": "d"}}},
  "profiles": {"live": {"params": {"a": {"x": null, "z": 3}}, "services": {"s": {"run": ["serve"]}},
                        "steps": {"a": {"timeout": "9s"}}}},
  "include": ["in.json"],
  "steps": {"a": {"run": ["true"]}}"#,
        )
        .file("in.json", r#"{"name": "in", "params": {"p": 1}, "profiles": {"live": {"params": {"p": 2}}, "own": {}}, "steps": {}}"#)
        .profile(profile)
    };
    let workflow = project("live").ok().workflow;
    assert_eq!(plain(&workflow.params["a"].value), json!({"y": 2, "z": 3}));
    assert!(matches!(&workflow.services["s"].action, ServiceAction::Run(_)));
    assert_eq!(workflow.steps["a"].timeout.unwrap().as_secs(), 9);
    assert_eq!(plain(&workflow.includes[0].workflow.params["p"].value), json!(2));
    let workflow = project("own").ok().workflow;
    assert_eq!(plain(&workflow.params["a"].value), json!({"x": 1, "y": 2}));
}

#[test]
fn params_are_bound_in_rising_priority() {
    let project = || {
        Project::new(
            "flows/root.json",
            r#"{"name": "root", "params": {"out": "o", "n": 2},
  "include": [{"file": "../parts/in.json", "as": "x", "params": {"a": "${params.out}/a", "b": 1}}],
  "steps": {"s": {"run": ["true"], "repeats": "${params.n}", "needs": ["x.one"],
                  "inputs": {"i": "${steps.x.one[m=1].o}", "j": "${steps.x.deep.two.o}"}}}}"#,
        )
        .file(
            "parts/in.json",
            r#"{"name": "in", "params": {"a": 0, "b": 0, "c": "${params.a}"}, "include": ["deep.json"],
  "steps": {"one": {"run": ["true", "${params.c}"], "matrix": {"m": [1]}, "outputs": {"o": "${params.a}-${matrix.m}"}}}}"#,
        )
        .file(
            "parts/deep.json",
            r#"{"name": "deep", "params": {"d": 0}, "steps": {"two": {"run": ["true"], "outputs": {"o": "two"}}}}"#,
        )
    };
    let workflow = project().ok().workflow;
    let include = &workflow.includes[0];
    assert_eq!((include.prefix.as_str(), include.workflow.dir.as_str()), ("x", "parts"));
    let params = &include.workflow.params;
    assert_eq!(
        (plain(&params["a"].value), params["a"].scope),
        (json!("<params.out>/a"), ParamScope::Includer)
    );
    assert_eq!((plain(&params["c"].value), params["c"].scope), (json!("<params.a>"), ParamScope::Own));
    assert_eq!(workflow.steps["s"].repeats.as_ref().unwrap().value, 2);

    let loaded = project()
        .params_file("p.json")
        .file("p.json", r#"{"n": 3, "x.b": [1, 2]}"#)
        .set("n=5")
        .set("x.a=${params.out}")
        .set("x.deep.d={\"k\": true}")
        .ok();
    let include = &loaded.workflow.includes[0].workflow;
    assert_eq!(loaded.workflow.steps["s"].repeats.as_ref().unwrap().value, 5);
    assert_eq!(plain(&include.params["a"].value), json!("${params.out}"));
    assert_eq!(plain(&include.params["b"].value), json!([1, 2]));
    assert_eq!(plain(&include.includes[0].workflow.params["d"].value), json!({"k": true}));
}

#[test]
fn matrix_variables_come_from_include_entries_too() {
    let loaded = Project::body(
        r#"  "params": {"shapes": [{"d": "a", "count": 1}]},
  "steps": {"a": {"run": ["x", "${matrix.count}", "${matrix.d.index}"], "matrix": {"d": ["a"], "include": "${params.shapes}"}},
            "b": {"run": ["x", "${matrix.d}"], "matrix": {"include": "${params.shapes}"}}}"#,
    );
    loaded.ok();
    let wrong = loaded.set(r#"shapes=[{"d": "a"}]"#).faults();
    assert!(wrong.contains("unknown axis 'count'"), "{wrong}");
}

#[test]
fn resources_of_includes_are_joined() {
    let loaded = Project::body(r#"  "resources": {"pools": {"net": 3}}, "include": ["a.json", "b.json"]"#)
        .file("a.json", r#"{"name": "a", "resources": {"pools": {"net": 1, "db": 1}, "devices": "gpu:2"}, "steps": {"s": {"run": ["x"], "resources": {"pool": {"net": 3}}}}}"#)
        .file("b.json", r#"{"name": "b", "resources": {"pools": {"net": 2}, "devices": "gpu:8"}, "steps": {}}"#)
        .ok();
    let resources = &loaded.workflow.resources;
    assert_eq!(
        resources.pools.iter().map(|(k, v)| (k.as_str(), v.size)).collect::<Vec<_>>(),
        [("db", 1), ("net", 3)]
    );
    assert_eq!(resources.devices.as_deref(), Some("gpu:8"));
}

#[test]
fn the_example_workflows_load() {
    let Some(dir) = examples() else { return };
    let request = |file: &str| LoadRequest { file: file.into(), root: dir.clone(), ..Default::default() };
    let loaded = load(&request("inferencemax.json"), &catalog()).unwrap();
    assert_eq!(loaded.workflow.steps.len(), 2);
    assert_eq!(loaded.workflow.includes[0].workflow.steps.len(), 8);
    assert_eq!(loaded.sources.0.len(), 2);
    load(&request("inferencemax-process.json"), &catalog()).unwrap();
    let live = LoadRequest { profile: Some("live".into()), ..request("inferencemax.json") };
    let loaded = load(&live, &catalog()).unwrap();
    assert_eq!(plain(&loaded.workflow.params["base_url"].value), json!("https://dashboard.example"));
    // it includes a workflow that lies elsewhere
    let merge = r#"{"name": "merge", "params": {"performances": [], "out": ""}, "steps": {
        "merge": {"run": ["x"], "outputs": {"report": "r"}}, "report": {"run": ["x"], "outputs": {"exact": "e"}}}}"#;
    let example = std::fs::read_to_string(dir.join("multi-pod.json")).unwrap();
    let loaded = Project::new("multi-pod.json", &example).file("aisbench-merge.json", merge).ok();
    let pods = &loaded.workflow.services["pods"];
    assert_eq!((pods.per_gpu, pods.replicas, &pods.gpu), (true, 1, &None));
    assert_eq!(loaded.workflow.resources.devices.as_deref(), Some("gpu:2"));
}

/// A workflow with one of everything, to be damaged.
const WHOLE: &str = r#"{"name": "w", "params": {"é": [1, "${params.b}"], "b": "\u00e9\n${services.s.url}"},
 "include": [{"file": "w.json", "params": {"b": 1}}], "env": {"A": {"secret": "T", "format": "x{}"}},
 "services": {"s": {"run": "serve '${service.port}'", "ready": {"log": "a(b)"}}}, "profiles": {"p": {"steps": {"a": {"timeout": "1s"}}}},
 "steps": {"a": {"uses": "csv.join", "inputs": {"left": "${steps.b[m=\"ü\"].o}"}, "cache": {"fresh_for": "1d"}},
  "b": {"run": ["x", "${inputs.i}"], "matrix": {"m": {"start": 1, "end": 9, "step": 2}, "g": {"glob": ["*"]}}, "outputs": {"o": {"path": "é/${matrix.m}/"}}}}}"#;

proptest::proptest! {
    #[test]
    fn damaged_workflows_are_refused_or_read_without_panic(at in 0..WHOLE.len(), cut in 0..6usize, put in "[\\]\\[{}\",:$\\\\a1é \t\n]{0,3}") {
        let from = (0..=at).rev().find(|at| WHOLE.is_char_boundary(*at)).unwrap();
        let to = (from + cut..=WHOLE.len()).find(|at| WHOLE.is_char_boundary(*at)).unwrap_or(WHOLE.len());
        let text = format!("{}{put}{}", &WHOLE[..from], &WHOLE[to..]);
        let error = Project::new("w.json", &text).profile("p").load().unwrap_err();
        for diagnostic in &error.diagnostics {
            proptest::prop_assert!(draw(diagnostic, true).contains("w.json") || diagnostic.label.is_none());
        }
    }
}
