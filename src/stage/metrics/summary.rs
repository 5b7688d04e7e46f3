//! The metrics of many requests under one rule set. Unaware of files.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::row::{Kind, Row};
use super::rules::{Rules, Timing};
use super::slo::Slo;
use super::spread::{Spread, sum};
use crate::stage::table::percentile;

/// Part of a run: seconds after the first request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Seconds after the first send: requests sent from here on.
    pub from: f64,
    /// Seconds after the first send: requests sent before this.
    pub to: f64,
}

/// What to compute.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What the metrics mean.
    pub rules: Rules,
    /// Percentiles, 0 to 100.
    pub percents: Vec<f64>,
    /// How they are taken.
    pub rule: percentile::Rule,
    /// Limits for goodput.
    pub slo: Option<Slo>,
    /// Only these requests; then the window's length is the duration.
    pub window: Option<Window>,
}

/// The summary: `{"rules", "percentile_rule", "units", "counts", "metrics", "throughput", "goodput"}`, times in seconds. `Err` names a row whose
/// events do not tell what they were, if the rule set has to know, or a window in which nothing was sent.
pub fn summarize(rows: &[Row], asked: &Asked) -> Result<Value, String> {
    let rules = asked.rules;
    let untold = |row: &&Row| row.events.iter().any(|event| event.2 == Kind::Data);
    if rules.needs_kinds()
        && let Some(row) = rows.iter().find(untold)
    {
        return Err(format!(
            "request {}: its events are of kind 'data': what they were is not recorded, and rule set {} has to know",
            row.place.clone().unwrap_or_else(|| row.id.to_string()),
            rules.name()
        ));
    }
    let zero = first_send(rows);
    let inside = |row: &Row| {
        asked.window.is_none_or(|window| {
            row.send.is_some_and(|send| (window.from..window.to).contains(&(send - zero)))
        })
    };
    let chosen: Vec<&Row> = rows.iter().filter(|row| inside(row)).collect();
    if let (true, Some(Window { from, to })) = (chosen.is_empty() && !rows.is_empty(), asked.window) {
        return Err(format!(
            "window: none of {} requests was sent from {from} to {to} s after the first one",
            rows.len()
        ));
    }
    Ok(part(&chosen, rows.len() - chosen.len(), asked.window.map(|window| window.to - window.from), asked))
}

/// When the first of them was sent, seconds on their clock; 0 of none.
pub fn first_send(rows: &[Row]) -> f64 {
    rows.iter().filter_map(|row| row.send).min_by(f64::total_cmp).unwrap_or(0.0)
}

/// As [`summarize`], of some of the rows, `outside` others left out. `length`: seconds that they stand for; `None`: as the rule set says.
pub fn part(chosen: &[&Row], outside: usize, length: Option<f64>, asked: &Asked) -> Value {
    let rules = asked.rules;
    let mut timings = Vec::new();
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    for row in chosen {
        match rules.timing(row) {
            Ok(timing) => timings.push(timing),
            Err(reason) => *failures.entry(reason).or_default() += 1,
        }
    }
    let duration = length.or_else(|| span(rules, chosen, &timings).map(|(begin, end)| end - begin));
    let failed = chosen.len() - timings.len();
    let untokened = timings.iter().filter(|t| t.output.is_none() || t.input.is_none()).count();
    let mut metrics = Map::new();
    for (name, values) in quantities(&timings) {
        if let Some(spread) = Spread::of(values, &asked.percents, asked.rule) {
            metrics.insert(name.to_owned(), spread.json());
        }
    }
    json!({
        "rules": rules.name(),
        "percentile_rule": asked.rule.name(),
        "units": "seconds, tokens",
        "counts": {
            "total": chosen.len() + outside,
            "success": timings.len(),
            "failed": failed,
            "outside_window": outside,
            "without_token_counts": untokened,
            "failures": failures,
        },
        "metrics": metrics,
        "throughput": throughput(&timings, duration),
        "goodput": asked.slo.map(|slo| goodput(&timings, slo, chosen.len(), duration)),
    })
}

/// The last moment that a row knows.
fn last(row: &Row) -> Option<f64> {
    row.end.or(row.events.last().map(|event| event.0)).or(row.send)
}

/// From when to when a run of these rows went on, seconds on their clock, as the rule set has it: failures included, or not. `timings`: of the
/// successes among them. `None` if it never went on.
pub fn span(rules: Rules, rows: &[&Row], timings: &[Timing]) -> Option<(f64, f64)> {
    let all: &[&Row] = if rules.counts_failed_time() { rows } else { &[] };
    let begins = all.iter().filter_map(|row| row.send).chain(timings.iter().map(|t| t.start));
    let ends = all.iter().filter_map(|row| last(row)).chain(timings.iter().map(|t| t.end));
    Some((begins.min_by(f64::total_cmp)?, ends.max_by(f64::total_cmp)?))
}

