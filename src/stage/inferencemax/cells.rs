//! From JSON values to the text of table cells: flattened names, numbers, booleans. Unaware of files and of kinds of table.

use indexmap::IndexMap;
use serde_json::value::RawValue;

use super::json_text;
use crate::stage::table::number::python_float;

/// An object with its values as text; of a repeated name the last value counts.
pub type RawObject<'a> = IndexMap<String, &'a RawValue>;

/// How deep nested objects become columns of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// `{parent}_{child}`; what is nested deeper is one cell of JSON text.
    One,
    /// All of it: `{a}_{b}_{c}`.
    All,
}

/// Column name -> cell text.
pub type Row = IndexMap<String, String>;

/// The members of an object, `None` if `raw` is something else.
pub fn members(raw: &RawValue) -> Option<RawObject<'_>> {
    raw.get().starts_with('{').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// The items of an array, `None` if `raw` is something else.
pub fn items(raw: &RawValue) -> Option<Vec<&RawValue>> {
    raw.get().starts_with('[').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// The text of a JSON string, `None` if `raw` is something else.
pub fn text(raw: &RawValue) -> Option<String> {
    raw.get().starts_with('"').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// What kind of value it is, for messages.
pub fn type_name(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Adds the members of a record to `row`. Fails with the column's name if two members claim it, with the place and cause
/// if a text cannot be decoded.
pub fn flatten(record: &RawObject<'_>, depth: Depth, row: &mut Row) -> Result<(), String> {
    for (name, raw) in record {
        put(name.clone(), raw, depth, true, row)?;
    }
    Ok(())
}

fn put(name: String, raw: &RawValue, depth: Depth, top: bool, row: &mut Row) -> Result<(), String> {
    if (top || depth == Depth::All) && raw.get().starts_with('{') {
        let children: RawObject<'_> =
            serde_json::from_str(raw.get()).map_err(|e| format!("'{name}': {e}"))?;
        for (child, value) in children {
            put(format!("{name}_{child}"), value, depth, false, row)?;
        }
        return Ok(());
    }
    let cell = cell(raw).map_err(|e| format!("'{name}': {e}"))?;
    if row.contains_key(&name) {
        return Err(format!("two values for the column '{name}'"));
    }
    row.insert(name, cell);
    Ok(())
}

/// The cell of one value: `True` / `False`, null empty, integers as written, floats in shortest round-trip form as
/// Python's `repr` spells it, text as it is, arrays and objects as JSON text on one line.
pub fn cell(raw: &RawValue) -> Result<String, serde_json::Error> {
    let source = raw.get();
    Ok(match source.as_bytes().first() {
        Some(b'n') => String::new(),
        Some(b't') => "True".to_owned(),
        Some(b'f') => "False".to_owned(),
        Some(b'"') => serde_json::from_str(source)?,
        Some(b'[' | b'{') => json_text::one_line(source),
        _ if source == "-0" => "0".to_owned(),
        _ if source.contains(['.', 'e', 'E']) => python_float(serde_json::from_str(source)?),
        _ => source.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str, depth: Depth) -> Result<Row, String> {
        let record: RawObject<'_> = serde_json::from_str(text).unwrap();
        let mut row = Row::new();
        flatten(&record, depth, &mut row)?;
        Ok(row)
    }

    #[test]
    fn floats_are_spelt_as_python_does() {
        for (text, expected) in [
            ("0.0", "0.0"),
            ("-0.0", "-0.0"),
            ("1.50", "1.5"),
            ("1e5", "100000.0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.5E+22", "1.5e+22"),
            ("123456789012345680.0", "1.2345678901234568e+17"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1.25e-7", "1.25e-07"),
            ("1e-300", "1e-300"),
            ("5e-324", "5e-324"),
            ("0.1", "0.1"),
            ("9007199254740993.0", "9007199254740992.0"),
        ] {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            assert_eq!(cell(raw).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn integers_keep_their_text() {
        for (text, expected) in [
            ("252494", "252494"),
            ("-7", "-7"),
            ("-0", "0"),
            ("123456789012345678901234", "123456789012345678901234"),
        ] {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            assert_eq!(cell(raw).unwrap(), expected);
        }
    }

    #[test]
    fn nested_objects_become_columns() {
        let text = r#"{"a": {"y": 1.0, "deep": {"z": [1,2]}}, "b": null, "c": true, "d": "x,\"y", "e": [1, {"k":"v"}]}"#;
        let one = row(text, Depth::One).unwrap();
        let pairs: Vec<_> = one.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("a_y", "1.0"),
                ("a_deep", "{\"z\": [1, 2]}"),
                ("b", ""),
                ("c", "True"),
                ("d", "x,\"y"),
                ("e", "[1, {\"k\": \"v\"}]")
            ]
        );
        assert_eq!(row(text, Depth::All).unwrap()["a_deep_z"], "[1, 2]");
    }

    #[test]
    fn of_a_repeated_name_the_last_value_counts() {
        assert_eq!(
            row(r#"{"a": 1, "b": 2, "a": 3}"#, Depth::One).unwrap().iter().next().unwrap(),
            (&"a".to_owned(), &"3".to_owned())
        );
    }

    #[test]
    fn two_values_for_one_column_are_an_error() {
        let fault = row(r#"{"a": {"b": 1}, "a_b": 2}"#, Depth::One).unwrap_err();
        assert!(fault.contains("a_b"), "{fault}");
    }
}
