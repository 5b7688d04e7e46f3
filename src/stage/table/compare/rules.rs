//! Summaries under different rule sets are not compared: their numbers mean different things. Unaware of what else differs.

use super::summary::Columns;
use crate::api::StageError;
use crate::stage::metrics::rules::Rules;
use crate::stage::table::csv::Table;
use crate::stage::table::keys::{self, Groups, Pairs};

/// The column that names the rule set of a row, as `metrics.compute` calls it in its summary.
const COLUMN: &str = "rules";

/// Refuses a key whose rows name different rule sets. A column of this name that names no rule set is a column like any other.
pub(super) fn refuse_mixed(
    on: &[String],
    (old, new): (&Groups, &Groups),
    pairs: &Pairs,
    columns: &Columns,
) -> Result<(), StageError> {
    let places = old.table().column(COLUMN).zip(new.table().column(COLUMN));
    // with nothing else to compare, what is asked is whether the names differ
    let Some((o, n)) = places.filter(|_| columns.compared.iter().any(|column| column != COLUMN)) else {
        return Ok(());
    };
    for (old_group, new_group) in pairs.matched() {
        let sides = [(old, old_group, o), (new, new_group, n)];
        let named: Vec<(String, &Table, u32)> = sides
            .into_iter()
            .flat_map(|(side, group, column)| {
                let table = side.table();
                let name = move |row: u32| table.row(row as usize).cell(column).into_owned();
                side.rows(group).iter().map(move |row| (name(*row), table, *row))
            })
            .filter(|(name, ..)| !name.is_empty())
            .collect();
        let Some(((first, its_table, its_row), rest)) = named.split_first() else { continue };
        let Some((other, table, row)) = rest.iter().find(|(name, ..)| name != first) else { continue };
        if [first, other].iter().all(|name| Rules::named(name).is_none()) {
            continue;
        }
        return Err(StageError::new(format!(
            "{} and {} hold numbers under different rule sets, which cannot be compared: {} is under '{first}' in {}, under '{other}' in {}",
            old.table().name(),
            new.table().name(),
            keys::to_text(on, &old.key(old_group)),
            keys::places(its_table, &[*its_row]),
            keys::places(table, &[*row]),
        ))
        .hint("compute both by one rule set: the parameter 'rules' of metrics.compute")
        .hint("with 'rules' in 'on', rows are compared with those of the same rule set only"));
    }
    Ok(())
}
