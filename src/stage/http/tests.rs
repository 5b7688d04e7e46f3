//! `http.fetch` against `sim.http` on loopback.

use std::fs;
use std::path::Path;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::Fetch;
use crate::api::{CancelToken, Done, Previous, Stage, StageContext, StageError};
use crate::base::digest::Digest;
use crate::stage::harness::{Bench, Finished};
use crate::stage::sim::http::Server;

const BODY: &str = "[{\"x\": 1.50}]";

struct Site {
    dir: TempDir,
    server: Server,
}

impl Site {
    fn new(faults: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let www = dir.path().join("www");
        fs::create_dir(&www).unwrap();
        fs::write(www.join("a.json"), BODY).unwrap();
        fs::write(www.join("page.html"), "<html>\n<body>please log in</body></html>").unwrap();
        let log = dir.path().join("access.jsonl");
        let server = Server::start(&json!({"dir": www, "faults": faults, "access_log": log})).unwrap();
        Self { dir, server }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url())
    }

    fn edit(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("www").join(name), text).unwrap();
    }

    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("access.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn fetch(&self, path: &str, more: Value, previous: Option<&Map<String, Value>>) -> Finished {
        fetch(&self.url(path), more, previous)
    }
}

fn fetch(url: &str, more: Value, previous: Option<&Map<String, Value>>) -> Finished {
    let mut with = json!({"url": url});
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut bench = Bench::new(&Fetch, with);
    bench.previous = previous.map(|record| Previous { record: record.clone() });
    bench.run(&["body"])
}

fn failed(finished: &Finished) -> &StageError {
    assert!(!finished.path("body").exists(), "a failed attempt leaves no part of a body");
    finished.result.as_ref().expect_err("a failure")
}

#[test]
fn a_body_and_its_record() {
    let site = Site::new(json!([]));
    let done = site
        .fetch(
            "/a.json?page=1",
            json!({"expect": {"json": true, "min_bytes": 5, "content_type": "application/json"}}),
            None,
        )
        .ok();
    assert!(matches!(done.result, Ok(Done::Made)));
    assert_eq!(done.text("body"), BODY);
    let record = &done.record;
    assert_eq!(record["url"], json!(site.url("/a.json?page=1")));
    assert_eq!(
        (&record["status"], &record["bytes"], &record["conditional"]),
        (&json!(200), &json!(BODY.len()), &json!(false))
    );
    assert_eq!(record["digest"], json!(Digest::of(BODY.as_bytes())));
    assert!(record["etag"].as_str().unwrap().ends_with("-gzip\""), "asked for gzip: {}", record["etag"]);
    assert!(
        record["last_modified"].is_string() && record["date"].is_string() && record["fetched_at"].is_string()
    );
}

#[test]
fn validated_by_etag_whatever_the_port_and_fetched_again_when_changed() {
    let site = Site::new(json!([]));
    let first = site.fetch("/a.json", json!({}), None).ok().record;
    let moved = Site::new(json!([]));
    let second = moved.fetch("/a.json", json!({}), Some(&first)).ok();
    assert!(matches!(second.result, Ok(Done::Unchanged)));
    assert!(!second.path("body").exists());
    assert_eq!((&second.record["status"], &second.record["checked"]), (&json!(304), &json!(true)));
    assert_eq!(second.record["digest"], first["digest"]);
    assert_eq!(second.record["fetched_at"], first["fetched_at"]);
    assert_eq!(second.record["url"], json!(moved.url("/a.json")));

    // what a 304 recorded validates again
    assert!(matches!(
        moved.fetch("/a.json", json!({}), Some(&second.record)).ok().result,
        Ok(Done::Unchanged)
    ));
    moved.edit("a.json", "[2]");
    let third = moved.fetch("/a.json", json!({}), Some(&second.record)).ok();
    assert!(matches!(third.result, Ok(Done::Made)));
    assert_eq!((third.text("body").as_str(), &third.record["conditional"]), ("[2]", &json!(true)));
    let statuses: Vec<_> =
        moved.log().iter().map(|line| (line["status"].clone(), line["conditional"].clone())).collect();
    assert_eq!(statuses, [(json!(304), json!(true)), (json!(304), json!(true)), (json!(200), json!(true))]);
}

