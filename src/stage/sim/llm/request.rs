//! One HTTP/1.1 request out of the bytes read so far. Unaware of sockets and of what is asked.

use std::ops::Range;

/// The most bytes of a head, and of a body.
const MOST_HEAD: usize = 64 << 10;
const MOST_BODY: usize = 256 << 20;

/// What a path is served by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Chat,
    Completions,
    Models,
    Health,
    Version,
    Unknown,
}

/// The head of a request.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) route: Route,
    /// The client's x-request-id.
    pub(super) xid: Option<String>,
    /// The connection stays open after the answer.
    pub(super) keep: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
    /// Bytes of the head.
    length: usize,
    body: Body,
}

#[derive(Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
}

/// Why a request cannot be read: the status and a text. The connection is of no use any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) u16, pub(super) String);

/// The head, once it is whole.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, Unreadable> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() > MOST_HEAD => {
            return Err(Unreadable(431, format!("the head is longer than {MOST_HEAD} bytes")));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Unreadable(400, format!("not HTTP/1.1: {error}"))),
    };
    if request.version != Some(1) {
        return Err(Unreadable(505, "only HTTP/1.1 is spoken here".to_owned()));
    }
    let path = request.path.unwrap_or("");
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let route = match (request.method.unwrap_or(""), path) {
        ("POST", "/v1/chat/completions") => Route::Chat,
        ("POST", "/v1/completions") => Route::Completions,
        ("GET", "/v1/models") => Route::Models,
        ("GET", "/health") => Route::Health,
        ("GET", "/version") => Route::Version,
        _ => Route::Unknown,
    };
    let mut head = Head { route, xid: None, keep: true, expects: false, length, body: Body::Length(0) };
    for header in request.headers {
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).unwrap_or("");
            let wrong = || Unreadable(400, format!("content-length is not a number: '{text}'"));
            let length = text.trim().parse().map_err(|_| wrong())?;
            if length > MOST_BODY {
                return Err(Unreadable(413, format!("the body is longer than {MOST_BODY} bytes")));
            }
            if head.body != Body::Chunked {
                head.body = Body::Length(length);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Unreadable(501, "the only transfer-encoding known is chunked".to_owned()));
            }
            head.body = Body::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            head.keep = !header.value.trim_ascii().eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case("x-request-id") {
            head.xid = Some(String::from_utf8_lossy(header.value).into_owned());
        } else if name.eq_ignore_ascii_case("expect") {
            head.expects = true;
        }
    }
    Ok(Some(head))
}

impl Head {
    /// The body, once it is whole, and how many bytes head and body take. `bytes` begin with the head. A chunked body is put together in
    /// place.
    pub(super) fn body(&self, bytes: &mut [u8]) -> Result<Option<(Range<usize>, usize)>, Unreadable> {
        match self.body {
            Body::Length(length) => {
                let end = self.length + length;
                Ok((bytes.len() >= end).then_some((self.length..end, end)))
            }
            Body::Chunked => self.chunked(bytes),
        }
    }

    fn chunked(&self, bytes: &mut [u8]) -> Result<Option<(Range<usize>, usize)>, Unreadable> {
        let mut chunks = Vec::new();
        let mut at = self.length;
        let end = loop {
            let (line, size) = match httparse::parse_chunk_size(&bytes[at..]) {
                Ok(httparse::Status::Complete(found)) => found,
                Ok(httparse::Status::Partial) => return Ok(None),
                Err(_) => return Err(Unreadable(400, "a chunk of the body has no size".to_owned())),
            };
            at += line;
            if size == 0 {
                // lines of a trailer, up to an empty one
                let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") else {
                    return Ok(None);
                };
                if end == 0 {
                    break at + 2;
                }
                match bytes[at..].windows(4).position(|four| four == b"\r\n\r\n") {
                    Some(end) => break at + end + 4,
                    None => return Ok(None),
                }
            }
            if size > MOST_BODY as u64 || at + size as usize - self.length > 2 * MOST_BODY {
                return Err(Unreadable(413, format!("the body is longer than {MOST_BODY} bytes")));
            }
            chunks.push(at..at + size as usize);
            at += size as usize + 2;
            if at > bytes.len() {
                return Ok(None);
            }
            if &bytes[at - 2..at] != b"\r\n" {
                return Err(Unreadable(400, "a chunk of the body is longer than its size".to_owned()));
            }
        };
        let mut to = self.length;
        for chunk in chunks {
            let length = chunk.len();
            bytes.copy_within(chunk, to);
            to += length;
        }
        Ok(Some((self.length..to, end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_arrive_in_pieces() {
        let text =
            b"POST /v1/completions?x=1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Request-ID: a\r\nConnection: close\r\n\r\n\
            4;ext=1\r\nabcd\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nnext";
        for cut in 0..text.len() - 4 {
            let mut part = text[..cut].to_vec();
            let whole = match head(&part).unwrap() {
                Some(head) => head.body(&mut part).unwrap(),
                None => None,
            };
            assert_eq!(whole, None, "{cut}");
        }
        let mut bytes = text.to_vec();
        let head = head(&bytes).unwrap().unwrap();
        assert_eq!((head.route, head.xid.as_deref(), head.keep), (Route::Completions, Some("a"), false));
        let (body, used) = head.body(&mut bytes).unwrap().unwrap();
        assert_eq!((&bytes[body], &bytes[used..]), (b"abcd0123456789".as_slice(), b"next".as_slice()));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (text, status) in [
            ("nonsense\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\n\r\n", 505),
            ("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", 413),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ] {
            assert_eq!(head(text.as_bytes()).unwrap_err().0, status, "{text}");
        }
        assert_eq!(head(&[b'a'; MOST_HEAD + 1]).unwrap_err().0, 431);
    }
}
