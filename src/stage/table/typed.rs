//! Tables whose cells have types: what readers give and writers take. Unaware of formats.

mod csv;
mod json;
mod object;
#[cfg(feature = "parquet")]
mod parquet;
mod source;
mod sink;
mod sqlite;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::sink::{NotFinite, Sink, WriteFormat, create};
pub use self::source::{ReadFormat, Source};

/// The type of the cells of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// true or false
    Bool,
    /// Whole numbers of 64 bits with a sign.
    Int,
    /// Floating point numbers of 64 bits; NaN and the infinities are among them.
    Float,
    /// UTF-8 text.
    Text,
}

impl Kind {
    /// The name in workflows and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Text => "text",
        }
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'c> {
    /// Nothing is there.
    Null,
    /// true or false
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number; NaN and infinities too.
    Float(f64),
    /// Text that is text.
    Text(Cow<'c, str>),
    /// Text of a format without types (CSV): it may spell a number.
    Spelled(Cow<'c, str>),
}

/// A column and the type of its cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type of all its cells that are not null.
    pub kind: Kind,
}

/// Whole numbers up to this size are floats without loss: 2^53.
const EXACT: u64 = 1 << 53;

/// What the cells of a column have in common, cell by cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    bools: bool,
    ints: bool,
    /// Ints that a float would round.
    large: bool,
    floats: bool,
    texts: bool,
}

impl Seen {
    pub(crate) fn add(&mut self, cell: &Cell) {
        match cell {
            Cell::Null => {}
            Cell::Bool(_) => self.bools = true,
            Cell::Int(n) => {
                self.ints = true;
                self.large |= n.unsigned_abs() > EXACT;
            }
            Cell::Float(_) => self.floats = true,
            Cell::Text(_) => self.texts = true,
            Cell::Spelled(text) => match spelled(text) {
                Cell::Spelled(_) => self.texts = true,
                cell => self.add(&cell),
            },
        }
    }

    /// The narrowest type that holds all cells exactly; text if nothing was seen.
    pub(crate) fn kind(self) -> Kind {
        match (self.texts, self.bools, self.ints, self.floats) {
            (false, true, false, false) => Kind::Bool,
            (false, false, true, false) => Kind::Int,
            (false, false, ints, true) if !(ints && self.large) => Kind::Float,
            _ => Kind::Text,
        }
    }
}

/// A number as JSON writes it: a whole number of 64 bits, or the float nearest to a decimal number. `None` for other text, for what is
/// beyond these, and for what is so small that the nearest float is 0.
fn number(text: &str) -> Option<Cell<'static>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (digits, None),
    };
    let (whole, part) = match mantissa.split_once('.') {
        Some((whole, part)) => (whole, Some(part)),
        None => (mantissa, None),
    };
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let leading = whole.len() > 1 && whole.starts_with('0');
    if !all_digits(whole) || leading || ![part, exponent].into_iter().flatten().all(all_digits) {
        return None;
    }
    if part.is_none() && exponent.is_none() && text != "-0" {
        return text.parse().ok().map(Cell::Int);
    }
    let lost = |n: f64| n == 0.0 && mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'));
    text.parse().ok().filter(|n: &f64| n.is_finite() && !lost(*n)).map(Cell::Float)
}

/// The value that a text spells: `true`, `True`, `false`, `False`; a [`number`] as JSON writes it; `nan` and `inf` in the usual
/// spellings; nothing if it is empty. Other text, and `007` and `+1`, are what they are.
fn spelled(text: &str) -> Cell<'_> {
    if text.is_empty() {
        return Cell::Null;
    }
    if text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && let Some(number) = number(text)
    {
        return number;
    }
    match text {
        "true" | "True" => Cell::Bool(true),
        "false" | "False" => Cell::Bool(false),
        "nan" | "NaN" => Cell::Float(f64::NAN),
        "inf" | "Infinity" => Cell::Float(f64::INFINITY),
        "-inf" | "-Infinity" => Cell::Float(f64::NEG_INFINITY),
        other => Cell::Spelled(Cow::Borrowed(other)),
    }
}

/// A cell as a value of `kind`; `Err` if it is none. Every cell is text, and a whole number is a float if that is exact.
pub(crate) fn as_kind<'c>(cell: Cell<'c>, kind: Kind) -> Result<Cell<'c>, Cell<'c>> {
    match (kind, cell) {
        (_, Cell::Null) => Ok(Cell::Null),
        (Kind::Text, Cell::Spelled(text)) => Ok(Cell::Text(text)),
        (Kind::Text, Cell::Text(text)) => Ok(Cell::Text(text)),
        (Kind::Text, cell) => Ok(Cell::Text(Cow::Owned(to_text(&cell)))),
        (kind, Cell::Spelled(text)) => match spelled(&text) {
            Cell::Spelled(_) => Err(Cell::Spelled(text)),
            cell => match as_kind(cell, kind) {
                Ok(Cell::Null) => Ok(Cell::Null),
                Ok(Cell::Bool(b)) => Ok(Cell::Bool(b)),
                Ok(Cell::Int(n)) => Ok(Cell::Int(n)),
                Ok(Cell::Float(n)) => Ok(Cell::Float(n)),
                _ => Err(Cell::Spelled(text)),
            },
        },
        (Kind::Bool, Cell::Bool(b)) => Ok(Cell::Bool(b)),
        (Kind::Bool, Cell::Int(n @ 0..=1)) => Ok(Cell::Bool(n == 1)),
        (Kind::Int, Cell::Int(n)) => Ok(Cell::Int(n)),
        (Kind::Float, Cell::Float(n)) => Ok(Cell::Float(n)),
        (Kind::Float, Cell::Int(n)) if n.unsigned_abs() <= EXACT => Ok(Cell::Float(n as f64)),
        (_, cell) => Err(cell),
    }
}

/// A cell as text: null is empty, a float has a point or an exponent or is `nan`, `inf`, `-inf`, so that it is read as a float again.
pub(crate) fn to_text(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Bool(b) => b.to_string(),
        Cell::Int(n) => n.to_string(),
        Cell::Float(n) if n.is_nan() => "nan".to_owned(),
        Cell::Float(n) if n.is_infinite() => n.to_string(),
        Cell::Float(n) => super::number::python_float(*n),
        Cell::Text(text) | Cell::Spelled(text) => text.clone().into_owned(),
    }
}

/// Why this flow neither reads nor writes Parquet, if it does not.
#[cfg(not(feature = "parquet"))]
fn no_parquet() -> crate::api::StageError {
    crate::api::StageError::new("this flow was built without Parquet")
        .hint("build it with: cargo install --path . --features parquet")
        .hint("or choose another format: csv, json, jsonl, sqlite")
}

#[cfg(test)]
mod tests;
