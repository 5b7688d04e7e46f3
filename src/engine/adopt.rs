//! Adoption: what lies in the declared places is recorded as the result of a node's key, and nothing runs. Unaware of which nodes.

use serde_json::json;

use super::attempt::{End, Failure, Job};
use super::collect::{self, Made};
use super::evaluate::{Keyed, artifacts_of, differing, looks};
use super::publish::{self, PlaceError};
use crate::base::clock;
use crate::error::{Error, Result};
use crate::graph::{Node, Output};
use crate::model::Artifact;
use crate::store::{RESULT_VERSION, ResultRecord};

/// The member of a result's record that says that it was adopted: `{"run", "reason", "from"}`.
pub(super) const ADOPTED: &str = "adopted";

/// The run in which a result was adopted, if it was.
pub(super) fn adopted_in(record: &ResultRecord) -> Option<&str> {
    record.record.get(ADOPTED)?.get("run")?.as_str()
}

impl Job<'_> {
    /// Takes what is there as the result of the key. All outputs have to be there: what an earlier success of the node made and is
    /// gone comes from the cache.
    pub(super) fn adopt(&mut self, keyed: &Keyed, reason: &str) -> End {
        match self.take_over(keyed, reason) {
            Ok(artifacts) => End::Adopted(artifacts),
            Err(failure) => End::Failed(failure),
        }
    }

    fn take_over(&mut self, keyed: &Keyed, reason: &str) -> std::result::Result<Vec<Artifact>, Failure> {
        let (session, node) = (self.session, self.node);
        let project = &session.project;
        let row = project.workspace.node_summary(project.root_file(), &node.id);
        let last = match &row {
            Some(row) => project.store.result(&row.key).map_err(Failure::from)?,
            None => None,
        };
        self.bring_missing(last.as_deref()).map_err(Failure::from)?;
        let mut artifacts = Vec::with_capacity(node.outputs.len());
        let mut missing = Vec::new();
        for (index, output) in node.outputs.iter().enumerate() {
            let place = project.root.join(&output.path);
            let found = if output.append {
                last.as_ref().map(|last| artifacts_of(last, node)[index].clone())
            } else {
                let made = Made { path: place, direct: true, precreated: false };
                collect::one(session, output, &made).map_err(Failure::from)?.map(|found| found.artifact)
            };
            match found {
                Some(artifact) => artifacts.push(artifact),
                None if output.optional => artifacts.push(Artifact::Absent),
                None => missing.push(lacking(output)),
            }
        }
        if !missing.is_empty() {
            return Err(Failure {
                hints: vec!["put it there, or leave the node out of --adopt to let it run".to_owned()],
                ..Failure::new(format!("cannot be adopted: {}", missing.join("; ")))
            });
        }
        self.record_adopted(keyed, reason, last.as_deref(), &artifacts).map_err(Failure::from)?;
        publish::claim(session, node, &artifacts).map_err(Failure::from)?;
        super::attempt::remember(session, node, keyed, None);
        for look in looks(project, node) {
            self.finder.forget(&look.path);
        }
        Ok(artifacts)
    }

    /// Outputs of the last success that are not in place, from the cache; what the cache has lost is missing, and said later. What
    /// lies there and differs stays: it is what is adopted.
    fn bring_missing(&self, last: Option<&ResultRecord>) -> Result<()> {
        let Some(last) = last else { return Ok(()) };
        let (session, node) = (self.session, self.node);
        let there =
            |output: &Output| std::fs::symlink_metadata(session.project.root.join(&output.path)).is_ok();
        let mut gone = Vec::new();
        for (index, _) in differing(&session.project, self.finder, node, last)? {
            let output = &node.outputs[index];
            if output.append || (!there(output) && artifacts_of(last, node)[index] != Artifact::Absent) {
                gone.push(index);
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        match publish::restore(session, node, last, &gone, &self.scratch()?) {
            Ok(()) | Err(PlaceError::Lost(_)) => Ok(()),
            Err(PlaceError::Fault(error)) => Err(error),
        }
    }

    /// The result row. Equal outputs keep what the stage recorded when it made them.
    fn record_adopted(
        &self,
        keyed: &Keyed,
        reason: &str,
        last: Option<&ResultRecord>,
        artifacts: &[Artifact],
    ) -> Result<()> {
        let (session, node) = (self.session, self.node);
        let now = clock::now_ns();
        let same = last.filter(|last| artifacts_of(last, node) == artifacts);
        let mut record = same.cloned().unwrap_or_else(|| ResultRecord {
            version: RESULT_VERSION,
            node: node.id.clone(),
            run: session.run.clone(),
            made_at_ns: now,
            checked_at_ns: now,
            seconds: 0.0,
            outputs: Vec::new(),
            record: serde_json::Map::new(),
        });
        record.outputs = node.outputs.iter().map(|o| o.name.clone()).zip(artifacts.iter().cloned()).collect();
        record.record.insert("policy".to_owned(), node.policy.as_str().into());
        let from = last.map(|last| last.run.as_str());
        record.record.insert(ADOPTED.to_owned(), json!({"run": session.run, "reason": reason, "from": from}));
        session.project.store.put_result(&keyed.key, &record)
    }
}

fn lacking(output: &Output) -> String {
    if output.append {
        return format!(
            "what it contributes to the append directory '{}' ({}) is not known",
            output.name, output.path
        );
    }
    format!("output '{}' ({}) is not there", output.name, output.path)
}

/// Whether a node can be adopted at all: what runs every time has no result to record, and what a command with a depfile reads is
/// known only when it has run.
pub(super) fn adoptable(node: &Node) -> bool {
    node.policy != crate::model::Policy::Never && node.depfile().is_none()
}

/// A measurement whose key differs only by the version of flow or of its stage: somebody has to say what it is worth now.
pub(super) fn undecided(node: &Node, what: &str) -> Error {
    let mut error = Error::step(format!("{what}: a measurement is never repeated by itself"));
    if adoptable(node) {
        error = error.hint(format!("--adopt '{}' records what is there under the new key", node.id));
    }
    error.hint(format!("--remeasure '{}' measures again", node.id))
}
