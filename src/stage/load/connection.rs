//! One connection: opened, written to, read from, with a stamp taken next to each. Unaware of HTTP.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::clock;
use super::endpoint::Endpoint;
use super::wire;

/// Bytes that one read takes at most.
const ROOM: usize = 64 << 10;

/// A connection and the bytes that came last.
pub(super) struct Connection {
    stream: Stream,
    buffer: Box<[u8]>,
    /// The kernel tells when it received what is read.
    stamped: bool,
    /// How long connecting took.
    connecting: Duration,
}

/// Asks a proxy to connect.
async fn tunnel(stream: &mut TcpStream, asked: &str) -> io::Result<()> {
    stream.write_all(asked.as_bytes()).await?;
    let mut said = Vec::new();
    // a byte at a time: what comes after the head is the server's
    while !said.ends_with(b"\r\n\r\n") {
        said.push(
            stream.read_u8().await.map_err(|e| io::Error::new(e.kind(), format!("the proxy ended: {e}")))?,
        );
        if said.len() > wire::LONGEST {
            return Err(io::Error::other("the proxy's answer does not end"));
        }
    }
    match wire::parse(&said) {
        Ok(Some(head)) if (200..300).contains(&head.status) => Ok(()),
        Ok(Some(head)) => Err(io::Error::other(format!("the proxy refused with status {}", head.status))),
        _ => Err(io::Error::other("the proxy's answer is no HTTP")),
    }
}

/// Three times the connecting, between 10 ms and 2 s.
fn refusal(connecting: Duration) -> Duration {
    (connecting * 3).clamp(Duration::from_millis(10), Duration::from_secs(2))
}

/// What is written to and read from.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Below.
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
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
    /// Connects: to the server or its proxy, through that to the server, and makes it secret.
    pub(super) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let route = &endpoint.route;
        let begun = clock::now();
        let mut stream = TcpStream::connect(&route.addresses[..]).await?;
        let connecting = Duration::from_nanos(clock::now() - begun);
        stream.set_nodelay(true)?;
        if let Some(asked) = &route.tunnel {
            tunnel(&mut stream, asked).await?;
        }
        // where it is not known the lag is not measured
        let stamped = route.tls.is_none() && setsockopt(&stream, sockopt::ReceiveTimestampns, &true).is_ok();
        let stream = match &route.tls {
            None => Stream::Plain(stream),
            Some((config, name)) => {
                let made = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await;
                Stream::Tls(Box::new(made.map_err(|e| io::Error::new(e.kind(), format!("TLS: {e}")))?))
            }
        };
        Ok(Self { stream, buffer: vec![0; ROOM].into_boxed_slice(), stamped, connecting })
    }

    /// Writes what the kernel takes at once: the moment just before, and how much it was.
    pub(super) fn write(&self, bytes: &[u8]) -> (u64, io::Result<usize>) {
        let before = clock::now();
        let written = match &self.stream {
            Stream::Plain(stream) => match stream.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
                other => other,
            },
            // encrypted and written as the rest
            Stream::Tls(_) => Ok(0),
        };
        (before, written)
    }

    /// Writes the rest, as the server takes it; less than that if it answers before: `false`.
    pub(super) async fn write_rest(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        if let Stream::Tls(stream) = &mut self.stream {
            stream.write_all(bytes).await?;
            return stream.flush().await.map(|()| true);
        }
        let stream = self.stream.tcp();
        while !bytes.is_empty() {
            stream.ready(Interest::READABLE | Interest::WRITABLE).await?;
            // asked this way a socket that brought nothing is waited for again
            if stream.try_io(Interest::READABLE, || self.peek()).is_ok() {
                return Ok(false);
            }
            match stream.try_write(bytes) {
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
        recv(self.stream.tcp().as_raw_fd(), &mut [0], flags).map_err(io::Error::from)
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
        let read = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, &mut room),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, &mut room),
        };
        match ready!(read) {
            // closed without the word that TLS has for it: the end of the answer says whether it is whole
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {}
            other => other?,
        }
        Poll::Ready(Ok(Came { length: room.filled().len(), at: clock::now(), lag: None }))
    }

    fn poll_read_stamped(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Came>> {
        loop {
            let (stream, buffer) = (self.stream.tcp(), &mut self.buffer);
            ready!(stream.poll_read_ready(cx))?;
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
    pub(super) fn is_idle(&mut self) -> bool {
        if let Stream::Tls(stream) = &mut self.stream {
            // what came may be TLS's own, such as tickets
            let mut room = ReadBuf::new(&mut self.buffer);
            let mut cx = Context::from_waker(Waker::noop());
            return Pin::new(stream.as_mut()).poll_read(&mut cx, &mut room).is_pending();
        }
        matches!(self.peek(), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the server's kernel refused what was written, after the end of what the server had to say.
    pub(super) fn was_refused(&self) -> bool {
        matches!(self.stream.tcp().take_error(), Ok(Some(_)) | Err(_))
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
