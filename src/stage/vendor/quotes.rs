//! Quotes of a CSV file that are never closed. Unaware of columns.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

/// Where a reader is within a cell.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Before its first byte.
    Start,
    /// In one without quotes, or after the closing one.
    Plain,
    /// Between quotes that were opened in this line.
    Quoted(u64),
    /// After a quote that closes, or is the first of two that mean one.
    Quote(u64),
}

/// The line of the quote that is open at the end of the file, if one is. A record begins at the offset `from`, in `line`.
pub(super) fn unclosed(path: &Path, from: u64, line: u64) -> std::io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    if from == 0 && reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    let (mut at, mut line) = (At::Start, line);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(if let At::Quoted(opened) = at { Some(opened) } else { None });
        }
        for byte in bytes {
            at = match (at, byte) {
                (At::Start, b'"') => At::Quoted(line),
                (At::Quoted(opened), b'"') => At::Quote(opened),
                (At::Quote(opened), b'"') => At::Quoted(opened),
                (At::Quoted(opened), _) => At::Quoted(opened),
                (_, b',' | b'\n' | b'\r') => At::Start,
                _ => At::Plain,
            };
            line += u64::from(*byte == b'\n');
        }
        let count = bytes.len();
        reader.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_quote_that_stays_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        for (text, from, line, expected) in [
            ("a,b\n\"x\",\"y\"\"\nz\"\n", 0, 1, None),
            ("a,b\nx,\"y\n1,2\n", 4, 2, Some(2)),
            ("a,b\n\"x\ny\",\"z\n\n", 4, 2, Some(3)),
            ("a,b\nx,\"y\"\"\n", 4, 2, Some(2)),
            ("a,b\nx,y\"\n", 4, 2, None),
            ("", 0, 1, None),
            ("\u{feff}\"a,b\n", 0, 1, Some(1)),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(unclosed(&path, from, line).unwrap(), expected, "{text:?}");
        }
    }
}
