//! What `llm.load` is asked: parameters and their faults. Unaware of how a load is done.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::arrival::Arrival;
use super::conversation::Think;
use super::endpoint;
use super::network;
use super::steady::Trim;
use crate::api::ParamFault;
use crate::stage::metrics::rules::Rules;
use crate::stage::metrics::slo::Slo;

/// `with` of `llm.load`; times in seconds, rates per second.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Base URLs (`http://host:port` or `https://host`, with or without `/v1`), or one.
    pub(super) endpoints: Endpoints,
    /// The model that is asked for.
    pub(super) model: String,
    /// chat or completions.
    #[serde(default)]
    pub(super) api: Api,
    /// How many requests; prompts are taken in turn, a conversation counts as one. Default: each prompt once, unless a duration is given.
    pub(super) requests: Option<u64>,
    /// Requests are begun for so long.
    pub(super) duration: Option<f64>,
    /// When requests are sent.
    pub(super) arrival: Arrival,
    /// At most so many at once; what is due later waits, and the wait counts from the schedule. Default: no limit (open loop).
    pub(super) max_concurrency: Option<usize>,
    /// So many requests are sent before the clock starts; they are in no output.
    #[serde(default)]
    pub(super) warmup: u64,
    /// Seconds between an answer and the next turn of a conversation, where the turn does not say.
    #[serde(default)]
    pub(super) think: Think,
    /// When to give up.
    #[serde(default)]
    pub(super) timeouts: Limits,
    /// Further attempts after failures that may pass; each is a row. Default: none.
    #[serde(default)]
    pub(super) retry: Retry,
    /// Limits for goodput.
    pub(super) slo: Option<Slo>,
    /// Decides the schedule.
    #[serde(default)]
    pub(super) seed: u64,
    /// Tokens of an answer, for prompts that do not say.
    pub(super) max_tokens: Option<u64>,
    /// Which server gets a request.
    #[serde(default)]
    pub(super) dispatch: Dispatch,
    /// With `weighted`: one weight per endpoint.
    pub(super) weights: Option<Vec<f64>>,
    /// Ask for a stream.
    #[serde(default = "yes")]
    pub(super) stream: bool,
    /// Begins each x-request-id; default: `flow-` and eight digits that no other load has.
    pub(super) request_id: Option<String>,
    /// Keep the answers.
    #[serde(default)]
    pub(super) save_text: bool,
    /// What becomes of a result that the client spoiled.
    #[serde(default)]
    pub(super) on_client_bound: OnClientBound,
    /// What the metrics of the summary mean.
    #[serde(default)]
    pub(super) rules: Rules,
    /// Percentiles of the summary; default: those of the rule set.
    pub(super) percentiles: Option<Vec<f64>>,
    /// What is cut off at both ends for the part `trim` of the steady state. Default: 10 % each.
    #[serde(default)]
    pub(super) trim: Trim,
    /// Sent as `Authorization: Bearer KEY`: give a secret.
    pub(super) api_key: Option<String>,
    /// `http://HOST:PORT` of a proxy, or none. Default: what HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say, but not for addresses of this machine.
    pub(super) proxy: Option<String>,
    /// USER:PASSWORD for the proxy: give a secret.
    pub(super) proxy_auth: Option<String>,
    /// More fields of each request's head; a value may be a secret.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// More fields of each request's body, such as temperature or ignore_eos.
    #[serde(default)]
    pub(super) body: Map<String, Value>,
    /// Threads that send, each with connections of its own. Default: 1.
    pub(super) shards: Option<usize>,
}

/// The longest time that can be asked for, seconds.
pub(super) const LONGEST: f64 = 1e9;

fn yes() -> bool {
    true
}

/// One URL or many.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Endpoints {
    One(String),
    Many(Vec<String>),
}

impl Endpoints {
    pub(super) fn urls(&self) -> &[String] {
        match self {
            Self::One(url) => std::slice::from_ref(url),
            Self::Many(urls) => urls,
        }
    }
}

/// Which completions are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Api {
    /// `/v1/chat/completions`
    #[default]
    Chat,
    /// `/v1/completions`
    Completions,
}

impl Api {
    /// After the base URL.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
        }
    }
}

/// When to give up; null: never.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// Until a connection is there.
    pub(super) connect: Option<f64>,
    /// From the send to the first byte of the answer.
    pub(super) first_byte: Option<f64>,
    /// Between two pieces of an answer.
    pub(super) stall: Option<f64>,
    /// From the send to the end.
    pub(super) total: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Some(10.0), first_byte: Some(600.0), stall: Some(120.0), total: Some(3600.0) }
    }
}

/// Further attempts.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    /// At most so many after the first.
    pub(super) max: u32,
    /// Before the second attempt, doubled for each further one, up to `longest`, each drawn between half and all of it. Retry-After goes
    /// before.
    pub(super) backoff: f64,
    /// The longest wait: a request that is to come back later (Retry-After) has failed.
    pub(super) longest: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max: 0, backoff: 0.5, longest: 60.0 }
    }
}

