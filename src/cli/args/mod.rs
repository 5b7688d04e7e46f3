//! The command line as typed. Unaware of what the commands do.

mod cache;
mod later;
mod load;
mod log;
mod look;
mod run;
mod select;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anstream::ColorChoice;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use cache::{CacheArgs, CacheWhat, GcArgs};
pub use later::LaterArgs;
pub use load::{ArrivalKind, LoadArgs};
pub use log::{LogArgs, LogWhat};
pub use look::{
    CompletionsArgs, DevicesArgs, GraphArgs, GraphFormat, KeyArgs, LsArgs, NodeArgs, StagesArgs, WhyArgs,
};
pub use run::{
    CleanArgs, ExecArgs, GuardArgs, PlanArgs, Progress, RunArgs, SimArgs, StrictArgs, UpArgs, WatchArgs,
};
pub use select::{FileArgs, Restore, SelectArgs};

use crate::Result;
use crate::observe::Verbosity;
use later::not_yet;

/// make for LLM-inference benchmark and data pipelines.
///
/// A workflow file declares steps; flow runs what changed since the last run, brings everything else from its cache, and keeps a
/// record of every run.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "flow",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  flow run workflows/full.json             run what changed
  flow plan workflows/full.json            what would run, and why
  flow explain workflows/inferencemax.json process.merge   what the key of a node is made of"
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Workspace root: as if flow had been started in DIR.
    #[arg(short = 'C', global = true, value_name = "DIR", help_heading = "Global options")]
    pub directory: Option<PathBuf>,
    /// The artifact store [default: FLOW_CACHE, else cache/ in the workspace root].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub cache: Option<PathBuf>,
    /// When to use colours; `auto` looks at the terminal, NO_COLOR and CLICOLOR_FORCE.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub color: Color,
    /// Say failures only.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Say also what had nothing to do, and log lines.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
}

/// When to use colours.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// Where the stream shows them.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Global {
    /// `-q` and `-v` in one.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        }
    }

    /// The choice of colours for [`Printer::new`](crate::observe::Printer::new).
    pub fn color_choice(&self) -> ColorChoice {
        match self.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
    }

    /// `--cache`, else `environment` (the value of `FLOW_CACHE`; an empty one counts as none), else `cache`.
    pub fn cache_dir(&self, environment: Option<OsString>) -> PathBuf {
        let environment = environment.filter(|value| !value.is_empty()).map(PathBuf::from);
        self.cache.clone().or(environment).unwrap_or_else(|| Path::new("cache").to_owned())
    }
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Run what changed.
    Run(Box<RunArgs>),
    /// Run again when something changes that decides the run.
    Watch(Box<WatchArgs>),
    /// What would run, and why; runs nothing but probes.
    Plan(Box<PlanArgs>),
    /// Validate a workflow: every fault, with its place.
    Check(FileArgs),
    /// One digest of everything that decides the results: a key for a CI cache, the same before and after a run.
    Key(KeyArgs),
    /// A node's key, field by field: now and at its last success.
    Explain(NodeArgs),
    /// Which node makes a file, and from what.
    Why(WhyArgs),
    /// Nodes and their outputs.
    Ls(LsArgs),
    /// Draw the graph.
    Graph(GraphArgs),
    /// Past runs.
    Log(LogArgs),
    /// Remove outputs.
    Clean(CleanArgs),
    /// The built-in stages and their parameters.
    Stages(StagesArgs),
    /// JSON Schema of the workflow file.
    Schema,
    /// The artifact store.
    Cache(CacheArgs),
    /// One load test of a model server.
    Load(Box<LoadArgs>),
    /// Start a service and what it needs, print its URL, stop it at Ctrl-C.
    Up(UpArgs),
    /// Run a command in a node's environment.
    Exec(ExecArgs),
    /// What there is to lease.
    Devices(DevicesArgs),
    /// Completion script for a shell.
    Completions(CompletionsArgs),
    /// Ends what a dead run left behind.
    #[command(name = "__guard", hide = true)]
    Guard(GuardArgs),
    /// Runs a confined command.
    #[command(name = "__strict", hide = true)]
    Strict(StrictArgs),
    /// A built-in simulator, as a process of its own.
    #[command(name = "__sim", hide = true)]
    Sim(SimArgs),
    #[doc(hidden)]
    #[command(hide = true)]
    Report(LaterArgs),
    #[doc(hidden)]
    #[command(hide = true)]
    Init(LaterArgs),
}

