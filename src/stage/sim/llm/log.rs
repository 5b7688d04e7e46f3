//! The log of what was sent when. Lines are made and written by a thread of their own. Unaware of sockets.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};

/// How long a line may wait.
const INTERVAL: Duration = Duration::from_millis(50);

/// What is known of one request. Times: nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) recv0: u64,
    pub(super) recv: u64,
    pub(super) start: Option<u64>,
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    pub(super) end: u64,
    /// A time and how many token events were in the write that began then.
    pub(super) chunks: Vec<(u64, u32)>,
    pub(super) xid: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) fault: Option<&'static str>,
    pub(super) tokens: u64,
    pub(super) inflight: usize,
    pub(super) stream: bool,
    /// When it was seen that the client had left.
    pub(super) closed: Option<u64>,
}

/// The log; dropping it writes what is left.
pub(super) struct Log {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// Records on their way to the file.
#[derive(Default)]
pub(super) struct Queue {
    block: Mutex<Block>,
    ended: Condvar,
}

#[derive(Default)]
struct Block {
    records: Vec<Record>,
    ended: bool,
}

impl Queue {
    /// Adds a line.
    pub(super) fn push(&self, record: Record) {
        self.block().records.push(record);
    }

    fn block(&self) -> MutexGuard<'_, Block> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Opens the file to append to.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Error::io("make the directory", parent, e))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| Error::io("open the log", path, e).hint("parameter 'log' of sim.llm"))?;
        let queue = Arc::new(Queue::default());
        let thread = std::thread::Builder::new().name("sim.llm log".to_owned()).spawn({
            let queue = queue.clone();
            move || write(&queue, file)
        });
        let thread =
            thread.map_err(|e| Error::environment(format!("failed to start the log's thread: {e}")))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Where records go.
    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.block().ended = true;
        self.queue.ended.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(queue: &Queue, mut file: File) {
    let mut text = Vec::new();
    loop {
        let mut block = queue.block();
        if !block.ended {
            let waited = queue.ended.wait_timeout(block, INTERVAL);
            block = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let ended = block.ended;
        let records = std::mem::take(&mut block.records);
        drop(block);
        text.clear();
        for record in &records {
            put(record, &mut text);
        }
        if let Err(error) = file.write_all(&text) {
            let _ = writeln!(std::io::stderr(), "sim.llm: failed to write the log: {error}");
        }
        if ended {
            return;
        }
    }
}

/// Writes one line. Writing to a vector does not fail.
fn put(record: &Record, text: &mut Vec<u8>) {
    let _ = write!(text, "{{\"recv0_ns\":{},\"recv_ns\":{}", record.recv0, record.recv);
    for (name, time) in [("start_ns", record.start), ("first_ns", record.first), ("last_ns", record.last)] {
        let _ = match time {
            Some(time) => write!(text, ",\"{name}\":{time}"),
            None => write!(text, ",\"{name}\":null"),
        };
    }
    let _ = write!(text, ",\"end_ns\":{},\"chunk_ns\":[", record.end);
    let before = text.len();
    for (time, count) in &record.chunks {
        let from = text.len();
        let _ = write!(text, "{time},");
        let to = text.len();
        for _ in 1..*count {
            text.extend_from_within(from..to);
        }
    }
    if text.len() > before {
        text.pop();
    }
    let _ = write!(text, "],\"xid\":{}", serde_json::Value::from(record.xid.as_deref()));
    let _ = match record.status {
        Some(status) => write!(text, ",\"status\":{status}"),
        None => write!(text, ",\"status\":null"),
    };
    let _ = write!(text, ",\"fault\":{}", serde_json::Value::from(record.fault));
    let _ = write!(
        text,
        ",\"tokens\":{},\"inflight\":{},\"stream\":{}",
        record.tokens, record.inflight, record.stream
    );
    if let Some(closed) = record.closed {
        let _ = write!(text, ",\"closed\":true,\"closed_ns\":{closed}");
    }
    text.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines() {
        let line = |record: &Record| {
            let mut text = Vec::new();
            put(record, &mut text);
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()
        };
        let record = Record {
            recv0: 1,
            recv: 2,
            start: Some(3),
            first: Some(5),
            last: Some(7),
            end: 8,
            chunks: vec![(4, 2), (6, 1)],
            xid: Some("a\"b".to_owned()),
            status: Some(200),
            fault: None,
            tokens: 3,
            inflight: 1,
            stream: true,
            closed: Some(9),
        };
        assert_eq!(
            line(&record),
            json!({"recv0_ns": 1, "recv_ns": 2, "start_ns": 3, "first_ns": 5, "last_ns": 7, "end_ns": 8, "chunk_ns": [4, 4, 6],
                "xid": "a\"b", "status": 200, "fault": null, "tokens": 3, "inflight": 1, "stream": true, "closed": true, "closed_ns": 9})
        );
        let empty = line(&Record { fault: Some("hang"), ..Record::default() });
        assert_eq!(
            (&empty["chunk_ns"], &empty["status"], &empty["fault"]),
            (&json!([]), &json!(null), &json!("hang"))
        );
    }
}
