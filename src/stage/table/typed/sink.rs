//! A file of any format to which rows are written. Unaware of where they come from.

use std::fs::File;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::csv::ToCsv;
use super::json::ToJson;
use super::sqlite::ToSqlite;
use super::{Cell, Column};
use crate::api::StageError;

/// A format that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WriteFormat {
    /// The CSV of all stages: comma, CRLF, quotes only where needed, header line first. Null is an empty cell.
    Csv,
    /// A list of objects, one a line.
    Json,
    /// One object a line.
    Jsonl,
    /// An SQLite database with one table.
    Sqlite,
    /// Apache Parquet; only in a flow that was built with the feature `parquet`.
    Parquet,
}

/// What becomes of NaN and the infinities where the format has none: JSON has neither, SQLite has no NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotFinite {
    /// They are null; the log says how many.
    #[default]
    Null,
    /// The stage fails.
    Fail,
}

impl WriteFormat {
    /// Whether the format has this number.
    pub fn holds(self, number: f64) -> bool {
        match self {
            Self::Csv | Self::Parquet => true,
            Self::Json | Self::Jsonl => number.is_finite(),
            Self::Sqlite => !number.is_nan(),
        }
    }
}

/// Takes the rows of a table: cells in column order, each of its column's type or null, numbers that the format holds.
pub trait Sink {
    /// Writes a row.
    fn row(&mut self, cells: &[Cell]) -> Result<(), StageError>;

    /// Ends the file.
    fn finish(self: Box<Self>) -> Result<(), StageError>;
}

/// Begins a file at `path`; `output` is the output's name in messages, `table` that of a database's table.
pub fn create(
    format: WriteFormat,
    path: &Path,
    output: &str,
    table: &str,
    columns: &[Column],
) -> Result<Box<dyn Sink>, StageError> {
    let file = || File::create(path).map_err(|e| StageError::io("write output", Path::new(output), e));
    Ok(match format {
        WriteFormat::Csv => Box::new(ToCsv::new(file()?, output, columns)?),
        WriteFormat::Json => Box::new(ToJson::new(file()?, output, columns, true)),
        WriteFormat::Jsonl => Box::new(ToJson::new(file()?, output, columns, false)),
        WriteFormat::Sqlite => Box::new(ToSqlite::new(path, output, table, columns)?),
        #[cfg(feature = "parquet")]
        WriteFormat::Parquet => Box::new(super::parquet::ToParquet::new(file()?, output, columns)?),
        #[cfg(not(feature = "parquet"))]
        WriteFormat::Parquet => return Err(super::no_parquet()),
    })
}
