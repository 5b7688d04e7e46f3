//! Numbers under different rule sets, and percentiles by different rules, are not compared: they mean different things. Unaware of what else
//! differs.

use super::summary::Columns;
use crate::api::StageError;
use crate::stage::metrics::rules::Rules;
use crate::stage::table::csv::Table;
use crate::stage::table::keys::{self, Groups, Pairs};
use crate::stage::table::percentile::Rule;

/// A column that names what the numbers of a row mean.
struct Names {
    column: &'static str,
    what: &'static str,
    is_one: fn(&str) -> bool,
    hint: &'static str,
}

const BY_ONE_RULE: &str = "compute both by one rule: the parameter 'percentile_rule' of metrics.compute, 'rule' of 'percentiles' for evalscope";

/// `rules` and `percentile_rule` as `metrics.compute` calls them in its summary, `rule` as evalscope's percentiles have it.
const NAMES: [Names; 3] = [
    Names {
        column: "rules",
        what: "numbers under different rule sets",
        is_one: |name| Rules::named(name).is_some(),
        hint: "compute both by one rule set: the parameter 'rules' of metrics.compute",
    },
    Names {
        column: "percentile_rule",
        what: "percentiles by different rules",
        is_one: |name| Rule::named(name).is_some(),
        hint: BY_ONE_RULE,
    },
    Names {
        column: "rule",
        what: "percentiles by different rules",
        is_one: |name| Rule::named(name).is_some(),
        hint: BY_ONE_RULE,
    },
];

/// Refuses a key whose rows name different rules. A column of such a name that names no rule is a column like any other.
pub(super) fn refuse_mixed(
    on: &[String],
    groups: (&Groups, &Groups),
    pairs: &Pairs,
    columns: &Columns,
) -> Result<(), StageError> {
    // with nothing else to compare, what is asked is whether the names differ
    if columns.compared.iter().all(|column| NAMES.iter().any(|names| names.column == column)) {
        return Ok(());
    }
    NAMES.iter().try_for_each(|names| refuse(names, on, groups, pairs))
}

fn refuse(
    names: &Names,
    on: &[String],
    (old, new): (&Groups, &Groups),
    pairs: &Pairs,
) -> Result<(), StageError> {
    let Some((o, n)) = old.table().column(names.column).zip(new.table().column(names.column)) else {
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
        if ![first, other].into_iter().any(|name| (names.is_one)(name)) {
            continue;
        }
        return Err(StageError::new(format!(
            "{} and {} hold {}, which cannot be compared: {} is under '{first}' in {}, under '{other}' in {}",
            old.table().name(),
            new.table().name(),
            names.what,
            keys::to_text(on, &old.key(old_group)),
            keys::places(its_table, &[*its_row]),
            keys::places(table, &[*row]),
        ))
        .hint(names.hint)
        .hint(format!(
            "with '{}' in 'on', rows are compared with those under the same one only",
            names.column
        )));
    }
    Ok(())
}
