//! Faults on demand, clients that leave, and what the log says of both.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Value, json};

use super::{CHAT, COMPLETIONS, Sim, chat, read};

#[test]
fn each_fault_streamed() {
    let all = |kind: &str| Sim::new(json!({"faults": {kind: 1.0}}));
    let answer = all("status_429").chat(None, 4);
    assert!(answer.status == 429 && answer.head.contains("retry-after: 1"), "{answer:?}");
    assert_eq!(all("status_500").chat(None, 4).json()["error"]["code"], json!(500));

    let answer = all("abort").chat(None, 4);
    assert_eq!((answer.status, answer.whole, answer.contents().len()), (200, false, 2));

    let answer = all("stream_error").chat(None, 4);
    assert_eq!((answer.status, answer.whole, answer.contents().len()), (200, true, 2));
    assert_eq!(answer.events().last().unwrap()["error"]["code"], json!(500));

    let answer = all("empty").chat(None, 4);
    assert_eq!((answer.status, answer.whole, answer.contents().len()), (200, true, 0));
    assert_eq!(answer.events().last().unwrap()["choices"][0]["finish_reason"], json!("stop"));

    for (kind, tokens) in [("hang", 0), ("stall", 2)] {
        let sim = all(kind);
        let mut stream = sim.send(CHAT, None, &chat(4));
        let mut bytes = Vec::new();
        while String::from_utf8_lossy(&bytes).matches("content\":\" ").count() < tokens {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).unwrap();
            bytes.extend_from_slice(&part[..length]);
        }
        stream.set_nonblocking(true).unwrap();
        assert!(stream.read(&mut [0; 1]).is_err(), "{kind}: the connection stays open");
        drop(stream);
        let log = sim.log_of(1);
        assert_eq!(log[0]["closed"], json!(true));
        assert_eq!((&log[0]["fault"], &log[0]["tokens"]), (&json!(kind), &json!(tokens)));
    }
}

#[test]
fn each_fault_whole() {
    let body = json!({"prompt": "x", "max_tokens": 4});
    for (kind, status, whole) in [("stream_error", 500, true), ("abort", 200, false), ("empty", 200, true)] {
        let sim = Sim::new(json!({"faults": {kind: 1.0}}));
        let answer = sim.ask(COMPLETIONS, &body);
        assert_eq!((answer.status, answer.whole), (status, whole), "{kind}");
        if kind == "empty" {
            assert_eq!(answer.json()["choices"][0]["text"], json!(""));
        }
        let log = sim.log();
        assert_eq!((&log[0]["fault"], &log[0]["status"]), (&json!(kind), &json!(status)));
    }
}

#[test]
fn what_clients_see_is_what_the_log_counts() {
    let rates =
        json!({"status_429": 0.2, "status_500": 0.1, "abort": 0.2, "stream_error": 0.1, "empty": 0.1});
    let run = |seed: u64| {
        let sim = Sim::new(json!({"seed": seed, "faults": rates}));
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let kinds: Vec<&str> = (0..100)
            .map(|n| {
                let answer = sim.chat(Some(&n.to_string()), 4);
                match (answer.status, answer.whole) {
                    (429, _) => "status_429",
                    (500, _) => "status_500",
                    (_, false) => "abort",
                    _ if answer.text().contains("error") => "stream_error",
                    _ if answer.contents().is_empty() => "empty",
                    _ => "none",
                }
            })
            .collect();
        for kind in &kinds {
            *seen.entry(kind).or_default() += 1;
        }
        let mut logged: BTreeMap<String, usize> = BTreeMap::new();
        for line in sim.log() {
            *logged.entry(line["fault"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
        }
        assert_eq!(json!(seen), json!(logged));
        assert_eq!(seen.len(), 6, "{seen:?}");
        kinds
    };
    let first = run(3);
    assert_eq!(first, run(3));
    assert_ne!(first, run(4));
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let sim = Sim::new(json!({"slots": 1, "ttft_ms": 1, "itl_ms": 3_600_000}));
    let mut first = sim.send(CHAT, Some("leaves"), &chat(5));
    // it has its first token, so it has the slot
    let mut text = String::new();
    while !text.contains("content\":\" ") {
        let mut part = [0; 4096];
        let length = first.read(&mut part).unwrap();
        text.push_str(&String::from_utf8_lossy(&part[..length]));
    }
    let queued = sim.send(CHAT, Some("leaves the queue"), &chat(1));
    drop(queued);
    let mut next = sim.send(CHAT, Some("next"), &chat(1));
    drop(first);
    let answer = read(&mut next);
    assert_eq!(answer.contents().len(), 1);
    let log = sim.log_of(3);
    let line = |xid: &str| log.iter().find(|line| line["xid"] == xid).unwrap();
    let left = line("leaves");
    assert_eq!((&left["closed"], &left["status"], &left["tokens"]), (&json!(true), &json!(200), &json!(1)));
    assert!(left["closed_ns"].as_u64() > left["last_ns"].as_u64());
    assert_eq!(
        (&line("leaves the queue")["closed"], &line("leaves the queue")["status"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(line("next").get("closed"), None);
}
