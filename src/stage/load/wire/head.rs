//! The head of a response. Unaware of the body but for how it is framed.

use std::time::Duration;

use super::body::{Body, Framing};

/// Longer heads are refused.
pub(in crate::stage::load) const LONGEST: usize = 64 << 10;

/// What matters of a head.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::stage::load) struct Head {
    pub(in crate::stage::load) status: u16,
    pub(super) framing: Framing,
    /// The connection may be used again.
    pub(in crate::stage::load) keep_alive: bool,
    /// What the server asks to wait.
    pub(in crate::stage::load) retry_after: Option<Duration>,
    /// The body is a stream of events.
    pub(in crate::stage::load) events: bool,
    /// Bytes of the head.
    pub(in crate::stage::load) length: usize,
}

impl Head {
    /// What follows it.
    pub(in crate::stage::load) fn body(&self) -> Body {
        Body::new(self.framing)
    }
}

/// Reads a head at the start of `bytes`; `None`: it is not complete. `Err` says what is wrong with it.
pub(in crate::stage::load) fn parse(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(format!("the head is longer than {LONGEST} bytes")),
        Err(error) => return Err(format!("no HTTP/1.1 response: {error}")),
    };
    let status = response.code.unwrap_or(0);
    let value = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let has = |name: &str, word: &str| {
        value(name).is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    let chunked = has("transfer-encoding", "chunked");
    let framing = match value("content-length") {
        _ if status == 204 || status == 304 => Framing::Length(0),
        _ if chunked => Framing::Chunked,
        Some(text) => Framing::Length(text.parse().map_err(|_| format!("Content-Length is {text:?}"))?),
        None => Framing::Close,
    };
    let keep_alive = match response.version {
        Some(1) => !has("connection", "close"),
        _ => has("connection", "keep-alive"),
    };
    Ok(Some(Head {
        status,
        keep_alive: keep_alive && framing != Framing::Close,
        framing,
        retry_after: value("retry-after").and_then(wait),
        events: value("content-type").is_some_and(|kind| {
            kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
        }),
        length,
    }))
}

/// Retry-After: seconds, or an HTTP date.
fn wait(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(then.duration_since(jiff::Timestamp::now()).try_into().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_and_keep_alive() {
        let head = |text: &str| parse(text.replace('\n', "\r\n").as_bytes()).unwrap().unwrap();
        let chunked = head(
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Type: Text/Event-Stream; charset=utf-8\n\n",
        );
        assert_eq!((chunked.framing, chunked.keep_alive, chunked.events), (Framing::Chunked, true, true));
        let short = head("HTTP/1.1 429 Slow\nContent-Length: 7\nretry-after: 3\nConnection: close\n\n");
        assert_eq!((short.framing, short.keep_alive, short.status), (Framing::Length(7), false, 429));
        assert_eq!(short.retry_after, Some(Duration::from_secs(3)));
        let old = head("HTTP/1.0 200 OK\n\n");
        assert_eq!((old.framing, old.keep_alive), (Framing::Close, false));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nA: b\r\n"), Ok(None));
        assert!(parse(b"nonsense\r\n\r\n").is_err());
        let dated =
            head("HTTP/1.1 503 No\nContent-Length: 0\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\n\n");
        assert_eq!(dated.retry_after, Some(Duration::ZERO));
    }
}
