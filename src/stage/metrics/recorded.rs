//! What a table of `llm.load` says of its requests beside their rows: names, answers, moments, and its clock. Unaware of metrics.

use rusqlite::Connection;

/// What is known of a request: of its last attempt, as its row. Moments are ns of CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Sent as x-request-id.
    pub xid: String,
    /// The thread that sent it.
    pub shard: i64,
    /// When it was to be sent (open loops).
    pub sched: Option<i64>,
    /// The status of the answer, if one came.
    pub status: Option<i64>,
    /// More about a failure, for people.
    pub message: Option<String>,
    /// The answer, if it was kept.
    pub text: Option<String>,
}

/// One moment on two clocks of one host.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    /// The host's name.
    pub host: String,
    /// ns of CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// ns since 1970.
    pub unix: i64,
}

impl Clock {
    /// ns since 1970 of a moment of CLOCK_MONOTONIC.
    pub fn unix(&self, moment: i64) -> i64 {
        moment.saturating_sub(self.monotonic).saturating_add(self.unix)
    }
}

/// One of each row of [`super::measured::rows`], in the same order.
pub fn requests(db: &Connection) -> rusqlite::Result<Vec<Recorded>> {
    let mut select = db.prepare(
        "SELECT xid, shard, sched_ns, status, message, text, max(attempt) FROM requests GROUP BY number ORDER BY number",
    )?;
    let found = select.query_map([], |row| {
        Ok(Recorded {
            xid: row.get(0)?,
            shard: row.get(1)?,
            sched: row.get(2)?,
            status: row.get(3)?,
            message: row.get(4)?,
            text: row.get(5)?,
        })
    })?;
    found.collect()
}

/// The clock before the load.
pub fn clock(db: &Connection) -> rusqlite::Result<Clock> {
    db.query_row("SELECT host, monotonic_ns, unix_ns FROM clock LIMIT 1", [], |row| {
        Ok(Clock { host: row.get(0)?, monotonic: row.get(1)?, unix: row.get(2)? })
    })
}
