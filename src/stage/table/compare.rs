//! `table.compare`: what changed between two versions of a table. Unaware of what the columns mean.

mod difference;
mod summary;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::difference::between;
use self::summary::{Change, Columns, Summary};
use super::csv::{LineEnd, Table, TableWriter};
use super::keys::{self, Groups, Pairs};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};

/// The columns of the output `changes` after the key.
const CHANGE_COLUMNS: [&str; 6] = ["column", "old", "new", "absolute", "relative", "beyond_noise"];

/// The stage.
pub struct Compare;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The key: columns of both tables whose cells, compared as text, say which rows are the same thing.
    on: Vec<String>,
    /// The columns to compare; without it all that both tables have, but the key and `spread`.
    #[serde(default)]
    columns: Option<Vec<String>>,
    /// A number that changed by this share of its old value or less is within noise: 0.01 is 1 %.
    #[serde(default)]
    threshold: f64,
    /// Columns that tell the repeats of one measurement apart (e.g. `repeat`): rows that differ only there are one sample.
    #[serde(default)]
    spread: Vec<String>,
    /// What makes the stage fail, after its outputs are written.
    #[serde(default)]
    fail_on: Option<FailOn>,
}

/// What makes the stage fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum FailOn {
    /// A value beyond noise.
    Changed,
    /// A key of the old table that the new one lacks.
    Removed,
    /// A value beyond noise, a key removed or a key added.
    Any,
}

impl FailOn {
    fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Any => "any",
        }
    }

    fn applies(self, summary: &Summary) -> bool {
        match self {
            Self::Changed => !summary.changed.is_empty(),
            Self::Removed => summary.removed > 0,
            Self::Any => !summary.changed.is_empty() || summary.removed + summary.added > 0,
        }
    }
}

impl Stage for Compare {
    fn name(&self) -> &'static str {
        "table.compare"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Compares two versions of a CSV table by key.\n\
                \n\
                Keys are compared as text and must be unique in both tables (with 'spread': unique together with those columns);\n\
                otherwise the stage refuses, naming keys, files and lines. Cells are compared as numbers where both are numbers,\n\
                else as text. absolute = new - old, relative = (new - old) / |old|; both empty where a side is no finite number,\n\
                relative also where old is 0. NaN equals NaN and differs from everything else. A change is beyond noise if it is no\n\
                change of a number, or if |relative| is above 'threshold' (always where old is 0) and, with repeats, the ranges\n\
                [min, max] of the two samples do not touch; then old and new are the means. With n repeats on each side, two equal\n\
                sources give ranges apart by chance in 2 (n!)^2 / (2n)! of the comparisons: 10 % for 3, 0.8 % for 5.\n\
                \n\
                changes: every value that differs, in the order of the old table's keys. summary: common, added and removed keys,\n\
                changed (values beyond noise by column, columns without one left out), within_noise likewise, the keys added and\n\
                removed, the columns compared and those of one table. With 'fail_on' the stage fails after all outputs are written:\n\
                declare them 'on_failure' to keep them.",
        )
        .input("old", "CSV with a header: the earlier version")
        .input("new", "CSV with a header: the later version")
        .optional_output("changes", "CSV: key columns, column, old, new, absolute, relative, beyond_noise")
        .optional_output("summary", "JSON: counts and one-sided keys")
        .optional_output("markdown", "the same as a page")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        let fault = |path: &str, message: String| Err(ParamFault { path: path.to_owned(), message });
        if params.on.is_empty() {
            return fault("on", "expected at least one key column".into());
        }
        if let Some(name) = params.on.iter().find(|name| CHANGE_COLUMNS.contains(&name.as_str())) {
            return fault(
                "on",
                format!(
                    "a key column cannot be named '{name}': the output 'changes' has a column of that name"
                ),
            );
        }
        if !(params.threshold >= 0.0 && params.threshold.is_finite()) {
            return fault("threshold", "expected a share of 0 or more (0.01 is 1 %)".into());
        }
        let columns = params.columns.as_deref().unwrap_or_default();
        let named =
            [("on", params.on.as_slice()), ("spread", params.spread.as_slice()), ("columns", columns)];
        let mut seen: Vec<(&str, &String)> = Vec::new();
        for (path, name) in named.iter().flat_map(|(path, names)| names.iter().map(move |name| (*path, name)))
        {
            if let Some((other, _)) = seen.iter().find(|(_, known)| *known == name) {
                return fault(path, format!("'{name}' stands in '{other}' already"));
            }
            seen.push((path, name));
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let old = Table::read(ctx.input("old")?)?;
        let new = Table::read(ctx.input("new")?)?;
        refuse_repeated_keys(&params, [&old, &new])?;
        let old_keys = keys::group(&old, &old.require(&params.on, "on")?);
        let new_keys = keys::group(&new, &new.require(&params.on, "on")?);
        let columns = Columns::choose(&params, &old, &new)?;
        let pairs = Pairs::new(&old_keys, &new_keys);
        let changes = changes(&params, &old_keys, &new_keys, &pairs, &columns)?;
        let summary = Summary::new(&params.on, (&old_keys, &new_keys), &pairs, columns, &changes);

        ctx.write("changes", &changes_csv(&params.on, &changes)?)?;
        ctx.write_json("summary", &summary)?;
        ctx.write("markdown", summary.markdown(&params.on, params.threshold, &changes).as_bytes())?;
        ctx.log(format!(
            "{} keys in both, {} added, {} removed; {} values changed, {} within noise",
            summary.common,
            summary.added,
            summary.removed,
            summary.changed.values().sum::<usize>(),
            summary.within_noise.values().sum::<usize>()
        ));
        match params.fail_on {
            Some(fail_on) if fail_on.applies(&summary) => {
                Err(difference_error(fail_on, &old, &new, &summary))
            }
            _ => Ok(Done::Made),
        }
    }
}

