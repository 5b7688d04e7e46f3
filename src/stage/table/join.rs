//! `csv.join`: two tables side by side, row by key. Unaware of what the columns mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::csv::{LineEnd, Row, Table, TableWriter};
use super::keys::{self, Groups};
use crate::api::{
    Arity, Done, InputPort, OutputPort, ParamFault, Signature, Stage, StageContext, StageError, Work,
    parse_params,
};
use crate::model::Policy;

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
#[derive(Debug, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
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
        Signature {
            doc: "Joins two CSV tables by key.\n\
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
            params: schemars::schema_for!(Params),
            inputs: vec![
                InputPort {
                    name: "left",
                    arity: Arity::One,
                    doc: "CSV with a header; decides order and shared columns",
                },
                InputPort { name: "right", arity: Arity::One, doc: "CSV with a header" },
            ],
            outputs: vec![
                OutputPort { name: "csv", optional: false, doc: "the joined table" },
                OutputPort {
                    name: "report",
                    optional: true,
                    doc: "JSON: what matched, what did not, what disagreed",
                },
            ],
            policy: Policy::Pure,
            retry: None,
            work: Work::Cpu,
        }
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
        let left = Table::read(ctx.input("left")?)?;
        let right = Table::read(ctx.input("right")?)?;
        let layout = Layout::new(&params, &left, &right)?;
        let left_keys = keys::group(&left, &left.require(&params.on, "on")?);
        let right_keys = keys::group(&right, &right.require(&params.on, "on")?);

        let mut report = Report::new(&params.on, &left, &right, &left_keys, &right_keys);
        let mut writer = TableWriter::new(Vec::new(), "csv", params.line_end);
        writer.row(&layout.header)?;
        let mut filled = vec![0_u64; layout.header.len()];
        let mut emit = |l: Option<&Row>, r: Option<&Row>, report: &mut Report| {
            let cells: Vec<&str> = layout.cells.iter().map(|source| source.cell(l, r)).collect();
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

/// `part / whole`; null without a whole.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Where a cell of the result comes from.
enum Source {
    /// The left row if it has the column, else the right one.
    Shared(Option<usize>, Option<usize>),
    Left(usize),
    Right(usize),
}

impl Source {
    fn cell<'t>(&self, left: Option<&'t Row>, right: Option<&'t Row>) -> &'t str {
        let at = |row: Option<&'t Row>, column: Option<usize>| Some(row?.cell(column?));
        match self {
            Self::Shared(l, r) => at(left, *l).or_else(|| at(right, *r)),
            Self::Left(l) => at(left, Some(*l)),
            Self::Right(r) => at(right, Some(*r)),
        }
        .unwrap_or("")
    }
}

/// The columns of the result.
struct Layout {
    header: Vec<String>,
    cells: Vec<Source>,
    /// The places of the value columns in the result.
    values: std::ops::Range<usize>,
    /// Name and places of the columns that both sides have and that are neither key nor value.
    compared: Vec<(String, usize, usize)>,
    left_only: Vec<String>,
    right_only: Vec<String>,
}

impl Layout {
    fn new(params: &Params, left: &Table, right: &Table) -> Result<Self, StageError> {
        let left_values = left.require(&params.columns, "columns")?;
        let right_values = right.require(&params.columns, "columns")?;
        let mut layout = Self {
            header: Vec::new(),
            cells: Vec::new(),
            values: 0..0,
            compared: Vec::new(),
            left_only: Vec::new(),
            right_only: Vec::new(),
        };
        for (l, column) in left.columns().iter().enumerate().filter(|(l, _)| !left_values.contains(l)) {
            let r = right.column(column);
            match r {
                None => layout.left_only.push(column.clone()),
                Some(r) if !params.on.contains(column) => layout.compared.push((column.clone(), l, r)),
                Some(_) => {}
            }
            layout.push(column.clone(), Source::Shared(Some(l), r));
        }
        let first = layout.header.len();
        for (column, l) in params.columns.iter().zip(left_values) {
            layout.push(format!("{}{column}", params.prefix.left), Source::Left(l));
        }
        for (column, r) in params.columns.iter().zip(right_values) {
            layout.push(format!("{}{column}", params.prefix.right), Source::Right(r));
        }
        layout.values = first..layout.header.len();
        for (r, column) in right.columns().iter().enumerate().filter(|(_, c)| left.column(c).is_none()) {
            layout.right_only.push(column.clone());
            layout.push(column.clone(), Source::Shared(None, Some(r)));
        }
        for (index, column) in layout.header.iter().enumerate() {
            if layout.header[..index].contains(column) {
                return Err(StageError::new(format!(
                    "the result would have two columns named '{column}' ({} joined with {})",
                    left.name(),
                    right.name()
                ))
                .hint("choose another 'prefix' for the value columns"));
            }
        }
        Ok(layout)
    }

    fn push(&mut self, column: String, source: Source) {
        self.header.push(column);
        self.cells.push(source);
    }

    /// The shared columns in which two rows of one key differ.
    fn conflicts(&self, left: &Row, right: &Row) -> Vec<String> {
        self.compared
            .iter()
            .filter(|(_, l, r)| left.cell(*l) != right.cell(*r))
            .map(|(column, ..)| column.clone())
            .collect()
    }
}

/// The output `report`.
#[derive(Serialize)]
struct Report {
    matched_keys: usize,
    left_only: Vec<Value>,
    right_only: Vec<Value>,
    duplicates: Vec<Duplicate>,
    conflicts: Vec<Conflict>,
    match_rate: Option<f64>,
    rows: RowCounts,
    dropped: SideCounts,
    completeness: indexmap::IndexMap<String, Option<f64>>,
    columns: OneSidedColumns,
}

#[derive(Serialize)]
struct Duplicate {
    key: Value,
    left: usize,
    right: usize,
}

#[derive(Serialize)]
struct Conflict {
    key: Value,
    columns: Vec<String>,
}

#[derive(Serialize)]
struct RowCounts {
    left: usize,
    right: usize,
    joined: u64,
}

#[derive(Default, Serialize)]
struct SideCounts {
    left: u64,
    right: u64,
}

#[derive(Default, Serialize)]
struct OneSidedColumns {
    left_only: Vec<String>,
    right_only: Vec<String>,
}

impl Report {
    fn new(on: &[String], left: &Table, right: &Table, l: &Groups, r: &Groups) -> Self {
        let alone = |mine: &Groups, other: &Groups| -> Vec<Value> {
            mine.keys().filter(|key| !other.contains_key(*key)).map(|key| keys::to_json(on, key)).collect()
        };
        let (left_only, right_only) = (alone(l, r), alone(r, l));
        let matched_keys = l.len() - left_only.len();
        let all = matched_keys + left_only.len() + right_only.len();
        Self {
            matched_keys,
            duplicates: duplicates(l, r)
                .map(|(key, left, right)| Duplicate {
                    key: keys::to_json(on, key),
                    left: left.len(),
                    right: right.len(),
                })
                .collect(),
            conflicts: Vec::new(),
            match_rate: share(matched_keys as u64, all as u64),
            rows: RowCounts { left: left.rows().len(), right: right.rows().len(), joined: 0 },
            dropped: SideCounts::default(),
            completeness: Default::default(),
            columns: OneSidedColumns::default(),
            left_only,
            right_only,
        }
    }
}

/// Keys with several rows on a side, and their rows on both: the left table's by first appearance, then the right one's.
fn duplicates<'g, 't>(
    left: &'g Groups<'t>,
    right: &'g Groups<'t>,
) -> impl Iterator<Item = (&'g [&'t str], &'g [usize], &'g [usize])> {
    fn rows<'g, 't>(groups: &'g Groups<'t>, key: &[&'t str]) -> &'g [usize] {
        groups.get(key).map_or(&[], Vec::as_slice)
    }
    left.keys()
        .chain(right.keys().filter(|key| !left.contains_key(*key)))
        .map(|key| (key.as_slice(), rows(left, key), rows(right, key)))
        .filter(|(_, l, r)| l.len() > 1 || r.len() > 1)
}

fn duplicate_error(on: &[String], left: &Table, right: &Table, l: &Groups, r: &Groups) -> StageError {
    let all = duplicates(l, r).count();
    let mut message = format!("the key ({}) is not unique: {all} with several rows", on.join(", "));
    for (key, l_rows, r_rows) in duplicates(l, r).take(keys::NAMED_IN_ERRORS) {
        let places: Vec<String> = [(left, l_rows), (right, r_rows)]
            .iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(table, rows)| keys::places(table, rows))
            .collect();
        message += &format!("\n  {}: {}", keys::to_text(on, key), places.join("; "));
    }
    more(&mut message, all);
    StageError::new(message)
        .hint("add the column that tells these rows apart to 'on'")
        .hint("or choose with 'on_duplicate': cross (every combination), first, last")
}

fn one_sided_error(on: &[String], left: &Table, right: &Table, l: &Groups, r: &Groups) -> StageError {
    let sides = || {
        let only_left =
            l.iter().filter(|(key, _)| !r.contains_key(*key)).map(|(key, rows)| (left, key, rows));
        let only_right =
            r.iter().filter(|(key, _)| !l.contains_key(*key)).map(|(key, rows)| (right, key, rows));
        only_left.chain(only_right)
    };
    let all = sides().count();
    let mut message = format!("{all} keys have rows on one side only ('one_sided' is fail)");
    for (table, key, rows) in sides().take(keys::NAMED_IN_ERRORS) {
        message += &format!("\n  {}: {}", keys::to_text(on, key), keys::places(table, rows));
    }
    more(&mut message, all);
    StageError::new(message)
}

/// Says how many keys a message leaves out.
fn more(message: &mut String, all: usize) {
    if all > keys::NAMED_IN_ERRORS {
        *message +=
            &format!("\n  and {} more, all of them in the output 'report'", all - keys::NAMED_IN_ERRORS);
    }
}

#[cfg(test)]
mod tests;
