//! `inferencemax.api`: response bodies of the newer API as one CSV. Unaware of fetching and of prices.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::{Done, InputFile, ParamFault, Signature, Stage, StageContext, StageError, parse_params};

use super::cells::{self, Depth, RawObject, Row};
use super::tables;

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Benchmarks;

/// What is taken from the bodies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Newest date of a result, `YYYY-MM-DD`; later rows are dropped and counted.
    #[serde(default)]
    pub date: Option<String>,
    /// Model id -> display name, for models that are not known here or are to be called otherwise. Known: dsr1, gptoss120b,
    /// llama70b, qwen3.5, kimik2.5, minimaxm2.5, glm5.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// Pairs of input and output length in tokens. A body with none of them is kept whole.
    #[serde(default = "sequences")]
    pub sequences: Vec<[i64; 2]>,
}

/// The display names of the API, case-sensitive.
const NAMES: [(&str, &str); 7] = [
    ("dsr1", "DeepSeek-R1-0528"),
    ("gptoss120b", "gpt-oss-120b"),
    ("llama70b", "Llama-3.3-70B-Instruct-FP8"),
    ("qwen3.5", "Qwen-3.5-397B-A17B"),
    ("kimik2.5", "Kimi-K2.5"),
    ("minimaxm2.5", "MiniMax-M2.5"),
    ("glm5", "GLM-5"),
];

impl Params {
    fn display_name(&self, id: &str) -> Option<&str> {
        let known = || NAMES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name);
        self.names.get(id).map(String::as_str).or_else(known)
    }
}

/// 1K / 1K, 1K / 8K, 8K / 1K.
fn sequences() -> Vec<[i64; 2]> {
    vec![[1024, 1024], [1024, 8192], [8192, 1024]]
}

/// Columns that come first, as far as they are there.
const FIRST: [&str; 12] = [
    "model_display_name",
    "model",
    "hardware",
    "framework",
    "precision",
    "isl",
    "osl",
    "conc",
    "date",
    "spec_method",
    "disagg",
    "is_multinode",
];

/// `rows` = `kept` + all of `dropped` + all of `failed`.
#[derive(Debug, Default, Serialize)]
struct Report {
    rows: usize,
    kept: usize,
    dropped: BTreeMap<&'static str, usize>,
    failed: BTreeMap<&'static str, usize>,
    models: Vec<ModelReport>,
    availability: Option<Availability>,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    model: String,
    name: String,
    file: String,
    rows: usize,
    kept: usize,
    /// None of the sequences was there, so all rows were kept.
    kept_all_sequences: bool,
}

#[derive(Debug, Serialize)]
struct Availability {
    rows: usize,
    failed: usize,
    /// Model id -> newest date up to `date`.
    newest: BTreeMap<String, String>,
    /// Models that are available, but have no body.
    missing: Vec<String>,
}

/// One body.
struct Body {
    file: String,
    model: String,
    total: usize,
    failed: BTreeMap<&'static str, usize>,
    rows: Vec<BodyRow>,
}

struct BodyRow {
    sequence: [Option<i64>; 2],
    date: String,
    row: Row,
}

/// The array in a file; an object with `error` gives its text.
fn array<'t>(file: &InputFile, text: &'t str) -> Result<Vec<&'t RawValue>, StageError> {
    let fault = |e| StageError::new(format!("{}: expected a JSON array of rows: {e}", file.name));
    serde_json::from_str::<Value>(text).map_err(fault)?; // strict: nesting, numbers and escapes too
    let raw: &RawValue = serde_json::from_str(text).map_err(fault)?;
    cells::items(raw).ok_or_else(|| {
        let answer =
            cells::members(raw).and_then(|object| object.get("error").and_then(|error| cells::text(error)));
        let answer = answer.map(|text| format!(" (the API answered: {text})")).unwrap_or_default();
        StageError::new(format!(
            "{}: expected a JSON array of rows, found {}{answer}",
            file.name,
            cells::type_name(raw)
        ))
    })
}

fn read(file: &InputFile, params: &Params) -> Result<Body, StageError> {
    let text = file.read_text()?;
    let items = array(file, &text)?;
    let mut body = Body {
        file: file.file_name().to_owned(),
        model: String::new(),
        total: items.len(),
        failed: BTreeMap::new(),
        rows: Vec::with_capacity(items.len()),
    };
    for (index, item) in items.iter().enumerate() {
        let fault = |what: String| StageError::new(format!("{}: row {}: {what}", file.name, index + 1));
        let Some(record) = cells::members(item) else {
            *body.failed.entry("not_an_object").or_default() += 1;
            continue;
        };
        let Some(model) = record.get("model").and_then(|raw| cells::text(raw)) else {
            *body.failed.entry("no_model").or_default() += 1;
            continue;
        };
        let name = params.display_name(&model).ok_or_else(|| {
            fault(format!("no display name for the model id '{model}'"))
                .hint(format!("add \"{model}\": \"<display name>\" to the parameter 'names'"))
        })?;
        let mut row = Row::with_capacity(record.len() * 2);
        row.insert(FIRST[0].to_owned(), name.to_owned());
        cells::flatten(&record, Depth::All, &mut row).map_err(fault)?;
        if body.model.is_empty() {
            body.model = model;
        }
        body.rows.push(BodyRow {
            sequence: ["isl", "osl"].map(|name| integer(&record, name)),
            date: date(&record),
            row,
        });
    }
    if body.model.is_empty() {
        body.model = body.file.clone();
    }
    Ok(body)
}

