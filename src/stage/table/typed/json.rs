//! JSON lists and JSON Lines of objects as typed tables. Written JSON is strict: no NaN, no infinity.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use super::object::{Again, Member, Object, Text};
use super::source::Take;
use super::{Cell, Column, Sink, number};
use crate::api::{InputFile, StageError};
use crate::stage::table::jsonl::JsonLines;

/// What is wrong with text that is none.
const HALF: &str = "half of a surrogate pair (\\ud800 to \\udfff) is no character";

pub(super) fn read_lines(file: &InputFile, take: &mut Take) -> Result<Vec<String>, StageError> {
    let mut lines = JsonLines::open(file)?;
    while let Some(object) = lines.value::<Object>()? {
        let line = lines.line();
        if let Some(key) = object.broken() {
            let mut text = serde_json::Deserializer::from_slice(lines.text());
            let fault = Text(key).deserialize(&mut text);
            return Err(match fault {
                Err(fault) => lines.fault(&fault).hint(HALF),
                Ok(()) => no_text(&file.name, line, key),
            });
        }
        row(&object, &|| format!(":{line}"), take)?;
    }
    Ok(Vec::new())
}

pub(super) fn read_list(file: &InputFile, take: &mut Take) -> Result<Vec<String>, StageError> {
    let open = || {
        let opened = File::open(&file.path).map_err(|e| StageError::io("read", Path::new(&file.name), e))?;
        Ok::<_, StageError>(BufReader::with_capacity(1 << 16, opened))
    };
    let mut deserializer = serde_json::Deserializer::from_reader(open()?);
    let mut list = List { take, number: 0, broken: None, refused: None };
    let read = (&mut list).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if let Some(refused) = list.refused {
        return Err(refused);
    }
    let Err(fault) = read else { return Ok(Vec::new()) };
    let place = |fault: &serde_json::Error| format!("{}:{}", file.name, fault.line());
    if let Some(key) = &list.broken {
        let again = Again { before: list.number - 1, key };
        return Err(match again.deserialize(&mut serde_json::Deserializer::from_reader(open()?)) {
            Err(found) => StageError::not_json(&place(&found), open()?, &found).hint(HALF),
            Ok(()) => no_text(&file.name, fault.line() as u64, key),
        });
    }
    Err(StageError::not_json(&place(&fault), open()?, &fault).hint("expected a list of objects"))
}

/// What to say of text that is none if the parser, asked again, does not say it: the file changed meanwhile.
fn no_text(name: &str, line: u64, key: &str) -> StageError {
    StageError::new(format!("{name}:{line}, column '{key}': no text"))
}

/// Gives the objects of a list one by one: the list is never held whole.
struct List<'a, 'f> {
    take: &'a mut Take<'f>,
    number: u64,
    /// The key of a text that is none, in the object of this number.
    broken: Option<String>,
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
            self.broken = object.broken().map(str::to_owned);
            if self.broken.is_some() {
                return Err(serde::de::Error::custom("no text"));
            }
            if let Err(error) = row(&object, &|| format!(" item {number}"), self.take) {
                self.refused = Some(error);
                return Err(serde::de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

fn row(object: &Object, place: &dyn Fn() -> String, take: &mut Take) -> Result<(), StageError> {
    take(place, &mut object.members().map(|(name, value)| (name, cell(value))))
}

/// Lists and objects are text as they stand. So is a number that a float or 64 bits cannot hold.
fn cell(value: &Member) -> Cell<'_> {
    let raw = match value {
        Member::Text(text) => return Cell::Text(text.as_str().into()),
        Member::Broken => return Cell::Null,
        Member::Other(raw) => raw.get(),
    };
    match raw.as_bytes().first() {
        Some(b'n') => Cell::Null,
        Some(b't') => Cell::Bool(true),
        Some(b'f') => Cell::Bool(false),
        Some(b'{' | b'[') => Cell::Text(raw.into()),
        _ => number(raw).unwrap_or(Cell::Text(raw.into())),
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
