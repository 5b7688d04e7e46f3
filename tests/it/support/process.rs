//! Processes that runs of a workspace started, seen from outside, and waiting for something to become true.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Workspace;

/// Longest time that anything may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);

/// Everything that runs of this workspace started and that still runs, guards included: pid and command line.
pub fn processes_of(workspace: &Workspace) -> Vec<(u32, String)> {
    let root = workspace.root().canonicalize().unwrap();
    let mark = format!("FLOW_ROOT={}", root.display());
    let runs: Vec<String> = fs::read_dir(root.join("cache/runs"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.split('.').next()?.to_owned()))
        .collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // of a zombie both are empty
        let words = |file: &str| -> Vec<String> {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        };
        let line = words("cmdline");
        let guard = line.get(1).is_some_and(|word| word == "__guard") && runs.contains(&line[2]);
        if guard || words("environ").contains(&mark) {
            found.push((pid, line.join(" ")));
        }
    }
    found
}

/// Looks until `done` holds; fails after `within`.
#[track_caller]
pub fn wait_for(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !done() {
        assert!(Instant::now() < deadline, "waited {within:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until nothing of the workspace's runs is left.
#[track_caller]
pub fn nothing_left(workspace: &Workspace, within: Duration) {
    let begun = Instant::now();
    loop {
        let left = processes_of(workspace);
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < within, "after {within:?} there are still {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process by its shell name (`INT`, `TERM`, `KILL`).
pub fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -s {name} {pid}");
}

/// What is in a directory, by name; nothing if there is none.
pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
