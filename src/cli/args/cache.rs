//! Arguments of `flow cache`. Unaware of the store.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::LaterArgs;
use super::values;

/// `flow cache`
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "WHAT")]
pub struct CacheArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub what: CacheWhat,
}

/// What `flow cache` does.
#[derive(Subcommand, Clone, Debug)]
pub enum CacheWhat {
    /// Results, blobs, sizes, runs.
    Stats {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read everything and compare it with its digest; exit 4 if something is damaged.
    Verify {
        /// Take away what is damaged, so that it is made again; a damaged database is made anew from what can be read of it.
        #[arg(long)]
        repair: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove bytes that are not needed; records and digests stay.
    Gc(GcArgs),
    #[doc(hidden)]
    #[command(hide = true)]
    Export(LaterArgs),
    #[doc(hidden)]
    #[command(hide = true)]
    Import(LaterArgs),
    #[doc(hidden)]
    #[command(hide = true)]
    Push(LaterArgs),
    #[doc(hidden)]
    #[command(hide = true)]
    Pull(LaterArgs),
}

/// `flow cache gc`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow cache gc --max-size 20GiB --keep-runs 10")]
pub struct GcArgs {
    /// Remove the longest unused blobs until the store is no larger.
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub max_size: Option<u64>,
    /// Remove blobs that nobody used for so long.
    #[arg(long, value_name = "AGE", value_parser = values::age)]
    pub max_age: Option<Duration>,
    /// Never remove what the last N runs made or used; alone: remove everything else that is not published.
    #[arg(long, value_name = "N")]
    pub keep_runs: Option<usize>,
    /// Do not spare measurements, which cannot be made again.
    #[arg(long)]
    pub samples: bool,
    /// Name what would be removed.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Do not wait for a run that uses the store: exit 4.
    #[arg(long)]
    pub no_wait: bool,
}

impl CacheWhat {
    /// The command that is planned, if this is one.
    pub(super) fn later(&self) -> Option<&'static str> {
        match self {
            Self::Export(_) => Some("flow cache export"),
            Self::Import(_) => Some("flow cache import"),
            Self::Push(_) => Some("flow cache push"),
            Self::Pull(_) => Some("flow cache pull"),
            Self::Stats { .. } | Self::Verify { .. } | Self::Gc(_) => None,
        }
    }
}
