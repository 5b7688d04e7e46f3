//! Server-sent events: the data of each, wherever the bytes were cut. Lines end in LF, CRLF or CR; comments and other fields are
//! passed over. Unaware of what the data mean.

use memchr::memchr2;

/// Finds events.
#[derive(Clone, Debug, Default)]
pub(in crate::stage::load) struct Events {
    /// The start of a line that was cut.
    line: Vec<u8>,
    /// Data of an event whose blank line did not come yet.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was the CR of a line end.
    after_cr: bool,
}

impl Events {
    /// Calls `each` with the data of every event that is complete.
    pub(in crate::stage::load) fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&[u8])) {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr2(b'\n', b'\r', bytes) {
            let (line, mut rest) = (&bytes[..end], &bytes[end + 1..]);
            if bytes[end] == b'\r' {
                match rest.strip_prefix(b"\n") {
                    Some(after) => rest = after,
                    None => self.after_cr = rest.is_empty(),
                }
            }
            if self.line.is_empty() {
                // most events are one line of data and a blank line, all here
                match (data_of(line), blank(rest)) {
                    (Some(data), Some(after)) if !self.has_data => {
                        each(data);
                        rest = after;
                    }
                    _ => self.line(line, each),
                }
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.line(&whole, each);
                whole.clear();
                self.line = whole;
            }
            bytes = rest;
        }
        self.line.extend_from_slice(bytes);
    }

    /// The stream is over: what was cut off at its end counts, as an event without its blank line does.
    pub(in crate::stage::load) fn finish(&mut self, each: &mut impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.line(&line, each);
        }
        self.line(b"", each);
    }

    fn line(&mut self, line: &[u8], each: &mut impl FnMut(&[u8])) {
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                each(&self.data);
                self.data.clear();
            }
        } else if let Some(data) = data_of(line) {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data);
            self.has_data = true;
        }
    }
}

/// The value of a line of data.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data")?;
    match value {
        [] => Some(value),
        [b':', b' ', rest @ ..] | [b':', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// What follows a blank line at the start of `bytes`, if the line is there whole.
fn blank(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], cuts: &[usize]) -> Vec<String> {
        let (mut events, mut out) = (Events::default(), Vec::new());
        let mut each = |data: &[u8]| out.push(String::from_utf8_lossy(data).into_owned());
        let mut from = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let to = cut.clamp(from, bytes.len());
            events.feed(&bytes[from..to], &mut each);
            from = to;
        }
        events.finish(&mut each);
        out
    }

    #[test]
    fn lines_comments_and_fields() {
        let text = ": ping\n\ndata: {\"a\"}\n\ndata:one\ndata: two\nid: 7\n\nevent: x\ndata\n\nretry: 1\n\ndata: last";
        for ends in ["\n", "\r\n", "\r"] {
            let bytes = text.replace('\n', ends);
            for cut in 0..bytes.len() {
                assert_eq!(
                    read(bytes.as_bytes(), &[cut]),
                    ["{\"a\"}", "one\ntwo", "", "last"],
                    "{ends:?} {cut}"
                );
            }
        }
        assert_eq!(read("data: \u{fffd}é\n\n".as_bytes(), &[8]), ["\u{fffd}é"]);
        assert_eq!(read(b"dataset: 1\n\n", &[]), [""; 0]);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(parts in prop::collection::vec("data: [a-z]{0,3}|data:|:c|id: 1||", 0..12), ends in prop::collection::vec(0..3usize, 12), mut cuts in prop::collection::vec(0..80usize, 0..6)) {
            let bytes: String = parts.iter().zip(&ends).map(|(part, end)| format!("{part}{}", ["\n", "\r\n", "\r"][*end])).collect();
            cuts.sort_unstable();
            // a CR and an LF of two lines would be one line end: let none stand so
            prop_assume!(!parts.iter().zip(&ends).skip(1).zip(&ends).any(|((part, end), before)| part.is_empty() && *before == 2 && *end == 0));
            prop_assert_eq!(read(bytes.as_bytes(), &cuts), read(bytes.as_bytes(), &[]));
            let lines: Vec<&str> = parts.iter().map(String::as_str).chain([""]).collect();
            let naive: Vec<String> = lines.split(|line| line.is_empty()).filter_map(|event| {
                let data: Vec<&str> = event.iter().filter_map(|line| line.strip_prefix("data:")).map(|data| data.strip_prefix(' ').unwrap_or(data)).collect();
                (!data.is_empty()).then(|| data.join("\n"))
            }).collect();
            prop_assert_eq!(read(bytes.as_bytes(), &[]), naive);
        }
    }
}
