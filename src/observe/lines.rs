//! Events as lines for people: wording, padding, colours. Unaware of terminals and of what came before.

use std::collections::BTreeMap;
use std::fmt::Display;

use anstream::adapter::strip_str;
use anstyle::{AnsiColor, Style};

use crate::event::{Determinism, DeterminismReport, LeasedDevice, NodeReport};
use crate::model::Outcome;

/// Width of the first column: the longest usual outcome.
const FIRST: usize = 8;

/// `text` in `style`; the printer takes colours out where none are shown.
pub(super) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Less important.
pub(super) fn dim(text: impl Display) -> String {
    paint(Style::new().dimmed(), text)
}

fn style(outcome: Outcome) -> Style {
    match outcome {
        Outcome::Ran => AnsiColor::Green.on_default(),
        Outcome::Restored => AnsiColor::Cyan.on_default(),
        Outcome::Failed => AnsiColor::Red.on_default().bold(),
        Outcome::Skipped | Outcome::Cancelled => AnsiColor::Yellow.on_default(),
        Outcome::Fresh | Outcome::Cached | Outcome::Absent => Style::new().dimmed(),
    }
}

/// The outcome in its colour.
pub(super) fn outcome(outcome: Outcome) -> String {
    paint(style(outcome), outcome.as_str())
}

/// A line whose first word says what kind it is.
pub(super) fn kind(kind: &str, style: Style, rest: &str) -> String {
    format!("{}  {rest}", paint(style, format_args!("{kind:FIRST$}")))
}

/// `0.02s`, `12.3s`, `4m05s`, `1h02m`.
pub(super) fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if seconds < 9.995 {
        format!("{seconds:.2}s")
    } else if seconds < 59.95 {
        format!("{seconds:.1}s")
    } else if whole < 3600 {
        format!("{}m{:02}s", whole / 60, whole % 60)
    } else {
        format!("{}h{:02}m", whole / 3600, whole % 3600 / 60)
    }
}

/// One line on what became of a node: outcome, id, seconds, why, and what else is worth knowing.
pub(super) fn node(report: &NodeReport) -> String {
    let mut parts = vec![report.id.clone()];
    if report.attempts > 0 {
        parts.push(seconds(report.seconds));
    }
    let cause =
        if report.outcome == Outcome::Failed { report.error.as_ref() } else { report.reason.as_ref() };
    parts.extend(cause.and_then(|text| text.lines().next()).map(|line| strip_str(line).to_string()));
    if report.attempts > 1 {
        parts.push(format!("{} attempts", report.attempts));
    }
    for (set, word) in [
        (report.checked, "checked"),
        (report.stale, "not checked (offline)"),
        (report.allowed && report.outcome == Outcome::Failed, "allowed to fail"),
    ] {
        if set {
            parts.push(word.to_owned());
        }
    }
    parts.extend(report.device.as_ref().map(|device| format!("on {device}")));
    kind(report.outcome.as_str(), style(report.outcome), &parts.join("  "))
}

/// `  on gpu:0,1`; empty without devices.
pub(super) fn on(devices: &[LeasedDevice]) -> String {
    let names: Vec<String> = devices.iter().map(|device| device.index.to_string()).collect();
    if names.is_empty() { String::new() } else { format!("  on gpu:{}", names.join(",")) }
}

/// A failed node in full: its line, the rest of the message, the last log lines, where the log is, what to try.
pub(super) fn failure(report: &NodeReport) -> String {
    let mut out = node(report);
    for line in report.error.as_deref().unwrap_or("").lines().skip(1) {
        out.push_str(&format!("\n    {}", strip_str(line)));
    }
    for line in &report.tail {
        out.push_str(&format!("\n    {} {}", dim("|"), strip_str(line)));
    }
    if let Some(log) = &report.log {
        out.push_str(&format!("\n    log: {log}"));
    }
    for hint in &report.hints {
        out.push_str(&format!("\n    {} {hint}", paint(AnsiColor::Cyan.on_default(), "help:")));
    }
    out
}

