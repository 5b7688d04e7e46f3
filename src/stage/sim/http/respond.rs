//! From a request to its answer: method, conditions, encoding, faults. Unaware of sockets and of the access log.

use std::path::Path;
use std::time::SystemTime;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::body::Reply;
use super::file::{Content, locate};
use super::params::{Fault, RetryAfter};

/// An answer and how many bytes of body it sends.
pub(super) struct Answer {
    pub(super) response: Response<Reply>,
    pub(super) bytes: usize,
}

/// What a request asks.
pub(super) struct Question {
    pub(super) method: Method,
    /// Still percent-encoded, without the query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
}

impl Question {
    /// True if a 304 is allowed.
    pub(super) fn is_conditional(&self) -> bool {
        self.headers.contains_key(header::IF_NONE_MATCH)
            || self.headers.contains_key(header::IF_MODIFIED_SINCE)
    }
}

/// Answers; reads the file. The delay of `fault` is the caller's.
pub(super) fn answer(root: &Path, question: &Question, fault: Option<&Fault>) -> Answer {
    let head = question.method == Method::HEAD;
    if question.method != Method::GET && !head {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n", head);
        set(&mut answer, header::ALLOW, "GET, HEAD");
        return answer;
    }
    if let Some(fault) = fault
        && let Some(status) = fault.status.and_then(|status| StatusCode::from_u16(status).ok())
    {
        let mut answer = plain(status, "fault on demand\n", head || status == StatusCode::NOT_MODIFIED);
        match &fault.retry_after {
            Some(RetryAfter::Seconds(seconds)) => set(&mut answer, header::RETRY_AFTER, &seconds.to_string()),
            Some(RetryAfter::Text(text)) => set(&mut answer, header::RETRY_AFTER, text),
            None => {}
        }
        return answer;
    }
    let Some(path) = locate(root, &question.path) else {
        return plain(StatusCode::NOT_FOUND, "no such file\n", head);
    };
    match Content::read(&path) {
        Ok(content) => represent(&content, question, head, fault.and_then(|fault| fault.cut_after)),
        Err(error) => {
            plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to read the file: {error}\n"), head)
        }
    }
}

fn represent(content: &Content, question: &Question, head: bool, cut_after: Option<usize>) -> Answer {
    let packed = content.packs() && takes_gzip(&question.headers);
    let etag = content.etag(packed);
    let unchanged = cut_after.is_none() && matches(&question.headers, &etag, content.modified);
    let mut answer = if unchanged {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let bytes = if packed { content.gzip() } else { Ok(content.bytes.clone()) };
        match bytes {
            Ok(bytes) => body(StatusCode::OK, bytes, head, cut_after),
            Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("gzip: {error}\n"), head),
        }
    };
    set(&mut answer, header::ETAG, &etag);
    set(&mut answer, header::VARY, "accept-encoding");
    if let Some(date) = http_date(content.modified) {
        set(&mut answer, header::LAST_MODIFIED, &date);
    }
    if !unchanged {
        set(&mut answer, header::CONTENT_TYPE, content.content_type);
        if packed {
            set(&mut answer, header::CONTENT_ENCODING, "gzip");
        }
    }
    answer
}

/// RFC 9110, 13.2.2: If-None-Match decides alone if it is there.
fn matches(headers: &HeaderMap, etag: &str, modified: SystemTime) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        return headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag);
    }
    let since = headers
        .get(header::IF_MODIFIED_SINCE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| rfc2822::DateTimeParser::new().parse_timestamp(text).ok());
    match (since, Timestamp::try_from(modified)) {
        (Some(since), Ok(modified)) => modified.as_second() <= since.as_second(),
        _ => false,
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let refused = |q: &str| q.strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0);
            matches!(parts.next(), Some(name) if name.eq_ignore_ascii_case("gzip")) && !parts.any(refused)
        })
}

fn http_date(time: SystemTime) -> Option<String> {
    let timestamp = Timestamp::try_from(time).ok()?;
    rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp).ok()
}

fn plain(status: StatusCode, text: &str, head: bool) -> Answer {
    let mut answer = body(status, text.as_bytes().to_vec(), head, None);
    set(&mut answer, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Reply::whole(Vec::new()));
    *response.status_mut() = status;
    Answer { response, bytes: 0 }
}

fn body(status: StatusCode, mut bytes: Vec<u8>, head: bool, cut_after: Option<usize>) -> Answer {
    let length = bytes.len();
    let cut = cut_after.filter(|_| length > 0).map(|after| after.min(length - 1));
    let reply = match cut {
        _ if head => Reply::whole(Vec::new()),
        Some(after) => {
            bytes.truncate(after);
            Reply::cut(bytes)
        }
        None => Reply::whole(bytes),
    };
    let sent = if head { 0 } else { cut.unwrap_or(length) };
    let mut response = Response::new(reply);
    *response.status_mut() = status;
    let mut answer = Answer { response, bytes: sent };
    set(&mut answer, header::CONTENT_LENGTH, &length.to_string());
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn gzip_is_sent_only_if_taken() {
        for (value, expected) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("identity", false), ("", false)]
        {
            assert_eq!(takes_gzip(&asks(header::ACCEPT_ENCODING, value)), expected, "{value}");
        }
    }

    #[test]
    fn conditions() {
        let modified = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(784_111_777_900);
        let date = http_date(modified).unwrap();
        assert_eq!(date, "Sun, 06 Nov 1994 08:49:37 GMT");
        for (name, value, expected) in [
            (header::IF_NONE_MATCH, "\"a\"", true),
            (header::IF_NONE_MATCH, "\"b\", W/\"a\"", true),
            (header::IF_NONE_MATCH, "*", true),
            (header::IF_NONE_MATCH, "\"b\"", false),
            (header::IF_MODIFIED_SINCE, date.as_str(), true),
            (header::IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT", false),
            (header::IF_MODIFIED_SINCE, "soon", false),
        ] {
            assert_eq!(matches(&asks(name, value), "\"a\"", modified), expected, "{value}");
        }
        let mut both = asks(header::IF_NONE_MATCH, "\"b\"");
        both.insert(header::IF_MODIFIED_SINCE, HeaderValue::from_str(&date).unwrap());
        assert!(!matches(&both, "\"a\"", modified));
    }
}
