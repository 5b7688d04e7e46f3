//! What a load comes to: metrics of its table, failures by kind, the self-check. Unaware of how it was done.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::clock::seconds;
use super::conversation::Conversations;
use super::params::Params;
use super::plan::Plan;
use super::record::Record;
use super::selfcheck::{self, Checked, Delivered};
use super::shard::Report;
use super::steady;
use crate::api::StageError;
use crate::stage::metrics::measured::{self, Origin};
use crate::stage::metrics::row::Row;
use crate::stage::metrics::summary::{Asked, part, summarize};
use crate::stage::sqlite;

/// The summary and the verdict on the client.
pub(super) fn of(
    path: &Path,
    params: &Params,
    plan: &Plan,
    reports: &[Report],
    records: &[Record],
) -> Result<(Value, Checked), StageError> {
    let asked = Asked {
        rules: params.rules,
        percents: params.percentiles.clone().unwrap_or_else(|| params.rules.percents().to_vec()),
        rule: params.rules.percentile_rule(),
        slo: params.slo,
        window: None,
    };
    let sent = rows(path, Origin::Send)?;
    let from_send = summarize(&sent, &asked).map_err(StageError::new)?;
    let load = delivered(params, plan, records, &from_send);
    let checked = selfcheck::check(reports, &load);
    let mut out = Map::new();
    let open = plan.schedule.is_some();
    // in open loop what had to wait counts: the summary's own numbers are those from the schedule
    let scheduled = if open { Some(rows(path, Origin::Schedule)?) } else { None };
    let counted = scheduled.as_ref().unwrap_or(&sent);
    let shown = match &scheduled {
        Some(rows) => summarize(rows, &asked).map_err(StageError::new)?,
        None => from_send.clone(),
    };
    let parts = |summary: &Value| json!({ "metrics": summary["metrics"], "goodput": summary["goodput"] });
    out.extend(shown.as_object().cloned().unwrap_or_default());
    out.insert("load".into(), definition(params, plan));
    out.insert("loop".into(), json!(if open { "open" } else { "closed" }));
    let failed: BTreeMap<&str, u64> = count(last_attempts(records));
    out.insert("failures".into(), json!(failed));
    let retried = records.windows(2).filter(|pair| pair[0].number == pair[1].number).map(|pair| &pair[0]);
    out.insert("retried".into(), json!(count(retried)));
    out.insert("buffering".into(), json!(buffering(&from_send)));
    if open {
        out.insert("from_schedule".into(), parts(&shown));
        let mut sent = parts(&from_send);
        sent["hides_waiting"] = json!(hides(&shown, &from_send));
        out.insert("from_send".into(), sent);
    }
    if plan.turns > 1 {
        let mut all = Conversations::default();
        reports.iter().for_each(|report| all.add(report.conversations));
        out.insert("conversations".into(), all.json());
        out.insert("by_turn".into(), by_turn(counted, records, plan, &asked));
    }
    out.insert("steady".into(), steady::parts(&sent, counted, plan.slots, &params.trim, &asked));
    out.insert("self_check".into(), checked.json.clone());
    Ok((Value::Object(out), checked))
}

fn rows(path: &Path, origin: Origin) -> Result<Vec<Row>, StageError> {
    let failed = |e: rusqlite::Error| StageError::new(format!("output 'requests': {e}"));
    let db = sqlite::open_to_read(path).map_err(failed)?;
    measured::rows(&db, origin).map_err(failed)?.map_err(StageError::new)
}

/// The requests of each turn by themselves: later ones have longer prompts, of which a server may know a part.
fn by_turn(rows: &[Row], records: &[Record], plan: &Plan, asked: &Asked) -> Value {
    let mut turns: BTreeMap<u64, Vec<&Row>> = BTreeMap::new();
    for (row, record) in rows.iter().zip(last_attempts(records)) {
        turns.entry(plan.place_of(record.number).1).or_default().push(row);
    }
    let of = |(turn, rows): (u64, Vec<&Row>)| {
        let found = part(&rows, 0, None, asked);
        json!({ "turn": turn, "n": rows.len(), "counts": found["counts"], "metrics": found["metrics"] })
    };
    turns.into_iter().map(of).collect()
}

