//! `benchmark_data.db`: what the requests of a run took. Opened for reading only; unaware of the tables made of it.

use std::ffi::OsString;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;

use schemars::JsonSchema;

/// Bytes that are mapped at most: a scan of a large file would else count as memory.
const MAPPED: i64 = 8 << 20;

/// Why a database says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Missing,
    Unreadable,
    NoTable,
}

/// Limits in seconds; a request has to keep all that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Slo {
    /// Time to first token.
    pub(super) ttft: Option<f64>,
    /// Time per output token after the first.
    pub(super) tpot: Option<f64>,
    /// End-to-end latency.
    pub(super) e2el: Option<f64>,
}

/// What one scan finds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Mean, highest and lowest GPU memory of the rows that have it.
    pub(super) gpu: Option<[f64; 3]>,
    /// Rows.
    pub(super) requests: u64,
    /// Rows that succeeded.
    pub(super) succeeded: u64,
    /// Rows that succeeded and kept all limits.
    pub(super) conforming: u64,
}

/// Scans table `result` once. Limits are looked at only if there are some.
pub(super) fn scan(path: &Path, slo: Option<Slo>) -> Result<Found, Unusable> {
    let meta = std::fs::metadata(path).map_err(|_| Unusable::Missing)?;
    if !meta.is_file() {
        return Err(Unusable::Unreadable);
    }
    let db = open(path).map_err(|_| Unusable::Unreadable)?;
    let tables: rusqlite::Result<i64> = db.query_row(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'result'",
        [],
        |row| row.get(0),
    );
    match tables {
        Ok(0) => return Err(Unusable::NoTable),
        Ok(_) => {}
        Err(_) => return Err(Unusable::Unreadable),
    }
    read(&db, slo).map_err(|_| Unusable::Unreadable)
}

/// Nothing is written, and nothing is locked where nobody else can be writing.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let beside = |ending: &str| {
        let mut name = OsString::from(path);
        name.push(ending);
        std::fs::symlink_metadata(name).is_ok()
    };
    let quiet = !beside("-wal") && !beside("-journal");
    let encoded: String = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| match byte {
            b'/' | b'-' | b'_' | b'.' => char::from(*byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let uri = format!("file:{encoded}?{}", if quiet { "immutable=1" } else { "mode=ro" });
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(uri, flags)?;
    db.pragma_update(None, "mmap_size", MAPPED)?;
    Ok(db)
}

fn read(db: &Connection, slo: Option<Slo>) -> rusqlite::Result<Found> {
    let mut found = Found::default();
    let sql = match slo {
        None => "SELECT success, max_gpu_memory_cost FROM result",
        Some(_) => {
            "SELECT success, max_gpu_memory_cost, first_chunk_latency, time_per_output_token, latency FROM result"
        }
    };
    let mut select = db.prepare(sql)?;
    let mut rows = select.query([])?;
    let mut sum = 0.0;
    let mut count = 0_u64;
    while let Some(row) = rows.next()? {
        found.requests += 1;
        let success = row.get::<_, Option<i64>>(0)?.unwrap_or(0) != 0;
        found.succeeded += u64::from(success);
        if let Some(cost) = row.get::<_, Option<f64>>(1)? {
            let [_, highest, lowest] = found.gpu.unwrap_or([0.0, cost, cost]);
            sum += cost;
            count += 1;
            found.gpu = Some([sum / count as f64, highest.max(cost), lowest.min(cost)]);
        }
        if let Some(slo) = slo {
            let mut keeps = success;
            for (column, limit) in [(2, slo.ttft), (3, slo.tpot), (4, slo.e2el)] {
                if let Some(limit) = limit {
                    // a success that was not measured cannot be shown to conform
                    keeps &= row.get::<_, Option<f64>>(column)?.is_some_and(|taken| taken <= limit);
                }
            }
            found.conforming += u64::from(keeps);
        }
    }
    Ok(found)
}
