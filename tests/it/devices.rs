//! Devices: how they are found, who leases which, what of them is in a key, what runs of other workspaces see.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{LONG, Run, Workspace, nothing_left, processes_of, signal, wait_for};

/// A `nvidia-smi` that prints these GPUs: index, uuid, name, MiB.
fn smi(w: &Workspace, gpus: &[(u32, &str, &str, u32)]) {
    let lines: String = gpus
        .iter()
        .map(|(index, uuid, name, mib)| format!("{index}, {uuid}, {name}, {mib}, 550.1, [N/A]\n"))
        .collect();
    w.write("smi/table", lines);
    w.script("smi/nvidia-smi", &format!("#!/bin/sh\nexec cat {}\n", w.path("smi/table").display()));
}

/// A workspace that sees these GPUs, and locks of its own.
fn with_gpus(workflow: Value, gpus: &[(u32, &str, &str, u32)]) -> Workspace {
    let w = Workspace::with(workflow);
    smi(&w, gpus);
    std::fs::create_dir_all(w.path("runtime")).unwrap();
    let path = format!("{}:{}", w.path("smi").display(), std::env::var("PATH").unwrap());
    let runtime = w.path("runtime").display().to_string();
    w.env("PATH", path).env("XDG_RUNTIME_DIR", runtime)
}

const TWO: &[(u32, &str, &str, u32)] =
    &[(0, "GPU-aaa", "NVIDIA H200", 143_771), (1, "GPU-bbb", "NVIDIA H200", 143_771)];

/// Nodes that say which device they have, and hold it until as many are at work.
fn holders(count: usize) -> Value {
    let numbers: Vec<usize> = (0..count).collect();
    json!({"hold": {
        "run": "echo $CUDA_VISIBLE_DEVICES ${device.index} ${device.uuid} $CUDA_DEVICE_ORDER > ${outputs.o}; echo ${matrix.n}; touch at-work.${matrix.n}; sleep 0.3",
        "matrix": {"n": numbers},
        "resources": {"gpu": 1},
        "outputs": {"o": "out/${matrix.n}"}
    }})
}

#[test]
fn nodes_at_work_at_once_have_different_devices() {
    let w = Workspace::with(json!({"resources": {"devices": "gpu:2"}, "steps": holders(4)}));
    let run = w.run(&["-j", "8"]).ok();
    let mut held: Vec<(String, f64, f64)> = Vec::new();
    for n in 0..4 {
        let node = run.node(&format!("hold[n={n}]"));
        let device = node["device"].as_str().unwrap().to_owned();
        let index = device.strip_prefix("gpu:").unwrap();
        assert_eq!(w.read(&format!("out/{n}")), format!("{index} {index} virtual-{index} PCI_BUS_ID\n"));
        held.push((device, 0.0, node["seconds"].as_f64().unwrap()));
    }
    let on_first = held.iter().filter(|(device, ..)| device == "gpu:0").count();
    assert_eq!(on_first, 2, "{held:?}");
    let record = w.flow(&["log", "show", "--json"]).ok().json();
    let leased = record["nodes"].as_array().unwrap().iter().map(|node| &node["lease"][0]["uuid"]);
    assert_eq!(leased.filter(|uuid| **uuid == json!("virtual-1")).count(), 2);
    // how many devices there are decides no result
    for devices in ["gpu:1", "gpu:8"] {
        w.run(&["--devices", devices]).ok().all_fresh();
    }
}

#[test]
fn found_by_nvidia_smi_within_the_outer_mask() {
    let w = with_gpus(json!({"steps": holders(1)}), TWO);
    let listed = w.flow(&["devices", "--json"]).ok().json();
    let uuids: Vec<&Value> =
        listed["devices"].as_array().unwrap().iter().map(|device| &device["uuid"]).collect();
    assert_eq!(uuids, ["GPU-aaa", "GPU-bbb"]);
    assert_eq!(listed["devices"][1]["memory"], json!(143_771u64 << 20));
    let w = w.env("CUDA_VISIBLE_DEVICES", "GPU-b");
    w.flow(&["devices"]).ok().says("leaves 1 of 2");
    w.run(&[]).ok();
    assert_eq!(w.read("out/0"), "1 1 GPU-bbb PCI_BUS_ID\n");
    w.flow(&["devices", "--devices", "gpu:0,1"])
        .exits(4)
        .says("there is no device 0; there are: 1 (GPU-bbb)");
    w.flow(&["devices", "--devices", "gpu:1,"]).ok();
    w.flow(&["devices", "--devices", "gpus"]).exits(2).says("'gpus' names no devices").says("gpu:auto");
    w.write("smi/table", "No devices were found\n");
    w.flow(&["devices"]).ok().says("expected six fields").says("no devices");
}

