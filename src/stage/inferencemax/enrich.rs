//! `inferencemax.enrich`: cost and power columns for the rows of the newer API's CSV. Unaware of how that was made.
//!
//! Two cost models, never mixed: `hourly_gpu_cost` and `cost_per_million_*_tokens` from purchase price and TDP, `costh`, `costn`, `costr` and
//! `tok_s_per_mw` from the dashboard's prices and all-in power. A GPU without purchase price gets the fallback's price
//! only together with `known_hardware: false`; one without a settled dashboard price gets null.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::api::{Done, NoParams, ParamFault, Signature, Stage, StageContext, StageError, check_params};

use super::hardware::{DashboardPrice, FALLBACK, Owner, Purchase, base_gpu, cost_per_million};

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Enrich;

#[derive(Serialize)]
struct Enriched {
    note: &'static str,
    rows: Vec<Costs>,
}

const NOTE: &str = "row i belongs to CSV record i; null = not computable (no throughput, or no settled dashboard price); known_hardware=false: hourly_gpu_cost and cost_per_million_* use the fallback's price";

/// Costs in US$, throughput per MW in tokens/s/MW.
#[derive(Debug, PartialEq, Serialize)]
struct Costs {
    hourly_gpu_cost: f64,
    cost_per_million_total_tokens: Option<f64>,
    cost_per_million_input_tokens: Option<f64>,
    cost_per_million_output_tokens: Option<f64>,
    known_hardware: bool,
    tok_s_per_mw: Option<f64>,
    costh: Option<f64>,
    costn: Option<f64>,
    costr: Option<f64>,
}

/// Throughput in tokens/s/GPU, `None` where the field is missing.
#[derive(Clone, Copy, Debug)]
struct Throughput {
    total: Option<f64>,
    input: Option<f64>,
    output: Option<f64>,
}

impl Costs {
    fn of(gpu: &str, throughput: Throughput) -> Self {
        let known = Purchase::of(gpu);
        let hourly = known.unwrap_or(&FALLBACK).hourly_cost();
        let price = DashboardPrice::of(gpu).filter(|price| !price.temporary);
        let positive = |tokens: Option<f64>| tokens.filter(|tokens| *tokens > 0.0);
        let per_million =
            |tokens| positive(tokens).map(|tokens| four_decimals(cost_per_million(hourly, tokens)));
        let dashboard = |owner| {
            price.and_then(|price| positive(throughput.total).map(|tokens| price.cost(owner, tokens)))
        };
        Self {
            hourly_gpu_cost: hourly,
            cost_per_million_total_tokens: per_million(throughput.total),
            cost_per_million_input_tokens: per_million(throughput.input),
            cost_per_million_output_tokens: per_million(throughput.output),
            known_hardware: known.is_some(),
            tok_s_per_mw: price.and_then(|price| throughput.total.map(|tokens| price.tok_s_per_mw(tokens))),
            costh: dashboard(Owner::Hyperscaler),
            costn: dashboard(Owner::Neocloud),
            costr: dashboard(Owner::Rental),
        }
    }
}

/// Rounded to 4 decimals from the exact value of the double.
fn four_decimals(value: f64) -> f64 {
    format!("{value:.4}").parse().unwrap_or(value)
}

/// What the numbers rest on.
#[derive(Debug, Default, Serialize)]
struct Report {
    rows: usize,
    /// GPU without purchase price -> rows, priced as `fallback`.
    unknown_hardware: BTreeMap<String, usize>,
    fallback: &'static str,
    /// GPU without a settled dashboard price -> rows, null.
    no_dashboard_price: BTreeMap<String, usize>,
    /// Rows whose total throughput is 0 or missing.
    no_throughput: usize,
}

