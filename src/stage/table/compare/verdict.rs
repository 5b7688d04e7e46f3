//! Whether values got better or worse, key by key: the output `verdicts`, and the failure by `fail_over`. Unaware of other changes.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::difference::{Difference, Judge, Rule, between};
use super::params::Better;
use super::sample::{self, number};
use super::summary::{SHOWN, percent, rest};
use crate::api::StageError;
use crate::stage::table::csv::{LineEnd, Record, Table, TableWriter};
use crate::stage::table::keys::{self, Groups, Pairs};
use crate::stage::table::markdown;

/// The columns of the output `verdicts` after the key.
pub(super) const VERDICT_COLUMNS: [&str; 11] = [
    "column",
    "verdict",
    "rule",
    "old",
    "new",
    "absolute",
    "relative",
    "low",
    "high",
    "old_repeats",
    "new_repeats",
];

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Same,
    Noise,
    OnlyLeft,
    OnlyRight,
}

/// All of them, in the order in which they are counted.
const ALL: [Verdict; 6] =
    [Verdict::Better, Verdict::Worse, Verdict::Same, Verdict::Noise, Verdict::OnlyLeft, Verdict::OnlyRight];

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Noise => "noise",
            Self::OnlyLeft => "only_left",
            Self::OnlyRight => "only_right",
        }
    }
}

/// The verdict on a key and a column; on a key of one table there is no column.
struct Line<'p> {
    key: Vec<String>,
    column: Option<&'p str>,
    verdict: Verdict,
    old: String,
    new: String,
    difference: Option<Difference>,
    repeats: [usize; 2],
}

/// The verdicts on all keys and columns.
pub(super) struct Verdicts<'p> {
    better: &'p BTreeMap<String, Better>,
    lines: Vec<Line<'p>>,
}

impl<'p> Verdicts<'p> {
    /// Judges every column of `better`: keys of both tables in the order of the old one, then those of the old and of the new table alone.
    ///
    /// # Errors
    /// A column that a table lacks; a cell that is neither empty nor a number.
    pub(super) fn new(
        better: &'p BTreeMap<String, Better>,
        judge: &Judge,
        (old, new): (&Groups, &Groups),
        pairs: &Pairs,
    ) -> Result<Self, StageError> {
        let mut lines = Vec::new();
        let names: Vec<String> = better.keys().cloned().collect();
        let old_columns = old.table().require(&names, "better")?;
        let new_columns = new.table().require(&names, "better")?;
        if better.is_empty() {
            return Ok(Self { better, lines });
        }
        for (old_group, new_group) in pairs.matched() {
            let (old_rows, new_rows) = (old.records(old_group), new.records(new_group));
            for (((column, direction), o), n) in better.iter().zip(&old_columns).zip(&new_columns) {
                let before = numbers(old, old_group, &old_rows, *o, column)?;
                let after = numbers(new, new_group, &new_rows, *n, column)?;
                let key = old.key(old_group);
                lines.push(line(key, column, *direction, (&before, &after), judge));
            }
        }
        let sides =
            [(old, &pairs.left_only, Verdict::OnlyLeft), (new, &pairs.right_only, Verdict::OnlyRight)];
        for (side, groups, verdict) in sides {
            lines.extend(groups.iter().map(|group| Line {
                key: side.key(*group as usize),
                column: None,
                verdict,
                old: String::new(),
                new: String::new(),
                difference: None,
                repeats: match verdict {
                    Verdict::OnlyLeft => [side.rows(*group as usize).len(), 0],
                    _ => [0, side.rows(*group as usize).len()],
                },
            }));
        }
        Ok(Self { better, lines })
    }

