//! `xsum.read`: the first rows of an XSum table as documents with their summaries. Unaware of prompts and models.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use csv::{Position, StringRecord};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::quotes;
use crate::api::{Done, InputFile, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::base::suggest;
use crate::stage::table::jsonl;

/// The stage.
pub(super) struct Read;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How many rows are looked at, from the first; rows that are skipped count. Default: that of the input `task`.
    task_nums: Option<u64>,
    /// The column of the documents.
    #[serde(default = "dialogue")]
    column: String,
    /// The column of the summaries.
    #[serde(default = "summary")]
    reference: String,
}

fn dialogue() -> String {
    "dialogue".to_owned()
}

fn summary() -> String {
    "summary".to_owned()
}

/// Cells that pandas, with which the original reads, takes for missing.
const MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
];

impl Stage for Read {
    fn name(&self) -> &'static str {
        "xsum.read"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "The first rows of a table of articles and summaries.\n\
                \n\
                Of the first task_nums rows, those whose document or summary is missing (an empty cell, or a word that pandas reads as missing:\n\
                NA, N/A, NaN, None, null and the like) are skipped and counted by reason. rows = taken + skipped. The id is that of the column 'id', else the\n\
                number of the row, from 0. The rest of the file is not read.",
        )
        .input("csv", "CSV with a header")
        .optional_input("task", "JSON: {\"task_nums\"}, an output of vendor.config")
        .output("rows", "JSONL: {\"id\", \"document\", \"summary\"}")
        .optional_output("counts", "JSON: {\"asked\", \"rows\", \"taken\", \"skipped\": {reason: n}}")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        if params.task_nums == Some(0) {
            return Err(ParamFault { path: "task_nums".into(), message: "expected at least 1".into() });
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let task_nums = match params.task_nums {
            Some(given) => given,
            None => of_task(ctx.files("task"))?,
        };
        let file = ctx.input("csv")?;
        let unreadable = |e| StageError::io("read", Path::new(&file.name), e);
        let opened = File::open(&file.path).map_err(unreadable)?;
        let length = opened.metadata().map_err(unreadable)?.len();
        let mut reader = ::csv::ReaderBuilder::new().buffer_capacity(1 << 16).from_reader(opened);
        // a quote that is not closed takes the rest of the file into its row
        let closed = |from: &Position, to: &Position| {
            let opened = match to.byte() >= length {
                true => quotes::unclosed(&file.path, from.byte(), from.line()).map_err(unreadable)?,
                false => None,
            };
            opened.map_or(Ok(()), |line| {
                Err(StageError::new(format!(
                    "{}:{line}: a quote that opens in this line is not closed",
                    file.name
                ))
                .hint("expected \" at the end of the cell; within a cell in quotes a quote is written twice"))
            })
        };
        let failed = |e: &::csv::Error, from: &Position, to: &Position| {
            let error = StageError::new(format!("{}:{}: {e}", file.name, from.line()))
                .hint("expected CSV in UTF-8, each row with as many cells as the header");
            match to.line().saturating_sub(from.line()) {
                0 | 1 => error,
                lines => error.hint(format!("the row is {lines} lines long: is a quote in it not closed?")),
            }
        };
        let begin = reader.position().clone();
        let header = reader.headers().cloned();
        closed(&begin, reader.position())?;
        let header = header.map_err(|e| failed(&e, &begin, reader.position()))?;
        let names: Vec<&str> = header.iter().map(|name| name.trim_start_matches('\u{feff}')).collect();
        let once = |name: &str| match names.iter().filter(|column| **column == name).count() {
            0 | 1 => Ok(()),
            count => Err(StageError::new(format!(
                "{}:1: column '{name}' stands {count} times in the header: expected it once",
                file.name
            ))
            .hint("which of them is meant cannot be told: rename or remove the others")),
        };
        [&params.column, &params.reference, "id"].into_iter().try_for_each(once)?;
        let column = |name: &str, param: &str| {
            names.iter().position(|column| *column == name).ok_or_else(|| {
                let error = StageError::new(format!(
                    "{}: no column '{name}' (parameter '{param}'); its header is: {}",
                    file.name,
                    names.join(",")
                ));
                match names[..] {
                    [only] if separator(only).is_some() => error.hint(format!(
                        "the separator looks like {:?}: expected ','",
                        separator(only).unwrap_or(',')
                    )),
                    _ => suggest::hint(name, names.iter().copied()).into_iter().fold(error, StageError::hint),
                }
            })
        };
        let (document, summary) =
            (column(&params.column, "column")?, column(&params.reference, "reference")?);
        let id = names.iter().position(|column| *column == "id");
        let mut skipped: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut rows, mut taken) = (0_u64, 0_u64);
        let mut lines = Vec::new();
        let mut record = StringRecord::new();
        while rows < task_nums {
            let begin = reader.position().clone();
            let found = reader.read_record(&mut record);
            closed(&begin, reader.position())?;
            if !found.map_err(|e| failed(&e, &begin, reader.position()))? {
                break;
            }
            let id = id.map_or_else(|| json!(rows), |id| json!(&record[id]));
            rows += 1;
            let reason = [(document, "document"), (summary, "summary")]
                .into_iter()
                .find_map(|(index, what)| MISSING.contains(&&record[index]).then_some(what));
            if let Some(reason) = reason {
                *skipped.entry(reason).or_default() += 1;
                continue;
            }
            taken += 1;
            let line = json!({"id": id, "document": &record[document], "summary": &record[summary]});
            jsonl::write_line(&mut lines, &line, "rows")?;
        }
        let counts = json!({"asked": task_nums, "rows": rows, "taken": taken, "skipped": skipped});
        let short = if rows < task_nums { format!(" ({task_nums} asked for)") } else { String::new() };
        let message = format!("{rows} rows{short}: {taken} taken, {} skipped", rows - taken);
        ctx.write("rows", &lines)?;
        ctx.write_json("counts", &counts)?;
        ctx.log(message);
        Ok(Done::Made)
    }
}

