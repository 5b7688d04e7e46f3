//! Rows of cells as CSV and JSON, written row by row. Unaware of what they say.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{BufWriter, Write};

use super::columns::Cell;
use crate::api::{StageContext, StageError};
use crate::stage::table::csv::{LineEnd, end_record, push_cell};

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
    /// Writes what is wanted and declared. Rows are as [`Row`], or borrow their cells.
    pub(super) fn write<S, R, C>(
        &self,
        ctx: &StageContext,
        header: &[S],
        rows: impl Iterator<Item = R>,
    ) -> Result<(), StageError>
    where
        S: AsRef<str>,
        R: IntoIterator<Item = Option<C>>,
        C: Borrow<Cell>,
    {
        let (mut csv, mut json) = (open(ctx, self.csv)?, open(ctx, self.json)?);
        if csv.is_none() && json.is_none() {
            return Ok(());
        }
        let mut text = Text::new(header, self.null)?;
        put(&mut csv, &text.csv)?;
        for row in rows {
            text.row(row)?;
            put(&mut csv, &text.csv)?;
            put(&mut json, &text.json)?;
        }
        put(&mut json, text.end())?;
        [csv, json].into_iter().flatten().try_for_each(|(name, file)| close(name, file))
    }
}

fn put(output: &mut Option<(&str, BufWriter<File>)>, bytes: &[u8]) -> Result<(), StageError> {
    let Some((name, file)) = output else { return Ok(()) };
    file.write_all(bytes).map_err(|e| StageError::io("write output", std::path::Path::new(name), e))
}

/// One record after another as text in both formats: a number is put into text once.
struct Text<'n> {
    null: &'n str,
    /// Before the value of each column.
    keys: Vec<Vec<u8>>,
    first: bool,
    number: Vec<u8>,
    csv: Vec<u8>,
    json: Vec<u8>,
}

impl<'n> Text<'n> {
    /// With the header as CSV.
    fn new<S: AsRef<str>>(header: &[S], null: &'n str) -> Result<Self, StageError> {
        let mut keys = Vec::with_capacity(header.len());
        let mut csv = Vec::new();
        for (place, name) in header.iter().enumerate() {
            if place > 0 {
                csv.push(b',');
            }
            push_cell(&mut csv, name.as_ref().as_bytes());
            let mut key = b"\n    ".to_vec();
            push_json(&mut key, name.as_ref())?;
            key.extend_from_slice(b": ");
            keys.push(key);
        }
        end_record(&mut csv, 0, LineEnd::Crlf);
        Ok(Self { null, keys, first: true, number: Vec::new(), csv, json: Vec::new() })
    }

    fn row<C: Borrow<Cell>>(&mut self, row: impl IntoIterator<Item = Option<C>>) -> Result<(), StageError> {
        let Self { null, keys, first, number, csv, json } = self;
        csv.clear();
        json.clear();
        json.extend_from_slice(if std::mem::take(first) { b"[\n  {" } else { b",\n  {" });
        let mut keyed = false;
        for (place, (key, cell)) in keys.iter().zip(row).enumerate() {
            if place > 0 {
                csv.push(b',');
            }
            let Some(cell) = cell else { continue };
            if std::mem::replace(&mut keyed, true) {
                json.push(b',');
            }
            json.extend_from_slice(key);
            match cell.borrow() {
                Cell::Null => {
                    push_cell(csv, null.as_bytes());
                    json.extend_from_slice(b"null");
                }
                Cell::Text(text) => {
                    push_cell(csv, text.as_bytes());
                    push_json(json, &***text)?;
                }
                plain => {
                    number.clear();
                    push_json(number, plain)?;
                    csv.extend_from_slice(number);
                    json.extend_from_slice(number);
                }
            }
        }
        end_record(csv, 0, LineEnd::Crlf);
        json.extend_from_slice(if keyed { b"\n  }" } else { b"}" });
        Ok(())
    }

    /// What ends the list.
    fn end(&self) -> &'static [u8] {
        if self.first { b"[]\n" } else { b"\n]\n" }
    }
}

fn push_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), StageError> {
    serde_json::to_writer(out, value).map_err(|e| StageError::new(format!("a cell has no JSON: {e}")))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::table::csv::TableWriter;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn cell() -> impl Strategy<Value = Option<Cell>> {
        prop_oneof![
            Just(None),
            Just(Some(Cell::Null)),
            any::<bool>().prop_map(|flag| Some(flag.into())),
            any::<i64>().prop_map(|n| Some(Cell::Int(n))),
            any::<f64>().prop_map(|x| Some(x.into())),
            "[a\",\r\n\\\\é]{0,4}".prop_map(|text| Some(text.as_str().into())),
        ]
    }

    proptest! {
        /// As serde_json and the writer of tables have it.
        #[test]
        fn as_the_writers_of_whole_values(rows in prop::collection::vec(prop::collection::vec(cell(), 3), 0..4)) {
            let header = ["a", "b,\"", "c"];
            let mut text = Text::new(&header, "nan").unwrap();
            let (mut csv, mut json) = (text.csv.clone(), Vec::new());
            for row in &rows {
                text.row(row.iter().map(Option::as_ref)).unwrap();
                csv.extend_from_slice(&text.csv);
                json.extend_from_slice(&text.json);
            }
            json.extend_from_slice(text.end());

            let mut writer = TableWriter::new(Vec::new(), "csv", LineEnd::Crlf);
            writer.row(header).unwrap();
            for row in &rows {
                writer.row(row.iter().map(|cell| cell.as_ref().map_or_else(String::new, Cell::text))).unwrap();
            }
            prop_assert_eq!(String::from_utf8(csv), String::from_utf8(writer.finish().unwrap()));
            let object = |row: &Row| -> Map<String, Value> {
                let cells = header.iter().zip(row);
                cells.filter_map(|(name, cell)| Some(((*name).to_owned(), cell.as_ref()?.json()))).collect()
            };
            let whole: Vec<_> = rows.iter().map(object).collect();
            let whole = serde_json::to_string_pretty(&whole).unwrap() + "\n";
            prop_assert_eq!(String::from_utf8(json), Ok(whole));
        }
    }
}
