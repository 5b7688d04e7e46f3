//! What `flow log` shows of past runs, as text and as JSON. Unaware of where records lie.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::record::{Record, millis};
use super::{lines, table};
use crate::base::suggest;
use crate::event::NodeReport;
use crate::model::Outcome;
use crate::{Error, Result};

/// The one run of `ids` (oldest first) that is meant by `asked`: an id, an unambiguous beginning or end of one, or `last` (also
/// without an answer). The error names what there is.
pub fn select<'a>(ids: &'a [String], asked: Option<&str>) -> Result<&'a str> {
    let asked = asked.unwrap_or("last");
    if asked == "last" {
        return ids.last().map(String::as_str).ok_or_else(|| Error::usage("there is no run yet"));
    }
    if let Some(id) = ids.iter().find(|id| *id == asked) {
        return Ok(id);
    }
    let near: Vec<&String> = ids.iter().filter(|id| id.starts_with(asked) || id.ends_with(asked)).collect();
    match near[..] {
        [id] => Ok(id),
        [] => Err(Error::usage(format!("no run '{asked}'")).hint("flow log lists the runs")),
        _ => {
            let names: Vec<&str> = near.iter().map(|id| id.as_str()).collect();
            Err(Error::usage(format!("'{asked}' means {} runs: {}", near.len(), names.join(", "))))
        }
    }
}

/// The list of runs, in the order given.
pub fn list(records: &[Record]) -> String {
    let rows: Vec<Vec<String>> = records
        .iter()
        .map(|record| {
            vec![
                record.id.clone(),
                record.started_at.clone(),
                record.workflow.clone(),
                record.outcome().to_owned(),
                lines::seconds(record.seconds),
                lines::counts(&record.counts()),
            ]
        })
        .collect();
    table::render(&["RUN", "STARTED", "WORKFLOW", "OUTCOME", "TIME", "NODES"], &[4], &rows)
}

/// The list of runs as JSON: the objects of `flow run --json` without `nodes`, with `started_at` and `file`.
pub fn list_json(records: &[Record]) -> Value {
    records
        .iter()
        .map(|record| {
            let mut object = head_json(record, false);
            if let Some(map) = object.as_object_mut() {
                map.shift_remove("nodes");
            }
            object
        })
        .collect()
}

/// One run: its head, the nodes that were not fresh (all of them with `all`), failures in full, services, notes.
pub fn show(record: &Record, all: bool) -> String {
    let mut out = format!(
        "run       {}\nworkflow  {} ({})\nstarted   {}\nplan      {}\n",
        record.id,
        record.workflow,
        record.file,
        record.started_at,
        record.plan_digest.as_deref().unwrap_or("-")
    );
    let nodes: Vec<&NodeReport> =
        record.sorted().into_iter().filter(|node| all || node.worth_a_line()).collect();
    section(&mut out, nodes.iter().filter(|n| n.outcome != Outcome::Failed).map(|node| lines::node(node)));
    section(
        &mut out,
        record.running.iter().map(|(node, since)| {
            format!("{:8}  {node}  started at {}, never finished", "running", lines::seconds(*since))
        }),
    );
    section(
        &mut out,
        record.services.iter().map(|service| {
            let mut line = format!("{:8}  {}", "service", service.id);
            if let (Some(url), Some(seconds)) = (&service.url, service.seconds) {
                line.push_str(&format!("  {url}  ready in {}", lines::seconds(seconds)));
            }
            if let Some(failure) = &service.failure {
                line.push_str(&format!("  failed: {failure}"));
            }
            line
        }),
    );
    section(&mut out, record.notes.iter().map(|note| format!("{:8}  {note}", "note")));
    section(&mut out, record.failed().into_iter().map(lines::failure));
    out.push('\n');
    let result =
        lines::summary(record.outcome(), &record.counts(), record.seconds, record.orphans, &record.file);
    out.push_str(&result);
    out.push('\n');
    out
}

fn section(out: &mut String, entries: impl Iterator<Item = String>) {
    let mut first = true;
    for entry in entries {
        if std::mem::take(&mut first) {
            out.push('\n');
        }
        out.push_str(&entry);
        out.push('\n');
    }
}

