//! The bytes of streams under each option.

use std::io::Read;

use serde_json::json;

use super::{CHAT, COMPLETIONS, Sim, chat, parse};

#[test]
fn one_event_may_hold_many_tokens() {
    let sim = Sim::new(json!({"chunk": 4, "reasoning": 2}));
    let answer = sim.chat(None, 9);
    let deltas: Vec<(usize, usize)> = answer
        .events()
        .iter()
        .map(|event| {
            let words = |name: &str| {
                let text = event["choices"][0]["delta"][name].as_str().unwrap_or("");
                text.split_whitespace().count()
            };
            (words("reasoning_content"), words("content"))
        })
        .collect();
    assert_eq!(deltas, [(0, 0), (2, 0), (0, 4), (0, 3), (0, 0)]);
    let log = sim.log();
    assert_eq!((&log[0]["tokens"], log[0]["chunk_ns"].as_array().unwrap().len()), (&json!(9), 3));
}

#[test]
fn lines_comments_and_ends() {
    let sim = Sim::new(json!({"crlf": true, "comments": true, "done": false, "role": false, "usage": true}));
    let answer = sim.chat(None, 3);
    let lines: Vec<&str> = answer.text().split("\r\n\r\n").collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["data:", ":", "data:", ":", "data:", "data:", "data:", ""]);
    assert_eq!(answer.text().matches('\n').count(), answer.text().matches("\r\n").count());
    assert_eq!(answer.events().last().unwrap()["usage"]["completion_tokens"], json!(3));
    assert!(!answer.text().contains("[DONE]") && !answer.text().contains("role"));

    let sim = Sim::new(json!({"usage": "never"}));
    let mut body = chat(1);
    body["stream_options"] = json!({"include_usage": true});
    assert!(!sim.ask(CHAT, &body).text().contains("usage"));
    body["stream"] = json!(false);
    assert!(!sim.ask(CHAT, &body).text().contains("usage"));
}

#[test]
fn events_are_cut() {
    for (cut, multibyte) in [("event", false), ("event", true), ("utf8", true)] {
        let sim = Sim::new(json!({"cut": cut, "multibyte": multibyte, "tokens": 6, "role": false}));
        let mut stream = sim.send(COMPLETIONS, None, &json!({"prompt": "x", "stream": true}));
        let mut bytes = Vec::new();
        let answer = loop {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).unwrap();
            bytes.extend_from_slice(&part[..length]);
            if let Some(answer) = parse(&bytes, false) {
                break answer;
            }
        };
        assert_eq!(answer.contents().len(), 6);
        assert_eq!(answer.contents().concat().is_ascii(), !multibyte);
        // each part is a chunk of its own
        let chunks = chunks(&bytes);
        assert_eq!(chunks.len(), 13, "six events in two, and the end");
        for (index, chunk) in chunks.iter().enumerate().take(12) {
            assert_eq!(chunk.ends_with(b"\n\n"), index % 2 == 1, "{index}");
            assert_eq!(std::str::from_utf8(chunk).is_err(), cut == "utf8" && chunk_cuts(chunk), "{index}");
        }
        assert_eq!(sim.log()[0]["chunk_ns"].as_array().unwrap().len(), 6);
    }
}

/// True if it begins or ends inside a character.
fn chunk_cuts(chunk: &[u8]) -> bool {
    chunk[0] & 0xC0 == 0x80 || chunk[chunk.len() - 1] >= 0xC0
}

fn chunks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let start = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut rest = &bytes[start..];
    let mut chunks = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return chunks;
        }
        chunks.push(rest[line + 2..line + 2 + size].to_vec());
        rest = &rest[line + 4 + size..];
    }
}

#[test]
fn what_comes_before_the_first_token() {
    for (with, head, role) in [
        (json!({}), false, false),
        (json!({"early_head": true}), true, false),
        (json!({"role": "early"}), true, true),
    ] {
        let mut all = json!({"faults": {"stall": 1.0}, "ttft_ms": 86_400_000});
        all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        let sim = Sim::new(all);
        let mut stream = sim.send(CHAT, None, &chat(2));
        let mut bytes = Vec::new();
        let enough = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            (!head || text.contains("\r\n\r\n")) && (!role || text.contains("assistant"))
        };
        while !enough(&bytes) {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).unwrap();
            bytes.extend_from_slice(&part[..length]);
        }
        sim.settle();
        drop(sim);
        // it may be reset: the server ended before it could answer
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!((text.starts_with("HTTP"), text.contains("assistant")), (head, role), "{with}");
    }
}

#[test]
fn a_buffering_server_sends_all_at_the_end() {
    let sim = Sim::new(json!({"buffer": true, "itl_ms": 3, "ttft_ms": 3}));
    assert_eq!(sim.chat(None, 5).contents().len(), 5);
    let log = sim.log();
    let stamps: Vec<u64> =
        log[0]["chunk_ns"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap()).collect();
    assert_eq!(stamps, [stamps[0]; 5]);
    assert!(stamps[0] - log[0]["start_ns"].as_u64().unwrap() >= 15_000_000);
}
