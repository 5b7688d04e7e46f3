//! Follows the output of a service: into its log file, its tail, and what it says about being ready. Unaware of ports and processes.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use regex::Regex;

use super::launch::{PIPE_SIZE, read_some};
use super::lines::Lines;
use super::mask::Masker;
use crate::base::process;

/// Lines kept in memory.
const KEPT: usize = 200;
/// Longest time between two looks at whether anybody still wants the output.
const TICK: Duration = Duration::from_millis(50);

/// The log file, open.
pub(super) struct OpenLog(File);

/// The output of a running service.
#[derive(Debug)]
pub(super) struct ServiceLog {
    seen: Arc<Seen>,
    reader: Option<JoinHandle<()>>,
}

/// What the reading thread tells.
#[derive(Debug, Default)]
struct Seen {
    /// Nobody asks any more.
    leave: AtomicBool,
    ended: AtomicBool,
    matched: AtomicBool,
    text: Mutex<Text>,
}

#[derive(Debug, Default)]
struct Text {
    tail: VecDeque<String>,
    url: Option<String>,
}

impl Seen {
    fn text(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServiceLog {
    /// Opens the file at its end, making parent directories.
    pub(super) fn open(path: &Path) -> io::Result<OpenLog> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(OpenLog(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// True once a line matched.
    pub(super) fn matched(&self) -> bool {
        self.seen.matched.load(Ordering::SeqCst)
    }

    /// The `url` of the first line that is a JSON object with one.
    pub(super) fn announced(&self) -> Option<String> {
        self.seen.text().url.clone()
    }

    /// The last lines, at most `lines`.
    pub(super) fn tail(&self, lines: usize) -> Vec<String> {
        let text = self.seen.text();
        text.tail.iter().skip(text.tail.len().saturating_sub(lines)).cloned().collect()
    }

    /// Waits until all output was read, at most `within`.
    pub(super) fn wait_for_end(&self, within: Duration) {
        process::wait_until(within, || self.seen.ended.load(Ordering::SeqCst));
    }
}

impl Drop for ServiceLog {
    fn drop(&mut self) {
        self.seen.leave.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl OpenLog {
    /// Reads `output` on a thread of its own until its end.
    pub(super) fn follow(
        self,
        output: PipeReader,
        masker: Arc<Masker>,
        pattern: Option<Regex>,
        announces: bool,
    ) -> ServiceLog {
        let seen = Arc::new(Seen::default());
        let told = seen.clone();
        let reader = std::thread::spawn(move || {
            let Self(mut file) = self;
            let mut unwritten = false;
            read_lines(output, &masker, &told.leave, &mut |line| {
                if let Err(e) = writeln!(file, "{line}")
                    && !std::mem::replace(&mut unwritten, true)
                {
                    keep(&told, &format!("flow: failed to write the log of the service: {e}"));
                }
                keep(&told, line);
                if pattern.as_ref().is_some_and(|pattern| pattern.is_match(line)) {
                    told.matched.store(true, Ordering::SeqCst);
                }
                if announces {
                    let mut text = told.text();
                    if text.url.is_none() {
                        text.url = url_of(line);
                    }
                }
            });
            told.ended.store(true, Ordering::SeqCst);
        });
        ServiceLog { seen, reader: Some(reader) }
    }
}

fn keep(seen: &Seen, line: &str) {
    let mut text = seen.text();
    if text.tail.len() == KEPT {
        text.tail.pop_front();
    }
    text.tail.push_back(line.to_owned());
}

fn read_lines(mut output: PipeReader, masker: &Masker, leave: &AtomicBool, take: &mut dyn FnMut(&str)) {
    let mut lines = Lines::new(masker);
    let mut buffer = [0; 16 * 1024];
    let mut after_leave = 0;
    while after_leave < PIPE_SIZE {
        let left = leave.load(Ordering::SeqCst);
        match read_some(&mut output, &mut buffer, TICK) {
            None if left => break,
            None => {}
            Some(0) => break,
            Some(read) => {
                after_leave += if left { read } else { 0 };
                lines.push(&buffer[..read], take);
            }
        }
    }
    lines.finish(take);
}

fn url_of(line: &str) -> Option<String> {
    let line = line.trim();
    let value: serde_json::Value = line.starts_with('{').then(|| serde_json::from_str(line).ok())??;
    value.get("url")?.as_str().map(str::to_owned)
}
