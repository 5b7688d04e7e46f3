//! Arguments of `flow load`: one load test in a line. Unaware of how it is done.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `flow load`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  flow load --endpoint http://127.0.0.1:8000 --model M --concurrency 16 --requests 200 --out out/load
  flow load --endpoint http://127.0.0.1:8000 --model M --rate 20 --arrival poisson --requests 600 --slo-ttft 0.5 --out out/load

DIR gets load.json (the workflow that was run: keep it, edit it, run it with `flow run load.json -C DIR`), prompts.jsonl,
requests.sqlite with a row per attempt, and summary.json. Each call measures again.

Exit status: as `flow run`; 1 also if no request succeeded or the client spoiled the measurement.")]
pub struct LoadArgs {
    /// Base URL of an OpenAI-compatible server; may be given more than once.
    #[arg(long, value_name = "URL", required = true)]
    pub endpoint: Vec<String>,
    /// The model to ask for.
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Requests in flight: closed loop, or the limit of an open one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), required_unless_present = "rate")]
    pub concurrency: Option<u64>,
    /// Requests per second: open loop.
    #[arg(long, value_name = "R", value_parser = positive)]
    pub rate: Option<f64>,
    /// Gaps of an open loop.
    #[arg(long, value_name = "KIND", default_value = "poisson", requires = "rate")]
    pub arrival: ArrivalKind,
    /// How many requests.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: u64,
    /// JSON Lines with `prompt` or `messages` [default: synthetic prompts].
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Words of a synthetic prompt.
    #[arg(long, value_name = "A", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1 << 20), conflicts_with = "prompts")]
    pub input_tokens: u64,
    /// Tokens of an answer.
    #[arg(long, value_name = "B", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub max_tokens: u64,
    /// Requests before the clock starts.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub warmup: u64,
    /// Ask /v1/completions instead of /v1/chat/completions.
    #[arg(long)]
    pub completions: bool,
    /// Ask for whole answers instead of streams.
    #[arg(long)]
    pub no_stream: bool,
    /// The variable of the environment that holds the API key; the key itself is recorded nowhere.
    #[arg(long, value_name = "NAME")]
    pub api_key_env: Option<String>,
    /// Limit of the time to first token, seconds, for goodput.
    #[arg(long, value_name = "S", value_parser = positive)]
    pub slo_ttft: Option<f64>,
    /// Limit of the time per output token, seconds, for goodput.
    #[arg(long, value_name = "S", value_parser = positive)]
    pub slo_tpot: Option<f64>,
    /// Decides the schedule and the prompts.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Keep a result that the client spoiled, marked.
    #[arg(long)]
    pub mark_client_bound: bool,
    /// Where the files go.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Gaps of an open loop.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrivalKind {
    /// Equal gaps.
    Constant,
    /// Exponential gaps.
    Poisson,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("expected a number above 0".to_owned()) }
}
