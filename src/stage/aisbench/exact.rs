//! What AISBench computes of requests, unrounded. Unaware of files and of how numbers are written.
//!
//! Definitions: AISBench 3.1.20260630 (`calculators` and `metrics` of its performance summariser); rule set `aisbench` of the metrics.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::stable::{Stable, StableRule, stable};
use crate::stage::metrics::row::Row;
use crate::stage::metrics::rules::{Rules, Timing};
use crate::stage::metrics::spread::{Spread, sum};

/// The numbers of a whole run. Times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Common {
    /// From the first send to the end of the last success; of the stable stage its length.
    pub benchmark_duration_s: f64,
    /// Requests.
    pub total: usize,
    /// Requests that succeeded.
    pub success: usize,
    /// Requests that failed.
    pub failed: usize,
    /// Sum of latencies / duration; in the stable stage at most `max_concurrency`.
    pub concurrency: Value,
    /// What was allowed, not measured.
    pub max_concurrency: u64,
    /// Successes / duration.
    pub request_throughput: f64,
    /// Tokens of the prompts.
    pub input_tokens: u64,
    /// Tokens of the answers.
    pub generated_tokens: u64,
    /// Tokens of the prompts / duration.
    pub input_token_throughput: f64,
    /// Tokens of the answers / duration.
    pub output_token_throughput: f64,
    /// All tokens / duration.
    pub total_token_throughput: f64,
    /// Tokens of the prompts / sum of TTFT.
    pub prefill_token_throughput_pooled: f64,
    /// Gaps between events, of all requests.
    pub itl_intervals: usize,
}

/// One quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// As in the tool's table.
    pub name: &'static str,
    /// What follows a number.
    pub unit: Unit,
    /// Mean, extremes, percentiles 50, 75, 90, 99; `None` without a value.
    pub spread: Option<Spread>,
    /// The tool's column N.
    pub n: usize,
}

/// How a quantity is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds; shown in ms.
    Seconds,
    /// Tokens.
    Tokens,
    /// Tokens per second.
    Rate,
}

/// A run or its stable stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Numbers of the whole.
    pub common: Common,
    /// Quantities of requests.
    pub quantities: Vec<Quantity>,
}

/// Everything there is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Exact {
    /// The whole run.
    pub total: Stage,
    /// When it began, seconds on the requests' clock.
    pub begin: f64,
    /// The stable stage by both rules.
    pub stable: [Option<(Stable, Stage)>; 2],
}

impl Exact {
    /// Of requests of which `max` may be in flight; `None` if none succeeded.
    pub fn of(rows: &[Row], max: u64) -> Option<Self> {
        let timings: Vec<Timing> = rows.iter().filter_map(|row| Rules::Aisbench.timing(row).ok()).collect();
        let begin = timings.iter().map(|t| t.start).min_by(f64::total_cmp)?;
        let end = timings.iter().map(|t| t.end).max_by(f64::total_cmp)?;
        let all: Vec<&Timing> = timings.iter().collect();
        let total = Stage::of(&all, rows.len(), end - begin, max, false);
        let spans: Vec<(f64, f64)> = timings.iter().map(|t| (t.start, t.end)).collect();
        let by = |rule| {
            let found = stable(&spans, max, rule)?;
            let inside: Vec<&Timing> = found.requests.iter().map(|n| &timings[*n]).collect();
            let stage = Stage::of(&inside, inside.len(), found.window.1 - found.window.0, max, true);
            Some((found, stage))
        };
        Some(Self { total, begin, stable: [by(StableRule::Release), by(StableRule::Head)] })
    }

    /// The stable stage by a rule.
    pub fn stable(&self, rule: StableRule) -> Option<&Stage> {
        let of_rule = match rule {
            StableRule::Release => &self.stable[0],
            StableRule::Head => &self.stable[1],
        };
        of_rule.as_ref().map(|(_, stage)| stage)
    }

