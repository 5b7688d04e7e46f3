//! `inferencemax.verify`: recomputes cost, throughput per MW and Pareto flags of the two tables, compares with the published ones.
//! Unaware of where the tables come from.
//!
//! The published throughput per GPU t is rounded to 3 decimals, so a published value agrees if it lies between f(t - 0.0005) and
//! f(t + 0.0005), widened by 0.0005 for its own rounding. Pareto groups are (model, sequence, hwKey) within a table: not by precision.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use crate::api::{
    Done, InputFile, NoParams, ParamFault, Signature, Stage, StageContext, StageError, check_params,
};

use super::convert::Kind;
use super::hardware::{DashboardPrice, Owner, base_gpu};
use super::pareto::{self, Better};

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Verify;

/// Half of the last published decimal.
const HALF_STEP: f64 = 0.0005;

/// What was compared and what came out; every value of the tables is either checked or in `not_checked`.
#[derive(Clone, Debug, Default, Serialize)]
struct Report {
    pareto: Flags,
    cost: Values,
    tok_s_per_mw: Values,
    differences: Vec<Difference>,
    /// Base GPU without a dashboard price -> rows.
    unknown_hardware: BTreeMap<String, usize>,
    /// Check and reason -> values.
    not_checked: BTreeMap<String, usize>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Flags {
    checked: usize,
    equal: usize,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Values {
    checked: usize,
    within_rounding: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Difference {
    kind: Kind,
    /// Record of the table, from 1.
    row: usize,
    model_name: String,
    sequence_length: String,
    #[serde(rename = "hwKey")]
    hw_key: String,
    column: String,
    published: String,
    computed: String,
}

/// A row and its place in the plane.
type PlacedPoint = (usize, (f64, f64));

/// One table in memory.
struct Table {
    kind: Kind,
    columns: IndexMap<String, usize>,
    records: Vec<csv::StringRecord>,
}

impl Table {
    fn read(kind: Kind, file: &InputFile) -> Result<Self, StageError> {
        let bytes = file.read()?;
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        let fault = |e: csv::Error| StageError::new(format!("{}: {e}", file.name));
        let columns: IndexMap<String, usize> = reader
            .headers()
            .map_err(fault)?
            .iter()
            .enumerate()
            .map(|(i, name)| (name.to_owned(), i))
            .collect();
        let records = reader.records().collect::<Result<Vec<_>, _>>().map_err(fault)?;
        for required in ["model_name", "sequence_length", "hwKey", "x", "tpPerGpu_y"] {
            if !records.is_empty() && !columns.contains_key(required) {
                return Err(StageError::new(format!("{}: the column '{required}' is missing", file.name))
                    .hint("expected a table of inferencemax.tables"));
            }
        }
        Ok(Self { kind, columns, records })
    }

    fn cell(&self, row: usize, column: &str) -> &str {
        self.columns.get(column).and_then(|at| self.records[row].get(*at)).unwrap_or("")
    }

    fn number(&self, row: usize, column: &str) -> Option<f64> {
        self.cell(row, column).parse().ok().filter(|number: &f64| number.is_finite())
    }

    fn difference(&self, row: usize, column: &str, computed: String) -> Difference {
        Difference {
            kind: self.kind,
            row: row + 1,
            model_name: self.cell(row, "model_name").to_owned(),
            sequence_length: self.cell(row, "sequence_length").to_owned(),
            hw_key: self.cell(row, "hwKey").to_owned(),
            column: column.to_owned(),
            published: self.cell(row, column).to_owned(),
            computed,
        }
    }
}

impl Report {
    fn not_checked(&mut self, check: &str, reason: &str, values: usize) {
        *self.not_checked.entry(format!("{check}: {reason}")).or_default() += values;
    }

    fn add(&mut self, table: &Table) {
        self.check_flags(table);
        for row in 0..table.records.len() {
            self.check_values(table, row);
        }
    }

    /// The five roof flags of a record count as one check: all that are there must equal the computed one.
    fn check_flags(&mut self, table: &Table) {
        let better = match table.kind {
            Kind::E2e => Better::SmallerX,
            Kind::Interactivity => Better::LargerX,
        };
        let flags: Vec<&str> =
            table.columns.keys().map(String::as_str).filter(|name| name.ends_with("_roof")).collect();
        let mut groups: BTreeMap<[&str; 3], Vec<PlacedPoint>> = BTreeMap::new();
        for row in 0..table.records.len() {
            match (table.number(row, "x"), table.number(row, "tpPerGpu_y")) {
                (Some(x), Some(y)) => {
                    let key = ["model_name", "sequence_length", "hwKey"].map(|name| table.cell(row, name));
                    groups.entry(key).or_default().push((row, (x, y)));
                }
                _ => self.not_checked("pareto", "x or tpPerGpu_y is no number", 1),
            }
        }
        let mut computed: Vec<(usize, bool)> = Vec::with_capacity(table.records.len());
        for points in groups.values() {
            let front = pareto::front(&points.iter().map(|(_, point)| *point).collect::<Vec<_>>(), better);
            computed.extend(points.iter().map(|(row, _)| *row).zip(front));
        }
        computed.sort_unstable();
        for (row, on_front) in computed {
            let expected = if on_front { "True" } else { "False" };
            let published = flags.iter().filter(|name| !table.cell(row, name).is_empty());
            let mut any = false;
            let differing: Vec<&str> = published
                .inspect(|_| any = true)
                .filter(|name| table.cell(row, name) != expected)
                .copied()
                .collect();
            if !any {
                self.not_checked("pareto", "no flag is published", 1);
                continue;
            }
            self.pareto.checked += 1;
            self.pareto.equal += usize::from(differing.is_empty());
            for name in differing {
                self.differences.push(table.difference(row, name, expected.to_owned()));
            }
        }
    }

    fn check_values(&mut self, table: &Table, row: usize) {
        let gpu = base_gpu(table.cell(row, "hwKey"));
        let Some(price) = DashboardPrice::of(gpu) else {
            *self.unknown_hardware.entry(gpu.to_owned()).or_default() += 1;
            self.not_checked("cost", "unknown hardware", Owner::ALL.len());
            self.not_checked("tok_s_per_mw", "unknown hardware", 1);
            return;
        };
        for owner in Owner::ALL {
            let column = format!("{}_y", owner.field());
            match compare(table, row, &column, |t| price.cost(owner, t)) {
                Ok(difference) => count(&mut self.cost, difference, &mut self.differences),
                Err(reason) => self.not_checked("cost", reason, 1),
            }
        }
        match compare(table, row, "tpPerMw_y", |t| price.tok_s_per_mw(t)) {
            Ok(difference) => count(&mut self.tok_s_per_mw, difference, &mut self.differences),
            Err(reason) => self.not_checked("tok_s_per_mw", reason, 1),
        }
    }
}

fn count(values: &mut Values, difference: Option<Difference>, differences: &mut Vec<Difference>) {
    values.checked += 1;
    values.within_rounding += usize::from(difference.is_none());
    differences.extend(difference);
}

/// The difference between a published value and `f` of the published throughput, if they disagree; the reason why they cannot
/// be compared as error. `f` is monotonic for positive throughput.
fn compare(
    table: &Table,
    row: usize,
    column: &str,
    f: impl Fn(f64) -> f64,
) -> Result<Option<Difference>, &'static str> {
    let t = table.number(row, "tpPerGpu_y").ok_or("tpPerGpu_y is no number")?;
    let published = table.number(row, column).ok_or("the published value is no number")?;
    if t < 0.0 {
        return Err("tpPerGpu_y is negative");
    }
    // a throughput that rounds to 0 may be any up to the half step; the cost of 0 is infinite
    let (a, b) = (f((t - HALF_STEP).max(0.0)), f(t + HALF_STEP));
    let slack = HALF_STEP + 1e-12 * published.abs();
    let agrees = a.min(b) - slack <= published && published <= a.max(b) + slack;
    Ok((!agrees).then(|| table.difference(row, column, f(t).to_string())))
}

impl Stage for Verify {
    fn name(&self) -> &'static str {
        "inferencemax.verify"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<NoParams>(
            "Recomputes the three costs (US$ per million tokens), tokens/s per MW and the Pareto flags from tpPerGpu_y and x, and compares them with the published ones. Reports; does not fail on differences.",
        )
        .input("e2e", "CSV of inferencemax.tables")
        .input("interactivity", "CSV of inferencemax.tables")
        .output(
            "report",
            "{\"pareto\": {\"checked\", \"equal\"}, \"cost\": {\"checked\", \"within_rounding\"}, \"tok_s_per_mw\": {...}, \"differences\", \"unknown_hardware\", \"not_checked\"}",
        )
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<NoParams>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let mut report = Report::default();
        report.add(&Table::read(Kind::E2e, ctx.input("e2e")?)?);
        report.add(&Table::read(Kind::Interactivity, ctx.input("interactivity")?)?);
        for (gpu, rows) in &report.unknown_hardware {
            ctx.log(format!("no dashboard price for '{gpu}': {rows} rows not checked for cost and power"));
        }
        ctx.write_json("report", &report)?;
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;
    use serde_json::json;

    const HEADER: &str =
        "model_name,sequence_length,costh_roof,costh_y,hwKey,tpPerGpu_roof,tpPerGpu_y,tpPerMw_y,x\n";

    fn run(e2e: &str) -> Value {
        Bench::new(&Verify, json!({}))
            .file("e2e", "e2e.csv", format!("{HEADER}{e2e}"))
            .file("interactivity", "i.csv", "model_name,sequence_length\r\n")
            .run(&["report"])
            .ok()
            .json("report")
    }

    #[test]
    fn a_wrong_flag_and_a_wrong_value_are_listed() {
        // h100: 100 tok/s/GPU cost 1.30 / 0.36 = 3.611 and give 57803.468 tok/s/MW
        let report = run(
            "M,1k-1k,True,3.611,h100,True,100,57803.468,5\nM,1k-1k,True,3.9,h100_v,False,100,57803.468,5\n",
        );
        assert_eq!(report["pareto"], json!({"checked": 2, "equal": 1}));
        assert_eq!(report["cost"], json!({"checked": 2, "within_rounding": 1}));
        assert_eq!(report["tok_s_per_mw"], json!({"checked": 2, "within_rounding": 2}));
        assert_eq!(report["not_checked"], json!({"cost: the published value is no number": 4}));
        let differences: Vec<_> = report["differences"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| {
                (d["row"].as_u64().unwrap(), d["column"].as_str().unwrap(), d["computed"].as_str().unwrap())
            })
            .collect();
        assert_eq!(differences, [(2, "tpPerGpu_roof", "True"), (2, "costh_y", "3.611111111111111")]);
    }

    #[test]
    fn unknown_hardware_is_counted() {
        let report = run("M,s,True,1,tpu_v7,True,100,1,5\nM,s,True,1,h100,True,oops,1,5\n");
        assert_eq!(report["unknown_hardware"], json!({"tpu": 1}));
        assert_eq!(
            report["not_checked"],
            json!({
                "cost: tpPerGpu_y is no number": 3, "cost: unknown hardware": 3,
                "pareto: x or tpPerGpu_y is no number": 1,
                "tok_s_per_mw: tpPerGpu_y is no number": 1, "tok_s_per_mw: unknown hardware": 1
            })
        );
        assert_eq!(report["pareto"], json!({"checked": 1, "equal": 1}));
    }
}
