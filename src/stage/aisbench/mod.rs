//! Results of AISBench: its files read, and written as the tool writes them. Unaware of merging.
//!
//! `import` reads a pod (`time_points` and `npy` its times), `stable` finds the stable stage, `exact` computes what the tool shows, `format` writes it as the tool does.

pub mod exact;
mod export;
pub mod format;
mod import;
mod npy;
pub mod stable;
mod time_points;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(export::Export);
    catalog.add(import::Import);
}