impl Stage for Enrich {
    fn name(&self) -> &'static str {
        "inferencemax.enrich"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<NoParams>(
            "Adds to each row of the newer API's CSV the costs of both models (US$) and tokens/s per MW. Unknown GPUs are reported and never priced silently.",
        )
        .input("csv", "CSV of inferencemax.api")
        .output("enriched", "{\"note\", \"rows\": [costs]}, row i for record i")
        .optional_output(
            "report",
            "{\"rows\", \"unknown_hardware\": {gpu: n}, \"fallback\", \"no_dashboard_price\": {gpu: n}, \"no_throughput\"}",
        )
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<NoParams>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let file = ctx.input("csv")?;
        let bytes = file.read()?;
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        let fault = |e: csv::Error| StageError::new(format!("{}: {e}", file.name));
        let columns: BTreeMap<String, usize> = reader
            .headers()
            .map_err(fault)?
            .iter()
            .enumerate()
            .map(|(at, name)| (name.to_owned(), at))
            .collect();
        let Some(&hardware) = columns.get("hardware") else {
            return Err(StageError::new(format!("{}: the column 'hardware' is missing", file.name))
                .hint("expected the CSV of inferencemax.api"));
        };
        let mut enriched = Enriched { note: NOTE, rows: Vec::new() };
        let mut report = Report { fallback: FALLBACK.gpu, ..Report::default() };
        for (index, record) in reader.records().enumerate() {
            let record = record.map_err(fault)?;
            let number = |name: &str| match columns.get(name).and_then(|at| record.get(*at)) {
                None | Some("") => Ok(None),
                Some(cell) => match cell.parse::<f64>() {
                    Ok(value) if value.is_finite() && value >= 0.0 => Ok(Some(value)),
                    _ => Err(StageError::new(format!(
                        "{}: record {}: {name}: expected a number from 0, found '{cell}'",
                        file.name,
                        index + 1
                    ))),
                },
            };
            let throughput = Throughput {
                total: number("metrics_tput_per_gpu")?,
                input: number("metrics_input_tput_per_gpu")?,
                output: number("metrics_output_tput_per_gpu")?,
            };
            let gpu = base_gpu(&record[hardware]);
            let costs = Costs::of(gpu, throughput);
            report.rows += 1;
            if !costs.known_hardware {
                *report.unknown_hardware.entry(gpu.to_owned()).or_default() += 1;
            }
            if DashboardPrice::of(gpu).is_none_or(|price| price.temporary) {
                *report.no_dashboard_price.entry(gpu.to_owned()).or_default() += 1;
            }
            report.no_throughput += usize::from(throughput.total.is_none_or(|tokens| tokens == 0.0));
            enriched.rows.push(costs);
        }
        for (gpu, rows) in &report.unknown_hardware {
            (ctx.log)(&format!(
                "no purchase price for '{gpu}': {rows} rows carry that of {}",
                report.fallback
            ));
        }
        ctx.write_json("enriched", &enriched)?;
        ctx.write_json("report", &report)?;
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::{Bench, fixtures};
    use serde_json::json;

    fn close(a: &Value, b: &Value) -> bool {
        match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1.0),
            _ => a == b,
        }
    }

    #[test]
    fn the_fixture_comes_out() {
        let Some(root) = fixtures() else { return };
        let dir = root.join("inferencemax/v3/expected");
        let done = Bench::new(&Enrich, json!({}))
            .path("csv", &dir.join("inference_max_benchmarks.csv"))
            .run(&["enriched", "report"])
            .ok();
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(dir.join("enriched.json")).unwrap()).unwrap();
        let ours = done.json("enriched");
        let (ours, expected) = (ours["rows"].as_array().unwrap(), expected["rows"].as_array().unwrap());
        assert_eq!(ours.len(), expected.len());
        for (index, (row, expected)) in ours.iter().zip(expected).enumerate() {
            let (row, expected) = (row.as_object().unwrap(), expected.as_object().unwrap());
            assert_eq!(row.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            for (name, value) in expected {
                assert!(close(&row[name], value), "row {index} {name}: {} is not {value}", row[name]);
            }
        }
        let report = done.json("report");
        assert_eq!(report["rows"], 243);
        assert_eq!(report["fallback"], "h100");
        assert_eq!(report["unknown_hardware"].as_object().unwrap().keys().collect::<Vec<_>>(), ["gb300"]);
        assert_eq!(
            report["no_dashboard_price"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["b300", "gb300"]
        );
    }

    #[test]
    fn nulls_follow_throughput_and_price() {
        let csv = "hardware,metrics_tput_per_gpu\nh200,\nh200,0\ntpu,100\n";
        let done = Bench::new(&Enrich, json!({})).file("csv", "b.csv", csv).run(&["enriched", "report"]).ok();
        let rows = done.json("enriched")["rows"].clone();
        assert_eq!((&rows[0]["tok_s_per_mw"], &rows[0]["costh"]), (&Value::Null, &Value::Null));
        assert_eq!((&rows[1]["tok_s_per_mw"], &rows[1]["costh"]), (&json!(0.0), &Value::Null));
        assert_eq!((&rows[2]["known_hardware"], &rows[2]["tok_s_per_mw"]), (&json!(false), &Value::Null));
        assert_eq!(rows[2]["hourly_gpu_cost"], json!(FALLBACK.hourly_cost()));
        assert_eq!(
            done.json("report"),
            json!({"rows": 3, "unknown_hardware": {"tpu": 1}, "fallback": "h100", "no_dashboard_price": {"tpu": 1}, "no_throughput": 2})
        );
        let bad =
            Bench::new(&Enrich, json!({})).file("csv", "b.csv", "hardware,metrics_tput_per_gpu\nh200,fast\n");
        assert_eq!(
            bad.run(&["enriched"]).result.unwrap_err().message,
            "b.csv: record 1: metrics_tput_per_gpu: expected a number from 0, found 'fast'"
        );
    }
}