/// Which server gets a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Dispatch {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest requests of this load in flight.
    LeastInFlight,
    /// Each slot keeps its server: a slow one gets fewer requests (closed loop); in open loop as round_robin.
    Pinned,
    /// By `weights`.
    Weighted,
}

/// What becomes of a result that the client spoiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnClientBound {
    /// The stage fails.
    #[default]
    Fail,
    /// The summary says so.
    Mark,
}

impl Params {
    /// What does not fit. URLs that are not known yet (`${services.x.url}`) are looked at when the stage runs.
    pub(super) fn check(&self) -> Result<(), ParamFault> {
        let fault =
            |path: &str, message: &str| Err(ParamFault { path: path.into(), message: message.into() });
        let urls = self.endpoints.urls();
        if urls.is_empty() {
            return fault("endpoints", "expected at least one URL");
        }
        for (n, text) in urls.iter().enumerate().filter(|(_, text)| !text.contains("${")) {
            if let Err((message, hint)) = endpoint::url(text) {
                return fault(&format!("endpoints[{n}]"), &format!("{message} ({hint})"));
            }
        }
        let positive = |value: Option<f64>| value.is_none_or(|value| value > 0.0 && value <= LONGEST);
        if self.requests == Some(0) {
            return fault("requests", "expected at least 1");
        }
        if !positive(self.duration) {
            return fault("duration", "expected a number of seconds above 0, at most 1e9");
        }
        if self.max_concurrency == Some(0) {
            return fault("max_concurrency", "expected at least 1");
        }
        if self.shards.is_some_and(|shards| !(1..=256).contains(&shards)) {
            return fault("shards", "expected 1 to 256");
        }
        self.arrival.check()?;
        let limits = &self.timeouts;
        for (name, limit) in [
            ("connect", limits.connect),
            ("first_byte", limits.first_byte),
            ("stall", limits.stall),
            ("total", limits.total),
        ] {
            if !positive(limit) {
                return fault(
                    &format!("timeouts.{name}"),
                    "expected a number of seconds above 0, at most 1e9, or null",
                );
            }
        }
        for (name, wait) in [("backoff", self.retry.backoff), ("longest", self.retry.longest)] {
            if self.retry.max > 0 && !positive(Some(wait)) {
                return fault(&format!("retry.{name}"), "expected a number of seconds above 0, at most 1e9");
            }
        }
        self.slo.map_or(Ok(()), |slo| slo.check())?;
        self.trim.check()?;
        self.think.check()?;
        match (&self.weights, self.dispatch) {
            (None, Dispatch::Weighted) => return fault("weights", "expected one weight per endpoint"),
            (Some(_), other) if other != Dispatch::Weighted => {
                return fault("weights", "goes with dispatch weighted only");
            }
            (Some(weights), _) if weights.len() != urls.len() => {
                return fault("weights", "expected one weight per endpoint");
            }
            (Some(weights), _) if weights.iter().any(|weight| !(*weight > 0.0 && weight.is_finite())) => {
                return fault("weights", "a weight is a number above 0");
            }
            _ => {}
        }
        for percent in self.percentiles.iter().flatten() {
            if !(0.0..=100.0).contains(percent) {
                return fault("percentiles", &format!("expected 0 to 100, found {percent}"));
            }
        }
        for (name, value) in &self.headers {
            let named = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b));
            let own =
                ["host", "content-length", "content-type", "transfer-encoding", "connection", "x-request-id"];
            if !named || own.contains(&name.to_ascii_lowercase().as_str()) {
                return fault(
                    &format!("headers.{name}"),
                    "is no name of a header, or one that flow sets itself",
                );
            }
            if value.bytes().any(|b| b < b' ' && b != b'\t') {
                return fault(&format!("headers.{name}"), "a value is one line");
            }
        }
        if self.api_key.as_ref().is_some_and(|key| key.bytes().any(|b| b < b' ')) {
            return fault("api_key", "a key is one line");
        }
        match (self.proxy.as_deref(), &self.proxy_auth) {
            (Some("none") | None, Some(_)) => {
                return fault("proxy_auth", "goes with the URL of a proxy only");
            }
            (Some(text), _) if text != "none" && !text.contains("${") => {
                if let Err((message, hint)) = network::proxy_url(text) {
                    return fault("proxy", &format!("{message} ({hint})"));
                }
            }
            _ => {}
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        if self.request_id.as_ref().is_some_and(|id| id.is_empty() || !id.bytes().all(plain)) {
            return fault("request_id", "expected letters, digits, - _ . and :");
        }
        for own in ["model", "messages", "prompt", "stream", "stream_options"] {
            if self.body.contains_key(own) {
                return fault(&format!("body.{own}"), "is set by flow itself");
            }
        }
        Ok(())
    }
}