    /// All of it; `files`: what the requests were read from.
    pub fn json(&self, files: &[String]) -> Value {
        let stable = |found: &Option<(Stable, Stage)>| {
            found.as_ref().map(|(stable, stage)| {
                json!({
                    "window_rel_s": [stable.window.0 - self.begin, stable.window.1 - self.begin],
                    "requests": stable.requests.len(),
                    "common": stage.common,
                    "metrics": stage.metrics(),
                })
            })
        };
        json!({
            "files": files,
            "total_stage": { "common": self.total.common, "metrics": self.total.metrics() },
            "stable_rule_release_3.1.20260630": stable(&self.stable[0]),
            "stable_rule_head_2026_08": stable(&self.stable[1]),
        })
    }
}

impl Stage {
    fn of(timings: &[&Timing], total: usize, duration: f64, max: u64, capped: bool) -> Self {
        let sum = |of: &dyn Fn(&Timing) -> f64| sum(timings.iter().map(|t| of(t)));
        let (input, output) = (
            timings.iter().filter_map(|t| t.input).sum::<u64>(),
            timings.iter().filter_map(|t| t.output).sum::<u64>(),
        );
        let concurrency = sum(&|t| t.e2el) / duration;
        let common = Common {
            benchmark_duration_s: duration,
            total,
            success: timings.len(),
            failed: total - timings.len(),
            concurrency: if capped && concurrency > max as f64 { json!(max) } else { json!(concurrency) },
            max_concurrency: max,
            request_throughput: timings.len() as f64 / duration,
            input_tokens: input,
            generated_tokens: output,
            input_token_throughput: input as f64 / duration,
            output_token_throughput: output as f64 / duration,
            total_token_throughput: (input + output) as f64 / duration,
            prefill_token_throughput_pooled: input as f64 / sum(&|t| t.ttft),
            itl_intervals: timings.iter().map(|t| t.itl.len()).sum(),
        };
        let n = timings.len();
        let with_gaps = timings.iter().filter(|t| t.itl.iter().any(|gap| *gap != 0.0)).count();
        let tokens = |count: Option<u64>| count.unwrap_or(0) as f64;
        let of = |of: &dyn Fn(&Timing) -> f64| timings.iter().map(|t| of(t)).collect::<Vec<f64>>();
        let gaps: Vec<f64> = timings.iter().flat_map(|t| t.itl.iter().copied()).collect();
        let quantities = [
            ("E2EL", Unit::Seconds, of(&|t| t.e2el), n),
            ("TTFT", Unit::Seconds, of(&|t| t.ttft), n),
            ("TPOT", Unit::Seconds, of(&|t| t.tpot.unwrap_or(0.0)), with_gaps),
            ("ITL", Unit::Seconds, gaps, with_gaps),
            ("InputTokens", Unit::Tokens, of(&|t| tokens(t.input)), n),
            ("OutputTokens", Unit::Tokens, of(&|t| tokens(t.output)), n),
            ("OutputTokenThroughput", Unit::Rate, of(&|t| tokens(t.output) / t.e2el), n),
            ("PrefillTokenThroughput", Unit::Rate, of(&|t| tokens(t.input) / t.ttft), n),
        ];
        let percents = Rules::Aisbench.percents();
        let rule = Rules::Aisbench.percentile_rule();
        let quantities = quantities.map(|(name, unit, values, n)| {
            let spread = Spread::of(values, percents, rule);
            Quantity { name, unit, spread, n }
        });
        Self { common, quantities: quantities.to_vec() }
    }

    fn metrics(&self) -> Value {
        let mut out = Map::new();
        for Quantity { name, unit, spread, .. } in &self.quantities {
            let Some(spread) = spread else { continue };
            let name = if *unit == Unit::Seconds { format!("{name}_s") } else { (*name).to_owned() };
            let values = columns(spread).map(|(column, value)| (column.to_owned(), json!(value)));
            out.insert(name, Value::Object(values.into_iter().collect()));
        }
        Value::Object(out)
    }
}

/// The columns of the tool's table.
pub fn columns(spread: &Spread) -> [(&'static str, f64); 7] {
    let at = |n: usize| spread.percentiles[n].1;
    [
        ("Average", spread.mean),
        ("Min", spread.min),
        ("Max", spread.max),
        ("Median", at(0)),
        ("P75", at(1)),
        ("P90", at(2)),
        ("P99", at(3)),
    ]
}
