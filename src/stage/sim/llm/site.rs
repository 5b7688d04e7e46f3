//! What all connections of a server share: the parameters made ready, slots, counters, the log. Unaware of sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::frame::Frames;
use super::log::{Queue, Record};
use super::params::{Params, Usage};
use super::pause::Pauses;
use super::script::Script;
use super::words;
use crate::base::clock::monotonic_ns;

/// See the header of the file.
pub(super) struct Site {
    pub(super) params: Params,
    pub(super) usage: Usage,
    pub(super) chat: Frames,
    pub(super) completions: Frames,
    pub(super) script: Script,
    pub(super) words: &'static [&'static str],
    pub(super) pauses: Pauses,
    slots: Option<Arc<Semaphore>>,
    generating: AtomicUsize,
    inflight: AtomicUsize,
    numbers: AtomicU64,
    log: Option<Arc<Queue>>,
}

impl Site {
    /// From checked parameters.
    pub(super) fn new(params: Params, script: Script, log: Option<Arc<Queue>>) -> Self {
        Self {
            usage: params.usage.rule(),
            chat: Frames::new(true, &params.model, params.crlf),
            completions: Frames::new(false, &params.model, params.crlf),
            script,
            words: words::list(params.multibyte),
            pauses: Pauses::new(&params.pauses),
            slots: params.slots.map(|slots| Arc::new(Semaphore::new(slots))),
            generating: AtomicUsize::new(0),
            inflight: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
            log,
            params,
        }
    }

    /// The constant parts of an endpoint's answers.
    pub(super) fn frames(&self, chat: bool) -> &Frames {
        if chat { &self.chat } else { &self.completions }
    }

    /// True if writes are to be stamped.
    pub(super) fn logs(&self) -> bool {
        self.log.is_some()
    }

    /// Counts a request for a completion, from 0.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for a slot, first come first served.
    pub(super) async fn slot(self: &Arc<Self>) -> Slot {
        let permit = match &self.slots {
            // the semaphore is never closed
            Some(slots) => slots.clone().acquire_owned().await.ok(),
            None => None,
        };
        self.generating.fetch_add(1, Ordering::Relaxed);
        Slot { site: self.clone(), _permit: permit }
    }

    /// How many requests are generated now.
    pub(super) fn generating(&self) -> usize {
        self.generating.load(Ordering::Relaxed)
    }
}

/// A request that is being generated.
pub(super) struct Slot {
    site: Arc<Site>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.site.generating.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is being answered; dropping it writes its line.
pub(super) struct Entry {
    site: Arc<Site>,
    pub(super) record: Record,
}

impl Entry {
    /// Counts the request.
    pub(super) fn new(site: &Arc<Site>, mut record: Record) -> Self {
        record.inflight = site.inflight.fetch_add(1, Ordering::Relaxed) + 1;
        Self { site: site.clone(), record }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.site.inflight.fetch_sub(1, Ordering::Relaxed);
        if let Some(log) = &self.site.log {
            self.record.end = monotonic_ns();
            log.push(std::mem::take(&mut self.record));
        }
    }
}
