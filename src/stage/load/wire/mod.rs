//! HTTP/1.1 and server-sent events as a measuring client needs them: bytes are looked at where they were read, and copied only
//! when they were cut. Unaware of sockets, of time and of what the events mean.

mod body;
mod head;
mod sse;

pub(super) use body::{Body, Malformed};
pub(super) use head::{Head, LONGEST, parse};
pub(super) use sse::Events;
