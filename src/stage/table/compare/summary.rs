//! What a comparison found, as JSON and Markdown. Unaware of how it was found, and of file names: equal tables give equal bytes.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use super::difference::{Difference, Judge};
use super::params::Noise;
use crate::stage::table::keys::{self, Groups, Pairs};
use crate::stage::table::markdown;

/// How many keys or changes a section of the Markdown page shows before it only counts.
pub(super) const SHOWN: usize = 20;

/// The output `summary`.
#[derive(Serialize)]
pub(super) struct Summary {
    /// Keys of both tables.
    pub(super) common: usize,
    /// Keys only the new table has.
    pub(super) added: usize,
    /// Keys only the old table has.
    pub(super) removed: usize,
    /// Values beyond noise by column; columns without one are left out.
    pub(super) changed: IndexMap<String, usize>,
    /// Values that differ, but not beyond noise, by column.
    pub(super) within_noise: IndexMap<String, usize>,
    /// Common keys with a value beyond noise.
    pub(super) changed_keys: usize,
    pub(super) added_keys: Vec<Value>,
    pub(super) removed_keys: Vec<Value>,
    pub(super) columns: Columns,
    /// How many verdicts of each kind there are, by column of `better`.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub(super) verdicts: IndexMap<String, IndexMap<&'static str, usize>>,
}

/// Which columns took part.
#[derive(Serialize)]
pub(super) struct Columns {
    pub(super) compared: Vec<String>,
    pub(super) old_only: Vec<String>,
    pub(super) new_only: Vec<String>,
}

/// A difference and where it is.
pub(super) struct Change<'t> {
    /// The number of the key, by first appearance in the old table.
    pub(super) group: usize,
    pub(super) key: Vec<String>,
    pub(super) column: &'t str,
    pub(super) difference: Difference,
}

impl Summary {
    /// Counts what was found.
    pub(super) fn new(
        on: &[String],
        (old, new): (&Groups, &Groups),
        pairs: &Pairs,
        columns: Columns,
        changes: &[Change],
    ) -> Self {
        let alone = |side: &Groups, groups: &[u32]| -> Vec<Value> {
            groups.iter().map(|group| keys::to_json(on, side.key(*group as usize))).collect()
        };
        let (removed_keys, added_keys) = (alone(old, &pairs.left_only), alone(new, &pairs.right_only));
        let count = |beyond: bool| -> IndexMap<String, usize> {
            let of = |column: &String| {
                changes.iter().filter(|c| c.column == column && c.difference.beyond_noise == beyond).count()
            };
            columns.compared.iter().map(|c| (c.clone(), of(c))).filter(|(_, n)| *n > 0).collect()
        };
        // The changes of one key stand together.
        let mut keys: Vec<usize> =
            changes.iter().filter(|c| c.difference.beyond_noise).map(|c| c.group).collect();
        keys.dedup();
        Self {
            common: old.len() - removed_keys.len(),
            added: added_keys.len(),
            removed: removed_keys.len(),
            changed: count(true),
            within_noise: count(false),
            changed_keys: keys.len(),
            added_keys,
            removed_keys,
            columns,
            verdicts: IndexMap::new(),
        }
    }

    /// The output `markdown`, without the verdicts.
    pub(super) fn markdown(&self, on: &[String], judge: &Judge, changes: &[Change]) -> String {
        let mut page = String::from("# Comparison of two tables\n\n");
        page += &format!("Key: {}. ", on.join(", "));
        page += &match judge.threshold {
            0.0 => "Every change counts".to_owned(),
            t => format!("A change counts if it is above {} %", t * 100.0),
        };
        page += &match judge.noise {
            Noise::Ranges => {
                "; where measurements were repeated, only if their ranges are apart.\n\n".to_owned()
            }
            Noise::Welch => format!(
                "; where measurements were repeated, only if Welch's {} % interval of the difference does not hold 0.\n\n",
                judge.confidence * 100.0
            ),
        };
        page += "| keys | number |\n| --- | ---: |\n";
        for (name, n) in [
            ("in both", self.common),
            ("of these changed", self.changed_keys),
            ("added", self.added),
            ("removed", self.removed),
        ] {
            page += &markdown::row([name, &n.to_string()]);
        }
        self.values_section(&mut page, changes);
        largest_section(&mut page, on, changes);
        keys_section(&mut page, "Added keys", on, &self.added_keys);
        keys_section(&mut page, "Removed keys", on, &self.removed_keys);
        for (name, columns) in
            [("the old table", &self.columns.old_only), ("the new table", &self.columns.new_only)]
        {
            if !columns.is_empty() {
                page += &format!("\nColumns only {name} has: {}.\n", columns.join(", "));
            }
        }
        page
    }

    fn values_section(&self, page: &mut String, changes: &[Change]) {
        *page += "\n## Changed values\n\n";
        if changes.is_empty() {
            *page += "None.\n";
            return;
        }
        *page +=
            "| column | changed | within noise | largest relative change |\n| --- | ---: | ---: | ---: |\n";
        for column in &self.columns.compared {
            let (changed, within) = (self.changed.get(column), self.within_noise.get(column));
            if changed.is_none() && within.is_none() {
                continue;
            }
            let largest = changes
                .iter()
                .filter(|change| change.column == column)
                .filter_map(|change| change.difference.relative)
                .max_by(|a, b| a.abs().total_cmp(&b.abs()));
            let count = |n: Option<&usize>| n.copied().unwrap_or(0).to_string();
            *page += &markdown::row([column.clone(), count(changed), count(within), percent(largest)]);
        }
    }
}

fn largest_section(page: &mut String, on: &[String], changes: &[Change]) {
    let mut largest: Vec<&Change> = changes.iter().filter(|c| c.difference.beyond_noise).collect();
    if largest.is_empty() {
        return;
    }
    // Without an amount (text, from zero) first: nothing says they are small. Stable, so ties stay in table order.
    let size = |c: &Change| c.difference.relative.map_or(f64::INFINITY, f64::abs);
    largest.sort_by(|a, b| size(b).total_cmp(&size(a)));
    *page += "\n## Largest changes\n\n";
    *page += &markdown::row(on.iter().map(String::as_str).chain(["column", "old", "new", "change"]));
    *page += &markdown::row(on.iter().map(|_| "---").chain(["---", "---:", "---:", "---:"]));
    for change in largest.iter().take(SHOWN) {
        let d = &change.difference;
        let relative = percent(d.relative);
        *page += &markdown::row(change.key.iter().map(String::as_str).chain([
            change.column,
            &d.old,
            &d.new,
            relative.as_str(),
        ]));
    }
    rest(page, largest.len(), "`changes`");
}

fn keys_section(page: &mut String, title: &str, on: &[String], all: &[Value]) {
    if all.is_empty() {
        return;
    }
    *page += &format!("\n## {title}\n\n");
    *page += &markdown::row(on);
    *page += &markdown::row(on.iter().map(|_| "---"));
    for key in all.iter().take(SHOWN) {
        *page += &markdown::row(on.iter().map(|column| key[column].as_str().unwrap_or_default()));
    }
    rest(page, all.len(), "`summary`");
}

pub(super) fn rest(page: &mut String, all: usize, output: &str) {
    if all > SHOWN {
        *page += &format!("\nAnd {} more: see the output {output}.\n", all - SHOWN);
    }
}

pub(super) fn percent(relative: Option<f64>) -> String {
    relative.map_or_else(String::new, |r| format!("{:+.2} %", r * 100.0))
}
