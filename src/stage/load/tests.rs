//! The stage against servers that say what each test wants, byte by byte.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stage::Load;
use super::sweep::Sweep;
use crate::api::Stage as _;
use crate::stage::harness::{Bench, Finished};

type Answer = dyn Fn(usize, &str, &mut TcpStream) -> std::io::Result<bool> + Send + Sync;

/// A server: calls `answer` with the number of the request, its text and the connection; false closes it.
pub(super) struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    closed: Arc<AtomicUsize>,
}

impl Server {
    fn new(
        answer: impl Fn(usize, &str, &mut TcpStream) -> std::io::Result<bool> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, closed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (seen, ended, answer): (_, _, Arc<Answer>) =
            (Arc::clone(&requests), Arc::clone(&closed), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, ended, answer) = (Arc::clone(&seen), Arc::clone(&ended), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    stream.set_nodelay(true).unwrap();
                    while let Some(text) = request(&mut stream) {
                        let number = {
                            let mut seen = seen.lock().unwrap();
                            seen.push(text.clone());
                            seen.len() - 1
                        };
                        if !answer(number, &text, &mut stream).unwrap_or(false) {
                            break;
                        }
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { url, requests, closed }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn request(stream: &mut impl Read) -> Option<String> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        (stream.read(&mut byte).ok()? == 1).then(|| bytes.push(byte[0]))?;
    }
    let head = String::from_utf8(bytes).unwrap();
    let length =
        head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunked(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn content(text: &str) -> String {
    event(&json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }))
}

fn role() -> String {
    event(&json!({ "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "" } }] }))
}

fn usage(tokens: u64) -> String {
    event(&json!({ "choices": [], "usage": { "prompt_tokens": 5, "completion_tokens": tokens } }))
}

/// A stream of texts, the whole in one piece.
fn stream(texts: &[&str]) -> String {
    let events: String = texts.iter().map(|text| content(text)).collect();
    let body = role() + &events + &usage(texts.len() as u64) + "data: [DONE]\n\n";
    format!("{HEAD}{}0\r\n\r\n", chunked(&body))
}

fn prompts(count: usize) -> String {
    (0..count).map(|n| format!("{{\"id\": {n}, \"prompt\": \"p{n}\", \"max_tokens\": 8}}\n")).collect()
}

fn load(server: &Server, prompts: &str, more: Value) -> Finished {
    let mut with = json!({
        "endpoints": server.url, "model": "m", "arrival": { "kind": "closed", "concurrency": 1 }, "on_client_bound": "mark",
    });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Bench::new(&Load, with).file("prompts", "p.jsonl", prompts).run(&["requests", "summary"])
}

fn summary_of(done: &Finished) -> Value {
    if let Err(error) = &done.result {
        panic!("{error} {:?}", error.hints);
    }
    done.json("summary")
}

fn column<T: rusqlite::types::FromSql>(done: &Finished, name: &str) -> Vec<T> {
    let db = rusqlite::Connection::open(done.path("requests")).unwrap();
    let mut select = db.prepare(&format!("SELECT {name} FROM requests ORDER BY number, attempt")).unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_load_from_prompts_to_summary() {
    let server = Server::new(|_, _, out| {
        out.write_all(format!("{HEAD}{}", chunked(&role())).as_bytes())?;
        for text in ["a", "b", "c"] {
            thread::sleep(Duration::from_millis(20));
            out.write_all(chunked(&content(text)).as_bytes())?;
        }
        out.write_all(format!("{}0\r\n\r\n", chunked(&(usage(3) + "data: [DONE]\n\n"))).as_bytes())?;
        Ok(true)
    });
    let more = json!({ "save_text": true, "warmup": 1, "headers": { "Authorization": "Bearer k" }, "body": { "ignore_eos": true } });
    let done = load(&server, &prompts(3), more);
    let summary = summary_of(&done);
    assert_eq!(
        summary["counts"],
        json!({ "total": 3, "success": 3, "failed": 0, "outside_window": 0, "without_token_counts": 0, "failures": {} })
    );
    let metric = |name: &str, of: &str| summary["metrics"][name][of].as_f64().unwrap();
    assert!((0.02..0.06).contains(&metric("ttft", "p50")), "{summary}");
    assert!((0.02..0.06).contains(&metric("itl", "p50")) && metric("itl", "n") == 6.0, "{summary}");
    assert_eq!((metric("output_tokens", "mean"), metric("input_tokens", "mean")), (3.0, 5.0));
    assert_eq!(summary["self_check"]["inflight_max"], 1);
    assert_eq!(summary["self_check"]["reconnects"], 0, "one connection, opened before the clock started");
    assert!(summary["self_check"]["receive_lag_ms"]["n"].as_u64() >= Some(3), "{summary}");
    assert_eq!((&summary["loop"], &summary["buffering"]), (&json!("closed"), &json!(false)));
    assert_eq!(column::<String>(&done, "text"), ["abc"; 3]);
    assert_eq!(column::<i64>(&done, "id"), [0, 1, 2]);
    let times = "sched_ns IS NULL AND send0_ns <= send1_ns AND send1_ns < first_event_ns AND first_event_ns < first_token_ns AND first_token_ns < last_token_ns AND last_token_ns <= end_ns AND head_ns <= first_event_ns";
    assert_eq!(column::<bool>(&done, times), [true; 3]);
    let sent = server.requests();
    assert_eq!(sent.len(), 4, "one to warm up");
    assert!(sent[0].contains("x-request-id: warm-flow-"), "{}", sent[0]);
    assert!(
        sent[1].starts_with("POST /v1/chat/completions HTTP/1.1\r\n")
            && sent[1].contains("Authorization: Bearer k\r\n"),
        "{}",
        sent[1]
    );
    let ids: Vec<String> = column(&done, "xid");
    assert!(sent[1].contains(&format!("x-request-id: {}\r\n", ids[0])));
    assert!(sent[1].ends_with(r#"{"model":"m","messages":[{"role":"user","content":"p0"}],"max_tokens":8,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true}"#));
    assert_eq!(server.closed.load(Ordering::SeqCst), 1);
}

#[test]
fn answers_cut_anywhere_are_the_same() {
    let texts = ["h\u{e9}llo", " \u{1f600} \"q\"", "\\n\n", "end"];
    let whole = stream(&texts).into_bytes();
    let lines = String::from_utf8(whole.clone()).unwrap();
    let crlf = {
        let body = (role() + ": ping\n\n" + &texts.map(content).concat() + &usage(4)).replace('\n', "\r\n");
        format!("{HEAD}{}0\r\n\r\n", chunked(&body)).into_bytes()
    };
    assert!(lines.contains("[DONE]"));
    let count = whole.len().div_ceil(7);
    let server = Server::new(move |number, _, out| {
        let bytes = if number % 2 == 0 { &whole } else { &crlf };
        let at = (number * 7).min(bytes.len() - 1);
        out.write_all(&bytes[..at])?;
        thread::sleep(Duration::from_millis(2));
        out.write_all(&bytes[at..at + 1])?;
        thread::sleep(Duration::from_millis(2));
        out.write_all(&bytes[at + 1..])?;
        Ok(true)
    });
    let done = load(&server, &prompts(count), json!({ "save_text": true }));
    assert_eq!(summary_of(&done)["counts"]["success"], count);
    assert_eq!(column::<String>(&done, "text"), vec![texts.concat(); count]);
    assert_eq!(column::<i64>(&done, "output_tokens"), vec![4; count]);
}

#[test]
fn each_failure_has_its_kind_and_none_is_lost() {
    let server = Server::new(|_, text, out| {
        let prompt: usize =
            text.split("\"content\":\"p").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
        let plain = |status: &str, body: &str| {
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        let half = format!("{HEAD}{}", chunked(&(role() + &content("a"))));
        match prompt {
            0 => out.write_all(stream(&["a", "b"]).as_bytes())?,
            1 => out.write_all(plain("429 Too Many Requests", "slow").as_bytes())?,
            2 => out.write_all(plain("503 Unavailable", "{}").as_bytes())?,
            3 => out.write_all(plain("404 Not Found", "no model 'm'").as_bytes())?,
            4 => thread::sleep(Duration::from_millis(700)),
            5 => {
                out.write_all(half.as_bytes())?;
                thread::sleep(Duration::from_millis(700));
            }
            6 => {
                out.write_all(half.as_bytes())?;
                return Ok(false);
            }
            7 => out.write_all(format!("{half}{}", chunked(&event(&json!({ "error": { "message": "oom" } })))).as_bytes())?,
            8 => out.write_all(format!("{half}{}", chunked("data: {nonsense\n\n")).as_bytes())?,
            9 => out.write_all(stream(&[]).as_bytes())?,
            10 => {
                for _ in 0..40 {
                    out.write_all(if out.peer_addr().is_ok() { chunked(&content("a")).into_bytes() } else { Vec::new() }.as_slice())?;
                    thread::sleep(Duration::from_millis(50));
                }
            }
            11 => out.write_all(plain("200 OK", &json!({ "choices": [{ "message": { "content": "whole" } }], "usage": { "prompt_tokens": 1, "completion_tokens": 2 } }).to_string()).as_bytes())?,
            12 => return Ok(false),
            _ => out.write_all(b"SSH-2.0-x\r\n\r\n")?,
        }
        Ok(true)
    });
    let limits = json!({ "first_byte": 0.2, "stall": 0.2, "total": 0.6 });
    let done = load(
        &server,
        &prompts(14),
        json!({ "timeouts": limits, "arrival": { "kind": "closed", "concurrency": 4 } }),
    );
    let failures: Vec<Option<String>> = column(&done, "failure");
    let failures: Vec<&str> = failures.iter().map(|failure| failure.as_deref().unwrap_or("")).collect();
    let expected = [
        "",
        "status_429",
        "status_5xx",
        "status_4xx",
        "timeout_first_byte",
        "timeout_stall",
        "closed",
        "stream_error",
        "malformed",
        "empty",
        "malformed",
        "",
        "closed",
        "malformed",
    ];
    assert_eq!(failures, expected);
    let summary = summary_of(&done);
    assert_eq!((&summary["counts"]["total"], &summary["counts"]["success"]), (&json!(14), &json!(2)));
    assert_eq!(summary["failures"]["closed"], 2);
    assert_eq!(summary["failures"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>(), 12);
    let messages: Vec<Option<String>> = column(&done, "message");
    assert_eq!(messages[3].as_deref(), Some("no model 'm'"));
    assert!(messages[7].as_deref().unwrap().contains("oom"));
    let took = "(end_ns - send0_ns) / 1e9";
    let took: Vec<f64> = column(&done, took);
    assert!((0.2..0.25).contains(&took[4]) && (0.2..0.26).contains(&took[5]), "{took:?}");
}

#[test]
fn what_goes_on_for_too_long_is_ended() {
    let server = Server::new(|_, _, out| {
        out.write_all(HEAD.as_bytes())?;
        loop {
            out.write_all(chunked(&content("a")).as_bytes())?;
            thread::sleep(Duration::from_millis(20));
        }
    });
    let begun = Instant::now();
    let done = load(&server, &prompts(1), json!({ "timeouts": { "total": 0.3 } }));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(column::<String>(&done, "failure"), ["timeout_total"]);
    let error = done.result.unwrap_err();
    assert!(
        error
            .message
            .starts_with("no request succeeded: {\"timeout_total\":1} (the first: timeout_total: after 0.30"),
        "{error}"
    );
    thread::sleep(Duration::from_millis(60));
    assert_eq!(server.closed.load(Ordering::SeqCst), 1, "the server sees it at once");
}

#[test]
fn an_open_loop_counts_from_its_schedule() {
    // 10 ms each, one after the other; the 20th takes 300 ms
    let lock = Arc::new(Mutex::new(()));
    let server = Server::new(move |number, _, out| {
        let _one = lock.lock().unwrap();
        thread::sleep(Duration::from_millis(if number == 20 { 300 } else { 2 }));
        out.write_all(stream(&["a", "b"]).as_bytes())?;
        Ok(true)
    });
    let open =
        json!({ "arrival": { "kind": "constant", "rate": 100 }, "requests": 60, "max_concurrency": 1 });
    let done = load(&server, &prompts(7), open);
    let summary = summary_of(&done);
    let p99 = |from: &str| summary[from]["metrics"]["ttft"]["p90"].as_f64().unwrap();
    assert!(p99("from_schedule") > 0.15 && p99("from_send") < 0.1, "{summary}");
    assert_eq!(summary["metrics"], summary["from_schedule"]["metrics"]);
    assert_eq!(summary["self_check"]["inflight_max"], 1);
    let file = |name: &str| std::fs::read(done.path(name)).unwrap();
    let sweep = Bench::new(&Sweep, json!({})).file("summaries", "s.json", file("summary"));
    let level = &sweep
        .file("requests", "r.sqlite", file("requests"))
        .run(&["table", "json"])
        .ok()
        .json("json")["levels"][0];
    assert_eq!(
        level["ttft_p99"], summary["from_schedule"]["metrics"]["ttft"]["p99"],
        "a sweep counts as its loads do"
    );
    let gaps: Vec<i64> = column(&done, "sched_ns");
    assert!(gaps.windows(2).all(|pair| (pair[1] - pair[0] - 10_000_000).abs() < 2), "{gaps:?}");
    let late: Vec<f64> = column(&done, "(send0_ns - sched_ns) / 1e9");
    assert!(late.iter().all(|late| *late >= 0.0) && late[10] < 0.005, "{late:?}");
    assert_eq!(column::<i64>(&done, "id")[..8], [0, 1, 2, 3, 4, 5, 6, 0]);
}

#[test]
fn a_connection_closed_while_idle_is_no_failure() {
    // closed without a word after each answer, at once or as the next request comes
    for pause in [0, 200] {
        let server = Server::new(move |_, _, out| {
            out.write_all(stream(&["a", "b"]).as_bytes())?;
            thread::sleep(Duration::from_micros(pause));
            Ok(false)
        });
        let done = load(&server, &prompts(100), json!({ "arrival": { "kind": "closed", "concurrency": 2 } }));
        let summary = summary_of(&done);
        assert_eq!((&summary["counts"]["success"], &summary["failures"]), (&json!(100), &json!({})));
        assert_eq!(column::<i64>(&done, "attempt"), [1; 100]);
        assert_eq!(server.requests().len(), 100, "none is asked twice");
    }
}

#[test]
fn what_comes_after_an_answer_is_no_part_of_the_next() {
    let server = Server::new(|_, _, out| {
        out.write_all(format!("{}HTTP/1.1 500", stream(&["a", "b"])).as_bytes())?;
        thread::sleep(Duration::from_millis(2));
        out.write_all(b" no\r\nContent-Length: 0\r\n\r\n")?;
        Ok(true)
    });
    let done = load(&server, &prompts(6), json!({}));
    assert_eq!(summary_of(&done)["counts"]["success"], 6);
}

#[test]
fn an_answer_that_ends_with_its_connection_has_to_say_that_it_is_whole() {
    let server = Server::new(|number, _, out| {
        let head = "HTTP/1.0 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\n";
        let end = if number % 2 == 0 { "data: [DONE]\n\n" } else { "" };
        out.write_all(format!("{head}{}{}{end}", content("a"), content("b")).as_bytes())?;
        Ok(false)
    });
    let done = load(&server, &prompts(4), json!({}));
    let failures: Vec<Option<String>> = column(&done, "failure");
    assert_eq!(failures, [None, Some("closed".to_owned()), None, Some("closed".to_owned())]);
}

#[test]
fn a_request_that_is_not_taken_has_its_limit() {
    // accepts by the kernel alone, and reads nothing
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server {
        url: format!("http://{}", listener.local_addr().unwrap()),
        requests: Arc::default(),
        closed: Arc::default(),
    };
    let prompt = json!({ "id": 1, "prompt": "a".repeat(48 << 20) });
    let begun = Instant::now();
    let done = load(&server, &prompt.to_string(), json!({ "timeouts": { "first_byte": 0.3 } }));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(column::<String>(&done, "failure"), ["timeout_first_byte"]);
    assert_eq!(column::<Option<i64>>(&done, "send1_ns"), [None]);
}

#[test]
fn what_is_to_come_back_much_later_is_not_waited_for() {
    let server = Server::new(|_, _, out| {
        let busy = format!("HTTP/1.1 429 Slow\r\nRetry-After: {}\r\nContent-Length: 0\r\n\r\n", u64::MAX);
        out.write_all(busy.as_bytes())?;
        Ok(true)
    });
    let done = load(&server, &prompts(2), json!({ "retry": { "max": 3 } }));
    assert_eq!(column::<String>(&done, "failure"), ["status_429"; 2]);
}

#[test]
fn what_may_pass_is_tried_again_and_every_attempt_is_a_row() {
    let server = Server::new(|number, _, out| {
        let busy = "HTTP/1.1 429 Slow\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
        out.write_all(if number < 2 { busy.to_owned() } else { stream(&["a"]) }.as_bytes())?;
        Ok(true)
    });
    let done = load(&server, &prompts(1), json!({ "retry": { "max": 3, "backoff": 0.01 } }));
    let summary = summary_of(&done);
    assert_eq!((column::<i64>(&done, "attempt"), &summary["counts"]["total"]), (vec![1, 2, 3], &json!(1)));
    assert_eq!((&summary["retried"], &summary["failures"]), (&json!({ "status_429": 2 }), &json!({})));
    let db = rusqlite::Connection::open(done.path("requests")).unwrap();
    let first: f64 = db
        .query_row("SELECT (max(first_token_ns) - min(send0_ns)) / 1e9 FROM requests", [], |row| row.get(0))
        .unwrap();
    assert!(
        (summary["metrics"]["ttft"]["p50"].as_f64().unwrap() - first).abs() < 1e-6,
        "from the first attempt"
    );
}

#[test]
fn a_server_that_holds_answers_back_is_named() {
    let server = Server::new(|_, _, out| {
        thread::sleep(Duration::from_millis(40));
        out.write_all(stream(&["a", "b", "c", "d"]).as_bytes())?;
        Ok(true)
    });
    let done = load(&server, &prompts(3), json!({}));
    assert_eq!(summary_of(&done)["buffering"], true);
    assert!(done.log.iter().any(|line| line.contains("TTFT = E2EL")), "{:?}", done.log);
}

#[test]
fn requests_go_to_all_servers_and_shards_share_them() {
    let answer = |_: usize, _: &str, out: &mut TcpStream| {
        thread::sleep(Duration::from_millis(1));
        out.write_all(stream(&["a", "b"]).as_bytes()).map(|()| true)
    };
    let servers = [Server::new(answer), Server::new(answer), Server::new(answer)];
    let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
    for (more, counts) in [
        (json!({ "dispatch": "round_robin" }), Some([20, 20, 20])),
        (json!({ "dispatch": "least_in_flight" }), None),
        (json!({ "dispatch": "pinned" }), None),
        (json!({ "dispatch": "weighted", "weights": [1, 1, 8] }), None),
    ] {
        let before: Vec<usize> = servers.iter().map(|server| server.requests().len()).collect();
        let mut with =
            json!({ "endpoints": urls, "shards": 2, "arrival": { "kind": "closed", "concurrency": 6 } });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let done = load(&servers[0], &prompts(60), with);
        let summary = summary_of(&done);
        assert_eq!(
            (&summary["counts"]["success"], &summary["self_check"]["inflight_max"]),
            (&json!(60), &json!(6))
        );
        let got: Vec<usize> =
            servers.iter().zip(before).map(|(server, before)| server.requests().len() - before).collect();
        match counts {
            Some(counts) => assert_eq!(got, counts),
            None => assert!(
                got.iter().all(|count| *count > 0) && got.iter().sum::<usize>() == 60,
                "{more}: {got:?}"
            ),
        }
        if more["dispatch"] == "weighted" {
            assert!(got[2] > 38, "{got:?}");
        }
        let shards: Vec<i64> = column(&done, "shard");
        assert!(shards.contains(&0) && shards.contains(&1));
    }
}

#[test]
fn faults_of_parameters_and_prompts_have_their_place() {
    let base = json!({ "endpoints": ["http://127.0.0.1:1"], "model": "m", "arrival": { "kind": "closed", "concurrency": 1 } });
    let with = |more: Value| {
        let mut with = base.clone();
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with
    };
    for (more, path) in [
        (json!({ "endpoints": [] }), "endpoints"),
        (json!({ "endpoints": ["ftp://x"] }), "endpoints[0]"),
        (json!({ "arrival": { "kind": "constant", "rate": 0 } }), "arrival.rate"),
        (json!({ "arrival": { "kind": "closed", "concurrency": 0 } }), "arrival.concurrency"),
        (json!({ "requests": 0 }), "requests"),
        (json!({ "timeouts": { "stall": -1 } }), "timeouts.stall"),
        (json!({ "timeouts": { "connect": 1e300 } }), "timeouts.connect"),
        (json!({ "duration": 1e300 }), "duration"),
        (json!({ "endpoints": ["http://me:hidden@127.0.0.1:1"] }), "endpoints[0]"),
        (json!({ "dispatch": "weighted" }), "weights"),
        (json!({ "headers": { "Host": "x" } }), "headers.Host"),
        (json!({ "body": { "stream": true } }), "body.stream"),
        (json!({ "slo": {} }), "slo"),
    ] {
        assert_eq!(Load.check(&with(more.clone())).unwrap_err().path, path, "{more}");
    }
    assert!(
        Load.check(&with(
            json!({ "endpoints": "${services.x.urls}", "headers": { "A": { "secret": "K" } } })
        ))
        .is_ok()
    );
    let fails = |prompts: &str| {
        Bench::new(&Load, base.clone())
            .file("prompts", "p.jsonl", prompts)
            .run(&["requests", "summary"])
            .result
            .unwrap_err()
            .message
    };
    assert_eq!(fails(""), "input 'prompts' has no prompt");
    assert_eq!(
        fails("{\"id\": 1, \"prompt\": \"a\"}\n{\"id\": 1, \"prompt\": \"b\"}"),
        "p.jsonl:2: the id 1 comes twice"
    );
    assert_eq!(fails("{\"id\": 1}"), "p.jsonl:1: has neither 'messages' nor 'prompt'");
    assert!(
        fails("{\"id\": 1, \"prompt\": \"a\"}")
            .starts_with("no request succeeded: {\"connect\":1} (the first: connect: http://127.0.0.1:1: ")
    );
}

#[test]
fn an_answer_before_the_request_is_whole_is_one() {
    // the head alone is read: the answer goes out while the client still writes, and what it wrote is thrown away with the connection
    for close in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut start = [0; 64];
                if stream.read(&mut start).unwrap_or(0) == 0 {
                    continue;
                }
                let body = "too large";
                let answer =
                    format!("HTTP/1.1 413 Too Large\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).unwrap();
                if !close {
                    kept.push(stream);
                }
            }
        });
        let server = Server { url, requests: Arc::default(), closed: Arc::default() };
        let prompt = json!({ "id": 1, "prompt": "a".repeat(32 << 20) });
        let done = load(&server, &prompt.to_string(), json!({ "timeouts": { "first_byte": 5 } }));
        assert_eq!(column::<String>(&done, "failure"), ["status_4xx"], "{close}");
        assert_eq!(column::<Option<i64>>(&done, "status"), [Some(413)]);
        assert_eq!(column::<String>(&done, "message"), ["too large"]);
        assert_eq!(column::<Option<i64>>(&done, "send1_ns"), [None]);
    }
}

#[test]
fn times_count_from_an_attempt_that_had_no_connection() {
    // nobody listens at the first address that the request goes to
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::new(|_, _, out| out.write_all(stream(&["a"]).as_bytes()).map(|()| true));
    let more =
        json!({ "endpoints": [format!("http://{free}"), server.url], "retry": { "max": 1, "backoff": 0.3 } });
    let done = load(&server, &prompts(1), more);
    let summary = summary_of(&done);
    assert_eq!((&summary["retried"], &summary["failures"]), (&json!({ "connect": 1 }), &json!({})));
    let db = rusqlite::Connection::open(done.path("requests")).unwrap();
    let (asked, took): (i64, f64) = db
        .query_row(
            "SELECT min(connect0_ns), (max(first_token_ns) - min(connect0_ns)) / 1e9 FROM requests",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert!(asked > 0 && took > 0.15, "{took}");
    assert_eq!(column::<Option<i64>>(&done, "connect1_ns")[0], None);
    let ttft = summary["metrics"]["ttft"]["p50"].as_f64().unwrap();
    assert!((ttft - took).abs() < 1e-6, "{ttft} {took}");
}

/// Messages of a request's body.
fn said(text: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let messages = body["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|m| format!("{}:{}", m["role"].as_str().unwrap(), m["content"].as_str().unwrap()))
        .collect()
}

/// Answers with the number of messages that it was given.
fn echo(text: &str, out: &mut TcpStream) -> std::io::Result<bool> {
    let count = said(text).len();
    out.write_all(stream(&["\"n", &format!("={count}")]).as_bytes())?;
    Ok(true)
}

#[test]
fn a_conversation_holds_what_was_answered_and_stays_with_its_server() {
    let servers = [Server::new(|_, text, out| echo(text, out)), Server::new(|_, text, out| echo(text, out))];
    let talk = |id: &str| {
        json!({
            "id": id, "messages": [{ "role": "system", "content": format!("for {id}") }],
            "turns": [{ "content": "one" }, { "content": "two", "think": 0.15 }, { "content": "three", "max_tokens": 3 }],
        })
    };
    let lines = format!("{}\n{}\n{}\n", talk("a"), talk("b"), json!({ "id": "c", "prompt": "alone" }));
    let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
    let more = json!({ "endpoints": urls, "arrival": { "kind": "closed", "concurrency": 2 } });
    let done = load(&servers[0], &lines, more);
    let summary = summary_of(&done);
    assert_eq!(summary["counts"]["success"], 7);
    let whole =
        json!({ "begun": 3, "whole": 3, "ended_by_failure": 0, "ended_by_time": 0, "turns_not_sent": 0 });
    assert_eq!(summary["conversations"], whole);
    let turns: Vec<(u64, u64)> = summary["by_turn"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| (turn["turn"].as_u64().unwrap(), turn["n"].as_u64().unwrap()))
        .collect();
    assert_eq!(turns, [(0, 3), (1, 2), (2, 2)]);
    assert_eq!(column::<String>(&done, "id"), ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2", "c"]);
    let conversations: Vec<Option<String>> = column(&done, "conversation");
    assert_eq!(
        conversations.iter().map(|c| c.as_deref()).collect::<Vec<_>>()[2..],
        [Some("a"), Some("b"), Some("b"), Some("b"), None]
    );
    assert_eq!(
        column::<Option<i64>>(&done, "turn"),
        [Some(0), Some(1), Some(2), Some(0), Some(1), Some(2), None]
    );
    assert_eq!(column::<Option<String>>(&done, "text"), vec![None; 7], "kept for the next turn alone");
    // one server has all turns of a conversation, with what the server said before
    let all: Vec<Vec<String>> = servers.iter().flat_map(Server::requests).map(|text| said(&text)).collect();
    let of = |id: &str| -> Vec<&Vec<String>> {
        all.iter().filter(|said| said[0] == format!("system:for {id}")).collect()
    };
    for id in ["a", "b"] {
        assert_eq!(
            of(id)[2][1..],
            ["user:one", "assistant:\"n=2", "user:two", "assistant:\"n=4", "user:three"].map(str::to_owned)
        );
        let served = servers
            .iter()
            .filter(|server| server.requests().iter().any(|text| text.contains(&format!("for {id}"))));
        assert_eq!(served.count(), 1);
    }
    let requests = servers.iter().flat_map(Server::requests).collect::<Vec<_>>();
    assert!(
        requests.iter().any(|text| text.contains("\"three\"}],\"model\":\"m\",\"max_tokens\":3")),
        "{requests:?}"
    );
    // the time to think is between an answer and the next send
    let (sends, ends): (Vec<i64>, Vec<i64>) = (column(&done, "send0_ns"), column(&done, "end_ns"));
    let gaps = [sends[1] - ends[0], sends[2] - ends[1]].map(|ns| ns as f64 / 1e9);
    assert!((0.15..0.3).contains(&gaps[0]) && gaps[1] < 0.1, "{gaps:?}");
}

#[test]
fn a_conversation_ends_with_a_turn_that_failed_and_says_what_was_not_sent() {
    let server = Server::new(|_, text, out| {
        if said(text).len() == 3 {
            out.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        echo(text, out)
    });
    let turns: Vec<Value> = (0..5).map(|n| json!({ "content": format!("t{n}") })).collect();
    let lines = json!({ "id": 1, "turns": turns }).to_string();
    let done = load(&server, &lines, json!({}));
    let summary = summary_of(&done);
    assert_eq!((&summary["counts"]["total"], &summary["failures"]), (&json!(2), &json!({ "status_5xx": 1 })));
    let ended =
        json!({ "begun": 1, "whole": 0, "ended_by_failure": 1, "ended_by_time": 0, "turns_not_sent": 3 });
    assert_eq!(summary["conversations"], ended);
    // an open loop begins conversations by its schedule, and takes places for each turn
    let good = Server::new(|_, text, out| echo(text, out));
    let lines: String = (0..20)
        .map(|n| format!("{}\n", json!({ "id": n, "turns": [{ "content": "a" }, { "content": "b" }] })))
        .collect();
    let more = json!({ "arrival": { "kind": "constant", "rate": 100 }, "max_concurrency": 1, "think": 0.05, "save_text": true });
    let done = load(&good, &lines, more);
    let summary = summary_of(&done);
    assert_eq!(
        (&summary["counts"]["success"], &summary["self_check"]["inflight_max"]),
        (&json!(40), &json!(1))
    );
    let (sched, ends): (Vec<i64>, Vec<i64>) = (column(&done, "sched_ns"), column(&done, "end_ns"));
    assert!(
        sched.iter().skip(1).step_by(2).zip(ends.iter().step_by(2)).all(|(due, end)| due - end == 50_000_000)
    );
    assert!(column::<String>(&done, "text").iter().all(|text| text.starts_with("\"n=")));
}

#[test]
fn faults_of_conversations_have_their_place() {
    let server =
        Server { url: "http://127.0.0.1:9".into(), requests: Arc::default(), closed: Arc::default() };
    let fails = |line: Value, more: Value| load(&server, &line.to_string(), more).result.unwrap_err().message;
    let turns = json!([{ "content": "a" }]);
    assert_eq!(
        fails(json!({ "id": 1, "turns": [] }), json!({})),
        "p.jsonl:1: 'turns' is empty or has more than 10000 entries"
    );
    assert!(
        fails(json!({ "id": 1, "turns": turns, "prompt": "x" }), json!({}))
            .starts_with("p.jsonl:1: has both")
    );
    assert!(
        fails(json!({ "id": 1, "turns": turns }), json!({ "api": "completions" }))
            .contains("go with api chat")
    );
    assert!(
        fails(json!({ "id": 1, "turns": [{ "content": "a", "think": -1 }] }), json!({})).contains("'think'")
    );
    assert!(fails(json!({ "id": 1, "turns": [{ "text": "a" }] }), json!({})).starts_with("p.jsonl:1: "));
}

/// A server behind TLS with a certificate of its own; answers each request with two words, 30 ms apart. Its URL and its certificate, PEM.
fn secret_server(keep: bool) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || {
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream = rustls::StreamOwned::new(session, stream);
                while request(&mut stream).is_some() {
                    let first = format!("{HEAD}{}", chunked(&(role() + &content("a"))));
                    let rest = content("b") + &usage(2) + "data: [DONE]\n\n";
                    if stream.write_all(first.as_bytes()).and_then(|()| stream.flush()).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(30));
                    let _ = stream.write_all(format!("{}0\r\n\r\n", chunked(&rest)).as_bytes());
                    let _ = stream.flush();
                    if !keep {
                        return;
                    }
                }
            });
        }
    });
    (url, made.cert.pem())
}

/// A proxy: connects where it is asked to, passes nothing else on but answers it itself. What it was asked.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                seen.lock().unwrap().push(head.clone());
                let Some(to) = head.strip_prefix("CONNECT ") else {
                    let _ = stream.write_all(stream_of(&["p"]).as_bytes());
                    return thread::sleep(Duration::from_millis(100));
                };
                if head.contains("refused.invalid") {
                    return stream.write_all(b"HTTP/1.1 403 No\r\n\r\n").unwrap();
                }
                let port = to.split(' ').next().unwrap().rsplit(':').next().unwrap();
                let mut server = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
                let (mut up, mut down) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut up, &mut down));
                let _ = std::io::copy(&mut server, &mut stream);
            });
        }
    });
    (url, asked)
}

