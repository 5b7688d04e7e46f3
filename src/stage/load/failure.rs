//! Why a request failed: kinds that are counted apart. Unaware of how each is noticed.

use serde::{Deserialize, Serialize};

/// A kind of failure; each failed request has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    /// No connection could be made.
    Connect,
    /// Status 429.
    #[serde(rename = "status_429")]
    Status429,
    /// Another status from 400 on; what is not 200 below that counts here, too.
    #[serde(rename = "status_4xx")]
    Status4xx,
    /// A status from 500 on.
    #[serde(rename = "status_5xx")]
    Status5xx,
    /// No byte of the answer came in time.
    TimeoutFirstByte,
    /// The answer stood still for too long.
    TimeoutStall,
    /// The answer took too long.
    TimeoutTotal,
    /// The server closed the connection before the end.
    Closed,
    /// The connection broke.
    Reset,
    /// An error within the stream.
    StreamError,
    /// The answer is not HTTP, not JSON, or no completion.
    Malformed,
    /// The answer has no text.
    Empty,
}

impl Failure {
    /// As in tables and counts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Status429 => "status_429",
            Self::Status4xx => "status_4xx",
            Self::Status5xx => "status_5xx",
            Self::TimeoutFirstByte => "timeout_first_byte",
            Self::TimeoutStall => "timeout_stall",
            Self::TimeoutTotal => "timeout_total",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::StreamError => "stream_error",
            Self::Malformed => "malformed",
            Self::Empty => "empty",
        }
    }

    /// That of a status that is no success.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            429 => Self::Status429,
            500.. => Self::Status5xx,
            _ => Self::Status4xx,
        }
    }

    /// Whether another attempt may go better.
    pub(super) fn may_pass(self) -> bool {
        !matches!(self, Self::Status4xx | Self::Malformed | Self::Empty)
    }
}