/// What was asked for, without what must not be told.
fn definition(params: &Params, plan: &Plan) -> Value {
    json!({
        "model": params.model,
        "api": params.api,
        "stream": params.stream,
        "arrival": params.arrival,
        "requests": params.requests,
        "duration": params.duration,
        "max_concurrency": params.max_concurrency,
        "warmup": params.warmup,
        "seed": params.seed,
        "endpoints": plan.endpoints.len(),
        "transports": plan.endpoints.iter().map(|endpoint| endpoint.route.name()).collect::<std::collections::BTreeSet<_>>(),
        "shards": plan.shards,
        "prompts": plan.jobs.len(),
        "turns": plan.turns,
    })
}

/// The last attempt of each request; records stand in order.
fn last_attempts(records: &[Record]) -> impl Iterator<Item = &Record> {
    let next = records.iter().skip(1).map(|record| Some(record.number)).chain([None]);
    records.iter().zip(next).filter(|(record, next)| *next != Some(record.number)).map(|(record, _)| record)
}

fn count<'r>(records: impl Iterator<Item = &'r Record>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for failure in records.filter_map(|record| record.failure) {
        *counts.entry(failure.name()).or_default() += 1;
    }
    counts
}

fn delivered(params: &Params, plan: &Plan, records: &[Record], summary: &Value) -> Delivered {
    // the schedule says when conversations begin
    let first = |r: &&Record| r.attempt == 1 && r.send0 > 0 && plan.place_of(r.number).1 == 0;
    let sends: Vec<u64> = records.iter().filter(first).map(|r| r.send0).collect();
    let span = sends.iter().max().zip(sends.iter().min()).map(|(last, first)| last - first);
    let count = sends.len();
    // n requests have n - 1 gaps
    let rate = span.filter(|span| *span > 0 && count > 1).map(|span| (count - 1) as f64 / seconds(span));
    let scheduled = plan.schedule.as_ref().and_then(|schedule| {
        let (first, last) = (schedule.first()?, schedule.last()?);
        (last > first).then(|| (schedule.len() - 1) as f64 / seconds(last - first))
    });
    Delivered {
        asked_rate: scheduled.or(params.arrival.rate()),
        delivered_rate: rate,
        inflight_max: plan.highest(),
        median_itl: summary["metrics"]["itl"]["p50"].as_f64(),
        // what had no connection to be sent on is counted as a failure
        unsent: records.iter().any(|r| r.attempt == 1 && r.send0 == 0),
        capped: plan.schedule.is_some() && plan.slots.is_some_and(|slots| plan.highest() >= slots),
    }
}

/// Whether the times from the send hide what requests waited before: a mean or a percentile of theirs is less by more than a tenth and a
/// millisecond.
fn hides(scheduled: &Value, sent: &Value) -> bool {
    ["ttft", "e2el"].iter().any(|name| {
        let spread = scheduled["metrics"][*name].as_object().into_iter().flatten();
        let mut pairs = spread
            .filter(|(of, _)| *of == "mean" || of.starts_with('p'))
            .filter_map(|(of, all)| Some((all.as_f64()?, sent["metrics"][*name][of].as_f64()?)));
        pairs.any(|(all, part)| all - part > 0.001f64.max(0.1 * all))
    })
}

/// The server, or a proxy before it, holds answers back until they are whole: their first token comes with the last.
fn buffering(summary: &Value) -> bool {
    let p50 = |name: &str| summary["metrics"][name]["p50"].as_f64();
    let tokens = p50("output_tokens").is_some_and(|tokens| tokens >= 4.0);
    match (p50("ttft"), p50("e2el")) {
        (Some(ttft), Some(e2el)) => tokens && e2el > 0.02 && (e2el - ttft) < 0.01 * e2el,
        _ => false,
    }
}
