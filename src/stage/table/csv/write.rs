//! Records as text: quotes only where needed. Unaware of where cells come from.

use std::io::Write;

use super::LineEnd;
use crate::api::StageError;

/// Bytes gathered before they are handed on.
const BUFFER: usize = 1 << 16;

/// Appends a cell, in quotes if it holds a comma, a quote or a line end.
pub fn push_cell(out: &mut Vec<u8>, cell: &[u8]) {
    if !cell.iter().any(|b| matches!(b, b',' | b'"' | b'\r' | b'\n')) {
        out.extend_from_slice(cell);
        return;
    }
    out.push(b'"');
    for part in cell.split_inclusive(|b| *b == b'"') {
        out.extend_from_slice(part);
        if part.ends_with(b"\"") {
            out.push(b'"');
        }
    }
    out.push(b'"');
}

/// Ends the record that began at `start` of `out`: one empty cell alone is written as `""`, to differ from a blank line.
pub fn end_record(out: &mut Vec<u8>, start: usize, line_end: LineEnd) {
    if out.len() == start {
        out.extend_from_slice(b"\"\"");
    }
    out.extend_from_slice(match line_end {
        LineEnd::Crlf => b"\r\n",
        LineEnd::Lf => b"\n",
    });
}

/// Writes a table record by record.
pub struct TableWriter<W: Write> {
    inner: W,
    buffer: Vec<u8>,
    line_end: LineEnd,
    output: String,
}

impl<W: Write> TableWriter<W> {
    /// A writer to `inner`; `output` is the output's name in messages. The header is the first [`row`](Self::row).
    pub fn new(inner: W, output: &str, line_end: LineEnd) -> Self {
        Self { inner, buffer: Vec::new(), line_end, output: output.to_owned() }
    }

    /// Writes one record.
    pub fn row<T: AsRef<[u8]>>(&mut self, cells: impl IntoIterator<Item = T>) -> Result<(), StageError> {
        let start = self.buffer.len();
        for (index, cell) in cells.into_iter().enumerate() {
            if index > 0 {
                self.buffer.push(b',');
            }
            push_cell(&mut self.buffer, cell.as_ref());
        }
        end_record(&mut self.buffer, start, self.line_end);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Ends the table and gives back what was written to.
    pub fn finish(mut self) -> Result<W, StageError> {
        self.flush()?;
        Ok(self.inner)
    }

    fn flush(&mut self) -> Result<(), StageError> {
        self.inner
            .write_all(&self.buffer)
            .and_then(|()| self.inner.flush())
            .map_err(|e| StageError::new(format!("failed to write output '{}': {e}", self.output)))?;
        self.buffer.clear();
        Ok(())
    }
}
