//! Services: when they start and stop, how they are found ready, how they fail, what of them is in a key; `flow up` and `flow exec`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{LONG, Run, Workspace, flow_binary, nothing_left, processes_of, signal, wait_for};

/// The built-in file server as an ordinary command.
fn server(more: &str) -> String {
    format!(
        "{more} exec {} __sim sim.http '{{\"dir\": \"served\", \"port\": '${{service.port}}'}}'",
        flow_binary().display()
    )
}

fn fetch(path: &str) -> Value {
    json!({"uses": "http.fetch", "with": {"url": format!("${{services.s.url}}/{path}")}, "outputs": {"body": format!("out/{path}")}})
}

fn served(service: Value, steps: Value) -> Workspace {
    let w = Workspace::with(json!({"services": {"s": service}, "steps": steps}));
    w.write("served/a", "A").write("served/b", "B");
    w
}

fn sim() -> Value {
    json!({"uses": "sim.http", "with": {"dir": "served", "access_log": "access"}})
}

fn starts(run: &Run) -> usize {
    run.stderr.matches("starting").count()
}

fn requests(w: &Workspace) -> usize {
    w.read("access").lines().count()
}

#[test]
fn started_only_when_something_is_to_do() {
    let w = served(
        sim(),
        json!({
            "u": {"run": "echo ${services.s.url} > out/u; echo used", "outputs": {"o": "out/u"}},
            "plain": {"run": "echo x > out/x", "outputs": {"o": "out/x"}}
        }),
    );
    let run = w.run(&["plain"]).ok();
    assert_eq!(starts(&run), 0, "{}", run.stderr);
    let run = w.run(&[]).ok();
    assert_eq!(starts(&run), 1, "{}", run.stderr);
    let run = w.run(&[]).ok().all_fresh();
    assert_eq!(starts(&run), 0, "{}", run.stderr);
    w.remove("out/u");
    let run = w.run(&[]).ok().restored(["u"]);
    assert_eq!(starts(&run), 0, "{}", run.stderr);
    nothing_left(&w, LONG);
}

#[test]
fn a_node_that_is_asked_starts_it_unless_offline() {
    let w = served(sim(), json!({"f": fetch("a"), "g": fetch("b")}));
    assert_eq!(starts(&w.run(&[]).ok().ran(["f", "g"])), 1);
    let run = w.run(&[]).ok().all_fresh();
    assert_eq!((starts(&run), requests(&w)), (1, 4), "{}", run.stderr);
    assert_eq!(run.node("f")["checked"], true);
    let run = w.run(&["--offline"]).ok().all_fresh();
    assert_eq!((starts(&run), requests(&w)), (0, 4), "{}", run.stderr);
}

#[test]
fn stopped_after_its_last_dependent_while_others_go_on() {
    let w = served(
        json!({"run": server("trap 'echo stopped > gone' EXIT; "), "ready": {"http": "/a"}}),
        json!({
            "f": fetch("a"),
            "long": {"run": "until [ -e gone ]; do sleep 0.01; done; echo x > ${outputs.o}", "outputs": {"o": "out/x"}, "timeout": "30s"}
        }),
    );
    // exec would take the trap away
    let command = server("").replace("exec ", "");
    w.workflow({
        let mut flow = w.json("flow.json");
        flow["services"]["s"]["run"] = format!("trap 'touch gone' TERM; {command} & wait $!; wait").into();
        flow
    });
    w.run(&["-j", "2"]).ok();
    assert!(w.has("gone"));
    nothing_left(&w, LONG);
}

