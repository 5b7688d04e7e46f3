//! The JSON Schema of the workflow file, for editors. Unaware of references' meaning; the reader is the judge.

use serde_json::{Map, Value, json};

use crate::api::{Arity, Catalog};

use super::keys;

/// JSON Schema (draft 2020-12) of a workflow file; stages and simulators are those of `catalog`.
pub fn schema(catalog: &Catalog) -> Value {
    let mut definitions = Map::new();
    let stages: Vec<&str> = catalog.stages().map(|stage| stage.name()).collect();
    let simulators: Vec<&str> = catalog.simulators().map(|info| info.name).collect();
    let mut step_rules = Vec::new();
    for stage in catalog.stages() {
        let signature = stage.signature();
        let name = format!("with.{}", stage.name());
        let inputs = signature.inputs.iter().map(|port| (port.name, port.arity == Arity::One, port.doc));
        let outputs = signature.outputs.iter().map(|port| (port.name, !port.optional, port.doc));
        step_rules.push(json!({
            "if": {"properties": {"uses": {"const": stage.name()}}, "required": ["uses"]},
            "then": {"properties": {
                "with": {"$ref": format!("#/$defs/{name}")},
                "inputs": ports(inputs, "#/$defs/input"),
                "outputs": ports(outputs, "#/$defs/output"),
            }}
        }));
        definitions.insert(name, embedded(signature.params.as_value()));
    }
    let mut service_rules = Vec::new();
    for info in catalog.simulators() {
        let name = format!("with.{}", info.name);
        service_rules.push(json!({
            "if": {"properties": {"uses": {"const": info.name}}, "required": ["uses"]},
            "then": {"properties": {"with": {"$ref": format!("#/$defs/{name}")}}}
        }));
        definitions.insert(name, embedded(info.params.as_value()));
    }
    let step = object(keys::STEP, step_property(&stages));
    let mut whole_step = step.clone();
    whole_step["oneOf"] = json!([{"required": ["uses"]}, {"required": ["run"]}]);
    rules(&mut whole_step, step_rules);
    let mut service = object(keys::SERVICE, service_property(&simulators));
    service["oneOf"] = json!([{"required": ["uses"]}, {"required": ["run"]}]);
    rules(&mut service, service_rules);
    for (name, value) in [
        ("step", whole_step),
        ("stepPart", step),
        ("service", service),
        ("reference", json!({"type": "string", "pattern": "\\$\\{"})),
        ("duration", json!({"type": "string", "pattern": "^[0-9.]+ *(ms|s|m|min|h|d)$"})),
        (
            "command",
            json!({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}),
        ),
        ("tool", json!({"anyOf": [{"type": "string"}, object(keys::TOOL, |_| texts())]})),
        (
            "input",
            json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/input"}}]}),
        ),
        (
            "output",
            json!({"anyOf": [{"type": "string"}, required(object(keys::OUTPUT, |key| match key {
            "path" => json!({"type": "string"}),
            _ => json!({"type": "boolean"}),
        }), &["path"])]}),
        ),
        (
            "env",
            json!({"type": "object", "additionalProperties": {"anyOf": [
                {"type": ["string", "number", "boolean"]},
                {"$ref": "#/$defs/secret"},
            ]}}),
        ),
        (
            "secret",
            json!({
                "type": "object", "required": ["secret"], "additionalProperties": false,
                "properties": {"secret": {"type": "string"}, "format": {"type": "string", "pattern": "\\{\\}"}}
            }),
        ),
        ("axis", axis()),
        ("combinations", json!({"anyOf": [{"type": "array"}, {"$ref": "#/$defs/reference"}]})),
        ("resources", resources()),
    ] {
        definitions.insert(name.to_owned(), value);
    }
    let mut profile = object(keys::PROFILE, workflow_property);
    profile["properties"]["steps"] = json!({"type": "object", "additionalProperties": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/stepPart"}]}});
    profile["properties"]["services"] = json!({"type": "object", "additionalProperties": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/service"}]}});
    definitions.insert("profile".to_owned(), profile);
    definitions.sort_keys();
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flow workflow",
    });
    if let (Value::Object(all), Value::Object(rest)) =
        (&mut schema, required(object(keys::WORKFLOW, workflow_property), &["name"]))
    {
        all.extend(rest);
        all.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

/// The text of `schemas/workflow.schema.json`.
pub fn schema_text(catalog: &Catalog) -> String {
    let mut text = serde_json::to_string_pretty(&schema(catalog)).unwrap_or_default();
    text.push('\n');
    text
}

fn object(keys: &[&str], property: impl Fn(&str) -> Value) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), property(key))).collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// Adds conditional parts; an empty list of them would be no schema.
fn rules(object: &mut Value, rules: Vec<Value>) {
    if !rules.is_empty() {
        object["allOf"] = Value::Array(rules);
    }
}

fn required(mut object: Value, keys: &[&str]) -> Value {
    object["required"] = json!(keys);
    object
}

fn texts() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

fn map_of(definition: &str) -> Value {
    json!({"type": "object", "additionalProperties": {"$ref": format!("#/$defs/{definition}")}})
}

fn workflow_property(key: &str) -> Value {
    match key {
        "$schema" | "description" => json!({"type": "string"}),
        "name" => json!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}),
        "include" => json!({"type": "array", "items": {"anyOf": [
            {"type": "string"},
            required(object(keys::INCLUDE, |key| match key {
                "params" => json!({"type": "object"}),
                _ => json!({"type": "string"}),
            }), &["file"]),
        ]}}),
        "params" => json!({"type": "object"}),
        "profiles" => map_of("profile"),
        "env" => json!({"$ref": "#/$defs/env"}),
        "defaults" => json!({"$ref": "#/$defs/stepPart"}),
        "resources" => json!({"$ref": "#/$defs/resources"}),
        "services" => map_of("service"),
        "steps" => map_of("step"),
        _ => object(keys::ON_FINISH, |key| match key {
            "run" => json!({"$ref": "#/$defs/command"}),
            "shell" => texts(),
            _ => json!({"type": "string"}),
        }),
    }
}