/// Keys must be unique, with repeats together with the columns that number them.
fn refuse_repeated_keys(params: &Params, tables: [&Table; 2]) -> Result<(), StageError> {
    let mut places = Vec::new();
    let mut all = 0;
    for table in tables {
        let mut columns = table.require(&params.on, "on")?;
        columns.extend(table.require(&params.spread, "spread")?);
        let names: Vec<String> = columns.iter().map(|column| table.columns()[*column].clone()).collect();
        let groups = keys::group(table, &columns);
        for group in (0..groups.len()).filter(|group| groups.rows(*group).len() > 1) {
            if all < keys::NAMED_IN_ERRORS {
                let key = keys::to_text(&names, &groups.key(group));
                places.push(format!("\n  {key}: {}", keys::places(table, groups.rows(group))));
            }
            all += 1;
        }
    }
    if all == 0 {
        return Ok(());
    }
    let key: Vec<&str> = params.on.iter().chain(&params.spread).map(String::as_str).collect();
    let mut message = format!("the key ({}) is not unique, so rows cannot be told apart:", key.join(", "));
    message.extend(places.iter().map(String::as_str));
    if all > keys::NAMED_IN_ERRORS {
        message += &format!("\n  and {} more", all - keys::NAMED_IN_ERRORS);
    }
    Err(StageError::new(message)
        .hint("add the column that tells these rows apart to 'on', or to 'spread' if they are repeats of one measurement"))
}

/// Every value of a common key that differs.
fn changes<'t>(
    params: &Params,
    old: &Groups<'t>,
    new: &Groups<'t>,
    pairs: &Pairs,
    columns: &Columns,
) -> Result<Vec<Change<'t>>, StageError> {
    let old_columns = old.table().require(&columns.compared, "columns")?;
    let new_columns = new.table().require(&columns.compared, "columns")?;
    let mut changes = Vec::new();
    for (old_group, new_group) in pairs.matched() {
        let (old_rows, new_rows) = (old.records(old_group), new.records(new_group));
        for (o, n) in old_columns.iter().zip(&new_columns) {
            let before: Vec<&str> = old_rows.iter().map(|row| row.cell(*o)).collect();
            let after: Vec<&str> = new_rows.iter().map(|row| row.cell(*n)).collect();
            if let Some(difference) = between(&before, &after, params.threshold) {
                let column = &old.table().columns()[*o];
                changes.push(Change { group: old_group, key: old.key(old_group), column, difference });
            }
        }
    }
    Ok(changes)
}

impl Columns {
    fn choose(params: &Params, old: &Table, new: &Table) -> Result<Self, StageError> {
        let lacks = |mine: &Table, other: &Table| -> Vec<String> {
            mine.columns().iter().filter(|c| other.column(c).is_none()).cloned().collect()
        };
        let compared = match &params.columns {
            Some(columns) => {
                old.require(columns, "columns")?;
                new.require(columns, "columns")?;
                columns.clone()
            }
            None => old
                .columns()
                .iter()
                .filter(|c| new.column(c).is_some() && !params.on.contains(c) && !params.spread.contains(c))
                .cloned()
                .collect(),
        };
        Ok(Self { compared, old_only: lacks(old, new), new_only: lacks(new, old) })
    }
}

fn changes_csv(on: &[String], changes: &[Change]) -> Result<Vec<u8>, StageError> {
    let mut writer = TableWriter::new(Vec::new(), "changes", LineEnd::default());
    writer.row(on.iter().map(String::as_str).chain(CHANGE_COLUMNS))?;
    let amount = |amount: Option<f64>| amount.map(|a| a.to_string()).unwrap_or_default();
    for Change { key, column, difference: d, .. } in changes {
        let (absolute, relative) = (amount(d.absolute), amount(d.relative));
        let beyond = if d.beyond_noise { "true" } else { "false" };
        writer.row(
            key.iter().map(String::as_str).chain([*column, &d.old, &d.new, &absolute, &relative, beyond]),
        )?;
    }
    writer.finish()
}

fn difference_error(fail_on: FailOn, old: &Table, new: &Table, summary: &Summary) -> StageError {
    let mut parts = Vec::new();
    if fail_on != FailOn::Removed && !summary.changed.is_empty() {
        let by_column: Vec<String> =
            summary.changed.iter().map(|(column, n)| format!("{column} {n}")).collect();
        parts.push(format!("values changed beyond noise: {}", by_column.join(", ")));
    }
    if fail_on != FailOn::Changed && summary.removed > 0 {
        parts.push(format!("keys removed: {}", summary.removed));
    }
    if fail_on == FailOn::Any && summary.added > 0 {
        parts.push(format!("keys added: {}", summary.added));
    }
    StageError::new(format!(
        "{} differs from {} ('fail_on' is {}): {}",
        new.name(),
        old.name(),
        fail_on.as_str(),
        parts.join("; ")
    ))
    .hint("the outputs 'changes', 'summary' and 'markdown' say where; declare them 'on_failure' to keep them")
}

#[cfg(test)]
mod tests;
