//! Run records: `runs/<run id>.jsonl.zst`, one compressed line per fact. Unaware of what the lines say.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use zstd::stream::write::Encoder;

use super::{Store, pack, place};
use crate::base::failpoint;
use crate::{Error, Result};

const SUFFIX: &str = ".jsonl.zst";

/// Lines are pushed to the file at most this often, so that a kill loses little and a fast run does not pay for it.
const PUSH_EVERY: Duration = Duration::from_millis(50);

/// More than this many bytes never wait.
const PUSH_BYTES: usize = 64 << 10;

/// A run that has a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunInfo {
    /// The run's id.
    pub id: String,
    /// Its record.
    pub path: PathBuf,
}

/// Writes the record of a run in progress. The first line must hold the version of the record's format.
pub struct RunWriter {
    path: PathBuf,
    encoder: Encoder<'static, File>,
    /// Lines that the file has not got yet.
    waiting: Vec<u8>,
    pushed: Option<Instant>,
}

impl RunWriter {
    /// Begins the record of run `id`; one that exists is never overwritten.
    pub fn create(cache: &Path, id: &str) -> Result<Self> {
        let path = record_path(cache, id)?;
        let failed = |e| Error::io("write the run record", &path, e);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| place::not_writable(Error::io("write the run record", &path, &e), &e))?;
        let mut encoder = Encoder::new(file, pack::LEVEL).map_err(failed)?;
        encoder.include_checksum(true).map_err(failed)?;
        Ok(Self { path, encoder, waiting: Vec::new(), pushed: None })
    }

    /// Adds one line, JSON without a line end. It reaches the file within 50 ms if lines keep coming; else with the next line or
    /// [`Self::flush`].
    pub fn line(&mut self, line: &str) -> Result<()> {
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        failpoint::hit("record_line");
        let due = self.pushed.is_none_or(|then| then.elapsed() >= PUSH_EVERY);
        if due || self.waiting.len() >= PUSH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Pushes what was added to the file, where it survives a kill of this process.
    pub fn flush(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            let pushed = self.encoder.write_all(&self.waiting).and_then(|()| self.encoder.flush());
            pushed.map_err(|e| self.failed(e))?;
            self.waiting.clear();
        }
        self.pushed = Some(Instant::now());
        Ok(())
    }

    /// Ends the record.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        let path = self.path;
        self.encoder.finish().map(drop).map_err(|e| Error::io("write the run record", &path, e))
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::io("write the run record", &self.path, cause)
    }
}

/// Whether a run of this id has a record.
pub fn exists(cache: &Path, id: &str) -> bool {
    record_path(cache, id).is_ok_and(|path| path.exists())
}

/// All runs that have a record, newest first.
pub fn list(store: &Store) -> Result<Vec<RunInfo>> {
    let dir = store.dir().join("runs");
    let failed = |e| Error::io("list the run records in", &dir, e);
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        let written = match entry.metadata() {
            Ok(meta) => (meta.mtime(), meta.mtime_nsec()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(failed(e)),
        };
        // Ids begin with the second in which the run began; of one second, the one written to last is the newest.
        let second = id.rsplit_once('-').map_or(id, |(second, _)| second).to_owned();
        found.push(((second, written, id.to_owned()), entry.path()));
    }
    found.sort_by(|a, b| b.0.cmp(&a.0));
    Ok(found.into_iter().map(|((_, _, id), path)| RunInfo { id, path }).collect())
}

/// Takes a damaged record out of the list; it stays beside the others as `<name>.damaged`.
pub(super) fn set_aside(path: &Path) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    fs::rename(path, &aside).map_err(|e| Error::io("rename", path, e))
}

/// The lines of a run's record. Of a run that was killed or is going on, those that had reached the file whole.
pub fn read(store: &Store, id: &str) -> Result<Vec<Value>> {
    let path = record_path(store.dir(), id)?;
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Error::usage(format!("there is no record of a run '{id}'"))
            .hint("'flow log' lists the runs of this cache"),
        _ => Error::io("read the run record", &path, e)
            .hint("'flow cache verify --repair' takes damaged records out of the list"),
    };
    let file = File::open(&path).map_err(failed)?;
    let mut decoder = zstd::stream::read::Decoder::new(file).map_err(failed)?;
    let mut text = Vec::new();
    match decoder.read_to_end(&mut text) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(e) => return Err(failed(e)),
    }
    let mut lines = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if !line.ends_with(b"\n") {
            break;
        }
        lines.push(serde_json::from_slice(line).map_err(|e| {
            Error::io("read the run record", &path, format!("line {} is not JSON: {e}", lines.len() + 1))
        })?);
    }
    Ok(lines)
}

fn record_path(cache: &Path, id: &str) -> Result<PathBuf> {
    let plain = !id.is_empty()
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !plain {
        return Err(Error::usage(format!(
            "'{id}' is not a run id (expected letters, digits, '-', such as 20261121-101500-7f3a)"
        )));
    }
    Ok(cache.join("runs").join(format!("{id}{SUFFIX}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        (dir, store)
    }

    #[test]
    fn what_was_written_is_read_and_the_newest_is_first() {
        let (_dir, store) = store();
        for id in ["20261121-101500-b", "20261121-101501-a"] {
            let mut writer = RunWriter::create(store.dir(), id).unwrap();
            writer.line(&json!({"version": 1, "id": id}).to_string()).unwrap();
            writer.line(&json!({"n": 0.1}).to_string()).unwrap();
            writer.finish().unwrap();
        }
        let ids: Vec<String> = list(&store).unwrap().into_iter().map(|run| run.id).collect();
        assert_eq!(ids, ["20261121-101501-a", "20261121-101500-b"]);
        assert_eq!(read(&store, &ids[1]).unwrap(), [json!({"version": 1, "id": ids[1]}), json!({"n": 0.1})]);
        assert!(RunWriter::create(store.dir(), &ids[0]).is_err());
        assert!(read(&store, "nosuch").unwrap_err().message.contains("nosuch"));
        assert!(read(&store, "../x").unwrap_err().message.contains("not a run id"));
    }

    #[test]
    fn a_killed_writer_leaves_a_readable_record() {
        let (_dir, store) = store();
        let mut writer = RunWriter::create(store.dir(), "killed").unwrap();
        for n in 0..1000 {
            writer.line(&json!({"n": n, "text": "some text"}).to_string()).unwrap();
        }
        writer.flush().unwrap();
        // What a kill does: nothing more is written, nothing is finished.
        std::mem::forget(writer);
        assert_eq!(read(&store, "killed").unwrap().len(), 1000);
        let path = &list(&store).unwrap()[0].path;
        let whole = fs::read(path).unwrap();
        let mut longest = 0;
        for cut in (0..whole.len()).step_by(whole.len() / 40) {
            fs::write(path, &whole[..cut]).unwrap();
            let lines = read(&store, "killed").unwrap();
            assert!(lines.iter().enumerate().all(|(n, line)| line["n"] == n));
            assert!(lines.len() >= longest);
            longest = lines.len();
        }
        assert!(longest > 0);
    }
}
