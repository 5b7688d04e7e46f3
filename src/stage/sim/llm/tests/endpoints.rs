//! What each endpoint answers, and how its connection goes on.

use std::fs;
use std::io::Write;

use serde_json::json;

use super::{CHAT, COMPLETIONS, Sim, chat, read, request};

#[test]
fn a_chat_is_streamed() {
    let sim = Sim::new(json!({"model": "m-1"}));
    let mut body = chat(3);
    body["stream_options"] = json!({"include_usage": true});
    let answer = sim.ask(CHAT, &body);
    assert!(answer.head.contains("content-type: text/event-stream"), "{}", answer.head);
    assert_eq!(answer.data().last(), Some(&"[DONE]"));
    let events = answer.events();
    assert_eq!(events.len(), 6, "role, three tokens, finish, usage");
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(events[1]["choices"][0]["delta"]["content"].as_str().unwrap().starts_with(' '));
    assert_eq!(
        events[4]["choices"][0],
        json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "length"})
    );
    assert_eq!(events[5]["choices"], json!([]));
    assert_eq!(events[5]["usage"], json!({"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}));
    for event in &events {
        assert_eq!(
            (&event["object"], &event["model"], &event["id"]),
            (&json!("chat.completion.chunk"), &json!("m-1"), &events[0]["id"])
        );
    }
    assert_eq!(sim.chat(None, 2).events().len(), 4, "usage is not asked for");
}

#[test]
fn answers_are_whole_where_no_stream_is_asked_for() {
    let sim = Sim::new(json!({"tokens": 4, "reasoning": 1}));
    let body = json!({"messages": [{"role": "user", "content": "a b"}]});
    let answer = sim.ask(CHAT, &body).json();
    assert_eq!(
        (&answer["object"], &answer["choices"][0]["finish_reason"]),
        (&json!("chat.completion"), &json!("stop"))
    );
    let message = &answer["choices"][0]["message"];
    let words = |name: &str| message[name].as_str().unwrap().split_whitespace().count();
    assert_eq!((words("reasoning_content"), words("content")), (1, 3));
    assert_eq!(answer["usage"]["total_tokens"], json!(6));

    let answer = sim.ask(COMPLETIONS, &json!({"prompt": "a b c", "max_tokens": 2})).json();
    assert_eq!(
        (&answer["object"], &answer["choices"][0]["finish_reason"]),
        (&json!("text_completion"), &json!("length"))
    );
    assert_eq!(answer["choices"][0]["text"].as_str().unwrap().split_whitespace().count(), 2);
    assert_eq!(answer["usage"]["prompt_tokens"], json!(3));

    let answer = sim.ask(COMPLETIONS, &json!({"prompt": [1, 2], "stream": true}));
    assert_eq!(answer.contents().len(), 4);
    assert_eq!(answer.events()[4]["choices"][0]["finish_reason"], json!("stop"));
}

#[test]
fn the_other_endpoints() {
    let sim = Sim::new(json!({"model": "m-1"}));
    let mut stream = sim.connect();
    let mut get = |path: &str| {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        read(&mut stream)
    };
    assert_eq!(get("/v1/models").json()["data"][0]["id"], json!("m-1"));
    assert_eq!(get("/health").status, 200);
    assert!(get("/version?x=1").json()["version"].is_string());
    for path in ["/v1/chat/completions", "/", "/v1/model"] {
        let answer = get(path);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!(404)), "{path}");
    }
    assert_eq!(sim.log().len(), 0, "only completions are logged");
}

#[test]
fn wrong_bodies_are_told() {
    let sim = Sim::new(json!({"faults": {"abort": 1.0}}));
    let mut stream = sim.connect();
    for body in ["{", "{}", "{\"messages\": [], \"max_tokens\": 0}", ""] {
        stream.write_all(request(CHAT, None, body).as_bytes()).unwrap();
        let answer = read(&mut stream);
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.json()["error"]["type"], json!("invalid_request_error"));
    }
    stream.write_all(b"nonsense\r\n\r\n").unwrap();
    let answer = read(&mut stream);
    assert_eq!(answer.status, 400);
    assert!(answer.head.contains("connection: close"));
    let log = sim.log();
    assert_eq!(log.len(), 4);
    assert!(log.iter().all(|line| line["status"] == 400 && line["fault"].is_null()));
}

#[test]
fn connections_are_kept_and_closed() {
    let sim = Sim::new(json!({}));
    let mut stream = sim.connect();
    let body = chat(2).to_string();
    let chunked = format!(
        "POST {CHAT} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        &body[..5],
        body.len() - 5,
        &body[5..]
    );
    for (round, text) in [request(CHAT, None, &body), chunked, request(CHAT, None, &body)].iter().enumerate()
    {
        // in pieces, as a network would
        let (head, tail) = text.split_at(text.len() / 2);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(tail.as_bytes()).unwrap();
        let answer = read(&mut stream);
        assert_eq!((answer.status, answer.contents().len()), (200, 2), "{round}");
    }
    let expecting = format!(
        "POST {CHAT} HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(expecting.as_bytes()).unwrap();
    let mut line = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    assert!(read(&mut stream).head.contains("connection: close"));
    assert_eq!(std::io::Read::read(&mut stream, &mut line).unwrap(), 0);
}

#[test]
fn replies_are_scripted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replies.jsonl");
    fs::write(
        &path,
        "{\"match\": \"again\", \"text\": \"yes \\\"sir\\\"\\nnow\"}\n{\"text\": \"abcdef\", \"tokens\": 3}\n",
    )
    .unwrap();
    let sim = Sim::new(json!({"replies": path, "tokens": 100, "reasoning": 2}));
    assert_eq!(sim.chat(None, 50).contents(), ["yes", " \"sir\"", "\nnow"]);
    assert_eq!(sim.chat(None, 2).contents(), ["yes", " \"sir\""]);
    let other = json!({"prompt": "other", "stream": true});
    assert_eq!(sim.ask(COMPLETIONS, &other).contents(), ["ab", "cd", "ef"]);
    assert_eq!(sim.ask(COMPLETIONS, &json!({"prompt": "x"})).json()["choices"][0]["text"], json!("abcdef"));
}

#[test]
fn many_threads_serve() {
    let sim = Sim::new(json!({"threads": 3}));
    for _ in 0..9 {
        assert_eq!(sim.chat(None, 2).contents().len(), 2);
    }
    assert_eq!(sim.log().len(), 9);
}
