//! A secret is used, and found nowhere: in no file, log, message, record or event.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{Run, Workspace};

const SENTINEL: &str = "s3ntinel-7f1c9e";

/// Fails if a file below `dir` holds the text, as it lies there or decompressed.
#[track_caller]
fn nowhere_in(dir: &Path, text: &str) -> usize {
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    let mut seen = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(!path.to_string_lossy().contains(text), "{} is named after it", path.display());
        if path.is_dir() {
            seen += nowhere_in(&path, text);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        assert!(!holds(&bytes), "{} holds the secret", path.display());
        const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
        if bytes.starts_with(&ZSTD) {
            let unpacked = zstd::decode_all(&bytes[..]).unwrap();
            assert!(!holds(&unpacked), "{} holds the secret, compressed", path.display());
            seen += 1;
        }
        seen += 1;
    }
    seen
}

#[track_caller]
fn not_said(run: &Run, text: &str) {
    assert!(!run.stdout.contains(text), "stdout:\n{}", run.stdout);
    assert!(!run.stderr.contains(text), "stderr:\n{}", run.stderr);
}

fn secret(name: &str) -> serde_json::Value {
    json!({"secret": name})
}

/// Every way in which a secret can be used, and every way in which one may come out again.
fn workflow(fail: bool) -> serde_json::Value {
    json!({
        "services": {
            "web": {"uses": "sim.http", "with": {"dir": "site"}},
            "own": {
                "run": "echo own ${service.port} $TOKEN >&2; cd site; exec python3 -m http.server ${service.port}",
                "env": {"TOKEN": secret("TOKEN")},
                "ready": {"tcp": true}
            }
        },
        "steps": {
            "pieces": {
                // printed whole, by letters, across writes, without a newline at the end, and to both streams
                "run": "echo a$${TOKEN}b; printf %s $${TOKEN%??????}; sleep 0.05; printf '%s\\n' $${TOKEN#?????????}; \
                        echo $TOKEN >&2; echo first > ${outputs.o}; printf $TOKEN",
                "env": {"TOKEN": secret("TOKEN")},
                "outputs": {"o": "out/pieces"}
            },
            "fetch": {
                "uses": "http.fetch",
                "with": {
                    "url": "${services.web.url}/a.json",
                    "headers": {"Authorization": {"secret": "TOKEN", "format": "Bearer {}"}}
                },
                "outputs": {"body": "out/a.json"}
            },
            "ask": {
                "run": "echo asking ${services.own.url}; echo done > ${outputs.o}; exit ".to_owned() + if fail { "3" } else { "0" },
                "outputs": {"o": "out/ask"}
            },
            "missing": {
                "uses": "http.fetch",
                "with": {
                    "url": format!("${{services.web.url}}/{}.json", if fail { "no" } else { "a" }),
                    "headers": {"X-Token": secret("TOKEN")}
                },
                "outputs": {"body": "out/b.json"}
            }
        }
    })
}

fn site() -> Workspace {
    let w = Workspace::new();
    w.write("site/a.json", "[]");
    w
}

#[test]
fn a_secret_is_found_nowhere_after_a_run_that_uses_it() {
    let w = site().env("TOKEN", SENTINEL);
    w.workflow(workflow(false));
    let run = w.run(&["--events", "events.jsonl"]).ok().ran(["pieces", "fetch", "ask", "missing"]);
    not_said(&run, SENTINEL);
    assert!(nowhere_in(w.root(), SENTINEL) > 10);
    let log = w.flow(&["log", "output", "pieces"]).ok();
    assert_eq!(log.stdout.matches("***").count(), 4, "{}", log.stdout);
    for args in [
        &["log", "show", "last", "--json", "-v"][..],
        &["log", "output", "own"],
        &["explain", "flow.json", "pieces"],
        &["explain", "flow.json", "fetch"],
        &["plan", "flow.json", "--json"],
        &["graph", "flow.json", "--format", "json"],
    ] {
        not_said(&w.flow(args).ok(), SENTINEL);
    }
}

#[test]
fn nor_after_a_failed_one() {
    let w = site().env("TOKEN", SENTINEL);
    w.workflow(workflow(true));
    let run = w.run(&["--events", "events.jsonl", "-k"]).exits(1).failed(["ask", "missing"]);
    not_said(&run, SENTINEL);
    assert!(nowhere_in(w.root(), SENTINEL) > 5);
}

#[test]
fn another_value_changes_no_key() {
    let mut w = site().env("TOKEN", SENTINEL);
    w.workflow(workflow(false));
    let key = w.flow(&["key", "flow.json"]).ok().stdout;
    w.run(&[]).ok();
    w = w.env("TOKEN", "another-value");
    assert_eq!(w.flow(&["key", "flow.json"]).ok().stdout, key);
    // the server says 304 to both fetches; nothing else is asked
    w.run(&[]).ok().all_fresh();
    let plan = w.flow(&["plan", "flow.json", "--json", "pieces"]).ok().json();
    assert_eq!(plan["nodes"][0]["status"], "fresh", "{plan}");
}

#[test]
fn an_output_that_holds_a_secret_fails_its_node() {
    let w = Workspace::with(json!({"steps": {
        "leak": {
            "run": "head -c 100000 /dev/zero > ${outputs.o}; printf $TOKEN >> ${outputs.o}",
            "env": {"TOKEN": secret("TOKEN")},
            "outputs": {"o": "out/o"}
        },
        "tree": {
            "run": "mkdir -p ${outputs.t}/a/b; printf x$TOKEN > ${outputs.t}/a/b/c",
            "env": {"TOKEN": secret("TOKEN")},
            "outputs": {"t": "out/t/"}
        },
        "direct": {"run": "echo $TOKEN > out/direct", "env": {"TOKEN": secret("TOKEN")}, "outputs": {"o": "out/direct"}},
        "rescued": {
            "run": "echo $TOKEN > ${outputs.o}; exit 1",
            "env": {"TOKEN": secret("TOKEN")},
            "outputs": {"o": {"path": "out/rescued", "on_failure": true}}
        }
    }}))
    .env("TOKEN", SENTINEL);
    w.write("out/direct", "old");
    let run = w.run(&["-k"]).exits(1).failed(["leak", "tree", "direct", "rescued"]);
    let error = run.node("leak")["error"].as_str().unwrap().to_owned();
    assert!(error.contains("out/o") && error.contains("secret"), "{error}");
    not_said(&run, SENTINEL);
    nowhere_in(w.root(), SENTINEL);
    assert_eq!(w.read("out/direct"), "old");
    assert!(!w.has("out/o") && !w.has("out/t") && !w.has("out/rescued"));
}

#[test]
fn a_secret_outside_env_and_with_is_refused_or_masked() {
    let w = Workspace::with(json!({
        "params": {"token": secret("TOKEN")},
        "steps": {"a": {"run": "echo ${params.token}"}}
    }))
    .env("TOKEN", SENTINEL);
    let run = w.run(&[]);
    not_said(&run, SENTINEL);
    nowhere_in(w.root(), SENTINEL);
    let argv = Workspace::with(json!({
        "params": {"token": secret("TOKEN")},
        "steps": {"a": {"run": ["echo", "${params.token}"], "stdout": "o", "outputs": {"o": "o"}}}
    }))
    .env("TOKEN", SENTINEL);
    let run = argv.run(&[]);
    not_said(&run, SENTINEL);
    nowhere_in(argv.root(), SENTINEL);
    assert_ne!(run.code, Some(0));
}
