//! `vllm.export`: a load by flow as `vllm bench serve` would have written it. Unaware of servers.
//!
//! Names, units and order are those of vLLM 0.33: statistics in ms, per second, and the lists of `--save-detailed` in seconds.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::stage::metrics::recorded::{Load, Recorded};
use crate::stage::metrics::row::Row;
use crate::stage::metrics::rules::{Rules, Timing};
use crate::stage::metrics::slo::Slo;
use crate::stage::metrics::spread::Spread;
use crate::stage::metrics::summary::{Asked, summarize};
use crate::stage::table::percentile::Rule;

/// The stage.
pub(super) struct Export;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// What the first token is.
    first: First,
    /// Percentiles to write, 0 to 100.
    percentiles: Vec<f64>,
    /// Write the lists of all requests too, as `--save-detailed` does.
    detailed: bool,
    /// The member `label`.
    label: Option<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self { first: First::Text, percentiles: vec![99.0], detailed: true, label: None }
    }
}

/// What the first token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum First {
    /// The first event with text (vLLM 0.33): rule set flow.
    #[default]
    Text,
    /// The first event with choices, the role alone too (versions before): rule set vllm.
    Chunk,
}

impl First {
    fn rules(self) -> Rules {
        match self {
            Self::Text => Rules::Flow,
            Self::Chunk => Rules::Vllm,
        }
    }
}

impl Stage for Export {
    fn name(&self) -> &'static str {
        "vllm.export"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Writes the result JSON of `vllm bench serve` 0.33 from a load by llm.load.\n\
                \n\
                Times count from the send, as the tool's; what a request waited for its place under max_concurrency, from its moment of the schedule on, is its queue time. Lists \
                stand in the order of the requests: a failed one has 0, an empty list and its error. start_times are seconds of the load's own monotonic clock; date is UTC. \
                Texts are there if the load kept them; a count of tokens that the server did not tell is 0.",
        )
        .input("requests", "the output `requests` of llm.load")
        .input("summary", "the output `summary` of the same load")
        .output("result", "JSON: date, backend, model_id, request_rate, ..., mean_ttft_ms, median_ttft_ms, std_ttft_ms, p99_ttft_ms, ...")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        for (n, percent) in params.percentiles.iter().enumerate() {
            if !(0.0..=100.0).contains(percent) {
                return Err(ParamFault {
                    path: format!("percentiles[{n}]"),
                    message: format!("expected 0 to 100, found {percent}"),
                });
            }
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let summary = ctx.input("summary")?;
        let load: Value = summary.read_json()?;
        if !load["load"]["arrival"].is_object() {
            return Err(StageError::new(format!("{}: no load.arrival", summary.name))
                .hint("expected the output 'summary' of llm.load"));
        }
        let Load { rows, known, clock, spoiled } = Load::read(ctx.input("requests")?)?;
        let run = Run::of(&rows, &known, params.first.rules());
        let mut out = definition(&load, &params, rows.len());
        out.insert("date".to_owned(), json!(date(clock.unix)));
        if let Some(reasons) = spoiled {
            // as --metadata adds members
            ctx.log(format!("client_bound: {reasons}"));
            out.insert("client_bound".to_owned(), json!(reasons));
        }
        let failures = run.numbers(&mut out, &rows, &load, &params)?;
        ctx.write_json("result", &Value::Object(out))?;
        ctx.log(format!("{} requests, {failures} failed", rows.len()));
        Ok(Done::Made)
    }
}

/// `20261122-145315`, UTC.
fn date(unix: i64) -> String {
    jiff::Timestamp::from_nanosecond(unix.into())
        .map(|moment| moment.strftime("%Y%m%d-%H%M%S").to_string())
        .unwrap_or_default()
}

/// What was asked for, in the tool's words.
fn definition(load: &Value, params: &Params, count: usize) -> Map<String, Value> {
    let asked = &load["load"];
    let arrival = &asked["arrival"];
    let backend = if asked["api"] == "completions" { "openai" } else { "openai-chat" };
    let kind = arrival["kind"].as_str().unwrap_or_default();
    // a closed loop is an infinite rate behind a limit
    let rate = arrival["rate"].as_f64().map_or(json!("inf"), |rate| json!(rate));
    let burstiness = match kind {
        "constant" => json!("inf"),
        "gamma" => arrival["burstiness"].clone(),
        _ => json!(1.0),
    };
    let most = arrival["concurrency"].as_u64().or(asked["max_concurrency"].as_u64());
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| out.insert(name.to_owned(), value);
    set("date", Value::Null);
    set("endpoint_type", json!(backend));
    set("backend", json!(backend));
    set("label", json!(params.label));
    set("model_id", asked["model"].clone());
    set("tokenizer_id", asked["model"].clone());
    set("num_prompts", json!(count));
    set("request_rate", rate);
    set("burstiness", burstiness);
    set("max_concurrency", json!(most));
    if kind == "ramp" {
        let shape = arrival["shape"].as_str().unwrap_or("linear");
        set("ramp_up_strategy", json!(shape));
        set("ramp_up_start_rps", arrival["from"].clone());
        set("ramp_up_end_rps", arrival["to"].clone());
    }
    out
}