/// [`stream`], where that name is a connection.
fn stream_of(texts: &[&str]) -> String {
    stream(texts)
}

fn load_with(url: &str, pem: Option<&str>, more: Value) -> Finished {
    let mut with = json!({ "endpoints": url, "model": "m", "arrival": { "kind": "closed", "concurrency": 2 }, "on_client_bound": "mark" });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let bench = Bench::new(&Load, with).file("prompts", "p.jsonl", prompts(8));
    let bench = match pem {
        Some(pem) => bench.file("authorities", "ca.pem", pem),
        None => bench,
    };
    bench.run(&["requests", "summary"])
}

#[test]
fn a_server_behind_tls_is_measured_as_any_other() {
    for keep in [true, false] {
        let (url, pem) = secret_server(keep);
        let done = load_with(&url, Some(&pem), json!({ "save_text": true }));
        let summary = summary_of(&done);
        assert_eq!((&summary["counts"]["success"], &summary["failures"]), (&json!(8), &json!({})), "{keep}");
        assert_eq!(summary["load"]["transports"], json!(["https"]));
        assert_eq!(column::<String>(&done, "text"), ["ab"; 8]);
        // the handshakes are over before the clock starts, and the gap is that of the server
        let itl = summary["metrics"]["itl"]["p50"].as_f64().unwrap();
        assert!((0.025..0.06).contains(&itl), "{itl}");
        assert!(column::<i64>(&done, "send1_ns - send0_ns").iter().all(|ns| *ns > 0));
        assert_eq!(summary["self_check"]["receive_lag_ms"], Value::Null);
        assert_eq!(summary["self_check"]["reconnects"] == 0, keep, "{summary}");
    }
}

