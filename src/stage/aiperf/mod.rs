//! Results of aiperf: written as the tool writes them. Unaware of servers.

mod export;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(export::Export);
}
