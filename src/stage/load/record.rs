//! One attempt of a request as it was measured. Unaware of sockets and of tables.

use super::failure::Failure;
use crate::stage::metrics::events::Packed;

/// Moments are ns of CLOCK_MONOTONIC; 0: it did not come to that.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// Of the request, from 0, in the order of the schedule.
    pub(super) number: u64,
    pub(super) shard: u32,
    pub(super) endpoint: u32,
    /// From 1.
    pub(super) attempt: u32,
    /// When it was to be sent (open loop).
    pub(super) sched: u64,
    /// When a connection was asked for and there, if it was opened for this attempt; 0 if it never was there.
    pub(super) connect: Option<(u64, u64)>,
    /// Just before the first byte was written, and just after the last.
    pub(super) send0: u64,
    pub(super) send1: u64,
    pub(super) head: u64,
    pub(super) first_event: u64,
    pub(super) first_token: u64,
    pub(super) last_token: u64,
    pub(super) end: u64,
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    /// 0 if no head came.
    pub(super) status: u16,
    pub(super) failure: Option<Failure>,
    /// More about the failure, for people.
    pub(super) message: Option<String>,
    pub(super) events: Packed,
    /// The answer's text, if it is kept.
    pub(super) text: Option<String>,
    /// What the server asks to wait before the next attempt.
    pub(super) retry_after: Option<std::time::Duration>,
}

impl Record {
    /// Forgets a connection that was closed before the request reached it.
    pub(super) fn begin_again(&mut self) {
        let Self { number, shard, endpoint, attempt, sched, .. } = *self;
        let text = self.text.take();
        *self = Self { number, shard, endpoint, attempt, sched, text, ..Self::default() };
    }

    /// The value of `x-request-id`.
    pub(super) fn xid(&self, load: &str) -> String {
        format!("{load}-{}-{}", self.number, self.attempt)
    }
}
