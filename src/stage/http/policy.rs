//! Decisions of `http.fetch` as pure functions: which conditions to send, what an answer means, how long a server asks to wait.
//! Unaware of the network.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::Url;
use serde_json::{Map, Value};

use crate::base::http::shown;

/// A Last-Modified closer than this to the answer's Date may hide a second change within its one-second tick (RFC 9110, 8.8.2.2).
const LAST_MODIFIED_TRUSTED_AFTER_S: i64 = 60;

/// The longest wait a server is believed to mean.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The conditions of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) if_none_match: Option<String>,
    pub(super) if_modified_since: Option<String>,
}

impl Conditions {
    /// True if the server may answer 304.
    pub(super) fn any(&self) -> bool {
        self.if_none_match.is_some() || self.if_modified_since.is_some()
    }
}

/// What to ask for, given the record of the result that stands. Host and port do not count: a service has others in every run.
pub(super) fn conditions(previous: &Map<String, Value>, url: &Url) -> Conditions {
    let text = |name: &str| previous.get(name).and_then(Value::as_str).map(str::to_owned);
    let recorded = text("url").and_then(|recorded| Url::parse(&recorded).ok());
    if recorded.is_none_or(|recorded| target(&recorded) != target(url)) {
        return Conditions::default();
    }
    let if_none_match = text("etag");
    let if_modified_since = text("last_modified").filter(|modified| {
        if_none_match.is_some() || text("date").is_some_and(|date| is_settled(modified, &date))
    });
    Conditions { if_none_match, if_modified_since }
}

/// Path and query as recorded.
fn target(url: &Url) -> String {
    let mut masked = url.clone();
    let _ = masked.set_username("");
    let _ = masked.set_password(None);
    let masked = shown(&masked);
    let start = masked.find("://").map_or(0, |at| at + 3);
    masked[start..].find('/').map_or_else(String::new, |at| masked[start + at..].to_owned())
}

/// True if nothing could have changed after `modified` without showing in it.
fn is_settled(modified: &str, date: &str) -> bool {
    match (http_date(modified), http_date(date)) {
        (Some(modified), Some(date)) => {
            date.as_second() - modified.as_second() >= LAST_MODIFIED_TRUSTED_AFTER_S
        }
        _ => false,
    }
}

/// Reads the date form that HTTP servers send (`Sun, 06 Nov 1994 08:49:37 GMT`).
fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The body is the result.
    Body,
    /// The result that stands is still right.
    NotModified,
    /// The body is elsewhere.
    Redirect,
    /// No result.
    Failed { retryable: bool, hint: &'static str },
}

/// The meaning of a status; `conditional`: the request allowed a 304.
pub(super) fn judge(status: u16, conditional: bool) -> Verdict {
    let failed = |retryable, hint| Verdict::Failed { retryable, hint };
    match status {
        200 | 203 => Verdict::Body,
        304 if conditional => Verdict::NotModified,
        301 | 302 | 303 | 307 | 308 => Verdict::Redirect,
        401 | 403 => failed(
            false,
            "the server refuses access: give a credential in 'headers' (a secret), or check its rights",
        ),
        404 | 410 => failed(false, "nothing is there: check the URL and the parameters it is made of"),
        408 | 425 => failed(true, "the server gave up waiting: try again later"),
        429 => {
            failed(true, "too many requests: lower 'per_host.connections' or raise 'per_host.min_interval'")
        }
        400..=499 => failed(false, "the server refuses the request: check the URL and 'headers'"),
        500..=599 => failed(true, "the server has a fault of its own: try again later, or ask who runs it"),
        200..=299 => failed(false, "an answer without a body to keep: check the URL"),
        _ => failed(false, "not an answer to a plain GET: check the URL"),
    }
}

/// How long `Retry-After` asks to wait: seconds or a date.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let seconds = http_date(value)?.duration_since(now).as_secs_f64();
            Duration::try_from_secs_f64(seconds.max(0.0)).ok()?
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// Where a redirect leads; an error says why it is not followed.
pub(super) fn redirect(from: &Url, location: Option<&str>) -> Result<Url, String> {
    let location = location.ok_or("redirects without saying where (no Location header)")?;
    let to = from.join(location).map_err(|e| format!("redirects to something that is not a URL ({e})"))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        ("https", "http") => Err(format!("redirects from https to plain http ({}): refused", shown(&to))),
        (_, other) => Err(format!("redirects to a URL with the scheme '{other}' (expected http or https)")),
    }
}

