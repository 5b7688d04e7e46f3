//! The columns of a join's result, and where their cells come from. Unaware of which rows belong together.

use std::ops::Range;

use super::Params;
use crate::api::StageError;
use crate::stage::table::csv::{Alike, LineEnd, Record, Table, end_record, push_cell};

/// A row of the result is made of a left row, a right row, or both.
#[derive(Clone, Copy)]
pub(super) struct Both<'r, 't> {
    pub(super) left: Option<&'r Record<'t>>,
    pub(super) right: Option<&'r Record<'t>>,
}

/// Where a cell of the result comes from.
#[derive(Clone, Copy)]
enum Source {
    /// The left row if it has the column, else the right one.
    Shared(Option<usize>, Option<usize>),
    Left(usize),
    Right(usize),
}

/// Cells of the result that stand side by side where they come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Left(usize, usize),
    Right(usize, usize),
    Empty,
}

impl Source {
    /// The one cell, for a row with or without a left and a right side.
    fn run(self, left: bool, right: bool) -> Run {
        match self {
            Self::Shared(Some(l), _) | Self::Left(l) if left => Run::Left(l, l),
            Self::Shared(_, Some(r)) if right && !left => Run::Right(r, r),
            Self::Shared(None, Some(r)) | Self::Right(r) if right => Run::Right(r, r),
            _ => Run::Empty,
        }
    }
}

/// The columns of the result.
pub(super) struct Layout {
    pub(super) header: Vec<String>,
    cells: Vec<Source>,
    /// The places of the value columns in the result.
    pub(super) values: Range<usize>,
    /// Name and places of the columns that both sides have and that are neither key nor value.
    compared: Vec<(String, usize, usize)>,
    /// The same, to be compared all at once.
    alike: Alike,
    pub(super) left_only: Vec<String>,
    pub(super) right_only: Vec<String>,
    /// The cells of a row that has a left side (1), a right side (2), both (3).
    runs: [Vec<Run>; 4],
}

impl Layout {
    pub(super) fn new(params: &Params, left: &Table, right: &Table) -> Result<Self, StageError> {
        let left_values = left.require(&params.columns, "columns")?;
        let right_values = right.require(&params.columns, "columns")?;
        let mut layout = Self {
            header: Vec::new(),
            cells: Vec::new(),
            values: 0..0,
            compared: Vec::new(),
            alike: Alike::default(),
            left_only: Vec::new(),
            right_only: Vec::new(),
            runs: Default::default(),
        };
        for (l, column) in left.columns().iter().enumerate().filter(|(l, _)| !left_values.contains(l)) {
            let r = right.column(column);
            match r {
                None => layout.left_only.push(column.clone()),
                Some(r) if !params.on.contains(column) => layout.compared.push((column.clone(), l, r)),
                Some(_) => {}
            }
            layout.push(column.clone(), Source::Shared(Some(l), r));
        }
        let first = layout.header.len();
        for (column, l) in params.columns.iter().zip(left_values) {
            layout.push(format!("{}{column}", params.prefix.left), Source::Left(l));
        }
        for (column, r) in params.columns.iter().zip(right_values) {
            layout.push(format!("{}{column}", params.prefix.right), Source::Right(r));
        }
        layout.values = first..layout.header.len();
        for (r, column) in right.columns().iter().enumerate().filter(|(_, c)| left.column(c).is_none()) {
            layout.right_only.push(column.clone());
            layout.push(column.clone(), Source::Shared(None, Some(r)));
        }
        for (index, column) in layout.header.iter().enumerate() {
            if layout.header[..index].contains(column) {
                return Err(StageError::new(format!(
                    "the result would have two columns named '{column}' ({} joined with {})",
                    left.name(),
                    right.name()
                ))
                .hint("choose another 'prefix' for the value columns"));
            }
        }
        layout.alike = Alike::new(layout.compared.iter().map(|(_, l, r)| (*l, *r)));
        layout.runs = std::array::from_fn(|sides| runs(&layout.cells, sides & 1 > 0, sides & 2 > 0));
        Ok(layout)
    }

    fn push(&mut self, column: String, source: Source) {
        self.header.push(column);
        self.cells.push(source);
    }

    /// Appends a row of the result.
    pub(super) fn write(&self, rows: Both, line_end: LineEnd, out: &mut Vec<u8>) {
        let start = out.len();
        let sides = usize::from(rows.left.is_some()) + 2 * usize::from(rows.right.is_some());
        for (index, run) in self.runs[sides].iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let (row, first, last) = match *run {
                Run::Left(first, last) => (rows.left, first, last),
                Run::Right(first, last) => (rows.right, first, last),
                Run::Empty => continue,
            };
            let Some(row) = row else { continue };
            if let Some(plain) = row.plain(first, last) {
                out.extend_from_slice(plain.as_bytes());
                continue;
            }
            for column in first..=last {
                if column > first {
                    out.push(b',');
                }
                push_cell(out, row.cell(column).as_bytes());
            }
        }
        end_record(out, start, line_end);
    }

    /// Adds one to the number of each value column whose cell is not empty.
    pub(super) fn count_filled(&self, rows: Both, filled: &mut [u64]) {
        for (source, n) in self.cells[self.values.clone()].iter().zip(filled) {
            let cell = match *source {
                Source::Left(l) => rows.left.map(|row| row.cell(l)),
                Source::Right(r) => rows.right.map(|row| row.cell(r)),
                Source::Shared(..) => None,
            };
            *n += u64::from(cell.is_some_and(|cell| !cell.is_empty()));
        }
    }

    /// Whether two rows of one key say the same in all shared columns.
    pub(super) fn agree(&self, left: &Record, right: &Record) -> bool {
        self.alike.equal(left, right)
    }

    /// The shared columns in which two rows of one key differ.
    pub(super) fn conflicts<'l>(
        &'l self,
        left: &'l Record,
        right: &'l Record,
    ) -> impl Iterator<Item = &'l str> {
        self.compared
            .iter()
            .filter(|(_, l, r)| left.cell(*l) != right.cell(*r))
            .map(|(column, ..)| column.as_str())
    }
}

/// The cells of a row, neighbours in one run.
fn runs(cells: &[Source], left: bool, right: bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for cell in cells {
        let next = cell.run(left, right);
        match (runs.last_mut(), next) {
            (Some(Run::Left(_, last)), Run::Left(l, _)) if *last + 1 == l => *last = l,
            (Some(Run::Right(_, last)), Run::Right(r, _)) if *last + 1 == r => *last = r,
            _ => runs.push(next),
        }
    }
    runs
}
