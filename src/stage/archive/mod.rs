//! Content-addressed versions and their retention.

pub mod prune;
pub mod version;

use crate::api::Catalog;

/// The file that makes a directory a version.
const METADATA: &str = "metadata.json";

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(version::Version);
    catalog.add(prune::Prune);
}
