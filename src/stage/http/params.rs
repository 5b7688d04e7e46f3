//! The parameters of `http.fetch` and what is wrong with them. Unaware of the network.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serializer};

use crate::api::ParamFault;
use crate::base::clock::parse_duration;

/// Headers that the stage sets itself, with what to use instead.
const OWN_HEADERS: [(&str, &str); 7] = [
    ("user-agent", "use the parameter 'user_agent'"),
    ("if-none-match", "the stage validates by itself (policy validate)"),
    ("if-modified-since", "the stage validates by itself (policy validate)"),
    ("range", "a body is always fetched whole"),
    ("accept-encoding", "the stage asks for gzip and unpacks it"),
    ("content-length", "a GET request has no body"),
    ("transfer-encoding", "a GET request has no body"),
];

/// `with` of `http.fetch`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// What to GET: an http or https URL.
    pub url: String,
    /// Further request headers. Their values are never logged; after a redirect to another origin they are not sent.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What a good body is; a body that is not is a failure.
    #[serde(default)]
    pub expect: Expect,
    /// How long to wait.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How hard one server (scheme, host, port) may be pressed by the whole process.
    #[serde(default)]
    pub per_host: PerHost,
    /// The User-Agent header. Default: `flow/<version>`.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// Go where the server redirects to, at most 10 times. Default: true.
    #[serde(default = "yes")]
    pub follow_redirects: bool,
}

/// What a good body is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The body is one JSON document. Default: false.
    #[serde(default)]
    pub json: bool,
    /// The body has at least this many bytes, after unpacking.
    #[serde(default)]
    pub min_bytes: u64,
    /// The media type of the answer, without parameters, e.g. `application/json`.
    #[serde(default)]
    pub content_type: Option<String>,
}

/// How long to wait: duration texts such as `500ms`, `30s`, `5m`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// For a connection, TLS included. Default: 10s.
    #[serde(deserialize_with = "duration", serialize_with = "duration_text")]
    #[schemars(with = "String")]
    pub connect: Duration,
    /// For one attempt as a whole, from the moment the server's turn has come. Default: 10m.
    #[serde(deserialize_with = "duration", serialize_with = "duration_text")]
    #[schemars(with = "String")]
    pub total: Duration,
    /// Without a byte arriving. Default: 60s.
    #[serde(deserialize_with = "duration", serialize_with = "duration_text")]
    #[schemars(with = "String")]
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            total: Duration::from_secs(600),
            idle: Duration::from_secs(60),
        }
    }
}

/// How hard one server may be pressed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PerHost {
    /// Requests under way at the same time, at least 1. Default: 6.
    pub connections: usize,
    /// Least time between the starts of two requests. Default: 0ms.
    #[serde(deserialize_with = "duration", serialize_with = "duration_text")]
    #[schemars(with = "String")]
    pub min_interval: Duration,
}

impl Default for PerHost {
    fn default() -> Self {
        Self { connections: 6, min_interval: Duration::ZERO }
    }
}

fn yes() -> bool {
    true
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// As one would write it: what the schema shows as the default.
fn duration_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let text = match (duration.as_secs(), duration.subsec_millis()) {
        (0, millis) => format!("{millis}ms"),
        (seconds, 0) if seconds >= 120 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{}ms", seconds * 1000 + u64::from(millis)),
    };
    serializer.serialize_str(&text)
}

impl Params {
    /// Finds what can be found before late references and secrets are filled in.
    pub(super) fn check(&self) -> Result<(), ParamFault> {
        if self.url.is_empty() {
            return Err(fault("url", "is empty (expected an http or https URL)"));
        }
        let late = self.url.contains("${");
        if let Some((scheme, _)) = self.url.split_once("://").filter(|_| !late) {
            match scheme {
                "http" | "https" => drop(self.url()?),
                other => {
                    return Err(fault("url", format!("has the scheme '{other}' (expected http or https)")));
                }
            }
        }
        if self.per_host.connections == 0 {
            return Err(fault("per_host.connections", "is 0 (expected at least 1)"));
        }
        for (name, limit) in [
            ("timeouts.connect", self.timeouts.connect),
            ("timeouts.total", self.timeouts.total),
            ("timeouts.idle", self.timeouts.idle),
        ] {
            if limit.is_zero() {
                return Err(fault(name, "is 0 (expected a positive duration such as 30s)"));
            }
        }
        self.header_pairs().map(drop)
    }

    /// The URL, once everything in it is known.
    pub(super) fn url(&self) -> Result<Url, ParamFault> {
        // the text may hold a credential, so only a parsed and masked URL is ever shown
        let url = Url::parse(&self.url)
            .map_err(|e| fault("url", format!("is not a URL: {e} (expected http://... or https://...)")))?;
        match url.scheme() {
            "http" | "https" if url.has_host() => Ok(url),
            other => Err(fault("url", format!("has the scheme '{other}' (expected http or https)"))),
        }
    }

    /// The headers as sent; the message names a wrong one and never its value.
    pub(super) fn header_pairs(&self) -> Result<Vec<(HeaderName, HeaderValue)>, ParamFault> {
        let mut pairs = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let place = format!("headers.{name}");
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| fault(&place, "is not a header name (letters, digits and '-')"))?;
            if let Some((_, instead)) = OWN_HEADERS.iter().find(|(own, _)| *own == parsed.as_str()) {
                return Err(fault(&place, format!("cannot be set: {instead}")));
            }
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| fault(&place, "holds characters that a header cannot carry (a line break?)"))?;
            value.set_sensitive(true);
            pairs.push((parsed, value));
        }
        Ok(pairs)
    }
}

fn fault(path: &str, message: impl Into<String>) -> ParamFault {
    ParamFault { path: path.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{parse_params, secrets_as_text};

    fn check(with: Value) -> Result<(), ParamFault> {
        parse_params::<Params>(&secrets_as_text(&with))?.check()
    }

    #[test]
    fn defaults() {
        let params: Params = parse_params(&json!({"url": "http://h/"})).unwrap();
        assert_eq!(params.per_host.connections, 6);
        assert_eq!(params.timeouts.idle, Duration::from_secs(60));
        assert!(params.follow_redirects && !params.expect.json);
    }

    #[test]
    fn faults_name_their_place() {
        for (with, path) in [
            (json!({"url": ""}), "url"),
            (json!({"url": "ftp://h/x"}), "url"),
            (json!({"url": "http://h:99999/"}), "url"),
            (json!({"url": "http://h/", "timeouts": {"idle": "5 weeks"}}), "timeouts.idle"),
            (json!({"url": "http://h/", "timeouts": {"total": "0s"}}), "timeouts.total"),
            (json!({"url": "http://h/", "per_host": {"connections": 0}}), "per_host.connections"),
            (json!({"url": "http://h/", "headers": {"User-Agent": "x"}}), "headers.User-Agent"),
            (json!({"url": "http://h/", "headers": {"X-A": "one\ntwo"}}), "headers.X-A"),
        ] {
            assert_eq!(check(with.clone()).unwrap_err().path, path, "{with}");
        }
        let unknown = check(json!({"url": "http://h/", "expect": {"jsn": true}})).unwrap_err();
        assert!(unknown.message.contains("unknown field `jsn`"), "{}", unknown.message);
    }

    #[test]
    fn late_references_and_secrets_pass() {
        check(json!({"url": "${services.dashboard.url}/a.json"})).unwrap();
        check(json!({"url": "http://h/", "headers": {"Authorization": {"secret": "TOKEN", "format": "Bearer {}"}}}))
            .unwrap();
    }
}
