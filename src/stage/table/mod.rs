//! Tables: reading, writing, joining, comparing, converting.

pub mod compare;
pub mod convert;
pub mod csv;
pub mod join;
pub mod jsonl;
pub mod keys;
pub mod markdown;
pub mod number;
pub mod percentile;
pub mod typed;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(join::Join);
    catalog.add(compare::Compare);
    catalog.add(convert::Convert);
}
