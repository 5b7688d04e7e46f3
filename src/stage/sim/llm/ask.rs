//! What the body of a request asks for. Unaware of HTTP and of what is answered.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::params::MOST_TOKENS;

/// A request for a completion.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) stream: bool,
    /// The most tokens of the answer.
    pub(super) most: Option<u64>,
    /// Usage is asked for.
    pub(super) usage: bool,
    texts: Vec<Text<'a>>,
}

/// The text of a message, or a prompt, still as JSON.
#[derive(Debug)]
struct Text<'a> {
    user: bool,
    json: &'a RawValue,
}

#[derive(Deserialize)]
struct Body<'a> {
    stream: Option<bool>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    stream_options: Option<StreamOptions>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

impl<'a> Ask<'a> {
    /// Reads a body. The error is a text for the client.
    pub(super) fn read(body: &'a [u8], chat: bool) -> Result<Self, String> {
        let body: Body =
            serde_json::from_slice(body).map_err(|e| format!("the body is not a request: {e}"))?;
        let most = body.max_completion_tokens.or(body.max_tokens);
        if let Some(most) = most.filter(|most| !(1..=MOST_TOKENS).contains(most)) {
            return Err(format!("max_tokens is {most} (expected 1 to {MOST_TOKENS})"));
        }
        let texts = if chat {
            let messages = body.messages.ok_or("messages is missing")?;
            if messages.is_empty() {
                return Err("messages is empty".to_owned());
            }
            let texts = messages
                .into_iter()
                .filter_map(|message| Some(Text { user: message.role == "user", json: message.content? }));
            texts.collect()
        } else {
            vec![Text { user: true, json: body.prompt.ok_or("prompt is missing")? }]
        };
        Ok(Self {
            stream: body.stream.unwrap_or(false),
            most,
            usage: body.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            texts,
        })
    }

    /// The last message of the user, or the prompt.
    pub(super) fn prompt(&self) -> Cow<'a, str> {
        let text = self.texts.iter().rev().find(|text| text.user);
        text.map_or(Cow::Borrowed(""), |text| plain(text.json))
    }

    /// The tokens of the input: its words, or the numbers of a prompt of token ids.
    pub(super) fn input_tokens(&self) -> u64 {
        self.texts
            .iter()
            .map(|text| match text.json.get().as_bytes().first() {
                Some(b'"') => plain(text.json).split_whitespace().count() as u64,
                _ => serde_json::from_str(text.json.get()).map_or(0, |value| count(&value)),
            })
            .sum()
    }
}

fn plain(json: &RawValue) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Plain<'a>(#[serde(borrow)] Cow<'a, str>);
    match serde_json::from_str::<Plain<'_>>(json.get()) {
        Ok(text) => text.0,
        Err(_) => {
            let mut all = String::new();
            gather(&serde_json::from_str(json.get()).unwrap_or(Value::Null), &mut all);
            Cow::Owned(all)
        }
    }
}

/// The texts of a list of prompts or of content parts.
fn gather(value: &Value, all: &mut String) {
    match value {
        Value::String(text) => all.push_str(text),
        Value::Array(items) => items.iter().for_each(|item| gather(item, all)),
        Value::Object(part) => {
            if let Some(text) = part.get("text") {
                gather(text, all);
            }
        }
        _ => {}
    }
}

fn count(value: &Value) -> u64 {
    match value {
        Value::Number(_) => 1,
        Value::String(text) => text.split_whitespace().count() as u64,
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(part) => part.get("text").map_or(0, count),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let chat = br#"{"model": "m", "stream": true, "max_tokens": 9, "max_completion_tokens": 5, "stream_options": {"include_usage": true},
            "messages": [{"role": "system", "content": "a b"}, {"role": "user", "content": "c\n\"d\" e"},
            {"role": "user", "content": [{"type": "text", "text": "last one"}, {"type": "image_url"}]}, {"role": "assistant", "content": null}]}"#;
        let ask = Ask::read(chat, true).unwrap();
        assert_eq!((ask.stream, ask.most, ask.usage), (true, Some(5), true));
        assert_eq!((ask.prompt().as_ref(), ask.input_tokens()), ("last one", 7));

        for (prompt, text, tokens) in [
            ("\"a b c\"", "a b c", 3),
            ("[1, 2, 3, 4]", "", 4),
            ("[\"a b\", \"c\"]", "a bc", 3),
            ("[[1], [2]]", "", 2),
        ] {
            let body = format!("{{\"prompt\": {prompt}}}");
            let ask = Ask::read(body.as_bytes(), false).unwrap();
            assert_eq!((ask.prompt().as_ref(), ask.input_tokens()), (text, tokens), "{prompt}");
            assert_eq!((ask.stream, ask.most, ask.usage), (false, None, false));
        }
        for (body, chat) in [
            ("{", true),
            ("[]", true),
            ("{}", true),
            ("{\"messages\": []}", true),
            ("{\"messages\": []}", false),
            ("{\"prompt\": \"a\", \"max_tokens\": 0}", false),
            ("{\"prompt\": \"a\", \"max_tokens\": 99999999999}", false),
            ("{\"prompt\": \"a\", \"stream\": \"yes\"}", false),
        ] {
            assert!(Ask::read(body.as_bytes(), chat).is_err(), "{body}");
        }
    }
}
