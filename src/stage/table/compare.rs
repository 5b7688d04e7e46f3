//! `table.compare`: what changed between two versions of a table. Unaware of what the columns mean.

mod difference;
mod params;
mod rules;
mod sample;
mod summary;
mod verdict;
mod welch;

use serde_json::Value;

use self::difference::{Judge, between};
use self::params::{FailOn, Params};
use self::summary::{Change, Columns, Summary};
use self::verdict::Verdicts;
use super::csv::{LineEnd, Table, TableWriter};
use super::keys::{self, Groups, Pairs};
use crate::api::{Done, InputFile, ParamFault, Signature, Stage, StageContext, StageError, parse_params};

/// The columns of the output `changes` after the key.
const CHANGE_COLUMNS: [&str; 6] = ["column", "old", "new", "absolute", "relative", "beyond_noise"];

/// The stage.
pub struct Compare;

impl Stage for Compare {
    fn name(&self) -> &'static str {
        "table.compare"
    }

    fn version(&self) -> u32 {
        2
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Compares two versions of a CSV table by key.\n\
                \n\
                Keys are compared as text and must be unique in both tables (with 'spread': unique together with those columns);\n\
                otherwise the stage refuses, naming keys, files and lines. Cells are compared as numbers where both are numbers,\n\
                else as text. absolute = new - old, relative = (new - old) / |old|; both empty where a side is no finite number,\n\
                relative also where old is 0. NaN equals NaN and differs from everything else. Repeats that are no finite numbers\n\
                decide nothing where both sides have the same; else it is a change. A change is beyond noise if it is no change of a number, or if |relative| is above 'threshold' (always where old is 0) and, with repeats, the ranges\n\
                [min, max] of the two samples do not touch; then old and new are the means. With n repeats on each side, two equal\n\
                sources give ranges apart by chance in 2 (n!)^2 / (2n)! of the comparisons: 10 % for 3, 0.8 % for 5. With 'noise':\n\
                'welch' the interval d +- t s instead must not hold 0: d the difference of the means, s^2 = s1^2/n1 + s2^2/n2 with the\n\
                sample variances, t the two-sided quantile of Student's distribution at 'confidence' with\n\
                s^4 / ((s1^2/n1)^2/(n1 - 1) + (s2^2/n2)^2/(n2 - 1)) degrees of freedom (Welch 1947, Satterthwaite 1946). With one repeat on a\n\
                side nothing is known of noise: the threshold alone decides. Two equal sources are called different in 1 - confidence of\n\
                the comparisons.\n\
                \n\
                Rows whose column 'rules' names different rule sets of metrics.compute are refused, and those whose column 'percentile_rule' or 'rule' names\n\
                different rules for percentiles: their numbers mean different things.\n\
                \n\
                verdicts: for each key of both tables and each column of 'better' (by name) better, worse, same (not above 'threshold') or\n\
                noise (above it, but not beyond noise), with the rule that decided (threshold, ranges, welch), the means, Welch's interval\n\
                (low, high) and the numbers of repeats; only_left and only_right where the new or the old table alone lacks numbers (empty, NaN\n\
                and infinite cells are none), and for keys of one table. 'fail_over' fails the stage after its outputs are written.\n\
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
        .optional_output("verdicts", "CSV: key columns, column, verdict, rule, old, new, absolute, relative, low, high, old_repeats, new_repeats")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        parse_params::<Params>(with)?.check()
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let old = read(ctx.input("old")?)?;
        let new = read(ctx.input("new")?)?;
        refuse_repeated_keys(&params, [&old, &new])?;
        let old_keys = keys::group(&old, &old.require(&params.on, "on")?);
        let new_keys = keys::group(&new, &new.require(&params.on, "on")?);
        let columns = Columns::choose(&params, &old, &new)?;
        let pairs = Pairs::new(&old_keys, &new_keys);
        rules::refuse_mixed(&params.on, (&old_keys, &new_keys), &pairs, &columns)?;
        let judge = Judge { threshold: params.threshold, noise: params.noise, confidence: params.confidence };
        let changes = changes(&judge, &old_keys, &new_keys, &pairs, &columns)?;
        let verdicts = Verdicts::new(&params.better, &judge, (&old_keys, &new_keys), &pairs)?;
        let mut summary = Summary::new(&params.on, (&old_keys, &new_keys), &pairs, columns, &changes);
        summary.verdicts = verdicts.tally();

        ctx.write("changes", &changes_csv(&params.on, &changes)?)?;
        ctx.write_json("summary", &summary)?;
        let page = summary.markdown(&params.on, &judge, &changes) + &verdicts.markdown(&params.on);
        ctx.write("markdown", page.as_bytes())?;
        if ctx.outputs.contains_key("verdicts") {
            ctx.write("verdicts", &verdicts.csv(&params.on)?)?;
        }
        ctx.log(format!(
            "{} keys in both, {} added, {} removed; {} values changed, {} within noise",
            summary.common,
            summary.added,
            summary.removed,
            summary.changed.values().sum::<usize>(),
            summary.within_noise.values().sum::<usize>()
        ));
        let mut wrong = Vec::new();
        if let Some(fail_on) = params.fail_on.filter(|fail_on| fail_on.applies(&summary)) {
            wrong.push(difference_text(fail_on, &old, &new, &summary));
        }
        wrong.extend(params.fail_over.and_then(|over| verdicts.worse_text(over, &params.on, &old, &new)));
        if wrong.is_empty() {
            return Ok(Done::Made);
        }
        Err(StageError::new(wrong.join("\n")).hint(
            "the outputs 'changes', 'summary' and 'markdown' say where; declare them 'on_failure' to keep them",
        ))
    }
}

/// A table. JSON, which a summary is, becomes none by being read as CSV.
fn read(file: &InputFile) -> Result<Table, StageError> {
    let bytes = file.read()?;
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
    if matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) && is_json() {
        return Err(StageError::new(format!("{}: expected CSV with a header, found JSON", file.name)).hint(
            "make tables of what is to be compared (of summaries with the column 'rules', which says what their numbers mean); \
                table.convert makes CSV of a list of objects",
        ));
    }
    Table::parse(&file.name, bytes)
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
    judge: &Judge,
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
            if let Some(difference) = between(&before, &after, judge) {
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

fn difference_text(fail_on: FailOn, old: &Table, new: &Table, summary: &Summary) -> String {
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
    format!(
        "{} differs from {} ('fail_on' is {}): {}",
        new.name(),
        old.name(),
        fail_on.as_str(),
        parts.join("; ")
    )
}

#[cfg(test)]
mod tests;
