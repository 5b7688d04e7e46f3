//! Collects events to the one JSON object of `flow run --json`. Unaware of where it is printed.

use std::sync::Mutex;

use serde_json::Value;

use super::Observer;
use super::printer::lock;
use super::record::Record;
use crate::event::Stamped;

/// Folds events; log lines are passed over.
#[derive(Default)]
pub struct Summary(Mutex<Record>);

impl Summary {
    /// The object as section 8 of the workflow format has it. Fresh nodes only if `all` (`-v`).
    pub fn json(&self, all: bool) -> Value {
        lock(&self.0).summary_json(all)
    }

    /// What is known so far.
    pub fn record(&self) -> Record {
        lock(&self.0).clone()
    }
}

impl Observer for Summary {
    fn observe(&self, stamped: &Stamped) {
        lock(&self.0).fold(stamped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record::tests::events;
    use expect_test::expect;

    #[test]
    fn the_object_of_flow_run_json() {
        let summary = Summary::default();
        for event in events() {
            summary.observe(&Stamped { t: 0.0, event });
        }
        expect![[r#"
            {
              "run": "20261121-101500-7f3a",
              "workflow": "inferencemax",
              "outcome": "failed",
              "plan_digest": "b3:aa",
              "counts": {
                "fresh": 1,
                "restored": 0,
                "cached": 0,
                "ran": 1,
                "failed": 1,
                "skipped": 1,
                "absent": 0,
                "cancelled": 0
              },
              "seconds": 1.931,
              "nodes": [
                {
                  "id": "fetch[seq=1k_1k]",
                  "outcome": "failed",
                  "reason": null,
                  "key": "b3:01",
                  "seconds": 1.5,
                  "attempts": 2,
                  "checked": false,
                  "device": null,
                  "error": "answered 404"
                },
                {
                  "id": "merge",
                  "outcome": "ran",
                  "reason": "input left changed",
                  "key": "b3:02",
                  "seconds": 0.02,
                  "attempts": 1,
                  "checked": false,
                  "device": null
                },
                {
                  "id": "wrap",
                  "outcome": "skipped",
                  "reason": null,
                  "key": null,
                  "seconds": 0.0,
                  "attempts": 0,
                  "checked": false,
                  "device": null
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&summary.json(false)).unwrap());
        assert_eq!(summary.json(true)["nodes"].as_array().unwrap().len(), 4);
        assert!(summary.record().logs.is_empty());
    }
}
