//! The steady state of a load by named rules: everything, the part at full concurrency, the part without its ends. Unaware of how it was done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::api::ParamFault;
use crate::stage::aisbench::stable::{StableRule, stable};
use crate::stage::metrics::row::Row;
use crate::stage::metrics::summary::{Asked, Window, first_send, part};

/// What is cut off at both ends for the part `trim`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Trim {
    /// From the first send on: seconds, or a share of the run such as "10%".
    pub(super) warmup: Cut,
    /// Up to the end of the last request: seconds, or a share of the run.
    pub(super) cooldown: Cut,
}

/// Seconds, or a share as text ("10%").
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected seconds, or a share such as \"10%\"")]
pub(super) enum Cut {
    Seconds(f64),
    Share(String),
}

impl Default for Trim {
    fn default() -> Self {
        let tenth = || Cut::Share("10%".to_owned());
        Self { warmup: tenth(), cooldown: tenth() }
    }
}

impl Cut {
    /// Seconds of a run of `length` seconds; `None`: it is neither.
    fn seconds(&self, length: f64) -> Option<f64> {
        match self {
            Self::Seconds(seconds) => (*seconds >= 0.0 && seconds.is_finite()).then_some(*seconds),
            Self::Share(text) => {
                let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
                (0.0..100.0).contains(&percent).then_some(length * percent / 100.0)
            }
        }
    }
}

impl Trim {
    pub(super) fn check(&self) -> Result<(), ParamFault> {
        for (name, cut) in [("warmup", &self.warmup), ("cooldown", &self.cooldown)] {
            if cut.seconds(1.0).is_none() {
                return Err(ParamFault {
                    path: format!("trim.{name}"),
                    message: "expected seconds from 0 on, or a share from \"0%\" to below \"100%\"".into(),
                });
            }
        }
        match (self.warmup.seconds(1.0), self.cooldown.seconds(1.0), &self.warmup, &self.cooldown) {
            (Some(from), Some(to), Cut::Share(_), Cut::Share(_)) if from + to >= 1.0 => {
                Err(ParamFault { path: "trim".into(), message: "cuts off the whole run".into() })
            }
            _ => Ok(()),
        }
    }
}

/// `{"all", "stable", "trim"}`, each `{"n", "window": {"from", "to"}, "counts", "metrics", "throughput", "goodput"}`, or `{"n": 0, "reason"}`
/// where there is no such part. Windows are seconds after the first send. `sent`: rows whose times count from the send; `shown`: the same requests in
/// the same order, as the summary counts them; `most`: how many could be in flight.
pub(super) fn parts(sent: &[Row], shown: &[Row], most: Option<usize>, trim: &Trim, asked: &Asked) -> Value {
    let (zero, length) = (first_send(shown), length(shown));
    let whole = Window { from: 0.0, to: length };
    let all: Vec<&Row> = shown.iter().collect();
    let stable =
        match most {
            None => Err("no limit of the requests in flight: nothing says when there were as many as may be"
                .to_owned()),
            Some(most) => full(sent, most, asked)
                .ok_or_else(|| format!("{most} requests were never in flight for long")),
        };
    let stable = stable.map(|(window, chosen)| {
        let chosen: Vec<&Row> = chosen.into_iter().filter_map(|at| shown.get(at)).collect();
        (window, chosen)
    });
    let cut = (trim.warmup.seconds(length).unwrap_or(0.0), trim.cooldown.seconds(length).unwrap_or(0.0));
    let window = Window { from: cut.0, to: length - cut.1 };
    let inside = |row: &&Row| row.send.is_some_and(|send| (window.from..window.to).contains(&(send - zero)));
    let trimmed: Vec<&Row> = shown.iter().filter(inside).collect();
    let trimmed = match trimmed.is_empty() {
        true => {
            Err(format!("no request was sent from {} to {} s after the first one", window.from, window.to))
        }
        false => Ok((window, trimmed)),
    };
    let entry = |found: Result<(Window, Vec<&Row>), String>| match found {
        Ok((window, chosen)) => {
            let found = part(&chosen, shown.len() - chosen.len(), Some(window.to - window.from), asked);
            let mut out = Map::new();
            out.insert("n".to_owned(), json!(chosen.len()));
            out.insert("window".to_owned(), json!(window));
            for name in ["counts", "metrics", "throughput", "goodput"] {
                out.insert(name.to_owned(), found[name].clone());
            }
            Value::Object(out)
        }
        Err(reason) => json!({ "n": 0, "reason": reason }),
    };
    json!({ "all": entry(Ok((whole, all))), "stable": entry(stable), "trim": entry(trimmed) })
}

