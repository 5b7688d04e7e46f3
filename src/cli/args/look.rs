//! Arguments of the commands that only look. Unaware of what they find.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::FileArgs;

/// `flow key`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  key=$(flow key workflows/full.json)   # name of a CI cache")]
pub struct KeyArgs {
    /// The workflow.
    #[command(flatten)]
    pub workflow: FileArgs,
    /// As in `flow run` [default: all].
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// `flow explain`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow explain workflows/full.json 'inferencemax.fetch[model=gpt-oss-120b,seq=1k_1k,kind=e2e]'")]
pub struct NodeArgs {
    /// The workflow.
    #[command(flatten)]
    pub workflow: FileArgs,
    /// Node id.
    #[arg(value_name = "NODE")]
    pub node: String,
}

/// `flow why`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow why workflows/full.json out/inferencemax/inference_max_merged.csv")]
pub struct WhyArgs {
    /// The workflow.
    #[command(flatten)]
    pub workflow: FileArgs,
    /// A file of the workspace.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// `flow devices`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  flow devices
  flow devices --json > node7.json      # there; here: flow run FILE --hardware node7.json")]
pub struct DevicesArgs {
    /// Which ones, as in `flow run` [default: gpu:auto].
    #[arg(long, value_name = "SPEC")]
    pub devices: Option<String>,
    /// Print JSON: the hardware that measurements depend on.
    #[arg(long)]
    pub json: bool,
}

/// `flow ls`
#[derive(Args, Clone, Debug)]
pub struct LsArgs {
    /// The workflow.
    #[command(flatten)]
    pub workflow: FileArgs,
    /// Only files that earlier runs published and that no node declares now.
    #[arg(long)]
    pub orphans: bool,
}

/// `flow graph`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow graph workflows/full.json --format svg > graph.svg")]
pub struct GraphArgs {
    /// The workflow.
    #[command(flatten)]
    pub workflow: FileArgs,
    /// Form of the drawing.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: GraphFormat,
}

/// Form of the drawing of a graph.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphFormat {
    /// A picture.
    Svg,
    /// Graphviz.
    Dot,
    /// Mermaid, for Markdown.
    Mermaid,
    /// Nodes and edges.
    Json,
    /// Lines for a terminal.
    #[default]
    Text,
}

/// `flow stages`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow stages csv.join")]
pub struct StagesArgs {
    /// One stage in full [default: one line for each].
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// `flow completions`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  flow completions bash > ~/.local/share/bash-completion/completions/flow")]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
