//! JSON Lines: one JSON value a line. Unaware of what the values mean.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{InputFile, StageError};

/// Reads values line by line; blank lines and a byte order mark are passed over.
pub struct JsonLines {
    name: String,
    reader: BufReader<File>,
    line: u64,
    buffer: Vec<u8>,
}

impl JsonLines {
    /// Opens a file.
    pub fn open(file: &InputFile) -> Result<Self, StageError> {
        let opened = File::open(&file.path).map_err(|e| StageError::io("read", Path::new(&file.name), e))?;
        Ok(Self {
            name: file.name.clone(),
            reader: BufReader::with_capacity(1 << 16, opened),
            line: 0,
            buffer: Vec::new(),
        })
    }

    /// The line of the value read last, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next value; `None` at the end. What is no such value is an error that names file, line and column.
    pub fn value<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StageError> {
        loop {
            self.buffer.clear();
            let read = self.reader.read_until(b'\n', &mut self.buffer);
            if read.map_err(|e| StageError::io("read", Path::new(&self.name), e))? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if self.text().is_empty() {
                continue;
            }
            return serde_json::from_slice(self.text()).map(Some).map_err(|e| self.fault(&e));
        }
    }

    /// The line read last, without what surrounds its value.
    pub fn text(&self) -> &[u8] {
        let bytes =
            self.buffer.strip_prefix(b"\xef\xbb\xbf").filter(|_| self.line == 1).unwrap_or(&self.buffer);
        bytes.trim_ascii()
    }

    /// What to say of a fault in the line read last.
    pub fn fault(&self, fault: &serde_json::Error) -> StageError {
        StageError::not_json(&format!("{}:{}", self.name, self.line), self.text(), fault)
            .hint("each line is one JSON value")
    }

    /// All values that are left.
    pub fn rest<T: DeserializeOwned>(mut self) -> Result<Vec<T>, StageError> {
        let mut out = Vec::new();
        while let Some(value) = self.value()? {
            out.push(value);
        }
        Ok(out)
    }
}

/// Writes one value and a line end; `output` is the output's name in messages.
pub fn write_line(to: &mut impl Write, value: &impl Serialize, output: &str) -> Result<(), StageError> {
    let failed =
        |e: &dyn std::fmt::Display| StageError::new(format!("failed to write output '{output}': {e}"));
    serde_json::to_writer(&mut *to, value).map_err(|e| failed(&e))?;
    to.write_all(b"\n").map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u32>, StageError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        std::fs::write(&path, bytes).unwrap();
        JsonLines::open(&InputFile { path, name: "in/x.jsonl".into() })?.rest()
    }

    #[test]
    fn lines_are_values_and_a_fault_has_its_place() {
        assert_eq!(read(b"\xef\xbb\xbf1\r\n\n 2 \n3").unwrap(), [1, 2, 3]);
        assert_eq!(read(b"").unwrap(), [0_u32; 0]);
        let error = read(b"1\n\n{\n").unwrap_err();
        assert!(error.message.starts_with("in/x.jsonl:3: "), "{}", error.message);
        let bare = read(b"\xef\xbb\xbf1\n\n  NaN \n").unwrap_err();
        assert!(bare.message.starts_with("in/x.jsonl:3: bare NaN is not JSON"), "{}", bare.message);
        assert!(bare.hints[0].starts_with("write null in its place"));
        assert!(read(b"1\n\"\xff\"\n").unwrap_err().message.starts_with("in/x.jsonl:2: "));
    }
}