/// What two runs of a node showed: each output that differs, where, how it looks, and what to do.
pub(super) fn determinism(report: &DeterminismReport) -> String {
    let style = match report.verdict {
        Determinism::Same => AnsiColor::Green.on_default(),
        Determinism::Skipped => AnsiColor::Yellow.on_default(),
        Determinism::Differs | Determinism::Failed => AnsiColor::Red.on_default().bold(),
    };
    let mut parts = vec![report.id.clone()];
    parts.extend(report.seconds.iter().map(|time| seconds(*time)));
    let mut reason = report.reason.as_deref().unwrap_or_default().lines();
    parts.extend(reason.next().map(|line| strip_str(line).to_string()));
    let mut out = kind(report.verdict.as_str(), style, &parts.join("  "));
    for line in reason {
        out.push_str(&format!("\n    {}", strip_str(line)));
    }
    for found in &report.differences {
        out.push_str(&format!("\n    output '{}' ({}", found.output, found.path));
        out.extend(found.file.iter().map(|file| format!("/{file}")));
        out.push_str(&format!("): {}", found.what));
        out.extend(found.offset.map(|offset| format!(" from byte {offset}")));
        out.extend(found.line.map(|line| format!(", line {line}")));
        if found.files > 1 {
            out.push_str(&format!("; {} files differ", found.files));
        }
        let texts = found.lines.iter().map(Some).chain(std::iter::repeat(None));
        for (digest, text) in [&found.first, &found.second].into_iter().flatten().zip(texts) {
            let text = text.map(|text| format!("  {}", strip_str(text).to_string().escape_debug()));
            out.push_str(&format!("\n    {} {digest}{}", dim("|"), text.unwrap_or_default()));
        }
        for hint in &found.hints {
            out.push_str(&format!("\n    {} {hint}", paint(AnsiColor::Cyan.on_default(), "help:")));
        }
    }
    out
}

/// `26 ran, 3 fresh`: what happened first, then what did not have to; `nothing to do` if there were no nodes.
pub(super) fn counts(counts: &BTreeMap<Outcome, usize>) -> String {
    const ORDER: [Outcome; 8] = [
        Outcome::Failed,
        Outcome::Skipped,
        Outcome::Cancelled,
        Outcome::Ran,
        Outcome::Restored,
        Outcome::Cached,
        Outcome::Fresh,
        Outcome::Absent,
    ];
    let parts: Vec<String> = ORDER
        .iter()
        .filter_map(|outcome| counts.get(outcome).map(|n| (outcome, n)))
        .filter(|(_, n)| **n > 0)
        .map(|(outcome, n)| paint(style(*outcome), format_args!("{n} {}", outcome.as_str())))
        .collect();
    if parts.is_empty() { "no nodes".to_owned() } else { parts.join(", ") }
}

/// The last line of a run. `file` is the workflow as given, for the command that lists the orphans.
pub(super) fn summary(
    result: &str,
    by_outcome: &BTreeMap<Outcome, usize>,
    elapsed: f64,
    orphans: usize,
    file: &str,
) -> String {
    let color = if result == "ok" { AnsiColor::Green } else { AnsiColor::Red };
    let word = paint(color.on_default().bold(), result);
    let mut out = format!("{word}: {} in {}", counts(by_outcome), seconds(elapsed));
    if orphans > 0 {
        let noun = if orphans == 1 { "orphan" } else { "orphans" };
        out.push_str(&format!(", {orphans} {noun} (flow ls {file} --orphans)"));
    }
    out
}

