//! Parameters that cannot be.

use serde_json::json;

use super::Server;

#[test]
fn wrong_parameters_are_named() {
    let check = super::super::info().check;
    for (with, path) in [
        (json!({"modle": "x"}), "modle"),
        (json!({"model": ""}), "model"),
        (json!({"ttft_ms": -1}), "ttft_ms"),
        (json!({"itl_ms": "fast"}), "itl_ms"),
        (json!({"itl_ms": {"dist": "normal", "mean": 1}}), "itl_ms"),
        (json!({"itl_ms": {"dist": "exp", "mean": 1, "sigma": 1}}), "itl_ms"),
        (json!({"itl_ms": {"dist": "uniform", "low": 2, "high": 1}}), "itl_ms"),
        (json!({"tokens": 0}), "tokens"),
        (json!({"slots": 0}), "slots"),
        (json!({"batch": {"itl_ms_per_request": -1}}), "batch.itl_ms_per_request"),
        (json!({"batch": {}}), "batch"),
        (json!({"chunk": 0}), "chunk"),
        (json!({"threads": 0}), "threads"),
        (json!({"usage": "sometimes"}), "usage"),
        (json!({"role": "late"}), "role"),
        (json!({"cut": "word"}), "cut"),
        (json!({"cut": "utf8"}), "cut"),
        (json!({"cut": "event", "buffer": true}), "cut"),
        (json!({"pauses": [{"at": 1, "for": 1}, {"at": -1, "for": 1}]}), "pauses[1].at"),
        (json!({"pauses": [{"at": 1}]}), "pauses[0]"),
        (json!({"faults": {"abort": 1.5}}), "faults.abort"),
        (json!({"faults": {"abort": 0.7, "hang": 0.7}}), "faults"),
        (json!({"faults": {"explode": 1}}), "faults.explode"),
        (json!({"port": 70000}), "port"),
    ] {
        assert_eq!(check(&with).map_err(|fault| fault.path), Err(path.to_owned()), "{with}");
    }
    for with in [
        json!({}),
        json!({"slots": null, "usage": false, "role": "early", "cut": null, "tokens": {"dist": "exp", "mean": 5}}),
    ] {
        assert!(check(&with).is_ok(), "{with}");
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    let error = Server::start(&json!({"replies": "/nowhere/at/all"})).err().unwrap();
    assert!(error.message.contains("/nowhere/at/all"), "{}", error.message);
    let error = Server::start(&json!({"log": "/proc/nowhere/log"})).err().unwrap();
    assert!(error.message.contains("/proc/nowhere"), "{}", error.message);
}
