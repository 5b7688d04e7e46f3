//! Metrics of requests: what the tools of the field mean by them, and their statistics. Unaware of tools' files and of loads.
//!
//! `measured` reads what `llm.load` wrote, its `events` unpacked, `recorded` what more it says. `row` is a request as recorded, `rules` say what its times mean, `spread` is the statistics of one quantity, `summary` puts them together.

mod compute;
pub mod events;
pub mod measured;
pub mod recorded;
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
