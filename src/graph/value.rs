//! Resolved values: plain JSON but for what is only known while a node runs. Unaware of scopes.

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::node::ServiceIx;
use crate::model::ServiceField;

/// A value after expansion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// `null`
    Null,
    /// A flag.
    Bool(bool),
    /// A number.
    Number(#[serde(with = "number_text")] Number),
    /// Text, perhaps with late parts.
    Text(Text),
    /// A list.
    List(Vec<Value>),
    /// An object in declared order.
    Map(Vec<(String, Value)>),
    /// Read from the environment at the moment of use.
    Secret {
        /// Variable.
        name: String,
        /// `{}` stands for the value.
        format: String,
    },
    /// The paths of the input of this name.
    Paths {
        /// Input name.
        input: String,
        /// A list (gathered, or declared as one).
        list: bool,
    },
}

/// Text in pieces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Text(pub Vec<Seg>);

/// One piece of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Seg {
    /// Known text, part of the identity.
    Lit(String),
    /// Known text that stands in keys as something else (`${workflow.dir}`).
    Aliased {
        /// When running.
        value: String,
        /// In keys.
        identity: String,
    },
    /// Known while running.
    Late(Late),
}

/// What is known while running.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Late {
    /// Something of a service.
    Service {
        /// Which; several only for `.urls`.
        services: Vec<ServiceIx>,
        /// Its id, for the identity.
        id: String,
        /// What of it.
        field: ServiceField,
    },
    /// The port of the service being started.
    ServicePort,
    /// The scratch path of an output.
    Output(String),
    /// The path of a one-file input.
    Input(String),
    /// Of the leased device.
    Device(String),
    /// Of the shard.
    Shard(String),
}

impl Late {
    /// As it stands in keys, `explain` and `plan_digest`.
    pub fn identity(&self) -> String {
        match self {
            Self::Service { id, field, .. } => format!("${{services.{id}.{}}}", field.as_str()),
            Self::ServicePort => "${service.port}".to_owned(),
            Self::Output(name) => format!("${{outputs.{name}}}"),
            Self::Input(name) => format!("${{inputs.{name}}}"),
            Self::Device(field) => format!("${{device.{field}}}"),
            Self::Shard(field) => format!("${{shard.{field}}}"),
        }
    }
}

/// A number as its text: a compact format cannot tell which kind of number comes next.
mod number_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_json::Number;

    pub(super) fn serialize<S: Serializer>(number: &Number, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Number, D::Error> {
        let text = String::deserialize(from)?;
        serde_json::from_str(&text).map_err(D::Error::custom)
    }
}

/// How late parts are filled in.
pub trait Fill {
    /// Known text as it stands in the result.
    fn literal(&self, text: &str) -> String {
        text.to_owned()
    }
    /// Text of a late part.
    fn late(&self, late: &Late) -> Result<String, String>;
    /// A list-valued late part (`.urls`), if this is one.
    fn late_list(&self, _late: &Late) -> Option<Vec<String>> {
        None
    }
    /// Text of an aliased part.
    fn aliased(&self, value: &str, identity: &str) -> String;
    /// Value of a secret.
    fn secret(&self, name: &str, format: &str) -> Result<serde_json::Value, String>;
    /// Paths of an input.
    fn paths(&self, input: &str, list: bool) -> Result<serde_json::Value, String>;
}

/// Fills in identities: the rendering of keys. Never fails.
pub struct Identity;

impl Fill for Identity {
    /// As it would be written: never taken for a reference.
    fn literal(&self, text: &str) -> String {
        text.replace("${", "$${")
    }
    fn late(&self, late: &Late) -> Result<String, String> {
        Ok(late.identity())
    }
    fn aliased(&self, _value: &str, identity: &str) -> String {
        identity.to_owned()
    }
    fn secret(&self, name: &str, format: &str) -> Result<serde_json::Value, String> {
        let format = self.literal(format);
        Ok(serde_json::Value::String(format.replacen("{}", &format!("${{secret.{name}}}"), 1)))
    }
    fn paths(&self, input: &str, _list: bool) -> Result<serde_json::Value, String> {
        Ok(serde_json::Value::String(format!("${{inputs.{input}}}")))
    }
}

impl Text {
    /// Plain text.
    pub fn literal(text: impl Into<String>) -> Self {
        Self(vec![Seg::Lit(text.into())])
    }

    /// The text if nothing of it is late; aliased parts by value.
    pub fn known(&self) -> Option<String> {
        let mut out = String::new();
        for seg in &self.0 {
            match seg {
                Seg::Lit(text) | Seg::Aliased { value: text, .. } => out.push_str(text),
                Seg::Late(_) => return None,
            }
        }
        Some(out)
    }

