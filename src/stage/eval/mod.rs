//! Scores of what models answered, and of how well machines were used.

mod mfu;
mod rouge;
mod summaries;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(summaries::Rouge);
    catalog.add(mfu::Mfu);
}