#[test]
fn refusals_say_what_may_be_retried() {
    let site = Site::new(json!([
        {"match": "/a.json", "status": 429, "retry_after": 7, "times": 1},
        {"match": "/a.json", "status": 503, "retry_after": "Fri, 01 Jan 2100 00:00:00 GMT", "times": 1},
        {"match": "/a.json", "status": 500, "times": 1},
        {"match": "/a.json", "status": 403, "times": 1},
        {"match": "/a.json", "status": 302, "times": 1}
    ]));
    let mut seen = Vec::new();
    for _ in 0..5 {
        let finished = site.fetch("/a.json", json!({}), None);
        let error = failed(&finished);
        assert!(
            error.message.starts_with(&format!("GET {} answered ", site.url("/a.json"))),
            "{}",
            error.message
        );
        seen.push((error.retryable, error.retry_after.map(|d| d.as_secs())));
    }
    assert_eq!(seen, [(true, Some(7)), (true, Some(86400)), (true, None), (false, None), (false, None)]);

    let finished = site.fetch("/none.json?token=hush", json!({}), None);
    let error = failed(&finished);
    assert_eq!(
        error.message,
        format!("GET {} answered 404 Not Found: no such file", site.url("/none.json?token=***"))
    );
    assert!(!error.retryable && !error.hints.is_empty());
}

#[test]
fn broken_bodies_and_connections_may_be_retried() {
    let site = Site::new(json!([{"match": "*", "cut_after": 5}]));
    let finished = site.fetch("/a.json", json!({}), None);
    let error = failed(&finished);
    assert!(error.retryable && error.message.contains(&site.url("/a.json")), "{}", error.message);

    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/x", listener.local_addr().unwrap())
    };
    let finished = fetch(&gone, json!({}), None);
    let error = failed(&finished);
    assert!(error.retryable && error.message.contains("refused"), "{}", error.message);
}

/// Answers one request with these bytes, then closes; the URL.
fn raw_server(answer: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes);
        stream.write_all(answer.as_bytes()).unwrap();
    });
    url
}

#[test]
fn short_bodies_cut_chunks_and_strange_encodings() {
    for (answer, retryable) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1]", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x08\x08\x00", true),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", false),
        ("HTTP/1.1 204 No Content\r\n\r\n", false),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", false),
        ("HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", false),
        ("", true),
    ] {
        let finished = fetch(&raw_server(answer), json!({}), None);
        assert_eq!(failed(&finished).retryable, retryable, "{answer:?}: {}", failed(&finished).message);
    }
}

#[test]
fn redirects_are_followed_and_take_no_credential_along() {
    use std::io::{Read, Write};
    let site = Site::new(json!([]));
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://{}/end\r\nContent-Length: 0\r\n\r\n",
        target.local_addr().unwrap()
    );
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = target.accept().unwrap();
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").unwrap();
        String::from_utf8_lossy(&bytes[..n]).to_lowercase()
    });
    let url = raw_server(Box::leak(answer.into_boxed_str()));
    let done =
        fetch(&url, json!({"headers": {"X-Api-Key": "hush", "Accept": "application/json"}}), None).ok();
    assert_eq!(done.text("body"), "[]");
    assert!(done.record["final_url"].as_str().unwrap().ends_with("/end"));
    let asked = asked.join().unwrap();
    assert!(!asked.contains("hush") && asked.contains("accept: application/json"), "{asked}");
    assert!(asked.contains(concat!("user-agent: flow/", env!("CARGO_PKG_VERSION"))), "{asked}");
    drop(site);
}

