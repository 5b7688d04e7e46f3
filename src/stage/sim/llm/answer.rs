//! Sends a planned answer at its times and notes when what was written. Unaware of how requests are read.

use super::fault::Kind;
use super::frame;
use super::link::{Gone, Link};
use super::log::Record;
use super::params::{Cut, RoleParam};
use super::plan::Plan;
use super::site::Slot;
use crate::base::clock::monotonic_ns;

/// Bytes that are written at once, at most about.
const BLOCK: usize = 64 << 10;

/// What becomes of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Keep,
    Close,
}

/// An answer on its way.
pub(super) struct Answer<'a> {
    pub(super) link: &'a mut Link,
    pub(super) plan: Plan,
    pub(super) record: &'a mut Record,
    pub(super) keep: bool,
    /// Token events that are to be written, and their tokens.
    events: u32,
    tokens: u64,
}

impl<'a> Answer<'a> {
    /// Sends nothing yet.
    pub(super) fn new(link: &'a mut Link, plan: Plan, record: &'a mut Record, keep: bool) -> Self {
        Self { link, plan, record, keep, events: 0, tokens: 0 }
    }

    /// Sends it.
    pub(super) async fn send(mut self) -> End {
        let sent = if self.plan.stream { self.stream().await } else { self.whole().await };
        sent.unwrap_or_else(|Gone| {
            self.record.closed = Some(monotonic_ns());
            End::Close
        })
    }

    async fn slot(&mut self) -> Result<Slot, Gone> {
        let site = self.link.site.clone();
        let slot = self.link.unless_gone(site.slot()).await?;
        self.record.start = Some(monotonic_ns());
        Ok(slot)
    }

    async fn stream(&mut self) -> Result<End, Gone> {
        let site = self.link.site.clone();
        let params = &site.params;
        let frames = site.frames(self.plan.chat);
        let role = if self.plan.chat { params.role } else { RoleParam::Flag(false) };
        let early_role = matches!(role, RoleParam::Named(_));
        self.link.out.extend_from_slice(stream_head(self.keep));
        if early_role {
            self.link.open_chunk();
            frames.role.put(&self.plan.id, b"", &mut self.link.out);
        }
        if params.early_head || early_role {
            self.flush(None).await?;
        }
        let slot = self.slot().await?;
        if matches!(role, RoleParam::Flag(true)) {
            self.link.open_chunk();
            frames.role.put(&self.plan.id, b"", &mut self.link.out);
        }

        let mut now = self.record.start.unwrap_or_else(monotonic_ns);
        let mut due = now + self.plan.first_ns(&site);
        let mut made = 0;
        while made < self.plan.tokens {
            let reasons = made < self.plan.reasoning;
            let border = if reasons { self.plan.reasoning.min(self.plan.tokens) } else { self.plan.tokens };
            let count = params.chunk.min(border - made);
            for _ in 1..count {
                due += self.plan.next_ns(&site);
            }
            if due > now {
                if self.events > 0 && !params.buffer {
                    self.flush(None).await?;
                }
                self.link.wait(due).await?;
                now = monotonic_ns();
            }
            self.link.open_chunk();
            if params.comments && made > 0 {
                self.link.out.extend_from_slice(&frames.comment);
            }
            let event = if reasons { &frames.reasoning } else { &frames.content };
            let begin = self.link.out.len();
            event.open(&self.plan.id, &mut self.link.out);
            for index in made..made + count {
                self.plan.put_token(&site, index, &mut self.link.out);
            }
            event.close(&mut self.link.out);
            made += count;
            due += self.plan.next_ns(&site);
            self.events += 1;
            self.tokens += count;
            if params.cut.is_some() || (self.link.out.len() > BLOCK && !params.buffer) {
                self.flush(cut_at(params.cut, &self.link.out, begin)).await?;
            }
        }
        if made == 0 {
            self.link.wait(due).await?;
        }
        self.finish(slot).await
    }