/// One run as JSON: the object of `flow run --json` with `started_at`, `file`, `orphans`, `running`, `services`, `notes`, and for failed
/// nodes `hints`, `tail` and `log`.
pub fn show_json(record: &Record, all: bool) -> Value {
    let mut object = head_json(record, all);
    object["orphans"] = record.orphans.into();
    object["running"] = record.running.keys().map(String::as_str).collect();
    object["services"] = record
        .services
        .iter()
        .map(|service| {
            json!({
                "id": service.id, "url": service.url, "pid": service.pid,
                "seconds": service.seconds.map(millis), "failure": service.failure, "devices": service.devices,
            })
        })
        .collect();
    object["notes"] = record.notes.iter().map(String::as_str).collect();
    for node in object["nodes"].as_array_mut().into_iter().flatten() {
        let Some(report) = node["id"].as_str().and_then(|id| record.nodes.get(id)) else { continue };
        if report.outcome == Outcome::Failed {
            node["hints"] = report.hints.iter().map(String::as_str).collect();
            node["tail"] = report.tail.iter().map(String::as_str).collect();
            node["log"] = report.log.as_deref().into();
        }
        if !report.lease.is_empty() {
            node["lease"] = json!(report.lease);
        }
        if !report.record.is_empty() {
            node["record"] = report.record.clone().into();
        }
    }
    object
}

fn head_json(record: &Record, all: bool) -> Value {
    let mut object = record.summary_json(all);
    object["started_at"] = record.started_at.as_str().into();
    object["file"] = record.file.as_str().into();
    object
}

/// The log lines of one node or service, each with a newline; empty if it wrote none.
pub fn output(record: &Record, node: &str) -> Result<String> {
    if let Some(log) = record.logs.get(node) {
        return Ok(log.iter().map(|line| format!("{line}\n")).collect());
    }
    let known: BTreeSet<&str> = record
        .nodes
        .keys()
        .chain(record.running.keys())
        .map(String::as_str)
        .chain(record.services.iter().map(|service| service.id.as_str()))
        .collect();
    if known.contains(node) {
        return Ok(String::new());
    }
    let mut error = Error::usage(format!("run {} has no node or service '{node}'", record.id));
    error.hints.extend(suggest::hint(node, known));
    Err(error)
}

/// A node that is not the same in two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Node id.
    pub node: String,
    /// Outcome and key in the first run; `None` if it had no such node.
    pub a: Option<(Outcome, Option<String>)>,
    /// In the second.
    pub b: Option<(Outcome, Option<String>)>,
}

impl Difference {
    /// What differs: `only in A`, `only in B`, `key`, `outcome`, `key and outcome`.
    pub fn what(&self) -> &'static str {
        match (&self.a, &self.b) {
            (Some(_), None) => "only in A",
            (None, _) => "only in B",
            (Some(a), Some(b)) => match (a.1 != b.1, a.0 != b.0) {
                (true, true) => "key and outcome",
                (true, false) => "key",
                (false, _) => "outcome",
            },
        }
    }
}

/// Nodes whose key or outcome differs, and those that only one of the runs has, by id.
pub fn diff(a: &Record, b: &Record) -> Vec<Difference> {
    let ids: BTreeSet<&String> = a.nodes.keys().chain(b.nodes.keys()).collect();
    let side = |record: &Record, id: &str| record.nodes.get(id).map(|node| (node.outcome, node.key.clone()));
    ids.into_iter()
        .map(|id| Difference { node: id.clone(), a: side(a, id), b: side(b, id) })
        .filter(|difference| difference.a != difference.b)
        .collect()
}

/// The differences of two runs as a table.
pub fn diff_text(a: &Record, b: &Record) -> String {
    let differences = diff(a, b);
    let mut out = format!("A  {}  {}\nB  {}  {}\n\n", a.id, a.outcome(), b.id, b.outcome());
    if differences.is_empty() {
        out.push_str("no difference\n");
        return out;
    }
    let cell = |side: &Option<(Outcome, Option<String>)>| match side {
        None => "-".to_owned(),
        Some((outcome, key)) => {
            let key = key.as_deref().unwrap_or("no key");
            format!("{} {}", lines::outcome(*outcome), key.chars().take(15).collect::<String>())
        }
    };
    let rows: Vec<Vec<String>> = differences
        .iter()
        .map(|d| vec![d.node.clone(), d.what().to_owned(), cell(&d.a), cell(&d.b)])
        .collect();
    out.push_str(&table::render(&["NODE", "DIFFERS", "A", "B"], &[], &rows));
    out
}

