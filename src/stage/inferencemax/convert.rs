//! `inferencemax.convert`: the records of one cleaned file as rows of text cells. Unaware of the other files and of CSV.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::{Done, NoParams, ParamFault, Signature, Stage, StageContext, StageError, check_params};

use super::cells::{self, Depth, RawObject, Row};

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Convert;

/// Which of the two charts a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// x is the end-to-end latency in seconds.
    E2e,
    /// x is the interactivity in tokens/s/user.
    Interactivity,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::E2e => "e2e",
            Self::Interactivity => "interactivity",
        })
    }
}

/// The rows of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// `None`: the file is no data, see `reason`.
    pub kind: Option<Kind>,
    /// Why there is no kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Items of `data` that are no objects.
    pub skipped: usize,
    /// In file order: column -> cell text, `model_name` and `sequence_length` first.
    pub rows: Vec<Row>,
}

impl Rows {
    fn none(reason: impl Into<String>) -> Self {
        Self { kind: None, reason: Some(reason.into()), skipped: 0, rows: Vec::new() }
    }
}

/// Words in a file name, in any case, that say that it is no data.
const NO_DATA: [&str; 4] = ["readme", "summary", "cleanup", "report"];

/// The rows of a saved file; `file` is its name without directory, for messages too.
pub fn rows(file: &str, text: &str) -> Result<Rows, StageError> {
    let lower = file.to_lowercase();
    if let Some(word) = NO_DATA.iter().find(|word| lower.contains(**word)) {
        return Ok(Rows::none(format!("the name holds '{word}'")));
    }
    let fault = |what: String| StageError::new(format!("{file}: {what}"));
    let root: RawObject<'_> =
        serde_json::from_str(text).map_err(|e| fault(format!("expected {{\"metadata\", \"data\"}}: {e}")))?;
    let metadata = root.get("metadata").and_then(|raw| cells::members(raw)).unwrap_or_default();
    let entry = |name: &str| metadata.get(name).and_then(|raw| cells::text(raw));
    let kind = match entry("url") {
        Some(url) if url.contains("interactivity.json") => Kind::Interactivity,
        Some(url) if url.contains("e2e.json") => Kind::E2e,
        Some(url) => {
            return Ok(Rows::none(format!(
                "metadata.url '{url}' names neither e2e.json nor interactivity.json"
            )));
        }
        None => return Ok(Rows::none("metadata.url is missing or no text")),
    };
    let required = |name: &str| {
        entry(name).ok_or_else(|| {
            fault(format!("metadata.{name}: expected a text"))
                .hint("every row of the tables carries it; repair the file or take it out of the raw files")
        })
    };
    let model = required("model")?;
    let sequence = required("sequence")?.to_lowercase().replace(' ', "").replace('/', "-");
    let data: Option<&RawValue> = root.get("data").copied();
    let items =
        data.and_then(cells::items).ok_or_else(|| fault("data: expected a list of records".to_owned()))?;
    let mut out = Rows { kind: Some(kind), reason: None, skipped: 0, rows: Vec::with_capacity(items.len()) };
    for (index, item) in items.iter().enumerate() {
        let Some(record) = cells::members(item) else {
            out.skipped += 1;
            continue;
        };
        let mut row = Row::with_capacity(record.len() * 2);
        row.insert("model_name".to_owned(), model.clone());
        row.insert("sequence_length".to_owned(), sequence.clone());
        cells::flatten(&record, Depth::One, &mut row)
            .map_err(|e| fault(format!("record {}: {e}", index + 1)))?;
        out.rows.push(row);
    }
    Ok(out)
}

impl Stage for Convert {
    fn name(&self) -> &'static str {
        "inferencemax.convert"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<NoParams>(
            "Turns the records of one cleaned file into rows of text cells: nested objects flattened one level ({parent}_{child}), True / False, null empty, numbers in shortest round-trip form. The kind comes from metadata.url.",
        )
        .input("data", "a cleaned file")
        .output(
            "rows",
            "{\"kind\": \"e2e\" | \"interactivity\" | null, \"reason\", \"skipped\", \"rows\": [{column: cell}]}",
        )
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<NoParams>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let file = ctx.input("data")?;
        let name = file.file_name().to_owned();
        let rows = rows(&name, &file.read_text()?)?;
        if let Some(reason) = &rows.reason {
            ctx.log(format!("{name}: no rows: {reason}"));
        }
        ctx.write_json("rows", &rows)?;
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(url: &str, data: &str) -> String {
        format!(
            "{{\"metadata\": {{\"model\": \"M\", \"sequence\": \"1K / 8K\", \"url\": \"{url}\"}}, \"data\": {data}}}"
        )
    }

    #[test]
    fn records_become_rows_of_text() {
        let text = file(
            "/d/m-1k_8k-e2e.json",
            "[{\"conc\": 4, \"c\": {\"roof\": false, \"y\": 1.0}, \"n\": null}, 3]",
        );
        let rows = rows("a.json", &text).unwrap();
        assert_eq!((rows.kind, rows.skipped, rows.rows.len()), (Some(Kind::E2e), 1, 1));
        let cells: Vec<_> = rows.rows[0].iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            cells,
            ["model_name=M", "sequence_length=1k-8k", "conc=4", "c_roof=False", "c_y=1.0", "n="]
        );
    }

    #[test]
    fn what_is_no_data_says_why() {
        let text = file("/d/m-interactivity.json", "[]");
        assert_eq!(rows("a.json", &text).unwrap().kind, Some(Kind::Interactivity));
        for name in ["my_Summary.json", "CLEANUP_x.json", "ReadMe.json", "a_report.json"] {
            let rows = rows(name, &text).unwrap();
            assert!(rows.kind.is_none() && rows.reason.is_some(), "{name}");
        }
        assert!(rows("a.json", &file("/other", "[]")).unwrap().reason.unwrap().contains("/other"));
        assert!(
            rows("a.json", "{\"metadata\": 3, \"data\": []}")
                .unwrap()
                .reason
                .unwrap()
                .contains("metadata.url")
        );
    }

    #[test]
    fn a_record_that_cannot_be_a_row_is_named() {
        let text = file("/d/e2e.json", "[{}, {\"a\": {\"b\": 1}, \"a_b\": 2}]");
        let error = rows("a.json", &text).unwrap_err().message;
        assert_eq!(error, "a.json: record 2: two values for the column 'a_b'");
        let text = "{\"metadata\": {\"url\": \"e2e.json\"}, \"data\": []}";
        assert!(rows("a.json", text).unwrap_err().message.contains("metadata.model"));
    }
}
