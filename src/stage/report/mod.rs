//! Reports from templates.

pub mod markdown;
mod values;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(markdown::Report);
}
