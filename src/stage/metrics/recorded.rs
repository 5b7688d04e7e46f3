//! What a table of `llm.load` says of its requests beside their rows: names, answers, moments, and its clock. Unaware of metrics.

use rusqlite::{Connection, OptionalExtension};

use super::measured::{self, Origin};
use super::row::Row;
use crate::api::{InputFile, StageError};
use crate::stage::sqlite;

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
    /// The conversation that it is a turn of, and which, from 0.
    pub turn: Option<(String, i64)>,
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

/// What two clocks of one host may have drifted apart, ns: more, and the host was started again or its clock was set.
pub const DRIFT: i64 = 5_000_000_000;

/// The clocks of loads whose times are taken together.
#[derive(Debug, Default)]
pub struct Clocks(Vec<(String, Clock)>);

impl Clocks {
    /// Adds that of a load.
    ///
    /// # Errors
    /// Its times cannot be compared with those of an earlier one, or it is the same load again.
    pub fn add(&mut self, name: &str, clock: Clock) -> Result<(), StageError> {
        for (other, known) in &self.0 {
            let offset = |clock: &Clock| clock.unix.saturating_sub(clock.monotonic);
            let what = if *known == clock {
                "are one load".to_owned()
            } else if known.host != clock.host {
                format!("were measured on {} and {}: their times cannot be compared", known.host, clock.host)
            } else if offset(known).saturating_sub(offset(&clock)).saturating_abs() > DRIFT {
                format!(
                    "are of {} before and after it was started again or its clock was set: their times cannot be compared",
                    clock.host
                )
            } else {
                continue;
            };
            return Err(StageError::new(format!("{other} and {name} {what}")).hint(
                "loads of one machine are taken together; bench.merge brings those of several to one clock",
            ));
        }
        self.0.push((name.to_owned(), clock));
        Ok(())
    }
}

/// The clock of a file of requests, and why the client spoiled the load, if it did; `None` of a file that is no table of `llm.load`.
pub fn measured_by(file: &InputFile) -> Result<Option<(Clock, Option<String>)>, StageError> {
    if !sqlite::is_database(&file.path) {
        return Ok(None);
    }
    let failed = |e: rusqlite::Error| StageError::new(format!("{}: {e}", file.name));
    let db = sqlite::open_input(file)?;
    if !measured::is_measured(&db).map_err(failed)? {
        return Ok(None);
    }
    Ok(Some((clock(&db).map_err(failed)?, spoiled(&db).map_err(failed)?)))
}

/// A whole load, read once.
#[derive(Debug)]
pub struct Load {
    /// A row of each request, with times from the send.
    pub rows: Vec<Row>,
    /// What is known besides, one of each row.
    pub known: Vec<Recorded>,
    /// The clock before the load.
    pub clock: Clock,
    /// Why the client spoiled it, if it did.
    pub spoiled: Option<String>,
}

impl Load {
    /// Reads the output `requests` of `llm.load`.
    ///
    /// # Errors
    /// The file is none.
    pub fn read(file: &InputFile) -> Result<Self, StageError> {
        let failed = |e: rusqlite::Error| {
            StageError::new(format!("{}: {e}", file.name)).hint("expected the output 'requests' of llm.load")
        };
        let db = sqlite::open_input(file)?;
        let rows = measured::rows(&db, Origin::Send)
            .map_err(failed)?
            .map_err(|message| StageError::new(format!("{}: {message}", file.name)))?;
        let known = requests(&db).map_err(failed)?;
        let (clock, spoiled) = (clock(&db).map_err(failed)?, spoiled(&db).map_err(failed)?);
        Ok(Self { rows, known, clock, spoiled })
    }
}

/// One of each row of [`super::measured::rows`], in the same order.
fn requests(db: &Connection) -> rusqlite::Result<Vec<Recorded>> {
    let mut select = db.prepare(
        "SELECT xid, shard, sched_ns, status, message, text, cast(conversation AS TEXT), turn, max(attempt) FROM requests GROUP BY number ORDER BY number",
    )?;
    let found = select.query_map([], |row| {
        Ok(Recorded {
            xid: row.get(0)?,
            shard: row.get(1)?,
            sched: row.get(2)?,
            status: row.get(3)?,
            message: row.get(4)?,
            text: row.get(5)?,
            turn: row.get::<_, Option<String>>(6)?.zip(row.get(7)?),
        })
    })?;
    found.collect()
}

/// Why the client spoiled a load, if it did and the load was kept: whatever is made of it has to show this.
fn spoiled(db: &Connection) -> rusqlite::Result<Option<String>> {
    if !db.table_exists(None, "self_check")? {
        return Ok(None);
    }
    db.query_row("SELECT reasons FROM self_check WHERE client_bound LIMIT 1", [], |row| row.get(0)).optional()
}

/// The clock before the load.
fn clock(db: &Connection) -> rusqlite::Result<Clock> {
    db.query_row("SELECT host, monotonic_ns, unix_ns FROM clock LIMIT 1", [], |row| {
        Ok(Clock { host: row.get(0)?, monotonic: row.get(1)?, unix: row.get(2)? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_cannot_be_compared() {
        let clock = |host: &str, monotonic: i64, unix: i64| Clock { host: host.to_owned(), monotonic, unix };
        let mut clocks = Clocks::default();
        clocks.add("a", clock("x", 5, 1_000_000_000_000)).unwrap();
        // later on the same host, its clock a little corrected
        clocks.add("b", clock("x", 7_000_000_005, 1_007_100_000_000)).unwrap();
        let mut why =
            |host, monotonic, unix| clocks.add("c", clock(host, monotonic, unix)).unwrap_err().message;
        assert_eq!(
            why("y", 6, 1_000_000_000_001),
            "a and c were measured on x and y: their times cannot be compared"
        );
        assert_eq!(why("x", 5, 1_000_000_000_000), "a and c are one load");
        assert_eq!(
            why("x", 5, 1_090_000_000_000),
            "a and c are of x before and after it was started again or its clock was set: their times cannot be compared"
        );
    }
}
