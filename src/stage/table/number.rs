//! Numbers and other JSON values as cells. Unaware of tables.

use serde_json::Value;

/// Text as it is, numbers in their shortest form, NaN (`null`) as `nan`, anything else as JSON.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "nan".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// A finite float as Python's `repr`: shortest digits that read back the same; exponent form below 1e-4 and from 1e16.
pub fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if value != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{value:?}"),
    }
}
