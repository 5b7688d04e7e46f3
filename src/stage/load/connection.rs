//! One connection: opened, written to, read from, with a stamp taken next to each. Unaware of HTTP.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, setsockopt, sockopt};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::clock;
use super::endpoint::Endpoint;

/// Bytes that one read takes at most.
const ROOM: usize = 64 << 10;

/// A connection and the bytes that came last.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    /// The kernel tells when it received what is read.
    stamped: bool,
    /// How long connecting took.
    connecting: Duration,
}

/// Three times the connecting, between 10 ms and 2 s.
fn refusal(connecting: Duration) -> Duration {
    (connecting * 3).clamp(Duration::from_millis(10), Duration::from_secs(2))
}

/// What a read brought.
pub(super) struct Came {
    /// Bytes; 0 at the end.
    pub(super) length: usize,
    /// When it was read.
    pub(super) at: u64,
    /// How long the last of it had been lying in the kernel, if that was asked and is known.
    pub(super) lag: Option<u64>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let begun = clock::now();
        let stream = TcpStream::connect(&endpoint.addresses[..]).await?;
        let connecting = Duration::from_nanos(clock::now() - begun);
        stream.set_nodelay(true)?;
        // where it is not known the lag is not measured
        let stamped = setsockopt(&stream, sockopt::ReceiveTimestampns, &true).is_ok();
        Ok(Self { stream, buffer: vec![0; ROOM].into_boxed_slice(), stamped, connecting })
    }

    /// Writes what the kernel takes at once: the moment just before, and how much it was.
    pub(super) fn write(&self, bytes: &[u8]) -> (u64, io::Result<usize>) {
        let before = clock::now();
        let written = match self.stream.try_write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        };
        (before, written)
    }

    /// Writes the rest, as the server takes it; less than that if it answers before: `false`.
    pub(super) async fn write_rest(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            self.stream.ready(Interest::READABLE | Interest::WRITABLE).await?;
            // asked this way a socket that brought nothing is waited for again
            if self.stream.try_io(Interest::READABLE, || self.peek()).is_ok() {
                return Ok(false);
            }
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // what the server said before it closed is there to be read
                Err(_) if self.peek().is_ok() => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// How many of the next bytes are there, one at most; 0 is the end. The kernel is asked: what it told last may be old.
    fn peek(&self) -> io::Result<usize> {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], flags).map_err(io::Error::from)
    }

    /// How long the refusal of what was written may still come: it takes as long as the way there and back, of which connecting was one.
    pub(super) fn refusal(&self) -> Duration {
        refusal(self.connecting)
    }

    /// Reads what is there.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, ask_lag: bool) -> Poll<io::Result<Came>> {
        if ask_lag && self.stamped {
            return self.poll_read_stamped(cx);
        }
        let mut room = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        Poll::Ready(Ok(Came { length: room.filled().len(), at: clock::now(), lag: None }))
    }

    fn poll_read_stamped(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Came>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let (stream, buffer) = (&self.stream, &mut self.buffer);
            let read = stream.try_io(Interest::READABLE, || {
                let mut room = [IoSliceMut::new(buffer)];
                let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
                let got = recvmsg::<()>(stream.as_raw_fd(), &mut room, Some(&mut control), MsgFlags::empty())
                    .map_err(io::Error::from)?;
                let (at, unix) = (clock::now(), clock::unix());
                let lag = got.cmsgs().ok().and_then(|mut found| {
                    found.find_map(|message| match message {
                        ControlMessageOwned::ScmTimestampns(t) => {
                            let received = t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64;
                            unix.checked_sub(received)
                        }
                        _ => None,
                    })
                });
                Ok(Came { length: got.bytes, at, lag })
            });
            match read {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// The bytes of the last read.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        &self.buffer[..length]
    }

    /// Whether nothing came since the last answer: neither bytes nor the end.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.peek(), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the server's kernel refused what was written, after the end of what the server had to say.
    pub(super) fn was_refused(&self) -> bool {
        matches!(self.stream.take_error(), Ok(Some(_)) | Err(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_waited_for_as_long_as_the_way_is() {
        let of = |ms| refusal(Duration::from_millis(ms)).as_millis();
        assert_eq!([of(0), of(40), of(3000)], [10, 120, 2000]);
    }
}