/// The few functions of the library that are asked, for one whole GPU and one that is cut into two.
const NVML: &str = r#"
#include <stdio.h>
#include <string.h>
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int e) { return "an error"; }
int nvmlSystemGetDriverVersion(char *to, unsigned n) { snprintf(to, n, "570.1"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(long)(i + 1); return 0; }
int nvmlDeviceGetUUID(void *d, char *to, unsigned n) {
  long i = (long)d;
  snprintf(to, n, i < 10 ? "GPU-%ld" : "MIG-%ld", i);
  return 0;
}
int nvmlDeviceGetName(void *d, char *to, unsigned n) {
  snprintf(to, n, (long)d < 10 ? "NVIDIA A100" : "NVIDIA A100 MIG 3g.20gb");
  return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *d, memory *m) { m->total = (long)d < 10 ? 40ull << 30 : 20ull << 30; return 0; }
int nvmlDeviceGetMigMode(void *d, unsigned *now, unsigned *next) {
  if ((long)d == 1) return 3; /* not supported */
  *now = *next = 1;
  return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *d, unsigned *n) { *n = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *d, unsigned i, void **mig) {
  if (i > 1) return 6; /* not found */
  *mig = (void *)(long)(10 + i);
  return 0;
}
"#;

#[test]
fn found_by_nvml_with_the_instances_of_a_gpu_that_is_cut() {
    let w = Workspace::with(json!({"steps": holders(3)}));
    w.write("nvml/nvml.c", NVML);
    let library = w.path("nvml/libnvidia-ml.so.1");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(&library)
        .arg(w.path("nvml/nvml.c"))
        .status();
    assert!(built.expect("a C compiler").success());
    let runtime = w.path("runtime");
    std::fs::create_dir_all(&runtime).unwrap();
    let w = w.env("LD_LIBRARY_PATH", library.parent().unwrap().display().to_string());
    let w = w.env("XDG_RUNTIME_DIR", runtime.display().to_string());
    let listed = w.flow(&["devices", "--json"]).ok().json();
    let found: Vec<(u64, &str, u64)> = listed["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| {
            assert_eq!(device["driver"], "570.1");
            (
                device["index"].as_u64().unwrap(),
                device["uuid"].as_str().unwrap(),
                device["memory"].as_u64().unwrap() >> 30,
            )
        })
        .collect();
    assert_eq!(found, [(0, "GPU-1", 40), (1, "MIG-10", 20), (1, "MIG-11", 20)]);
    w.run(&["-j", "4"]).ok();
    let mut seen: Vec<String> = (0..3).map(|n| w.read(&format!("out/{n}"))).collect();
    seen.sort();
    assert_eq!(
        seen,
        ["0 0 GPU-1 PCI_BUS_ID\n", "MIG-10 1 MIG-10 PCI_BUS_ID\n", "MIG-11 1 MIG-11 PCI_BUS_ID\n"]
    );
}

