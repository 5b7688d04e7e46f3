//! The parameters of a stage as flat rows, from its JSON Schema: for `flow stages` and its page. Unaware of how they are shown.

use std::collections::BTreeSet;

use schemars::Schema;
use serde_json::{Map, Value};

/// One parameter, or a field inside one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// `expect.json`, `faults[].match`.
    pub(super) path: String,
    /// What it takes, in words.
    pub(super) kind: String,
    pub(super) required: bool,
    /// As JSON; none if it is null or not known.
    pub(super) default: Option<String>,
    /// One line.
    pub(super) doc: String,
}

/// All parameters in declared order, each followed by its fields.
pub(super) fn parameters(schema: &Schema) -> Vec<Parameter> {
    let empty = Map::new();
    let root = schema.as_object().unwrap_or(&empty);
    let definitions = root.get("$defs").and_then(Value::as_object).unwrap_or(&empty);
    let mut walk = Walk { definitions, out: Vec::new() };
    walk.fields("", root, 0);
    walk.out
}

/// Fields inside fields inside fields are not listed.
const DEEPEST: usize = 2;

struct Walk<'s> {
    definitions: &'s Map<String, Value>,
    out: Vec<Parameter>,
}

impl<'s> Walk<'s> {
    fn fields(&mut self, prefix: &str, object: &'s Map<String, Value>, depth: usize) {
        let required: BTreeSet<&str> =
            list(object, "required").iter().filter_map(|name| name.as_str()).collect();
        let Some(properties) = object.get("properties").and_then(Value::as_object) else { return };
        for (name, property) in properties {
            let Some(property) = property.as_object() else { continue };
            let path = format!("{prefix}{name}");
            let default = property.get("default").filter(|default| !default.is_null());
            let fields = self.resolve(property).get("properties").and_then(Value::as_object);
            let with_fields =
                fields.is_some_and(|all| all.values().any(|field| field.get("default").is_some()));
            self.out.push(Parameter {
                path: path.clone(),
                kind: self.kind(property),
                required: required.contains(name.as_str()),
                // that of an object may stand with its fields
                default: default.filter(|_| !with_fields).map(Value::to_string),
                doc: text(property).or_else(|| text(self.resolve(property))).unwrap_or_default(),
            });
            if depth < DEEPEST {
                let (inner, place) = match self.resolve(property).get("items").and_then(Value::as_object) {
                    Some(items) => (self.resolve(items), format!("{path}[].")),
                    None => (self.resolve(property), format!("{path}.")),
                };
                self.fields(&place, inner, depth + 1);
            }
        }
    }

    /// Follows references and leaves out what only says that null is allowed.
    fn resolve(&self, schema: &'s Map<String, Value>) -> &'s Map<String, Value> {
        let by_name = schema.get("$ref").and_then(Value::as_str);
        let by_name = by_name.and_then(|name| self.definitions.get(name.rsplit('/').next()?)?.as_object());
        if let Some(found) = by_name {
            return self.resolve(found);
        }
        match without_null(schema).as_slice() {
            [only] => self.resolve(only),
            _ => schema,
        }
    }

    fn kind(&self, schema: &'s Map<String, Value>) -> String {
        let schema = self.resolve(schema);
        let choices: Vec<String> = choices(schema);
        if !choices.is_empty() {
            return choices.join(" or ");
        }
        let several = without_null(schema);
        if several.len() > 1 {
            let mut kinds: Vec<String> = several.iter().map(|schema| self.kind(schema)).collect();
            kinds.dedup();
            return kinds.join(" or ");
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(all)) => {
                all.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect()
            }
            _ => Vec::new(),
        };
        match types.as_slice() {
            ["string"] => "text".to_owned(),
            ["integer"] => "whole number".to_owned(),
            ["boolean"] => "true or false".to_owned(),
            ["array"] => {
                let items = schema.get("items").and_then(Value::as_object);
                items.map_or_else(|| "list".to_owned(), |items| format!("list of {}", self.kind(items)))
            }
            ["object"] => {
                let values = schema.get("additionalProperties").and_then(Value::as_object);
                values.map_or_else(|| "object".to_owned(), |v| format!("object of name: {}", self.kind(v)))
            }
            [] => "any value".to_owned(),
            other => other.join(" or "),
        }
    }
}

/// The values of an enumeration.
fn choices(schema: &Map<String, Value>) -> Vec<String> {
    if let Some(value) = schema.get("const") {
        return vec![value.to_string()];
    }
    let plain = list(schema, "enum").iter().filter(|value| !value.is_null()).map(Value::to_string);
    let mut out: Vec<String> = plain.collect();
    let described: Vec<&Map<String, Value>> =
        list(schema, "oneOf").iter().filter_map(Value::as_object).collect();
    if !described.is_empty()
        && described.iter().all(|one| one.contains_key("const") || one.contains_key("enum"))
    {
        out.extend(described.iter().flat_map(|one| choices(one)));
    }
    out
}

/// The alternatives of a schema but for null; empty if it has none.
fn without_null(schema: &Map<String, Value>) -> Vec<&Map<String, Value>> {
    let all = ["anyOf", "oneOf"].into_iter().flat_map(|name| list(schema, name));
    all.filter_map(Value::as_object).filter(|one| one.get("type").is_none_or(|t| t != "null")).collect()
}

fn list<'v>(object: &'v Map<String, Value>, name: &str) -> &'v [Value] {
    object.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(schema: &Map<String, Value>) -> Option<String> {
    let text = schema.get("description")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;

    /// Not shown.
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Example {
        /// Over
        /// two lines.
        url: String,
        /// How many.
        #[serde(default = "three")]
        count: u32,
        #[serde(default)]
        inner: Inner,
        #[serde(default)]
        rules: Option<Vec<Rule>>,
        #[serde(default)]
        names: std::collections::BTreeMap<String, f64>,
        #[serde(default)]
        any: Value,
    }

    fn three() -> u32 {
        3
    }

    /// What is inside.
    #[derive(Default, Deserialize, serde::Serialize, JsonSchema)]
    struct Inner {
        /// Yes or no.
        #[serde(default)]
        json: bool,
        mode: Option<Mode>,
    }

    #[derive(Deserialize, serde::Serialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        /// The first.
        FirstOne,
        Other,
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Rule {
        /// A glob.
        pattern: String,
    }

    #[test]
    fn parameters_are_listed_with_their_fields() {
        let rows: Vec<String> = parameters(&schemars::schema_for!(Example))
            .into_iter()
            .map(|p| format!("{}: {} {} {:?} {}", p.path, p.kind, p.required, p.default, p.doc))
            .collect();
        expect![[r#"
            url: text true None Over two lines.
            count: whole number false Some("3") How many.
            inner: object false None What is inside.
            inner.json: true or false false Some("false") Yes or no.
            inner.mode: "other" or "first_one" false None 
            rules: list of object false None 
            rules[].pattern: text true None A glob.
            names: object of name: number false Some("{}") 
            any: any value false None "#]]
        .assert_eq(&rows.join("\n"));
    }
}
