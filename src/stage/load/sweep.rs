//! `load.sweep`: loads of several concurrencies or rates side by side: the knee, the Pareto front, the highest that keeps the
//! limits. Repeats of a level are pooled row by row. Unaware of how loads are done.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Done, InputFile, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::stage::metrics::measured::Origin;
use crate::stage::metrics::row::{self, Row};
use crate::stage::metrics::rules::Rules;
use crate::stage::metrics::slo::Slo;
use crate::stage::metrics::summary::{Asked, summarize};
use crate::stage::table::csv::{LineEnd, TableWriter};

/// The stage.
pub(super) struct Sweep;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Limits in seconds: a level passes if `share` of its requests keep them.
    slo: Option<Slo>,
    /// The share of requests that have to keep the limits, above 0 and at most 1.
    #[serde(default = "Params::share")]
    share: f64,
}

impl Params {
    fn share() -> f64 {
        0.99
    }
}

/// The loads of one level.
#[derive(Default)]
struct Level {
    kind: String,
    rows: Vec<Row>,
    /// Of each repeat.
    requests_per_second: Vec<f64>,
    /// `None` where that of a repeat is not known.
    tokens_per_second: Vec<Option<f64>>,
    client_bound: u64,
    rules: Rules,
}

impl Stage for Sweep {
    fn name(&self) -> &'static str {
        "load.sweep"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "A row per level (concurrency, or rate) of loads by llm.load.\n\
                \n\
                Percentiles are those of all requests of a level's repeats, pooled; rates are the mean of the repeats, with the least and the greatest. \
                per_user = 1 / median TPOT. Pareto: no other level has both more output tokens per second and more per user. Knee: the level farthest above the \
                line from the first to the last, in output tokens per second over median E2EL, both scaled to 0..1 (Satopaa et al., Kneedle, 2011); none \
                of fewer than three levels. client_bound: repeats that the client spoiled.",
        )
        .input_list("summaries", "outputs `summary` of llm.load")
        .input_list("requests", "outputs `requests` of the same loads, in the same order")
        .output("table", "CSV: a row per level")
        .optional_output("json", "JSON: {\"rules\", \"levels\": [...], \"knee\", \"pareto\", \"highest_passing\"}")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        params.slo.map_or(Ok(()), |slo| slo.check())?;
        if params.share > 0.0 && params.share <= 1.0 {
            return Ok(());
        }
        Err(ParamFault { path: "share".into(), message: "expected above 0 and at most 1".into() })
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let levels = levels(ctx.files("summaries"), ctx.files("requests"))?;
        let rules = levels.values().next().map_or(Rules::Flow, |level| level.rules);
        let mut rows = Vec::new();
        for (at, level) in &levels {
            rows.push(line(at.0, level, &params)?);
        }
        marks(&mut rows);
        let best = |mark: &str| -> Vec<Value> {
            rows.iter().filter(|row| row[mark] == true).map(|row| row["level"].clone()).collect()
        };
        let (knee, pareto, passing) = (best("knee"), best("pareto"), best("passes"));
        let highest = params.slo.and(passing.last().cloned());
        ctx.log(format!(
            "{} levels; knee {}; highest that keeps the limits {}",
            rows.len(),
            knee.first().map_or("none".to_owned(), Value::to_string),
            highest.as_ref().map_or("none".to_owned(), Value::to_string)
        ));
        write(ctx, &rows)?;
        ctx.write_json(
            "json",
            &json!({ "rules": rules.name(), "slo": params.slo, "share": params.share, "levels": rows, "knee": knee.first(), "pareto": pareto, "highest_passing": highest }),
        )?;
        Ok(Done::Made)
    }
}

/// A number that sorts.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Number(f64);

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

fn levels(summaries: &[InputFile], requests: &[InputFile]) -> Result<BTreeMap<Number, Level>, StageError> {
    if summaries.len() != requests.len() || summaries.is_empty() {
        return Err(StageError::new(format!(
            "{} summaries and {} tables of requests (expected as many of each, at least one)",
            summaries.len(),
            requests.len()
        )));
    }
    let mut levels: BTreeMap<Number, Level> = BTreeMap::new();
    let mut first: Option<(String, Rules)> = None;
    for (summary, table) in summaries.iter().zip(requests) {
        let found: Value = summary.read_json()?;
        let fault = |message: String| {
            StageError::new(format!("{}: {message}", summary.name)).hint("give outputs of llm.load")
        };
        let arrival = &found["load"]["arrival"];
        let kind = arrival["kind"].as_str().ok_or_else(|| fault("no load.arrival.kind".to_owned()))?;
        let name = if kind == "closed" { "concurrency" } else { "rate" };
        let at = arrival[name]
            .as_f64()
            .ok_or_else(|| fault(format!("arrival {kind} has no {name}: no level of a sweep")))?;
        let rules: Rules =
            serde_json::from_value(found["rules"].clone()).map_err(|e| fault(format!("rules: {e}")))?;
        match &first {
            None => first = Some((kind.to_owned(), rules)),
            Some((other, _)) if other != kind => {
                return Err(fault(format!("arrival {kind}, and {} before it: levels have one kind", other)));
            }
            Some((_, other)) if *other != rules => {
                return Err(fault(format!(
                    "rule set {}, and {} before it: they are never pooled",
                    rules.name(),
                    other.name()
                )));
            }
            Some(_) => {}
        }
        let level = levels.entry(Number(at)).or_default();
        level.kind = name.to_owned();
        level.rules = rules;
        // as in the summary of each load: what had to wait in an open loop counts
        level.rows.extend(row::read_from(table, Origin::Schedule)?);
        let rate = |name: &str| found["throughput"][name].as_f64();
        level.requests_per_second.extend(rate("requests_per_second"));
        level.tokens_per_second.push(rate("output_tokens_per_second"));
        level.client_bound += u64::from(found["self_check"]["client_bound"] == true);
    }
    Ok(levels)
}

