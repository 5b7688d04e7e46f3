//! Rows of cells as CSV and JSON, written row by row. Unaware of what they say.

use std::fs::File;
use std::io::{BufWriter, Write};

use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::ser::PrettyFormatter;

use super::columns::Cell;
use crate::api::{StageContext, StageError};
use crate::stage::table::csv::{LineEnd, TableWriter};

/// A cell per column of the header; `None`: the row lacks it (an empty cell, no key).
pub(super) type Row = Vec<Option<Cell>>;

/// Where a table goes, and how.
pub(super) struct Sheet<'s> {
    /// The name of the output, if CSV is wanted.
    pub(super) csv: Option<&'s str>,
    /// The name of the output, if JSON is wanted.
    pub(super) json: Option<&'s str>,
    /// What stands for `null` in CSV.
    pub(super) null: &'s str,
}

impl Sheet<'_> {
    /// Writes what is wanted and declared.
    pub(super) fn write<S: AsRef<str>>(
        &self,
        ctx: &StageContext,
        header: &[S],
        rows: impl Iterator<Item = Row> + Clone,
    ) -> Result<(), StageError> {
        if let Some((name, file)) = open(ctx, self.csv)? {
            let mut writer = TableWriter::new(file, name, LineEnd::Crlf);
            writer.row(header.iter().map(S::as_ref))?;
            for row in rows.clone() {
                writer.row(row.iter().map(|cell| match cell {
                    None => String::new(),
                    Some(Cell::Null) => self.null.to_owned(),
                    Some(cell) => cell.text(),
                }))?;
            }
            close(name, writer.finish()?)?;
        }
        if let Some((name, mut file)) = open(ctx, self.json)? {
            let failed =
                |e: &dyn std::fmt::Display| StageError::new(format!("failed to write output '{name}': {e}"));
            let mut out = serde_json::Serializer::with_formatter(&mut file, PrettyFormatter::new());
            let mut list = out.serialize_seq(None).map_err(|e| failed(&e))?;
            for row in rows {
                list.serialize_element(&Object(header, &row)).map_err(|e| failed(&e))?;
            }
            SerializeSeq::end(list).map_err(|e| failed(&e))?;
            file.write_all(b"\n").map_err(|e| failed(&e))?;
            close(name, file)?;
        }
        Ok(())
    }
}

/// The file of an output that is wanted and declared.
pub(super) fn open<'n>(
    ctx: &StageContext,
    name: Option<&'n str>,
) -> Result<Option<(&'n str, BufWriter<File>)>, StageError> {
    let Some((name, path)) = name.and_then(|name| Some((name, ctx.outputs.get(name)?))) else {
        return Ok(None);
    };
    let file =
        File::create(path).map_err(|e| StageError::io("write output", std::path::Path::new(name), e))?;
    Ok(Some((name, BufWriter::with_capacity(1 << 16, file))))
}

/// What is left is written.
pub(super) fn close(name: &str, mut file: BufWriter<File>) -> Result<(), StageError> {
    file.flush().map_err(|e| StageError::io("write output", std::path::Path::new(name), e))
}

struct Object<'r, S>(&'r [S], &'r Row);

impl<S: AsRef<str>> serde::Serialize for Object<'_, S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, cell) in self.0.iter().zip(self.1) {
            if let Some(cell) = cell {
                map.serialize_entry(name.as_ref(), cell)?;
            }
        }
        map.end()
    }
}
