//! Who has a device when: instances that make room, runs that share a machine, services that die or need each other, kill -9.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{LONG, Run, Workspace, nothing_left, processes_of, signal, wait_for};

/// A service that writes what happens to it to `svc.log`: up with its device, each SIGTERM, its end `slow` seconds later.
fn server(name: &str, slow: f64, more: Value) -> Value {
    let run = format!(
        "echo $$ > {name}.pid; trap 'echo {name} TERM >> svc.log; sleep {slow}; echo {name} gone >> svc.log; exit 0' TERM; \
         echo {name} up on $${{CUDA_VISIBLE_DEVICES-}} >> svc.log; echo ready; while :; do sleep 0.02; done"
    );
    let mut service = json!({"run": run, "ready": {"log": "ready"}});
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

fn gpus(count: u32) -> Value {
    json!({"resources": {"gpu": count}})
}

fn step(run: &str, more: Value) -> Value {
    let mut step = json!({"run": format!("{run}; echo x > ${{outputs.o}}"), "outputs": {"o": "out/o"}, "timeout": "60s"});
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    step
}

/// Steps with an output each.
fn workspace(mut workflow: Value) -> Workspace {
    for (name, step) in workflow["steps"].as_object_mut().unwrap() {
        step["outputs"]["o"] = format!("out/{name}").into();
        // equal commands would be one node's result
        if let Some(run) = step["run"].as_str() {
            step["run"] = format!(": {name}; {run}").into();
        }
    }
    Workspace::with(workflow)
}

fn events(w: &Workspace) -> Vec<String> {
    w.read("svc.log").lines().map(str::to_owned).collect()
}

fn at(events: &[String], what: &str) -> usize {
    events.iter().position(|event| event == what).unwrap_or_else(|| panic!("{what} in {events:?}"))
}

/// A machine with these GPUs, and locks of its own for all workspaces of `machine`.
fn on_machine(w: Workspace, machine: &Workspace, gpus: u32) -> Workspace {
    let lines: String =
        (0..gpus).map(|n| format!("{n}, GPU-{n}, NVIDIA H200, 143771, 550.1, [N/A]\n")).collect();
    machine.write("smi/table", lines);
    machine
        .script("smi/nvidia-smi", &format!("#!/bin/sh\nexec cat {}\n", machine.path("smi/table").display()));
    std::fs::create_dir_all(machine.path("runtime")).unwrap();
    let path = format!("{}:{}", machine.path("smi").display(), std::env::var("PATH").unwrap());
    w.env("PATH", path).env("XDG_RUNTIME_DIR", machine.path("runtime").display().to_string())
}

fn start(w: &Workspace, more: &[&str]) -> Child {
    let args = [&["run", "flow.json"], more].concat();
    w.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Run {
    Run::of(child.wait_with_output().unwrap())
}

#[test]
fn a_device_is_free_when_the_server_on_it_has_ended() {
    let own = |name: &str| {
        step(
            &format!("echo {name} on $CUDA_VISIBLE_DEVICES >> svc.log"),
            json!({"needs": ["u"], "resources": {"gpu": 1}}),
        )
    };
    let w = workspace(json!({
        "resources": {"devices": "gpu:2"},
        "services": {"tp": server("tp", 0.5, gpus(2))},
        "steps": {"u": step("echo ${services.tp.url}", json!({})), "v": own("v"), "w": own("w"),
                  "later": step("echo ${services.tp.url}", json!({"needs": ["v", "w"]}))}
    }));
    w.run(&["-j", "4"]).ok();
    let events = events(&w);
    for name in ["v on 0", "v on 1", "w on 0", "w on 1"] {
        let place = events.iter().position(|event| event == name);
        assert!(place.is_none_or(|place| place > at(&events, "tp gone")), "{events:?}");
    }
    assert_eq!(events.iter().filter(|event| *event == "tp up on 0,1").count(), 2, "{events:?}");
    assert_eq!(
        events.iter().filter(|event| *event == "tp TERM").count(),
        2,
        "one SIGTERM for each end: {events:?}"
    );
    nothing_left(&w, LONG);
}

#[test]
fn a_server_that_is_being_ended_is_given_to_nobody() {
    // a wants both devices: slow and quick are ended; b wants quick again while slow still ends
    let w = workspace(json!({
        "resources": {"devices": "gpu:2"},
        "services": {"slow": server("slow", 1.0, gpus(1)), "quick": server("quick", 0.0, gpus(1))},
        "steps": {
            "u": step("echo ${services.slow.url} ${services.quick.url}", json!({})),
            "a": step("echo a >> svc.log", json!({"needs": ["u"], "resources": {"gpu": 2}})),
            "wait": step("sleep 0.4", json!({"needs": ["u"]})),
            "b": step("P=$(cat quick.pid); sleep 0.3; kill -0 $P && echo b alive >> svc.log; echo ${services.quick.url}", json!({"needs": ["wait"]}))
        }
    }));
    w.run(&["-j", "4"]).ok();
    assert!(events(&w).contains(&"b alive".to_owned()), "{:?}", events(&w));
    nothing_left(&w, LONG);
}

#[test]
fn what_another_run_has_takes_nothing_of_this_one_meanwhile() {
    let machine = Workspace::new();
    let pool = json!({"pools": {"disk": {"size": 1, "scope": "machine"}}});
    let holds = workspace(json!({"resources": pool, "steps": {
        "hold": step("touch held; until [ -e go ]; do sleep 0.01; done", json!({"resources": {"pool": {"disk": 1}}}))
    }}));
    let holds = on_machine(holds, &machine, 1);
    let w = workspace(json!({
        "resources": pool, "services": {"s": server("s", 0.0, gpus(1))},
        "steps": {
            "u": step("echo ${services.s.url}", json!({})),
            "v": step("kill -0 $(cat s.pid) && echo STILL UP >> svc.log; echo v >> svc.log", json!({"needs": ["u"], "resources": {"gpu": 1, "pool": {"disk": 1}}})),
            "w": step("echo w >> svc.log", json!({"needs": ["u"], "resources": {"gpu": 1}}))
        }
    }));
    let w = on_machine(w, &machine, 1);
    let other = start(&holds, &[]);
    wait_for("the pool", LONG, || holds.has("held"));
    let run = start(&w, &["-j", "4"]);
    wait_for("w", LONG, || w.has("svc.log") && events(&w).contains(&"w".to_owned()));
    std::thread::sleep(Duration::from_millis(400));
    assert!(!events(&w).contains(&"v".to_owned()));
    holds.write("go", "");
    end(other).ok();
    let run = end(run).ok();
    assert!(run.stderr.contains("pool 'disk' is used by the run of process"), "{}", run.stderr);
    assert!(!events(&w).contains(&"STILL UP".to_owned()), "{:?}", events(&w));
}

#[test]
fn two_runs_do_not_wait_for_each_others_idle_servers() {
    let machine = Workspace::new();
    let make = || {
        let w = workspace(json!({
            "services": {"s": server("s", 0.0, gpus(1))},
            "steps": {
                "u": step("echo ${services.s.url}; touch used; until [ -e go ]; do sleep 0.01; done", json!({})),
                "v": step("true", json!({"needs": ["u"], "resources": {"gpu": 2}})),
                "w": step("echo ${services.s.url}", json!({"needs": ["v"]}))
            }
        }));
        on_machine(w, &machine, 2)
    };
    let (a, b) = (make(), make());
    let runs = [start(&a, &[]), start(&b, &[])];
    wait_for("both servers", LONG, || a.has("used") && b.has("used"));
    a.write("go", "");
    b.write("go", "");
    for run in runs {
        end(run).ok();
    }
}

#[test]
fn a_device_is_locked_until_the_processes_of_a_killed_run_are_gone() {
    let machine = Workspace::new();
    let a = workspace(json!({"services": {"s": server("s", 30.0, gpus(1))}, "steps": {
        "u": step("echo ${services.s.url}; touch used; sleep 1000", json!({}))
    }}));
    let b = workspace(json!({"steps": {
        "v": step("ls /proc/$(cat other.pid)/fd 2> no | grep -q . && echo STILL THERE > seen || echo gone > seen", json!({"resources": {"gpu": 1}}))
    }}));
    let (a, b) = (on_machine(a, &machine, 1), on_machine(b, &machine, 1));
    let mut run = start(&a, &[]);
    wait_for("the server", LONG, || a.has("used"));
    b.write("other.pid", a.read("s.pid"));
    let waits = start(&b, &[]);
    std::thread::sleep(Duration::from_millis(300));
    signal(run.id(), "KILL");
    run.wait().unwrap();
    end(waits).ok();
    assert_eq!(b.read("seen"), "gone\n");
    nothing_left(&a, LONG);
}

#[test]
fn an_instance_that_died_is_passed_over_and_never_started_again() {
    let user = |name: &str, needs: &[&str]| {
        step(
            &format!("echo {name} ${{services.s.url}} ${{matrix.n}}"),
            json!({"needs": needs, "cache": "sample", "matrix": {"n": [1, 2]}}),
        )
    };
    let mut flow = json!({
        "resources": {"devices": "gpu:2"},
        "services": {"s": {"run": "echo $$ > pid.${device.index}; echo up ${device.index} >> svc.log; echo ready; exec sleep 1000", "ready": {"log": "ready"}, "per": "gpu"}},
        "steps": {
            "u": user("u", &[]),
            "kill": step("kill -9 $(cat pid.0); sleep 0.3", json!({"needs": ["u"]})),
            "v": user("v", &["kill"])
        }
    });
    for name in ["u", "v"] {
        flow["steps"][name]["outputs"] = json!({"o": format!("out/{name}.${{matrix.n}}")});
    }
    flow["steps"]["kill"]["outputs"] = json!({"o": "out/kill"});
    let w = Workspace::with(flow);
    let run = w.run(&["-j", "4"]).ok();
    assert!(
        run.stderr.contains("service s#0: service 's#0'") && run.stderr.contains("died: ended by SIGKILL"),
        "{}",
        run.stderr
    );
    for n in [1, 2] {
        assert_eq!(run.node(&format!("v[n={n}]"))["device"], "gpu:1", "{}", run.stderr);
    }
    assert_eq!(events(&w).iter().filter(|event| *event == "up 0").count(), 1);
    nothing_left(&w, LONG);
}

#[test]
fn one_that_died_idle_is_not_started_again_after_it_made_room() {
    let w = workspace(json!({
        "resources": {"devices": "gpu:1"}, "services": {"s": server("s", 0.0, gpus(1))},
        "steps": {
            "u": step("echo ${services.s.url}", json!({})),
            "kill": step("kill -9 $(cat s.pid)", json!({"needs": ["u"]})),
            "own": step("true", json!({"needs": ["kill"], "resources": {"gpu": 1}})),
            "v": step("echo ${services.s.url}", json!({"needs": ["own"]}))
        }
    }));
    let run = w.run(&["-k"]).exits(1).failed(["v"]);
    assert!(run.node("v")["error"].as_str().unwrap().contains("died: ended by SIGKILL"), "{}", run.stderr);
    assert_eq!(events(&w).iter().filter(|event| event.starts_with("s up")).count(), 1);
}

#[test]
fn what_needs_another_service_ends_first() {
    let w = workspace(json!({
        "services": {
            "back": server("back", 0.0, json!({})),
            "gate": server("gate", 0.5, json!({"env": {"BACK": "${services.back.url}"}}))
        },
        "steps": {"u": step("echo ${services.gate.url}", json!({})), "long": step("sleep 1", json!({}))}
    }));
    w.run(&["-j", "4"]).ok();
    let seen = events(&w);
    assert!(
        at(&seen, "back up on") < at(&seen, "gate up on") && at(&seen, "gate gone") < at(&seen, "back TERM"),
        "{seen:?}"
    );
    // and so at the end of a run that is cut short
    w.write("svc.log", "");
    let child = start(&w, &["--force"]);
    wait_for("both up", LONG, || events(&w).len() >= 2);
    signal(child.id(), "INT");
    end(child);
    let seen = events(&w);
    assert!(at(&seen, "gate gone") < at(&seen, "back TERM"), "{seen:?}");
    nothing_left(&w, LONG);
}

#[test]
fn how_many_servers_a_measurement_is_over_is_part_of_it() {
    let flow = |replicas: u32| {
        workspace(json!({
            "services": {"s": server("s", 0.0, json!({"replicas": replicas}))},
            "steps": {"m": step("echo ${services.s.urls} | wc -w > n", json!({"cache": "sample"})), "one": step("echo ${services.s.url}", json!({"cache": "sample"}))}
        }))
    };
    let w = flow(2);
    w.run(&[]).ok();
    w.workflow(flow(3).json("flow.json"));
    w.run(&[]).ok().ran(["m"]);
    assert_eq!(w.read("n").trim(), "3");
    w.workflow(flow(2).json("flow.json"));
    w.run(&[]).ok().all_fresh();
}

#[test]
fn what_is_not_there_is_said_by_frozen_lost_bytes_and_determinism() {
    let w = workspace(json!({
        "services": {"s": {"uses": "sim.http", "with": {"dir": "served"}, "per": "gpu"}},
        "steps": {
            "f": {"uses": "http.fetch", "with": {"url": "${services.s.url}/a"}, "outputs": {"body": "out/body"}},
            "g": step("true", json!({"resources": {"gpu": 1}})),
            "h": {"run": "cat ${inputs.g} ${inputs.p} > ${outputs.o}", "inputs": {"g": "${steps.g.o}", "p": "p.txt"}, "outputs": {}}
        }
    }));
    let mut flow = w.json("flow.json");
    flow["steps"]["f"]["outputs"] = json!({"body": "out/body"});
    // longer than what is kept in the index
    flow["steps"]["g"]["run"] = "head -c 300000 /dev/urandom > ${outputs.o}".into();
    w.workflow(flow);
    w.write("served/a", "A").write("p.txt", "1");
    w.run(&["--devices", "gpu:1"]).ok();
    w.run(&["--frozen", "--devices", "gpu:1"]).ok();
    w.run(&["--frozen"]).exits(4).says("f leases a GPU; there are: none");
    w.run(&["--offline"]).ok().all_fresh();
    let run = w.run(&["--offline", "--check-determinism", "g"]).exits(1);
    assert!(run.stderr.contains("g leases a GPU; there are: none"), "{}", run.stderr);
    w.remove("out/g").remove("cache/objects").write("p.txt", "2");
    w.run(&["--offline", "h"]).exits(4).says("g leases a GPU; there are: none");
}

#[test]
fn up_and_exec_notice_the_death_of_what_is_needed() {
    let w = workspace(json!({
        "services": {
            "back": server("back", 0.0, json!({})),
            "gate": server("gate", 0.0, json!({"env": {"BACK": "${services.back.url}"}}))
        },
        "steps": {"u": step("echo ${services.gate.url}", json!({}))}
    }));
    for args in [&["up", "flow.json", "gate"][..], &["exec", "flow.json", "u", "--", "sleep", "1000"]] {
        w.write("svc.log", "");
        let child = w.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("both up", LONG, || events(&w).len() >= 2 && processes_of(&w).len() > 3);
        let pid = w.read("back.pid").trim().parse().unwrap();
        signal(pid, "KILL");
        let run = end(child).exits(1);
        assert!(
            run.stderr.contains("service 'back'") && run.stderr.contains("died"),
            "{args:?}: {}",
            run.stderr
        );
        nothing_left(&w, LONG);
    }
}

#[test]
fn a_device_is_listed_once() {
    let machine = Workspace::new();
    let w = on_machine(
        workspace(json!({"steps": {"g": step("true", json!({"resources": {"gpu": 1}}))}})),
        &machine,
        2,
    );
    w.flow(&["devices", "--devices", "gpu:0,GPU-0"])
        .exits(4)
        .says("GPU-0 is device 0 (GPU-0), which is listed already");
    w.flow(&["devices", "--devices", "gpu:GPU-"]).exits(2);
    machine.write("smi/table", "0, GPU-10, M, 1, 1, [N/A]\n1, GPU-11, M, 1, 1, [N/A]\n");
    w.flow(&["devices", "--devices", "gpu:GPU-1"]).exits(4).says("GPU-1 begins the UUIDs of 2 devices");
    // one that is not there is missed by nobody who does not need it
    let mut flow = w.json("flow.json");
    flow["steps"]["plain"] = json!({"run": "echo x > ${outputs.o}", "outputs": {"o": "out/plain"}});
    w.workflow(flow);
    w.run(&["--devices", "gpu:5,", "plain"]).ok();
    w.run(&["--devices", "gpu:5,", "g"]).exits(4).says("there is no device 5");
    let mut flow = w.json("flow.json");
    flow["steps"]["g"]["env"] = json!({"CUDA_VISIBLE_DEVICES": "7"});
    w.workflow(flow);
    w.run(&[]).exits(3).says("CUDA_VISIBLE_DEVICES of a process that leases devices");
}
