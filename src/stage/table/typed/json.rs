//! JSON lists and JSON Lines of objects as typed tables. Written JSON is strict: no NaN, no infinity.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use indexmap::IndexMap;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::source::Take;
use super::{Cell, Column, Sink};
use crate::api::{InputFile, StageError};
use crate::stage::table::jsonl::JsonLines;

/// Values as they stand: a number is not rounded before its type is known.
type Object = IndexMap<String, Box<RawValue>>;

pub(super) fn read_lines(file: &InputFile, take: &mut Take) -> Result<Vec<String>, StageError> {
    let mut lines = JsonLines::open(file)?;
    while let Some(object) = lines.value::<Object>()? {
        let line = lines.line();
        row(&object, &|| format!(":{line}"), take)?;
    }
    Ok(Vec::new())
}

pub(super) fn read_list(file: &InputFile, take: &mut Take) -> Result<Vec<String>, StageError> {
    let opened = File::open(&file.path).map_err(|e| StageError::io("read", Path::new(&file.name), e))?;
    let mut deserializer = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 16, opened));
    let mut list = List { take, number: 0, refused: None };
    let read = (&mut list).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if let Some(refused) = list.refused {
        return Err(refused);
    }
    let Err(fault) = read else { return Ok(Vec::new()) };
    let again = File::open(&file.path).map_err(|e| StageError::io("read", Path::new(&file.name), e))?;
    let place = format!("{}:{}", file.name, fault.line());
    Err(StageError::not_json(&place, BufReader::new(again), &fault).hint("expected a list of objects"))
}

/// Gives the objects of a list one by one: the list is never held whole.
struct List<'a, 'f> {
    take: &'a mut Take<'f>,
    number: u64,
    refused: Option<StageError>,
}

impl<'de> DeserializeSeed<'de> for &mut List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(object) = list.next_element::<Object>()? {
            self.number += 1;
            let number = self.number;
            if let Err(error) = row(&object, &|| format!(" item {number}"), self.take) {
                self.refused = Some(error);
                return Err(serde::de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

fn row(object: &Object, place: &dyn Fn() -> String, take: &mut Take) -> Result<(), StageError> {
    take(place, &mut object.iter().map(|(name, value)| (name.as_str(), cell(value))))
}

/// Lists and objects are text as they stand. So is a whole number beyond 64 bits: a float would round it.
fn cell(value: &RawValue) -> Cell<'_> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'n') => Cell::Null,
        Some(b't') => Cell::Bool(true),
        Some(b'f') => Cell::Bool(false),
        Some(b'"') => Cell::Text(serde_json::from_str::<String>(text).unwrap_or_default().into()),
        Some(b'{' | b'[') => Cell::Text(text.into()),
        _ if text.contains(['.', 'e', 'E']) => match serde_json::from_str::<f64>(text) {
            Ok(number) if number.is_finite() => Cell::Float(number),
            _ => Cell::Text(text.into()),
        },
        _ => text.parse().map_or(Cell::Text(text.into()), Cell::Int),
    }
}

/// Writes a list of objects, or an object a line.
pub(super) struct ToJson {
    file: BufWriter<File>,
    output: String,
    names: Vec<String>,
    list: bool,
    rows: u64,
}

impl ToJson {
    pub(super) fn new(file: File, output: &str, columns: &[Column], list: bool) -> Self {
        // a name is written for each row: as JSON, with its colon
        let names = columns.iter().map(|column| format!("{}:", Value::from(column.name.as_str()))).collect();
        Self {
            file: BufWriter::with_capacity(1 << 16, file),
            output: output.to_owned(),
            names,
            list,
            rows: 0,
        }
    }

    fn write(&mut self, cells: &[Cell]) -> std::io::Result<()> {
        self.file.write_all(match (self.list, self.rows) {
            (true, 0) => b"[\n",
            (true, _) => b",\n",
            (false, 0) => b"",
            (false, _) => b"\n",
        })?;
        for (index, (name, cell)) in self.names.iter().zip(cells).enumerate() {
            self.file.write_all(if index == 0 { b"{" } else { b"," })?;
            self.file.write_all(name.as_bytes())?;
            match cell {
                Cell::Null => self.file.write_all(b"null")?,
                Cell::Bool(b) => write!(self.file, "{b}")?,
                Cell::Int(n) => write!(self.file, "{n}")?,
                Cell::Float(n) => serde_json::to_writer(&mut self.file, n)?,
                Cell::Text(text) | Cell::Spelled(text) => serde_json::to_writer(&mut self.file, text)?,
            }
        }
        self.file.write_all(if cells.is_empty() { b"{}" } else { b"}" })
    }

    fn failed(&self, cause: &std::io::Error) -> StageError {
        StageError::new(format!("failed to write output '{}': {cause}", self.output))
    }
}

impl Sink for ToJson {
    fn row(&mut self, cells: &[Cell]) -> Result<(), StageError> {
        self.write(cells).map_err(|e| self.failed(&e))?;
        self.rows += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), StageError> {
        let end: &[u8] = match (self.list, self.rows) {
            (true, 0) => b"[]\n",
            (true, _) => b"\n]\n",
            (false, 0) => b"",
            (false, _) => b"\n",
        };
        self.file.write_all(end).and_then(|()| self.file.flush()).map_err(|e| self.failed(&e))
    }
}