#[test]
fn every_probe_waits_until_it_is_up() {
    let late = "sleep 0.3; date +%s%N > up;";
    let probes = [
        ("http", json!({"http": "/a"}), server(late)),
        ("tcp", json!({"tcp": true}), server(late)),
        ("default", Value::Null, server(late)),
        (
            "log",
            json!({"log": "now .*[0-9]+ is up"}),
            server(&format!("{late} (sleep 0.1; echo now 1 is up) &")),
        ),
    ];
    for (name, ready, run) in probes {
        let mut service = json!({"run": run});
        if !ready.is_null() {
            service["ready"] = ready;
        }
        let w = served(
            service,
            json!({"u": {"run": "cat up > ${outputs.o}; echo ${services.s.url} ${services.s.host} ${services.s.port}", "outputs": {"o": "out/u"}}}),
        );
        let run = w.run(&[]).ok();
        assert_eq!(w.read("out/u"), w.read("up"), "{name}");
        let line = run
            .stderr
            .lines()
            .find(|line| line.contains("u | http://"))
            .unwrap_or_else(|| panic!("{}", run.stderr));
        let words: Vec<&str> = line.split_whitespace().rev().take(3).collect();
        assert_eq!(words[2], format!("http://{}:{}", words[1], words[0]), "{name}");
        nothing_left(&w, LONG);
    }
}

#[test]
fn one_that_is_not_ready_in_time_fails_its_dependents() {
    for (ready, waited) in [
        (json!({"http": "/none", "timeout": "300ms"}), "GET http://127.0.0.1:"),
        (json!({"log": "never", "timeout": "300ms"}), "to match 'never'"),
    ] {
        let w = served(
            json!({"run": server("echo words of mine;"), "ready": ready}),
            json!({"f": fetch("a"), "after": {"run": "true", "inputs": {"f": "${steps.f.body}"}, "outputs": {}}}),
        );
        let run = w.run(&[]).exits(1).failed(["f"]).skipped(["after"]);
        let error = run.node("f")["error"].as_str().unwrap().to_owned();
        assert!(error.contains("service 's' was not ready after 300ms") && error.contains(waited), "{error}");
        assert!(run.stderr.contains("words of mine"), "{}", run.stderr);
        nothing_left(&w, LONG);
    }
}

#[test]
fn a_fixed_port_is_used_and_a_stranger_on_it_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for mut service in [sim(), json!({"run": server(""), "ready": {"http": "/a"}})] {
        service["port"] = port.into();
        let w = served(service, json!({"f": fetch("a")}));
        if TcpListener::bind(("127.0.0.1", port)).is_err() {
            let run = w.run(&[]).exits(1).failed(["f"]);
            let error = run.node("f")["error"].as_str().unwrap().to_owned();
            let own = std::process::id();
            assert!(error.contains(&format!("needs port {port}, which is taken by pid {own}")), "{error}");
            assert!(run.stderr.contains("leave 'port' out"), "{}", run.stderr);
        }
    }
    drop(listener);
    for mut service in [sim(), json!({"run": server(""), "ready": {"http": "/a"}})] {
        service["port"] = port.into();
        let w = served(service, json!({"f": fetch("a")}));
        let run = w.run(&[]).ok();
        assert!(run.stderr.contains(&format!("http://127.0.0.1:{port}")), "{}", run.stderr);
    }
}

#[test]
fn one_that_dies_at_its_start_says_why() {
    for (run, says) in [
        ("echo no model here >&2; exit 3", "service 's' ended before it was ready (exit code 3)"),
        ("echo no model here; kill -9 $$", "service 's' ended before it was ready (ended by SIGKILL)"),
    ] {
        let w = served(json!({"run": run}), json!({"f": fetch("a"), "g": fetch("b")}));
        let begun = Instant::now();
        let run = w.run(&["-k"]).exits(1).failed(["f", "g"]);
        assert!(begun.elapsed() < Duration::from_secs(10), "nothing is tried again");
        for node in ["f", "g"] {
            assert!(run.node(node)["error"].as_str().unwrap().contains(says), "{}", run.node(node));
        }
        assert!(run.stderr.contains("| no model here"), "{}", run.stderr);
        assert_eq!(starts(&run), 1, "it is never started again");
    }
    let w = served(json!({"run": ["no-such-server"]}), json!({"f": fetch("a")}));
    let run = w.run(&[]).exits(4);
    assert!(run.stderr.contains("program 'no-such-server' not found"), "{}", run.stderr);
    assert!(run.stderr.contains("install it"), "the hint is lost: {}", run.stderr);
}

