//! `benchmark_data.db`: the requests of a run, row by row. Opened for reading only; unaware of what is made of them.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::stage::sqlite;

/// Why a database says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Missing,
    Unreadable,
    NoTable,
}

/// What is read of each row; the rest costs time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Depth {
    /// Success and GPU memory.
    Counts,
    /// Times of the request, too.
    Times,
    /// Tokens and the time of each, too.
    Tokens,
}

/// One request; times in seconds. What was not read or is NULL is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Row<'r> {
    pub(super) success: bool,
    /// Whether it was streamed; `None` where the database does not say (up to 1.9).
    pub(super) stream: Option<bool>,
    /// GPU memory of the client's process in GiB, all devices together.
    pub(super) gpu: Option<f64>,
    pub(super) ttft: Option<f64>,
    pub(super) tpot: Option<f64>,
    pub(super) latency: Option<f64>,
    pub(super) input: Option<f64>,
    pub(super) output: Option<f64>,
    pub(super) tokens: Option<Tokens<'r>>,
}

/// When tokens came: JSON lists of seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tokens<'r> {
    /// Between one and the next (from 1.1).
    Gaps(&'r [u8]),
    /// Readings of a clock (up to 1.0).
    Clock(&'r [u8]),
    /// A number or a blob stands there.
    NoText,
}

/// Calls `each` with every row of table `result`. After an error the rows seen so far mean nothing.
pub(super) fn scan(path: &Path, depth: Depth, each: impl FnMut(&Row)) -> Result<(), Unusable> {
    let meta = std::fs::metadata(path).map_err(|_| Unusable::Missing)?;
    if !meta.is_file() {
        return Err(Unusable::Unreadable);
    }
    let db = sqlite::open_to_read(path).map_err(|_| Unusable::Unreadable)?;
    read(&db, depth, each).map_err(|error| match error {
        rusqlite::Error::SqlInputError { msg, .. } if msg.starts_with("no such table") => Unusable::NoTable,
        _ => Unusable::Unreadable,
    })
}

fn read(db: &Connection, depth: Depth, mut each: impl FnMut(&Row)) -> rusqlite::Result<()> {
    let mut sql = "SELECT success, max_gpu_memory_cost".to_owned();
    let mut clock = false;
    if depth >= Depth::Times {
        sql += ", first_chunk_latency, time_per_output_token, latency";
    }
    if depth >= Depth::Tokens {
        clock = !sqlite::has_column(db, "result", "inter_token_latencies")?;
        sql += ", prompt_tokens, completion_tokens, ";
        sql += if clock { "chunk_times" } else { "inter_token_latencies" };
        sql += if sqlite::has_column(db, "result", "is_stream")? {
            ", coalesce(is_stream, 0)"
        } else {
            ", NULL"
        };
    }
    let mut select = db.prepare(&(sql + " FROM result"))?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let mut found = Row {
            success: row.get::<_, Option<i64>>(0)?.unwrap_or(0) != 0,
            gpu: row.get(1)?,
            ..Row::default()
        };
        if depth >= Depth::Times {
            (found.ttft, found.tpot, found.latency) = (row.get(2)?, row.get(3)?, row.get(4)?);
        }
        if depth >= Depth::Tokens {
            (found.input, found.output) = (row.get(5)?, row.get(6)?);
            found.stream = match row.get_ref(8)? {
                ValueRef::Integer(stream) => Some(stream != 0),
                _ => None,
            };
            found.tokens = match row.get_ref(7)? {
                ValueRef::Text(text) if clock => Some(Tokens::Clock(text)),
                ValueRef::Text(text) => Some(Tokens::Gaps(text)),
                ValueRef::Null => None,
                _ => Some(Tokens::NoText),
            };
        }
        each(&found);
    }
    Ok(())
}
