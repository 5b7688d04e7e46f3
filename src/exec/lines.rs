//! Makes masked lines of text out of the raw output of a process. Unaware of processes and of where the lines go.

use super::mask::{MaskStream, Masker};

/// A line longer than this is handed on in several pieces, so that memory stays bounded.
const LONGEST: usize = 64 * 1024;

/// Raw bytes in, lines out: masked, lossy UTF-8, without line ends. A lone carriage return starts the line anew, as on a terminal.
#[derive(Debug)]
pub(super) struct Lines<'m> {
    masks: MaskStream<'m>,
    clear: Vec<u8>,
    line: Vec<u8>,
    returned: bool,
}

impl<'m> Lines<'m> {
    /// Nothing read yet.
    pub(super) fn new(masker: &'m Masker) -> Self {
        Self { masks: masker.stream(), clear: Vec::new(), line: Vec::new(), returned: false }
    }

    /// Takes a piece and hands on every line that is complete.
    pub(super) fn push(&mut self, piece: &[u8], take: &mut dyn FnMut(&str)) {
        self.masks.push(piece, &mut self.clear);
        self.split(take);
    }

    /// No more comes: hands on the last line if it has no line end.
    pub(super) fn finish(&mut self, take: &mut dyn FnMut(&str)) {
        self.masks.finish(&mut self.clear);
        self.split(take);
        if !self.line.is_empty() {
            self.emit(take);
        }
    }

    fn split(&mut self, take: &mut dyn FnMut(&str)) {
        for byte in std::mem::take(&mut self.clear) {
            match byte {
                b'\n' => {
                    self.emit(take);
                    continue;
                }
                b'\r' => {
                    self.returned = true;
                    continue;
                }
                _ if self.returned => {
                    self.returned = false;
                    self.line.clear();
                }
                _ => {}
            }
            self.line.push(byte);
            // Cut only where a character ends.
            if self.line.len() >= LONGEST && (byte < 0x80 || self.line.len() >= LONGEST + 4) {
                self.emit(take);
            }
        }
    }

    fn emit(&mut self, take: &mut dyn FnMut(&str)) {
        take(&String::from_utf8_lossy(&self.line));
        self.line.clear();
        self.returned = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(masker: &Masker, pieces: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = Lines::new(masker);
        for piece in pieces {
            lines.push(piece, &mut |line| found.push(line.to_owned()));
        }
        lines.finish(&mut |line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn line_ends() {
        let none = Masker::default();
        assert_eq!(lines(&none, &[b"a\nb\r\n\n c", b"d"]), ["a", "b", "", " cd"]);
        assert_eq!(lines(&none, &[b"10%\r50%", b"\r100%\r", b"\nend\r"]), ["100%", "end"]);
        assert_eq!(lines(&none, &[b"\xff\n"]), ["\u{fffd}"]);
        assert!(lines(&none, &[b""]).is_empty());
    }

    #[test]
    fn a_secret_with_a_line_end_in_two_pieces() {
        let masker = Masker::new(vec!["one\ntwo".into()]);
        assert_eq!(lines(&masker, &[b"x=on", b"e\nt", b"wo;\nnext\n"]), ["x=***;", "next"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let long = vec![b'x'; LONGEST * 2 + 5];
        let lens: Vec<usize> = lines(&Masker::default(), &[&long]).iter().map(String::len).collect();
        assert_eq!(lens, [LONGEST, LONGEST, 5]);
    }
}
