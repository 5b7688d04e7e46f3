//! A JSON value as a cell. Unaware of tables.

use serde_json::Value;

/// Text as it is, numbers in their shortest form, NaN (`null`) as `nan`, anything else as JSON.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "nan".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}
