//! What a running stage sees: its inputs, outputs, parameters, a cancel token, a place for log lines and for its record.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{StageError, parse_params};

/// The member of a result's record that says why it stands in this workspace only.
pub const LOCAL: &str = "local_only";

/// Set once, when the attempt has to end.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the attempt to end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// True once the attempt has to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// One input file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where to read it.
    pub path: PathBuf,
    /// Its name in messages and reports: relative to the workspace root (outside the root: file name).
    pub name: String,
}

impl InputFile {
    /// The last component of the name.
    pub fn file_name(&self) -> &str {
        self.name.trim_end_matches('/').rsplit('/').next().unwrap_or(&self.name)
    }

    /// Reads it whole.
    pub fn read(&self) -> Result<Vec<u8>, StageError> {
        std::fs::read(&self.path).map_err(|e| StageError::io("read", Path::new(&self.name), e))
    }

    /// Reads a JSON value; an error names file and line.
    pub fn read_json<T: DeserializeOwned>(&self) -> Result<T, StageError> {
        let bytes = self.read()?;
        serde_json::from_slice(&bytes)
            .map_err(|e| StageError::not_json(&format!("{}:{}", self.name, e.line()), bytes.as_slice(), &e))
    }

    /// Reads it whole as UTF-8.
    pub fn read_text(&self) -> Result<String, StageError> {
        String::from_utf8(self.read()?).map_err(|e| {
            StageError::new(format!(
                "{}: not UTF-8 (first bad byte at offset {})",
                self.name,
                e.utf8_error().valid_up_to()
            ))
        })
    }
}

/// The result that stood before (policy validate, equal key).
#[derive(Clone, Debug)]
pub struct Previous {
    /// What the stage put into [`StageContext::record`] then.
    pub record: Map<String, Value>,
}

/// Everything a stage may touch.
pub struct StageContext<'a> {
    /// Input files by input name, in order.
    pub inputs: IndexMap<String, Vec<InputFile>>,
    /// Where to write each declared output (a scratch path whose parent exists; a directory output exists, empty).
    pub outputs: IndexMap<String, PathBuf>,
    /// `with`, with late references and secrets filled in.
    pub with: Value,
    /// The result to validate, if any.
    pub previous: Option<Previous>,
    /// Ends early when set.
    pub cancel: CancelToken,
    /// Entries of append directories that some node contributes now, relative to the workspace root: never to be removed.
    pub current_entries: Vec<PathBuf>,
    /// Entries of append directories that the stage removed: they count as in place from now on.
    pub removed_entries: Vec<PathBuf>,
    /// What differs on every run (times, addresses, ETags): kept in the run record, in no output.
    pub record: Map<String, Value>,
    /// Takes log lines.
    pub log: &'a mut (dyn FnMut(&str) + Send),
    /// The runtime for waiting work.
    pub runtime: &'a tokio::runtime::Handle,
}

impl StageContext<'_> {
    /// The typed parameters.
    pub fn params<P: DeserializeOwned>(&self) -> Result<P, StageError> {
        parse_params(&self.with).map_err(|f| StageError::new(format!("parameter {}: {}", f.path, f.message)))
    }

    /// The result of this attempt stands in this workspace only, for a reason that people are told: no other workspace takes it from a cache, and
    /// it is handed on to no other cache.
    pub fn keep_local(&mut self, why: &str) {
        self.record.insert(LOCAL.to_owned(), why.into());
    }

    /// The only file of an input.
    pub fn input(&self, name: &str) -> Result<&InputFile, StageError> {
        match self.files(name) {
            [file] => Ok(file),
            other => Err(StageError::new(format!("input '{name}' takes one file, {} given", other.len()))),
        }
    }

    /// All files of an input; empty if it was not declared.
    pub fn files(&self, name: &str) -> &[InputFile] {
        self.inputs.get(name).map_or(&[], Vec::as_slice)
    }

    /// Where to write an output; an error if the step does not declare it.
    pub fn output(&self, name: &str) -> Result<&Path, StageError> {
        self.outputs
            .get(name)
            .map(PathBuf::as_path)
            .ok_or_else(|| StageError::new(format!("output '{name}' is not declared")))
    }

    /// Writes an output whole. Nothing happens if the step does not declare it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StageError> {
        match self.outputs.get(name) {
            None => Ok(()),
            Some(path) => {
                std::fs::write(path, bytes).map_err(|e| StageError::io("write output", Path::new(name), e))
            }
        }
    }

    /// Writes an output as JSON with 2-space indent and a final newline, as it is made: the text is never held whole. Nothing
    /// happens if the step does not declare it.
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<(), StageError> {
        let Some(path) = self.outputs.get(name) else { return Ok(()) };
        let failed = |e: std::io::Error| StageError::io("write output", Path::new(name), e);
        let mut file = BufWriter::with_capacity(1 << 16, File::create(path).map_err(failed)?);
        serde_json::to_writer_pretty(&mut file, value)
            .map_err(|e| StageError::new(format!("output '{name}': {e}")))?;
        file.write_all(b"\n").and_then(|()| file.flush()).map_err(failed)
    }

    /// A line for the node's log.
    pub fn log(&mut self, line: impl AsRef<str>) {
        (self.log)(line.as_ref());
    }
}