fn step_property(stages: &[&str]) -> impl Fn(&str) -> Value {
    let stages = names(stages);
    move |key| match key {
        "uses" => stages.clone(),
        "with" => json!({"type": "object"}),
        "run" => json!({"$ref": "#/$defs/command"}),
        "shell" | "needs" | "pass_env" => texts(),
        "implicit" | "allow_failure" | "launcher" => json!({"type": "boolean"}),
        "inputs" => map_of("input"),
        "outputs" => map_of("output"),
        "matrix" => matrix(),
        "repeats" => json!({"anyOf": [{"type": "integer", "minimum": 1}, {"$ref": "#/$defs/reference"}]}),
        "env" => json!({"$ref": "#/$defs/env"}),
        "tools" => json!({"type": "array", "items": {"$ref": "#/$defs/tool"}}),
        "resources" => object(keys::STEP_RESOURCES, |key| match key {
            "cpu" => json!({"type": "integer", "minimum": 1}),
            "mem" => json!({"type": ["string", "integer"]}),
            "pool" => json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}}),
            "exclusive" => json!({"type": ["boolean", "string"]}),
            "jobserver" => json!({"enum": [true, false, "fifo", "pipe"]}),
            _ => gpu(),
        }),
        "retry" => object(keys::RETRY, |key| match key {
            "max" => json!({"type": "integer", "minimum": 0}),
            _ => json!({"$ref": "#/$defs/duration"}),
        }),
        "timeout" => json!({"$ref": "#/$defs/duration"}),
        "cache" => json!({"anyOf": [
            {"enum": keys::POLICIES},
            {"type": "object", "additionalProperties": false, "required": ["fresh_for"],
             "properties": {"fresh_for": {"$ref": "#/$defs/duration"}}},
        ]}),
        "shard" => json!({"type": "object"}),
        _ => json!({"type": "string"}),
    }
}

fn service_property(simulators: &[&str]) -> impl Fn(&str) -> Value {
    let simulators = names(simulators);
    move |key| match key {
        "uses" => simulators.clone(),
        "with" => json!({"type": "object"}),
        "matrix" => matrix(),
        "resources" => object(keys::SERVICE_RESOURCES, |_| gpu()),
        "per" => json!({"enum": ["gpu"]}),
        "run" => json!({"$ref": "#/$defs/command"}),
        "shell" => texts(),
        "env" => json!({"$ref": "#/$defs/env"}),
        "replicas" => json!({"type": "integer", "minimum": 1}),
        "port" => json!({"type": "integer", "minimum": 1, "maximum": 65535}),
        "ready" => object(keys::READY, |key| match key {
            "tcp" => json!({"const": true}),
            "timeout" => json!({"$ref": "#/$defs/duration"}),
            _ => json!({"type": "string"}),
        }),
        "stop" => json!({"$ref": "#/$defs/duration"}),
        "identity" => object(keys::IDENTITY, |key| match key {
            "tools" => json!({"type": "array", "items": {"$ref": "#/$defs/tool"}}),
            _ => texts(),
        }),
        _ => json!({"type": "string"}),
    }
}

/// One of the known names, for completion in editors.
fn names(known: &[&str]) -> Value {
    match known.is_empty() {
        true => json!({"type": "string"}),
        false => json!({"type": "string", "enum": known}),
    }
}

fn matrix() -> Value {
    json!({"type": "object", "additionalProperties": {"$ref": "#/$defs/axis"}, "properties": {
        "include": {"$ref": "#/$defs/combinations"}, "exclude": {"$ref": "#/$defs/combinations"},
    }})
}

fn gpu() -> Value {
    json!({"anyOf": [
        {"type": "integer", "minimum": 1},
        object(keys::GPU, |key| match key {
            "count" => json!({"type": "integer", "minimum": 1}),
            "mem" => json!({"type": ["string", "integer"]}),
            _ => json!({"type": "string", "minLength": 1}),
        }),
    ]})
}

