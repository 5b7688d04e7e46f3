//! `aisbench.export`: a load by flow as AISBench would have written it. Unaware of servers.

use std::io::Write;
use std::num::NonZeroU32;
use std::path::Path;

use rusqlite::{Connection, params};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::exact::Exact;
use super::{format, npy};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::base::digest::Digest;
use crate::stage::metrics::recorded::{Load, Recorded};
use crate::stage::metrics::row::{Kind, Row};
use crate::stage::table::jsonl::{JsonLines, write_line};

/// The stage.
pub(super) struct Export;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The data set's abbreviation, which names the files: letters, digits, `-`, `_` and `.`.
    dataset: String,
    /// The model's abbreviation; stands in clock.json.
    #[serde(default)]
    model: Option<String>,
    /// Requests that were allowed in flight, for Max Concurrency [default: what the summary says, else the most that were].
    #[serde(default)]
    max_concurrency: Option<NonZeroU32>,
}

impl Stage for Export {
    fn name(&self) -> &'static str {
        "aisbench.export"
    }

    fn version(&self) -> u32 {
        3
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Writes performances/<model> of AISBench 3.1 from a load by llm.load: details, time points in db_data, csv and json with Max Concurrency.\n\
                \n\
                A request's time points are its send and every event that has data, the chunk with usage too, [DONE] not; a failure has its send only. uuid is \
                made of the x-request-id. clock.json beside the details tells the clock, so that pods of several hosts can be merged. aisbench.import reads it back.",
        )
        .input("requests", "the output `requests` of llm.load")
        .optional_input("summary", "the output `summary` of the same load: what was allowed in flight")
        .optional_input("prompts", "what was asked, for the member `input` of the details")
        .output_dir("pod", "directory: <dataset>_details.jsonl, db_data/, <dataset>.csv, <dataset>.json, clock.json")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if params.dataset.is_empty() || params.dataset.starts_with('.') || !params.dataset.chars().all(plain)
        {
            return Err(ParamFault {
                path: "dataset".into(),
                message: format!("expected a name of letters, digits, - _ and ., found {:?}", params.dataset),
            });
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let Params { dataset, model, max_concurrency } = ctx.params::<Params>()?;
        let Load { rows, known, clock, spoiled } = Load::read(ctx.input("requests")?)?;
        let max = match max_concurrency {
            Some(said) => said.get().into(),
            None => limit(ctx)?.unwrap_or_else(|| most_in_flight(&rows)),
        };
        let asked = asked(ctx)?;
        let dir = ctx.output("pod")?.to_owned();
        let points: Vec<Vec<f64>> = rows.iter().map(points).collect();
        // as the tool counts: what has fewer than two time points failed
        let rows: Vec<Row> = rows.iter().zip(&points).map(|(row, points)| as_recorded(row, points)).collect();
        let xids: Vec<&str> = known.iter().map(|request| request.xid.as_str()).collect();
        let name = format!("{}.db", &Digest::of(xids.join("\n").as_bytes()).hex()[..8]);
        let stored = dir.join("db_data");
        std::fs::create_dir_all(&stored).map_err(|e| StageError::io("make the directory", &stored, e))?;
        store(&stored.join(&name), &points)
            .map_err(|e| StageError::new(format!("output 'pod': db_data/{name}: {e}")))?;
        let details = dir.join(format!("{dataset}_details.jsonl"));
        let file = std::fs::File::create(&details).map_err(|e| StageError::io("write", &details, e))?;
        let mut out = std::io::BufWriter::new(file);
        for (n, (row, known)) in rows.iter().zip(&known).enumerate() {
            let id = name_of(&row.id);
            write_line(&mut out, &detail(n, row, &dataset, known, asked.get(&id), &name), "pod")?;
        }
        out.flush().map_err(|e| StageError::io("write", &details, e))?;
        let seconds = |ns: i64| ns as f64 / 1e9;
        let mut tie =
            json!({ "host": clock.host, "monotonic": seconds(clock.monotonic), "unix": seconds(clock.unix) });
        if let Some(model) = model {
            tie["model"] = model.into();
        }
        if let Some(reasons) = spoiled {
            ctx.log(format!("client_bound: {reasons}"));
            tie["client_bound"] = json!(reasons);
        }
        write(&dir, "clock.json", tie.to_string().as_bytes())?;
        if let Some(exact) = Exact::of(&rows, max) {
            write(&dir, &format!("{dataset}.csv"), &format::csv(&exact.total, "total")?)?;
            write(&dir, &format!("{dataset}.json"), &format::json(&exact.total.common, "total")?)?;
        }
        let bad = rows.iter().filter(|row| !row.success).count();
        ctx.log(format!("{dataset}: {} requests, {bad} failed", rows.len()));
        Ok(Done::Made)
    }
}

