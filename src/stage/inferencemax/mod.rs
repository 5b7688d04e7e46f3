//! The InferenceMAX data pipeline: only what is its own. Unaware of fetching, joining, versions and reports.

pub mod benchmarks;
pub mod cells;
pub mod clean;
pub mod clean_report;
pub mod columns;
pub mod convert;
pub mod enrich;
pub mod hardware;
pub mod json_text;
pub mod pareto;
pub mod tables;
pub mod verify;
pub mod wrap;

#[cfg(test)]
mod pipeline_test;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(wrap::Wrap);
    catalog.add(clean::Clean);
    catalog.add(clean_report::CleanReport);
    catalog.add(convert::Convert);
    catalog.add(tables::Tables);
    catalog.add(verify::Verify);
    catalog.add(benchmarks::Benchmarks);
    catalog.add(enrich::Enrich);
}
