//! The output `requests` of `llm.load`: a row per attempt in SQLite, written when the load is over. Unaware of statistics.

use std::path::Path;

use rusqlite::{Connection, params};

use super::plan::Plan;
use super::record::Record;

const TABLES: &str = "
    CREATE TABLE requests(
        id NOT NULL, shard INTEGER NOT NULL, endpoint TEXT NOT NULL, attempt INTEGER NOT NULL, xid TEXT NOT NULL,
        sched_ns INTEGER, send0_ns INTEGER, send1_ns INTEGER, head_ns INTEGER, first_event_ns INTEGER, first_token_ns INTEGER,
        last_token_ns INTEGER, end_ns INTEGER, input_tokens INTEGER, output_tokens INTEGER, status INTEGER, failure TEXT,
        events BLOB NOT NULL, number INTEGER NOT NULL, connect0_ns INTEGER, connect1_ns INTEGER, message TEXT, text TEXT,
        conversation, turn INTEGER);
    CREATE TABLE clock(monotonic_ns INTEGER NOT NULL, unix_ns INTEGER NOT NULL, host TEXT NOT NULL);
";

/// Text stays text, and a number a number.
fn id(id: &serde_json::Value) -> rusqlite::types::Value {
    match (id.as_i64(), id.as_str()) {
        (Some(number), _) => number.into(),
        (None, text) => text.unwrap_or_default().to_owned().into(),
    }
}

/// The id of a turn: ids tell requests apart.
fn turn_id(id: &serde_json::Value, turn: u64) -> String {
    format!("{}/{turn}", id.as_str().map_or_else(|| id.to_string(), str::to_owned))
}

/// Notes why the client spoiled the load; empty if it did not.
pub(super) fn mark(path: &Path, reasons: &[String]) -> rusqlite::Result<()> {
    let db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; CREATE TABLE self_check(client_bound INTEGER NOT NULL, reasons TEXT NOT NULL);")?;
    db.execute("INSERT INTO self_check VALUES (?,?)", params![!reasons.is_empty(), reasons.join("; ")])
        .map(drop)
}

/// Writes the records in the order of their requests; the clock twice, from before and after the load.
pub(super) fn write(
    path: &Path,
    plan: &Plan,
    records: &[Record],
    ties: &[(u64, u64)],
) -> rusqlite::Result<()> {
    let mut db = Connection::open(path)?;
    // nobody reads it before it is whole
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    let all = db.transaction()?;
    all.execute_batch(TABLES)?;
    let moment = |ns: u64| (ns > 0).then_some(ns as i64);
    let count = |tokens: Option<u64>| tokens.and_then(|tokens| i64::try_from(tokens).ok());
    {
        let mut insert =
            all.prepare("INSERT INTO requests VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")?;
        for record in records {
            let (conversation, turn) = plan.place_of(record.number);
            let job = plan.job(conversation);
            // a request of its own is no conversation
            let (name, of, turn) = match job.later.is_empty() {
                true => (id(&job.id), None, None),
                false => (turn_id(&job.id, turn).into(), Some(id(&job.id)), Some(turn as i64)),
            };
            insert.execute(params![
                name,
                record.shard,
                plan.endpoints[record.endpoint as usize].name,
                record.attempt,
                record.xid(&plan.id),
                moment(record.sched),
                moment(record.send0),
                moment(record.send1),
                moment(record.head),
                moment(record.first_event),
                moment(record.first_token),
                moment(record.last_token),
                moment(record.end),
                count(record.input_tokens),
                count(record.output_tokens),
                (record.status > 0).then_some(record.status),
                record.failure.map(|failure| failure.name()),
                record.events.bytes(),
                record.number as i64,
                record.connect.map(|(before, _)| before as i64),
                record.connect.and_then(|(_, after)| moment(after)),
                record.message,
                record.text,
                of,
                turn,
            ])?;
        }
        let host =
            nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for (monotonic, unix) in ties {
            all.execute("INSERT INTO clock VALUES (?,?,?)", params![*monotonic as i64, *unix as i64, host])?;
        }
    }
    all.commit()
}
