//! Named cells of a run. Runs with the same columns share their names: a thousand runs with a hundred columns each are held at once. Unaware
//! of what the columns say.

use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use indexmap::IndexSet;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
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
    Text(Box<str>),
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
            Self::Text(text) => (&**text).into(),
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
        Self::Text(value.into())
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

    /// Takes equal names from `known`, which takes them otherwise.
    pub(super) fn share(&mut self, known: &mut Vec<Arc<IndexSet<String>>>) {
        match known.iter().find(|names| names.iter().eq(self.names.iter())) {
            Some(names) => self.names = Arc::clone(names),
            None => known.push(Arc::clone(&self.names)),
        }
        self.cells.shrink_to_fit();
    }

    /// Whether both have the same names, which is known at once if they share them.
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
                let (mut names, mut cells) = (IndexSet::new(), Vec::new());
                while let Some((name, cell)) = map.next_entry::<String, Cell>()? {
                    if !names.insert(name) {
                        return Err(A::Error::custom("a column stands there twice"));
                    }
                    cells.push(cell);
                }
                Ok(Columns { names: Arc::new(names), cells })
            }
        }
        deserializer.deserialize_map(Cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_json_comes_back_and_names_are_shared() {
        let text = r#"{"b":1,"a":-2.5,"c":"x","d":null,"e":true,"f":2.0}"#;
        let mut one: Columns = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&one).unwrap(), text);
        assert_eq!(
            (one["a"].as_f64(), &one["g"], one["f"].text().as_str()),
            (Some(-2.5), &Cell::Null, "2.0")
        );
        let mut other: Columns = serde_json::from_str(text).unwrap();
        let mut known = Vec::new();
        one.share(&mut known);
        other.share(&mut known);
        assert!(known.len() == 1 && one.shares(&other));
        other.insert("g", 7u64);
        assert!(!one.shares(&other) && one.get("g").is_none());
        assert!(serde_json::from_str::<Columns>(r#"{"a":1,"a":2}"#).is_err());
    }
}
