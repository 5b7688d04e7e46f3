//! The body of an answer, which can end in a cut connection. Unaware of what it holds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};

/// Bytes to send, whole or cut.
pub(super) struct Reply {
    rest: Bytes,
    /// Break the connection once `rest` is sent.
    cut: bool,
    /// Turns given to the connection to send what it holds before the break.
    turns: u8,
}

impl Reply {
    /// All of `bytes`.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { rest: bytes.into(), cut: false, turns: 0 }
    }

    /// `bytes`, then a broken connection.
    pub(super) fn cut(bytes: impl Into<Bytes>) -> Self {
        Self { rest: bytes.into(), cut: true, turns: 3 }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))));
        }
        if !self.cut {
            return Poll::Ready(None);
        }
        if self.turns > 0 {
            self.turns -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::Error::other("cut on demand"))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.cut
    }

    fn size_hint(&self) -> SizeHint {
        if self.cut { SizeHint::default() } else { SizeHint::with_exact(self.rest.len() as u64) }
    }
}