fn axis() -> Value {
    json!({"anyOf": [
        {"type": "array"},
        {"$ref": "#/$defs/reference"},
        {"type": "object", "additionalProperties": false, "required": ["glob"],
         "properties": {"glob": {"$ref": "#/$defs/input"}}},
        {"type": "object", "additionalProperties": false, "required": ["start", "end"],
         "oneOf": [{"required": ["factor"]}, {"required": ["step"]}],
         "properties": {"start": {"type": "number"}, "end": {"type": "number"},
                        "factor": {"type": "number", "exclusiveMinimum": 1},
                        "step": {"type": "number", "exclusiveMinimum": 0}}},
    ]})
}

fn resources() -> Value {
    object(keys::RESOURCES, |key| match key {
        "devices" => {
            json!({"type": "string", "pattern": "^gpu:(auto|([0-9]+|(GPU|MIG)-[^,]+)(,([0-9]+|(GPU|MIG)-[^,]+))*,?)$"})
        }
        "pools" => json!({"type": "object", "additionalProperties": {"anyOf": [
            {"type": "integer", "minimum": 1},
            required(object(keys::POOL, |key| match key {
                "size" => json!({"type": "integer", "minimum": 1}),
                _ => json!({"enum": ["run", "machine"]}),
            }), &["size"]),
        ]}}),
        _ => json!({"type": "object"}),
    })
}

fn ports<'a>(ports: impl Iterator<Item = (&'a str, bool, &'a str)>, definition: &str) -> Value {
    let (mut properties, mut needed, mut any) = (Map::new(), Vec::new(), false);
    for (name, required, doc) in ports {
        if name == "*" {
            any = true;
            continue;
        }
        properties.insert(name.to_owned(), json!({"description": doc, "$ref": definition}));
        if required {
            needed.push(name);
        }
    }
    let others = if any { json!({"$ref": definition}) } else { json!(false) };
    json!({"type": "object", "properties": properties, "required": needed, "additionalProperties": others})
}

/// The schema of a stage's parameters, made to stand inside another one: a reference is allowed for every value, and definitions
/// are reached from where they are.
fn embedded(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let definitions = match &mut schema {
        Value::Object(map) => {
            map.remove("$schema");
            map.remove("title");
            map.remove("$defs")
        }
        _ => None,
    };
    let Some(Value::Object(definitions)) = definitions else { return lenient(schema, true) };
    inline(&mut schema, &definitions, 0);
    lenient(schema, true)
}

/// Puts the definitions of a stage's schema in place of references to them; what refers to itself is left open.
fn inline(schema: &mut Value, definitions: &Map<String, Value>, depth: usize) {
    match schema {
        Value::Object(map) => {
            let name = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
            let found = name.and_then(|name| definitions.get(name)).cloned();
            if let Some(found) = found {
                map.remove("$ref");
                if let (Value::Object(found), true) = (found, depth < 16) {
                    for (key, value) in found {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            map.values_mut().for_each(|value| inline(value, definitions, depth + 1));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| inline(item, definitions, depth + 1)),
        _ => {}
    }
}

/// Lets `${...}` or a secret stand for every value below the top.
fn lenient(schema: Value, top: bool) -> Value {
    let Value::Object(mut map) = schema else { return schema };
    for key in ["properties", "patternProperties"] {
        if let Some(Value::Object(properties)) = map.get_mut(key) {
            properties.values_mut().for_each(|value| *value = lenient(value.take(), false));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(value) = map.get_mut(key).filter(|value| value.is_object()) {
            *value = lenient(value.take(), false);
        }
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(Value::Array(items)) = map.get_mut(key) {
            items.iter_mut().for_each(|item| *item = lenient(item.take(), true));
        }
    }
    if top {
        return Value::Object(map);
    }
    let mut open = Map::new();
    for key in ["description", "default"] {
        open.extend(map.remove(key).map(|value| (key.to_owned(), value)));
    }
    let alternatives = json!([Value::Object(map), {"$ref": "#/$defs/reference"}, {"$ref": "#/$defs/secret"}]);
    open.insert("anyOf".to_owned(), alternatives);
    Value::Object(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_in_the_repository_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/workflow.schema.json");
        let wanted = schema_text(&crate::stage::catalog());
        if std::env::var_os("FLOW_UPDATE").is_some() {
            crate::base::files::write_atomic(&path, wanted.as_bytes()).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "schemas/workflow.schema.json is not current: run the tests with FLOW_UPDATE=1"
        );
    }

    #[test]
    fn every_local_reference_of_the_schema_leads_somewhere() {
        fn walk(value: &Value, root: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(target)) = map.get("$ref") {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(root.pointer(pointer).is_some(), "{target}");
                    }
                    map.values().for_each(|v| walk(v, root));
                }
                Value::Array(items) => items.iter().for_each(|v| walk(v, root)),
                _ => {}
            }
        }
        let schema = schema(&super::super::tests::catalog());
        walk(&schema, &schema);
        assert_eq!(schema["$defs"]["step"]["properties"]["uses"]["enum"][0], "aisbench.export");
    }
}