    /// The number of verdicts of each kind by column; empty without `better`.
    pub(super) fn tally(&self) -> IndexMap<String, IndexMap<&'static str, usize>> {
        let mut tally: IndexMap<String, IndexMap<&'static str, usize>> = IndexMap::new();
        for column in self.better.keys() {
            tally.insert(column.clone(), ALL.iter().map(|verdict| (verdict.as_str(), 0)).collect());
        }
        for line in &self.lines {
            let counted = line.column.and_then(|column| tally.get_mut(column));
            if let Some(n) = counted.and_then(|counted| counted.get_mut(line.verdict.as_str())) {
                *n += 1;
            }
        }
        tally
    }

    /// The output `verdicts`.
    pub(super) fn csv(&self, on: &[String]) -> Result<Vec<u8>, StageError> {
        let mut writer = TableWriter::new(Vec::new(), "verdicts", LineEnd::default());
        writer.row(on.iter().map(String::as_str).chain(VERDICT_COLUMNS))?;
        let amount = |amount: Option<f64>| amount.map(|a| a.to_string()).unwrap_or_default();
        for line in &self.lines {
            let d = line.difference.as_ref();
            let interval = d.and_then(|d| d.interval);
            let cells = [
                line.column.unwrap_or_default().to_owned(),
                line.verdict.as_str().to_owned(),
                d.map_or("", |d| d.rule.as_str()).to_owned(),
                line.old.clone(),
                line.new.clone(),
                amount(d.and_then(|d| d.absolute)),
                amount(d.and_then(|d| d.relative)),
                amount(interval.map(|(low, _)| low)),
                amount(interval.map(|(_, high)| high)),
                line.repeats[0].to_string(),
                line.repeats[1].to_string(),
            ];
            writer.row(line.key.iter().chain(&cells))?;
        }
        writer.finish()
    }

    /// A section of the output `markdown`; nothing without `better`.
    pub(super) fn markdown(&self, on: &[String]) -> String {
        if self.better.is_empty() {
            return String::new();
        }
        let mut page = String::from("\n## Better and worse\n\n");
        page += &markdown::row(["column", "better is"].into_iter().chain(ALL.map(Verdict::as_str)));
        page += &markdown::row(["---", "---"].into_iter().chain(ALL.map(|_| "---:")));
        for ((column, counts), direction) in self.tally().iter().zip(self.better.values()) {
            let direction = match direction {
                Better::Higher => "higher",
                Better::Lower => "lower",
            };
            let counts = counts.values().map(usize::to_string);
            page += &markdown::row([column.clone(), direction.to_owned()].into_iter().chain(counts));
        }
        let worse = self.worse(0.0);
        if worse.is_empty() {
            return page;
        }
        page += "\n### Worse\n\n";
        let rest_of_header = ["column", "old", "new", "change", "decided by"];
        page += &markdown::row(on.iter().map(String::as_str).chain(rest_of_header));
        page += &markdown::row(on.iter().map(|_| "---").chain(["---", "---:", "---:", "---:", "---"]));
        for line in worse.iter().take(SHOWN) {
            let d = line.difference.as_ref();
            let change = percent(d.and_then(|d| d.relative));
            let rule = d.map_or(Rule::Threshold, |d| d.rule).as_str();
            let cells = [line.column.unwrap_or_default(), &line.old, &line.new, &change, rule];
            page += &markdown::row(line.key.iter().map(String::as_str).chain(cells));
        }
        rest(&mut page, worse.len(), "`verdicts`");
        page
    }

    /// What got worse by more than `over`, the worst first; a change from 0 stands above all.
    fn worse(&self, over: f64) -> Vec<&Line<'p>> {
        let size =
            |line: &Line| line.difference.as_ref().and_then(|d| d.relative).map_or(f64::INFINITY, f64::abs);
        // a number that is gone (empty, NaN, infinite) is no better than any
        let gone = |line: &Line| line.verdict == Verdict::OnlyLeft && line.column.is_some();
        let worse = |line: &&Line| gone(line) || (line.verdict == Verdict::Worse && size(line) > over);
        let mut worse: Vec<&Line> = self.lines.iter().filter(worse).collect();
        worse.sort_by(|a, b| size(b).total_cmp(&size(a)));
        worse
    }

    /// What to say if something got worse by more than `over`.
    pub(super) fn worse_text(&self, over: f64, on: &[String], old: &Table, new: &Table) -> Option<String> {
        let worse = self.worse(over);
        if worse.is_empty() {
            return None;
        }
        let mut text = format!(
            "{} is worse than {} by more than {} % ('fail_over' is {over}) in {} values:",
            new.name(),
            old.name(),
            over * 100.0,
            worse.len()
        );
        for line in worse.iter().take(keys::NAMED_IN_ERRORS) {
            let change = percent(line.difference.as_ref().and_then(|d| d.relative));
            let change = if change.is_empty() { change } else { format!(" ({change})") };
            let column = line.column.unwrap_or_default();
            let key = keys::to_text(on, &line.key);
            text += &format!("\n  {key}: {column} {} -> {}{change}", line.old, line.new);
        }
        if worse.len() > keys::NAMED_IN_ERRORS {
            text += &format!("\n  and {} more", worse.len() - keys::NAMED_IN_ERRORS);
        }
        Some(text)
    }
}

/// The cells of a column that are finite numbers; empty, NaN and infinite ones are passed over.
fn numbers<'r>(
    side: &Groups,
    group: usize,
    rows: &'r [Record],
    column: usize,
    name: &str,
) -> Result<Vec<&'r str>, StageError> {
    let mut found = Vec::new();
    for (record, row) in rows.iter().zip(side.rows(group)) {
        let cell = record.cell(column);
        match number(cell) {
            Some(n) if n.is_finite() => found.push(cell),
            Some(_) => {}
            None if cell.trim().is_empty() => {}
            None => {
                let place = keys::places(side.table(), &[*row]);
                return Err(StageError::new(format!("{place}, column '{name}': '{cell}' is no number"))
                    .hint("'better' names columns of numbers; empty cells and NaN are passed over"));
            }
        }
    }
    Ok(found)
}

fn line<'p>(
    key: Vec<String>,
    column: &'p str,
    direction: Better,
    (before, after): (&[&str], &[&str]),
    judge: &Judge,
) -> Line<'p> {
    let text = |cells: &[&str]| match cells {
        [] => String::new(),
        [one] => (*one).to_owned(),
        many => {
            let numbers: Vec<f64> = many.iter().filter_map(|cell| number(cell)).collect();
            sample::mean(&numbers).to_string()
        }
    };
    let (old, new, repeats) = (text(before), text(after), [before.len(), after.len()]);
    let mut difference = None;
    let verdict = match (before, after) {
        ([], []) => Verdict::Same,
        (_, []) => Verdict::OnlyLeft,
        ([], _) => Verdict::OnlyRight,
        _ => {
            difference = between(before, after, judge);
            match &difference {
                Some(d) if !judge.above(d.relative) => Verdict::Same,
                Some(d) if !d.beyond_noise => Verdict::Noise,
                Some(d) => match (direction, d.absolute.is_some_and(|a| a > 0.0)) {
                    (Better::Higher, true) | (Better::Lower, false) => Verdict::Better,
                    _ => Verdict::Worse,
                },
                None => Verdict::Same,
            }
        }
    };
    Line { key, column: Some(column), verdict, old, new, difference, repeats }
}
