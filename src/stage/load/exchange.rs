//! One attempt: a request written, its answer read and stamped. Unaware of schedules and of other requests.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::chunk;
use super::clock;
use super::connection::{Came, Connection};
use super::failure::Failure;
use super::likeness::Likeness;
use super::params::Limits;
use super::record::Record;
use super::wire::{Body, Events, Head, Malformed, parse};
use crate::stage::metrics::events::Packed;
use crate::stage::metrics::row::Kind;

/// Bodies of failed requests are kept up to here, for the message.
const EXCERPT: usize = 300;

/// What a shard learns of its own readiness.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    pub(super) reads: u64,
    /// Bytes of the answer.
    pub(super) bytes: u64,
    /// A request could not be written.
    pub(super) refused: bool,
    /// Reads that brought more than one event with text.
    pub(super) coalesced: u64,
    /// ns that first bytes of answers lay in the kernel.
    pub(super) lags: Vec<u64>,
}

/// How an attempt left its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It can be used again.
    Good,
    Spent,
    /// The server had closed it before the request reached it: nothing was asked yet.
    Stale,
}

/// Sends `bytes` and reads the answer into `record`.
pub(super) async fn exchange(
    connection: &mut Connection,
    bytes: &[u8],
    limits: &Limits,
    record: &mut Record,
    reads: &mut Reads,
) -> Left {
    // one that was opened for this request was never idle
    let was_idle = record.connect.is_none();
    let left = attempt(connection, bytes, limits, record, reads).await;
    let cut = matches!(record.failure, Some(Failure::Closed | Failure::Reset)) && reads.bytes == 0;
    if !was_idle || !cut {
        return left;
    }
    // a reset: what was sent lies unread; an end alone may also come from a server that read it, unless a reset follows
    if record.failure == Some(Failure::Closed) && !reads.refused && !connection.was_refused() {
        let until = Instant::now() + connection.refusal();
        while !connection.was_refused() {
            if Instant::now() >= until {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    Left::Stale
}

async fn attempt(
    connection: &mut Connection,
    bytes: &[u8],
    limits: &Limits,
    record: &mut Record,
    reads: &mut Reads,
) -> Left {
    let begun = Instant::now();
    let (send0, written) = connection.write(bytes);
    record.send0 = send0;
    record.events = Packed::since(send0);
    let sent = match written {
        Ok(all) if all == bytes.len() => Ok(true),
        Ok(part) => {
            let rest = connection.write_rest(&bytes[part..]);
            match timeout_at(begun + limits.next(0, 0), rest).await {
                Ok(sent) => sent,
                Err(_) => {
                    let waited = begun.elapsed().as_nanos() as u64;
                    let failure = limits.over(waited, 0).unwrap_or(Failure::TimeoutTotal);
                    let message = format!("after {:.3} s, the request not yet taken", waited as f64 / 1e9);
                    return fail(record, failure, message);
                }
            }
        }
        Err(error) => Err(error),
    };
    // an answer that comes before all was sent (413) is one; the connection cannot be used again
    let taken = match sent {
        Ok(true) => {
            record.send1 = clock::now();
            true
        }
        Ok(false) => false,
        Err(error) => {
            // the end of the connection lay there when the request was written
            reads.refused = true;
            return fail(record, broken(&error), error.to_string());
        }
    };
    let mut answer = Answer::new(record);
    let mut timer = pin!(sleep_until(begun + limits.next(0, 0)));
    let mut last_read = 0;
    loop {
        let ask_lag = answer.record.head == 0;
        let came = poll_fn(|cx| {
            if let Poll::Ready(came) = connection.poll_read(cx, ask_lag) {
                return Poll::Ready(Some(came));
            }
            timer.as_mut().poll(cx).map(|()| None)
        });
        let came = match came.await {
            Some(Ok(came)) => came,
            Some(Err(error)) => return fail(answer.record, broken(&error), error.to_string()),
            None => {
                // the timer stands at the earliest limit that could be over: the stream may have gone on since
                let waited = begun.elapsed().as_nanos() as u64;
                match limits.over(waited, last_read) {
                    Some(failure) => {
                        return fail(answer.record, failure, format!("after {:.3} s", waited as f64 / 1e9));
                    }
                    None => timer.as_mut().reset(begun + limits.next(waited, last_read)),
                }
                continue;
            }
        };
        reads.reads += 1;
        reads.bytes += came.length as u64;
        reads.lags.extend(came.lag);
        last_read = came.at.saturating_sub(send0).max(1);
        match answer.take(connection.bytes(came.length), &came) {
            Ok(more) => {
                reads.coalesced += u64::from(answer.texts > 1);
                if !more {
                    let left = answer.finish(came.at);
                    return if taken { left } else { Left::Spent };
                }
            }
            Err((failure, message)) => {
                return fail(answer.record, failure, message);
            }
        }
    }
}

fn fail(record: &mut Record, failure: Failure, message: String) -> Left {
    record.end = clock::now();
    record.failure = Some(failure);
    record.message = Some(message);
    Left::Spent
}

fn broken(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => Failure::Closed,
        _ => Failure::Reset,
    }
}

/// An answer on its way.
struct Answer<'r> {
    record: &'r mut Record,
    /// The start of a head that was cut.
    cut: Vec<u8>,
    head: Option<(Head, Body)>,
    events: Events,
    likeness: Likeness,
    /// The body of what is no stream.
    whole: Vec<u8>,
    /// Events with text of the last read.
    texts: u32,
    tokens: u64,
    done: bool,
    /// Some choice was said to be at its end.
    finished: bool,
    /// Bytes came after the end of the body.
    beyond: bool,
    fault: Option<(Failure, String)>,
}

impl<'r> Answer<'r> {
    fn new(record: &'r mut Record) -> Self {
        Self {
            record,
            cut: Vec::new(),
            head: None,
            events: Events::default(),
            likeness: Likeness::default(),
            whole: Vec::new(),
            texts: 0,
            tokens: 0,
            done: false,
            finished: false,
            beyond: false,
            fault: None,
        }
    }

    /// Takes what came; false at the end of the answer.
    fn take(&mut self, bytes: &[u8], came: &Came) -> Result<bool, (Failure, String)> {
        self.texts = 0;
        if bytes.is_empty() {
            return match &self.head {
                Some((_, body)) if body.ends_by_close() => Ok(false),
                None => Err((
                    Failure::Closed,
                    "the connection was closed before the head of the answer".to_owned(),
                )),
                Some(_) => Err((Failure::Closed, "the connection was closed within the answer".to_owned())),
            };
        }
        if self.head.is_some() {
            return self.body(bytes, came.at);
        }
        if self.cut.is_empty() {
            return self.beginning(bytes, came.at);
        }
        let mut whole = std::mem::take(&mut self.cut);
        whole.extend_from_slice(bytes);
        self.beginning(&whole, came.at)
    }

    fn beginning(&mut self, bytes: &[u8], at: u64) -> Result<bool, (Failure, String)> {
        let Some(head) = parse(bytes).map_err(|message| (Failure::Malformed, message))? else {
            self.cut = bytes.to_vec();
            return Ok(true);
        };
        // interim answers (100 Continue) have no body
        if (100..200).contains(&head.status) {
            return match &bytes[head.length..] {
                [] => Ok(true),
                rest => self.beginning(rest, at),
            };
        }
        self.record.status = head.status;
        self.record.head = at;
        self.record.events.push(at, None, Kind::Head);
        self.record.retry_after = head.retry_after;
        let (length, body) = (head.length, head.body());
        self.head = Some((head, body));
        self.body(&bytes[length..], at)
    }

    fn body(&mut self, bytes: &[u8], at: u64) -> Result<bool, (Failure, String)> {
        let Some((head, mut body)) = self.head.take() else { return Ok(true) };
        let stream = head.events && head.status == 200;
        let fed = body.feed(bytes, |piece| {
            if stream {
                let mut events = std::mem::take(&mut self.events);
                events.feed(piece, &mut |data| self.event(data, at));
                self.events = events;
            } else if head.status == 200 || self.whole.len() < EXCERPT {
                self.whole.extend_from_slice(piece);
            }
        });
        let done = body.done();
        self.head = Some((head, body));
        let used =
            fed.map_err(|Malformed| (Failure::Malformed, "the framing of the chunks is broken".to_owned()))?;
        self.beyond |= used < bytes.len();
        match self.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(!done),
        }
    }

    /// One event of the stream.
    fn event(&mut self, data: &[u8], at: u64) {
        if self.fault.is_some() || data.is_empty() {
            return;
        }
        if self.record.first_event == 0 {
            self.record.first_event = at;
        }
        if data == b"[DONE]" {
            self.done = true;
            self.record.events.push(at, None, Kind::Done);
            return;
        }
        let Some(said) = self.likeness.read(data, self.record.text.as_mut()) else {
            let message = format!("an event is no chunk of a completion: {}", excerpt(data));
            self.fault = Some((Failure::Malformed, message));
            return;
        };
        self.note(said, at);
        if said.kind() == Kind::Error {
            self.fault = Some((Failure::StreamError, excerpt(data)));
        }
    }

    fn note(&mut self, said: chunk::Said, at: u64) {
        let kind = said.kind();
        // a running count tells how many tokens this event brought
        let counted = said
            .completion_tokens
            .filter(|_| kind != Kind::Usage)
            .map(|count| count.saturating_sub(self.tokens));
        self.tokens = said.completion_tokens.unwrap_or(self.tokens);
        self.finished |= said.finished;
        self.record.output_tokens = said.completion_tokens.or(self.record.output_tokens);
        self.record.input_tokens = said.prompt_tokens.or(self.record.input_tokens);
        if matches!(kind, Kind::Content | Kind::Reasoning) {
            self.texts += 1;
            self.record.last_token = at;
            if self.record.first_token == 0 {
                self.record.first_token = at;
            }
        }
        self.record.events.push(at, counted, kind);
    }

    /// The answer is over.
    fn finish(mut self, at: u64) -> Left {
        let Some((head, body)) = self.head.take() else { return Left::Spent };
        // what came after the end is no part of another answer
        let left = if head.keep_alive && !self.beyond { Left::Good } else { Left::Spent };
        if head.status != 200 {
            let message = excerpt(&self.whole);
            fail(self.record, Failure::of_status(head.status), message);
            self.record.end = at;
            return left;
        }
        if head.events {
            let mut events = std::mem::take(&mut self.events);
            events.finish(&mut |data| self.event(data, at));
        } else {
            let whole = std::mem::take(&mut self.whole);
            self.record.first_event = at;
            match chunk::read(&whole, self.record.text.as_mut()) {
                Some(said) => {
                    // the tokens of a body that came in one piece have one moment, and no gaps
                    self.tokens = said.completion_tokens.unwrap_or(0);
                    self.note(said, at);
                    if said.kind() == Kind::Error {
                        self.fault = Some((Failure::StreamError, excerpt(&whole)));
                    }
                }
                None => {
                    self.fault =
                        Some((Failure::Malformed, format!("the body is no completion: {}", excerpt(&whole))))
                }
            }
        }
        if !self.done {
            self.record.events.push(at, None, Kind::Done);
        }
        self.record.end = at;
        // where the end of the connection ends the answer nothing else tells a whole one from a part
        if self.fault.is_none() && head.events && body.ends_by_close() && !self.done && !self.finished {
            let message = "the connection was closed before a finish_reason or [DONE]";
            self.fault = Some((Failure::Closed, message.to_owned()));
        }
        if self.fault.is_none() && self.record.first_token == 0 {
            self.fault = Some((Failure::Empty, "the answer has no text".to_owned()));
        }
        if let Some((failure, message)) = self.fault.take() {
            self.record.failure = Some(failure);
            self.record.message = Some(message);
        }
        left
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Limits {
    /// The limit that is over `waited` ns after the start, when something came last at `last_read` (0: nothing yet).
    fn over(&self, waited: u64, last_read: u64) -> Option<Failure> {
        let past = |limit: Option<f64>, since: u64| {
            limit.is_some_and(|limit| (waited - since.min(waited)) as f64 >= limit * 1e9)
        };
        if past(self.total, 0) {
            Some(Failure::TimeoutTotal)
        } else if last_read == 0 {
            past(self.first_byte, 0).then_some(Failure::TimeoutFirstByte)
        } else {
            past(self.stall, last_read).then_some(Failure::TimeoutStall)
        }
    }

    /// When to look again: how long after the start.
    fn next(&self, waited: u64, last_read: u64) -> Duration {
        let quiet = if last_read == 0 { self.first_byte } else { self.stall };
        let quiet = quiet.map(|limit| last_read as f64 / 1e9 + limit);
        // what has a stall limit only is looked at when it could first be over
        let first = [quiet, self.total].into_iter().flatten().min_by(f64::total_cmp);
        let least = Duration::from_nanos(waited) + Duration::from_millis(1);
        first.map_or(Duration::from_secs(86_400), |seconds| Duration::from_secs_f64(seconds).max(least))
    }
}
