//! `llm.search`: the highest rate or concurrency that keeps the limits, by loads of its own. Unaware of how a load is done.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::measure::{Measured, measure};
use super::params::{OnClientBound, Params as LoadParams};
use crate::api::{
    Done, ParamFault, Signature, Stage, StageContext, StageError, Work, parse_params, secrets_as_text,
};
use crate::model::Policy;

/// The stage.
pub(super) struct Search;

/// What `with` holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What is raised.
    over: Over,
    /// The first level; it is doubled until a level does not pass.
    min: f64,
    /// No level is higher.
    max: f64,
    /// The search ends when the highest level that passes and the lowest that does not are no farther apart than this, relative.
    #[serde(default = "Params::tolerance")]
    tolerance: f64,
    /// The share of requests that have to keep the limits, above 0 and at most 1.
    #[serde(default = "Params::share")]
    share: f64,
    /// Gaps of rates: constant, or poisson, whose bursts need room.
    #[serde(default)]
    gaps: Gaps,
    /// The parameters of llm.load but for `arrival`; `slo` is needed, and `requests` or `duration` says how long a level is tried.
    load: Map<String, Value>,
}

/// What is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Over {
    /// Requests per second, open loop: latencies count from the schedule.
    Rate,
    /// Requests in flight, closed loop.
    Concurrency,
}

/// Gaps of an open loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Gaps {
    /// Equal.
    #[default]
    Constant,
    /// Exponential.
    Poisson,
}

impl Params {
    fn tolerance() -> f64 {
        0.02
    }

    fn share() -> f64 {
        0.99
    }

    /// The load of a level.
    fn level(&self, level: f64) -> Result<LoadParams, ParamFault> {
        let arrival = match (self.over, self.gaps) {
            (Over::Concurrency, _) => json!({ "kind": "closed", "concurrency": level as u64 }),
            (Over::Rate, Gaps::Constant) => json!({ "kind": "constant", "rate": level }),
            (Over::Rate, Gaps::Poisson) => json!({ "kind": "poisson", "rate": level }),
        };
        let mut with = self.load.clone();
        with.insert("arrival".into(), arrival);
        let inside = |fault: ParamFault| ParamFault { path: format!("load.{}", fault.path), ..fault };
        let params: LoadParams = parse_params(&Value::Object(with)).map_err(inside)?;
        params.check().map_err(inside)?;
        Ok(params)
    }

    fn check(&self) -> Result<(), ParamFault> {
        let fault =
            |path: &str, message: &str| Err(ParamFault { path: path.into(), message: message.into() });
        if !(self.min > 0.0 && self.max > self.min && self.max.is_finite()) {
            return fault("max", "expected 0 < min < max");
        }
        if self.over == Over::Concurrency && (self.min.fract() != 0.0 || self.max.fract() != 0.0) {
            return fault("min", "a concurrency is a whole number");
        }
        if !(self.tolerance > 0.0 && self.tolerance < 1.0) {
            return fault("tolerance", "expected above 0 and below 1");
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            return fault("share", "expected above 0 and at most 1");
        }
        if self.load.contains_key("arrival") {
            return fault("load.arrival", "is what the search sets");
        }
        if !self.load.get("slo").is_some_and(Value::is_object) {
            return fault("load.slo", "expected the limits that have to be kept");
        }
        let load = self.level(self.min)?;
        if load.requests.is_none() && load.duration.is_none() {
            return fault("load.duration", "expected duration or requests: how long a level is tried");
        }
        Ok(())
    }
}

impl Stage for Search {
    fn name(&self) -> &'static str {
        "llm.search"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "The highest rate or concurrency at which requests keep the limits.\n\
                \n\
                Levels are doubled from `min` until one does not pass, then halved between the two. A level passes if the share of its requests that keep all \
                limits (failed ones keep none) reaches `share`. What the client spoiled says nothing of the server: the search fails there, or goes on with \
                on_client_bound: mark. At a rate above what the server can do the delay grows by (rate / capacity - 1) seconds each second: try a level long \
                enough for that to pass the limits.",
        )
        .input_list("prompts", "JSON Lines: {\"id\", \"messages\", \"prompt\" or \"turns\", \"max_tokens\"}")
        .input_list("authorities", "with https: PEM certificates of the authorities to believe, instead of the system's; may be left out")
        .output("result", "JSON: {\"over\", \"slo\", \"share\", \"highest\", \"lowest_failing\", \"levels\": [{\"level\", \"passes\", \"good_share\", ...}]} in the order of their trial")
        .policy(Policy::Sample)
        .work(Work::Wait)
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        parse_params::<Params>(&secrets_as_text(with))?.check()
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let named =
            |fault: ParamFault| StageError::new(format!("parameter {}: {}", fault.path, fault.message));
        params.check().map_err(named)?;
        let table = ctx.output("result")?.with_extension("sqlite");
        let (mut passing, mut failing) = (None, None);
        let mut tried = Vec::new();
        while let Some(level) = next(&params, passing, failing) {
            let load = params.level(level).map_err(named)?;
            let spoiled = load.on_client_bound == OnClientBound::Fail;
            let found = measure(ctx, &load, &table);
            // the next level makes its own
            let _ = std::fs::remove_file(&table);
            let Measured { summary, checked, nothing } = found?;
            if let (Some(nothing), true) = (nothing, tried.is_empty()) {
                return Err(nothing);
            }
            let unknown = summary["goodput"]["share"].is_null() && summary["counts"]["success"] != 0;
            if unknown {
                return Err(StageError::new(format!(
                    "at {level} it is not known which requests keep the limit of tpot: the server does not say how many tokens it sent"
                ))
                .hint("ask for limits of ttft and e2el only, or let the server count (stream_options.include_usage)"));
            }
            let share = summary["goodput"]["share"].as_f64().unwrap_or(0.0);
            let passes = share >= params.share;
            if spoiled && passes && !checked.reasons.is_empty() {
                return Err(StageError::new(format!(
                    "at {level} the client spoiled the measurement: {}",
                    checked.reasons.join("; ")
                ))
                .hint("free the machine, raise load.shards, or go on with load.on_client_bound: mark"));
            }
            ctx.log(format!(
                "{level}: {:.2} % keep the limits{}",
                share * 100.0,
                if passes { "" } else { ", too few" }
            ));
            if passes {
                passing = Some(level);
            } else {
                failing = Some(level);
            }
            tried.push(json!({
                "level": level,
                "passes": passes,
                "good_share": share,
                "rules": summary["rules"],
                "requests": summary["counts"]["total"],
                "failed": summary["counts"]["failed"],
                "requests_per_second": summary["throughput"]["requests_per_second"],
                "output_tokens_per_second": summary["throughput"]["output_tokens_per_second"],
                "ttft_p50": summary["metrics"]["ttft"]["p50"],
                "ttft_p99": summary["metrics"]["ttft"]["p99"],
                "tpot_p50": summary["metrics"]["tpot"]["p50"],
                "e2el_p50": summary["metrics"]["e2el"]["p50"],
                "e2el_p99": summary["metrics"]["e2el"]["p99"],
                "client_bound": !checked.reasons.is_empty(),
            }));
        }
        if tried.iter().any(|level| level["client_bound"] == true) {
            ctx.keep_local("client_bound: the client spoiled a level");
        }
        let over = if params.over == Over::Rate { "rate" } else { "concurrency" };
        ctx.write_json(
            "result",
            &json!({
                "over": over,
                "slo": params.load["slo"],
                "share": params.share,
                "tolerance": params.tolerance,
                "highest": passing,
                "lowest_failing": failing,
                "levels": tried,
            }),
        )?;
        Ok(Done::Made)
    }
}

