//! The files of AISBench as the tool writes them: rounded, with units. Unaware of how the numbers came about.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::exact::{Common, Stage, Unit, columns};
use crate::api::StageError;
use crate::stage::table::csv::{LineEnd, TableWriter};
use crate::stage::table::number::python_float;

/// The tool's CSV; `stage` is `total` or `stable`.
pub fn csv(numbers: &Stage, stage: &str) -> Result<Vec<u8>, StageError> {
    let mut writer = TableWriter::new(Vec::new(), "csv", LineEnd::Crlf);
    writer.row([
        "Performance Parameters",
        "Stage",
        "Average",
        "Min",
        "Max",
        "Median",
        "P75",
        "P90",
        "P99",
        "N",
    ])?;
    for quantity in &numbers.quantities {
        let Some(spread) = &quantity.spread else { continue };
        // the release has no row of it
        if quantity.name == "PrefillTokenThroughput" {
            continue;
        }
        if matches!(quantity.name, "TTFT" | "TPOT" | "ITL") && spread.min == 0.0 && spread.max == 0.0 {
            continue;
        }
        let mut cells = vec![quantity.name.to_owned(), stage.to_owned()];
        cells.extend(columns(spread).map(|(_, value)| match quantity.unit {
            Unit::Seconds => milliseconds(value),
            Unit::Tokens => shown(rounded(value)),
            Unit::Rate => rate(value, "token/s"),
        }));
        cells.push(quantity.n.to_string());
        writer.row(cells)?;
    }
    writer.finish()
}

/// The tool's JSON; `stage` is `total` or `stable`.
pub fn json(common: &Common, stage: &str) -> Result<Vec<u8>, StageError> {
    let concurrency = match &common.concurrency {
        Value::Number(number) if number.is_f64() => json!(rounded(number.as_f64().unwrap_or_default())),
        capped => capped.clone(),
    };
    let values = [
        ("Benchmark Duration", json!(format!("{} ms", shown(rounded(common.benchmark_duration_s * 1e3))))),
        ("Total Requests", json!(common.total)),
        ("Failed Requests", json!(common.failed)),
        ("Success Requests", json!(common.success)),
        ("Concurrency", concurrency),
        ("Max Concurrency", json!(common.max_concurrency)),
        ("Request Throughput", json!(rate(common.request_throughput, "req/s"))),
        ("Total Input Tokens", json!(common.input_tokens)),
        ("Prefill Token Throughput", json!(rate(common.prefill_token_throughput_pooled, "token/s"))),
        ("Total Generated Tokens", json!(common.generated_tokens)),
        ("Input Token Throughput", json!(rate(common.input_token_throughput, "token/s"))),
        ("Output Token Throughput", json!(rate(common.output_token_throughput, "token/s"))),
        ("Total Token Throughput", json!(rate(common.total_token_throughput, "token/s"))),
    ];
    // the tool has it only if there were input tokens, and a row TTFT
    let prefill = common.input_tokens > 0 && common.prefill_token_throughput_pooled.is_finite();
    let map: Map<String, Value> = values
        .into_iter()
        .filter(|(name, _)| prefill || *name != "Prefill Token Throughput")
        .map(|(name, value)| (name.to_owned(), json!({ stage: value })))
        .collect();
    let mut out = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    map.serialize(&mut serde_json::Serializer::with_formatter(&mut out, indent))
        .map_err(|e| StageError::new(format!("output 'json': {e}")))?;
    Ok(out)
}

/// Four decimals, ties to even on the exact value, as Python's `round`.
fn rounded(value: f64) -> f64 {
    format!("{value:.4}").parse().unwrap_or(value)
}

/// As Python's `str`.
fn shown(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { python_float(value) }
}

fn rate(value: f64, unit: &str) -> String {
    format!("{} {unit}", shown(rounded(value)))
}

/// Seconds are rounded before they become ms: a grid of 0.1 ms.
fn milliseconds(seconds: f64) -> String {
    format!("{} ms", shown(rounded(rounded(seconds) * 1e3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::aisbench::exact::Exact;
    use crate::stage::metrics::row::Row;

    /// Requests by send, time points after it, tokens of prompt and answer.
    fn exact(requests: &[(f64, &[f64], u64, u64)]) -> Exact {
        let rows = requests.iter().map(|(send, points, input, output)| {
            let events: Vec<Value> = points.iter().map(|at| json!([at, null, "data"])).collect();
            serde_json::from_value::<Row>(json!({
                "id": 0, "send": send, "events": events, "input_tokens": input, "output_tokens": output, "success": true
            }))
            .unwrap()
        });
        Exact::of(&rows.collect::<Vec<_>>(), 1).unwrap()
    }

    #[test]
    fn a_rate_of_no_tokens_in_no_time_is_nan_as_numpy_has_it() {
        let csv = csv(&exact(&[(0.0, &[0.0], 1, 0), (0.0, &[0.5, 1.0], 1, 5)]).total, "total").unwrap();
        let csv = String::from_utf8(csv).unwrap();
        let row = csv.lines().find(|line| line.starts_with("OutputTokenThroughput")).unwrap();
        assert_eq!(row, format!("OutputTokenThroughput,total{},2", ",nan token/s".repeat(7)));
        assert!(csv.contains("E2EL,total,500.0 ms,0.0 ms,1000.0 ms"), "{csv}");
    }

    #[test]
    fn the_rate_of_prefill_needs_tokens_and_times() {
        let has = |requests: &[(f64, &[f64], u64, u64)]| {
            let text = json(&exact(requests).total.common, "total").unwrap();
            String::from_utf8(text).unwrap().contains("Prefill Token Throughput")
        };
        assert!(has(&[(0.0, &[0.5, 1.0], 1, 5)]));
        assert!(!has(&[(0.0, &[0.5, 1.0], 0, 5)]), "no input tokens");
        assert!(!has(&[(0.0, &[0.0, 1.0], 1, 5)]), "no row TTFT");
    }

    #[test]
    fn numbers_are_rounded_before_and_after_they_become_milliseconds() {
        assert_eq!(milliseconds(0.065_051), "65.1 ms");
        assert_eq!(milliseconds(1.274_1), "1274.1 ms");
        assert_eq!(milliseconds(1.0), "1000.0 ms");
        assert_eq!(rate(405.781_031, "token/s"), "405.781 token/s");
        assert_eq!(python_float(rounded(166.666_666)), "166.6667");
    }
}
