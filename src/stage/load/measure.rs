//! One load from its parameters to its table and summary. Unaware of what becomes of them.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::arrival::{Arrival, Extent};
use super::endpoint::Endpoint;
use super::network::Network;
use super::params::Params;
use super::plan::{Plan, Shared};
use super::record::Record;
use super::selfcheck::Checked;
use super::shard::{self, Report};
use super::{clock, prompt, summary, table, trace};
use crate::api::{StageContext, StageError};

/// What a load came to.
pub(super) struct Measured {
    pub(super) summary: Value,
    /// Whether the client spoiled it.
    pub(super) checked: Checked,
    /// Why it measured nothing: no request succeeded.
    pub(super) nothing: Option<StageError>,
}

/// Does the load on the inputs of `ctx`; its rows go to `path`.
pub(super) fn measure(ctx: &StageContext, params: &Params, path: &Path) -> Result<Measured, StageError> {
    let plan = Arc::new(plan(ctx, params)?);
    let before = clock::tie();
    let mut reports = run(&plan)?;
    let after = clock::tie();
    if plan.cancel.is_cancelled() {
        return Err(StageError::new("cancelled"));
    }
    let mut records: Vec<Record> =
        reports.iter_mut().flat_map(|report| std::mem::take(&mut report.records)).collect();
    records.sort_by_key(|record| (record.number, record.attempt));
    let failed = |e: rusqlite::Error| StageError::new(format!("failed to write output 'requests': {e}"));
    table::write(path, &plan, &records, &[before, after]).map_err(failed)?;
    let (summary, checked) = summary::of(path, params, &plan, &reports, &records)?;
    table::mark(path, &checked.reasons).map_err(failed)?;
    let nothing = none_succeeded(&records, &summary);
    Ok(Measured { summary, checked, nothing })
}

/// A load of which nothing succeeded measured nothing.
fn none_succeeded(records: &[Record], summary: &Value) -> Option<StageError> {
    if summary["counts"]["success"] != 0 {
        return None;
    }
    let first = records.iter().find_map(|record| Some((record.failure?, record.message.as_deref()?)));
    let (kind, message) =
        first.map_or(("none", "nothing was sent"), |(kind, message)| (kind.name(), message));
    let error = StageError::new(format!(
        "no request succeeded: {} (the first: {kind}: {message})",
        summary["failures"]
    ));
    Some(error.hint("check 'endpoints' and 'model'"))
}

fn plan(ctx: &StageContext, params: &Params) -> Result<Plan, StageError> {
    let key = params.api_key.iter().map(|key| ("Authorization".to_owned(), format!("Bearer {key}")));
    let others = params.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    let headers: Vec<(String, String)> = key.chain(others).collect();
    let network = Network::new(params, ctx.files("authorities"))?;
    let endpoints = params.endpoints.urls().iter().map(|url| {
        Endpoint::new(url, params.api, &headers, &network)
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
    let schedule = params.arrival.schedule(extent, params.seed, &times).map_err(|message| {
        StageError::new(message)
            .hint("check 'arrival', 'requests' and 'duration', and the times of the trace")
    })?;
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
        shared: Shared::new(endpoints.len()),
        endpoints,
        turns: jobs.iter().map(|job| job.later.len() as u64 + 1).max().unwrap_or(1),
        jobs,
        think: params.think,
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
                let thread = std::thread::Builder::new().name(name);
                let started = thread.spawn_scoped(scope, move || shard::run(plan, number));
                started.inspect_err(|_| plan.give_up())
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