/// The level to try next; `None`: nothing is left to find out.
fn next(params: &Params, passing: Option<f64>, failing: Option<f64>) -> Option<f64> {
    let whole = |level: f64| if params.over == Over::Concurrency { level.floor() } else { level };
    match (passing, failing) {
        (None, None) => Some(params.min),
        // not even the first
        (None, Some(_)) => None,
        (Some(passing), None) if passing >= params.max => None,
        (Some(passing), None) => Some((passing * 2.0).min(params.max)),
        (Some(passing), Some(failing)) => {
            let middle = whole((passing + failing) / 2.0);
            let close = failing - passing <= params.tolerance * passing;
            (!close && middle > passing && middle < failing).then_some(middle)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::load::arrival::Arrival;

    fn search(capacity: f64, over: &str, min: f64, max: f64) -> (Option<f64>, Option<f64>, usize) {
        let with = json!({
            "over": over, "min": min, "max": max, "tolerance": 0.02,
            "load": { "endpoints": "http://127.0.0.1:1", "model": "m", "duration": 1, "slo": { "ttft": 1 } },
        });
        Search.check(&with).unwrap();
        let params: Params = parse_params(&with).unwrap();
        let (mut passing, mut failing, mut count) = (None, None, 0);
        while let Some(level) = next(&params, passing, failing) {
            assert!(
                (min..=max).contains(&level)
                    && matches!(
                        params.level(level).unwrap().arrival,
                        Arrival::Closed { .. } | Arrival::Constant { .. }
                    )
            );
            count += 1;
            if level <= capacity { passing = Some(level) } else { failing = Some(level) }
        }
        (passing, failing, count)
    }

    #[test]
    fn the_highest_level_is_found_in_few_trials() {
        for capacity in [1.0, 3.3, 80.0, 799.0] {
            let (passing, failing, count) = search(capacity, "rate", 1.0, 1000.0);
            let (passing, failing) = (passing.unwrap(), failing.unwrap());
            assert!(
                passing <= capacity && capacity < failing && failing <= passing * 1.0201,
                "{capacity}: {passing} {failing}"
            );
            assert!(count <= 18, "{count}");
        }
        assert_eq!(search(37.0, "concurrency", 1.0, 64.0).0, Some(37.0));
        assert_eq!(search(1e9, "rate", 3.0, 100.0), (Some(100.0), None, 7));
        assert_eq!(search(0.5, "rate", 1.0, 100.0), (None, Some(1.0), 1));
    }

    #[test]
    fn faults_have_their_place() {
        let base = json!({
            "over": "rate", "min": 1, "max": 9,
            "load": { "endpoints": "http://127.0.0.1:1", "model": "m", "duration": 1, "slo": { "ttft": 1 } },
        });
        for (edit, path) in [
            (json!({ "max": 1 }), "max"),
            (json!({ "share": 2 }), "share"),
            (json!({ "over": "concurrency", "min": 1.5 }), "min"),
            (
                json!({ "load": { "endpoints": "http://127.0.0.1:1", "model": "m", "duration": 1 } }),
                "load.slo",
            ),
            (
                json!({ "load": { "endpoints": "http://127.0.0.1:1", "model": "m", "slo": { "ttft": 1 } } }),
                "load.duration",
            ),
            (
                json!({ "load": { "endpoints": [], "model": "m", "duration": 1, "slo": { "ttft": 1 } } }),
                "load.endpoints",
            ),
        ] {
            let mut with = base.clone();
            with.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
            assert_eq!(Search.check(&with).unwrap_err().path, path, "{edit}");
        }
    }
}