fn integer(record: &RawObject<'_>, name: &str) -> Option<i64> {
    record.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
}

fn date(record: &RawObject<'_>) -> String {
    record.get("date").and_then(|raw| cells::text(raw)).unwrap_or_default()
}

/// The rows of a body that stay, by isl, then osl, else as they came.
fn select(body: Body, params: &Params, report: &mut Report) -> Vec<Row> {
    let Body { file, model, total, failed, mut rows } = body;
    report.rows += total;
    for (reason, count) in failed {
        *report.failed.entry(reason).or_default() += count;
    }
    if let Some(newest) = &params.date {
        let before = rows.len();
        rows.retain(|row| row.date.as_str() <= newest.as_str());
        *report.dropped.entry("after_date").or_default() += before - rows.len();
    }
    let wanted = |row: &BodyRow| params.sequences.iter().any(|pair| row.sequence == pair.map(Some));
    let kept_all_sequences = !rows.is_empty() && !rows.iter().any(wanted);
    if !kept_all_sequences {
        let before = rows.len();
        rows.retain(wanted);
        *report.dropped.entry("outside_sequences").or_default() += before - rows.len();
    }
    rows.sort_by_key(|row| row.sequence.map(|length| length.unwrap_or(i64::MAX)));
    report.kept += rows.len();
    let name = params.display_name(&model).unwrap_or_default().to_owned();
    report.models.push(ModelReport { model, name, file, rows: total, kept: rows.len(), kept_all_sequences });
    rows.into_iter().map(|row| row.row).collect()
}

fn availability(
    files: &[InputFile],
    params: &Params,
    models: &[ModelReport],
) -> Result<Option<Availability>, StageError> {
    if files.is_empty() {
        return Ok(None);
    }
    let mut out = Availability { rows: 0, failed: 0, newest: BTreeMap::new(), missing: Vec::new() };
    for file in files {
        let text = file.read_text()?;
        for item in array(file, &text)? {
            out.rows += 1;
            let record = cells::members(item).unwrap_or_default();
            let date = date(&record);
            match record.get("model").and_then(|raw| cells::text(raw)) {
                Some(model) if !date.is_empty() => {
                    if params.date.as_ref().is_none_or(|newest| date <= *newest) {
                        let newest = out.newest.entry(model).or_default();
                        *newest = std::mem::take(newest).max(date);
                    }
                }
                _ => out.failed += 1,
            }
        }
    }
    out.missing = out.newest.keys().filter(|id| !models.iter().any(|m| m.model == **id)).cloned().collect();
    Ok(Some(out))
}

/// [`FIRST`] as far as there, then the others, then the metrics, both in code-point order.
fn header(rows: &[Row]) -> Vec<&str> {
    let mut rest: Vec<&str> = rows
        .iter()
        .flat_map(Row::keys)
        .map(String::as_str)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut header: Vec<&str> = FIRST.into_iter().filter(|name| rest.contains(name)).collect();
    rest.retain(|name| !FIRST.contains(name));
    rest.sort_by_key(|name| name.starts_with("metrics_"));
    header.append(&mut rest);
    header
}