fn line(at: f64, level: &Level, params: &Params) -> Result<Map<String, Value>, StageError> {
    let asked = Asked {
        rules: level.rules,
        percents: vec![50.0, 90.0, 99.0],
        rule: level.rules.percentile_rule(),
        slo: params.slo,
        window: None,
    };
    let pooled = summarize(&level.rows, &asked).map_err(StageError::new)?;
    let mut row = Map::new();
    let mut set = |name: &str, value: Value| row.insert(name.to_owned(), value);
    let whole = at.fract() == 0.0 && at.abs() < 1e15;
    set("level", if whole { json!(at as i64) } else { json!(at) });
    set("of", json!(level.kind));
    set("rules", json!(level.rules.name()));
    set("repeats", json!(level.requests_per_second.len()));
    set("requests", pooled["counts"]["total"].clone());
    set("failed", pooled["counts"]["failed"].clone());
    let mean =
        |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let end = |values: &[f64], greatest: bool| {
        values.iter().copied().reduce(|a, b| if greatest { a.max(b) } else { a.min(b) })
    };
    // a mean of those that are known would be that of other repeats
    let tokens: Vec<f64> = level.tokens_per_second.iter().copied().collect::<Option<_>>().unwrap_or_default();
    for (name, values) in
        [("requests_per_second", &level.requests_per_second), ("output_tokens_per_second", &tokens)]
    {
        set(name, json!(mean(values)));
        set(&format!("{name}_min"), json!(end(values, false)));
        set(&format!("{name}_max"), json!(end(values, true)));
    }
    let of = |metric: &str, p: &str| pooled["metrics"][metric][p].clone();
    let per_user = of("tpot", "p50").as_f64().filter(|tpot| *tpot > 0.0).map(|tpot| 1.0 / tpot);
    set("per_user", json!(per_user));
    for metric in ["ttft", "tpot", "itl", "e2el"] {
        for p in ["p50", "p99"] {
            set(&format!("{metric}_{p}"), of(metric, p));
        }
    }
    let share = pooled["goodput"]["share"].as_f64();
    set("good_share", json!(share));
    set("passes", json!(share.map(|share| share >= params.share)));
    set("client_bound", json!(level.client_bound));
    Ok(row)
}

/// Adds the columns `pareto` and `knee`.
fn marks(rows: &mut [Map<String, Value>]) {
    let of = |row: &Map<String, Value>, name: &str| row[name].as_f64();
    let points: Vec<(Option<f64>, Option<f64>)> =
        rows.iter().map(|row| (of(row, "output_tokens_per_second"), of(row, "per_user"))).collect();
    let beaten = |n: usize| {
        let (Some(tokens), Some(user)) = points[n] else { return true };
        points.iter().any(|point| matches!(point, (Some(t), Some(u)) if *t >= tokens && *u >= user && (*t > tokens || *u > user)))
    };
    let pareto: Vec<bool> = (0..rows.len()).map(|n| !beaten(n)).collect();
    let curve: Vec<Option<(f64, f64)>> =
        rows.iter().map(|row| of(row, "e2el_p50").zip(of(row, "output_tokens_per_second"))).collect();
    let knee = knee(&curve);
    for (n, row) in rows.iter_mut().enumerate() {
        row.insert("pareto".to_owned(), json!(pareto[n]));
        row.insert("knee".to_owned(), json!(knee == Some(n)));
    }
}

/// The point farthest above the line from the first to the last, both axes scaled to 0..1.
fn knee(curve: &[Option<(f64, f64)>]) -> Option<usize> {
    let known: Vec<(usize, (f64, f64))> =
        curve.iter().enumerate().filter_map(|(n, point)| Some((n, (*point)?))).collect();
    let (first, last) = (known.first()?.1, known.last()?.1);
    let (width, height) = (last.0 - first.0, last.1 - first.1);
    if known.len() < 3 || width <= 0.0 || height <= 0.0 {
        return None;
    }
    let above = |(x, y): (f64, f64)| (y - first.1) / height - (x - first.0) / width;
    let best = known.iter().max_by(|a, b| above(a.1).total_cmp(&above(b.1)))?;
    (above(best.1) > 0.0).then_some(best.0)
}

