//! Scores of what models answered, and of how well machines were used.

mod mfu;
mod pairs;
mod rouge;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(rouge::Rouge);
    catalog.add(pairs::Pairs);
    catalog.add(mfu::Mfu);
}
