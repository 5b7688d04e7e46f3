//! Requests as `llm.load` wrote them: attempts of one request become one row. Unaware of metrics.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row as Columns};
use schemars::JsonSchema;
use serde::Deserialize;

use super::events::unpack;
use super::row::{Event, Row};
use crate::stage::sqlite;

/// From where times count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From the first byte of the first attempt; from when its connection was asked for, if it got none.
    #[default]
    Send,
    /// From the moment at which it was to be sent (open loops), so that what had to wait is not forgotten.
    Schedule,
}

/// Whether a database holds attempts of `llm.load`.
pub(super) fn is_measured(db: &Connection) -> rusqlite::Result<bool> {
    sqlite::has_column(db, "requests", "send0_ns")
}

/// The rows, in the order of their requests: the last attempt with the send of the first, or, where that had no connection, the moment when it
/// was asked for. `Err` in the result: what is wrong with which.
pub fn rows(db: &Connection, origin: Origin) -> rusqlite::Result<Result<Vec<Row>, String>> {
    let mut select = db.prepare(
        "SELECT number, id, attempt, sched_ns, send0_ns, end_ns, input_tokens, output_tokens, failure, events, connect0_ns
            FROM requests ORDER BY number, attempt",
    )?;
    let mut found = select.query([])?;
    let mut rows: Vec<Row> = Vec::new();
    let (mut last, mut begun, mut sent) = (None, None, false);
    while let Some(columns) = found.next()? {
        let number: i64 = columns.get(0)?;
        if last == Some(number) {
            rows.pop();
        } else {
            (begun, sent) = (None, false);
        }
        last = Some(number);
        // of an attempt that had no connection: when it was asked for
        let asked = |column: usize| columns.get::<_, Option<i64>>(column);
        let sched = asked(3)?.filter(|_| origin == Origin::Schedule);
        begun = begun.or(sched).or(asked(4)?).or(asked(10)?);
        sent |= sched.or(asked(4)?).is_some();
        // what never was sent has no beginning
        match row(columns, begun.filter(|_| sent).map(|ns: i64| ns as f64 / 1e9))? {
            Some(row) => rows.push(row),
            None => return Ok(Err(format!("request {number}: its events are damaged"))),
        }
    }
    Ok(Ok(rows))
}

/// `begun`: from where the times of the request count.
fn row(columns: &Columns<'_>, begun: Option<f64>) -> rusqlite::Result<Option<Row>> {
    let seconds = |ns: i64| ns as f64 / 1e9;
    let moment = |column: usize| columns.get::<_, Option<i64>>(column);
    let send: Option<i64> = moment(4)?;
    let bytes = columns.get_ref(9)?.as_blob()?;
    let Some(events) = unpack(send.unwrap_or(0) as u64, bytes) else { return Ok(None) };
    let failure: Option<String> = columns.get(8)?;
    let tokens =
        |column: usize| moment(column).map(|count| count.and_then(|count| u64::try_from(count).ok()));
    Ok(Some(Row {
        id: match columns.get_ref(1)? {
            ValueRef::Integer(id) => id.into(),
            other => other.as_str()?.into(),
        },
        send: begun,
        end: moment(5)?.map(seconds),
        events: events.into_iter().map(|(at, tokens, kind)| Event(at as f64 / 1e9, tokens, kind)).collect(),
        input_tokens: tokens(6)?,
        output_tokens: tokens(7)?,
        success: failure.is_none(),
        error: failure,
        pod: None,
        data_abbr: None,
        uuid: None,
        place: None,
    }))
}
