//! A throw-away workspace: files, edits, and calls of the binary in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::Run;

/// A workspace of its own, removed at the end of the test.
pub struct Workspace {
    dir: TempDir,
    env: Vec<(String, String)>,
}

/// The binary under test.
pub fn flow_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_flow"))
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shared fixtures, by `FLOW_FIXTURES` or beside the checkout. `None` says so; with `CI=true` their absence fails the test.
pub fn fixtures() -> Option<PathBuf> {
    let root = std::env::var_os("FLOW_FIXTURES")
        .map_or_else(|| repository().join("../shared/fixtures"), PathBuf::from);
    if root.is_dir() {
        return Some(root.canonicalize().unwrap());
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "no fixtures at {}: set FLOW_FIXTURES",
        root.display()
    );
    eprintln!("skipped: no fixtures at {} (set FLOW_FIXTURES)", root.display());
    None
}

impl Workspace {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("flow-it-").tempdir().unwrap(), env: Vec::new() }
    }

    /// One with the workflow `flow.json`.
    pub fn with(workflow: Value) -> Self {
        let workspace = Self::new();
        workspace.workflow(workflow);
        workspace
    }

    /// One with the repository's `workflows/` in it.
    pub fn shipped() -> Self {
        let workspace = Self::new();
        copy_tree(&repository().join("workflows"), &workspace.path("workflows"));
        workspace
    }

    /// Sets a variable for every call.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The root.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes `flow.json`; `name` may be left out.
    pub fn workflow(&self, mut workflow: Value) -> &Self {
        if workflow.get("name").is_none() {
            workflow["name"] = "test".into();
        }
        self.write("flow.json", serde_json::to_string_pretty(&workflow).unwrap())
    }

    /// Writes a file, making its directories.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Writes a file that can be executed.
    pub fn script(&self, path: &str, text: &str) -> &Self {
        use std::os::unix::fs::PermissionsExt;
        self.write(path, text);
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Removes a file or directory.
    pub fn remove(&self, path: &str) -> &Self {
        let path = self.path(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        self
    }

    /// The text of a file.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// A file as JSON.
    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.read(path)).unwrap()
    }

    /// Whether something is there.
    pub fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    /// All files below `dir` with their bytes, by path: to compare whole trees.
    pub fn tree(&self, dir: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
        fn walk(at: &Path, base: &Path, out: &mut std::collections::BTreeMap<String, Vec<u8>>) {
            for entry in fs::read_dir(at).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, base, out);
                } else {
                    let name = path.strip_prefix(base).unwrap().to_string_lossy().into_owned();
                    out.insert(name, fs::read(&path).unwrap());
                }
            }
        }
        let mut out = std::collections::BTreeMap::new();
        walk(&self.path(dir), &self.path(dir), &mut out);
        out
    }

    /// The binary with arguments, in this workspace, with a clean environment but for PATH and HOME.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(flow_binary());
        command.args(args).current_dir(self.root()).env_clear().stdin(Stdio::null());
        for name in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Any call.
    pub fn flow(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// `flow run flow.json --json -v` and more arguments; whatever comes of it.
    pub fn run(&self, args: &[&str]) -> Run {
        self.run_file("flow.json", args)
    }

    /// The same for another file.
    pub fn run_file(&self, file: &str, args: &[&str]) -> Run {
        let all: Vec<&str> = ["run", file, "--json", "-v"].iter().chain(args).copied().collect();
        self.flow(&all)
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
