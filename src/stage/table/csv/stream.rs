//! A table read record by record: in memory is a block of the file, however long that is. Unaware of what columns mean.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::record::{Record, begin};
use super::table::{empty, header, never_closed, not_utf8, uneven};
use crate::api::{InputFile, StageError};

/// Bytes read at a time.
const BLOCK: usize = 1 << 18;

/// A table that is read once, from its first record to its last. Refuses what [`Table::parse`](super::Table::parse) refuses.
pub struct TableReader {
    name: String,
    file: File,
    columns: Vec<String>,
    /// What was read and not given out yet, from `at`.
    text: String,
    at: usize,
    /// Bytes of a character that the next block completes.
    rest: Vec<u8>,
    /// The line of `text[at]`.
    line: u64,
    ended: bool,
    block: usize,
}

impl TableReader {
    /// Opens a file and reads its header.
    pub fn open(file: &InputFile) -> Result<Self, StageError> {
        Self::with_block(file, BLOCK)
    }

    /// Like [`open`](Self::open), reading `block` bytes at a time.
    pub(crate) fn with_block(file: &InputFile, block: usize) -> Result<Self, StageError> {
        let opened = File::open(&file.path).map_err(|e| StageError::io("read", Path::new(&file.name), e))?;
        let mut reader = Self {
            name: file.name.clone(),
            file: opened,
            columns: Vec::new(),
            text: String::new(),
            at: 0,
            rest: Vec::new(),
            line: 1,
            ended: false,
            block,
        };
        while reader.text.len() < '\u{feff}'.len_utf8() && !reader.ended {
            reader.more()?;
        }
        if reader.text.starts_with('\u{feff}') {
            reader.at = '\u{feff}'.len_utf8();
        }
        let (name, mut columns) = (reader.name.clone(), Vec::new());
        if !reader.record(&mut |line, record| {
            columns = record.cells().map(str::to_owned).collect();
            header(&name, line, &columns)
        })? {
            return Err(empty(&name));
        }
        reader.columns = columns;
        Ok(reader)
    }

    /// The header.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Gives the next record, with the line on which it begins, to `take`; false at the end.
    pub fn next(
        &mut self,
        take: &mut dyn FnMut(u64, &Record) -> Result<(), StageError>,
    ) -> Result<bool, StageError> {
        let (name, width) = (self.name.clone(), self.columns.len());
        self.record(&mut |line, record| {
            if record.len() != width {
                return Err(uneven(&name, line, width, record.len()));
            }
            take(line, record)
        })
    }

    fn record(
        &mut self,
        take: &mut dyn FnMut(u64, &Record) -> Result<(), StageError>,
    ) -> Result<bool, StageError> {
        loop {
            let Some(start) = begin(&self.text, self.at) else {
                if self.ended {
                    return Ok(false);
                }
                self.pass(self.text.len());
                self.more()?;
                continue;
            };
            self.pass(start);
            let mut record = Record::new(&self.text);
            let end = record.read(start);
            // a record that reaches to the end of the text may go on in the next block
            if end.next == self.text.len() && !self.ended {
                self.more()?;
                continue;
            }
            if end.open && (self.columns.is_empty() || record.len() == self.columns.len()) {
                return Err(never_closed(&self.name, self.line));
            }
            take(self.line, &record)?;
            self.pass(end.next);
            return Ok(true);
        }
    }

    /// Goes on to `at`.
    fn pass(&mut self, at: usize) {
        self.line += self.text.as_bytes()[self.at..at].iter().filter(|b| **b == b'\n').count() as u64;
        self.at = at;
    }

    /// Reads on: a block, or as much as is there already if that is more.
    fn more(&mut self) -> Result<(), StageError> {
        self.text.drain(..self.at);
        self.at = 0;
        let mut bytes = std::mem::take(&mut self.rest);
        let wanted = self.block.max(self.text.len()) as u64;
        let read = (&mut self.file).take(wanted).read_to_end(&mut bytes);
        let read = read.map_err(|e| StageError::io("read", Path::new(&self.name), e))?;
        self.ended = (read as u64) < wanted;
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.text.push_str(text),
            Err(error) => {
                let (good, bad) = bytes.split_at(error.valid_up_to());
                self.text.push_str(std::str::from_utf8(good).unwrap_or_default());
                if error.error_len().is_some() || self.ended {
                    let before = self.text.bytes().filter(|b| *b == b'\n').count() as u64;
                    return Err(not_utf8(&self.name, self.line + before));
                }
                self.rest = bad.to_vec();
            }
        }
        Ok(())
    }
}
