//! One connection's bytes: what was read and not used, what is to be written, waiting with an eye on the client. Unaware of what the
//! bytes mean.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::alarm::Alarm;
use super::site::Site;
use crate::base::clock::monotonic_ns;

/// Bytes read at once, at least.
const READ: usize = 8 << 10;

/// The most that is read ahead of the present request.
const AHEAD: usize = 1 << 20;

/// A chunk's size, always of this many digits, so that it can be filled in when the chunk is whole.
const SIZE: &[u8; 10] = b"00000000\r\n";

/// The time between the two writes of an event that is cut.
const GAP_NS: u64 = 200_000;

/// The client left, or its connection broke.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// See the header of the file.
pub(super) struct Link {
    stream: TcpStream,
    pub(super) site: Arc<Site>,
    alarm: Arc<Alarm>,
    /// Read, not used yet.
    pub(super) inbox: Vec<u8>,
    /// To be written.
    pub(super) out: Vec<u8>,
    /// Where the size of the chunk that is being made stands.
    chunk: Option<usize>,
}

impl Link {
    /// Over a connection just accepted.
    pub(super) fn new(stream: TcpStream, site: Arc<Site>, alarm: Arc<Alarm>) -> Self {
        Self { stream, site, alarm, inbox: Vec::new(), out: Vec::new(), chunk: None }
    }

    /// Reads more.
    pub(super) async fn fill(&mut self) -> Result<(), Gone> {
        if !self.site.pauses.is_empty() {
            self.stream.readable().await.map_err(|_| Gone)?;
            self.pause().await;
        }
        self.inbox.reserve(READ);
        match self.stream.read_buf(&mut self.inbox).await {
            Ok(0) | Err(_) => Err(Gone),
            Ok(_) => Ok(()),
        }
    }

    /// What is written next belongs to a chunk.
    pub(super) fn open_chunk(&mut self) {
        if self.chunk.is_none() {
            self.chunk = Some(self.out.len());
            self.out.extend_from_slice(SIZE);
        }
    }

    fn close_chunk(&mut self) {
        let Some(at) = self.chunk.take() else { return };
        let mut size = self.out.len() - at - SIZE.len();
        if size == 0 {
            // a chunk without bytes would end the body
            self.out.truncate(at);
            return;
        }
        for digit in self.out[at..at + SIZE.len() - 2].iter_mut().rev() {
            *digit = b"0123456789abcdef"[size & 15];
            size >>= 4;
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// The body in chunks is whole.
    pub(super) fn end_chunks(&mut self) {
        self.close_chunk();
        self.out.extend_from_slice(b"0\r\n\r\n");
    }

    /// Writes all that is to be written, but in no window in which the server stands still.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        self.pause().await;
        self.write().await
    }

    /// Writes all that is to be written, now.
    pub(super) async fn write(&mut self) -> Result<(), Gone> {
        self.close_chunk();
        let done = self.stream.write_all(&self.out).await;
        self.out.clear();
        done.map_err(|_| Gone)
    }

    /// As [`Link::write`], but what is from `at` on a moment later. Both parts are inside the chunk that is being made.
    pub(super) async fn write_cut(&mut self, at: usize) -> Result<(), Gone> {
        let rest = self.out.split_off(at);
        self.write().await?;
        self.wait(monotonic_ns() + GAP_NS).await?;
        self.open_chunk();
        self.out.extend_from_slice(&rest);
        self.flush().await
    }

    /// Waits until the end of a window in which the server stands still; gives the time, which is in none.
    pub(super) async fn pause(&self) -> u64 {
        loop {
            let now = monotonic_ns();
            match self.site.pauses.end(now) {
                Some(end) => self.alarm.until(end).await,
                None => return now,
            }
        }
    }

    /// Waits until the moment `due`.
    pub(super) async fn wait(&mut self, due: u64) -> Result<(), Gone> {
        let alarm = self.alarm.clone();
        self.unless_gone(alarm.until(due)).await
    }

    /// Waits for `what`.
    pub(super) async fn unless_gone<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Gone> {
        tokio::select! {
            biased;
            done = what => Ok(done),
            gone = self.gone() => Err(gone),
        }
    }

    /// Waits until the client leaves. What it sends is kept.
    pub(super) async fn gone(&mut self) -> Gone {
        while self.inbox.len() < AHEAD {
            self.inbox.reserve(READ);
            match self.stream.read_buf(&mut self.inbox).await {
                Ok(0) | Err(_) => return Gone,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }
}
