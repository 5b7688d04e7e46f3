//! `llm.load`: the stage. Unaware of services: it is given URLs.

use std::sync::Arc;

use serde_json::Value;

use super::arrival::{Arrival, Extent};
use super::endpoint::Endpoint;
use super::params::{OnClientBound, Params};
use super::plan::{Plan, Shared};
use super::record::Record;
use super::shard::{self, Report};
use super::{clock, prompt, summary, table, trace};
use crate::api::{
    Done, ParamFault, Signature, Stage, StageContext, StageError, Work, parse_params, secrets_as_text,
};
use crate::model::Policy;

/// The stage.
pub(super) struct Load;

impl Stage for Load {
    fn name(&self) -> &'static str {
        "llm.load"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Sends prompts to OpenAI-compatible servers and measures every answer.\n\
                \n\
                Closed loops keep a number of requests in flight; open loops send by a schedule and count from it, so that a pause of the server \
                is not hidden (coordinated omission): `from_send` stands beside `from_schedule`. One warm connection per slot; stamps are CLOCK_MONOTONIC, \
                taken next to each write and read. Requests that failed are counted by kind and enter no latency.\n\
                \n\
                The client checks itself: the lag of sends and reads, the rate, the CPU time of its threads. A result that it spoiled fails, or is \
                marked `client_bound`. `buffering`: answers come whole, TTFT is the time of the last token.\n\
                \n\
                Columns of `requests`: id, shard, endpoint, attempt, xid (sent as x-request-id), sched_ns, send0_ns and send1_ns (around the write), head_ns, \
                first_event_ns, first_token_ns, last_token_ns, end_ns, input_tokens, output_tokens, status, failure, events, and number, connect0_ns, \
                connect1_ns, message, text; table `clock` ties the moments to dates. metrics.compute reads it.",
        )
        .input_list("prompts", "JSON Lines: {\"id\", \"messages\" or \"prompt\", \"max_tokens\"}")
        .optional_input("trace", "with arrival trace: recorded times")
        .output("requests", "SQLite: a row per attempt, and the clock")
        .output("summary", "JSON as metrics.compute, with failures, from_schedule, from_send and self_check")
        .policy(Policy::Sample)
        .work(Work::Wait)
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        parse_params::<Params>(&secrets_as_text(with))?.check()
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        params
            .check()
            .map_err(|fault| StageError::new(format!("parameter {}: {}", fault.path, fault.message)))?;
        let plan = Arc::new(plan(ctx, &params)?);
        let path = ctx.output("requests")?.to_owned();
        let before = clock::tie();
        let mut reports = run(&plan)?;
        let after = clock::tie();
        if plan.cancel.is_cancelled() {
            return Err(StageError::new("cancelled"));
        }
        let mut records: Vec<Record> =
            reports.iter_mut().flat_map(|report| std::mem::take(&mut report.records)).collect();
        records.sort_by_key(|record| (record.number, record.attempt));
        table::write(&path, &plan, &records, &[before, after])
            .map_err(|e| StageError::new(format!("failed to write output 'requests': {e}")))?;
        let (summary, checked) = summary::of(&path, &params, &plan, &reports, &records)?;
        ctx.write_json("summary", &summary)?;
        let counts = &summary["counts"];
        ctx.log(format!("{} requests, {} failed", counts["total"], counts["failed"]));
        if summary["buffering"] == Value::Bool(true) {
            ctx.log("the server sends whole answers (TTFT = E2EL): a proxy that buffers, or no stream");
        }
        none_succeeded(&records, &summary)?;
        if !checked.reasons.is_empty() {
            let reasons = checked.reasons.join("; ");
            ctx.log(format!("client_bound: {reasons}"));
            if params.on_client_bound == OnClientBound::Fail {
                return Err(StageError::new(format!("the client spoiled the measurement: {reasons}")).hint(
                    "lower the rate or the concurrency, free the machine, raise 'shards', or keep the result with on_client_bound: mark",
                ));
            }
        }
        Ok(Done::Made)
    }
}

