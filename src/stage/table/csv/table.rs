//! A whole table in memory: its text, and where its records begin. Unaware of what columns mean.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::cut::cuts;
use super::record::{Record, begin};
use crate::api::{InputFile, StageError};
use crate::base::suggest;

/// Bytes that one thread reads at a time.
const PIECE: usize = 1 << 20;

/// A table in memory. All cells are text; every row has as many cells as the header.
///
/// It holds the text of the file and 8 bytes a row; cells are found again whenever a row is read.
#[derive(Debug)]
pub struct Table {
    name: String,
    columns: Vec<String>,
    text: String,
    starts: Vec<usize>,
    /// Columns, and the hashes of their cells by row.
    hashed: Option<(Vec<usize>, Vec<u64>)>,
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Row<'t> {
    table: &'t Table,
    start: usize,
}

impl<'t> Row<'t> {
    /// The line of the file on which the record begins, from 1 (the header's line counts). Counts the lines before it.
    pub fn line(&self) -> u64 {
        line(self.table.text.as_bytes(), self.start)
    }

    /// All cells in column order.
    pub fn read(&self) -> Record<'t> {
        let mut record = self.table.record();
        record.read(self.start);
        record
    }

    /// The same into a record of [`Table::record`], whose memory is used again.
    pub fn read_into(&self, record: &mut Record<'t>) {
        record.read(self.start);
    }

    /// The cell of column `index`.
    pub fn cell(&self, index: usize) -> Cow<'t, str> {
        let record = self.read();
        match record.plain(index, index) {
            Some(cell) => Cow::Borrowed(cell),
            None => Cow::Owned(record.cell(index).to_owned()),
        }
    }
}

/// What a piece of the text holds.
#[derive(Default)]
struct Piece {
    starts: Vec<usize>,
    hashes: Vec<u64>,
    /// The first record with another number of cells than the header, and that number.
    uneven: Option<(usize, usize)>,
    /// The last record is not closed.
    open: bool,
}

impl Table {
    /// Reads a whole file.
    pub fn read(file: &InputFile) -> Result<Self, StageError> {
        Self::parse(&file.name, file.read()?)
    }

    /// Like [`read`](Self::read), and hashes the cells of the columns `on` on the way, if they are all there.
    pub fn read_hashed(file: &InputFile, on: &[String]) -> Result<Self, StageError> {
        Self::parse_in_pieces(&file.name, file.read()?, PIECE, Some(on))
    }

    /// Reads a table from `bytes`; `name` stands in messages. A byte order mark and blank lines between records are passed over.
    ///
    /// Refused, with file and line: an empty file, bytes that are not UTF-8, a column name that stands twice, a record with
    /// another number of cells than the header, a quote that is never closed.
    pub fn parse(name: &str, bytes: impl Into<Vec<u8>>) -> Result<Self, StageError> {
        Self::parse_in_pieces(name, bytes.into(), PIECE, None)
    }

