//! `sim.http` over real sockets on loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};

use super::Server;

/// Sends one request as text, gives status, lower-case head and body. `None`: the connection ended before the whole answer.
fn ask(server: &Server, request: &str) -> (u16, String, Option<Vec<u8>>) {
    let mut stream = TcpStream::connect(server.url().strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let body = bytes[end + 4..].to_vec();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length: Option<usize> = header(&head, "content-length").map(|text| text.parse().unwrap());
    let whole =
        request.starts_with("HEAD") || status == 304 || length.is_none_or(|length| length == body.len());
    (status, head, whole.then_some(body))
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn site(with: Value) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("www/sub")).unwrap();
    fs::write(dir.path().join("www/a.json"), "[1, 2, 3]").unwrap();
    fs::write(dir.path().join("www/sub/b.txt"), "b").unwrap();
    fs::write(dir.path().join("outside"), "secret").unwrap();
    let mut all = json!({"dir": dir.path().join("www"), "access_log": dir.path().join("log/access.jsonl")});
    all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    let server = Server::start(&all).unwrap();
    (dir, server)
}

fn log(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("log/access.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn files_conditions_and_methods() {
    let (dir, server) = site(json!({}));
    let (status, head, body) = ask(&server, "GET /a.json?x=1 HTTP/1.1");
    assert_eq!((status, body.unwrap().as_slice()), (200, b"[1, 2, 3]".as_slice()));
    assert_eq!(header(&head, "content-type"), Some("application/json"));
    assert_eq!(header(&head, "vary"), Some("accept-encoding"));
    let etag = header(&head, "etag").unwrap().to_owned();
    let modified = header(&head, "last-modified").unwrap().to_owned();

    let (status, head, body) = ask(&server, &format!("GET /a.json HTTP/1.1\r\nIf-None-Match: {etag}"));
    assert_eq!((status, body.unwrap().len(), header(&head, "etag")), (304, 0, Some(etag.as_str())));
    let (status, ..) = ask(&server, &format!("GET /a.json HTTP/1.1\r\nIf-Modified-Since: {modified}"));
    assert_eq!(status, 304);

    let (status, head, body) = ask(&server, "HEAD /a.json HTTP/1.1");
    assert_eq!((status, body.unwrap().len(), header(&head, "content-length")), (200, 0, Some("9")));
    assert_eq!(ask(&server, "POST /a.json HTTP/1.1\r\nContent-Length: 0").0, 405);
    assert_eq!(ask(&server, "GET /sub HTTP/1.1").0, 404);
    for path in ["/../outside", "/%2e%2e/outside", "/sub/..%2f..%2foutside"] {
        let (status, _, body) = ask(&server, &format!("GET {path} HTTP/1.1"));
        assert_eq!(status, 404, "{path}");
        assert!(!String::from_utf8_lossy(&body.unwrap()).contains("secret"));
    }

    // a changed file is served at once
    fs::write(dir.path().join("www/a.json"), "[4]").unwrap();
    let (status, _, body) = ask(&server, &format!("GET /a.json HTTP/1.1\r\nIf-None-Match: {etag}"));
    assert_eq!((status, body.unwrap().as_slice()), (200, b"[4]".as_slice()));

    let lines = log(dir.path());
    assert_eq!(lines.len(), 10);
    assert_eq!(
        (&lines[0]["method"], &lines[0]["path"], &lines[0]["status"], &lines[0]["bytes"]),
        (&json!("GET"), &json!("/a.json"), &json!(200), &json!(9))
    );
    assert_eq!(
        (&lines[1]["status"], &lines[1]["bytes"], &lines[1]["conditional"]),
        (&json!(304), &json!(0), &json!(true))
    );
    assert_eq!((&lines[3]["method"], &lines[3]["bytes"]), (&json!("HEAD"), &json!(0)));
    assert!(lines[0]["t"].as_f64().unwrap() > 1e9);
}

#[test]
fn gzip_when_asked() {
    let (_dir, server) = site(json!({}));
    let plain = ask(&server, "GET /a.json HTTP/1.1").1;
    let (status, head, body) = ask(&server, "GET /a.json HTTP/1.1\r\nAccept-Encoding: gzip");
    assert_eq!((status, header(&head, "content-encoding")), (200, Some("gzip")));
    let mut text = String::new();
    flate2::read::GzDecoder::new(body.unwrap().as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "[1, 2, 3]");
    let etag = header(&head, "etag").unwrap();
    assert_ne!(Some(etag), header(&plain, "etag"));
    let again = format!("GET /a.json HTTP/1.1\r\nAccept-Encoding: gzip\r\nIf-None-Match: {etag}");
    assert_eq!(ask(&server, &again).0, 304);
}

#[test]
fn faults() {
    let (dir, server) = site(json!({"faults": [
        {"match": "/a.json", "status": 429, "retry_after": 7, "times": 1},
        {"match": "*.json", "cut_after": 4, "times": 1},
        {"match": "/sub/**", "delay_ms": 1}
    ]}));
    let (status, head, _) = ask(&server, "GET /a.json HTTP/1.1");
    assert_eq!((status, header(&head, "retry-after")), (429, Some("7")));
    let (status, head, body) = ask(&server, "GET /a.json HTTP/1.1\r\nIf-None-Match: *");
    assert_eq!(
        (status, header(&head, "content-length"), body),
        (200, Some("9"), None),
        "cut after 4 of 9 bytes"
    );
    assert_eq!(ask(&server, "GET /a.json HTTP/1.1").0, 200);
    assert_eq!(ask(&server, "GET /sub/b.txt HTTP/1.1").2.unwrap(), b"b");
    assert_eq!(log(dir.path())[1]["bytes"], json!(4));
}

#[test]
fn wrong_parameters_are_named() {
    let check = super::info().check;
    for (with, path) in [
        (json!({"dir": "x", "fault": []}), "fault"),
        (json!({"faults": []}), ""),
        (json!({"dir": "x", "faults": [{"match": "["  , "status": 500}]}), "faults[0].match"),
        (json!({"dir": "x", "faults": [{"match": "*"}]}), "faults[0]"),
        (json!({"dir": "x", "faults": [{"match": "*", "status": 200}]}), "faults[0].status"),
        (json!({"dir": "x", "faults": [{"match": "*", "status": 500, "cut_after": 1}]}), "faults[0]"),
        (
            json!({"dir": "x", "faults": [{"match": "*", "cut_after": 1, "retry_after": 1}]}),
            "faults[0].retry_after",
        ),
    ] {
        assert_eq!(check(&with).unwrap_err().path, path, "{with}");
    }
    let missing = Server::start(&json!({"dir": "/nowhere/at/all"})).err().unwrap();
    assert!(missing.message.contains("/nowhere/at/all"), "{}", missing.message);
}