/// What separates the names of a header that has no commas.
fn separator(header: &str) -> Option<char> {
    [';', '\t', '|'].into_iter().find(|separator| header.contains(*separator))
}

/// The number of rows that the task's file names.
fn of_task(files: &[InputFile]) -> Result<u64, StageError> {
    let [file] = files else {
        return Err(StageError::new("parameter task_nums: missing")
            .hint("give it in 'with', or an input 'task' that holds it"));
    };
    let task: Value = file.read_json()?;
    task["task_nums"].as_u64().filter(|count| *count > 0).ok_or_else(|| {
        StageError::new(format!(
            "{}: member 'task_nums': expected a number above 0, found {}",
            file.name, task["task_nums"]
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;

    #[test]
    fn the_first_rows_and_what_is_skipped() {
        let csv = "\u{feff}id,dialogue,summary\na,\"x, \"\"y\"\"\nz\",s1\nb,,s2\nc,NaN,s3\nd,w,\ne,v,s5\nf,never,read\n";
        let done = Bench::new(&Read, json!({"task_nums": 5}))
            .file("csv", "x.csv", csv)
            .run(&["rows", "counts"])
            .ok();
        let lines: Vec<Value> =
            done.text("rows").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            lines,
            [
                json!({"id": "a", "document": "x, \"y\"\nz", "summary": "s1"}),
                json!({"id": "e", "document": "v", "summary": "s5"})
            ]
        );
        assert_eq!(
            done.json("counts"),
            json!({"asked": 5, "rows": 5, "taken": 2, "skipped": {"document": 2, "summary": 1}})
        );
    }

    #[test]
    fn hints_fit_what_is_wrong() {
        let hints = |csv: &str| {
            let done = Bench::new(&Read, json!({"task_nums": 9})).file("csv", "x.csv", csv).run(&["rows"]);
            done.result.unwrap_err().hints
        };
        assert_eq!(hints("id;dialogue;summary\n1;a;b\n"), ["the separator looks like ';': expected ','"]);
        assert_eq!(hints("dialogue\tsummary\na\tb\n"), ["the separator looks like '\\t': expected ','"]);
        assert_eq!(hints("dialog,summary\n"), ["did you mean 'dialog'?"]);
        let mid = hints("dialogue,summary\na,b\n\"c,d\ne,\"f\ng,h\n");
        assert_eq!(mid[1], "the row is 2 lines long: is a quote in it not closed?");
    }

    #[test]
    fn faults_have_their_place() {
        let error = |csv: &str| {
            let done = Bench::new(&Read, json!({"task_nums": 9})).file("csv", "x.csv", csv).run(&["rows"]);
            let Err(error) = done.result else { panic!("taken: {csv}") };
            error.message
        };
        assert!(error("id,dialog,summary\n").starts_with("x.csv: no column 'dialogue' (parameter 'column')"));
        assert!(error("dialogue,summary\na,b\nc\n").starts_with("x.csv:3: "));
        for twice in ["id,summary,dialogue,summary", "\u{feff}summary,\"summary\",dialogue"] {
            assert_eq!(
                error(&format!("{twice}\n")),
                "x.csv:1: column 'summary' stands 2 times in the header: expected it once"
            );
        }
        assert!(error("id,dialogue,summary,id\n").contains("column 'id' stands 2 times"));
        let quote = "a quote that opens in this line is not closed";
        for (csv, line) in [
            ("dialogue,summary\na,b\n\"c,d\ne,f\n", 3),
            // as many cells as the header
            ("dialogue,summary\na,b\n\nc,\"d\ne,f\n", 4),
            ("dialogue,summary\na,\"b", 2),
            ("\u{feff}dialogue,\"summary\na,b\n", 1),
        ] {
            assert_eq!(error(csv), format!("x.csv:{line}: {quote}"), "{csv}");
        }
        // of columns that nobody asks for it is of no matter
        let other = "dialogue,summary,,\na,b,,\n";
        Bench::new(&Read, json!({"task_nums": 9})).file("csv", "x.csv", other).run(&["rows"]).ok();
    }
}