/// A load of which nothing succeeded measured nothing.
fn none_succeeded(records: &[Record], summary: &Value) -> Result<(), StageError> {
    if summary["counts"]["success"] != 0 {
        return Ok(());
    }
    let first = records.iter().find_map(|record| Some((record.failure?, record.message.as_deref()?)));
    let (kind, message) =
        first.map_or(("none", "nothing was sent"), |(kind, message)| (kind.name(), message));
    Err(StageError::new(format!(
        "no request succeeded: {} (the first: {kind}: {message})",
        summary["failures"]
    ))
    .hint("check 'endpoints' and 'model'; the output 'requests' has every attempt"))
}

fn plan(ctx: &StageContext, params: &Params) -> Result<Plan, StageError> {
    let key = params.api_key.iter().map(|key| ("Authorization".to_owned(), format!("Bearer {key}")));
    let others = params.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    let headers: Vec<(String, String)> = key.chain(others).collect();
    let endpoints = params.endpoints.urls().iter().map(|url| {
        Endpoint::new(url, params.api, &headers)
            .map_err(|(message, hint)| StageError::new(message).hint(hint))
    });
    let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
    let jobs = prompt::jobs(ctx.files("prompts"), params)?;
    let times = match (&params.arrival, ctx.files("trace")) {
        (Arrival::Trace { .. }, [file]) => trace::read(file)?,
        (Arrival::Trace { .. }, files) => {
            return Err(StageError::new(format!(
                "arrival trace takes one input 'trace', {} given",
                files.len()
            )));
        }
        (_, []) => Vec::new(),
        _ => return Err(StageError::new("input 'trace' goes with arrival trace only")),
    };
    let traced = matches!(params.arrival, Arrival::Trace { .. });
    // each prompt once, unless something else says when to stop
    let requests = params.requests.or((params.duration.is_none() && !traced).then_some(jobs.len() as u64));
    let extent = Extent { requests, duration: params.duration };
    let schedule = params.arrival.schedule(extent, params.seed, &times);
    let slots = match params.arrival {
        Arrival::Closed { concurrency } => {
            Some(params.max_concurrency.map_or(concurrency, |most| most.min(concurrency)))
        }
        _ => params.max_concurrency,
    };
    let shards = params.shards.unwrap_or(1).min(slots.unwrap_or(usize::MAX));
    let sums = params.weights.iter().flatten().scan(0.0, |sum, weight| {
        *sum += weight;
        Some(*sum)
    });
    Ok(Plan {
        shared: Shared::new(endpoints.len(), shards),
        endpoints,
        jobs,
        schedule,
        most: requests.unwrap_or(u64::MAX),
        duration: params.duration.map(|seconds| (seconds * 1e9) as u64),
        slots,
        warmup: params.warmup,
        shards,
        dispatch: params.dispatch,
        weights: sums.collect(),
        limits: params.timeouts,
        retry: params.retry,
        save_text: params.save_text,
        seed: params.seed,
        id: params.request_id.clone().unwrap_or_else(|| format!("flow-{:08x}", fastrand::u32(..))),
        cancel: ctx.cancel.clone(),
    })
}

/// Runs all shards to their end.
fn run(plan: &Arc<Plan>) -> Result<Vec<Report>, StageError> {
    std::thread::scope(|scope| {
        let shards: Vec<_> = (0..plan.shards)
            .map(|number| {
                let name = format!("load-{number}");
                std::thread::Builder::new().name(name).spawn_scoped(scope, move || shard::run(plan, number))
            })
            .collect();
        let mut reports = Vec::new();
        for shard in shards {
            let failed =
                |e: std::io::Error| StageError::new(format!("failed to start a thread that sends: {e}"));
            let ended = shard.map_err(failed)?.join();
            reports
                .push(ended.map_err(|_| StageError::new("a thread that sends panicked"))?.map_err(failed)?);
        }
        Ok(reports)
    })
}
