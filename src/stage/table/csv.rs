//! The one CSV dialect of the stages: comma, quotes only where needed, UTF-8, header line first. Unaware of what columns mean.

use std::io::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{InputFile, StageError};
use crate::base::suggest;

/// How lines of a written table end. Both are read, mixed too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LineEnd {
    /// `\r\n`, as RFC 4180 says and Python's `csv` module writes.
    #[default]
    Crlf,
    /// `\n`
    Lf,
}

/// A table in memory. All cells are text; every row has as many cells as the header.
#[derive(Debug)]
pub struct Table {
    name: String,
    columns: Vec<String>,
    rows: Vec<Row>,
}

/// One record.
#[derive(Debug)]
pub struct Row {
    line: u64,
    cells: ::csv::StringRecord,
}

impl Row {
    /// The line of the file on which the record begins, from 1 (the header's line counts).
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The cell of column `index`.
    pub fn cell(&self, index: usize) -> &str {
        &self.cells[index]
    }

    /// All cells in column order.
    pub fn cells(&self) -> impl Iterator<Item = &str> {
        self.cells.iter()
    }
}

impl Table {
    /// Reads a whole file.
    pub fn read(file: &InputFile) -> Result<Self, StageError> {
        Self::parse(&file.name, &file.read()?)
    }

    /// Reads a table from `bytes`; `name` stands in messages. A byte order mark and blank lines between records are passed over.
    ///
    /// Refused, with file and line: an empty file, bytes that are not UTF-8, a column name that stands twice, a record with
    /// another number of cells than the header, a quote that is never closed.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, StageError> {
        if let Err(error) = std::str::from_utf8(bytes) {
            let line = 1 + newlines(&bytes[..error.valid_up_to()]);
            return Err(StageError::new(format!("{name}:{line}: not UTF-8"))
                .hint("tables are UTF-8, with or without a byte order mark"));
        }
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
        let mut lines = Lines { bytes, offset: 0, line: 1 };
        let mut records = Vec::new();
        let mut last_start = 0;
        loop {
            let mut cells = ::csv::StringRecord::new();
            match reader.read_record(&mut cells) {
                Ok(false) => break,
                Ok(true) => {}
                Err(error) => return Err(read_error(name, &error, &mut lines)),
            }
            let start = cells.position().map_or(0, |p| p.byte() as usize);
            records.push(Row { line: lines.at(start), cells });
            last_start = lines.offset;
        }
        if let Some(last) = records.last()
            && bytes[last_start..].iter().filter(|b| **b == b'"').count() % 2 == 1
        {
            return Err(StageError::new(format!(
                "{name}:{}: a quote is opened in this record and never closed",
                last.line
            ))
            .hint("the file may be cut short; a quote inside a quoted cell is written twice"));
        }
        let mut records = records.into_iter();
        let Some(header) = records.next() else {
            return Err(StageError::new(format!("{name}: empty (expected at least a header line)")));
        };
        let columns: Vec<String> = header.cells().map(str::to_owned).collect();
        for (index, column) in columns.iter().enumerate() {
            if columns[..index].contains(column) {
                return Err(StageError::new(format!(
                    "{name}:{}: column '{column}' stands twice in the header",
                    header.line
                )));
            }
        }
        Ok(Self { name: name.to_owned(), columns, rows: records.collect() })
    }

    /// The file's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The header.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The records, in file order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }

    /// The same table; one without rows gets the columns that it lacks.
    #[must_use]
    pub fn completed_if_empty(mut self, columns: &[&String]) -> Self {
        if self.rows.is_empty() {
            for column in columns {
                if !self.columns.contains(*column) {
                    self.columns.push((*column).clone());
                }
            }
        }
        self
    }

    /// The places of columns that must be there; `param` is the parameter that asks for them.
    pub fn require(&self, columns: &[String], param: &str) -> Result<Vec<usize>, StageError> {
        columns
            .iter()
            .map(|column| {
                self.column(column).ok_or_else(|| {
                    let message = format!(
                        "{}: no column '{column}' (parameter '{param}'); its header is: {}",
                        self.name,
                        self.columns.join(",")
                    );
                    let near = suggest::nearest(column, self.columns.iter().map(String::as_str));
                    match near {
                        Some(near) => StageError::new(message).hint(format!("did you mean '{near}'?")),
                        None => StageError::new(message),
                    }
                })
            })
            .collect()
    }
}