#[test]
fn expectations() {
    let site = Site::new(json!([]));
    for (path, expect, part) in [
        (
            "/page.html",
            json!({"json": true}),
            "text/html; charset=utf-8 that are not JSON (expected value at line 1 column 1); they begin: <html> <body>please log in",
        ),
        ("/a.json", json!({"min_bytes": 1000}), "gave 13 bytes, expected at least 1000"),
        (
            "/page.html",
            json!({"content_type": "application/json"}),
            "gave text/html; charset=utf-8, expected application/json",
        ),
    ] {
        let finished = site.fetch(path, json!({ "expect": expect }), None);
        let error = failed(&finished);
        assert!(error.message.contains(part) && error.message.contains(&site.url(path)), "{}", error.message);
        assert!(!error.retryable);
    }
}

#[test]
fn deadlines() {
    let site = Site::new(json!([{"match": "*", "delay_ms": 60_000}]));
    for (timeouts, part) in [
        (json!({"idle": "30ms"}), "no answer within 30ms"),
        (json!({"total": "30ms"}), "not done after 30ms"),
    ] {
        let finished = site.fetch("/a.json", json!({ "timeouts": timeouts }), None);
        let error = failed(&finished);
        assert!(error.retryable && error.message.contains(part), "{}", error.message);
    }
}

/// Runs the stage on a runtime of the caller's.
fn run_on(
    runtime: &tokio::runtime::Handle,
    with: Value,
    path: &Path,
    cancel: &CancelToken,
) -> Result<Done, StageError> {
    let mut ctx = StageContext {
        inputs: IndexMap::new(),
        outputs: IndexMap::from_iter([("body".to_owned(), path.to_owned())]),
        with,
        previous: None,
        cancel: cancel.clone(),
        current_entries: Vec::new(),
        removed_entries: Vec::new(),
        record: Map::new(),
        log: &mut |_| {},
        runtime,
    };
    Fetch.run(&mut ctx)
}

#[test]
fn a_cancelled_attempt_ends_at_once() {
    let site = Site::new(json!([{"match": "*", "delay_ms": 60_000}]));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cancel = CancelToken::default();
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        let attempt = scope.spawn(|| {
            run_on(runtime.handle(), json!({"url": site.url("/a.json")}), &site.dir.path().join("x"), &cancel)
        });
        while site.server.most_in_flight() == 0 {
            std::thread::yield_now();
        }
        cancel.cancel();
        let error = attempt.join().unwrap().unwrap_err();
        assert!(!error.retryable && error.message.contains("cancelled"), "{}", error.message);
    });
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn one_host_never_sees_more_than_its_share() {
    let site = Site::new(json!([{"match": "*", "delay_ms": 20}]));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (site, runtime) = (&site, &runtime);
            scope.spawn(move || {
                let with = json!({"url": site.url("/a.json"), "per_host": {"connections": 3}});
                let path = site.dir.path().join(n.to_string());
                run_on(runtime.handle(), with, &path, &CancelToken::default()).unwrap();
            });
        }
    });
    assert_eq!(site.log().len(), 16);
    assert_eq!(site.server.most_in_flight(), 3, "the limit is used and kept");
}

#[test]
fn starts_keep_their_distance() {
    let site = Site::new(json!([]));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let with = json!({"url": site.url("/a.json"), "per_host": {"min_interval": "40ms"}});
    let started = std::time::Instant::now();
    for n in 0..3 {
        let path = site.dir.path().join(n.to_string());
        run_on(runtime.handle(), with.clone(), &path, &CancelToken::default()).unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(80));
}

#[test]
fn a_header_value_is_in_no_message_log_or_record() {
    let site = Site::new(json!([{"match": "/a.json", "status": 401, "times": 1}]));
    let headers = json!({"headers": {"Authorization": "Bearer sentinel-7f3a"}});
    for _ in 0..2 {
        let finished = site.fetch("/a.json", headers.clone(), None);
        let told = format!("{:?} {:?} {:?}", finished.result, finished.log, finished.record);
        assert!(!told.contains("sentinel-7f3a"), "{told}");
    }
    let finished =
        Bench::new(&Fetch, json!({"url": "${services.x.url}/a", "headers": {"X": "late"}})).run(&["body"]);
    assert!(failed(&finished).message.starts_with("parameter url:"), "{}", failed(&finished).message);
}
