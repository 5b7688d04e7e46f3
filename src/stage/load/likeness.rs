//! Most events of a stream differ in their text alone: those are known by what stands before and after it, without being read as
//! JSON. Unaware of time.

use super::chunk::{self, Said};

/// What two events with text have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Likeness {
    before: Vec<u8>,
    after: Vec<u8>,
    /// Events with text that were read before one was looked at.
    seen: u32,
}

/// Events of a stream that come before a likeness is worth its making.
const FIRST: u32 = 2;

impl Likeness {
    /// Reads an event as [`chunk::read`] does.
    pub(super) fn read(&mut self, data: &[u8], text: Option<&mut String>) -> Option<Said> {
        if let Some(inside) = self.inside(data) {
            if let Some(text) = text {
                text.push_str(std::str::from_utf8(inside).ok()?);
            }
            return Some(Said::text());
        }
        let said = chunk::read(data, text)?;
        if said == Said::text() {
            self.seen += 1;
            if self.seen >= FIRST {
                self.seen = 0;
                *self = Self::of(data).unwrap_or_default();
            }
        }
        Some(said)
    }

    /// The text of an event that is like the others but for it: it has to be there, and to stand for itself in JSON.
    fn inside<'d>(&self, data: &'d [u8]) -> Option<&'d [u8]> {
        let inside = data.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
        (!self.before.is_empty() && !inside.is_empty() && inside.iter().all(plain)).then_some(inside)
    }

    /// That of an event with text: found by its key, and tried out with another text.
    fn of(data: &[u8]) -> Option<Self> {
        let start = [&b"\"content\":"[..], b"\"text\":"].iter().find_map(|key| {
            let at = data.windows(key.len()).rposition(|window| window == *key)? + key.len();
            let blanks = data[at..].iter().take_while(|byte| **byte == b' ').count();
            (data.get(at + blanks) == Some(&b'"')).then_some(at + blanks + 1)
        })?;
        let length = data[start..].iter().position(|byte| *byte == b'"' || *byte == b'\\')?;
        let (before, after) = (&data[..start], &data[start + length..]);
        let mut found = String::new();
        let said = chunk::read(&[before, b"tried", after].concat(), Some(&mut found))?;
        (said == Said::text() && found == "tried").then(|| Self {
            before: before.to_vec(),
            after: after.to_vec(),
            seen: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(id: &str, text: &str) -> String {
        format!(
            "{{\"id\": \"{id}\", \"choices\":[{{\"delta\":{{\"content\":{}}},\"finish_reason\":null}}]}}",
            serde_json::json!(text)
        )
    }

    #[test]
    fn it_is_made_of_the_second_and_used_from_the_third() {
        let mut likeness = Likeness::default();
        for text in ["a", "b"] {
            assert!(likeness.inside(event("x", text).as_bytes()).is_none());
            likeness.read(event("x", text).as_bytes(), None).unwrap();
        }
        assert_eq!(likeness.inside(event("x", "c d").as_bytes()), Some(&b"c d"[..]));
        assert!(likeness.inside(event("y", "c").as_bytes()).is_none());
        assert!(likeness.inside(event("x", "").as_bytes()).is_none());
        assert!(likeness.inside(event("x", "\"").as_bytes()).is_none());
        // what only looks like the text is none
        assert!(Likeness::of(br#"{"choices":[{"delta":{"content":"a"}}],"x":{"content":"b"}}"#).is_none());
    }

    proptest! {
        /// As the parser has it, whatever the events.
        #[test]
        fn as_the_parser(events in prop::collection::vec(("[xy]", "[ab\"\\\\\u{e9}\n]{0,3}", 0..4u8), 0..12)) {
            let (mut likeness, mut ours, mut theirs) = (Likeness::default(), String::new(), String::new());
            for (id, text, kind) in events {
                let data = match kind {
                    0 => format!("{{\"choices\":[{{\"text\": {}}}]}}", serde_json::json!(text)),
                    1 => "{\"choices\":[],\"usage\":{\"completion_tokens\":3}}".to_owned(),
                    _ => event(&id, &text),
                };
                let found = likeness.read(data.as_bytes(), Some(&mut ours));
                prop_assert_eq!(found, chunk::read(data.as_bytes(), Some(&mut theirs)), "{}", data);
                prop_assert_eq!(&ours, &theirs);
            }
        }
    }
}
