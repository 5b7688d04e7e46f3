//! Tables: reading, writing, joining, comparing.

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(_catalog: &mut Catalog) {}