/// Requests that the summary says were allowed in flight, else those that were; `None` without a summary.
fn limit(ctx: &StageContext) -> Result<Option<u64>, StageError> {
    let Some(file) = ctx.files("summary").first() else { return Ok(None) };
    let summary: Value = file.read_json()?;
    let load = &summary["load"];
    [&load["arrival"]["concurrency"], &load["max_concurrency"], &summary["self_check"]["inflight_max"]]
        .into_iter()
        .find_map(Value::as_u64)
        .filter(|max| *max > 0)
        .map(Some)
        .ok_or_else(|| {
            StageError::new(format!("{}: does not say how many requests were in flight", file.name))
                .hint("expected the output 'summary' of llm.load")
        })
}

/// Most requests in flight at once, from the send to the last time of each.
fn most_in_flight(rows: &[Row]) -> u64 {
    let mut changes: Vec<(f64, i64)> = Vec::with_capacity(rows.len() * 2);
    for row in rows {
        if let Some(send) = row.send {
            let end = row.events.last().map_or(send, |event| event.0).max(row.end.unwrap_or(send));
            changes.extend([(send, 1), (end, -1)]);
        }
    }
    changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let (mut now, mut most) = (0, 0);
    for (_, change) in changes {
        now += change;
        most = most.max(now);
    }
    most.max(1) as u64
}

/// Messages by the id of the prompt.
fn asked(ctx: &StageContext) -> Result<Map<String, Value>, StageError> {
    let mut asked = Map::new();
    for file in ctx.files("prompts") {
        let mut lines = JsonLines::open(file)?;
        while let Some(prompt) = lines.value::<Value>()? {
            let id = name_of(&prompt["id"]);
            let messages = match &prompt["messages"] {
                Value::Array(_) => prompt["messages"].clone(),
                _ => json!([{ "role": "user", "content": prompt["prompt"] }]),
            };
            asked.insert(id, messages);
        }
    }
    Ok(asked)
}

/// An id as text.
fn name_of(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// The send, and each event that has data.
fn points(row: &Row) -> Vec<f64> {
    let data = row.events.iter().filter(|event| !matches!(event.2, Kind::Head | Kind::Done));
    row.send.into_iter().chain(data.filter(|_| row.success).map(|event| event.0)).collect()
}

/// The row as aisbench.import makes it of the files.
fn as_recorded(row: &Row, points: &[f64]) -> Row {
    let mut out = row.clone();
    out.end = None;
    out.success = row.success && points.len() > 1;
    out.events.retain(|event| row.success && !matches!(event.2, Kind::Head | Kind::Done));
    if !out.success {
        (out.input_tokens, out.output_tokens) = (Some(0), Some(0));
    }
    out
}

fn detail(
    n: usize,
    row: &Row,
    dataset: &str,
    known: &Recorded,
    asked: Option<&Value>,
    database: &str,
) -> Value {
    let error = match (row.success, &row.error) {
        (true, _) => String::new(),
        (false, Some(error)) => error.clone(),
        (false, None) => "chunk size is less than 2".to_owned(),
    };
    json!({
        "data_abbr": dataset,
        "id": n,
        "success": row.success,
        "error_info": error,
        "time_points": { "__db_ref__": n + 1 },
        "input_tokens": row.input_tokens.unwrap_or(0),
        "output_tokens": row.output_tokens.unwrap_or(0),
        "extra_perf_data": {},
        "extra_details_data": {},
        "input": asked.cloned().unwrap_or_else(|| json!([])),
        "uuid": &Digest::of(known.xid.as_bytes()).hex()[..32],
        "turn_id": known.turn.as_ref().map_or(0, |(_, turn)| *turn),
        "prediction": known.text.as_deref().unwrap_or_default(),
        "db_name": database,
    })
}

/// The time points, numbered from 1.
fn store(path: &Path, points: &[Vec<f64>]) -> rusqlite::Result<()> {
    let mut db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    let all = db.transaction()?;
    all.execute_batch(
        "CREATE TABLE numpy_store (id INTEGER PRIMARY KEY AUTOINCREMENT, arr_blob BLOB NOT NULL)",
    )?;
    {
        let mut insert = all.prepare("INSERT INTO numpy_store (arr_blob) VALUES (?)")?;
        for points in points {
            insert.execute(params![npy::bytes(points)])?;
        }
    }
    all.commit()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StageError> {
    std::fs::write(dir.join(name), bytes).map_err(|e| StageError::io("write", &dir.join(name), e))
}
