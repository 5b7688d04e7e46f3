//! Requests of many pods as one run. Unaware of which tool measured them, but for the files that `bench.report` writes.

mod merge;
mod overlap;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::Catalog;

/// What is known of a pod beside its requests.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Pod {
    /// The name of its directory.
    pub name: String,
    /// Its directory.
    pub dir: String,
    /// Rows.
    pub requests: usize,
    /// Rows that failed.
    pub failed: usize,
    /// How many requests its tool was allowed to have in flight, if known.
    pub max_concurrency: Option<u64>,
    /// Where its clock ran, if known.
    pub host: Option<String>,
    /// Seconds since 1970 minus seconds on its clock, if known.
    pub clock_offset: Option<f64>,
    /// Why the client spoiled the load, where it says so of itself (llm.load).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_bound: Option<String>,
    /// Names of the databases that its time points came from.
    pub databases: BTreeSet<String>,
    /// Requests by data set.
    pub data_sets: BTreeMap<String, u64>,
}

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(merge::Merge);
    catalog.add(report::Report);
}
