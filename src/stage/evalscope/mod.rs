//! Tables of what `evalscope perf` wrote, from 0.17 to 1.14.
//!
//! One node reads one run directory (`collect`); `table` puts all runs side by side, `stats` the repeats of each configuration.

mod collect;
mod database;
mod fields;
mod lenient;
mod percentiles;
mod record;
mod stats;
mod table;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(collect::Collect);
    catalog.add(table::Table);
    catalog.add(stats::Stats);
}