/// True if a header given by the user may go to `to` after a redirect from `from`: credentials never leave their origin.
pub(super) fn may_carry(header: &str, from: &Url, to: &Url) -> bool {
    from.origin() == to.origin() || matches!(header, "accept" | "accept-language")
}

/// The media type without parameters, lower case.
pub(super) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// The first 80 characters of a body as one line.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    match line.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn an_etag_is_sent_whatever_host_and_port() {
        let previous = record(
            json!({"url": "http://127.0.0.1:4000/a.json?x=1", "etag": "\"v1\"", "last_modified": OLD}),
        );
        let asked = conditions(&previous, &url("http://127.0.0.1:5000/a.json?x=1"));
        assert_eq!(asked.if_none_match.as_deref(), Some("\"v1\""));
        assert_eq!(asked.if_modified_since.as_deref(), Some(OLD));
        assert!(asked.any());
    }

    #[test]
    fn another_path_or_query_is_fetched_plainly() {
        let previous = record(json!({"url": "http://h/a.json?x=1", "etag": "\"v1\""}));
        for other in ["http://h/b.json?x=1", "http://h/a.json?x=2", "http://h/a.json"] {
            assert!(!conditions(&previous, &url(other)).any(), "{other}");
        }
        assert!(!conditions(&Map::new(), &url("http://h/a.json")).any());
    }

    #[test]
    fn masked_parts_do_not_stand_in_the_way() {
        let now = url("http://me:pw@h/a?token=abc&page=2");
        let previous = record(json!({"url": shown(&now), "etag": "\"v1\""}));
        assert!(conditions(&previous, &now).any());
    }

    #[test]
    fn a_young_last_modified_is_not_trusted_alone() {
        for (date, sent) in [
            (json!("Sun, 06 Nov 1994 08:50:36 GMT"), false),
            (json!("Sun, 06 Nov 1994 08:50:37 GMT"), true),
            (json!("yesterday"), false),
            (Value::Null, false),
        ] {
            let previous =
                record(json!({"url": "http://h/a", "etag": null, "last_modified": OLD, "date": date}));
            assert_eq!(conditions(&previous, &url("http://h/a")).any(), sent, "{date}");
        }
    }

    #[test]
    fn statuses() {
        for retryable in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(judge(retryable, true), Verdict::Failed { retryable: true, .. }), "{retryable}");
        }
        for final_one in [201, 202, 204, 206, 300, 400, 401, 403, 404, 410, 416, 451] {
            assert!(
                matches!(judge(final_one, true), Verdict::Failed { retryable: false, .. }),
                "{final_one}"
            );
        }
        assert_eq!(judge(200, false), Verdict::Body);
        assert_eq!(judge(304, true), Verdict::NotModified);
        assert!(matches!(judge(304, false), Verdict::Failed { retryable: false, .. }));
        assert_eq!(judge(308, false), Verdict::Redirect);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = http_date(OLD).unwrap();
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999", now), Some(LONGEST_RETRY_AFTER));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn redirects_keep_to_http_and_credentials_to_their_origin() {
        let from = url("https://h/a/b");
        assert_eq!(redirect(&from, Some("../c?x=1")).unwrap().as_str(), "https://h/c?x=1");
        assert!(redirect(&from, Some("http://h/c")).unwrap_err().contains("plain http"));
        assert!(redirect(&from, Some("file:///etc/passwd")).unwrap_err().contains("'file'"));
        assert!(redirect(&from, None).unwrap_err().contains("Location"));
        assert!(may_carry("x-api-key", &from, &url("https://h/other")));
        assert!(!may_carry("x-api-key", &from, &url("https://other/")));
        assert!(may_carry("accept", &from, &url("https://other/")));
    }

    #[test]
    fn excerpts_are_one_short_line() {
        assert_eq!(excerpt(b"<html>\n<body>"), "<html> <body>");
        assert_eq!(excerpt("\u{e4}".repeat(300).as_bytes()).chars().count(), 83);
        assert_eq!(excerpt(b""), "");
    }
}
