//! The event stream as JSON lines in a file (`--events FILE`), and its JSON Schema. Unaware of who reads it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use super::Observer;
use super::printer::lock;
use crate::event::{Event, Stamped};
use crate::model::Outcome;
use crate::{Error, Result};

/// Writes one line per event. A follower (`tail -f`) sees each line at once, but for nodes that had nothing to do.
pub struct JsonLines {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    to: BufWriter<Box<dyn Write + Send>>,
    failure: Option<io::Error>,
}

impl JsonLines {
    /// Creates (or empties) the file, with its parent directories.
    pub fn create(path: &Path) -> Result<Self> {
        let open = || {
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent)?;
            }
            File::create(path)
        };
        let file = open().map_err(|e| Error::io("create", path, e))?;
        Ok(Self::to(path, Box::new(file)))
    }

    fn to(path: &Path, to: Box<dyn Write + Send>) -> Self {
        Self {
            path: path.to_owned(),
            state: Mutex::new(State { to: BufWriter::with_capacity(1 << 16, to), failure: None }),
        }
    }

    /// Writes what is left; the error of the first failed write, if one failed.
    pub fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        if state.failure.is_none() {
            let flushed = state.to.flush();
            state.failure = flushed.err();
        }
        match &state.failure {
            None => Ok(()),
            Some(e) => Err(Error::io("write", &self.path, e)),
        }
    }
}

impl Observer for JsonLines {
    fn observe(&self, stamped: &Stamped) {
        let mut state = lock(&self.state);
        if state.failure.is_none() {
            let written = write_line(&mut state.to, stamped);
            state.failure = written.err();
        }
    }
}

fn write_line(to: &mut impl Write, stamped: &Stamped) -> io::Result<()> {
    serde_json::to_writer(&mut *to, stamped)?;
    to.write_all(b"\n")?;
    match &stamped.event {
        Event::NodeFinished(node) if matches!(node.outcome, Outcome::Fresh | Outcome::Cached) => Ok(()),
        _ => to.flush(),
    }
}

/// The JSON Schema of one line: `schemas/event.schema.json`.
pub fn schema() -> Value {
    let made = schemars::schema_for!(Stamped).to_value();
    let mut schema = serde_json::Map::new();
    schema.insert("$schema".to_owned(), made["$schema"].clone());
    schema.insert("title".to_owned(), "one event of a flow run".into());
    for (name, value) in made.as_object().into_iter().flatten() {
        schema.entry(name.clone()).or_insert_with(|| value.clone());
    }
    schema.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_event_that_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/events.jsonl");
        let lines = JsonLines::create(&path).unwrap();
        for message in ["one", "two\nlines"] {
            lines.observe(&Stamped { t: 0.25, event: Event::Note { message: message.into() } });
        }
        lines.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"t\":0.25,\"event\":\"note\",\"message\":\"one\"}\n{\"t\":0.25,\"event\":\"note\",\"message\":\"two\\nlines\"}\n"
        );
        for line in text.lines() {
            serde_json::from_str::<Stamped>(line).unwrap();
        }
    }

    #[test]
    fn a_failed_write_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = JsonLines::to(Path::new("e.jsonl"), Box::new(Full));
        lines.observe(&Stamped { t: 0.0, event: Event::Note { message: "x".into() } });
        assert!(lines.finish().unwrap_err().message.starts_with("failed to write e.jsonl: "));
    }

    #[test]
    fn the_schema_in_the_repository_is_current() {
        let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
        crate::observe::check_current("schemas/event.schema.json", &text).unwrap();
    }
}
