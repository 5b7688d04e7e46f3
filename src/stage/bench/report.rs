//! `bench.report`: merged requests in the files of AISBench, and unrounded. Unaware of pods.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::stage::aisbench::exact::Exact;
use crate::stage::aisbench::format;
use crate::stage::aisbench::stable::StableRule;
use crate::stage::metrics::row;

/// The stage.
pub(super) struct Report;

/// The part of the run that the tool's files are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// The whole run.
    #[default]
    Total,
    /// The stable stage.
    Stable,
}

/// What `with` holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// How many requests may be in flight; default: the sum of the pods' own.
    max_concurrency: Option<u64>,
    /// The part of the run that csv and json are about; exact has all.
    stage: Part,
    /// How the stable stage is found.
    stable_rule: StableRule,
}

impl Stage for Report {
    fn name(&self) -> &'static str {
        "bench.report"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Writes merged requests as AISBench 3.1.20260630 writes a run, and unrounded. Rule set: aisbench.\n\
                \n\
                csv and json are the tool's: latencies rounded to 4 decimals in seconds, then in ms; percentiles linear, of all requests. exact: the same\n\
                numbers unrounded, for the whole run and for the stable stage by both rules. Failed requests enter no statistic. Of the tool's\n\
                defects none is repeated: the stable stage counts its own failures, not those at equal places of another list.",
        )
        .input("requests", "raw rows on one clock")
        .optional_input("report", "of bench.merge: names the pods' max_concurrency")
        .output("csv", "the tool's CSV")
        .output("json", "the tool's JSON")
        .output("exact", "JSON: {\"files\", \"total_stage\", \"stable_rule_release_3.1.20260630\", \"stable_rule_head_2026_08\"}, times in seconds; client_bound: pods whose client spoiled the load")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        match parse_params::<Params>(with)?.max_concurrency {
            Some(0) => {
                Err(ParamFault { path: "max_concurrency".into(), message: "expected at least 1".into() })
            }
            _ => Ok(()),
        }
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let input = ctx.input("requests")?;
        let rows = row::read(input)?;
        let max = match params.max_concurrency {
            Some(max) => max,
            None => of_pods(ctx)?,
        };
        let Some(exact) = Exact::of(&rows, max) else {
            return Err(StageError::new(format!(
                "{}: none of {} requests succeeded: there is nothing to report",
                input.name,
                rows.len()
            )));
        };
        if exact.total.common.benchmark_duration_s <= 0.0 {
            return Err(StageError::new(format!(
                "{}: all requests took no time: nothing is per second",
                input.name
            )));
        }
        let (stage, name) = match params.stage {
            Part::Total => (&exact.total, "total"),
            Part::Stable => {
                let found = exact.stable(params.stable_rule).ok_or_else(|| {
                    StageError::new(format!("no stable stage: {max} requests were never in flight twice"))
                        .hint("max_concurrency must be what the tools were allowed together; stage: total needs none")
                })?;
                (found, "stable")
            }
        };
        let file = input.file_name().to_owned();
        ctx.log(format!("{name}: {} requests, {} failed", stage.common.total, stage.common.failed));
        ctx.write("csv", &format::csv(stage, name)?)?;
        ctx.write("json", &format::json(&stage.common, name)?)?;
        let mut exact = exact.json(&[file]);
        let spoiled = spoiled(ctx)?;
        if !spoiled.is_empty() {
            let names: Vec<&str> = spoiled.keys().map(String::as_str).collect();
            ctx.log(format!("client_bound: {}", names.join(", ")));
            exact["client_bound"] = Value::Object(spoiled);
        }
        ctx.write_json("exact", &exact)?;
        Ok(Done::Made)
    }
}

/// Pods whose client spoiled the load, with the reasons.
fn spoiled(ctx: &StageContext) -> Result<Map<String, Value>, StageError> {
    let [file] = ctx.files("report") else { return Ok(Map::new()) };
    let report: Value = file.read_json()?;
    let pods = report["pods"].as_array().into_iter().flatten();
    let marked = pods.filter(|pod| pod["client_bound"].is_string());
    let named =
        marked.filter_map(|pod| Some((pod["name"].as_str()?.to_owned(), pod["client_bound"].clone())));
    Ok(named.collect())
}

/// The sum of the pods' own limits.
fn of_pods(ctx: &StageContext) -> Result<u64, StageError> {
    let missing = |what: String| {
        StageError::new(format!("max_concurrency: {what}"))
            .hint("give max_concurrency: what the tools were allowed together")
    };
    let [file] = ctx.files("report") else {
        return Err(missing("neither given, nor an input 'report' that names it".to_owned()));
    };
    let report: Value = file.read_json()?;
    let limit = &report["max_concurrency"];
    if let Some(max) = limit.as_u64().filter(|max| *max > 0) {
        return Ok(max);
    }
    let named = |is: fn(&Value) -> bool| -> String {
        let pods = report["pods"].as_array().into_iter().flatten();
        let named = |pod: &&Value| pod["requests"] != 0 && is(&pod["max_concurrency"]);
        let names = pods.filter(named).filter_map(|pod| pod["name"].as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let unknown = named(Value::is_null);
    if limit.is_null() && !unknown.is_empty() {
        return Err(missing(format!("not known of {unknown} (no json of the tool beside its details)")));
    }
    let zero = match named(|limit| limit.as_u64() == Some(0)) {
        pods if pods.is_empty() => pods,
        pods => format!(" (the tool's json says Max Concurrency 0 of {pods})"),
    };
    Err(missing(format!("{}: expected a whole number above 0, found {limit}{zero}", file.name)))
}
