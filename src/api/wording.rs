//! A parameter that does not fit, in words: message and hint. Unaware of where it stands in a file.

use super::ParamFault;
use crate::base::suggest;

impl ParamFault {
    /// The name of the parameter if there is none of this name, else `None`.
    pub fn unknown_name(&self) -> Option<&str> {
        named(&self.message, "unknown field `")
    }

    /// Message and hint; `owner` is the stage or simulator.
    pub fn worded(&self, owner: &str) -> (String, String) {
        let text = self.message.as_str();
        let choices = || text.split(", expected").nth(1).unwrap_or_default().split('`').skip(1).step_by(2);
        let place = match self.path.as_str() {
            "" => owner.to_owned(),
            path => format!("parameter '{path}' of {owner}"),
        };
        if let Some(name) = self.unknown_name() {
            let path = if self.path.is_empty() { name } else { &self.path };
            return no_parameter(owner, path, suggest::hint(name, choices()));
        }
        if let Some(name) = named(text, "missing field `") {
            return needs_parameter(owner, &place, name);
        }
        if let Some(name) = named(text, "unknown variant `") {
            let hint = suggest::hint(name, choices()).unwrap_or_else(|| see(owner));
            return (format!("{place}: '{name}' is no choice"), hint);
        }
        let wrong = text.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "));
        if let Some((found, expected)) = wrong {
            let expected = match expected {
                "a sequence" => "a list",
                "a map" => "an object",
                "a string" => "text",
                other => other,
            };
            let found = match found.split(' ').next() {
                Some("integer" | "floating") => "a number",
                Some("string") => "text",
                Some("sequence") => "a list",
                Some("map") => "an object",
                Some("boolean") => "true or false",
                _ => found,
            };
            return (format!("{place}: expected {expected}, found {found}"), see(owner));
        }
        (format!("{place}: {text}"), see(owner))
    }
}

/// A parameter that `owner` does not have; `near` is the hint if there is a good one.
pub fn no_parameter(owner: &str, path: &str, near: Option<String>) -> (String, String) {
    (format!("{owner} has no parameter '{path}'"), near.unwrap_or_else(|| see(owner)))
}

/// A parameter that is missing in `place`, which is `owner` or one of its parameters.
pub fn needs_parameter(owner: &str, place: &str, name: &str) -> (String, String) {
    (format!("{place} needs '{name}'"), format!("add \"{name}\" under 'with'; {}", see(owner)))
}

fn see(owner: &str) -> String {
    format!("see: flow stages {owner}")
}

fn named<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    text.strip_prefix(start)?.split('`').next()
}
