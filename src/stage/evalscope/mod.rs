//! Tables of what `evalscope perf` wrote, from 0.17 to 1.14.
//!
//! One node reads one run directory (`collect`); `table` puts all runs side by side, `stats` the repeats of each configuration;
//! `slo` says which runs kept limits, `recomputed` has percentiles by one rule.

mod collect;
mod columns;
mod database;
mod export;
mod fields;
mod gpu_samples;
mod lenient;
mod options;
mod percentiles;
mod recomputed;
mod record;
mod sheet;
mod slo;
mod stats;
mod table;
mod tally;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(collect::Collect);
    catalog.add(export::Export);
    catalog.add(table::Table);
    catalog.add(stats::Stats);
    catalog.add(slo::SloTable);
    catalog.add(recomputed::Percentiles);
}
