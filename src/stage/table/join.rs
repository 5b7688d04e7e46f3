//! `csv.join`: two tables side by side, row by key. Unaware of what the columns mean.

mod layout;
mod report;
mod rows;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::layout::Layout;
use self::report::Sides;
use super::csv::{LineEnd, Table, TableWriter};
use super::keys::{self, Pairs};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};

/// The stage.
pub struct Join;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The key: columns of both tables whose cells, compared as text, say which rows belong together.
    on: Vec<String>,
    /// Value columns of both tables: each appears twice in the result, with the prefix of its side.
    #[serde(default)]
    columns: Vec<String>,
    /// What is put before the names of the value columns.
    #[serde(default)]
    prefix: Prefix,
    /// What becomes of a key that has several rows on a side.
    #[serde(default)]
    on_duplicate: OnDuplicate,
    /// What becomes of a key that only one side has.
    #[serde(default)]
    one_sided: OneSided,
    /// How lines of the result end.
    #[serde(default)]
    line_end: LineEnd,
}

/// The prefixes of the value columns.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Prefix {
    /// Of the left table's value columns.
    left: String,
    /// Of the right table's value columns.
    right: String,
}

impl Default for Prefix {
    fn default() -> Self {
        Self { left: "left_".into(), right: "right_".into() }
    }
}

/// What becomes of a key that has several rows on a side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnDuplicate {
    /// The stage fails; the report lists the keys.
    #[default]
    Fail,
    /// Every left row with every right row.
    Cross,
    /// The first row of each side; the others are counted as dropped.
    First,
    /// The last row of each side; the others are counted as dropped.
    Last,
}

/// What becomes of a key that only one side has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OneSided {
    /// Its rows stay, the other side's value columns empty.
    #[default]
    Keep,
    /// Its rows are counted as dropped.
    Drop,
    /// The stage fails; the report lists the keys.
    Fail,
}

impl Stage for Join {
    fn name(&self) -> &'static str {
        "csv.join"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Joins two CSV tables by key.\n\
                \n\
                Keys are compared as text ('8' and '8.0' differ). Columns of the result: those of the left table without the value\n\
                columns, the left table's value columns with its prefix, the right table's with its own, then the columns that only\n\
                the right table has. Rows: keys by first appearance on the left, all rows of a key together (each left row with each\n\
                right row, in file order), then keys that only the right table has, by first appearance there. A column of both tables\n\
                that is neither key nor value is taken from the left; where its text differs on the right, the report lists the row as\n\
                a conflict.\n\
                \n\
                Report: matched_keys, left_only and right_only (keys), duplicates (key and number of rows per side), conflicts (one per\n\
                joined row: key and columns), match_rate = matched / (matched + left only + right only) counted in keys (null without\n\
                any key), rows and dropped rows per side, completeness (share of filled cells) of each value column, columns of one\n\
                side. It is written before the stage fails for duplicate or one-sided keys: declare it 'on_failure' to keep it.",
        )
        .input("left", "CSV with a header; decides order and shared columns")
        .input("right", "CSV with a header")
        .output("csv", "the joined table")
        .optional_output("report", "JSON: what matched, what did not, what disagreed")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        let fault = |path: &str, message: String| Err(ParamFault { path: path.to_owned(), message });
        if params.on.is_empty() {
            return fault("on", "expected at least one key column".into());
        }
        if let Some(name) = params.columns.iter().find(|name| params.on.contains(name)) {
            return fault(
                "columns",
                format!("'{name}' is a key column (parameter 'on'), it cannot be a value column too"),
            );
        }
        for (path, names) in [("on", &params.on), ("columns", &params.columns)] {
            if let Some((_, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
                return fault(path, format!("'{name}' stands twice"));
            }
        }
        if !params.columns.is_empty() && params.prefix.left == params.prefix.right {
            return fault(
                "prefix",
                "left and right need different prefixes to keep the value columns apart".into(),
            );
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        // a table without rows may lack any column: nothing of that side was there to be written
        let named: Vec<&String> = params.on.iter().chain(&params.columns).collect();
        let (left, right) = (ctx.input("left")?, ctx.input("right")?);
        let (left, right) =
            rayon::join(|| Table::read_hashed(left, &params.on), || Table::read_hashed(right, &params.on));
        let (left, right) = (left?.completed_if_empty(&named), right?.completed_if_empty(&named));
        let layout = Layout::new(&params, &left, &right)?;
        let (left_on, right_on) = (left.require(&params.on, "on")?, right.require(&params.on, "on")?);
        let (left_keys, right_keys) =
            rayon::join(|| keys::group(&left, &left_on), || keys::group(&right, &right_on));
        let pairs = Pairs::new(&left_keys, &right_keys);
        let sides = Sides { on: &params.on, left: &left_keys, right: &right_keys, pairs: &pairs };

        let repeated = report::repeated(sides).count();
        let one_sided = pairs.left_only.len() + pairs.right_only.len();
        let fails_for_repeated = params.on_duplicate == OnDuplicate::Fail && repeated > 0;
        let fails = fails_for_repeated || params.one_sided == OneSided::Fail && one_sided > 0;
        let counts = if fails {
            rows::join(&params, sides, &layout, &mut |_| Ok(()))
        } else {
            let mut header = TableWriter::new(Vec::new(), "csv", params.line_end);
            header.row(&layout.header)?;
            let header = header.finish()?;
            File::create(ctx.output("csv")?).and_then(|mut file| {
                file.write_all(&header)?;
                rows::join(&params, sides, &layout, &mut |text| file.write_all(text))
            })
        }
        .map_err(|e| StageError::io("write output", Path::new("csv"), e))?;

        ctx.write_json("report", &report::report(sides, &layout, &counts))?;
        ctx.log(format!(
            "{} rows; keys: {} matched, {} only in {}, {} only in {}, {repeated} with several rows; {} rows disagree in shared columns",
            counts.joined,
            report::matched(&pairs),
            pairs.left_only.len(),
            left.name(),
            pairs.right_only.len(),
            right.name(),
            counts.conflicts.len()
        ));
        if fails_for_repeated {
            return Err(report::repeated_error(sides));
        }
        if fails {
            return Err(report::one_sided_error(sides));
        }
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests;