/// The requests of a load, each with what the tool knows of it.
struct Run<'r> {
    requests: Vec<(&'r Row, &'r Recorded, Option<Timing>)>,
    rules: Rules,
}

impl<'r> Run<'r> {
    fn of(rows: &'r [Row], known: &'r [Recorded], rules: Rules) -> Self {
        let timed = rows.iter().zip(known).map(|(row, known)| (row, known, rules.timing(row).ok()));
        Self { requests: timed.collect(), rules }
    }

    fn good(&self) -> impl Iterator<Item = &Timing> {
        self.requests.iter().filter_map(|request| request.2.as_ref())
    }

    /// Seconds that a request waited for a place: from its moment of the schedule to its send.
    fn queued(row: &Row, known: &Recorded) -> f64 {
        let sched = known.sched.map(|ns| ns as f64 / 1e9);
        sched.zip(row.send).map_or(0.0, |(sched, send)| (send - sched).max(0.0))
    }

    /// Adds all numbers; returns how many requests failed.
    fn numbers(
        &self,
        out: &mut Map<String, Value>,
        rows: &[Row],
        load: &Value,
        params: &Params,
    ) -> Result<usize, StageError> {
        let slo: Option<Slo> = serde_json::from_value(load["goodput"]["slo"].clone()).ok();
        let asked = Asked { rules: self.rules, percents: Vec::new(), rule: Rule::Linear, slo, window: None };
        let found = summarize(rows, &asked).map_err(StageError::new)?;
        let rates = &found["throughput"];
        let failed = self.requests.iter().filter(|request| request.2.is_none()).count();
        let (tokens, concurrent) = self.peaks();
        let open = load["loop"] == "open";
        let mut set = |name: &str, value: Value| out.insert(name.to_owned(), value);
        set("duration", rates["duration"].clone());
        set("completed", found["counts"]["success"].clone());
        set("failed", json!(failed));
        set("total_input_tokens", rates["input_tokens"].clone());
        set("total_output_tokens", rates["output_tokens"].clone());
        set("request_throughput", rates["requests_per_second"].clone());
        set("request_goodput", found["goodput"]["requests_per_second"].clone());
        set("output_throughput", rates["output_tokens_per_second"].clone());
        set("total_token_throughput", rates["total_tokens_per_second"].clone());
        if params.detailed {
            self.lists(&mut set);
        }
        // as the tool, which leaves these two in without --save-detailed
        let each = |of: &dyn Fn(&Timing) -> f64| -> Value {
            self.requests.iter().map(|(_, _, t)| json!(t.as_ref().map_or(0.0, of))).collect()
        };
        set("latencies", each(&|t| t.e2el));
        set(
            "queue_times",
            self.requests.iter().map(|(row, known, _)| json!(Self::queued(row, known))).collect(),
        );
        set("max_output_tokens_per_s", json!(tokens));
        set("max_concurrent_requests", json!(concurrent));
        set("rtfx", json!(0.0));
        let of = |value: &dyn Fn(&Timing) -> Option<f64>| self.good().filter_map(value).collect::<Vec<f64>>();
        let mut metrics = vec![
            ("ttft", of(&|t| Some(t.ttft))),
            ("tpot", of(&|t| t.tpot)),
            ("itl", self.good().flat_map(|t| t.itl.iter().copied()).collect()),
            ("e2el", of(&|t| Some(t.e2el))),
        ];
        if open && !load["load"]["max_concurrency"].is_null() {
            let waited = |and: &dyn Fn(&Timing) -> f64| -> Vec<f64> {
                let good = self.requests.iter().filter_map(|(row, known, t)| Some((row, known, t.as_ref()?)));
                good.map(|(row, known, t)| Self::queued(row, known) + and(t)).collect()
            };
            metrics.push(("client_queue_time", waited(&|_| 0.0)));
            metrics.push(("e2el_including_client_queue", waited(&|t| t.e2el)));
        }
        for (name, values) in metrics {
            for (of, value) in statistics(values, &params.percentiles) {
                set(&format!("{of}_{name}_ms"), json!(value * 1e3));
            }
        }
        Ok(failed)
    }

    /// A value of each request: what the tool writes with `--save-detailed`.
    fn lists(&self, set: &mut impl FnMut(&str, Value) -> Option<Value>) {
        let mut each = |name: &str, of: &dyn Fn(&Row, &Recorded, Option<&Timing>) -> Value| {
            set(name, self.requests.iter().map(|(row, known, t)| of(row, known, t.as_ref())).collect());
        };
        each("input_lens", &|row, _, _| json!(row.input_tokens.unwrap_or(0)));
        each("output_lens", &|_, _, t| json!(t.and_then(|t| t.output).unwrap_or(0)));
        each("ttfts", &|_, _, t| json!(t.map_or(0.0, |t| t.ttft)));
        each("itls", &|_, _, t| json!(t.map_or(&[][..], |t| &t.itl)));
        each("start_times", &|row, known, _| {
            json!(row.send.or(known.sched.map(|ns| ns as f64 / 1e9)).unwrap_or(0.0))
        });
        each("generated_texts", &|_, known, _| json!(known.text.as_deref().unwrap_or_default()));
        each("errors", &|row, known, t| match (t, &row.error, &known.message) {
            (Some(_), ..) => json!(""),
            (None, Some(kind), Some(message)) => json!(format!("{kind}: {message}")),
            (None, kind, _) => json!(kind.as_deref().unwrap_or("no token")),
        });
    }

