//! What is asked: prompts become the bodies of requests, once, before the clock starts. Unaware of when they are sent.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::params::{Api, Params};
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
}

/// A prompt as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The prompt's: text or a whole number.
    pub(super) id: Value,
    pub(super) body: Vec<u8>,
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
            let body = body(&prompt, params).map_err(|message| fault(message.to_owned()))?;
            let body = serde_json::to_vec(&body).map_err(|e| fault(e.to_string()))?;
            jobs.push(Job { id, body });
        }
    }
    if jobs.is_empty() {
        return Err(StageError::new("input 'prompts' has no prompt")
            .hint("expected JSON Lines: {\"id\", \"messages\" or \"prompt\", \"max_tokens\"}; load.prompts makes such files"));
    }
    Ok(jobs)
}

fn body(prompt: &Prompt, params: &Params) -> Result<Value, &'static str> {
    let mut body = Map::new();
    body.insert("model".into(), json!(params.model));
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
    if let Some(most) = prompt.max_tokens.or(params.max_tokens) {
        body.insert("max_tokens".into(), json!(most));
    }
    body.insert("stream".into(), json!(params.stream));
    if params.stream {
        body.insert("stream_options".into(), json!({ "include_usage": true }));
    }
    body.extend(params.body.clone());
    Ok(Value::Object(body))
}
