//! The vendor / engine evaluation on XSum: its data set, its configuration files, its result lines.

mod config;
mod quotes;
mod report;
mod xsum;
mod yaml;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(config::Config);
    catalog.add(report::Report);
    catalog.add(xsum::Read);
}
