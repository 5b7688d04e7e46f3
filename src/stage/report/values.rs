//! Input files and JSON as values of the template engine, and the filters for them. Unaware of templates.

use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use minijinja::{Error, ErrorKind};

use crate::api::{InputFile, StageError};
use crate::stage::table::csv::Table;

/// The value of one input file, by the ending of its name: JSON parsed, CSV as a [`TableValue`], anything else as text.
pub(super) fn of_file(file: &InputFile) -> Result<Value, StageError> {
    match file.file_name().rsplit_once('.').map(|(_, ending)| ending) {
        Some("json") => Ok(of_json(file.read_json()?)),
        Some("csv") => Ok(Value::from_object(TableValue(Arc::new(Table::read(file)?)))),
        _ => Ok(Value::from(file.read_text()?)),
    }
}

/// The same value for the template engine; keys stay in order.
pub(super) fn of_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => Value::from(b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text),
        serde_json::Value::Array(items) => items.into_iter().map(of_json).collect(),
        serde_json::Value::Object(map) => Value::from_pairs(map.into_iter().map(|(k, v)| (k, of_json(v)))),
    }
}

/// A table: `columns` (names), `rows` (their number), `table` (a list of rows, each column -> text).
#[derive(Debug)]
pub(super) struct TableValue(Arc<Table>);

impl Object for TableValue {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "columns" => Some(Value::from(self.0.columns().to_vec())),
            "rows" => Some(Value::from(self.0.len())),
            "table" => Some(Value::from_object(RowsValue(self.0.clone()))),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["columns", "rows", "table"])
    }
}

/// The rows of a table, each made when it is looked at.
#[derive(Debug)]
struct RowsValue(Arc<Table>);

impl Object for RowsValue {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let number = key.as_usize().filter(|number| *number < self.0.len())?;
        let row = self.0.row(number).read();
        Some(Value::from_pairs(
            self.0.columns().iter().zip(row.cells()).map(|(k, v)| (k.clone(), Value::from(v))),
        ))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

/// Filter `count_by(column)`: the values of a table's column, or of an attribute of a list's items, with `value`, `count` and
/// `share` (of 1), most frequent first, equally frequent ones by value.
pub(super) fn count_by(source: &Value, column: &str) -> Result<Value, Error> {
    let mut counts: IndexMap<String, usize> = IndexMap::new();
    if let Some(table) = source.downcast_object_ref::<TableValue>() {
        let Some(index) = table.0.column(column) else {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!(
                    "{} has no column '{column}'; its header is: {}",
                    table.0.name(),
                    table.0.columns().join(",")
                ),
            ));
        };
        for row in table.0.rows() {
            *counts.entry(row.cell(index).into_owned()).or_default() += 1;
        }
    } else {
        for item in source.try_iter()? {
            let value = item.get_attr(column)?;
            if value.is_undefined() {
                return Err(Error::new(ErrorKind::UndefinedError, format!("an item has no '{column}'")));
            }
            *counts.entry(text(&value)?).or_default() += 1;
        }
    }
    let all: usize = counts.values().sum();
    counts.sort_by(|a, n, b, m| m.cmp(n).then_with(|| a.cmp(b)));
    Ok(counts
        .into_iter()
        .map(|(value, count)| {
            Value::from_pairs([
                ("value", Value::from(value)),
                ("count", Value::from(count)),
                ("share", Value::from(count as f64 / all as f64)),
            ])
        })
        .collect())
}

/// Filter `percent(digits=1)`: a share as text, `0.509` as `50.9 %`; of nothing (null) `-`.
pub(super) fn percent(share: &Value, digits: Option<usize>) -> Result<String, Error> {
    if share.is_none() {
        return Ok("-".to_owned());
    }
    let share = f64::try_from(share.clone())?;
    Ok(format!("{:.*} %", digits.unwrap_or(1), share * 100.0))
}

/// Filter `cell`: a value as one cell of a Markdown table; null is empty, lists are joined with `, `.
pub(super) fn cell(value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "the filter 'cell' got no value"));
    }
    Ok(crate::stage::table::markdown::cell(&text(value)?))
}

fn text(value: &Value) -> Result<String, Error> {
    if value.is_none() {
        return Ok(String::new());
    }
    if value.as_object().is_some_and(|o| o.repr() == ObjectRepr::Seq) {
        return Ok(value.try_iter()?.map(|item| text(&item)).collect::<Result<Vec<_>, _>>()?.join(", "));
    }
    Ok(value.to_string())
}

/// Filter `pairs`: an object as `a=1, b=2`, for keys in running text and cells.
pub(super) fn pairs(value: &Value) -> Result<String, Error> {
    let mut parts = Vec::new();
    for key in value.try_iter()? {
        parts.push(format!("{key}={}", text(&value.get_item(&key)?)?));
    }
    Ok(parts.join(", "))
}
