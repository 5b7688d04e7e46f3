//! `inferencemax.tables`: the rows of all files as two CSVs, with the dictionary of their columns. Unaware of records and of joining.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::{
    Done, InputFile, NoParams, ParamFault, Signature, Stage, StageContext, StageError, check_params,
};

use super::cells::Row;
use super::columns::{self, Column};
use super::convert::{Kind, Rows};

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Tables;

/// First columns of both tables.
const FIRST: [&str; 2] = ["model_name", "sequence_length"];

/// The header of a table: [`FIRST`], then the union of the rows' other columns in code-point order.
fn header(rows: &[Row]) -> Vec<&str> {
    let others: BTreeSet<&str> =
        rows.iter().flat_map(Row::keys).map(String::as_str).filter(|name| !FIRST.contains(name)).collect();
    FIRST.into_iter().chain(others).collect()
}

/// Rows as CSV: comma, CRLF, minimal quoting; a missing cell is empty.
pub(super) fn csv_text(header: &[&str], rows: &[Row]) -> Result<Vec<u8>, StageError> {
    let fault = |e: csv::Error| StageError::new(format!("failed to write CSV: {e}"));
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(header).map_err(fault)?;
    for row in rows {
        writer
            .write_record(header.iter().map(|name| row.get(*name).map_or("", String::as_str)))
            .map_err(fault)?;
    }
    writer.into_inner().map_err(|e| StageError::new(format!("failed to write CSV: {e}")))
}

/// Every column of the two tables and of their join.
fn dictionary(e2e: &[&str], interactivity: &[&str]) -> Vec<Column> {
    let others: BTreeSet<&str> =
        e2e.iter().chain(interactivity).copied().filter(|name| !FIRST.contains(name)).collect();
    let mut names: Vec<String> = FIRST.into_iter().chain(others).map(str::to_owned).collect();
    for (prefix, table) in [("e2e_", e2e), ("inter_", interactivity)] {
        names.extend(
            ["x", "y"].iter().filter(|axis| table.contains(axis)).map(|axis| format!("{prefix}{axis}")),
        );
    }
    names.iter().map(|name| columns::describe(name)).collect()
}

fn read(file: &InputFile) -> Result<Rows, StageError> {
    serde_json::from_slice(&file.read()?)
        .map_err(|e| StageError::new(format!("{}: expected rows of inferencemax.convert: {e}", file.name)))
}

impl Stage for Tables {
    fn name(&self) -> &'static str {
        "inferencemax.tables"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<NoParams>(
            "Gathers the rows of inferencemax.convert in name order into one CSV per kind (comma, CRLF, minimal quoting) and writes the dictionary of their columns: units and meanings, unknown columns named.",
        )
        .input_list("rows", "rows of inferencemax.convert")
        .output("e2e", "CSV: x is the end-to-end latency in s")
        .output("interactivity", "CSV: x is the interactivity in tok/s/user")
        .optional_output("columns", "[{\"name\", \"unit\", \"meaning\"}]")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<NoParams>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let mut files = ctx.files("rows").to_vec();
        files.sort_by(|a, b| (a.file_name(), &a.name).cmp(&(b.file_name(), &b.name)));
        let (mut e2e, mut interactivity) = (Vec::new(), Vec::new());
        for file in &files {
            let rows = read(file)?;
            match rows.kind {
                Some(Kind::E2e) => e2e.extend(rows.rows),
                Some(Kind::Interactivity) => interactivity.extend(rows.rows),
                None => {
                    let reason = rows.reason.as_deref().unwrap_or("no reason given");
                    ctx.log(format!("{}: in no table: {reason}", file.file_name()));
                }
            }
        }
        let (left, right) = (header(&e2e), header(&interactivity));
        let dictionary = dictionary(&left, &right);
        for column in dictionary.iter().filter(|column| column.meaning == columns::UNKNOWN) {
            ctx.log(format!("the column '{}' is not in the dictionary", column.name));
        }
        ctx.write("e2e", &csv_text(&left, &e2e)?)?;
        ctx.write("interactivity", &csv_text(&right, &interactivity)?)?;
        ctx.write_json("columns", &dictionary)?;
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;
    use serde_json::json;

    fn rows(kind: Option<&str>, rows: Value) -> String {
        json!({"kind": kind, "skipped": 0, "rows": rows}).to_string()
    }

    #[test]
    fn files_go_in_name_order_under_the_union_of_their_columns() {
        let done = Bench::new(&Tables, json!({}))
            .file("rows", "rows/b.json", rows(Some("e2e"), json!([{"model_name": "M", "sequence_length": "s", "x": "1", "hwKey": "h"}])))
            .file("rows", "rows/a.json", rows(Some("e2e"), json!([{"model_name": "M", "sequence_length": "s", "costr_y": "a \"b\", c", "new": "2\n3"}])))
            .file("rows", "rows/c.json", rows(None, json!([])))
            .run(&["e2e", "interactivity", "columns"])
            .ok();
        assert_eq!(
            done.text("e2e"),
            "model_name,sequence_length,costr_y,hwKey,new,x\r\nM,s,\"a \"\"b\"\", c\",,\"2\n3\",\r\nM,s,,h,,1\r\n"
        );
        assert_eq!(done.text("interactivity"), "model_name,sequence_length\r\n");
        let columns = done.json("columns");
        let names: Vec<_> = columns.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["model_name", "sequence_length", "costr_y", "hwKey", "new", "x", "e2e_x"]);
        assert_eq!(columns[4], json!({"name": "new", "unit": null, "meaning": columns::UNKNOWN}));
        assert_eq!(done.log.len(), 2, "{:?}", done.log);
    }

    #[test]
    fn quoting_is_pythons_minimal_one() {
        let row: Row = [("model_name", " lead"), ("sequence_length", "a'b#;\t")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into_iter()
            .collect();
        let text =
            |header: &[&str], rows: &[Row]| String::from_utf8(csv_text(header, rows).unwrap()).unwrap();
        assert_eq!(text(&FIRST, &[row]), "model_name,sequence_length\r\n lead,a'b#;\t\r\n");
        // a record of one empty cell is quoted, else it would be an empty line
        assert_eq!(text(&["a"], &[Row::new()]), "a\r\n\"\"\r\n");
        assert_eq!(text(&["a", "b"], &[Row::new()]), "a,b\r\n,\r\n");
        let cr: Row = [("a".to_owned(), "x\ry".to_owned())].into_iter().collect();
        assert_eq!(text(&["a"], &[cr]), "a\r\n\"x\ry\"\r\n");
    }
}
