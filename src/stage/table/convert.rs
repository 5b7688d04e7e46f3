//! `table.convert`: a table in another format, with types. Unaware of how formats are read and written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::typed::{self, Cell, Column, Kind, NotFinite, ReadFormat, Source, WriteFormat};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};

/// The stage.
pub struct Convert;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The format that is written. It is no matter of the output's name: paths of outputs are not part of a node's key.
    format: WriteFormat,
    /// The format that is read; without it the ending of the input's name says it: csv, json, jsonl (ndjson), sqlite (sqlite3, db), parquet.
    #[serde(default)]
    from: Option<ReadFormat>,
    /// Column -> bool, int, float or text: stands above what the cells say. A cell that is no such value is an error.
    #[serde(default)]
    types: BTreeMap<String, Kind>,
    /// What becomes of NaN and the infinities where the format has none.
    #[serde(default)]
    not_finite: NotFinite,
    /// The table of a database that is read; needed only if it has several.
    #[serde(default)]
    from_table: Option<String>,
    /// The name of the table in a database that is written.
    #[serde(default = "data")]
    table: String,
}

fn data() -> String {
    "data".into()
}

impl Stage for Convert {
    fn name(&self) -> &'static str {
        "table.convert"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Writes a table in another format: CSV, JSON, JSON Lines, SQLite, Parquet.\n\
                \n\
                The input is read twice, row by row: once for its columns and their types, once to be written. Memory does not depend on its\n\
                size. Columns stand in the order in which they first appear; what a row lacks is null.\n\
                \n\
                A column has the narrowest type that holds all its cells: bool, int (64 bits), float, else text. JSON and SQLite say what their\n\
                cells are. A CSV cell is what it spells: true, True, false, False; a whole number or a decimal number as JSON writes it; nan, NaN,\n\
                inf, Infinity with or without minus; nothing if it is empty (in a column of text: the empty text); else text, '007' and '+1' too.\n\
                A decimal number is the float of 64 bits nearest to it; one beyond all floats, or nearer to 0 than to any other, is text. Ints and\n\
                floats make a float column, unless a float would round an int (beyond 2^53): then, and for any other mixture, text. JSON lists and\n\
                objects are text as they stand; whole numbers beyond 64 bits as well. A column of nulls is text.\n\
                \n\
                CSV: null is an empty cell; floats in the shortest form that reads back the same, with a point or an exponent; nan, inf, -inf.\n\
                JSON is strict: NaN and the infinities become null, or the stage fails ('not_finite'). SQLite has no NaN: the same there, and\n\
                bools are 0 and 1. Parquet: optional columns BOOLEAN, INT64, DOUBLE, UTF-8.\n\
                \n\
                Of Parquet any width of integers and floats is read; dates, times, instants of milliseconds and microseconds (in UTC, as RFC 3339)\n\
                and decimals are text, so are lists, maps and structures (as JSON); instants of nanoseconds are their numbers. Bytes that are no\n\
                text are an error. Parquet is read and written only by a flow that was built with '--features parquet'.",
        )
        .input("table", "CSV with a header, JSON (a list of objects), JSON Lines (an object a line), an SQLite database or Parquet")
        .output("table", "the same rows in the same order, in the format that 'format' says")
        .optional_output("columns", "JSON: [{\"name\", \"type\"}] in order")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        if params.table.is_empty() || params.table.to_ascii_lowercase().starts_with("sqlite_") {
            return Err(ParamFault {
                path: "table".into(),
                message: "expected a name that is not empty and does not begin with 'sqlite_'".into(),
            });
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let input = ctx.input("table")?.clone();
        let from = params.from.map_or_else(|| ReadFormat::of(&input), Ok)?;
        let source = Source::survey(&input, from, params.from_table.as_deref(), &params.types)?;
        let columns = source.columns();
        let output = ctx.output("table")?;
        let mut sink = typed::create(params.format, output, "table", &params.table, &columns)?;
        let (mut nulls, mut row) = (0_u64, 0_u64);
        source.each(&mut |cells| {
            row += 1;
            let lost = |cell: &Cell| matches!(cell, Cell::Float(n) if !params.format.holds(*n));
            let Some(at) = cells.iter().position(lost) else { return sink.row(cells) };
            if params.not_finite == NotFinite::Fail {
                return Err(not_finite(&input.name, row, &columns[at], &cells[at]));
            }
            nulls += cells.iter().filter(|cell| lost(cell)).count() as u64;
            let mut held = cells.to_vec();
            held.iter_mut().filter(|cell| lost(cell)).for_each(|cell| *cell = Cell::Null);
            sink.row(&held)
        })?;
        sink.finish()?;
        let described: Vec<Value> = columns
            .iter()
            .map(|column| serde_json::json!({"name": column.name, "type": column.kind.as_str()}))
            .collect();
        ctx.write_json("columns", &described)?;
        ctx.log(format!(
            "{} rows of {} columns; {nulls} numbers that are not finite became null",
            source.rows(),
            columns.len()
        ));
        Ok(Done::Made)
    }
}

fn not_finite(input: &str, row: u64, column: &Column, cell: &Cell) -> StageError {
    StageError::new(format!(
        "{input}: row {row}, column '{}': {} has no place in this format ('not_finite' is fail)",
        column.name,
        typed::to_text(cell)
    ))
    .hint("with 'not_finite': 'null' it becomes null")
}

#[cfg(test)]
mod tests;