    /// The text with its late parts filled in.
    pub fn fill(&self, with: &dyn Fill) -> Result<String, String> {
        let mut out = String::new();
        for seg in &self.0 {
            match seg {
                Seg::Lit(text) => out.push_str(&with.literal(text)),
                Seg::Aliased { value, identity } => out.push_str(&with.aliased(value, identity)),
                Seg::Late(late) => out.push_str(&with.late(late)?),
            }
        }
        Ok(out)
    }
}

impl Value {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Text::literal(text))
    }

    /// As JSON, late parts filled in.
    pub fn fill(&self, with: &dyn Fill) -> Result<serde_json::Value, String> {
        use serde_json::Value as Json;
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(flag) => Json::Bool(*flag),
            Self::Number(number) => Json::Number(number.clone()),
            Self::Text(text) => match text.0.as_slice() {
                [Seg::Late(late)] => match with.late_list(late) {
                    Some(list) => Json::from(list),
                    None => Json::String(with.late(late)?),
                },
                _ => Json::String(text.fill(with)?),
            },
            Self::List(items) => {
                Json::Array(items.iter().map(|item| item.fill(with)).collect::<Result<_, _>>()?)
            }
            Self::Map(map) => Json::Object(
                map.iter().map(|(k, v)| Ok((k.clone(), v.fill(with)?))).collect::<Result<_, String>>()?,
            ),
            Self::Secret { name, format } => with.secret(name, format)?,
            Self::Paths { input, list } => with.paths(input, *list)?,
        })
    }

    /// As JSON by identity.
    pub fn identity(&self) -> serde_json::Value {
        self.fill(&Identity).unwrap_or_default()
    }

    /// As JSON if nothing of it is late, secret or a path of an input.
    pub fn known(&self) -> Option<serde_json::Value> {
        struct Known;
        impl Fill for Known {
            fn late(&self, _late: &Late) -> Result<String, String> {
                Err(String::new())
            }
            fn aliased(&self, value: &str, _identity: &str) -> String {
                value.to_owned()
            }
            fn secret(&self, _name: &str, _format: &str) -> Result<serde_json::Value, String> {
                Err(String::new())
            }
            fn paths(&self, _input: &str, _list: bool) -> Result<serde_json::Value, String> {
                Err(String::new())
            }
        }
        self.fill(&Known).ok()
    }

    /// Calls `visit` for every late part inside.
    pub fn for_each_late(&self, visit: &mut dyn FnMut(&Late)) {
        match self {
            Self::Text(text) => text.for_each_late(visit),
            Self::List(items) => items.iter().for_each(|item| item.for_each_late(visit)),
            Self::Map(map) => map.iter().for_each(|(_, item)| item.for_each_late(visit)),
            _ => {}
        }
    }

    /// Names of the secrets inside.
    pub fn secrets(&self, out: &mut Vec<String>) {
        match self {
            Self::Secret { name, .. } => out.push(name.clone()),
            Self::List(items) => items.iter().for_each(|item| item.secrets(out)),
            Self::Map(map) => map.iter().for_each(|(_, item)| item.secrets(out)),
            _ => {}
        }
    }
}

impl Text {
    /// Calls `visit` for every late part.
    pub fn for_each_late(&self, visit: &mut dyn FnMut(&Late)) {
        for seg in &self.0 {
            if let Seg::Late(late) = seg {
                visit(late);
            }
        }
    }
}

/// A value in shell text: each scalar quoted, lists as words.
pub fn shell_words(value: &serde_json::Value) -> Result<String, String> {
    use serde_json::Value as Json;
    match value {
        Json::String(text) => Ok(quoted(text)),
        Json::Number(number) => Ok(number.to_string()),
        Json::Bool(flag) => Ok(flag.to_string()),
        Json::Array(items) => Ok(items.iter().map(shell_words).collect::<Result<Vec<_>, _>>()?.join(" ")),
        Json::Null => Err("null cannot stand in shell text".to_owned()),
        Json::Object(_) => Ok(quoted(&value.to_string())),
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ',' | ':' | '=' | '@' | '+' | '%')
    };
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shell_words_are_quoted() {
        assert_eq!(shell_words(&json!("a/b.c")).unwrap(), "a/b.c");
        assert_eq!(shell_words(&json!("it's $HOME")).unwrap(), r"'it'\''s $HOME'");
        assert_eq!(shell_words(&json!(["a b", ""])).unwrap(), "'a b' ''");
        assert!(shell_words(&json!(null)).is_err());
    }
}
