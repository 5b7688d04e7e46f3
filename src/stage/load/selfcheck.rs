//! Whether the client spoiled its own measurement: how late it sent and read, how busy it was. Unaware of the server.

use serde_json::{Value, json};

use super::clock::seconds;
use super::shard::Report;
use crate::stage::metrics::spread::Spread;
use crate::stage::table::percentile::Rule;

/// The least p99 of the send lag that is too much, seconds.
const LAG: f64 = 0.001;
/// Of the median gap between tokens: a longer lag is too much.
const LAG_SHARE: f64 = 0.05;
/// A busier thread is too busy.
const BUSY: f64 = 0.85;
/// A rate that is farther off is not what was asked.
const RATE: f64 = 0.01;

/// What the check needs to know of the load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    pub(super) asked_rate: Option<f64>,
    /// Requests sent per second of the schedule.
    pub(super) delivered_rate: Option<f64>,
    pub(super) inflight_max: usize,
    /// The median gap between tokens, seconds.
    pub(super) median_itl: Option<f64>,
    /// The time per request is what the server made it wait: a limit of requests in flight was reached.
    pub(super) capped: bool,
    /// Some requests had no connection: the rate of the others is not the one that was asked for.
    pub(super) unsent: bool,
}

/// The verdict.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// What the client did wrong; empty if nothing.
    pub(super) reasons: Vec<String>,
    pub(super) json: Value,
}

/// Looks at what the shards say.
pub(super) fn check(reports: &[Report], load: &Delivered) -> Checked {
    let pooled = |of: &dyn Fn(&Report) -> &[u64]| {
        let values = reports.iter().flat_map(|report| of(report).iter().map(|ns| seconds(*ns))).collect();
        Spread::of(values, &[50.0, 99.0], Rule::Linear)
    };
    let send = pooled(&|report| &report.send_lags);
    let receive = pooled(&|report| &report.reads.lags);
    let overshoot = pooled(&|report| &report.overshoot);
    let share = |report: &Report| report.busy as f64 / (report.wall.max(1)) as f64;
    let cpu = reports.iter().map(share).max_by(f64::total_cmp).unwrap_or(0.0);
    let limit = load.median_itl.map_or(LAG, |itl| LAG.max(LAG_SHARE * itl));
    let mut reasons = Vec::new();
    let p99 = |spread: &Option<Spread>| spread.as_ref().map_or(0.0, |spread| spread.percentiles[1].1);
    for (what, spread) in [("sent", &send), ("read", &receive)] {
        if p99(spread) > limit {
            reasons.push(format!(
                "{what} late: p99 {:.3} ms, at most {:.3} ms",
                p99(spread) * 1e3,
                limit * 1e3
            ));
        }
    }
    if cpu > BUSY {
        reasons.push(format!(
            "a sending thread was busy for {:.0} % of the time, at most {:.0} %",
            cpu * 100.0,
            BUSY * 100.0
        ));
    }
    if let (Some(asked), Some(delivered), false) =
        (load.asked_rate, load.delivered_rate, load.capped || load.unsent)
        && (delivered / asked - 1.0).abs() > RATE
    {
        reasons.push(format!("{delivered:.3} requests per second were sent, {asked:.3} were asked for"));
    }
    let ms = |spread: &Option<Spread>| {
        let scaled = |spread: &Spread| {
            json!({
                "n": spread.n,
                "mean": spread.mean * 1e3,
                "max": spread.max * 1e3,
                "p50": spread.percentiles[0].1 * 1e3,
                "p99": spread.percentiles[1].1 * 1e3,
            })
        };
        spread.as_ref().map(scaled)
    };
    let total = |of: &dyn Fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let json = json!({
        "client_bound": !reasons.is_empty(),
        "reasons": reasons,
        "send_lag_ms": ms(&send),
        "receive_lag_ms": ms(&receive),
        "timer_overshoot_ms": ms(&overshoot),
        "cpu_share": cpu,
        "reads": total(&|report| report.reads.reads),
        "coalesced_reads": total(&|report| report.reads.coalesced),
        "asked_rate": load.asked_rate,
        "delivered_rate": load.delivered_rate,
        "inflight_max": load.inflight_max,
        "reconnects": total(&|report| report.reconnects),
    });
    Checked { reasons, json }
}
