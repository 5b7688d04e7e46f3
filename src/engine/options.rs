//! What a run is asked to do, and what it answers. Unaware of how.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::watchlist::Seen;
use crate::base::digest::Digest;
use crate::error::Kind;
use crate::exec::JobPool;

/// Options of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// As typed; empty means all.
    pub targets: Vec<String>,
    /// CPU slots.
    pub jobs: usize,
    /// Go on with what does not need the failed node.
    pub keep_going: bool,
    /// Run although the result is known.
    pub force: Force,
    /// Measure these samples again.
    pub remeasure: Option<String>,
    /// Record what is there as the result of these nodes, if they have none.
    pub adopt: Option<String>,
    /// Run nothing: a node that would run fails. Goes on after failures.
    pub frozen: bool,
    /// Neither read nor write results.
    pub no_cache: bool,
    /// Do not ask validating stages.
    pub offline: bool,
    /// Whose outputs are brought into place; by default all without targets, else those of the targets.
    pub restore: Option<Restore>,
    /// The job tokens of a make that started this run; it takes its slots from there.
    pub jobserver: Option<Arc<JobPool>>,
    /// Say afterwards which paths were looked at.
    pub note_seen: bool,
    /// Do not wait for another run of this workspace.
    pub no_wait: bool,
    /// Confine commands to what they declare.
    pub strict: bool,
    /// Run these nodes twice more, and compare what they make.
    pub check_determinism: Option<String>,
    /// Where a certificate goes if there was nothing to do, and files besides the workflow's that decided what to run.
    pub certificate: Option<(PathBuf, Vec<PathBuf>)>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            keep_going: false,
            force: Force::Nothing,
            remeasure: None,
            adopt: None,
            frozen: false,
            no_cache: false,
            offline: false,
            restore: None,
            jobserver: None,
            note_seen: false,
            no_wait: false,
            strict: false,
            check_determinism: None,
            certificate: None,
        }
    }
}

/// What to run although its result is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Force {
    /// Nothing.
    Nothing,
    /// Every selected node.
    All,
    /// Nodes that match.
    Matching(String),
}

/// Whose outputs are brought into place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// Those of every selected node.
    All,
    /// Those of the targets; without targets, of nodes that nobody takes anything of.
    Targets,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Run id.
    pub run: String,
    /// Digest of the expanded graph.
    pub plan_digest: Digest,
    /// `None` if all went well.
    pub failure: Option<Kind>,
    /// Began from a certificate, and something was made again that it counted on: everything has to be looked at.
    pub incomplete: bool,
    /// Wall time.
    pub elapsed: Duration,
    /// Every path that was looked at, as it was then, if [`RunOptions::note_seen`] asks for it.
    pub seen: Vec<(PathBuf, Seen)>,
}
