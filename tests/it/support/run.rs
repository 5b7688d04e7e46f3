//! What one call of the binary said, and assertions about it that read as a story.

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::Value;

/// A finished call.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// It ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }

    /// Ids of the nodes with this outcome (of `flow run --json -v`).
    #[track_caller]
    pub fn with_outcome(&self, outcome: &str) -> BTreeSet<String> {
        let json = self.json();
        let nodes = json["nodes"].as_array().expect("nodes");
        nodes
            .iter()
            .filter(|n| n["outcome"] == outcome)
            .map(|n| n["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Exactly these nodes ran.
    #[track_caller]
    pub fn ran<const N: usize>(self, nodes: [&str; N]) -> Self {
        self.outcome_is("ran", nodes)
    }

    /// Exactly these nodes were restored.
    #[track_caller]
    pub fn restored<const N: usize>(self, nodes: [&str; N]) -> Self {
        self.outcome_is("restored", nodes)
    }

    /// Exactly these nodes failed.
    #[track_caller]
    pub fn failed<const N: usize>(self, nodes: [&str; N]) -> Self {
        self.outcome_is("failed", nodes)
    }

    /// Exactly these nodes were skipped.
    #[track_caller]
    pub fn skipped<const N: usize>(self, nodes: [&str; N]) -> Self {
        self.outcome_is("skipped", nodes)
    }

    /// Exactly these nodes have the outcome.
    #[track_caller]
    pub fn outcome_is<const N: usize>(self, outcome: &str, nodes: [&str; N]) -> Self {
        let expected: BTreeSet<String> = nodes.iter().map(|n| (*n).to_owned()).collect();
        assert_eq!(self.with_outcome(outcome), expected, "{outcome}; stderr:\n{}", self.stderr);
        self
    }

    /// Every node was fresh.
    #[track_caller]
    pub fn all_fresh(self) -> Self {
        let json = self.json();
        for (outcome, count) in json["counts"].as_object().unwrap() {
            let wrong = outcome != "fresh" && count.as_u64() != Some(0);
            assert!(!wrong, "{}\n{}", json["counts"], self.stderr);
        }
        self
    }

    /// The report of one node.
    #[track_caller]
    pub fn node(&self, id: &str) -> Value {
        let json = self.json();
        let nodes = json["nodes"].as_array().expect("nodes").clone();
        nodes
            .into_iter()
            .find(|n| n["id"] == id)
            .unwrap_or_else(|| panic!("no node {id} in\n{}", self.stdout))
    }

    /// Standard error contains this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "expected {text:?} in stderr:\n{}", self.stderr);
        self
    }
}