/// Counts lines up to offsets that only grow.
struct Lines<'b> {
    bytes: &'b [u8],
    offset: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the first byte at or after `start` that ends no line.
    fn at(&mut self, start: usize) -> u64 {
        let blank = self.bytes[start..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let start = (start + blank).max(self.offset);
        self.line += newlines(&self.bytes[self.offset..start]);
        self.offset = start;
        self.line
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

fn read_error(name: &str, error: &::csv::Error, lines: &mut Lines) -> StageError {
    match error.kind() {
        ::csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = lines.at(pos.as_ref().map_or(0, |p| p.byte() as usize));
            StageError::new(format!(
                "{name}:{line}: expected {expected_len} cells as in the header, found {len}"
            ))
            .hint("a cell that holds a comma, a quote or a line end must be quoted")
        }
        _ => StageError::new(format!("{name}: {error}")),
    }
}

/// Writes a table record by record.
pub struct TableWriter<W: Write> {
    inner: ::csv::Writer<W>,
    output: String,
}

impl<W: Write> TableWriter<W> {
    /// A writer to `inner`; `output` is the output's name in messages. The header is the first [`row`](Self::row).
    pub fn new(inner: W, output: &str, line_end: LineEnd) -> Self {
        let terminator = match line_end {
            LineEnd::Crlf => ::csv::Terminator::CRLF,
            LineEnd::Lf => ::csv::Terminator::Any(b'\n'),
        };
        let inner = ::csv::WriterBuilder::new()
            .quote_style(::csv::QuoteStyle::Necessary)
            .terminator(terminator)
            .from_writer(inner);
        Self { inner, output: output.to_owned() }
    }

    /// Writes one record.
    pub fn row<T: AsRef<[u8]>>(&mut self, cells: impl IntoIterator<Item = T>) -> Result<(), StageError> {
        self.inner.write_record(cells).map_err(|e| failed(&self.output, &e))
    }

    /// Ends the table and gives back what was written to.
    pub fn finish(self) -> Result<W, StageError> {
        let Self { inner, output } = self;
        inner.into_inner().map_err(|e| failed(&output, e.error()))
    }
}

fn failed(output: &str, cause: &dyn std::fmt::Display) -> StageError {
    StageError::new(format!("failed to write output '{output}': {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn refused(bytes: &[u8], expected: Expect) {
        let error = Table::parse("t.csv", bytes).unwrap_err();
        expected.assert_eq(&[vec![error.message], error.hints].concat().join("\n"));
    }

    fn lines(bytes: &[u8]) -> Vec<u64> {
        Table::parse("t.csv", bytes).unwrap().rows().iter().map(Row::line).collect()
    }

    #[test]
    fn lines_are_those_an_editor_shows() {
        assert_eq!(lines(b"a,b\n1,2\n3,4\n"), [2, 3]);
        assert_eq!(lines(b"a,b\r\n1,2\r\n3,4"), [2, 3]);
        assert_eq!(lines(b"\xef\xbb\xbfa,b\r\n\r\n1,\"x\r\ny\"\r\n\r\n3,4\r\n"), [3, 6]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_name() {
        let table = Table::parse("t.csv", b"\xef\xbb\xbf\"a\",b\n1,2\n").unwrap();
        assert_eq!(table.columns(), ["a", "b"]);
        assert_eq!(table.column("b"), Some(1));
    }

    #[test]
    fn what_is_no_table_is_refused_with_its_place() {
        refused(b"", expect!["t.csv: empty (expected at least a header line)"]);
        refused(b"\xef\xbb\xbf\r\n", expect!["t.csv: empty (expected at least a header line)"]);
        refused(
            b"a,b\r\n1,2\r\n3\r\n",
            expect![[r#"
                t.csv:3: expected 2 cells as in the header, found 1
                a cell that holds a comma, a quote or a line end must be quoted"#]],
        );
        refused(
            b"a,b\n1,\"x\n2,3\n",
            expect![[r#"
                t.csv:2: a quote is opened in this record and never closed
                the file may be cut short; a quote inside a quoted cell is written twice"#]],
        );
        refused(
            b"a,b\n1,\xff\n",
            expect![[r#"
                t.csv:2: not UTF-8
                tables are UTF-8, with or without a byte order mark"#]],
        );
        refused(b"a,b,a\n", expect!["t.csv:1: column 'a' stands twice in the header"]);
    }

    #[test]
    fn a_missing_column_is_named_with_the_header_and_the_nearest_name() {
        let table = Table::parse("t.csv", b"model,conc\n").unwrap();
        let error = table.require(&["model".into(), "cnoc".into()], "on").unwrap_err();
        expect!["t.csv: no column 'cnoc' (parameter 'on'); its header is: model,conc"]
            .assert_eq(&error.message);
        assert_eq!(error.hints, ["did you mean 'conc'?"]);
    }

    #[test]
    fn quotes_stand_only_where_needed() {
        let rows = [["a", "b"], ["x,y", "say \"hi\""], [" 1", "line\nend"], ["", "#"]];
        let mut writer = TableWriter::new(Vec::new(), "csv", LineEnd::Crlf);
        for row in rows {
            writer.row(row).unwrap();
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            "a,b\r\n\"x,y\",\"say \"\"hi\"\"\"\r\n 1,\"line\nend\"\r\n,#\r\n"
        );
        let back = Table::parse("t.csv", &bytes).unwrap();
        assert_eq!(back.rows().iter().map(Row::line).collect::<Vec<_>>(), [2, 3, 5]);
        assert_eq!(back.rows()[1].cells().collect::<Vec<_>>(), rows[2]);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(
            rows in proptest::collection::vec(proptest::collection::vec("[ab,\"\r\n |é]{0,4}", 3), 0..6),
            crlf in proptest::bool::ANY,
        ) {
            let mut writer = TableWriter::new(Vec::new(), "csv", if crlf { LineEnd::Crlf } else { LineEnd::Lf });
            writer.row(["x", "y", "z"]).unwrap();
            for row in &rows {
                writer.row(row).unwrap();
            }
            let bytes = writer.finish().unwrap();
            let table = Table::parse("t.csv", &bytes).unwrap();
            let back: Vec<Vec<&str>> = table.rows().iter().map(|row| row.cells().collect()).collect();
            proptest::prop_assert_eq!(&back, &rows);
            for (row, cells) in table.rows().iter().zip(&rows) {
                let before = bytes.split(|b| *b == b'\n').take(row.line() as usize - 1).map(|l| l.len() + 1).sum::<usize>();
                let mut one = TableWriter::new(Vec::new(), "csv", LineEnd::Lf);
                one.row(cells).unwrap();
                let text = one.finish().unwrap();
                proptest::prop_assert!(bytes[before..].starts_with(&text[..text.len() - 1]), "line {}", row.line());
            }
        }
    }
}
