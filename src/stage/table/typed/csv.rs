//! CSV as a typed table. All cells are spelled: what they are is said by all cells of their column together.

use std::fs::File;
use std::io::BufWriter;

use super::source::Take;
use super::{Cell, Column, Sink, to_text};
use crate::api::{InputFile, StageError};
use crate::stage::table::csv::{LineEnd, TableReader, TableWriter};

pub(super) fn read(file: &InputFile, take: &mut Take) -> Result<Vec<String>, StageError> {
    let mut reader = TableReader::open(file)?;
    let columns = reader.columns().to_vec();
    while reader.next(&mut |line, record| {
        let mut cells =
            columns.iter().map(String::as_str).zip(record.cells().map(|text| Cell::Spelled(text.into())));
        take(&|| format!(":{line}"), &mut cells)
    })? {}
    Ok(columns)
}

/// Writes CSV.
pub(super) struct ToCsv(TableWriter<BufWriter<File>>);

impl ToCsv {
    pub(super) fn new(file: File, output: &str, columns: &[Column]) -> Result<Self, StageError> {
        let mut writer = TableWriter::new(BufWriter::new(file), output, LineEnd::default());
        writer.row(columns.iter().map(|column| &column.name))?;
        Ok(Self(writer))
    }
}

impl Sink for ToCsv {
    fn row(&mut self, cells: &[Cell]) -> Result<(), StageError> {
        self.0.row(cells.iter().map(to_text))
    }

    fn finish(self: Box<Self>) -> Result<(), StageError> {
        self.0.finish().map(drop)
    }
}
