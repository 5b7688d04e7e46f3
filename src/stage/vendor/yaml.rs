//! A YAML file of bounded size as JSON. Unaware of what its members mean.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::{Yaml, YamlLoader};

/// Most values of a document, each alias counting as what it stands for, and 256 bytes of text as one more.
const MOST_VALUES: usize = 100_000;
/// Most levels of lists and mappings within each other.
const MOST_LEVELS: usize = 100;

/// The members of a document that is one mapping, in its order; `Err` says why it is none.
pub(super) fn members(text: &str) -> Result<Vec<(String, Value)>, String> {
    within_bounds(text)?;
    let documents = YamlLoader::load_from_str(text).map_err(|e| e.to_string())?;
    let [Yaml::Hash(members)] = &documents[..] else { return Err("no mapping".to_owned()) };
    let member = |(key, value): (&Yaml, &Yaml)| {
        let name = name(key)?;
        let value = json_of(value).map_err(|what| format!("'{name}': {what}"))?;
        Ok((name, value))
    };
    members.iter().map(member).collect()
}

/// Looks at the text alone: a few aliases of aliases stand for more than memory holds, and many brackets for more than the stack does.
fn within_bounds(text: &str) -> Result<(), String> {
    let mut parser = Parser::new_from_str(text);
    let mut sizes: HashMap<usize, usize> = HashMap::new();
    // anchor and count at the begin of each list or mapping that is open
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut count = 0_usize;
    loop {
        let (event, place) = parser.next_token().map_err(|e| e.to_string())?;
        match event {
            Event::StreamEnd => return Ok(()),
            Event::Alias(anchor) => count = count.saturating_add(sizes.get(&anchor).copied().unwrap_or(1)),
            Event::Scalar(text, _, anchor, _) => {
                let size = 1 + text.len() / 256;
                sizes.insert(anchor, size);
                count = count.saturating_add(size);
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, count));
                count = count.saturating_add(1);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((anchor, before)) = open.pop() {
                    sizes.insert(anchor, count - before);
                }
            }
            _ => {}
        }
        if count > MOST_VALUES {
            return Err(format!(
                "line {}: more than {MOST_VALUES} values up to here, each alias counted as what it stands for",
                place.line()
            ));
        }
        if open.len() > MOST_LEVELS {
            return Err(format!("line {}: more than {MOST_LEVELS} levels within each other", place.line()));
        }
    }
}

/// The name of a member: text as it is, everything else as JSON text.
fn name(key: &Yaml) -> Result<String, String> {
    match key {
        Yaml::String(text) => Ok(text.clone()),
        other => json_of(other)
            .map(|value| value.to_string())
            .map_err(|what| format!("the name of a member: {what}")),
    }
}

fn json_of(value: &Yaml) -> Result<Value, String> {
    match value {
        Yaml::Real(text) => value.as_f64().map(Value::from).ok_or_else(|| format!("no number: {text}")),
        Yaml::Integer(n) => Ok(json!(n)),
        Yaml::String(text) => Ok(json!(text)),
        Yaml::Boolean(is) => Ok(json!(is)),
        Yaml::Null => Ok(Value::Null),
        Yaml::Array(items) => items.iter().map(json_of).collect::<Result<_, _>>().map(Value::Array),
        Yaml::Hash(members) => {
            let member = |(key, value): (&Yaml, &Yaml)| Ok((name(key)?, json_of(value)?));
            members.iter().map(member).collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        Yaml::Alias(_) | Yaml::BadValue => Err("no text, number, list or mapping".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value() {
        let text = "a: &x [1, b, 2.5]\n8: {c: *x, null: yes}\nd:\n";
        assert_eq!(
            members(text).unwrap(),
            [
                ("a".to_owned(), json!([1, "b", 2.5])),
                ("8".to_owned(), json!({"c": [1, "b", 2.5], "null": "yes"})),
                ("d".to_owned(), Value::Null)
            ]
        );
        assert_eq!(members("a: !!int x\n").unwrap_err(), "'a': no text, number, list or mapping");
        assert_eq!(members("- a\n").unwrap_err(), "no mapping");
    }

    #[test]
    fn what_stands_for_more_than_memory_holds_is_refused() {
        let mut bomb = format!("a0: &a0 [{}]\n", ["x"; 10].join(","));
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(","));
        }
        assert!(
            members(&bomb).unwrap_err().starts_with("line 5: more than 100000 values"),
            "{:?}",
            members(&bomb)
        );
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 100].join(","));
        assert!(members(&long).unwrap_err().starts_with("line 2: more than 100000 values"));
        for deep in ["[".repeat(150), format!("\n{}x", "- ".repeat(100_000))] {
            let error = members(&format!("a: {deep}\n")).unwrap_err();
            assert!(error.contains("more than 100 levels within each other"), "{error}");
        }
        assert!(members(&format!("a: {}\n", "[".repeat(100_000))).is_err());
        assert!(members("a: &a [*a]\n").is_err(), "it holds itself");
    }
}