#[test]
fn a_certificate_that_nobody_knows_is_a_connection_that_is_not_there() {
    let (url, pem) = secret_server(true);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let done = load_with(&url, Some(&other), json!({}));
    let error = done.result.unwrap_err().message;
    assert!(
        error.contains("{\"connect\":8}") && error.contains("TLS: ") && error.contains("certificate"),
        "{error}"
    );
    let done = load_with(&url.replace("localhost", "127.0.0.1"), Some(&pem), json!({}));
    assert!(done.result.unwrap_err().message.contains("TLS: "), "another name");
    let done = load_with(&url, Some("no certificate"), json!({}));
    assert_eq!(done.result.unwrap_err().message, "ca.pem: no certificate in it");
}

#[test]
fn a_proxy_connects_or_passes_on() {
    let (url, pem) = secret_server(true);
    let (by, asked) = proxy();
    let more = json!({ "proxy": by, "proxy_auth": "me:pass" });
    let summary = summary_of(&load_with(&url, Some(&pem), more.clone()));
    assert_eq!(
        (&summary["counts"]["success"], &summary["load"]["transports"]),
        (&json!(8), &json!(["https by a proxy"]))
    );
    let port = url.rsplit(':').next().unwrap();
    for head in asked.lock().unwrap().iter() {
        assert!(head.starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\n")), "{head}");
        assert!(head.contains("\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n"), "{head}");
    }
    asked.lock().unwrap().clear();
    // the name of the server is the proxy's to find
    let summary = summary_of(&load_with("http://model.invalid:81/v1", None, more.clone()));
    assert_eq!(
        (&summary["counts"]["success"], &summary["load"]["transports"]),
        (&json!(8), &json!(["http by a proxy"]))
    );
    let head = asked.lock().unwrap()[0].clone();
    assert!(
        head.starts_with(
            "POST http://model.invalid:81/v1/chat/completions HTTP/1.1\r\nHost: model.invalid:81\r\n"
        ),
        "{head}"
    );
    assert!(head.contains("Proxy-Authorization: Basic bWU6cGFzcw=="));
    let error = load_with("https://refused.invalid", Some(&pem), more).result.unwrap_err().message;
    assert!(error.contains("the proxy refused with status 403") && !error.contains("pass"), "{error}");
    let refused = |with: Value| {
        let mut all = json!({ "endpoints": "http://h", "model": "m", "arrival": { "kind": "closed", "concurrency": 1 } });
        all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        Load.check(&all).unwrap_err()
    };
    let fault = refused(json!({ "proxy": "http://me:hidden@h:1" }));
    assert!(fault.path == "proxy" && !fault.message.contains("hidden"), "{fault:?}");
    assert_eq!(refused(json!({ "proxy": "none", "proxy_auth": "a:b" })).path, "proxy_auth");
}
