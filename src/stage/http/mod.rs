//! Fetching over HTTP: the stage `http.fetch`. Unaware of who repeats a failed attempt.

mod call;
mod fetch;
mod limit;
mod params;
mod policy;
mod transfer;

#[cfg(test)]
mod tests;

pub use call::FetchCall;
pub use fetch::Fetch;
pub use params::{Expect, Params, PerHost, Timeouts};

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(Fetch);
}
