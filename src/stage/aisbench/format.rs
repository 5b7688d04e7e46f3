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
            Unit::Tokens => python_float(rounded(value)),
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
        (
            "Benchmark Duration",
            json!(format!("{} ms", python_float(rounded(common.benchmark_duration_s * 1e3)))),
        ),
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
    let map: Map<String, Value> =
        values.into_iter().map(|(name, value)| (name.to_owned(), json!({ stage: value }))).collect();
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

fn rate(value: f64, unit: &str) -> String {
    format!("{} {unit}", python_float(rounded(value)))
}

/// Seconds are rounded before they become ms: a grid of 0.1 ms.
fn milliseconds(seconds: f64) -> String {
    format!("{} ms", python_float(rounded(rounded(seconds) * 1e3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_before_and_after_they_become_milliseconds() {
        assert_eq!(milliseconds(0.065_051), "65.1 ms");
        assert_eq!(milliseconds(1.274_1), "1274.1 ms");
        assert_eq!(milliseconds(1.0), "1000.0 ms");
        assert_eq!(rate(405.781_031, "token/s"), "405.781 token/s");
        assert_eq!(python_float(rounded(166.666_666)), "166.6667");
    }
}
