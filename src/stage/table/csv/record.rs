//! The dialect, byte by byte: where cells and records end, and what a quoted cell says. Unaware of headers and files.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::OnceLock;

use hashbrown::DefaultHashBuilder;

use super::marks::{Marks, marks};

/// One record of a text, with its cells. Made once and read into again and again.
#[derive(Clone, Debug)]
pub struct Record<'t> {
    text: &'t str,
    start: usize,
    /// Where each cell ends; it begins after the comma of the one before.
    ends: Vec<usize>,
    /// What the cells say, if a quote stands in the record; else empty: they say what stands there.
    said: Vec<Cow<'t, str>>,
}

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The first byte after the record and the byte that ended it.
    pub(super) next: usize,
    /// The text ended inside a quoted cell.
    pub(super) open: bool,
}

/// Where the record at or after `at` begins: line ends between records are passed over. `None` at the end of the text.
pub(super) fn begin(text: &str, at: usize) -> Option<usize> {
    let blank = text.as_bytes()[at..].iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
    Some(at + blank)
}

impl<'t> Record<'t> {
    /// A record without cells.
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, start: 0, ends: Vec::new(), said: Vec::new() }
    }

    /// Reads the record that begins at `at`.
    ///
    /// A cell is quoted if it begins with a quote; two quotes in it stand for one; what follows its closing quote up to the next
    /// comma or line end belongs to it as it stands. A quote elsewhere stands for itself. A record ends at `\n`, `\r` or both.
    pub(super) fn read(&mut self, at: usize) -> End {
        self.start = at;
        self.ends.clear();
        self.said.clear();
        let bytes = self.text.as_bytes();
        let mut block = at;
        while block < bytes.len() {
            let Marks { mut commas, stops } = marks(bytes, block);
            if stops != 0 {
                // those before the first stop
                commas &= (stops & stops.wrapping_neg()) - 1;
            }
            while commas != 0 {
                self.ends.push(block + commas.trailing_zeros() as usize);
                commas &= commas - 1;
            }
            if stops != 0 {
                let stop = block + stops.trailing_zeros() as usize;
                if bytes[stop] == b'"' {
                    return self.read_quoted(at);
                }
                self.ends.push(stop);
                return End { next: stop + 1, open: false };
            }
            block += 64;
        }
        self.ends.push(bytes.len());
        End { next: bytes.len(), open: false }
    }

    fn read_quoted(&mut self, at: usize) -> End {
        self.ends.clear();
        let (text, bytes) = (self.text, self.text.as_bytes());
        let mut i = at;
        loop {
            let mut cell = Cow::Borrowed("");
            let mut open = false;
            if bytes.get(i) == Some(&b'"') {
                i += 1;
                loop {
                    let Some(length) = bytes[i..].iter().position(|b| *b == b'"') else {
                        append(&mut cell, &text[i..]);
                        (i, open) = (bytes.len(), true);
                        break;
                    };
                    let quote = i + length;
                    if bytes.get(quote + 1) != Some(&b'"') {
                        append(&mut cell, &text[i..quote]);
                        i = quote + 1;
                        break;
                    }
                    append(&mut cell, &text[i..=quote]);
                    i = quote + 2;
                }
            }
            let rest = i;
            while bytes.get(i).is_some_and(|b| !matches!(b, b',' | b'\r' | b'\n')) {
                i += 1;
            }
            append(&mut cell, &text[rest..i]);
            self.said.push(cell);
            self.ends.push(i);
            match bytes.get(i) {
                Some(b',') => i += 1,
                Some(_) => return End { next: i + 1, open },
                None => return End { next: i, open },
            }
        }
    }

    /// The number of cells.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True before anything was read.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What cell `index` says, from 0.
    pub fn cell(&self, index: usize) -> &str {
        match self.said.get(index) {
            Some(cell) => cell,
            None => self.as_written(index, index),
        }
    }

    /// What all cells say.
    pub fn cells(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.cell(index))
    }

    /// The cells `first` to `last` with the commas between them; `None` if a quote stands in the record, so that they may have to be
    /// written otherwise.
    pub fn plain(&self, first: usize, last: usize) -> Option<&'t str> {
        self.said.is_empty().then(|| self.as_written(first, last))
    }

    /// A hash of what the cells of `columns` say. It is the same for the same texts, in one process.
    pub(super) fn hash(&self, columns: &[usize]) -> u64 {
        static SEED: OnceLock<DefaultHashBuilder> = OnceLock::new();
        let mut hasher = SEED.get_or_init(DefaultHashBuilder::default).build_hasher();
        columns.iter().for_each(|column| self.cell(*column).hash(&mut hasher));
        hasher.finish()
    }

    fn as_written(&self, first: usize, last: usize) -> &'t str {
        let start = if first == 0 { self.start } else { self.ends[first - 1] + 1 };
        &self.text[start..self.ends[last]]
    }
}

/// Columns of one table beside columns of another, to compare rows; neighbours are compared in one go.
#[derive(Clone, Debug, Default)]
pub struct Alike {
    /// First column here, first column there, number of columns.
    runs: Vec<[usize; 3]>,
}

impl Alike {
    /// Each column here with the one there.
    pub fn new(pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut runs: Vec<[usize; 3]> = Vec::new();
        for (a, b) in pairs {
            match runs.last_mut() {
                Some([a_first, b_first, n]) if *a_first + *n == a && *b_first + *n == b => *n += 1,
                _ => runs.push([a, b, 1]),
            }
        }
        Self { runs }
    }

    /// Whether a row here and a row there say the same in all of them.
    pub fn equal(&self, here: &Record, there: &Record) -> bool {
        self.runs.iter().all(|[a, b, n]| match (here.plain(*a, a + n - 1), there.plain(*b, b + n - 1)) {
            (Some(here), Some(there)) => here == there,
            _ => (0..*n).all(|i| here.cell(a + i) == there.cell(b + i)),
        })
    }
}

fn append<'t>(cell: &mut Cow<'t, str>, part: &'t str) {
    if cell.is_empty() {
        *cell = Cow::Borrowed(part);
    } else if !part.is_empty() {
        cell.to_mut().push_str(part);
    }
}
