//! Tables: reading, writing, joining, comparing.

pub mod compare;
pub mod csv;
pub mod join;
pub mod jsonl;
pub mod keys;
pub mod markdown;
pub mod number;
pub mod percentile;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(join::Join);
    catalog.add(compare::Compare);
}
