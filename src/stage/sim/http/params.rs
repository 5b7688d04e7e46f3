//! The parameters of `sim.http`. Unaware of sockets.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{ParamFault, parse_params};

/// `with` of `sim.http`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The directory whose files are served.
    pub dir: PathBuf,
    /// What goes wrong, and where. For a request, the first entry that matches and is not used up applies.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// A file that gets one JSON line per request: t (Unix time, seconds), method, path, status, bytes (of the body as sent),
    /// conditional, in_flight (requests being answered, this one included).
    #[serde(default)]
    pub access_log: Option<PathBuf>,
    /// The port on 127.0.0.1. Default: a free one.
    #[serde(default)]
    pub port: Option<u16>,
}

/// One fault.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Glob on the path, with or without its leading `/`; `*` matches `/` too.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Answer with this status (300 to 599) instead.
    #[serde(default)]
    pub status: Option<u16>,
    /// Answer later by this many milliseconds.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// Send the whole answer's head, at most this many bytes of the body (never all), then cut the connection. Conditions are ignored.
    #[serde(default)]
    pub cut_after: Option<usize>,
    /// How many requests it hits. Default: all.
    #[serde(default)]
    pub times: Option<u64>,
    /// With `status`: the Retry-After header, in seconds or as an HTTP date.
    #[serde(default)]
    pub retry_after: Option<RetryAfter>,
}

/// The value of a Retry-After header.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RetryAfter {
    /// Seconds.
    Seconds(u64),
    /// As it stands.
    Text(String),
}

/// Reads and checks the parameters.
pub(super) fn read(with: &Value) -> Result<Params, ParamFault> {
    let params: Params = parse_params(with)?;
    for (index, fault) in params.faults.iter().enumerate() {
        let wrong =
            |field: &str, message: String| ParamFault { path: format!("faults[{index}]{field}"), message };
        globset::Glob::new(&fault.pattern)
            .map_err(|e| wrong(".match", format!("is not a pattern: {}", e.kind())))?;
        if fault.status.is_none() && fault.delay_ms.is_none() && fault.cut_after.is_none() {
            return Err(wrong("", "does nothing (expected status, delay_ms or cut_after)".to_owned()));
        }
        if fault.status.is_some() && fault.cut_after.is_some() {
            return Err(wrong("", "has both status and cut_after (expected one of them)".to_owned()));
        }
        if let Some(status) = fault.status.filter(|status| !(300..=599).contains(status)) {
            return Err(wrong(".status", format!("is {status} (expected 300 to 599)")));
        }
        if fault.retry_after.is_some() && fault.status.is_none() {
            return Err(wrong(".retry_after", "goes with status only".to_owned()));
        }
    }
    Ok(params)
}

/// Checks the parameters before anything runs; whether the directory is there is seen at start.
pub(super) fn check(with: &Value) -> Result<(), ParamFault> {
    read(with).map(drop)
}
