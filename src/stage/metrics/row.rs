//! One request as it was recorded: what all metrics come from. Unaware of what is computed of it.

mod database;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::measured::Origin;
use crate::api::{InputFile, StageError};
use crate::stage::sqlite;
use crate::stage::table::jsonl::JsonLines;

/// More tokens no request has.
pub const MOST_TOKENS: u64 = 1 << 40;

/// What an event of a stream was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The head of the response.
    Head,
    /// A chunk with choices and without text: the role, an empty delta, the reason of the end.
    Role,
    /// Text of the reasoning.
    Reasoning,
    /// Text of the answer, or a tool call.
    Content,
    /// The chunk without choices that counts the tokens.
    Usage,
    /// `[DONE]`, or the end of the body.
    Done,
    /// An error within the stream.
    Error,
    /// Some chunk of data: what it was is not recorded.
    Data,
}

/// A moment of a stream: seconds on the clock of the row, tokens if they were counted, kind.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Event(pub f64, pub Option<u64>, pub Kind);

/// A request.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Row {
    /// Its id; unique where `uuid` is not given.
    pub id: Value,
    /// Just before it was sent, seconds on a clock that all rows share; `None` if it never was.
    pub send: Option<f64>,
    /// When it was over, if that is later than the last event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<f64>,
    /// In the order of their arrival.
    pub events: Vec<Event>,
    /// Tokens of the prompt.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
    /// Whether the client took it for one.
    pub success: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The pod that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The data set that it belongs to (AISBench).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_abbr: Option<String>,
    /// Unique (AISBench).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// File and line that it was read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

impl Row {
    /// What is wrong with the times, if anything.
    fn fault(&self) -> Option<String> {
        if self.input_tokens.max(self.output_tokens).is_some_and(|tokens| tokens > MOST_TOKENS) {
            return Some(format!("more than {MOST_TOKENS} tokens"));
        }
        let times = || self.send.into_iter().chain(self.events.iter().map(|event| event.0));
        if times().chain(self.end).any(|t| !t.is_finite()) {
            return Some("a time is no finite number".to_owned());
        }
        if self.success && self.send.is_none() {
            return Some("'send' is missing, and 'success' is true".to_owned());
        }
        let late = times().zip(times().skip(1)).position(|(before, after)| after < before);
        if let Some(at) = late {
            return Some(format!("event {at} (from 0) lies before what precedes it"));
        }
        match (self.end, times().last()) {
            (Some(end), Some(last)) if end < last => Some("'end' lies before the last event".to_owned()),
            _ => None,
        }
    }
}

/// Reads rows: JSON Lines, or a SQLite database with a table `requests` whose columns are the members, `events` as JSON text.
pub fn read(file: &InputFile) -> Result<Vec<Row>, StageError> {
    read_from(file, Origin::Send)
}

/// As [`read`]; times of `llm.load` count from `origin`.
pub fn read_from(file: &InputFile, origin: Origin) -> Result<Vec<Row>, StageError> {
    if sqlite::is_database(&file.path) {
        return database::read(file, origin);
    }
    let mut lines = JsonLines::open(file)?;
    let mut rows = Vec::new();
    while let Some(row) = lines.value::<Row>()? {
        if let Some(fault) = row.fault() {
            return Err(StageError::new(format!("{}:{}: {fault}", file.name, lines.line())));
        }
        rows.push(row);
    }
    Ok(rows)
}
