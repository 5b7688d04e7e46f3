//! Job tokens: commands that are makes themselves share the slots of the run, and a run shares those of a make above it.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Run, Workspace, flow_binary};

/// True if there is a make; else says so.
fn make_is_here() -> bool {
    let here = Command::new("make").arg("--version").output().is_ok();
    if !here {
        eprintln!("skipped: no make");
    }
    here
}

/// Shell text of a job that notes how many run, itself included, and stays until the job `beside` has begun.
fn job(name: &str, beside: Option<&str>) -> String {
    let meet = beside.map_or_else(String::new, |other| {
        format!("touch {name}.here; n=0; while [ ! -e {other}.here ] && [ $n -lt 3000 ]; do n=$((n+1)); sleep 0.01; done; [ -e {other}.here ];")
    });
    format!("mkdir running/{name}; ls running | wc -l >> counts; {meet} sleep 0.05; rmdir running/{name}")
}

/// A Makefile of six such jobs, of which two have to run at once.
fn makefile(w: &Workspace) {
    let mut text = "all: r1 r2 r3 r4 r5 r6\n".to_owned();
    for n in 1..=6 {
        let job = job(&format!("r{n}"), [None, Some("r2"), Some("r1")].get(n).copied().flatten())
            .replace('$', "$$");
        text.push_str(&format!("r{n}:\n\t@set -e; {job}\n"));
    }
    w.write("Makefile", text).write("running/.keep", "");
}

/// The most jobs that were seen at once, and how many there were.
fn most(w: &Workspace) -> (usize, usize) {
    let counts: Vec<usize> = w.read("counts").lines().map(|line| line.trim().parse().unwrap()).collect();
    (counts.iter().copied().max().unwrap(), counts.len())
}

fn step(run: impl Into<String>, resources: Value) -> Value {
    json!({"run": run.into(), "resources": resources})
}

#[test]
fn a_make_in_a_step_shares_the_slots_of_the_run() {
    if !make_is_here() {
        return;
    }
    let w = Workspace::new();
    makefile(&w);
    let mut steps = json!({"build": step("make", json!({"jobserver": true}))});
    for n in 1..=4 {
        steps[format!("s{n}")] = step(job(&format!("s{n}"), None), json!({}));
    }
    w.workflow(json!({"steps": steps}));
    w.run(&["-j", "2"]).ok();
    assert_eq!(most(&w), (2, 10));
}

#[test]
fn a_step_without_it_has_no_jobserver_and_neither_is_in_the_key() {
    let w = Workspace::new().env("MAKEFLAGS", " -j9 --jobserver-auth=fifo:/nowhere");
    let workflow = |resources: Value| json!({"steps": {"s": {"run": "echo \"${MAKEFLAGS-none}\" > ${outputs.o}", "outputs": {"o": "out"}, "resources": resources}}});
    let workflow = |resources| {
        let text = workflow(resources).to_string().replace("${MAKEFLAGS-none}", "$${MAKEFLAGS-none}");
        serde_json::from_str(&text).unwrap()
    };
    w.workflow(workflow(json!({})));
    w.run(&[]).ok().ran(["s"]).says("the jobserver of make cannot be used (/nowhere: ");
    assert_eq!(w.read("out"), "none\n");
    for resources in
        [json!({"jobserver": true}), json!({"jobserver": "pipe", "cpu": 2}), json!({"jobserver": false})]
    {
        w.workflow(workflow(resources));
        w.run(&[]).ok().all_fresh();
    }
    w.workflow(workflow(json!({"jobserver": "fifo"})));
    w.run(&["--force", "-j", "3"]).ok();
    let flags = w.read("out");
    assert!(flags.starts_with(" -j3 --jobserver-auth=fifo:/") && flags.ends_with("/jobs\n"), "{flags:?}");
    w.workflow(workflow(json!({"jobserver": "pipe"})));
    w.run(&["--force", "-j", "3"]).ok();
    assert_eq!(w.read("out"), " -j3 --jobserver-auth=8,9\n");
}

#[test]
fn tokens_of_a_killed_job_come_back() {
    let w = Workspace::new();
    w.write("running/.keep", "");
    let thief = "p=$${MAKEFLAGS##*fifo:}; head -c 2 < \"$p\" > stolen; kill -9 $$";
    let mut steps = json!({"thief": step(thief, json!({"jobserver": "fifo"}))});
    steps["thief"]["allow_failure"] = true.into();
    for (name, other) in [("a", "b"), ("b", "a")] {
        steps[name] = step(job(name, Some(other)), json!({"jobserver": "fifo"}));
        steps[name]["needs"] = json!(["thief"]);
    }
    w.workflow(json!({"steps": steps}));
    let run = w.run(&["-j", "3", "-k"]);
    assert_eq!(run.node("thief")["outcome"], "failed", "{}", run.stderr);
    assert_eq!(w.read("stolen"), "++");
    assert_eq!(
        (run.node("a")["outcome"].clone(), run.node("b")["outcome"].clone()),
        ("ran".into(), "ran".into())
    );
    assert_eq!(most(&w), (2, 2));
}

/// `make -j3 all` of a rule that runs flow beside two jobs of its own.
fn under_make(prefix: &str, arguments: &str) -> (Workspace, Run) {
    let w = Workspace::new();
    makefile(&w);
    w.write(
        "outer.mk",
        format!(
            "all: flow m1 m2\nflow:\n\t{prefix}@{} run flow.json {arguments}\nm1 m2:\n\t@{}\n",
            flow_binary().display(),
            job("$@", None).replace("$(", "$$(").replace("$n", "$$n")
        ),
    );
    let mut steps = json!({"build": step("make", json!({"jobserver": true}))});
    for n in 1..=4 {
        steps[format!("s{n}")] = step(job(&format!("s{n}"), None), json!({}));
    }
    w.workflow(json!({"steps": steps}));
    let mut make = Command::new("make");
    make.args(["-j3", "-f", "outer.mk", "all"]).current_dir(w.root());
    for name in ["MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS"] {
        make.env_remove(name);
    }
    let run = Run::of(make.output().unwrap());
    (w, run)
}

#[test]
fn under_a_make_the_slots_are_its_tokens() {
    if !make_is_here() {
        return;
    }
    let (w, run) = under_make("+", "");
    let run = run.ok();
    let (most, jobs) = most(&w);
    assert!((2..=3).contains(&most) && jobs == 12, "{most} of {jobs}\n{}", run.stderr);
    assert!(!run.stderr.contains("jobserver"), "{}", run.stderr);
    // fewer of its own are fewer
    let (_, run) = under_make("+", "-j 1 --trace trace.json");
    assert!(!run.ok().stderr.contains("jobserver"));
}

#[test]
fn only_commands_have_jobs() {
    let w = Workspace::with(json!({"steps": {
        "s": {"uses": "report.markdown", "with": {"template": "x"}, "resources": {"jobserver": true}},
        "t": {"run": "true", "resources": {"jobserver": "yes"}}
    }}));
    let run = w.flow(&["check", "flow.json"]).exits(3);
    run.says("expected true, \"fifo\" or \"pipe\"").says("step 's': only a command can use a jobserver");
}
