//! An object of JSON with its values as they stand: a number is not rounded before its type is known. Unaware of tables.

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A value.
pub(super) enum Member {
    /// Text.
    Text(String),
    /// Text with half a surrogate pair (`"\ud800"`), which is none.
    Broken,
    /// Anything else, as it stands.
    Other(Box<RawValue>),
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('"') {
            return Ok(Self::Other(raw));
        }
        Ok(serde_json::from_str(raw.get()).map_or(Self::Broken, Self::Text))
    }
}

/// An object whose keys are different ones.
pub(super) struct Object(IndexMap<String, Member>);

impl Object {
    /// Keys and values as they stand in the file.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The first key whose text is none.
    pub(super) fn broken(&self) -> Option<&str> {
        self.members().find(|(_, value)| matches!(value, Member::Broken)).map(|(key, _)| key)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members = IndexMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if members.contains_key(&key) {
                return Err(Error::custom(format!("key '{key}' stands twice in one object")));
            }
            let value = map.next_value()?;
            members.insert(key, value);
        }
        Ok(Object(members))
    }
}

/// Reads an object once more, as far as the text of this key: what the parser says of it, with its place.
pub(super) struct Text<'k>(pub(super) &'k str);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                map.next_value::<String>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The same in a list, after so many objects.
pub(super) struct Again<'k> {
    pub(super) before: u64,
    pub(super) key: &'k str,
}

impl<'de> DeserializeSeed<'de> for Again<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Again<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for _ in 0..self.before {
            list.next_element::<IgnoredAny>()?;
        }
        list.next_element_seed(Text(self.key)).map(|_| ())
    }
}
