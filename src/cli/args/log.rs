//! Arguments of `flow log`. Unaware of run records.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `flow log`
#[derive(Args, Clone, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_value_name = "WHAT",
    after_help = "\
RUN is the id of a run, the beginning or end of one, or `last`.

Examples:
  flow log                     the runs of this workspace
  flow log show last           what the last run did
  flow log output lengths      what a node of the last run wrote
  flow log critical-path       why the last run took as long as it did
  flow log trace -o t.json     the last run for ui.perfetto.dev
  flow log diff 7f3a last      nodes whose key or outcome differs"
)]
pub struct LogArgs {
    /// What to show.
    #[command(subcommand)]
    what: Option<LogWhat>,
    /// Run to show [default: the list of runs].
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `flow log` shows.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum LogWhat {
    /// The runs, oldest first.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// One run: what became of its nodes, failures, services (with -v also fresh nodes).
    Show {
        /// Run [default: last].
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The log lines of one node or service.
    Output {
        /// Node or service id.
        #[arg(value_name = "NODE")]
        node: String,
        /// Of this run [default: last].
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
    },
    /// Nodes whose key or outcome differs between two runs.
    Diff {
        /// First run.
        #[arg(value_name = "A")]
        a: String,
        /// Second run.
        #[arg(value_name = "B")]
        b: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The chain of nodes that decided how long a run took: what each waited for, and what it would save at best.
    CriticalPath {
        /// Run [default: last].
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a run as Chrome trace events, for ui.perfetto.dev or chrome://tracing.
    Trace {
        /// Run [default: last].
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// File to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

impl LogArgs {
    /// What is to be shown: `flow log RUN` is `flow log show RUN`, `flow log` is `flow log list`.
    pub fn what(&self) -> LogWhat {
        match (&self.what, &self.run) {
            (Some(what), _) => what.clone(),
            (None, None) => LogWhat::List { json: self.json },
            (None, Some(run)) => LogWhat::Show { run: Some(run.clone()), json: self.json },
        }
    }
}