    /// In windows of a second from the first send: the most events with tokens, and the most requests that were in flight at some moment of one.
    fn peaks(&self) -> (f64, u64) {
        let Some(zero) = self.good().map(|t| t.start).min_by(f64::total_cmp) else { return (0.0, 0) };
        let last = self.good().map(|t| t.end).max_by(f64::total_cmp).unwrap_or(zero);
        let windows = (last - zero).ceil() as usize + 1;
        let (mut tokens, mut flying) = (vec![0u64; windows], vec![0u64; windows]);
        let window = |at: f64| (at - zero) as usize;
        for timing in self.good() {
            let mut at = timing.start + timing.ttft;
            for gap in [0.0].iter().chain(&timing.itl) {
                at += gap;
                if let Some(count) = tokens.get_mut(window(at)) {
                    *count += 1;
                }
            }
            for count in flying.iter_mut().take(window(timing.end) + 1).skip(window(timing.start)) {
                *count += 1;
            }
        }
        (tokens.iter().max().copied().unwrap_or(0) as f64, flying.into_iter().max().unwrap_or(0))
    }
}

/// mean, median, std and the percentiles, in the values' unit; of no values all are 0, as the tool says.
fn statistics(values: Vec<f64>, percents: &[f64]) -> Vec<(String, f64)> {
    let asked: Vec<f64> = [50.0].iter().chain(percents).copied().collect();
    let found = Spread::of(values, &asked, Rule::Linear);
    let of = |value: &dyn Fn(&Spread) -> f64| found.as_ref().map_or(0.0, value);
    let mut out = vec![
        ("mean".to_owned(), of(&|s| s.mean)),
        ("median".to_owned(), of(&|s| s.percentiles[0].1)),
        ("std".to_owned(), of(&|s| s.std)),
    ];
    out.extend(percents.iter().enumerate().map(|(n, p)| (format!("p{p}"), of(&|s| s.percentiles[n + 1].1))));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_as_the_tool_names_them() {
        let found = statistics(vec![1.0, 2.0, 4.0], &[99.0, 99.9]);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["mean", "median", "std", "p99", "p99.9"]);
        assert_eq!(found[1].1, 2.0);
        assert!(statistics(Vec::new(), &[99.0]).iter().all(|(_, value)| *value == 0.0));
    }

    #[test]
    fn what_was_asked_in_the_tools_words() {
        let of = |arrival: Value, most: Value| {
            let load = json!({ "load": { "model": "m", "api": "chat", "arrival": arrival, "max_concurrency": most } });
            let found = definition(&load, &Params::default(), 3);
            [found["request_rate"].clone(), found["burstiness"].clone(), found["max_concurrency"].clone()]
        };
        assert_eq!(
            of(json!({ "kind": "closed", "concurrency": 4 }), Value::Null),
            [json!("inf"), json!(1.0), json!(4)]
        );
        assert_eq!(
            of(json!({ "kind": "gamma", "rate": 2.5, "burstiness": 0.5 }), json!(9)),
            [json!(2.5), json!(0.5), json!(9)]
        );
        assert_eq!(
            of(json!({ "kind": "constant", "rate": 2.0 }), Value::Null),
            [json!(2.0), json!("inf"), Value::Null]
        );
        assert_eq!(date(1_795_359_195_000_000_000), "20261122-145315");
    }

    #[test]
    fn seconds_are_counted_as_the_tool_counts_them() {
        let row: Row = serde_json::from_value(json!({
            "id": 1, "send": 10.0, "input_tokens": 1, "output_tokens": 3, "success": true,
            "events": [[10.5, 1, "content"], [10.75, 1, "content"], [11.5, 1, "content"]],
        }))
        .unwrap();
        let other = Row { send: Some(11.25), events: row.events[2..].to_vec(), ..row.clone() };
        let known = |xid: &str| Recorded {
            xid: xid.into(),
            shard: 0,
            sched: Some(9_750_000_000),
            status: Some(200),
            message: None,
            text: None,
            turn: None,
        };
        let (rows, known) = ([row, other], [known("a"), known("b")]);
        let run = Run::of(&rows, &known, Rules::Flow);
        // two events in the first second, two in the next; both requests in the next
        assert_eq!(run.peaks(), (2.0, 2));
        assert_eq!(Run::queued(&rows[0], &known[0]), 0.25);
        assert_eq!(Run::of(&[], &[], Rules::Flow).peaks(), (0.0, 0));
    }
}
