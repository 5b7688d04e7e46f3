//! `metrics.compute`: a summary of raw requests under a named rule set. Unaware of who measured them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::measured::Origin;
use super::recorded::{self, Clocks};
use super::row;
use super::rules::Rules;
use super::slo::Slo;
use super::summary::{Asked, Window, summarize};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::stage::table::percentile;

/// The stage.
pub(super) struct Compute;

/// What `with` holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// What TTFT, TPOT, ITL, latency and duration mean.
    rules: Rules,
    /// Limits in seconds, for goodput.
    slo: Option<Slo>,
    /// Percentiles to show, 0 to 100; default: those that the tool shows.
    percentiles: Option<Vec<f64>>,
    /// How they are taken; default: as the tool does.
    percentile_rule: Option<percentile::Rule>,
    /// From where the times of a table of llm.load count; its own summary counts open loops from the schedule.
    from: Origin,
    /// Only requests sent in it; its length is the duration then.
    window: Option<Window>,
}

impl Params {
    fn asked(self) -> Asked {
        Asked {
            percents: self.percentiles.unwrap_or_else(|| self.rules.percents().to_vec()),
            rule: self.percentile_rule.unwrap_or_else(|| self.rules.percentile_rule()),
            rules: self.rules,
            slo: self.slo,
            window: self.window,
        }
    }
}

