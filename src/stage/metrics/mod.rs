//! Metrics of requests: what the tools of the field mean by them, and their statistics. Unaware of tools' files and of loads.
//!
//! `row` is a request as recorded, `rules` say what its times mean, `spread` is the statistics of one quantity, `summary` puts them together.

mod compute;
pub mod row;
pub mod rules;
pub mod slo;
pub mod spread;
pub mod summary;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(compute::Compute);
}