#[test]
fn one_that_dies_at_work_ends_its_dependents() {
    // its node would go on for ever, or notice nothing
    for work in [
        "touch at-work; sleep 1000",
        "touch at-work; while kill -0 $(cat pid) 2> /dev/null; do sleep 0.01; done; echo x > ${outputs.o}",
    ] {
        let command = server("").replace("exec ", "");
        let run = format!(
            "echo $$ > pid; {command} & until [ -e at-work ]; do sleep 0.01; done; echo last words; kill -9 $!; exit 7"
        );
        let w = served(
            json!({"run": run, "ready": {"http": "/a"}}),
            json!({
                "u": {"run": format!("{work} # ${{services.s.url}}"), "outputs": {"o": "out/u"}},
                "late": {"run": "echo ${services.s.url} > ${outputs.o}", "inputs": {"u": "${steps.u.o}"}, "outputs": {"o": "out/late"}}
            }),
        );
        let run = w.run(&[]).exits(1).failed(["u"]).skipped(["late"]);
        let error = run.node("u")["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with("service 's' (pid ") && error.contains("died: exit code 7"), "{error}");
        assert!(run.stderr.contains("| last words"), "{}", run.stderr);
        assert!(!w.has("out/u"));
        nothing_left(&w, LONG);
    }
}

#[test]
fn one_that_does_not_stop_is_killed_and_named() {
    let command = server("").replace("exec ", "");
    let w = served(
        json!({"run": format!("trap '' TERM; {command} & while :; do sleep 1; done"), "ready": {"http": "/a"}, "stop": "100ms"}),
        json!({"f": fetch("a")}),
    );
    let run = w.run(&[]).ok();
    assert!(
        run.stderr.contains("service s did not end within 100ms after SIGTERM and was killed"),
        "{}",
        run.stderr
    );
    nothing_left(&w, LONG);
}

#[test]
fn its_identity_is_in_the_key_and_its_port_is_not() {
    let mut service =
        json!({"run": server(": 1;"), "ready": {"http": "/a"}, "identity": {"files": ["model/*"]}});
    let w = served(
        service.clone(),
        json!({
            "u": {"run": "echo ${services.s.url} > ${outputs.o}", "outputs": {"o": "out/u"}},
            "env": {"run": ["sh", "-c", "echo $URL > out/env"], "env": {"URL": "${services.s.url}"}, "outputs": {"o": "out/env"}}
        }),
    );
    w.write("model/weights", "1");
    let change = |service: &Value| {
        let mut flow = w.json("flow.json");
        flow["services"]["s"] = service.clone();
        w.workflow(flow);
    };
    w.run(&[]).ok().ran(["u", "env"]);
    w.run(&[]).ok().all_fresh();
    // what it serves is not in it
    w.write("served/a", "other");
    w.run(&[]).ok().all_fresh();
    service["port"] = json!(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
    change(&service);
    w.run(&[]).ok().all_fresh();
    service["stop"] = json!("3s");
    service["ready"] = json!({"http": "/b"});
    change(&service);
    w.run(&[]).ok().all_fresh();
    service["run"] = json!(server(": 2;"));
    change(&service);
    let explain = w.flow(&["explain", "flow.json", "u"]).ok();
    assert!(explain.stdout.contains("service"), "{}", explain.stdout);
    w.run(&[]).ok().ran(["u", "env"]);
    w.write("model/weights", "2");
    w.run(&[]).ok().ran(["u", "env"]);
    w.write("model/more", "");
    w.run(&[]).ok().ran(["u", "env"]);
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_server_that_asks_to_wait_is_waited_for() {
    let mut service = sim();
    service["with"]["faults"] = json!([{"match": "a", "status": 503, "times": 1, "retry_after": 1}, {"match": "b", "status": 503, "times": 2}]);
    let mut b = fetch("b");
    b["retry"] = json!({"max": 2, "backoff": "10ms"});
    let w = served(service, json!({"f": fetch("a"), "g": b}));
    let begun = Instant::now();
    let run = w.run(&[]).ok();
    assert!(begun.elapsed() >= Duration::from_secs(1), "Retry-After was not kept");
    assert_eq!((run.node("f")["attempts"].as_u64(), run.node("g")["attempts"].as_u64()), (Some(2), Some(3)));
    assert_eq!((w.read("out/a"), w.read("out/b")), ("A".to_owned(), "B".to_owned()));
    assert!(run.stderr.contains("503"), "{}", run.stderr);
}

#[test]
fn timeouts_end_commands_and_stages() {
    let mut service = sim();
    service["with"]["faults"] = json!([{"match": "a", "delay_ms": 60000}]);
    let mut f = fetch("a");
    f["timeout"] = json!("300ms");
    f["retry"] = json!({"max": 0});
    let w = served(
        service,
        json!({"f": f, "c": {"run": "sleep 1000 & sleep 1000", "outputs": {"o": "out/c"}, "timeout": "300ms"}}),
    );
    let begun = Instant::now();
    let run = w.run(&["-k"]).exits(1).failed(["f", "c"]);
    assert!(begun.elapsed() < Duration::from_secs(20));
    for node in ["f", "c"] {
        assert!(
            run.node(node)["error"].as_str().unwrap().contains("timed out after 0.3 s"),
            "{}",
            run.node(node)
        );
    }
    nothing_left(&w, LONG);
}

/// A `flow up s` that does not outlive its test.
pub struct Up(Option<Child>);

/// `flow up s` once it has said its URL.
pub fn up(w: &Workspace) -> (Up, String) {
    use std::io::{BufRead, BufReader};
    let mut command = w.command(&["up", "flow.json", "s"]);
    let mut up = Up(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()));
    let mut url = String::new();
    let said = up.0.as_mut().and_then(|child| child.stdout.as_mut()).unwrap();
    BufReader::new(said).read_line(&mut url).unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    (up, url.trim().to_owned())
}

impl Up {
    fn signal(&self, name: &str) {
        signal(self.0.as_ref().unwrap().id(), name);
    }

    fn end(mut self) -> Run {
        Run::of(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn up_says_its_url_and_ends_whole() {
    for (name, kill) in [("INT", false), ("TERM", false), ("KILL", true)] {
        let w = served(json!({"run": server("setsid sleep 1000 &"), "ready": {"http": "/a"}}), json!({}));
        let (child, url) = up(&w);
        // it serves
        let other = Workspace::with(
            json!({"steps": {"f": {"uses": "http.fetch", "with": {"url": format!("{url}/a")}, "outputs": {"body": "b"}}}}),
        );
        other.run(&[]).ok();
        assert!(processes_of(&w).len() >= 2, "{:?}", processes_of(&w));
        child.signal(name);
        let run = child.end();
        assert_eq!(run.code, if kill { None } else { Some(0) }, "{name}: {}", run.stderr);
        nothing_left(&w, LONG);
    }
    let w = served(sim(), json!({}));
    w.flow(&["up", "flow.json", "t"]).exits(2).says("known here: s");
}

#[test]
fn up_ends_when_the_service_does() {
    let command = server("").replace("exec ", "");
    let w = served(
        json!({"run": format!("{command} & until [ -e end ]; do sleep 0.01; done; echo bye; exit 5"), "ready": {"http": "/a"}}),
        json!({}),
    );
    let (child, _) = up(&w);
    w.write("end", "");
    let run = child.end().exits(1);
    assert!(run.stderr.contains("died: exit code 5") && run.stderr.contains("bye"), "{}", run.stderr);
    nothing_left(&w, LONG);
}

#[test]
fn up_beside_a_run_leaves_it_alone() {
    let w = served(
        sim(),
        json!({"direct": {"run": "echo new > out/d; touch started; until [ -e go ]; do sleep 0.01; done", "outputs": {"o": "out/d"}, "timeout": "30s"}}),
    );
    let run = w.command(&["run", "flow.json"]).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the node to start", LONG, || w.has("started"));
    let (child, _) = up(&w);
    child.signal("INT");
    child.end().ok();
    w.write("go", "");
    Run::of(run.wait_with_output().unwrap()).ok();
    assert_eq!(w.read("out/d"), "new\n");
}

#[test]
fn exec_gives_a_command_what_the_node_has() {
    let mut flow = json!({"u": {
        "run": "true", "cwd": "served", "env": {"URL": "${services.s.url}", "X": "1"}, "pass_env": ["PASSED"], "outputs": {"o": "out/u"}
    }});
    flow["u"]["run"] = "echo ${services.s.url}".into();
    let w = served(sim(), flow).env("PASSED", "yes").env("LEAK", "no");
    let script = "pwd; echo $X-$PASSED-$LEAK-$TZ; case $URL in http://127.0.0.1:*) echo url;; esac";
    let run = w.flow(&["exec", "flow.json", "u", "--", "sh", "-c", script]).ok();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], w.path("served").canonicalize().unwrap().display().to_string());
    assert_eq!(lines[1..], ["1-yes--UTC", "url"]);
    w.flow(&["exec", "flow.json", "u", "--", "sh", "-c", "exit 9"]).exits(9);
    w.flow(&["exec", "flow.json", "u", "--", "sh", "-c", "kill -9 $$"]).exits(137);
    w.flow(&["exec", "flow.json", "nobody", "--", "true"]).exits(2);
    w.flow(&["exec", "flow.json", "u", "--", "no-such-program"]).exits(4).says("no-such-program");
    nothing_left(&w, LONG);
}

#[test]
fn exec_leaves_nothing_however_it_ends() {
    for (name, code) in [("TERM", Some(143)), ("INT", Some(143)), ("KILL", None)] {
        let w = Workspace::with(json!({"steps": {"u": {"run": "true", "outputs": {}}}}));
        let command = "setsid sleep 1000 & touch started; exec sleep 1000";
        let child = w
            .command(&["exec", "flow.json", "u", "--", "sh", "-c", command])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the command", LONG, || w.has("started"));
        signal(child.id(), name);
        assert_eq!(Run::of(child.wait_with_output().unwrap()).code, code, "{name}");
        nothing_left(&w, LONG);
    }
}

#[test]
fn a_model_server_is_a_service_and_leaves_a_whole_log() {
    let w = Workspace::with(json!({
        "services": {"s": {"uses": "sim.llm", "with": {"model": "m-1"}}},
        "steps": {"f": fetch("v1/models")}
    }));
    w.run(&[]).ok().ran(["f"]);
    assert!(w.read("out/v1/models").contains("m-1"));
    nothing_left(&w, LONG);

    for name in ["TERM", "INT"] {
        let with = json!({"log": name, "ttft_ms": 1}).to_string();
        let mut child = w.command(&["__sim", "sim.llm", &with]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let url = ready["url"].as_str().unwrap();
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        let body = r#"{"prompt": "x", "max_tokens": 3, "stream": true}"#;
        let head = "POST /v1/completions HTTP/1.1\r\nConnection: close\r\nX-Request-Id: a";
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        signal(child.id(), name);
        assert!(child.wait().unwrap().success());
        let line: Value = serde_json::from_str(&w.read(name)).unwrap();
        assert_eq!((&line["xid"], &line["tokens"]), (&json!("a"), &json!(3)), "{answer}");
    }
}
