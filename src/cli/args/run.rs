//! Arguments of the commands that act: run, plan, clean, up, exec and the hidden ones. Unaware of how they do it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values;
use super::{FileArgs, SelectArgs};
use crate::observe::ProgressMode;

/// `flow run`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  flow run workflows/full.json
  flow run workflows/inferencemax.json --set 'models=[\"gpt-oss-120b\"]' process.merge
  flow run workflows/full.json --force='*.fetch*' --json > result.json

Exit status: 0 ok, 1 a step failed, 2 wrong usage, 3 invalid workflow, 4 environment, 70 a bug in flow, 130 and 143 interrupted.")]
pub struct RunArgs {
    /// What to run.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Nodes at once [default: number of CPUs].
    #[arg(short, long, value_name = "N", value_parser = values::jobs)]
    pub jobs: Option<usize>,
    /// After a failure go on with everything that does not need what failed.
    #[arg(short, long)]
    pub keep_going: bool,
    /// Run nothing: bring back what the cache has, ask validating stages, and fail naming every node that would run.
    #[arg(long, conflicts_with_all = ["force", "remeasure", "adopt", "no_cache", "dry_run"])]
    pub frozen: bool,
    /// Same as `flow plan`.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Do not wait for another run of this workspace: exit 4.
    #[arg(long)]
    pub no_wait: bool,
    /// Confine each command that runs to its declared inputs and outputs and the system's files (Landlock).
    #[arg(long)]
    pub strict: bool,
    /// Afterwards run nodes that match PATTERN twice more and compare what they make, byte by byte; results stay as they are.
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["frozen", "dry_run"])]
    pub check_determinism: Option<String>,
    /// Print one JSON object on standard output at the end.
    #[arg(long)]
    pub json: bool,
    /// Write the event stream to FILE as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Write the run to FILE as Chrome trace events, for ui.perfetto.dev or chrome://tracing.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// How to show progress.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: Progress,
}

/// How to show progress.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A bar on a terminal, plain lines in a pipe.
    #[default]
    Auto,
    /// Plain lines.
    Plain,
    /// Failures, notes and the summary.
    None,
}

impl From<Progress> for ProgressMode {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Auto => Self::Auto,
            Progress::Plain => Self::Plain,
            Progress::None => Self::None,
        }
    }
}

/// `flow watch`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  flow watch workflows/full.json
  flow watch workflows/full.json --restart --debounce 500 report

Everything that decides the run is watched: its input files and what its patterns list, the workflow with its includes and parameter
files, tools given by path, and its outputs: one that is changed by hand is brought back. A fault of the workflow is shown, and the
watch goes on when it is mended. Services are stopped between runs. --force, --remeasure and --adopt mean the first run. With --json there is
one line for each run; --events FILE holds the streams of all runs, one after another, --trace FILE the last run.

Exit status: 130 after Ctrl-C, 143 after SIGTERM; that of `flow run` if the first run cannot begin.")]
pub struct WatchArgs {
    /// What to run, and how.
    #[command(flatten)]
    pub run: RunArgs,
    /// How long nothing may change before a run begins, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=60_000), help_heading = "Watching")]
    pub debounce: u64,
    /// Look at all files every MS milliseconds rather than being told by the system: for network mounts.
    #[arg(long, value_name = "MS", num_args = 0..=1, require_equals = true, default_missing_value = "1000", value_parser = clap::value_parser!(u64).range(10..), help_heading = "Watching")]
    pub poll: Option<u64>,
    /// When an input changes during a run, end that run and begin again [default: one more run after it].
    #[arg(long, help_heading = "Watching")]
    pub restart: bool,
    /// Clear the terminal before each run.
    #[arg(long, help_heading = "Watching")]
    pub clear: bool,
}

/// `flow plan`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow plan workflows/full.json --set out=out/new")]
pub struct PlanArgs {
    /// What to plan.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `flow clean`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow clean workflows/full.json --orphans -n")]
pub struct CleanArgs {
    /// The workflow.
    #[command(flatten)]
    pub workflow: FileArgs,
    /// Only files that earlier runs published and that no node declares now.
    #[arg(long)]
    pub orphans: bool,
    /// Name what would be removed.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Do not wait for a run of this workspace: exit 4.
    #[arg(long)]
    pub no_wait: bool,
}

/// `flow up`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow up workflows/full.json inferencemax.dashboard")]
pub struct UpArgs {
    /// The workflow.
    #[command(flatten)]
    pub workflow: FileArgs,
    /// Service id.
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// `flow exec`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow exec workflows/full.json inferencemax.process.merge -- env")]
pub struct ExecArgs {
    /// The workflow.
    #[command(flatten)]
    pub workflow: FileArgs,
    /// Node id.
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Do not wait for a run of this workspace: exit 4.
    #[arg(long)]
    pub no_wait: bool,
    /// Program and arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `flow __guard`
#[derive(Args, Clone, Debug)]
pub struct GuardArgs {
    /// Run id.
    pub run: String,
}

/// `flow __sim`
#[derive(Args, Clone, Debug)]
pub struct SimArgs {
    /// Simulator, e.g. `sim.http`.
    pub name: String,
    /// Its parameters as JSON.
    pub with: String,
}

/// `flow __strict`
#[derive(Args, Clone, Debug)]
pub struct StrictArgs {
    /// What to run, and what it may touch.
    pub spec: PathBuf,
    /// Become the program instead of following it.
    #[arg(long)]
    pub inner: bool,
}
