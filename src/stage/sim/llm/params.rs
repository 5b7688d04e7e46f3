//! The parameters of `sim.llm`. Unaware of sockets.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::Faults;
use super::quantity::Quantity;
use crate::api::{ParamFault, parse_params};

/// The most tokens of one answer.
pub(super) const MOST_TOKENS: u64 = 1_000_000;

const DAY_MS: f64 = 86_400_000.0;

/// `with` of `sim.llm`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// The name of the model in answers. A request may ask for any model.
    #[serde(default = "model")]
    pub(super) model: String,
    /// Milliseconds from the start of a request's generation to its first token: a number, or {"dist": "uniform", "low", "high"},
    /// {"dist": "exp", "mean"}, {"dist": "lognormal", "mean", "sigma"}.
    #[serde(default = "zero")]
    pub(super) ttft_ms: Quantity,
    /// Milliseconds from one token to the next, drawn for each token.
    #[serde(default = "zero")]
    pub(super) itl_ms: Quantity,
    /// How many tokens an answer has. A request's max_tokens or max_completion_tokens caps it; without this parameter it says the
    /// number. Default without either: 16.
    #[serde(default)]
    pub(super) tokens: Option<Quantity>,
    /// How many requests are generated at once; the others wait in the order of their arrival. Default: no limit.
    #[serde(default)]
    pub(super) slots: Option<usize>,
    /// What requests that are generated at the same time cost each other.
    #[serde(default)]
    pub(super) batch: Option<Batch>,
    /// Tokens in each event of a stream; an event is due when its last token is.
    #[serde(default = "one")]
    pub(super) chunk: u64,
    /// The last event of a stream with usage and no choices: "asked" (by stream_options.include_usage), "always" (or true), "never" (or
    /// false; then whole answers have none either).
    #[serde(default = "asked")]
    pub(super) usage: UsageParam,
    /// Before the first token of a chat stream an event with the role alone: true, false, or "early" (at once, not with the first token).
    #[serde(default = "role")]
    pub(super) role: RoleParam,
    /// How many tokens of a generated chat answer come first, as reasoning_content.
    #[serde(default)]
    pub(super) reasoning: u64,
    /// What is drawn depends on it, on the request's x-request-id (or its number, if it has none) and on its body.
    #[serde(default)]
    pub(super) seed: u64,
    /// A JSONL file of scripted replies: {"match": part of the last user message or of the prompt, "text", "tokens": in how many
    /// pieces}. The first whose match fits is given; those without match are given in turn. Without tokens: one per word.
    #[serde(default)]
    pub(super) replies: Option<PathBuf>,
    /// Lines of a stream end with CRLF.
    #[serde(default)]
    pub(super) crlf: bool,
    /// `: ping` comments between the events.
    #[serde(default)]
    pub(super) comments: bool,
    /// Every event of a token is sent in two writes: cut in its middle, or inside its first character of several bytes.
    #[serde(default)]
    pub(super) cut: Option<Cut>,
    /// Generated text has characters of several bytes.
    #[serde(default)]
    pub(super) multibyte: bool,
    /// `data: [DONE]` ends a stream.
    #[serde(default = "yes")]
    pub(super) done: bool,
    /// The head of a stream is sent as soon as the request was read, not with the first token.
    #[serde(default)]
    pub(super) early_head: bool,
    /// All events of a stream are sent when the last one is due.
    #[serde(default)]
    pub(super) buffer: bool,
    /// Windows in which the server neither reads nor writes.
    #[serde(default)]
    pub(super) pauses: Vec<PauseParam>,
    /// The share of the requests (0 to 1) that each fault hits, drawn by seed and number of the request.
    #[serde(default)]
    pub(super) faults: Faults,
    /// A file that gets one JSON line per request for a completion: recv0_ns (first byte read), recv_ns (last byte read), start_ns
    /// (generation began), first_ns and last_ns (just after the write that held the first and the last token), end_ns, chunk_ns (just
    /// before the write of each token event), xid (its x-request-id), status (null: nothing was sent), fault, tokens (sent), inflight
    /// (requests being answered at its arrival, this one included), stream; where the client left early, closed and closed_ns. Times are
    /// nanoseconds of CLOCK_MONOTONIC.
    #[serde(default)]
    pub(super) log: Option<PathBuf>,
    /// Threads that serve.
    #[serde(default = "one")]
    pub(super) threads: u64,
    /// The port on 127.0.0.1. Default: a free one.
    #[serde(default)]
    pub(super) port: Option<u16>,
}