#[test]
fn what_can_never_fit_is_an_error_before_anything_starts_unless_it_is_not_needed() {
    let steps = json!({
        "first": {"run": "touch started; echo 1 > out/first", "outputs": {"o": "out/first"}},
        "big": {"run": "cat out/first > out/big", "inputs": {"f": "${steps.first.o}"}, "outputs": {"o": "out/big"},
                "resources": {"gpu": {"count": 2, "mem": "200GiB", "model": "h200"}}}
    });
    let w = with_gpus(json!({"steps": steps}), TWO);
    let run = w.run(&[]).exits(4);
    assert!(
        run.stderr.contains("2 GPUs of at least 204800 MiB whose model has \"h200\" in its name"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("there are: 2 x NVIDIA H200 of 143771 MiB"), "{}", run.stderr);
    let mut flow = w.json("flow.json");
    flow["steps"]["big"]["inputs"] = json!({});
    flow["steps"]["first"]["outputs"]["o"] = "out/other".into();
    flow["steps"]["first"]["run"] = "touch again; echo 1 > out/other".into();
    w.workflow(flow);
    w.run(&[]).exits(4).says("big leases 2 GPUs");
    assert!(!w.has("again"), "something ran although a node can never");
    w.flow(&["plan", "flow.json"]).ok().says("would_fail");
    // with its result there is nothing to lease
    let mut flow = w.json("flow.json");
    flow["steps"]["big"]["resources"] = json!({});
    w.workflow(flow.clone());
    w.run(&[]).ok();
    flow["steps"]["big"]["resources"] = json!({"gpu": 9});
    w.workflow(flow);
    w.run(&[]).ok().all_fresh();
    w.remove("out/big");
    w.run(&[]).ok().restored(["big"]);
}

#[test]
fn a_device_of_another_run_is_waited_for() {
    let flow = |n: &str| {
        json!({"steps": {"hold": {
            "run": format!("touch at-work; until [ -e go ]; do sleep 0.01; done; echo {n} > ${{outputs.o}}"),
            "resources": {"gpu": 1}, "outputs": {"o": "out/o"}, "timeout": "60s"
        }}})
    };
    let one = &TWO[..1];
    let (a, b) = (with_gpus(flow("a"), one), with_gpus(flow("b"), one));
    let runtime = a.path("runtime").display().to_string();
    let b = b.env("XDG_RUNTIME_DIR", runtime);
    let first = a.command(&["run", "flow.json"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("the first run", LONG, || a.has("at-work"));
    let said = b.path("said");
    let second = b
        .command(&["run", "flow.json", "--progress", "plain"])
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let pid = first.id();
    let expected = format!("device 0 (GPU-aaa) is leased by the run of process {pid}: waiting for it");
    wait_for("the second run", LONG, || b.read("said").contains(&expected));
    assert!(!b.has("at-work"), "two runs had one device");
    b.write("go", "");
    a.write("go", "");
    Run::of(first.wait_with_output().unwrap()).ok();
    Run::of(second.wait_with_output().unwrap()).ok();
    // virtual ones are nobody else's
    a.run(&["--devices", "gpu:1", "--force"]).ok();
}

/// A measurement whose value is the number of times that it was made.
fn measured(service: Value, refers: &str) -> Value {
    json!({
        "services": {"pods": service},
        "steps": {"m": {
            "run": format!("echo {refers} | wc -w >> runs; cat runs > ${{outputs.o}}"),
            "cache": "sample", "outputs": {"o": "out/m"}
        }}
    })
}

fn pods(more: Value) -> Value {
    let mut service = json!({"uses": "sim.llm"});
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

#[test]
fn a_measurement_depends_on_the_models_it_leases_and_not_on_what_is_there() {
    let w = with_gpus(measured(pods(json!({"per": "gpu"})), "${services.pods.url}"), TWO);
    w.run(&["--devices", "gpu:1"]).ok().ran(["m"]);
    w.run(&["--devices", "gpu:8"]).ok().all_fresh();
    let hardware = |args: &[&str]| {
        let explained = w.flow(&[&["explain", "flow.json", "m"][..], args].concat()).ok().stdout;
        explained.lines().rfind(|line| line.contains("hardware")).unwrap().to_owned()
    };
    assert!(
        hardware(&["--devices", "gpu:8"]).contains("gpu virtual x 1; cpu "),
        "{}",
        hardware(&["--devices", "gpu:8"])
    );
    assert!(hardware(&[]).contains("gpu NVIDIA H200 x 1, driver 550.1"), "{}", hardware(&[]));
    assert!(!hardware(&[]).contains("cpu "), "{}", hardware(&[]));
    w.run(&[]).ok().ran(["m"]);
    w.run(&["--devices", "gpu:1,"]).ok().all_fresh();
    // all instances: their number counts
    let whole = measured(pods(json!({"per": "gpu"})), "${services.pods.urls}");
    w.workflow(whole);
    w.remove("runs");
    w.run(&[]).ok().ran(["m"]);
    assert_eq!(w.read("out/m").trim(), "2");
    assert!(hardware(&[]).contains("NVIDIA H200 x 2"));
    w.run(&["--devices", "gpu:1,"]).ok().ran(["m"]);
}

#[test]
fn devices_of_several_models_have_to_be_chosen_among() {
    let mixed = &[(0, "GPU-aaa", "NVIDIA H200", 143_771), (1, "GPU-bbb", "NVIDIA A100", 40_960)];
    let w = with_gpus(measured(pods(json!({"per": "gpu"})), "${services.pods.url}"), mixed);
    w.run(&[])
        .exits(4)
        .says("devices of more than one model would do: NVIDIA H200, NVIDIA A100")
        .says("choose by");
    w.workflow(measured(
        pods(json!({"per": "gpu", "resources": {"gpu": {"model": "A100"}}})),
        "${services.pods.url}",
    ));
    let run = w.run(&[]).ok().ran(["m"]);
    assert_eq!(run.node("m")["device"], "gpu:1");
    // enough memory chooses, too
    w.workflow(measured(
        pods(json!({"per": "gpu", "resources": {"gpu": {"mem": "80GiB"}}})),
        "${services.pods.url}",
    ));
    assert_eq!(w.run(&[]).ok().node("m")["device"], "gpu:0");
}

#[test]
fn the_hardware_of_another_machine_is_asked_for_and_not_measured() {
    let w = with_gpus(measured(pods(json!({"per": "gpu"})), "${services.pods.url}"), TWO);
    w.run(&[]).ok().ran(["m"]);
    w.write("there.json", w.flow(&["devices", "--json"]).ok().stdout);
    // here is no device at all
    w.write("smi/table", "");
    w.run(&["--hardware", "there.json"]).ok().all_fresh();
    w.run(&[]).exits(4).says("there are: none");
    let mut other = w.json("there.json");
    other["devices"][0]["model"] = "NVIDIA B200".into();
    other["devices"][1]["model"] = "NVIDIA B200".into();
    w.write("other.json", other.to_string());
    w.run(&["--hardware", "other.json"]).exits(1).failed(["m"]).says("it was not measured on the hardware");
    w.write("bad.json", "{\"cpu\": 1}");
    w.run(&["--hardware", "bad.json"])
        .exits(2)
        .says("bad.json describes no hardware")
        .says("flow devices --json");
    assert_eq!(w.read("runs").lines().count(), 1);
}

#[test]
fn instances_spread_over_devices_and_a_measurement_has_its_own() {
    let steps = |policy: &str| {
        json!({"u": {
            "run": "date +%s%N; echo ${services.pods.url} ${matrix.n} > ${outputs.o}; sleep 0.4; date +%s%N",
            "matrix": {"n": [0, 1, 2, 3]}, "cache": policy, "outputs": {"o": "out/${matrix.n}"}
        }})
    };
    let urls = |w: &Workspace| -> Vec<String> {
        (0..4).map(|n| w.read(&format!("out/{n}")).split(' ').next().unwrap().to_owned()).collect()
    };
    for (policy, service, devices, instances) in [
        ("sample", json!({"per": "gpu"}), "gpu:2", 2),
        ("sample", json!({"replicas": 2}), "gpu:1", 2),
        ("pure", json!({"per": "gpu", "replicas": 2}), "gpu:2", 4),
        ("pure", json!({}), "gpu:1", 1),
    ] {
        let w = Workspace::with(json!({"services": {"pods": pods(service.clone())}, "steps": steps(policy)}));
        let run = w.run(&["-j", "8", "--devices", devices]).ok();
        let mut different = urls(&w);
        different.sort();
        different.dedup();
        assert_eq!(different.len(), instances, "{service}\n{}", run.stderr);
        // in each instance one after the other, if it measures
        let mut spans: Vec<(String, u128, u128)> = Vec::new();
        for (n, url) in urls(&w).into_iter().enumerate() {
            let log = w.flow(&["log", "output", &format!("u[n={n}]")]).ok().stdout;
            let times: Vec<u128> = log.lines().map(|line| line.parse().unwrap()).collect();
            spans.push((url, times[0], times[1]));
        }
        let mut overlaps = 0;
        for (i, a) in spans.iter().enumerate() {
            for b in &spans[i + 1..] {
                let together = a.1 < b.2 && b.1 < a.2;
                overlaps += usize::from(together);
                assert!(!(policy == "sample" && together && a.0 == b.0), "{service}: {spans:?}");
            }
        }
        assert!(overlaps > 0, "{service}: nothing ran at the same time\n{}", run.stderr);
        nothing_left(&w, LONG);
    }
}

#[test]
fn an_idle_instance_gives_way_to_a_node_that_wants_its_device_and_comes_back() {
    let steps = json!({
        "before": {"run": "echo ${services.pods.url} > ${outputs.o}", "outputs": {"o": "out/1"}},
        "own": {"run": "echo $CUDA_VISIBLE_DEVICES > ${outputs.o}", "needs": ["before"], "resources": {"gpu": 1}, "outputs": {"o": "out/2"}},
        "after": {"run": "echo ${services.pods.url} again > ${outputs.o}", "needs": ["own"], "outputs": {"o": "out/3"}}
    });
    let w = Workspace::with(json!({"services": {"pods": pods(json!({"per": "gpu"}))}, "steps": steps}));
    let run = w.run(&["--devices", "gpu:1"]).ok();
    assert_eq!(run.stderr.matches("starting  service pods#0  on gpu:0").count(), 2, "{}", run.stderr);
    assert_eq!(w.read("out/2"), "0\n");
    nothing_left(&w, LONG);
}

#[test]
fn a_guest_sees_the_devices_of_its_host() {
    let listen = "exec python3 -c 'import socket,time,sys; s=socket.socket(); s.bind((\"127.0.0.1\", int(sys.argv[1]))); s.listen(); time.sleep(1000)' ${service.port}";
    let w = Workspace::with(json!({
        "services": {
            "pods": pods(json!({"per": "gpu"})),
            "monitor": {"run": format!("echo $CUDA_VISIBLE_DEVICES ${{device.index}} >> monitored; {listen}"), "with_service": "pods"}
        },
        "steps": {"u": {
            "run": "echo ${services.pods.url} ${services.monitor.url} ${matrix.n} > ${outputs.o}; sleep 0.2",
            "matrix": {"n": [0, 1]}, "cache": "sample", "outputs": {"o": "out/${matrix.n}"}
        }}
    }));
    let run = w.run(&["-j", "4", "--devices", "gpu:2"]).ok();
    let mut monitored: Vec<String> = w.read("monitored").lines().map(str::to_owned).collect();
    monitored.sort();
    assert_eq!(monitored, ["0 0", "1 1"], "{}", run.stderr);
    for n in ["0", "1"] {
        let node = run.node(&format!("u[n={n}]"));
        assert!(["gpu:0", "gpu:1"].contains(&node["device"].as_str().unwrap()), "{node}");
    }
    nothing_left(&w, LONG);
}

#[test]
fn a_matrix_of_services_is_joined_fixed_and_gathered() {
    let service =
        json!({"uses": "sim.llm", "with": {"model": "${matrix.model}"}, "matrix": {"model": ["m-a", "m-b"]}});
    let fetch = |url: &str, out: &str| json!({"uses": "http.fetch", "with": {"url": format!("{url}/v1/models")}, "outputs": {"body": out}});
    let mut joined = fetch("${services.s.url}", "out/${matrix.model}");
    joined["matrix"] = json!({"model": ["m-a", "m-b"]});
    let w = Workspace::with(json!({
        "services": {"s": service},
        "steps": {
            "joined": joined,
            "fixed": fetch("${services.s[model=m-b].url}", "out/fixed"),
            "all": {"run": ["sh", "-c", "echo $# > out/all", "x", "${services.s.urls}"], "outputs": {"o": "out/all"}}
        }
    }));
    w.run(&[]).ok();
    assert!(
        w.read("out/m-a").contains("m-a")
            && w.read("out/m-b").contains("m-b")
            && w.read("out/fixed").contains("m-b")
    );
    assert_eq!(w.read("out/all"), "2\n");
    let child = w.command(&["up", "flow.json", "s"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let servers = || processes_of(&w).iter().filter(|(_, name)| name.contains("__sim")).count();
    wait_for("both servers", LONG, || servers() == 2);
    std::thread::sleep(Duration::from_millis(300));
    signal(child.id(), "INT");
    let out = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).lines().count(), 2);
    let mut flow = w.json("flow.json");
    // one of them changes: only what uses it is asked anew
    flow["steps"]["fixed"] = fetch("${services.s.url}", "out/fixed");
    w.workflow(flow.clone());
    w.run(&[]).exits(3).says("there are 2 of service 's'").says("services.s[axis=value].url");
    flow["steps"]["fixed"] = fetch("${services.s[mode=m-a].url}", "out/fixed");
    w.workflow(flow.clone());
    w.run(&[]).exits(3).says("service 's' has no axis 'mode'").says("did you mean 'model'");
    flow["steps"]["fixed"] = fetch("${services.s[model=m-z].url}", "out/fixed");
    w.workflow(flow);
    w.run(&[]).exits(3).says("service 's' has none with model=m-z");
    nothing_left(&w, LONG);
}

#[test]
fn nothing_is_left_of_eight_services_after_kill_9() {
    let w = Workspace::with(json!({
        "services": {"pods": pods(json!({"per": "gpu"}))},
        "steps": {"u": {"run": ["sh", "-c", "echo $# > up; exec sleep 1000", "x", "${services.pods.urls}"], "outputs": {"o": "out/u"}}}
    }));
    let mut child = w.command(&["run", "flow.json", "--devices", "gpu:8"]).spawn().unwrap();
    wait_for("eight services", LONG, || w.has("up") && !w.read("up").is_empty());
    assert_eq!(w.read("up"), "8\n");
    assert!(processes_of(&w).len() > 9);
    signal(child.id(), "KILL");
    child.wait().unwrap();
    let killed = Instant::now();
    nothing_left(&w, Duration::from_secs(2));
    assert!(killed.elapsed() < Duration::from_secs(2));
}

#[test]
fn an_instance_that_dies_takes_its_own_user_with_it_and_no_other() {
    let steps = json!({
        "a": {"run": "echo ${services.pods.url} > a; until [ -e b ]; do sleep 0.01; done; kill -9 $(cat pid.0); sleep 1000", "outputs": {"o": "out/a"}, "timeout": "60s"},
        "b": {"run": "echo ${services.pods.url} > b; until [ -e pid.1 ]; do sleep 0.01; done; sleep 0.5; echo done > ${outputs.o}", "outputs": {"o": "out/b"}, "timeout": "60s"}
    });
    let listen = "exec python3 -c 'import socket,time,sys; s=socket.socket(); s.bind((\"127.0.0.1\", int(sys.argv[1]))); s.listen(); print(\"last words\", flush=True); time.sleep(1000)' ${service.port}";
    let service = json!({"run": format!("echo $$ > pid.${{device.index}}; {listen}"), "per": "gpu"});
    let w = Workspace::with(json!({"services": {"pods": service}, "steps": steps}));
    let run = w.run(&["-k", "-j", "4", "--devices", "gpu:2"]).exits(1);
    let (a, b) = (run.node("a"), run.node("b"));
    let outcomes = [a["outcome"].as_str().unwrap(), b["outcome"].as_str().unwrap()];
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "failed").count(), 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("service 'pods#0'") && run.stderr.contains("died: ended by SIGKILL"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("last words"), "{}", run.stderr);
    nothing_left(&w, LONG);
}

#[test]
fn what_does_not_go_together_is_a_fault_with_its_place() {
    for (service, step, text) in [
        (json!({"uses": "sim.llm", "per": "cpu"}), json!({}), "expected \"gpu\""),
        (json!({"uses": "sim.llm", "per": "gpu", "replicas": 0}), json!({}), "at least 1"),
        (json!({"uses": "sim.llm", "per": "gpu", "port": 80}), json!({}), "cannot share a port"),
        (json!({"uses": "sim.llm", "with_service": "nobody"}), json!({}), "unknown service 'nobody'"),
        (json!({"uses": "sim.llm", "resources": {"cpu": 1}}), json!({}), "unknown key 'cpu'"),
        (json!({"uses": "sim.llm", "matrix": {"m": {"glob": "*"}}}), json!({}), "takes no files"),
        (json!({"uses": "sim.llm"}), json!({"gpu": {"count": 1, "memory": 3}}), "'memory'"),
        (json!({"uses": "sim.llm"}), json!({"gpu": {"model": ""}}), "'model' is empty"),
        (json!({"run": "x ${device.index}"}), json!({}), "only where a device is leased"),
    ] {
        let w = Workspace::with(json!({
            "services": {"s": service.clone()},
            "steps": {"u": {"run": "echo ${services.s.url}", "resources": step}}
        }));
        let run = w.run(&[]).exits(3);
        assert!(run.stderr.contains(text), "{service} {step}: {}", run.stderr);
    }
}

#[test]
fn up_starts_every_instance_and_exec_leases_what_the_node_does() {
    let w = Workspace::with(json!({
        "resources": {"devices": "gpu:3"},
        "services": {"pods": pods(json!({"per": "gpu"}))},
        "steps": {"u": {"run": "echo ${services.pods.url}", "resources": {"gpu": 2}, "outputs": {}}}
    }));
    let run = w.flow(&["exec", "flow.json", "u", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]).ok();
    assert_eq!(run.stdout.trim(), "0,1");
    w.flow(&["exec", "flow.json", "u", "--devices", "gpu:2", "--", "true"])
        .exits(4)
        .says("leases 2 GPUs and a GPU; there are: 2 x virtual");
    let child = w.command(&["up", "flow.json", "pods"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("three servers", LONG, || {
        processes_of(&w).iter().filter(|(_, name)| name.contains("__sim")).count() == 3
    });
    std::thread::sleep(Duration::from_millis(300));
    signal(child.id(), "INT");
    let out = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).lines().count(), 3);
    nothing_left(&w, LONG);
}

/// Two workspaces of one user, each with a node that waits for a file `go`.
fn two_runs(resources: Value, of_step: Value) -> (Workspace, Workspace) {
    let flow = json!({"resources": resources, "steps": {"hold": {
        "run": "touch at-work; until [ -e go ]; do sleep 0.01; done; echo x > ${outputs.o}",
        "resources": of_step, "outputs": {"o": "out/o"}, "timeout": "60s"
    }}});
    let a = Workspace::with(flow.clone());
    std::fs::create_dir_all(a.path("runtime")).unwrap();
    let runtime = a.path("runtime").display().to_string();
    (a.env("XDG_RUNTIME_DIR", runtime.clone()), Workspace::with(flow).env("XDG_RUNTIME_DIR", runtime))
}

#[test]
fn pools_and_being_alone_may_be_the_machines() {
    let machine = |size: u32| json!({"pools": {"disk": {"size": size, "scope": "machine"}}});
    for (resources, of_step, told) in [
        (machine(1), json!({"pool": {"disk": 1}}), Some("pool 'disk' is used by the run of process")),
        (machine(2), json!({"exclusive": "disk"}), Some("pool 'disk' is used by the run of process")),
        (
            json!({}),
            json!({"exclusive": true}),
            Some("being alone on this machine is held by the run of process"),
        ),
        (machine(2), json!({"pool": {"disk": 1}}), None),
        (json!({"pools": {"disk": 1}}), json!({"pool": {"disk": 1}}), None),
    ] {
        let (a, b) = two_runs(resources, of_step.clone());
        let start = |w: &Workspace| {
            w.command(&["run", "flow.json"]).stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let first = start(&a);
        wait_for("the first run", LONG, || a.has("at-work"));
        let second = start(&b);
        if told.is_some() {
            std::thread::sleep(Duration::from_millis(300));
            assert!(!b.has("at-work"), "{of_step}");
        } else {
            wait_for("the second run", LONG, || b.has("at-work"));
        }
        a.write("go", "");
        b.write("go", "");
        Run::of(first.wait_with_output().unwrap()).ok();
        let second = Run::of(second.wait_with_output().unwrap()).ok();
        assert!(told.is_none_or(|told| second.stderr.contains(told)), "{of_step}: {}", second.stderr);
    }
}

#[test]
fn a_node_that_wanted_to_be_alone_says_whether_it_was() {
    let w = Workspace::with(json!({"steps": {
        "m": {"run": "sleep 0.1; echo x > ${outputs.o}", "resources": {"exclusive": true}, "outputs": {"o": "out/m"}},
        "n": {"run": "echo x > ${outputs.o}", "outputs": {"o": "out/n"}}
    }}));
    w.run(&[]).ok();
    let record = w.flow(&["log", "show", "--json"]).ok().json();
    let nodes = record["nodes"].as_array().unwrap();
    let of = |id: &str| nodes.iter().find(|node| node["id"] == id).unwrap()["record"]["alone"].clone();
    let alone = of("m");
    for side in ["busy_cpus_before", "busy_cpus_after"] {
        assert!(alone[side].as_f64().is_some_and(|busy| busy >= 0.0), "{alone}");
    }
    assert!(alone["ran_alone"].is_boolean());
    assert_eq!(of("n"), Value::Null);
}

#[test]
fn a_service_finds_those_that_it_refers_to_up_before_it() {
    let gateway = "echo $BACKENDS > backends; exec python3 -c 'import socket,time,sys; s=socket.socket(); s.bind((\"127.0.0.1\", int(sys.argv[1]))); s.listen(); time.sleep(1000)' ${service.port}";
    let w = Workspace::with(json!({
        "resources": {"devices": "gpu:2"},
        "services": {
            "gateway": {"run": gateway, "env": {"BACKENDS": "${services.pods.urls}"}},
            "pods": pods(json!({"per": "gpu", "with": {"model": "one"}}))
        },
        "steps": {
            "u": {"run": "echo ${services.gateway.url} > ${outputs.o}", "outputs": {"o": "out/u"}},
            "own": {"run": "echo $CUDA_VISIBLE_DEVICES > ${outputs.o}", "needs": ["u"], "resources": {"gpu": 2}, "outputs": {"o": "out/own"}},
            "again": {"run": "echo ${services.gateway.url} > ${outputs.o}; cat backends", "needs": ["own"], "outputs": {"o": "out/again"}}
        }
    }));
    let run = w.run(&[]).ok();
    assert_eq!(w.read("out/own"), "0,1\n");
    // the gateway was ended with what it refers to, and knows the new ones
    assert_eq!(run.stderr.matches("starting  service gateway").count(), 2, "{}", run.stderr);
    let last: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("service   pods#")).collect();
    assert_eq!(last.len(), 4, "{}", run.stderr);
    for line in &last[2..] {
        let url = line.split_whitespace().nth(2).unwrap();
        assert!(w.read("backends").contains(url), "{url} in {}", w.read("backends"));
    }
    nothing_left(&w, LONG);
    // what is behind the service is part of what is measured
    let mut flow = w.json("flow.json");
    flow["services"]["pods"]["with"]["model"] = "other".into();
    w.workflow(flow);
    w.run(&[]).ok().ran(["u", "again"]);
}

#[test]
fn the_pods_of_the_shipped_workflow_overlap_on_two_devices_and_run_once() {
    let w = Workspace::shipped();
    let file = "workflows/multi-pod.json";
    let run = w.run_file(file, &["-j", "4", "--devices", "gpu:2"]).ok();
    let loads: Vec<Value> = run.json()["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["id"].as_str().unwrap().starts_with("bench["))
        .cloned()
        .collect();
    let mut devices: Vec<&str> = loads.iter().map(|node| node["device"].as_str().unwrap()).collect();
    devices.sort_unstable();
    assert_eq!(devices, ["gpu:0", "gpu:1"]);
    let report = w.json("out/multi-pod/merge_results/merge_report.json");
    assert!(report["overlap_ratio"].as_f64().unwrap() > 0.0, "{report}");
    for devices in ["gpu:1", "gpu:2", "gpu:8"] {
        w.run_file(file, &["--devices", devices]).ok().all_fresh();
    }
    let page = w.read("out/multi-pod/report.md");
    for text in ["demo-chat-test1-synthetic-test1", "44 requests: 44 succeeded, 0 failed", "| TTFT (ms) |"] {
        assert!(page.contains(text), "{text} in\n{page}");
    }
}

#[test]
fn a_load_over_all_instances_has_the_same_rows_on_one_two_and_eight_devices() {
    let mut seen: Vec<Vec<String>> = Vec::new();
    for devices in ["gpu:1", "gpu:2", "gpu:8"] {
        let w = Workspace::with(json!({
            "services": {"pods": pods(json!({"per": "gpu", "with": {"ttft_ms": 2, "itl_ms": 1, "seed": 7}}))},
            "steps": {
                "prompts": {"uses": "load.prompts", "with": {"kind": "synthetic", "count": 48, "seed": 3,
                    "input": {"dist": "uniform", "min": 5, "max": 20}, "output": {"dist": "uniform", "min": 3, "max": 12}},
                    "outputs": {"prompts": "prompts.jsonl"}},
                "load": {"uses": "llm.load", "inputs": {"prompts": "${steps.prompts.prompts}"},
                    "with": {"endpoints": "${services.pods.urls}", "model": "sim", "seed": 1,
                        "arrival": {"kind": "closed", "concurrency": 8}, "on_client_bound": "mark"},
                    "outputs": {"requests": "requests.sqlite", "summary": "summary.json"}}
            }
        }));
        let run = w.run(&["--devices", devices]).ok();
        let count: usize = devices.strip_prefix("gpu:").unwrap().parse().unwrap();
        let all: Vec<String> = (0..count).map(|index| index.to_string()).collect();
        assert_eq!(run.node("load")["device"], format!("gpu:{}", all.join(",")));
        let db = rusqlite::Connection::open(w.path("requests.sqlite")).unwrap();
        let endpoints: i64 =
            db.query_row("SELECT count(DISTINCT endpoint) FROM requests", [], |row| row.get(0)).unwrap();
        assert_eq!(endpoints, count as i64);
        let mut select = db
            .prepare("SELECT id, attempt, input_tokens, output_tokens, status, coalesce(failure, '') FROM requests ORDER BY id")
            .unwrap();
        let rows = select.query_map([], |row| {
            let text = |at: usize| row.get::<_, rusqlite::types::Value>(at).map(|value| format!("{value:?}"));
            (0..6).map(text).collect::<rusqlite::Result<Vec<String>>>().map(|parts| parts.join(" "))
        });
        seen.push(rows.unwrap().map(Result::unwrap).collect());
    }
    assert_eq!(seen[0].len(), 48);
    assert!(seen[0] == seen[1] && seen[1] == seen[2], "{:?}\n{:?}\n{:?}", seen[0][0], seen[1][0], seen[2][0]);
}

#[test]
fn what_changes_later_leases_the_devices_of_its_own_call() {
    let w = Workspace::with(json!({"steps": {"g": {
        "run": "echo $CUDA_VISIBLE_DEVICES $(cat ${inputs.f}) > ${outputs.o}", "resources": {"gpu": 1},
        "matrix": {"f": {"glob": "in/*"}}, "inputs": {"f": "${matrix.f}"}, "outputs": {"o": "out/${matrix.f.name}"}
    }}}));
    w.write("in/a", "1").write("in/b", "1");
    w.run(&["--devices", "gpu:1"]).ok();
    w.run(&[]).ok().all_fresh();
    let age = || std::thread::sleep(Duration::from_millis(50));
    age();
    w.run(&[]).ok().all_fresh();
    // a file, then a directory that changed since a run with nothing to do
    w.write("in/a", "2");
    w.run(&[]).exits(4).says("there are: none");
    w.run(&["--devices", "gpu:2"]).ok();
    assert_eq!(w.read("out/a"), "0 2\n");
    age();
    w.run(&[]).ok().all_fresh();
    w.write("in/c", "3");
    w.run(&[]).exits(4).says("there are: none");
    w.run(&["--devices", "gpu:2"]).ok();
    assert_eq!(w.read("out/c"), "0 3\n");
}