impl Cli {
    /// Reads a command line, program name first. `embedded`: the workflow is part of the program
    /// ([`command_for`]). The error is clap's: it prints itself and knows its exit code (0 for help, 2 for wrong usage).
    pub fn parse_from_args(
        args: impl IntoIterator<Item = OsString>,
        embedded: bool,
    ) -> Result<Self, clap::Error> {
        let mut command = command_for(embedded);
        let matches = command.try_get_matches_from_mut(args)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Refuses what is parsed only to be refused by name: `not yet: ...`.
    pub fn refuse_later(&self) -> Result<()> {
        let what = match &self.command {
            Command::Run(run) => run.select.later.given(),
            Command::Watch(watch) => watch.run.select.later.given(),
            Command::Plan(plan) => plan.select.later.given(),
            Command::Cache(cache) => cache.what.later(),
            Command::Report(_) => Some("flow report"),
            Command::Init(_) => Some("flow init"),
            _ => None,
        };
        what.map_or(Ok(()), |what| Err(not_yet(what)))
    }
}

/// The whole command line.
pub fn command() -> clap::Command {
    Cli::command()
}

/// What stands for FILE where the workflow is part of the program.
pub const EMBEDDED: &str = "(built in)";

/// The command line of a program; if it brings its own workflow (`embedded`), the same without FILE.
pub fn command_for(embedded: bool) -> clap::Command {
    if !embedded {
        return command();
    }
    let mut command = command().after_help("");
    let with_file: Vec<String> = command
        .get_subcommands()
        .filter(|sub| sub.get_arguments().any(|arg| arg.get_id() == "file"))
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for sub in with_file {
        // As a hidden option FILE leaves its place to the positional arguments after it.
        command = command.mut_subcommand(sub, |sub| {
            sub.after_help("")
                .mut_arg("file", |arg| arg.long("file").hide(true).required(false).default_value(EMBEDDED))
        });
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::parse_from_args(std::iter::once("flow").chain(line.iter().copied()).map(OsString::from), false)
    }

    #[test]
    fn the_definition_is_sound_with_and_without_a_file() {
        command().debug_assert();
        command_for(true).debug_assert();
    }

    #[test]
    fn a_run_with_everything() {
        let line = "-C w run f.json a +b -j 3 --set k=[1] --set x.y=z --profile live --params p.json -k --force --no-cache \
                    --offline --no-wait --restore targets --json --events e.jsonl -v --progress plain --cache c";
        let cli = parse(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
        assert_eq!(cli.global.directory.as_deref(), Some(Path::new("w")));
        assert_eq!(cli.global.cache_dir(Some("env".into())), Path::new("c"));
        assert_eq!(cli.global.verbosity(), Verbosity::Verbose);
        let Command::Run(run) = &cli.command else { panic!("{cli:?}") };
        assert_eq!(run.select.targets, ["a", "+b"]);
        assert_eq!(run.jobs, Some(3));
        assert_eq!(run.select.workflow.set, [("k".to_owned(), json!([1])), ("x.y".to_owned(), json!("z"))]);
        assert_eq!(run.select.force.as_deref(), Some("*"));
        assert_eq!(run.select.restore, Some(Restore::Targets));
        assert!(run.keep_going && run.json && run.no_wait && run.select.offline && run.select.no_cache);
        assert_eq!(run.progress, Progress::Plain);
        cli.refuse_later().unwrap();
    }

    #[test]
    fn force_takes_a_pattern_only_after_an_equals_sign() {
        let forced = |line: &[&str]| match parse(line).unwrap().command {
            Command::Run(run) => (run.select.force.clone(), run.select.targets.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(forced(&["run", "f", "--force", "a"]), (Some("*".into()), vec!["a".into()]));
        assert_eq!(forced(&["run", "f", "--force=a*"]), (Some("a*".into()), vec![]));
        assert_eq!(forced(&["run", "f"]), (None, vec![]));
    }

    #[test]
    fn wrong_usage_exits_with_2_and_help_with_0() {
        for line in [
            &["run"][..],
            &["rnu", "f"],
            &["run", "f", "-q", "-v"],
            &["run", "f", "-j", "0"],
            &["run", "f", "--set", "novalue"],
            &["run", "f", "--restore", "some"],
            &["run", "f", "--frozen", "--force"],
            &["run", "f", "--adopt", "a", "--no-cache"],
            &["exec", "f", "n"],
            &["log", "diff", "a"],
            &[],
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
        assert_eq!(parse(&["run", "--help"]).unwrap_err().exit_code(), 0);
        assert_eq!(parse(&["--version"]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn what_is_planned_is_refused_by_name() {
        for (line, message) in [
            (&["plan", "f", "--part", "1/2"][..], "not yet: --part"),
            (&["report", "last", "--help"], "not yet: flow report"),
            (&["cache", "push", "s3://x"], "not yet: flow cache push"),
        ] {
            let error = parse(line).unwrap().refuse_later().unwrap_err();
            assert_eq!((error.message.as_str(), error.kind.exit_code()), (message, 2));
        }
        let help = command().render_long_help().to_string();
        assert!(!help.contains("__guard") && !help.contains("flow init"), "{help}");
    }

    #[test]
    fn the_log_without_a_word_is_the_list_and_with_a_run_shows_it() {
        let what = |line: &[&str]| match parse(line).unwrap().command {
            Command::Log(log) => log.what(),
            other => panic!("{other:?}"),
        };
        assert_eq!(what(&["log"]), LogWhat::List { json: false });
        assert_eq!(what(&["log", "--json"]), LogWhat::List { json: true });
        assert_eq!(what(&["log", "7f3a"]), LogWhat::Show { run: Some("7f3a".into()), json: false });
        assert_eq!(what(&["log", "show", "--json"]), LogWhat::Show { run: None, json: true });
        assert_eq!(what(&["log", "output", "n"]), LogWhat::Output { node: "n".into(), run: None });
    }

    #[test]
    fn a_program_with_its_own_workflow_takes_no_file() {
        let args = ["demo", "run", "merge", "-j", "2"].map(OsString::from);
        let cli = Cli::parse_from_args(args, true).unwrap();
        let Command::Run(run) = cli.command else { panic!() };
        assert_eq!(run.select.workflow.file, Path::new(EMBEDDED));
        assert_eq!(run.select.targets, ["merge"]);
    }

    #[test]
    fn the_cache_is_where_the_option_or_the_environment_says() {
        let global = Global::default();
        assert_eq!(global.cache_dir(None), Path::new("cache"));
        assert_eq!(global.cache_dir(Some("".into())), Path::new("cache"));
        assert_eq!(global.cache_dir(Some("/c".into())), Path::new("/c"));
    }
}