/// The differences of two runs as JSON: `{"a", "b", "nodes": [{"id", "differs", "a": {"outcome", "key"}, "b": ...}]}`.
pub fn diff_json(a: &Record, b: &Record) -> Value {
    let side = |side: &Option<(Outcome, Option<String>)>| {
        side.as_ref().map_or(Value::Null, |(outcome, key)| json!({ "outcome": outcome.as_str(), "key": key }))
    };
    let nodes: Vec<Value> = diff(a, b)
        .iter()
        .map(|d| json!({ "id": d.node, "differs": d.what(), "a": side(&d.a), "b": side(&d.b) }))
        .collect();
    json!({ "a": a.id, "b": b.id, "nodes": nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record::tests::lines as record_lines;
    use anstream::adapter::strip_str;
    use expect_test::expect;

    fn record() -> Record {
        Record::read(record_lines()).unwrap()
    }

    fn other() -> Record {
        let mut other = record();
        other.id = "20261122-080000-0001".to_owned();
        other.nodes["merge"].key = Some("b3:ff".to_owned());
        other.nodes["fetch[seq=1k_1k]"].outcome = Outcome::Ran;
        let mut added = other.nodes["clean"].clone();
        added.id = "verify".to_owned();
        other.nodes.insert(added.id.clone(), added);
        other.nodes.shift_remove("wrap");
        other
    }

    fn plain(text: &str) -> String {
        strip_str(text).to_string()
    }

    #[test]
    fn a_list_of_runs() {
        let killed = Record::read(record_lines().into_iter().take(9)).unwrap();
        expect![[r#"
            RUN                   STARTED               WORKFLOW      OUTCOME      TIME  NODES
            20261121-101500-7f3a  2026-11-21T10:15:00Z  inferencemax  failed      1.93s  1 failed, 1 skipped, 1 ran, 1 fresh
            20261121-101500-7f3a  2026-11-21T10:15:00Z  inferencemax  unfinished  0.88s  1 fresh
        "#]]
        .assert_eq(&plain(&list(&[record(), killed])));
        let json = list_json(&[record()]);
        assert_eq!(json[0]["started_at"], "2026-11-21T10:15:00Z");
        assert!(json[0].get("nodes").is_none() && json[0]["counts"]["ran"] == 1);
    }

    #[test]
    fn one_run() {
        expect![[r#"
            run       20261121-101500-7f3a
            workflow  inferencemax (w.json)
            started   2026-11-21T10:15:00Z
            plan      b3:aa

            ran       merge  0.02s  input left changed
            skipped   wrap

            service   dashboard  http://127.0.0.1:1  ready in 0.05s

            note      a note

            failed    fetch[seq=1k_1k]  1.50s  answered 404  2 attempts
                | GET /x
                log: cache/runs/r1/fetch.log

            failed: 1 failed, 1 skipped, 1 ran, 1 fresh in 1.93s, 3 orphans (flow ls w.json --orphans)
        "#]]
        .assert_eq(&plain(&show(&record(), false)));
        assert!(plain(&show(&record(), true)).contains("fresh     clean  checked"));
        let json = show_json(&record(), false);
        assert_eq!(json["nodes"][0]["tail"][0], "GET /x");
        assert_eq!(json["services"][0]["url"], "http://127.0.0.1:1");
    }

    #[test]
    fn the_output_of_a_node_and_of_a_misspelt_one() {
        assert_eq!(output(&record(), "fetch[seq=1k_1k]").unwrap(), "GET /x\n");
        assert_eq!(output(&record(), "merge").unwrap(), "");
        assert_eq!(output(&record(), "dashboard").unwrap(), "");
        let error = output(&record(), "mrege").unwrap_err();
        assert_eq!(error.message, "run 20261121-101500-7f3a has no node or service 'mrege'");
        assert_eq!(error.hints, ["did you mean 'merge'?"]);
    }

    #[test]
    fn two_runs_compared() {
        expect![[r#"
            A  20261121-101500-7f3a  failed
            B  20261122-080000-0001  failed

            NODE              DIFFERS    A               B
            fetch[seq=1k_1k]  outcome    failed b3:01    ran b3:01
            merge             key        ran b3:02       ran b3:ff
            verify            only in B  -               fresh b3:03
            wrap              only in A  skipped no key  -
        "#]]
        .assert_eq(&plain(&diff_text(&record(), &other())));
        assert!(diff_text(&record(), &record()).ends_with("no difference\n"));
        assert_eq!(diff_json(&record(), &other())["nodes"][1]["b"]["key"], "b3:ff");
    }

    #[test]
    fn a_run_is_meant_by_id_beginning_end_or_last() {
        let ids = ["20261121-101500-7f3a".to_owned(), "20261122-080000-0001".to_owned()];
        assert_eq!(select(&ids, None).unwrap(), ids[1]);
        assert_eq!(select(&ids, Some("7f3a")).unwrap(), ids[0]);
        assert_eq!(select(&ids, Some("20261122")).unwrap(), ids[1]);
        assert!(select(&ids, Some("2026")).unwrap_err().message.starts_with("'2026' means 2 runs: "));
        assert!(select(&ids, Some("x")).is_err() && select(&[], None).is_err());
    }
}