impl Stage for Benchmarks {
    fn name(&self) -> &'static str {
        "inferencemax.api"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Turns response bodies of the newer API into one CSV: bodies by model id, rows by isl, then osl; nested objects flattened, lists as JSON text. The report counts every row: kept, dropped or failed by reason.",
        )
        .input_list("benchmarks", "bodies of /benchmarks, one per model")
        .input_list("availability", "body of /availability, if there is one")
        .output("csv", "one row per benchmark result; latencies in s")
        .optional_output(
            "report",
            "{\"rows\", \"kept\", \"dropped\": {reason: n}, \"failed\": {reason: n}, \"models\", \"availability\"}",
        )
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        match params.date {
            Some(date)
                if !date.contains("${")
                    && (date.len() != 10 || date.parse::<jiff::civil::Date>().is_err()) =>
            {
                Err(ParamFault { path: "date".to_owned(), message: format!("'{date}': expected YYYY-MM-DD") })
            }
            _ => Ok(()),
        }
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let mut bodies =
            ctx.files("benchmarks").iter().map(|file| read(file, &params)).collect::<Result<Vec<_>, _>>()?;
        if bodies.is_empty() {
            return Err(StageError::new("no response bodies: the input 'benchmarks' matches no file")
                .hint("expected files like benchmarks-<model id>.json"));
        }
        bodies.sort_by(|a, b| (&a.model, &a.file).cmp(&(&b.model, &b.file)));
        let mut report = Report::default();
        let mut rows = Vec::new();
        for body in bodies {
            rows.extend(select(body, &params, &mut report));
        }
        report.availability = availability(ctx.files("availability"), &params, &report.models)?;
        let reasons = report.dropped.iter().chain(&report.failed).filter(|(_, count)| **count > 0);
        let lines: Vec<String> =
            reasons.map(|(reason, count)| format!("{count} rows left out: {reason}")).collect();
        let missing = report.availability.iter().flat_map(|found| &found.missing);
        let lines: Vec<String> = lines
            .into_iter()
            .chain(missing.map(|id| format!("no body for the available model '{id}'")))
            .collect();
        ctx.write("csv", &tables::csv_text(&header(&rows), &rows)?)?;
        ctx.write_json("report", &report)?;
        for line in lines {
            ctx.log(line);
        }
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::{Bench, fixtures};
    use serde_json::json;

    #[test]
    fn the_fixture_comes_out_byte_for_byte() {
        let Some(root) = fixtures() else { return };
        let dir = root.join("inferencemax/v3");
        for date in [json!(null), json!("2026-02-20")] {
            let done = Bench::new(&Benchmarks, json!({"date": date}))
                .path("benchmarks", &dir.join("api/benchmarks-gptoss120b.json"))
                .path("benchmarks", &dir.join("api/benchmarks-dsr1.json"))
                .path("availability", &dir.join("api/availability.json"))
                .run(&["csv", "report"])
                .ok();
            let expected =
                std::fs::read_to_string(dir.join("expected/inference_max_benchmarks.csv")).unwrap();
            assert!(done.text("csv") == expected, "the CSV differs");
            let report = done.json("report");
            assert_eq!((&report["rows"], &report["kept"]), (&json!(270), &json!(243)));
            assert_eq!(report["dropped"]["outside_sequences"], 27);
            assert_eq!(report["failed"], json!({}));
            assert_eq!(report["availability"]["rows"], 151);
            assert_eq!(report["availability"]["newest"]["dsr1"], "2026-02-20");
            assert_eq!(report["availability"]["missing"], json!([]));
        }
    }

    #[test]
    fn every_row_is_accounted_for() {
        let body = json!([
            {"model": "dsr1", "isl": 1024, "osl": 8192, "date": "2026-01-01", "tags": [1, "a"], "metrics": {"b": 1.5, "a": {"x": 2}}},
            {"model": "dsr1", "isl": 1024, "osl": 1024, "date": "2026-01-02", "conc": 4},
            {"model": "dsr1", "isl": null, "osl": null, "date": "2026-01-02"},
            {"model": "dsr1", "isl": 1024, "osl": 1024, "date": "2026-03-01"},
            {"isl": 1024}, 7
        ]);
        let done = Bench::new(&Benchmarks, json!({"date": "2026-02-01"}))
            .file("benchmarks", "b.json", body.to_string())
            .file("availability", "a.json", json!([{"model": "dsr1", "date": "2026-01-02"}, {"model": "glm5", "date": "2026-01-03"}, {"model": "late", "date": "2027-01-01"}, 1]).to_string())
            .run(&["csv", "report"])
            .ok();
        assert_eq!(
            done.text("csv"),
            "model_display_name,model,isl,osl,conc,date,tags,metrics_a_x,metrics_b\r\nDeepSeek-R1-0528,dsr1,1024,1024,4,2026-01-02,,,\r\nDeepSeek-R1-0528,dsr1,1024,8192,,2026-01-01,\"[1, \"\"a\"\"]\",2,1.5\r\n"
        );
        assert_eq!(
            done.json("report"),
            json!({
                "rows": 6, "kept": 2, "dropped": {"after_date": 1, "outside_sequences": 1}, "failed": {"no_model": 1, "not_an_object": 1},
                "models": [{"model": "dsr1", "name": "DeepSeek-R1-0528", "file": "b.json", "rows": 6, "kept": 2, "kept_all_sequences": false}],
                "availability": {"rows": 4, "failed": 1, "newest": {"dsr1": "2026-01-02", "glm5": "2026-01-03"}, "missing": ["glm5"]}
            })
        );
    }

    #[test]
    fn faults_name_file_and_place() {
        let run = |text: &str| {
            Bench::new(&Benchmarks, json!({}))
                .file("benchmarks", "b.json", text)
                .run(&["csv"])
                .result
                .unwrap_err()
        };
        assert!(run("{\"error\": \"Unknown model\"}").message.contains("Unknown model"));
        let error = run("[{\"model\": \"new1\"}]");
        assert!(error.message.contains("b.json: row 1") && error.hints[0].contains("'names'"), "{error:?}");
        assert!(Bench::new(&Benchmarks, json!({})).run(&["csv"]).result.is_err());
        let named = Bench::new(&Benchmarks, json!({"names": {"new1": "New 1"}}))
            .file("benchmarks", "b.json", "[{\"model\": \"new1\"}]")
            .run(&["csv"])
            .ok();
        assert_eq!(named.text("csv"), "model_display_name,model\r\nNew 1,new1\r\n");
        assert!(run(&"[".repeat(100_000)).message.contains("recursion limit"));
        assert_eq!(Benchmarks.check(&json!({"date": "20260220"})).unwrap_err().path, "date");
    }
}
