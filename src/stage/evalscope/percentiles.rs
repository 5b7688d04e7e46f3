//! `benchmark_percentile.json`: a list of rows, one per percentile, as columns of the table. Unaware of the other files.

use std::cmp::Ordering;

use serde_json::Value;

use super::lenient::Number;

/// Metrics inside one percentile, by column ending; others follow by name.
pub(super) const METRICS: [&str; 8] = [
    "ttft_",
    "itl_",
    "tpot_",
    "latency_",
    "input_tokens",
    "output_tokens",
    "output_(tok/s)",
    "total_(tok/s)",
];

/// The columns of a file, with their values in seconds, in the order of the table. `None` if it is no list of such rows.
pub(super) fn columns(file: &Value) -> Option<Vec<(String, Number)>> {
    let mut out = Vec::new();
    for row in file.as_array()? {
        let row = row.as_object()?;
        let label = match row.get("Percentiles")? {
            Value::String(label) => label.replace('%', "p"),
            Value::Number(number) => format!("{number}p"),
            _ => return None,
        };
        for (name, value) in row.iter().filter(|(name, _)| *name != "Percentiles") {
            let number = Number::of(value)?;
            let number = if name.contains("(ms)") { number.in_seconds() } else { number };
            out.push((format!("{label}_{}", metric(name)), number));
        }
    }
    out.sort_by(|(a, _), (b, _)| order(a, b));
    Some(out)
}

/// `TTFT (s)` -> `ttft_`, `Output (tok/s)` -> `output_(tok/s)`.
fn metric(name: &str) -> String {
    name.to_lowercase().replace(' ', "_").replace("(s)", "").replace("(ms)", "")
}

/// `min`, ascending percentiles, `max`; inside one by [`METRICS`].
pub(super) fn order(a: &str, b: &str) -> Ordering {
    let place = |column: &str| {
        let (label, metric) = column.split_once('_').unwrap_or((column, ""));
        let percent = match label {
            "min" => f64::NEG_INFINITY,
            "max" => f64::INFINITY,
            label => label.trim_end_matches('p').parse().unwrap_or(f64::MAX),
        };
        let known = METRICS.iter().position(|known| *known == metric).unwrap_or(METRICS.len());
        (percent, label.to_owned(), known, metric.to_owned())
    };
    let (a, b) = (place(a), place(b));
    a.0.total_cmp(&b.0).then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_and_units() {
        let file = json!([
            {"Percentiles": "max", "TTFT (ms)": 2000},
            {"Percentiles": "99.9%", "Decode (tok/s)": 1, "ITL (ms)": 0.5, "Latency (s)": 2.5, "Output tokens": 7},
            {"Percentiles": "5%", "Output (tok/s)": 3.5}
        ]);
        let columns = columns(&file).unwrap();
        let shown: Vec<String> =
            columns.iter().map(|(name, value)| format!("{name}={}", value.as_f64())).collect();
        assert_eq!(
            shown,
            [
                "5p_output_(tok/s)=3.5",
                "99.9p_itl_=0.0005",
                "99.9p_latency_=2.5",
                "99.9p_output_tokens=7",
                "99.9p_decode_(tok/s)=1",
                "max_ttft_=2"
            ]
        );
        for wrong in
            [json!({}), json!([1]), json!([{"TTFT (s)": 1}]), json!([{"Percentiles": "1%", "TTFT (s)": "x"}])]
        {
            assert!(super::columns(&wrong).is_none(), "{wrong}");
        }
    }
}
