//! The columns of a join's result, and where their cells come from. Unaware of which rows belong together.

use super::Params;
use crate::api::StageError;
use crate::stage::table::csv::{Row, Table};

/// Where a cell of the result comes from.
enum Source {
    /// The left row if it has the column, else the right one.
    Shared(Option<usize>, Option<usize>),
    Left(usize),
    Right(usize),
}

impl Source {
    fn cell<'t>(&self, left: Option<&'t Row>, right: Option<&'t Row>) -> &'t str {
        let at = |row: Option<&'t Row>, column: Option<usize>| Some(row?.cell(column?));
        match self {
            Self::Shared(l, r) => at(left, *l).or_else(|| at(right, *r)),
            Self::Left(l) => at(left, Some(*l)),
            Self::Right(r) => at(right, Some(*r)),
        }
        .unwrap_or("")
    }
}

/// The columns of the result.
pub(super) struct Layout {
    pub(super) header: Vec<String>,
    cells: Vec<Source>,
    /// The places of the value columns in the result.
    pub(super) values: std::ops::Range<usize>,
    /// Name and places of the columns that both sides have and that are neither key nor value.
    compared: Vec<(String, usize, usize)>,
    pub(super) left_only: Vec<String>,
    pub(super) right_only: Vec<String>,
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
            left_only: Vec::new(),
            right_only: Vec::new(),
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
        Ok(layout)
    }

    fn push(&mut self, column: String, source: Source) {
        self.header.push(column);
        self.cells.push(source);
    }

    /// A row of the result, from a left row, a right row, or both.
    pub(super) fn row<'t>(&self, left: Option<&'t Row>, right: Option<&'t Row>) -> Vec<&'t str> {
        self.cells.iter().map(|source| source.cell(left, right)).collect()
    }

    /// The shared columns in which two rows of one key differ.
    pub(super) fn conflicts(&self, left: &Row, right: &Row) -> Vec<String> {
        self.compared
            .iter()
            .filter(|(_, l, r)| left.cell(*l) != right.cell(*r))
            .map(|(column, ..)| column.clone())
            .collect()
    }
}