impl Stage for Compute {
    fn name(&self) -> &'static str {
        "metrics.compute"
    }

    fn version(&self) -> u32 {
        3
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "TTFT, TPOT, ITL, latency, throughput and goodput of raw requests, by the definitions of one tool.\n\
                \n\
                Rows are pooled before anything is computed: percentiles are never averaged. A row is {\"id\", \"send\", \"events\": [[t, tokens, kind]],\n\
                \"input_tokens\", \"output_tokens\", \"success\", \"error\", \"end\"}, times in seconds on one clock, kind one of head, role, reasoning,\n\
                content, usage, done, error, data (not recorded: rule set aisbench only); end: when the request was over, if that is later than the\n\
                last event (a failure, too: it counts for the duration of flow, vllm and evalscope-old). Loads of llm.load have to be of one host and boot. Requests that failed, and those that the rule set takes for\n\
                failed, are counted by reason and enter no latency. std is that of the values themselves (divided by n). Goodput: successful\n\
                requests that keep all limits, per second; without a second token a request keeps every limit of TPOT. Tokens that are not known of every success are null, so is what is made of them.\n\
                client_bound is there if the client spoiled one of the loads, and says how.",
        )
        .input_list("requests", "JSON Lines, or SQLite with a table requests (events as JSON text); the rows of all files are pooled")
        .output("summary", "JSON: {\"rules\", \"percentile_rule\", \"units\", \"counts\", \"metrics\": {name: {\"n\", \"mean\", \"std\", \"min\", \"max\", \"p50\", ...}}, \"throughput\", \"goodput\"}")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        params.slo.map_or(Ok(()), |slo| slo.check())?;
        let fault = |path: &str, message: String| Err(ParamFault { path: path.into(), message });
        for (n, percent) in params.percentiles.iter().flatten().enumerate() {
            if !(0.0..=100.0).contains(percent) {
                return fault(&format!("percentiles[{n}]"), format!("expected 0 to 100, found {percent}"));
            }
        }
        match params.window {
            Some(Window { from, to }) if !(from >= 0.0 && to > from && to.is_finite()) => {
                fault("window", format!("expected 0 <= from < to, found {from} and {to}"))
            }
            _ => Ok(()),
        }
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let origin = params.from;
        let asked = params.asked();
        let (mut rows, mut spoiled, mut clocks) = (Vec::new(), Vec::new(), Clocks::default());
        for file in ctx.files("requests") {
            rows.extend(row::read_from(file, origin)?);
            if let Some((clock, why)) = recorded::measured_by(file)? {
                clocks.add(&file.name, clock)?;
                spoiled.extend(why);
            }
        }
        let mut summary = summarize(&rows, &asked).map_err(|message| {
            let hint = match message.starts_with("window") {
                true => "the window counts from the first send, not from the clock's 0",
                false => "AISBench's own files tell times only: rules aisbench",
            };
            StageError::new(message).hint(hint)
        })?;
        ctx.log(format!(
            "{}: {} requests, {} failed",
            asked.rules.name(),
            rows.len(),
            summary["counts"]["failed"]
        ));
        if !spoiled.is_empty() {
            let reasons = spoiled.join("; ");
            ctx.log(format!("client_bound: {reasons}"));
            summary["client_bound"] = json!(reasons);
        }
        ctx.write_json("summary", &summary)?;
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;

    /// Three requests: two tokens, one token, a failure that ends last.
    const ROWS: &str = r#"
{"id": 1, "send": 100.0, "events": [[100.5, null, "role"], [101.0, 1, "content"], [102.0, 1, "content"], [102.5, null, "usage"]], "input_tokens": 10, "output_tokens": 2, "success": true}
{"id": 2, "send": 101.0, "events": [[101.25, null, "role"], [101.5, 1, "content"], [101.75, null, "usage"]], "input_tokens": 20, "output_tokens": 1, "success": true}
{"id": 3, "send": 102.0, "events": [], "end": 105.0, "input_tokens": null, "output_tokens": null, "success": false, "error": "503"}
"#;

    fn summary(with: Value) -> Value {
        let done = Bench::new(&Compute, with).file("requests", "r.jsonl", ROWS).run(&["summary"]);
        done.ok().json("summary")
    }

    #[test]
    fn three_requests_by_hand() {
        let found = summary(json!({ "slo": { "ttft": 0.75, "tpot": 0.5 } }));
        assert_eq!(
            found["counts"],
            json!({ "total": 3, "success": 2, "failed": 1, "outside_window": 0, "without_token_counts": 0, "failures": { "503": 1 } })
        );
        let metric = |name: &str, of: &str| found["metrics"][name][of].as_f64().unwrap();
        assert_eq!(
            (metric("ttft", "mean"), metric("ttft", "p50"), metric("ttft", "std")),
            (0.75, 0.75, 0.25)
        );
        assert_eq!((metric("tpot", "n"), metric("tpot", "mean"), metric("itl", "max")), (1.0, 1.0, 1.0));
        assert_eq!((metric("e2el", "min"), metric("e2el", "max"), metric("total", "max")), (0.5, 2.0, 2.5));
        // from the first send to the end of the failed one
        let rate = &found["throughput"];
        assert_eq!((rate["duration"].clone(), rate["output_tokens"].clone()), (json!(5.0), json!(3)));
        assert_eq!(
            (rate["requests_per_second"].clone(), rate["concurrency"].clone()),
            (json!(0.4), json!(0.5))
        );
        // the first takes too long; the second has no second token
        assert_eq!(
            found["goodput"],
            json!({ "slo": { "ttft": 0.75, "tpot": 0.5 }, "good": 1, "share": 1.0 / 3.0, "requests_per_second": 0.2 })
        );
        let vllm = summary(json!({ "rules": "vllm", "percentiles": [99.9] }));
        assert_eq!(
            (vllm["rules"].clone(), vllm["metrics"]["ttft"]["mean"].clone()),
            (json!("vllm"), json!(0.375))
        );
        assert!(vllm["metrics"]["ttft"]["p99.9"].is_number() && vllm["goodput"].is_null());
        let old = summary(json!({ "rules": "evalscope-old" }));
        assert_eq!(
            (old["percentile_rule"].clone(), old["metrics"]["tpot"]["n"].clone()),
            (json!("floor-index"), json!(2))
        );
        assert_eq!(old["metrics"]["tpot"]["mean"], json!(1.0), "(2.0 + 0) / 2");
        let new = summary(json!({ "rules": "evalscope-new" }));
        assert_eq!(
            (new["throughput"]["duration"].clone(), new["percentile_rule"].clone()),
            (json!(2.5), json!("nearest"))
        );
    }

    #[test]
    fn a_window_is_the_duration() {
        let found = summary(json!({ "window": { "from": 0.5, "to": 2.5 } }));
        assert_eq!(found["counts"]["outside_window"], json!(1));
        assert_eq!(
            (found["throughput"]["duration"].clone(), found["throughput"]["requests_per_second"].clone()),
            (json!(2.0), json!(0.5))
        );
    }

    #[test]
    fn rows_of_a_database_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(
            "CREATE TABLE requests(id, send, events, input_tokens, output_tokens, success, error, \"end\")",
        )
        .unwrap();
        for line in ROWS.lines().filter(|line| !line.is_empty()) {
            let row: Value = serde_json::from_str(line).unwrap();
            let tokens = |name: &str| row[name].as_i64();
            db.execute(
                "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rusqlite::params![
                    row["id"].as_i64(),
                    row["send"].as_f64(),
                    row["events"].to_string(),
                    tokens("input_tokens"),
                    tokens("output_tokens"),
                    row["success"].as_bool(),
                    row["error"].as_str(),
                    row["end"].as_f64()
                ],
            )
            .unwrap();
        }
        drop(db);
        for rules in ["aisbench", "flow"] {
            let with = json!({ "rules": rules });
            let done = Bench::new(&Compute, with.clone()).path("requests", &path).run(&["summary"]);
            assert_eq!(done.ok().json("summary"), summary(with));
        }
    }

    #[test]
    fn tokens_that_are_not_known_are_no_zeros() {
        let rows = ROWS
            .replace("\"output_tokens\": 1,", "\"output_tokens\": null,")
            .replace("[101.5, 1,", "[101.5, null,");
        let with = json!({ "slo": { "tpot": 0.5 } });
        let found = Bench::new(&Compute, with)
            .file("requests", "r.jsonl", &rows)
            .run(&["summary"])
            .ok()
            .json("summary");
        assert_eq!(found["counts"]["without_token_counts"], json!(1));
        let throughput = &found["throughput"];
        assert_eq!(
            (
                &throughput["input_tokens"],
                &throughput["output_tokens"],
                &throughput["total_tokens_per_second"]
            ),
            (&json!(30), &json!(null), &json!(null))
        );
        assert_eq!(found["goodput"]["good"], json!(null));
    }

    #[test]
    fn a_cell_of_a_wrong_type_is_named_with_its_rowid() {
        let fails = |column: &str, cell: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("r.db");
            let db = rusqlite::Connection::open(&path).unwrap();
            db.execute_batch(&format!(
                "CREATE TABLE requests(id, send, events, input_tokens, output_tokens, success, error);
                INSERT INTO requests (rowid, id, send, events, success) VALUES (3, 'a', 1.5, '[]', 0), (7, 'b', 2, '[]', 0);
                UPDATE requests SET {column} = {cell} WHERE rowid = 7;"
            ))
            .unwrap();
            drop(db);
            let done = Bench::new(&Compute, json!({})).path("requests", &path).run(&["summary"]);
            let error = done.result.unwrap_err();
            error.message.strip_prefix("r.db: table requests, rowid 7, ").unwrap_or(&error.message).to_owned()
        };
        for (column, cell, expected) in [
            ("id", "x'00ff'", "expected a whole number or text, found a blob of 2 bytes"),
            ("send", "'soon'", "expected a number, found text 'soon'"),
            ("events", "NULL", "expected JSON as text, found NULL"),
            (
                "events",
                "'[[NaN, 1, \"content\"]]'",
                "bare NaN is not JSON (column 3): expected a number, null or text",
            ),
            ("input_tokens", "1.5", "expected a whole number from 0 on, found 1.5"),
            ("output_tokens", "-2", "expected a whole number from 0 on, found -2"),
            ("success", "'true'", "expected 0 or 1, found text 'true'"),
            ("error", "503", "expected text, found 503"),
            ("error", "cast(x'ff' as text)", "expected text, found text that is not UTF-8"),
        ] {
            assert_eq!(fails(column, cell), format!("column '{column}': {expected}"));
        }
        assert_eq!(
            fails("success", "1, send = NULL"),
            "r.db: table requests, rowid 7: 'send' is missing, and 'success' is true"
        );
    }

    #[test]
    fn faults_have_their_place() {
        let fails = |with: Value, rows: &str| {
            Bench::new(&Compute, with)
                .file("requests", "r.jsonl", rows)
                .run(&["summary"])
                .result
                .unwrap_err()
                .message
        };
        let row = |events: &str, send: &str| {
            format!(
                r#"{{"id": 7, "send": {send}, "events": {events}, "input_tokens": 1, "output_tokens": 1, "success": true}}"#
            )
        };
        assert_eq!(
            fails(json!({}), &row("[[2, 1, \"content\"], [1, 1, \"content\"]]", "0")),
            "r.jsonl:1: event 1 (from 0) lies before what precedes it"
        );
        assert_eq!(
            fails(json!({}), &row("[]", "null")),
            "r.jsonl:1: 'send' is missing, and 'success' is true"
        );
        assert!(
            fails(json!({}), &row("[[2, 1, \"text\"]]", "0"))
                .starts_with("r.jsonl:1: unknown variant `text`")
        );
        assert!(
            fails(json!({ "rules": "vllm" }), &row("[[2, null, \"data\"]]", "0"))
                .starts_with("request 7: its events are of kind 'data'")
        );
        assert_eq!(
            fails(json!({}), &row("[[NaN, 1, \"content\"]]", "0")),
            "r.jsonl:1: bare NaN is not JSON (column 34): expected a number, null or text"
        );
        let sent = row("[[2, 1, \"content\"]]", "1");
        assert_eq!(
            fails(json!({ "window": { "from": 100, "to": 101 } }), &sent),
            "window: none of 1 requests was sent from 100 to 101 s after the first one"
        );
        let many = sent.replace("\"output_tokens\": 1", "\"output_tokens\": 18446744073709551615");
        assert_eq!(fails(json!({}), &many), "r.jsonl:1: more than 1099511627776 tokens");
        let refused = |with: Value| Compute.check(&with).unwrap_err().path;
        assert_eq!(refused(json!({ "percentiles": [50, 101] })), "percentiles[1]");
        assert_eq!(refused(json!({ "window": { "from": 2, "to": 1 } })), "window");
        assert_eq!(refused(json!({ "slo": {} })), "slo");
    }
}