    /// What comes after the last token.
    async fn finish(&mut self, slot: Slot) -> Result<End, Gone> {
        let site = self.link.site.clone();
        let frames = site.frames(self.plan.chat);
        match self.plan.fault {
            Some(Kind::Abort) => {
                self.flush(None).await?;
                return Ok(End::Close);
            }
            Some(Kind::Stall) => {
                self.flush(None).await?;
                return Err(self.link.gone().await);
            }
            _ => {}
        }
        self.link.open_chunk();
        let out = &mut self.link.out;
        if self.plan.fault == Some(Kind::StreamError) {
            out.extend_from_slice(&frames.error);
        } else {
            frames.finish.put(&self.plan.id, self.plan.finish.as_bytes(), out);
            if let Some(usage) = &self.plan.usage {
                frames.usage.put(&self.plan.id, usage.as_bytes(), out);
            }
        }
        if site.params.done {
            out.extend_from_slice(&frames.done);
        }
        self.link.end_chunks();
        // who has the whole answer finds the slot free
        drop(slot);
        self.flush(None).await?;
        Ok(self.end())
    }

    async fn whole(&mut self) -> Result<End, Gone> {
        let site = self.link.site.clone();
        let _slot = self.slot().await?;
        let mut due = self.record.start.unwrap_or_else(monotonic_ns) + self.plan.first_ns(&site);
        for _ in 1..self.plan.tokens {
            due += self.plan.next_ns(&site);
        }
        self.link.wait(due).await?;
        if self.plan.fault == Some(Kind::StreamError) {
            self.record.status = Some(500);
            let body = frame::error(500, "a fault on demand");
            self.link.out.extend_from_slice(&json_head(500, "", self.keep, body.len()));
            self.link.out.extend_from_slice(body.as_bytes());
            self.link.flush().await?;
            return Ok(self.end());
        }
        let (mut reasoning, mut content) = (Vec::new(), Vec::new());
        for index in 0..self.plan.tokens {
            let to = if index < self.plan.reasoning { &mut reasoning } else { &mut content };
            self.plan.put_token(&site, index, to);
        }
        let body = site.frames(self.plan.chat).whole(
            &self.plan.id,
            &String::from_utf8_lossy(&reasoning),
            &String::from_utf8_lossy(&content),
            self.plan.finish,
            self.plan.usage.as_deref(),
        );
        self.events = u32::from(self.plan.tokens > 0);
        self.tokens = self.plan.tokens;
        let broken = matches!(self.plan.fault, Some(Kind::Abort | Kind::Stall));
        let sent = if broken { body.len() / 2 } else { body.len() };
        self.link.out.extend_from_slice(&json_head(200, "", self.keep, body.len()));
        self.link.out.extend_from_slice(&body.as_bytes()[..sent]);
        self.flush(None).await?;
        match self.plan.fault {
            Some(Kind::Stall) => Err(self.link.gone().await),
            Some(Kind::Abort) => Ok(End::Close),
            _ => Ok(self.end()),
        }
    }

    fn end(&self) -> End {
        if self.keep { End::Keep } else { End::Close }
    }

    /// Writes what is ready, in two parts if there is a place to cut, and notes the times.
    async fn flush(&mut self, cut: Option<usize>) -> Result<(), Gone> {
        let (events, tokens) = (std::mem::take(&mut self.events), std::mem::take(&mut self.tokens));
        let now = self.link.pause().await;
        let logs = self.link.site.logs() && events > 0;
        if logs {
            self.record.chunks.push((now, events));
        }
        match cut {
            Some(at) => self.link.write_cut(at).await?,
            None => self.link.write().await?,
        }
        self.record.status = Some(200);
        self.record.tokens += tokens;
        if logs {
            let now = monotonic_ns();
            self.record.first.get_or_insert(now);
            self.record.last = Some(now);
        }
        Ok(())
    }
}

/// Where the event that begins at `begin` is cut.
fn cut_at(cut: Option<Cut>, bytes: &[u8], begin: usize) -> Option<usize> {
    match cut? {
        Cut::Event => Some(begin + (bytes.len() - begin) / 2),
        Cut::Utf8 => bytes[begin..].iter().position(|byte| *byte >= 0xC0).map(|at| begin + at + 1),
    }
}

fn stream_head(keep: bool) -> &'static [u8] {
    if keep {
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
    } else {
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    }
}

/// The head of an answer in JSON. `extra`: lines of headers, each with its end.
pub(super) fn json_head(status: u16, extra: &str, keep: bool, length: usize) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    };
    let close = if keep { "" } else { "Connection: close\r\n" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{extra}{close}\r\n"
    )
    .into_bytes()
}
