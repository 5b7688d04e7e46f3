//! `sim.llm` over real sockets on loopback.

mod endpoints;
mod faults;
mod framing;
mod parameters;
mod timing;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Server;

/// A server whose log is in a directory of its own.
struct Sim {
    dir: tempfile::TempDir,
    server: Option<Server>,
}

impl Sim {
    fn new(with: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut all = json!({"log": dir.path().join("log/requests.jsonl")});
        all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        let server = Some(Server::start(&all).unwrap());
        Self { dir, server }
    }

    fn connect(&self) -> TcpStream {
        let url = self.server.as_ref().unwrap().url();
        let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends a request on a connection of its own, which stays open.
    fn send(&self, path: &str, xid: Option<&str>, body: &Value) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(request(path, xid, &body.to_string()).as_bytes()).unwrap();
        stream
    }

    fn ask(&self, path: &str, body: &Value) -> Answer {
        read(&mut self.send(path, None, body))
    }

    /// A streamed chat of this many tokens at most.
    fn chat(&self, xid: Option<&str>, tokens: u64) -> Answer {
        read(&mut self.send(CHAT, xid, &chat(tokens)))
    }

    /// Waits until the server has handled what was sent before: it takes requests as they come.
    fn settle(&self) {
        assert_eq!(self.ask("/none", &json!({})).status, 404);
    }

    /// Waits for this many lines, then stops the server; the lines of its log.
    fn log_of(self, lines: usize) -> Vec<Value> {
        let end = Instant::now() + Duration::from_secs(20);
        let path = self.dir.path().join("log/requests.jsonl");
        while fs::read_to_string(&path).unwrap().lines().count() < lines {
            assert!(Instant::now() < end, "the log has no {lines} lines");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.log()
    }

    /// Stops the server; the lines of its log.
    fn log(mut self) -> Vec<Value> {
        self.server = None;
        let text = fs::read_to_string(self.dir.path().join("log/requests.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn chat(tokens: u64) -> Value {
    json!({"model": "m", "stream": true, "max_tokens": tokens, "messages": [{"role": "user", "content": "say it again"}]})
}

fn request(path: &str, xid: Option<&str>, body: &str) -> String {
    let xid = xid.map(|xid| format!("X-Request-Id: {xid}\r\n")).unwrap_or_default();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{xid}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    /// Without the frames of chunks.
    body: Vec<u8>,
    /// It came to its end.
    whole: bool,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The data of the events, [DONE] too.
    fn data(&self) -> Vec<&str> {
        self.text().lines().filter_map(|line| line.strip_prefix("data: ")).collect()
    }

    /// The events.
    fn events(&self) -> Vec<Value> {
        let events = self.data().into_iter().filter(|data| *data != "[DONE]");
        events.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    /// The content of the events that have some.
    fn contents(&self) -> Vec<String> {
        let events = self.events();
        let texts = events.iter().map(|event| {
            let choice = &event["choices"][0];
            choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or("").to_owned()
        });
        texts.filter(|text| !text.is_empty()).collect()
    }
}

/// Reads one answer, to its end or to that of the connection.
fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    loop {
        if let Some(answer) = parse(&bytes, false) {
            return answer;
        }
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => return parse(&bytes, true).expect("a head"),
            Ok(length) => bytes.extend_from_slice(&part[..length]),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
}

fn parse(bytes: &[u8], ended: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = &bytes[end + 4..];
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let (body, whole) = match length {
        Some(length) => (rest.to_vec(), rest.len() == length),
        None => {
            let mut body = Vec::new();
            let whole = loop {
                let Some(line) = rest.windows(2).position(|w| w == b"\r\n") else { break false };
                let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
                rest = &rest[line + 2..];
                if rest.len() < size + 2 {
                    break false;
                }
                if size == 0 {
                    break true;
                }
                body.extend_from_slice(&rest[..size]);
                assert_eq!(&rest[size..size + 2], b"\r\n");
                rest = &rest[size + 2..];
            };
            (body, whole)
        }
    };
    (whole || ended).then_some(Answer { status, head, body, whole })
}
