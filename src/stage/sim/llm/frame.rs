//! The bytes of events and of whole answers; what does not change is made once. Unaware of sockets and of time.

use std::fmt::Write;

/// `created` of every answer: what is answered depends on no clock.
const CREATED: u64 = 1_700_000_000;

/// The id of an answer: 16 hex digits.
pub(super) type Id = [u8; 16];

/// All that is constant in the answers of one endpoint.
pub(super) struct Frames {
    chat: bool,
    /// JSON text.
    model: String,
    pub(super) role: Event,
    pub(super) reasoning: Event,
    pub(super) content: Event,
    /// Around the reason.
    pub(super) finish: Event,
    /// Around the usage.
    pub(super) usage: Event,
    pub(super) error: Vec<u8>,
    pub(super) done: Vec<u8>,
    pub(super) comment: Vec<u8>,
}

/// An event but for its id and its middle.
pub(super) struct Event {
    head: Vec<u8>,
    id_at: usize,
    tail: Vec<u8>,
}

impl Event {
    /// Writes what is before the middle.
    pub(super) fn open(&self, id: &Id, to: &mut Vec<u8>) {
        let at = to.len() + self.id_at;
        to.extend_from_slice(&self.head);
        to[at..at + id.len()].copy_from_slice(id);
    }

    /// Writes what is after the middle.
    pub(super) fn close(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.tail);
    }

    /// Writes the event.
    pub(super) fn put(&self, id: &Id, middle: &[u8], to: &mut Vec<u8>) {
        self.open(id, to);
        to.extend_from_slice(middle);
        self.close(to);
    }
}

impl Frames {
    /// For the model of this name; `crlf`: how lines end.
    pub(super) fn new(chat: bool, model: &str, crlf: bool) -> Self {
        let end = if crlf { "\r\n\r\n" } else { "\n\n" };
        let model = serde_json::Value::from(model).to_string();
        let event = |choice: &str, after: &str| {
            let (prefix, object) = names(chat, true);
            let before = format!("data: {{\"id\":\"{prefix}-");
            let middle = format!(
                "\",\"object\":\"{object}\",\"created\":{CREATED},\"model\":{model},\"choices\":[{choice}"
            );
            Event {
                id_at: before.len(),
                head: format!("{before}{:016}{middle}", 0).into_bytes(),
                tail: format!("{after}{end}").into_bytes(),
            }
        };
        let none = r#","logprobs":null,"finish_reason":null}]}"#;
        let reason = r#","logprobs":null,"finish_reason":""#;
        let delta =
            |name: &str| event(&format!("{{\"index\":0,\"delta\":{{\"{name}\":\""), &format!("\"}}{none}"));
        Self {
            chat,
            role: event(&format!(r#"{{"index":0,"delta":{{"role":"assistant","content":""}}{none}"#), ""),
            reasoning: delta("reasoning_content"),
            content: if chat {
                delta("content")
            } else {
                event("{\"index\":0,\"text\":\"", &format!("\"{none}"))
            },
            finish: if chat {
                event(&format!("{{\"index\":0,\"delta\":{{}}{reason}"), "\"}]}")
            } else {
                event(&format!("{{\"index\":0,\"text\":\"\"{reason}"), "\"}]}")
            },
            usage: event("],\"usage\":", "}"),
            error: format!("data: {}{end}", error(500, "a fault on demand")).into_bytes(),
            done: format!("data: [DONE]{end}").into_bytes(),
            comment: format!(": ping{end}").into_bytes(),
            model,
        }
    }

    /// A whole answer. `reasoning` and `content` stand in JSON strings as they are.
    pub(super) fn whole(
        &self,
        id: &Id,
        reasoning: &str,
        content: &str,
        finish: &str,
        usage: Option<&str>,
    ) -> String {
        let (prefix, object) = names(self.chat, false);
        let id = String::from_utf8_lossy(id);
        let mut text = String::with_capacity(400 + reasoning.len() + content.len());
        // writing to a string does not fail
        let _ = write!(
            text,
            "{{\"id\":\"{prefix}-{id}\",\"object\":\"{object}\",\"created\":{CREATED},\"model\":{},\"choices\":[{{\"index\":0,",
            self.model
        );
        let _ = match (self.chat, reasoning.is_empty()) {
            (false, _) => write!(text, "\"text\":\"{content}\""),
            (true, true) => {
                write!(text, "\"message\":{{\"role\":\"assistant\",\"content\":\"{content}\"}}")
            }
            (true, false) => write!(
                text,
                "\"message\":{{\"role\":\"assistant\",\"reasoning_content\":\"{reasoning}\",\"content\":\"{content}\"}}"
            ),
        };
        let _ = write!(text, ",\"logprobs\":null,\"finish_reason\":\"{finish}\"}}]");
        if let Some(usage) = usage {
            let _ = write!(text, ",\"usage\":{usage}");
        }
        text.push('}');
        text
    }
}

fn names(chat: bool, stream: bool) -> (&'static str, &'static str) {
    match (chat, stream) {
        (true, true) => ("chatcmpl", "chat.completion.chunk"),
        (true, false) => ("chatcmpl", "chat.completion"),
        (false, _) => ("cmpl", "text_completion"),
    }
}

/// The JSON of usage.
pub(super) fn usage(input: u64, output: u64) -> String {
    format!(
        "{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":{}}}",
        input + output
    )
}

/// The JSON of an error.
pub(super) fn error(status: u16, message: &str) -> String {
    let kind = match status {
        404 => "not_found_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let error = serde_json::json!({"message": message, "type": kind, "param": null, "code": status});
    serde_json::json!({ "error": error }).to_string()
}

/// The list of the one model.
pub(super) fn models(model: &str) -> String {
    let model = serde_json::json!({"id": model, "object": "model", "created": CREATED, "owned_by": "flow"});
    serde_json::json!({"object": "list", "data": [model]}).to_string()
}