    /// Like [`parse`](Self::parse), in pieces of `size` bytes.
    pub(super) fn parse_in_pieces(
        name: &str,
        bytes: Vec<u8>,
        size: usize,
        on: Option<&[String]>,
    ) -> Result<Self, StageError> {
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            not_utf8(name, line(error.as_bytes(), at))
        })?;
        let from = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let Some(first) = begin(&text, from) else { return Err(empty(name)) };
        let mut record = Record::new(&text);
        let end = record.read(first);
        let columns: Vec<String> = record.cells().map(str::to_owned).collect();
        let place = |name: &String| columns.iter().position(|column| column == name);
        let hashed: Option<Vec<usize>> = on.and_then(|on| on.iter().map(place).collect());
        let places = cuts(&text, end.next, size);
        let pieces: Vec<Piece> = (0..places.len())
            .into_par_iter()
            .map(|i| {
                let to = places.get(i + 1).copied().unwrap_or(text.len());
                piece(&text, places[i]..to, columns.len(), hashed.as_deref())
            })
            .collect();
        if let Some((start, found)) = pieces.iter().find_map(|piece| piece.uneven) {
            return Err(uneven(name, line(text.as_bytes(), start), columns.len(), found));
        }
        let mut starts = Vec::with_capacity(pieces.iter().map(|piece| piece.starts.len()).sum());
        pieces.iter().for_each(|piece| starts.extend_from_slice(&piece.starts));
        let mut hashes = Vec::with_capacity(if hashed.is_some() { starts.len() } else { 0 });
        pieces.iter().for_each(|piece| hashes.extend_from_slice(&piece.hashes));
        if end.open || pieces.iter().any(|piece| piece.open) {
            let last = starts.last().copied().unwrap_or(first);
            return Err(never_closed(name, line(text.as_bytes(), last)));
        }
        header(name, line(text.as_bytes(), first), &columns)?;
        if u32::try_from(starts.len()).is_err() {
            return Err(StageError::new(format!("{name}: more than {} rows", u32::MAX)));
        }
        let hashed = hashed.map(|columns| (columns, hashes));
        Ok(Self { name: name.to_owned(), columns, text, starts, hashed })
    }

    /// The file's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The header.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// True if there is a header only.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// A record, in file order from 0.
    pub fn row(&self, number: usize) -> Row<'_> {
        Row { table: self, start: self.starts[number] }
    }

    /// The records, in file order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        self.starts.iter().map(|start| Row { table: self, start: *start })
    }

    /// The hashes of the cells of `columns` by row.
    pub fn hashes(&self, columns: &[usize]) -> Cow<'_, [u64]> {
        if let Some((hashed, hashes)) = &self.hashed
            && hashed == columns
        {
            return Cow::Borrowed(hashes);
        }
        let hashes = self.starts.par_iter().with_min_len(1 << 12).map_init(
            || Record::new(&self.text),
            |record, start| {
                record.read(*start);
                record.hash(columns)
            },
        );
        Cow::Owned(hashes.collect())
    }

    /// A record to read rows into.
    pub fn record(&self) -> Record<'_> {
        Record::new(&self.text)
    }

    /// Brings rows from anywhere in the table into the processor's cache: it waits for all of them at once, not for each.
    pub fn fetch(&self, rows: impl IntoIterator<Item = u32>) {
        let bytes = self.text.as_bytes();
        let touched = rows.into_iter().fold(0, |touched, row| {
            let start = self.starts[row as usize];
            touched ^ bytes[start] ^ bytes.get(start + 64).unwrap_or(&0)
        });
        std::hint::black_box(touched);
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }

    /// The same table; one without rows gets the columns that it lacks.
    #[must_use]
    pub fn completed_if_empty(mut self, columns: &[&String]) -> Self {
        if self.is_empty() {
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

/// The records that begin in `range`, each of `width` cells, and the hashes of the cells of `hashed`.
fn piece(text: &str, range: Range<usize>, width: usize, hashed: Option<&[usize]>) -> Piece {
    let mut piece = Piece::default();
    let mut record = Record::new(text);
    let mut at = range.start;
    while let Some(start) = begin(text, at).filter(|start| *start < range.end) {
        let end = record.read(start);
        if record.len() != width {
            piece.uneven = Some((start, record.len()));
            break;
        }
        piece.starts.push(start);
        if let Some(columns) = hashed {
            piece.hashes.push(record.hash(columns));
        }
        piece.open = end.open;
        at = end.next;
    }
    piece
}

/// The line of the byte at `at`, from 1.
fn line(bytes: &[u8], at: usize) -> u64 {
    1 + bytes[..at].iter().filter(|b| **b == b'\n').count() as u64
}

pub(super) fn empty(name: &str) -> StageError {
    StageError::new(format!("{name}: empty (expected at least a header line)"))
}

pub(super) fn not_utf8(name: &str, line: u64) -> StageError {
    StageError::new(format!("{name}:{line}: not UTF-8"))
        .hint("tables are UTF-8, with or without a byte order mark")
}

pub(super) fn uneven(name: &str, line: u64, expected: usize, found: usize) -> StageError {
    StageError::new(format!("{name}:{line}: expected {expected} cells as in the header, found {found}"))
        .hint("a cell that holds a comma, a quote or a line end must be quoted")
}

pub(super) fn never_closed(name: &str, line: u64) -> StageError {
    StageError::new(format!("{name}:{line}: a quote is opened in this record and never closed"))
        .hint("the file may be cut short; a quote inside a quoted cell is written twice")
}

/// Refuses a name that stands twice.
pub(super) fn header(name: &str, line: u64, columns: &[String]) -> Result<(), StageError> {
    match columns.iter().enumerate().find(|(index, column)| columns[..*index].contains(column)) {
        Some((_, column)) => {
            Err(StageError::new(format!("{name}:{line}: column '{column}' stands twice in the header")))
        }
        None => Ok(()),
    }
}
