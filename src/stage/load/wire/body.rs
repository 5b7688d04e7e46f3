//! The body of a response, piece by piece, wherever it was cut. Unaware of what it holds.

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Chunked,
    Length(u64),
    /// When the connection closes.
    Close,
}

/// The framing of a chunked body is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stage::load) struct Malformed;

/// Takes the framing away.
#[derive(Clone, Debug)]
pub(in crate::stage::load) struct Body {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The size of a chunk, so far, and whether a digit was seen.
    Size(u64, bool),
    /// An extension after the size.
    Extension(u64),
    /// The line feed after the size.
    SizeEnd(u64),
    Data(u64),
    /// The line end after a chunk: what is left of it.
    DataEnd(u8),
    /// Trailers: whether the line has a character.
    Trailer(bool),
    Rest(u64),
    UntilClose,
    Done,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Chunked => State::Size(0, false),
            Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Rest(left),
            Framing::Close => State::UntilClose,
        };
        Self { state }
    }

    /// Everything came.
    pub(in crate::stage::load) fn done(&self) -> bool {
        self.state == State::Done
    }

    /// A closed connection ends it.
    pub(in crate::stage::load) fn ends_by_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Calls `each` with the pieces of the body in `bytes`. Returns how many bytes belong to it.
    pub(in crate::stage::load) fn feed<'b>(
        &mut self,
        bytes: &'b [u8],
        mut each: impl FnMut(&'b [u8]),
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match &mut self.state {
                State::Done => break,
                State::UntilClose => {
                    each(&bytes[at..]);
                    at = bytes.len();
                }
                State::Rest(left) | State::Data(left) => {
                    let take =
                        usize::try_from(*left).map_or(bytes.len() - at, |left| left.min(bytes.len() - at));
                    each(&bytes[at..at + take]);
                    at += take;
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = match self.state {
                            State::Data(_) => State::DataEnd(2),
                            _ => State::Done,
                        };
                    }
                }
                State::Size(size, seen) => {
                    at += 1;
                    match (char::from(byte).to_digit(16), byte) {
                        (Some(digit), _) if *size < 1 << 56 => {
                            self.state = State::Size(*size << 4 | u64::from(digit), true);
                        }
                        (None, b';' | b' ' | b'\t') if *seen => self.state = State::Extension(*size),
                        (None, b'\r') if *seen => self.state = State::SizeEnd(*size),
                        (None, b'\n') if *seen => self.state = sized(*size),
                        _ => return Err(Malformed),
                    }
                }
                State::Extension(size) => {
                    at += 1;
                    if byte == b'\n' {
                        self.state = sized(*size);
                    }
                }
                State::SizeEnd(size) => {
                    at += 1;
                    self.state = if byte == b'\n' { sized(*size) } else { return Err(Malformed) };
                }
                State::DataEnd(left) => {
                    at += 1;
                    self.state = match (byte, *left) {
                        (b'\r', 2) => State::DataEnd(1),
                        (b'\n', _) => State::Size(0, false),
                        _ => return Err(Malformed),
                    };
                }
                State::Trailer(text) => {
                    at += 1;
                    self.state = match (byte, *text) {
                        (b'\n', false) => State::Done,
                        (b'\n', true) => State::Trailer(false),
                        (b'\r', text) => State::Trailer(text),
                        _ => State::Trailer(true),
                    };
                }
            }
        }
        Ok(at)
    }
}

fn sized(size: u64) -> State {
    if size == 0 { State::Trailer(false) } else { State::Data(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(framing: Framing, bytes: &[u8], cut: usize) -> (Vec<u8>, usize, bool) {
        let (mut body, mut out, mut used) = (Body::new(framing), Vec::new(), 0);
        for part in bytes.chunks(cut) {
            let taken = body.feed(part, |piece| out.extend_from_slice(piece)).unwrap();
            used += taken;
            if taken < part.len() {
                break;
            }
        }
        (out, used, body.done())
    }

    #[test]
    fn chunks_cut_anywhere() {
        let whole =
            b"5\r\nhello\r\n1;x=\"y\"\r\n,\r\n00A\r\n wide worl\r\n0\r\nTrailer: 1\r\n\r\nHTTP/1.1 200 next"
                .as_slice();
        for cut in 1..whole.len() {
            let (out, used, done) = read(Framing::Chunked, whole, cut);
            assert_eq!((out.as_slice(), done), (b"hello, wide worl".as_slice(), true), "{cut}");
            assert_eq!(&whole[used..], b"HTTP/1.1 200 next", "{cut}");
        }
    }

    #[test]
    fn other_framings_and_faults() {
        assert_eq!(read(Framing::Length(3), b"abcd", 2), (b"abc".to_vec(), 3, true));
        assert_eq!(read(Framing::Close, b"abcd", 3), (b"abcd".to_vec(), 4, false));
        assert!(Body::new(Framing::Length(0)).done());
        for bad in [&b"x\r\n"[..], b"\r\n", b"1\rx", b"1\r\nabc", b"fffffffffffffffff\r\n"] {
            assert_eq!(Body::new(Framing::Chunked).feed(bad, |_| {}), Err(Malformed), "{bad:?}");
        }
    }
}