#[cfg(test)]
pub(super) fn report(id: &str, outcome: Outcome) -> NodeReport {
    NodeReport {
        id: id.to_owned(),
        outcome,
        reason: None,
        key: None,
        seconds: 0.0,
        attempts: 0,
        checked: false,
        stale: false,
        allowed: false,
        adopted: false,
        device: None,
        lease: Vec::new(),
        error: None,
        hints: Vec::new(),
        tail: Vec::new(),
        log: None,
        record: serde_json::Map::new(),
        bytes: None,
        timing: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        strip_str(text).to_string()
    }

    #[test]
    fn times_are_as_long_as_they_need_to_be() {
        let texts: Vec<String> =
            [0.0, 0.024, 9.999, 12.34, 59.96, 245.0, 3720.0].into_iter().map(seconds).collect();
        assert_eq!(texts, ["0.00s", "0.02s", "10.0s", "12.3s", "1m00s", "4m05s", "1h02m"]);
    }

    #[test]
    fn a_node_line_names_outcome_id_time_and_reason() {
        let mut ran = report("process.merge", Outcome::Ran);
        ran.reason = Some("input left changed".to_owned());
        ran.seconds = 0.02;
        ran.attempts = 1;
        assert_eq!(plain(&node(&ran)), "ran       process.merge  0.02s  input left changed");
        ran.attempts = 3;
        ran.device = Some("gpu0".to_owned());
        assert_eq!(
            plain(&node(&ran)),
            "ran       process.merge  0.02s  input left changed  3 attempts  on gpu0"
        );
        let mut stale = report("fetch", Outcome::Fresh);
        stale.stale = true;
        assert_eq!(plain(&node(&stale)), "fresh     fetch  not checked (offline)");
    }

    #[test]
    fn a_failure_shows_message_log_lines_place_and_hints() {
        let mut failed = report("fetch[seq=1k_1k]", Outcome::Failed);
        failed.attempts = 1;
        failed.seconds = 1.2;
        failed.error = Some("GET http://h/x answered 404\nexpected 200".to_owned());
        failed.tail = vec!["\u{1b}[31mlast\u{1b}[0m line".to_owned()];
        failed.log = Some("cache/runs/r/fetch.log".to_owned());
        failed.hints = vec!["check the URL".to_owned()];
        assert_eq!(
            plain(&failure(&failed)),
            "failed    fetch[seq=1k_1k]  1.20s  GET http://h/x answered 404\n    expected 200\n    | last line\n    \
             log: cache/runs/r/fetch.log\n    help: check the URL"
        );
        assert!(!failure(&failed).contains("\u{1b}[31mlast"), "a log's own colours stay out");
    }

    #[test]
    fn two_runs_that_differ_show_where_and_how() {
        let difference = crate::event::OutputDifference {
            output: "o".into(),
            path: "out".into(),
            file: Some("a/b.txt".into()),
            what: "content".into(),
            offset: Some(7),
            line: Some(2),
            first: Some("b3:01".into()),
            second: Some("b3:02".into()),
            lines: vec!["x\t1".into(), "x\t2".into()],
            files: 3,
            hints: vec!["seed it".into()],
        };
        let report = DeterminismReport {
            id: "s".into(),
            verdict: Determinism::Differs,
            reason: None,
            seconds: vec![0.5, 0.25],
            differences: vec![difference],
        };
        assert_eq!(
            plain(&determinism(&report)),
            "differs   s  0.50s  0.25s\n    output 'o' (out/a/b.txt): content from byte 7, line 2; 3 files differ\n    \
             | b3:01  x\\t1\n    | b3:02  x\\t2\n    help: seed it"
        );
    }

    #[test]
    fn the_summary_counts_what_happened_and_names_the_way_to_the_orphans() {
        let by = BTreeMap::from([(Outcome::Fresh, 3), (Outcome::Ran, 26), (Outcome::Failed, 0)]);
        assert_eq!(plain(&summary("ok", &by, 1.93, 0, "w.json")), "ok: 26 ran, 3 fresh in 1.93s");
        assert_eq!(
            plain(&summary("failed", &BTreeMap::new(), 0.0, 3, "w.json")),
            "failed: no nodes in 0.00s, 3 orphans (flow ls w.json --orphans)"
        );
    }
}
