//! Named cells of a run. Runs with the same columns share their names: a thousand runs with a hundred columns each are held at once. Unaware
//! of what the columns say.

use std::cell::RefCell;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use indexmap::IndexSet;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::stage::table::number;

/// A scalar of JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Cell {
    /// Also what JSON has no number for.
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Rare: what a cell takes is that of a number.
    Text(Box<Box<str>>),
}

impl Cell {
    pub(super) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// As text of a table; `null` is `nan`.
    pub(super) fn text(&self) -> String {
        number::cell(&self.json())
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(n) => (*n).into(),
            Self::Float(x) => (*x).into(),
            Self::Text(text) => (&***text).into(),
        }
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Float(value) } else { Self::Null }
    }
}

impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::Float(value as f64), Self::Int)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(Box::new(value.into()))
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Int(n) => serializer.serialize_i64(*n),
            Self::Float(x) => serializer.serialize_f64(*x),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Cell;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number, text, true, false or null")
            }
            fn visit_unit<E: Error>(self) -> Result<Cell, E> {
                Ok(Cell::Null)
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Cell, E> {
                Ok(value.into())
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Cell, E> {
                Ok(Cell::Int(value))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Cell, E> {
                Ok(value.into())
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Cell, E> {
                Ok(value.into())
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Cell, E> {
                Ok(value.into())
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

/// Cells by name, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Columns {
    names: Arc<IndexSet<String>>,
    cells: Vec<Cell>,
}

impl Columns {
    /// Adds a cell; one of that name is replaced.
    pub(super) fn insert(&mut self, name: &str, cell: impl Into<Cell>) {
        match self.names.get_index_of(name) {
            Some(place) => self.cells[place] = cell.into(),
            None => {
                Arc::make_mut(&mut self.names).insert(name.to_owned());
                self.cells.push(cell.into());
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Cell> {
        self.cells.get(self.names.get_index_of(name)?)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Cell)> {
        self.names().zip(&self.cells)
    }

    /// Where the cell of this name is.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.names.get_index_of(name)
    }

    /// The cell at a [`place`](Self::place).
    pub(super) fn at(&self, place: usize) -> &Cell {
        &self.cells[place]
    }

    /// Whether both share their names, as those do that were read one after the other.
    pub(super) fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
    }
}

impl Index<&str> for Columns {
    type Output = Cell;

    fn index(&self, name: &str) -> &Cell {
        self.get(name).unwrap_or(&Cell::Null)
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.cells.len()))?;
        for (name, cell) in self.iter() {
            map.serialize_entry(name, cell)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Cells;
        impl<'de> Visitor<'de> for Cells {
            type Value = Columns;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("columns with their cells")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut naming = Naming::default();
                let mut cells = Vec::new();
                while map.next_key_seed(&mut naming)?.is_some() {
                    if cells.is_empty() {
                        cells.reserve_exact(naming.like.as_ref().map_or(0, |names| names.len()));
                    }
                    cells.push(map.next_value()?);
                }
                cells.shrink_to_fit();
                Ok(Columns { names: naming.names(), cells })
            }
        }
        deserializer.deserialize_map(Cells)
    }
}

/// As many sets of names are remembered.
const LATELY: usize = 16;

thread_local! {
    /// The names of columns that were read on this thread, the last ones last: those that are read next mostly have the same.
    static KNOWN: RefCell<Vec<Arc<IndexSet<String>>>> = const { RefCell::new(Vec::new()) };
}

/// Names as they are read, one by one: those of earlier columns as long as they are the same.
#[derive(Default)]
struct Naming {
    /// Its first `count` names are those so far. Without it these are `own`.
    like: Option<Arc<IndexSet<String>>>,
    own: IndexSet<String>,
    count: usize,
}

impl Naming {
    /// Takes the next name; false if it stands there already.
    fn take(&mut self, name: &str) -> bool {
        let same = |names: &Arc<IndexSet<String>>| names.get_index(self.count).is_some_and(|n| n == name);
        if !self.like.as_ref().is_some_and(same) && (self.like.is_some() || self.count == 0) {
            let like = self.other(same);
            if like.is_none() {
                self.own = self.so_far().cloned().collect();
            }
            self.like = like;
        }
        self.count += 1;
        self.like.is_some() || self.own.insert(name.to_owned())
    }

    fn so_far(&self) -> impl Iterator<Item = &String> {
        self.like.iter().flat_map(|names| names.iter()).take(self.count)
    }

    /// Known names that begin as these do, and fit.
    fn other(&self, fit: impl Fn(&Arc<IndexSet<String>>) -> bool) -> Option<Arc<IndexSet<String>>> {
        let begins = |names: &Arc<IndexSet<String>>| names.iter().take(self.count).eq(self.so_far());
        KNOWN.with_borrow(|known| known.iter().rev().find(|names| fit(names) && begins(names)).cloned())
    }

    fn names(mut self) -> Arc<IndexSet<String>> {
        let whole = |names: &Arc<IndexSet<String>>| names.len() == self.count;
        if let Some(like) = &self.like {
            if whole(like) {
                return Arc::clone(like);
            }
            if let Some(other) = self.other(whole) {
                return other;
            }
            self.own = self.so_far().cloned().collect();
        }
        let names = Arc::new(self.own);
        KNOWN.with_borrow_mut(|known| {
            if known.len() == LATELY {
                known.remove(0);
            }
            known.push(Arc::clone(&names));
        });
        names
    }
}

impl<'de> DeserializeSeed<'de> for &mut Naming {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for &mut Naming {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the name of a column")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        if self.take(name) { Ok(()) } else { Err(E::custom("a column stands there twice")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_json_comes_back_and_names_are_shared() {
        let text = r#"{"b":1,"a":-2.5,"c":"x","d":null,"e":true,"f":2.0}"#;
        let one: Columns = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&one).unwrap(), text);
        assert_eq!(
            (one["a"].as_f64(), &one["g"], one["f"].text().as_str()),
            (Some(-2.5), &Cell::Null, "2.0")
        );
        let mut other: Columns = serde_json::from_str(text).unwrap();
        assert!(one.shares(&other));
        other.insert("g", 7u64);
        assert!(!one.shares(&other) && one.get("g").is_none());
        assert!(serde_json::from_str::<Columns>(r#"{"a":1,"a":2}"#).is_err());
    }

    #[test]
    fn names_that_begin_alike_are_told_apart() {
        let texts =
            ["a b c", "a b", "a b c d", "", "a b x", "a b c", "b a", "a b x y", "", "a b", "a b c d", "a"];
        let parsed: Vec<(Vec<&str>, Columns)> = texts
            .iter()
            .map(|text| {
                let names: Vec<&str> = text.split_terminator(' ').collect();
                let fields: Vec<String> =
                    names.iter().enumerate().map(|(n, name)| format!("\"{name}\":{n}")).collect();
                (names, serde_json::from_str(&format!("{{{}}}", fields.join(","))).unwrap())
            })
            .collect();
        for (names, columns) in &parsed {
            assert_eq!(&columns.names().collect::<Vec<_>>(), names);
            assert!(names.iter().enumerate().all(|(n, name)| columns[name] == Cell::Int(n as i64)));
            for (others, other) in &parsed {
                let alike = names == others && !names.is_empty();
                assert!(names.is_empty() || columns.shares(other) == alike, "{names:?} {others:?}");
            }
        }
        for twice in [r#"{"a":1,"b":2,"a":3}"#, r#"{"a":1,"b":2,"c":3,"b":4}"#] {
            assert!(serde_json::from_str::<Columns>(twice).is_err(), "{twice}");
        }
    }
}
