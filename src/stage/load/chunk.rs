//! What one event of a stream says: text, role, usage, end, error. Nothing is allocated but the text, if it is wanted. Unaware of time.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::stage::metrics::row::Kind;

/// An event, or the whole body of a reply that is no stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// It has choices, if only empty ones.
    choices: bool,
    content: bool,
    reasoning: bool,
    /// Some choice is at its end.
    pub(super) finished: bool,
    error: bool,
    /// Of the answer so far.
    pub(super) completion_tokens: Option<u64>,
    pub(super) prompt_tokens: Option<u64>,
}

impl Said {
    /// An event that says text of the answer, and nothing else.
    pub(super) fn text() -> Self {
        Self { choices: true, content: true, ..Self::default() }
    }

    /// What the event is in the record of a request.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self { error: true, .. } => Kind::Error,
            Self { content: true, .. } => Kind::Content,
            Self { reasoning: true, .. } => Kind::Reasoning,
            Self { choices: true, .. } => Kind::Role,
            _ => Kind::Usage,
        }
    }
}

/// Reads an event's data; the text of the answer is added to `text`, if it is wanted. `None`: it is not JSON, or of another shape.
pub(super) fn read(data: &[u8], text: Option<&mut String>) -> Option<Said> {
    let mut said = Said::default();
    let mut from = serde_json::Deserializer::from_slice(data);
    Whole(&mut Taken { said: &mut said, text }).deserialize(&mut from).ok()?;
    from.end().ok()?;
    Some(said)
}

/// Where what is read goes.
struct Taken<'s> {
    said: &'s mut Said,
    text: Option<&'s mut String>,
}

/// Which value of the text it is.
#[derive(Clone, Copy)]
enum Part {
    Content,
    Reasoning,
}

struct Whole<'i, 's>(&'i mut Taken<'s>);
struct Choices<'i, 's>(&'i mut Taken<'s>);
struct Choice<'i, 's>(&'i mut Taken<'s>);
struct Text<'i, 's>(&'i mut Taken<'s>, Part);

/// A visitor's usual beginnings; what is null or of another type says nothing.
macro_rules! passes_over {
    ($($method:ident: $type:ty),*) => {
        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a chunk of a completion")
        }
        $(fn $method<E>(self, _: $type) -> Result<(), E> {
            Ok(())
        })*
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    };
}

impl<'de> DeserializeSeed<'de> for Whole<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a chunk of a completion")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        #[derive(Deserialize)]
        struct Usage {
            completion_tokens: Option<u64>,
            prompt_tokens: Option<u64>,
        }
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Choices => map.next_value_seed(Choices(self.0))?,
                Key::Usage => {
                    if let Some(usage) = map.next_value::<Option<Usage>>()? {
                        self.0.said.completion_tokens = usage.completion_tokens;
                        self.0.said.prompt_tokens = usage.prompt_tokens;
                    }
                }
                // an error as older versions of vLLM write it
                Key::Object => self.0.said.error |= map.next_value::<Object>()?.0,
                Key::Error => self.0.said.error |= map.next_value::<Option<IgnoredAny>>()?.is_some(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Choices<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Choices<'_, '_> {
    type Value = ();

    passes_over!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Choice(self.0))?.is_some() {
            self.0.said.choices = true;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Choice<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Choice<'_, '_> {
    type Value = ();

    passes_over!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    /// A choice, or its delta or message: no key means two things.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Delta => map.next_value_seed(Choice(self.0))?,
                Key::Text => map.next_value_seed(Text(self.0, Part::Content))?,
                Key::Reasoning => map.next_value_seed(Text(self.0, Part::Reasoning))?,
                // a call of a tool is an answer, too
                Key::Tools => {
                    self.0.said.content |=
                        map.next_value::<Option<Vec<IgnoredAny>>>()?.is_some_and(|calls| !calls.is_empty())
                }
                Key::Finish => self.0.said.finished |= map.next_value::<Option<IgnoredAny>>()?.is_some(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Text<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("text")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let said = &mut *self.0.said;
        match self.1 {
            Part::Content => said.content |= !text.is_empty(),
            Part::Reasoning => said.reasoning |= !text.is_empty(),
        }
        if let (Part::Content, Some(wanted)) = (self.1, self.0.text.as_deref_mut()) {
            wanted.push_str(text);
        }
        Ok(())
    }
}

/// Whether an event says that it is an error; what is no text says nothing.
struct Object(bool);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Object;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("the name of a kind of object")
            }
            fn visit_unit<E>(self) -> Result<Object, E> {
                Ok(Object(false))
            }
            fn visit_str<E>(self, name: &str) -> Result<Object, E> {
                Ok(Object(name == "error"))
            }
        }
        from.deserialize_any(Name)
    }
}

/// The keys that matter.
enum Key {
    Object,
    Choices,
    Usage,
    Error,
    Delta,
    Text,
    Reasoning,
    Tools,
    Finish,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a key")
            }
            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(match name {
                    "object" => Key::Object,
                    "choices" => Key::Choices,
                    "usage" => Key::Usage,
                    "error" => Key::Error,
                    "delta" | "message" => Key::Delta,
                    "content" | "text" => Key::Text,
                    "reasoning_content" | "reasoning" => Key::Reasoning,
                    "tool_calls" => Key::Tools,
                    "finish_reason" => Key::Finish,
                    _ => Key::Other,
                })
            }
        }
        from.deserialize_identifier(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> (Kind, Option<u64>, bool, String) {
        let mut out = String::new();
        let said = read(text.as_bytes(), Some(&mut out)).unwrap_or_else(|| panic!("{text}"));
        (said.kind(), said.completion_tokens, said.finished, out)
    }

    #[test]
    fn kinds_of_events() {
        let plain = |kind| (kind, None, false, String::new());
        for (text, expected) in [
            (
                r#"{"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
                plain(Kind::Role),
            ),
            (
                r#"{"choices":[{"delta":{"content":"h\u00e9 \"q\""}}],"usage":null}"#,
                (Kind::Content, None, false, "hé \"q\"".into()),
            ),
            (r#"{"choices":[{"delta":{"reasoning_content":"r","content":null}}]}"#, plain(Kind::Reasoning)),
            (
                r#"{"choices":[{"delta":{"reasoning":"r"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
                (Kind::Reasoning, Some(2), false, String::new()),
            ),
            (
                r#"{"choices":[{"text":"abc","index":0,"finish_reason":"length"}]}"#,
                (Kind::Content, None, true, "abc".into()),
            ),
            (r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, (Kind::Role, None, true, String::new())),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12}}"#,
                (Kind::Usage, Some(9), false, String::new()),
            ),
            (r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, plain(Kind::Content)),
            (r#"{"error":{"message":"no","code":500}}"#, plain(Kind::Error)),
            (r#"{"object":"error","message":"no","code":500}"#, plain(Kind::Error)),
            (r#"{"object":"chat.completion.chunk","choices":[{"delta":{}}]}"#, plain(Kind::Role)),
            (
                r#"{"error":null,"choices":[{"message":{"role":"assistant","content":"all"}}]}"#,
                (Kind::Content, None, false, "all".into()),
            ),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
        for bad in ["", "{", "[1]", "{} x", "\"text\"", "{\"usage\": 7}"] {
            assert_eq!(read(bad.as_bytes(), None), None, "{bad}");
        }
    }
}
