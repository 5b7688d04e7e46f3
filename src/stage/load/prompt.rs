//! What is asked: prompts become the bodies of requests, once, before the clock starts. Unaware of when they are sent.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conversation::{Later, MOST_TURNS, Turn};
use super::params::{Api, LONGEST, Params};
use crate::api::{InputFile, StageError};
use crate::stage::table::jsonl::JsonLines;

/// A line of a file of prompts: `messages` or `prompt`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prompt {
    /// Unique in the file.
    pub(super) id: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) messages: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) prompt: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_tokens: Option<u64>,
    /// A conversation: what the user says in turn, after `messages` if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) turns: Option<Vec<Turn>>,
}

/// A prompt as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The prompt's: text or a whole number.
    pub(super) id: Value,
    /// Of the first turn.
    pub(super) body: Vec<u8>,
    /// The start of `body` up to the end of its messages, without the bracket: what later turns begin with.
    pub(super) opening: Vec<u8>,
    /// What is said after the first answer.
    pub(super) later: Vec<Later>,
}

/// Reads all prompts.
pub(super) fn jobs(files: &[InputFile], params: &Params) -> Result<Vec<Job>, StageError> {
    let (mut jobs, mut ids) = (Vec::new(), HashSet::new());
    for file in files {
        let mut lines = JsonLines::open(file)?;
        while let Some(prompt) = lines.value::<Prompt>()? {
            let fault =
                |message: String| StageError::new(format!("{}:{}: {message}", file.name, lines.line()));
            let id = match &prompt.id {
                Value::String(_) => prompt.id.clone(),
                Value::Number(id) if id.is_i64() => prompt.id.clone(),
                other => return Err(fault(format!("'id' is {other}, expected text or a whole number"))),
            };
            if !ids.insert(id.clone()) {
                return Err(
                    fault(format!("the id {id} comes twice")).hint("ids tell requests apart in every table")
                );
            }
            let job = match &prompt.turns {
                None => body(&prompt, params).map(|body| Job {
                    id,
                    body: Value::Object(body).to_string().into_bytes(),
                    opening: Vec::new(),
                    later: Vec::new(),
                }),
                Some(turns) => conversation(id, &prompt, turns, params),
            };
            jobs.push(job.map_err(|message| fault(message.to_owned()))?);
        }
    }
    if jobs.is_empty() {
        return Err(StageError::new("input 'prompts' has no prompt")
            .hint("expected JSON Lines: {\"id\", \"messages\", \"prompt\" or \"turns\", \"max_tokens\"}; load.prompts makes such files"));
    }
    Ok(jobs)
}

/// The bodies of a conversation: the messages stand first in each, so that one begins as the one before did.
fn conversation(id: Value, prompt: &Prompt, turns: &[Turn], params: &Params) -> Result<Job, &'static str> {
    if params.api != Api::Chat {
        return Err("has 'turns', which go with api chat");
    }
    if prompt.prompt.is_some() {
        return Err(
            "has both 'turns' and 'prompt' (expected 'turns', after 'messages' if something comes before)",
        );
    }
    if turns.is_empty() || turns.len() > MOST_TURNS {
        return Err("'turns' is empty or has more than 10000 entries");
    }
    if turns.iter().any(|turn| turn.think.is_some_and(|think| !(0.0..=LONGEST).contains(&think))) {
        return Err("a turn's 'think' is no number of seconds from 0 to 1e9");
    }
    let message = |turn: &Turn| json!({ "role": "user", "content": turn.content }).to_string();
    let before = prompt.messages.iter().flatten().map(Value::to_string);
    let messages: Vec<String> = before.chain([message(&turns[0])]).collect();
    let opening = format!("{{\"messages\":[{}", messages.join(","));
    // what follows the messages: the rest of the body, as an object's members
    let after = |turn: &Turn| {
        let most = turn.max_tokens.or(prompt.max_tokens).or(params.max_tokens);
        let rest = Value::Object(others(most, params)).to_string();
        format!("],{}", rest.trim_start_matches('{')).into_bytes()
    };
    let later = turns[1..].iter().map(|turn| Later {
        message: message(turn).into_bytes(),
        after: after(turn),
        think: turn.think,
    });
    Ok(Job {
        id,
        body: [opening.as_bytes(), &after(&turns[0])].concat(),
        opening: opening.into_bytes(),
        later: later.collect(),
    })
}

fn body(prompt: &Prompt, params: &Params) -> Result<Map<String, Value>, &'static str> {
    let mut body = Map::from_iter([("model".to_owned(), json!(params.model))]);
    match (params.api, &prompt.messages, &prompt.prompt) {
        (_, Some(_), Some(_)) => return Err("has both 'messages' and 'prompt' (expected one of them)"),
        (_, None, None) => return Err("has neither 'messages' nor 'prompt'"),
        (Api::Chat, Some(messages), _) => body.insert("messages".into(), json!(messages)),
        (Api::Chat, None, Some(Value::String(text))) => {
            body.insert("messages".into(), json!([{ "role": "user", "content": text }]))
        }
        (Api::Chat, ..) => return Err("'prompt' is no text: lists of tokens go with api completions"),
        (Api::Completions, None, Some(prompt)) => body.insert("prompt".into(), prompt.clone()),
        (Api::Completions, ..) => return Err("has 'messages', which go with api chat"),
    };
    body.extend(others(prompt.max_tokens.or(params.max_tokens), params));
    Ok(body)
}

/// The members of a body beside what is asked.
fn others(most: Option<u64>, params: &Params) -> Map<String, Value> {
    let mut body = Map::from_iter([("model".to_owned(), json!(params.model))]);
    if let Some(most) = most {
        body.insert("max_tokens".into(), json!(most));
    }
    body.insert("stream".into(), json!(params.stream));
    if params.stream {
        body.insert("stream_options".into(), json!({ "include_usage": true }));
    }
    body.extend(params.body.clone());
    body
}