/// What requests that are generated at the same time cost each other.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    /// Added to itl_ms for every other request that is being generated.
    pub(super) itl_ms_per_request: f64,
}

/// When usage is sent.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected \"asked\", \"always\", \"never\", true or false")]
pub(super) enum UsageParam {
    /// Always or never.
    Flag(bool),
    /// By name.
    Named(Usage),
}

/// When usage is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Usage {
    /// To those who ask for it.
    Asked,
    /// To all.
    Always,
    /// To none.
    Never,
}

/// Whether and when the event with the role is sent.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected true, false or \"early\"")]
pub(super) enum RoleParam {
    /// With the first token, or not.
    Flag(bool),
    /// At once.
    Named(Early),
}

/// At once.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Early {
    /// At once.
    Early,
}

/// Where an event is cut in two writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cut {
    /// In its middle.
    Event,
    /// After the first byte of its first character of several bytes; an event without one is not cut.
    Utf8,
}

/// A window in which the server stands still.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseParam {
    /// Seconds after the first request.
    pub(super) at: f64,
    /// Seconds.
    #[serde(rename = "for")]
    pub(super) length: f64,
}

impl UsageParam {
    /// The rule.
    pub(super) fn rule(self) -> Usage {
        match self {
            Self::Flag(true) => Usage::Always,
            Self::Flag(false) => Usage::Never,
            Self::Named(rule) => rule,
        }
    }
}

fn model() -> String {
    "sim".to_owned()
}

fn zero() -> Quantity {
    Quantity::Fixed(0.0)
}

fn one() -> u64 {
    1
}

fn yes() -> bool {
    true
}

fn asked() -> UsageParam {
    UsageParam::Named(Usage::Asked)
}

fn role() -> RoleParam {
    RoleParam::Flag(true)
}

/// Reads and checks the parameters.
pub(super) fn read(with: &Value) -> Result<Params, ParamFault> {
    let params: Params = parse_params(with)?;
    let wrong = |path: &str, message: String| Err(ParamFault { path: path.to_owned(), message });
    if params.model.is_empty() {
        return wrong("model", "is empty".to_owned());
    }
    for (path, quantity) in [("ttft_ms", &params.ttft_ms), ("itl_ms", &params.itl_ms)] {
        if let Some(fault) = quantity.fault(0.0, DAY_MS) {
            return wrong(path, fault);
        }
    }
    if let Some(fault) = params.tokens.and_then(|tokens| tokens.fault(1.0, MOST_TOKENS as f64)) {
        return wrong("tokens", fault);
    }
    if let Some(slots) = params.slots.filter(|slots| !(1..=1_000_000).contains(slots)) {
        return wrong("slots", format!("is {slots} (expected 1 to 1000000)"));
    }
    if let Some(batch) = params.batch.filter(|batch| !(0.0..=DAY_MS).contains(&batch.itl_ms_per_request)) {
        let message = format!("is {} (expected 0 to {DAY_MS})", batch.itl_ms_per_request);
        return wrong("batch.itl_ms_per_request", message);
    }
    if !(1..=MOST_TOKENS).contains(&params.chunk) {
        return wrong("chunk", format!("is {} (expected 1 to {MOST_TOKENS})", params.chunk));
    }
    if !(1..=64).contains(&params.threads) {
        return wrong("threads", format!("is {} (expected 1 to 64)", params.threads));
    }
    if params.cut == Some(Cut::Utf8) && !params.multibyte && params.replies.is_none() {
        return wrong(
            "cut",
            "is utf8, but no text has such characters (set multibyte or replies)".to_owned(),
        );
    }
    if params.cut.is_some() && params.buffer {
        return wrong("cut", "does not go with buffer".to_owned());
    }
    for (index, pause) in params.pauses.iter().enumerate() {
        for (field, seconds) in [("at", pause.at), ("for", pause.length)] {
            if !(0.0..=86_400.0).contains(&seconds) {
                return wrong(
                    &format!("pauses[{index}].{field}"),
                    format!("is {seconds} (expected 0 to 86400 seconds)"),
                );
            }
        }
    }
    if let Some((path, message)) = params.faults.fault() {
        return wrong(&path, message);
    }
    Ok(params)
}

/// Checks the parameters before anything runs; the file of the replies is read at start.
pub(super) fn check(with: &Value) -> Result<(), ParamFault> {
    read(with).map(drop)
}
