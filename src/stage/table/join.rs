//! `csv.join`: two tables side by side, row by key. Unaware of what the columns mean.

mod layout;
mod report;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::layout::Layout;
use self::report::{Conflict, Report, duplicate_error, one_sided_error, share};
use super::csv::{LineEnd, Row, Table, TableWriter};
use super::keys;
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
        let left = Table::read(ctx.input("left")?)?.completed_if_empty(&named);
        let right = Table::read(ctx.input("right")?)?.completed_if_empty(&named);
        let layout = Layout::new(&params, &left, &right)?;
        let left_keys = keys::group(&left, &left.require(&params.on, "on")?);
        let right_keys = keys::group(&right, &right.require(&params.on, "on")?);

        let mut report = Report::new(&params.on, &left, &right, &left_keys, &right_keys);
        let mut writer = TableWriter::new(Vec::new(), "csv", params.line_end);
        writer.row(&layout.header)?;
        let mut filled = vec![0_u64; layout.header.len()];
        let mut emit = |l: Option<&Row>, r: Option<&Row>, report: &mut Report| {
            let cells = layout.row(l, r);
            filled.iter_mut().zip(&cells).for_each(|(n, cell)| *n += u64::from(!cell.is_empty()));
            report.rows.joined += 1;
            writer.row(cells)
        };
        for (key, l_rows) in &left_keys {
            let Some(r_rows) = right_keys.get(key) else {
                if params.one_sided == OneSided::Keep {
                    let picked = pick(l_rows, params.on_duplicate);
                    report.dropped.left += (l_rows.len() - picked.len()) as u64;
                    picked.iter().try_for_each(|l| emit(Some(&left.rows()[*l]), None, &mut report))?;
                } else {
                    report.dropped.left += l_rows.len() as u64;
                }
                continue;
            };
            let (l_picked, r_picked) = (pick(l_rows, params.on_duplicate), pick(r_rows, params.on_duplicate));
            if l_picked.is_empty() || r_picked.is_empty() {
                continue;
            }
            report.dropped.left += (l_rows.len() - l_picked.len()) as u64;
            report.dropped.right += (r_rows.len() - r_picked.len()) as u64;
            for l in l_picked.iter().map(|l| &left.rows()[*l]) {
                for r in r_picked.iter().map(|r| &right.rows()[*r]) {
                    let columns = layout.conflicts(l, r);
                    if !columns.is_empty() {
                        report.conflicts.push(Conflict { key: keys::to_json(&params.on, key), columns });
                    }
                    emit(Some(l), Some(r), &mut report)?;
                }
            }
        }
        for (_, r_rows) in right_keys.iter().filter(|(key, _)| !left_keys.contains_key(*key)) {
            let picked =
                if params.one_sided == OneSided::Keep { pick(r_rows, params.on_duplicate) } else { &[] };
            report.dropped.right += (r_rows.len() - picked.len()) as u64;
            picked.iter().try_for_each(|r| emit(None, Some(&right.rows()[*r]), &mut report))?;
        }
        let joined = report.rows.joined;
        report.completeness =
            layout.values.clone().map(|i| (layout.header[i].clone(), share(filled[i], joined))).collect();
        report.columns.left_only = layout.left_only.clone();
        report.columns.right_only = layout.right_only.clone();

        ctx.write_json("report", &report)?;
        ctx.log(format!(
            "{joined} rows; keys: {} matched, {} only in {}, {} only in {}, {} with several rows; {} rows disagree in shared columns",
            report.matched_keys,
            report.left_only.len(),
            left.name(),
            report.right_only.len(),
            right.name(),
            report.duplicates.len(),
            report.conflicts.len()
        ));
        if params.on_duplicate == OnDuplicate::Fail && !report.duplicates.is_empty() {
            return Err(duplicate_error(&params.on, &left, &right, &left_keys, &right_keys));
        }
        if params.one_sided == OneSided::Fail && report.left_only.len() + report.right_only.len() > 0 {
            return Err(one_sided_error(&params.on, &left, &right, &left_keys, &right_keys));
        }
        ctx.output("csv")?;
        ctx.write("csv", &writer.finish()?)?;
        Ok(Done::Made)
    }
}

/// The rows of a key that take part: none of several when the stage is about to fail for them.
fn pick(rows: &[usize], policy: OnDuplicate) -> &[usize] {
    match policy {
        OnDuplicate::Fail if rows.len() > 1 => &[],
        OnDuplicate::Fail | OnDuplicate::Cross => rows,
        OnDuplicate::First => &rows[..1],
        OnDuplicate::Last => &rows[rows.len() - 1..],
    }
}

#[cfg(test)]
mod tests;