fn write(ctx: &StageContext, rows: &[Map<String, Value>]) -> Result<(), StageError> {
    let path = ctx.output("table")?;
    let file = std::fs::File::create(path)
        .map_err(|e| StageError::io("write output", std::path::Path::new("table"), e))?;
    let mut writer = TableWriter::new(std::io::BufWriter::new(file), "table", LineEnd::Lf);
    if let Some(first) = rows.first() {
        writer.row(first.keys())?;
    }
    for row in rows {
        writer.row(row.values().map(|value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }))?;
    }
    let mut file = writer.finish()?;
    std::io::Write::flush(&mut file)
        .map_err(|e| StageError::io("write output", std::path::Path::new("table"), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;

    /// A load: requests of `ttft` s and ten gaps of `itl` s, one after the other.
    fn load(concurrency: u64, tokens_per_second: f64, ttft: f64, itl: f64) -> (String, String) {
        let summary = json!({
            "rules": "flow", "load": { "arrival": { "kind": "closed", "concurrency": concurrency } },
            "throughput": { "requests_per_second": tokens_per_second / 11.0, "output_tokens_per_second": tokens_per_second },
            "self_check": { "client_bound": concurrency == 8 },
        });
        let rows: String = (0..4)
            .map(|n| {
                let send = f64::from(n) * 10.0;
                let events: Vec<Value> = (0..11).map(|k| json!([send + ttft + f64::from(k) * itl, 1, "content"])).collect();
                format!("{}\n", json!({ "id": n, "send": send, "events": events, "input_tokens": 1, "output_tokens": 11, "success": true }))
            })
            .collect();
        (summary.to_string(), rows)
    }

    #[test]
    fn levels_are_pooled_and_the_knee_and_the_front_are_found() {
        let loads = [
            load(1, 100.0, 0.1, 0.010),
            load(8, 600.0, 0.2, 0.013),
            load(2, 190.0, 0.1, 0.010),
            load(4, 370.0, 0.1, 0.011),
            load(16, 620.0, 0.6, 0.026),
            load(4, 390.0, 0.3, 0.011),
        ];
        let mut bench = Bench::new(&Sweep, json!({ "slo": { "ttft": 0.25 }, "share": 0.6 }));
        for (n, (summary, rows)) in loads.iter().enumerate() {
            bench = bench.file("summaries", &format!("s{n}.json"), summary).file(
                "requests",
                &format!("r{n}.jsonl"),
                rows,
            );
        }
        let done = bench.run(&["table", "json"]).ok();
        let found = done.json("json");
        let levels = found["levels"].as_array().unwrap();
        assert_eq!(
            levels.iter().map(|row| row["level"].as_i64().unwrap()).collect::<Vec<_>>(),
            [1, 2, 4, 8, 16]
        );
        let four = &levels[2];
        assert_eq!(
            (&four["repeats"], &four["requests"], &four["output_tokens_per_second"]),
            (&json!(2), &json!(8), &json!(380.0))
        );
        assert_eq!(four["output_tokens_per_second_min"], 370.0);
        // half of the pooled requests at 0.1 s, half at 0.3 s
        assert!((four["ttft_p50"].as_f64().unwrap() - 0.2).abs() < 1e-9, "{four}");
        assert_eq!((&four["good_share"], &four["passes"]), (&json!(0.5), &json!(false)));
        assert_eq!((&found["knee"], &found["highest_passing"]), (&json!(8), &json!(8)));
        // 2 has more tokens per second than 1, and as many per user
        assert_eq!(found["pareto"], json!([2, 4, 8, 16]));
        assert_eq!(levels[3]["client_bound"], 1);
        assert_eq!(done.text("table").lines().count(), 6);
        assert!(
            done.text("table").starts_with("level,of,rules,repeats,")
                && done.text("table").contains("\n4,concurrency,flow,2,")
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let fails = |edit: &dyn Fn(&mut Value)| {
            let (summary, rows) = load(1, 1.0, 0.1, 0.01);
            let mut other: Value = serde_json::from_str(&summary).unwrap();
            edit(&mut other);
            let bench = Bench::new(&Sweep, json!({}))
                .file("summaries", "a.json", &summary)
                .file("requests", "a.jsonl", &rows);
            let bench =
                bench.file("summaries", "b.json", other.to_string()).file("requests", "b.jsonl", &rows);
            bench.run(&["table"]).result.unwrap_err().message
        };
        assert_eq!(
            fails(&|other| other["rules"] = json!("vllm")),
            "b.json: rule set vllm, and flow before it: they are never pooled"
        );
        assert_eq!(
            fails(&|other| other["load"]["arrival"] = json!({ "kind": "poisson", "rate": 3 })),
            "b.json: arrival poisson, and closed before it: levels have one kind"
        );
        assert_eq!(
            fails(&|other| other["load"]["arrival"] = json!({ "kind": "burst", "size": 3 })),
            "b.json: arrival burst has no rate: no level of a sweep"
        );
    }
}
