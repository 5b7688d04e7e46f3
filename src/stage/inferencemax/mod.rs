//! The InferenceMAX data pipeline: only what is its own.

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(_catalog: &mut Catalog) {}
