//! Whether a node that wanted to be alone was: what other processes of the machine did right before it and right after.

use std::time::Duration;

use serde_json::{Value, json};

/// How long is looked at each side.
const WINDOW: Duration = Duration::from_millis(50);
/// Less than so many busy processors is the system itself.
const QUIET: f64 = 0.25;

/// Processor time of the whole machine since it started, in ticks: busy, all.
fn ticks() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let all: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

/// Processors that were busy in a short time from now on, while this run does nothing; `None` where the system does not say.
pub(super) fn others() -> Option<f64> {
    let before = ticks()?;
    std::thread::sleep(WINDOW);
    let after = ticks()?;
    let all = after.1.checked_sub(before.1).filter(|all| *all > 0)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Some(after.0.saturating_sub(before.0) as f64 / all as f64 * cores as f64)
}

/// As it stands in the record: busy processors before and after, and whether that is quiet.
pub(super) fn record(before: Option<f64>, after: Option<f64>) -> Value {
    let rounded = |busy: Option<f64>| busy.map(|busy| (busy * 100.0).round() / 100.0);
    let quiet = before.zip(after).map(|(before, after)| before < QUIET && after < QUIET);
    json!({ "busy_cpus_before": rounded(before), "busy_cpus_after": rounded(after), "ran_alone": quiet })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_means_quiet_before_and_after() {
        assert_eq!(record(Some(0.101), Some(0.2))["ran_alone"], true);
        assert_eq!(
            record(Some(0.1), Some(1.9)),
            json!({"busy_cpus_before": 0.1, "busy_cpus_after": 1.9, "ran_alone": false})
        );
        assert_eq!(record(None, Some(0.0))["ran_alone"], Value::Null);
        assert!(others().is_none_or(|busy| (0.0..=4096.0).contains(&busy)));
    }
}
