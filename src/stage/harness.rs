//! Runs one stage on files of a temporary directory, as the engine would: for the stages' unit tests.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::api::{Done, InputFile, Previous, Stage, StageContext, StageError};

/// A stage under test with its inputs and parameters.
pub(crate) struct Bench<'s> {
    stage: &'s dyn Stage,
    dir: TempDir,
    inputs: Vec<(String, InputFile)>,
    with: Value,
    pub(crate) previous: Option<Previous>,
    pub(crate) current_entries: Vec<PathBuf>,
}

/// What a run of the stage left behind.
pub(crate) struct Finished {
    pub(crate) result: Result<Done, StageError>,
    pub(crate) record: Map<String, Value>,
    pub(crate) removed_entries: Vec<PathBuf>,
    pub(crate) log: Vec<String>,
    out: PathBuf,
    _dir: TempDir,
}

impl<'s> Bench<'s> {
    pub(crate) fn new(stage: &'s dyn Stage, with: Value) -> Self {
        let dir = TempDir::new().unwrap();
        Self { stage, dir, inputs: Vec::new(), with, previous: None, current_entries: Vec::new() }
    }

    /// Adds a file to the input `name`.
    pub(crate) fn file(mut self, name: &str, file: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.dir.path().join("in").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        self.inputs.push((name.to_owned(), InputFile { path, name: file.to_owned() }));
        self
    }

    /// Adds an existing file to the input `name`; its name is the last component.
    pub(crate) fn path(mut self, name: &str, path: &Path) -> Self {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        self.inputs.push((name.to_owned(), InputFile { path: path.to_owned(), name: file }));
        self
    }

    /// Checks the parameters, runs the stage with the given outputs (a trailing `/` makes a directory).
    pub(crate) fn run(self, outputs: &[&str]) -> Finished {
        if let Err(fault) = self.stage.check(&self.with) {
            panic!("parameter {}: {}", fault.path, fault.message);
        }
        let out = self.dir.path().join("out");
        std::fs::create_dir_all(&out).unwrap();
        let mut log = Vec::new();
        let mut sink = |line: &str| log.push(line.to_owned());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut inputs = indexmap::IndexMap::new();
        for (name, file) in self.inputs {
            inputs.entry(name).or_insert_with(Vec::new).push(file);
        }
        let outputs = outputs
            .iter()
            .map(|name| {
                let path = out.join(name.trim_end_matches('/'));
                if name.ends_with('/') {
                    std::fs::create_dir_all(&path).unwrap();
                }
                (name.trim_end_matches('/').to_owned(), path)
            })
            .collect();
        let mut ctx = StageContext {
            inputs,
            outputs,
            with: self.with,
            previous: self.previous,
            cancel: Default::default(),
            current_entries: self.current_entries,
            removed_entries: Vec::new(),
            record: Map::new(),
            log: &mut sink,
            runtime: runtime.handle(),
        };
        let result = self.stage.run(&mut ctx);
        let (record, removed_entries) = (ctx.record, ctx.removed_entries);
        Finished { result, record, removed_entries, log, out, _dir: self.dir }
    }
}

impl Finished {
    /// Panics with the message if the stage failed.
    pub(crate) fn ok(self) -> Self {
        if let Err(error) = &self.result {
            panic!("stage failed: {}", error.message);
        }
        self
    }

    /// Where the output `name` was to be written.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// The text of an output.
    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// An output as JSON.
    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }
}

/// The shared fixtures, by `FLOW_FIXTURES` or beside the checkout; `None` says so on standard error (with `CI=true`: panics).
pub(crate) fn fixtures() -> Option<PathBuf> {
    let root = std::env::var_os("FLOW_FIXTURES")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"));
    if root.is_dir() {
        return Some(root);
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "fixtures not found at {} (set FLOW_FIXTURES)",
        root.display()
    );
    #[allow(clippy::print_stderr)] // a skipped test has to say so
    {
        eprintln!("skipped: no fixtures at {} (set FLOW_FIXTURES)", root.display());
    }
    None
}