/// Each quantity with its values.
fn quantities(timings: &[Timing]) -> Vec<(&'static str, Vec<f64>)> {
    let of = |value: &dyn Fn(&Timing) -> Option<f64>| timings.iter().filter_map(value).collect();
    let pooled = |values: &dyn Fn(&Timing) -> Vec<f64>| timings.iter().flat_map(values).collect();
    vec![
        ("ttft", of(&|t| Some(t.ttft))),
        ("tpot", of(&|t| t.tpot)),
        ("itl", pooled(&|t| t.itl.clone())),
        ("e2el", of(&|t| Some(t.e2el))),
        ("ttfb", of(&|t| t.ttfb)),
        ("ttfe", of(&|t| t.ttfe)),
        ("ttfo", of(&|t| t.ttfo)),
        ("itl_tok", pooled(&|t| t.itl_tok.clone())),
        ("total", of(&|t| t.total)),
        ("input_tokens", of(&|t| t.input.map(|tokens| tokens as f64))),
        ("output_tokens", of(&|t| t.output.map(|tokens| tokens as f64))),
    ]
}

/// Of the successes, per second of the run. `concurrency`: mean number in flight, the sum of their latencies over the duration (Little's law).
/// Tokens are `null` where those of a success are not known: a sum without them would be too small.
fn throughput(timings: &[Timing], duration: Option<f64>) -> Value {
    let input: Option<u64> = timings.iter().map(|t| t.input).sum();
    let output: Option<u64> = timings.iter().map(|t| t.output).sum();
    let total = input.zip(output).map(|(input, output)| input + output);
    let per_second = |amount: f64| duration.filter(|d| *d > 0.0).map(|duration| amount / duration);
    let tokens_per_second = |tokens: Option<u64>| per_second(tokens? as f64);
    json!({
        "duration": duration,
        "requests_per_second": per_second(timings.len() as f64),
        "input_tokens": input,
        "output_tokens": output,
        "input_tokens_per_second": tokens_per_second(input),
        "output_tokens_per_second": tokens_per_second(output),
        "total_tokens_per_second": tokens_per_second(total),
        "concurrency": per_second(sum(timings.iter().map(|t| t.e2el))),
    })
}

/// Requests that keep all limits; a failed one keeps none. One without a second token keeps every limit of TPOT. `null` where TPOT has a limit and the
/// tokens of a success are not known.
fn goodput(timings: &[Timing], slo: Slo, total: usize, duration: Option<f64>) -> Value {
    if slo.tpot.is_some() && timings.iter().any(|t| t.tpot.is_none() && t.output.is_none()) {
        return json!({ "slo": slo, "good": null, "share": null, "requests_per_second": null });
    }
    let keeps = |t: &&Timing| {
        let tpot = t.tpot.or(t.output.filter(|tokens| *tokens <= 1).map(|_| 0.0));
        slo.keeps(Some(t.ttft), tpot, Some(t.e2el))
    };
    let good = timings.iter().filter(keeps).count();
    json!({
        "slo": slo,
        "good": good,
        "share": (total > 0).then(|| good as f64 / total as f64),
        "requests_per_second": duration.filter(|d| *d > 0.0).map(|duration| good as f64 / duration),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stage::metrics::row::Event;

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let kinds =
            prop::sample::select(vec![Kind::Role, Kind::Reasoning, Kind::Content, Kind::Usage, Kind::Done]);
        let event = (0.0..0.1f64, prop::option::of(1..4u64), kinds);
        let row = (
            0.0..10.0f64,
            prop::collection::vec(event, 0..8),
            prop::option::of(0..50u64),
            prop::bool::weighted(0.9),
        );
        let row = row.prop_map(|(send, gaps, output_tokens, success)| {
            let mut at = send;
            let events = gaps.into_iter().map(|(gap, tokens, kind)| {
                at += gap;
                Event(at, tokens, kind)
            });
            Row {
                id: Value::Null,
                send: Some(send),
                end: None,
                events: events.collect(),
                input_tokens: Some(3),
                output_tokens,
                success,
                error: None,
                pod: None,
                data_abbr: None,
                uuid: None,
                place: None,
            }
        });
        prop::collection::vec(row, 0..40)
    }

    proptest! {
        #[test]
        fn parts_put_together_in_any_order_are_the_whole((whole, shuffled) in rows().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle()))) {
            for rules in [Rules::Flow, Rules::Aisbench, Rules::Vllm, Rules::EvalscopeOld, Rules::EvalscopeNew] {
                let slo = Slo { ttft: Some(0.05), tpot: Some(0.04), e2el: None };
                let asked = Asked { rules, percents: rules.percents().to_vec(), rule: rules.percentile_rule(), slo: Some(slo), window: None };
                let found = summarize(&whole, &asked).unwrap();
                prop_assert_eq!(&summarize(&shuffled, &asked).unwrap(), &found);
                let count = |name: &str| found["counts"][name].as_u64().unwrap();
                prop_assert_eq!(count("total"), count("success") + count("failed") + count("outside_window"));
                prop_assert_eq!(count("failed"), found["counts"]["failures"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>());
            }
        }
    }
}