/// From the first send to the end of the last request, seconds.
fn length(rows: &[Row]) -> f64 {
    let ends = rows.iter().filter_map(|row| row.end.or(row.send));
    ends.max_by(f64::total_cmp).map_or(0.0, |end| (end - first_send(rows)).max(0.0))
}

/// The stable stage of AISBench (repository of August 2026): from the second moment at which as many as may be are in flight to the last
/// one, and the successes sent in it, by their place.
fn full(sent: &[Row], most: usize, asked: &Asked) -> Option<(Window, Vec<usize>)> {
    let timed = |(at, row): (usize, &Row)| asked.rules.timing(row).ok().map(|t| (at, (t.start, t.end)));
    let (places, spans): (Vec<usize>, Vec<(f64, f64)>) = sent.iter().enumerate().filter_map(timed).unzip();
    let found = stable(&spans, most as u64, StableRule::Head)?;
    let zero = first_send(sent);
    let window = Window { from: found.window.0 - zero, to: found.window.1 - zero };
    // of no length nothing can be a rate
    (window.to > window.from).then(|| (window, found.requests.iter().map(|at| places[*at]).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::metrics::rules::Rules;

    /// Requests of two tokens, by their begin and end.
    fn rows(spans: &[(f64, f64)]) -> Vec<Row> {
        let row = |(n, (from, to)): (usize, &(f64, f64))| {
            serde_json::from_value(json!({
                "id": n, "send": from, "end": to, "input_tokens": 1, "output_tokens": 2, "success": true,
                "events": [[from + 0.1, 1, "content"], [to, 1, "content"]],
            }))
        };
        spans.iter().enumerate().map(row).collect::<Result<_, _>>().unwrap()
    }

    fn asked() -> Asked {
        let rules = Rules::Flow;
        Asked { rules, percents: vec![50.0], rule: rules.percentile_rule(), slo: None, window: None }
    }

    #[test]
    fn three_parts_of_one_load() {
        // two at once from 11 on; the last one is alone
        let rows = rows(&[(10.0, 12.0), (11.0, 13.0), (12.0, 14.0), (13.0, 15.0), (16.0, 20.0)]);
        let trim = Trim { warmup: Cut::Seconds(1.5), cooldown: Cut::Share("40%".into()) };
        let found = parts(&rows, &rows, Some(2), &trim, &asked());
        assert_eq!(
            (&found["all"]["n"], &found["all"]["window"]),
            (&json!(5), &json!({ "from": 0.0, "to": 10.0 }))
        );
        assert_eq!(found["all"]["throughput"]["requests_per_second"], 0.5);
        // full for the first time at 11, for the second at 12, for the last time at 13
        let stable = &found["stable"];
        assert_eq!(
            (&stable["n"], &stable["window"]),
            (&json!(2), &json!({ "from": 2.0, "to": 3.0 })),
            "{stable}"
        );
        assert_eq!(stable["throughput"]["requests_per_second"], 2.0);
        assert_eq!(stable["counts"]["outside_window"], 3);
        let trim = &found["trim"];
        assert_eq!((&trim["n"], &trim["window"]), (&json!(2), &json!({ "from": 1.5, "to": 6.0 })), "{trim}");
    }

    #[test]
    fn where_there_is_no_such_part_it_says_why() {
        let rows = rows(&[(10.0, 12.0)]);
        let trim = Trim { warmup: Cut::Seconds(1.0), cooldown: Cut::Seconds(2.0) };
        let found = parts(&rows, &rows, Some(2), &trim, &asked());
        assert_eq!(found["stable"], json!({ "n": 0, "reason": "2 requests were never in flight for long" }));
        assert_eq!(found["trim"]["n"], 0);
        let open = parts(&rows, &rows, None, &Trim::default(), &asked());
        assert!(open["stable"]["reason"].as_str().unwrap().starts_with("no limit"), "{open}");
        assert_eq!(parts(&[], &[], None, &Trim::default(), &asked())["all"]["n"], 0);
    }

    #[test]
    fn faults_of_the_ends() {
        let path = |value: Value| serde_json::from_value::<Trim>(value).unwrap().check().unwrap_err().path;
        assert_eq!(path(json!({ "warmup": -1 })), "trim.warmup");
        assert_eq!(path(json!({ "cooldown": "ten" })), "trim.cooldown");
        assert_eq!(path(json!({ "cooldown": "100%" })), "trim.cooldown");
        assert_eq!(path(json!({ "warmup": "60%", "cooldown": "40%" })), "trim");
        assert!(
            serde_json::from_value::<Trim>(json!({ "warmup": 7, "cooldown": "5.5%" }))
                .unwrap()
                .check()
                .is_ok()
        );
    }
}
