//! The built-in stages, registered in one catalog. They see inputs, outputs and parameters; never the store or the engine.

pub mod aiperf;
pub mod aisbench;
pub mod archive;
pub mod bench;
pub mod eval;
pub mod evalscope;
pub mod http;
pub mod inferencemax;
pub mod load;
pub mod metrics;
pub mod report;
pub mod sim;
mod sqlite;
pub mod table;
pub mod vendor;
pub mod vllm;

#[cfg(test)]
pub(crate) mod harness;

use crate::api::Catalog;

/// Every built-in stage and simulator.
pub fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    aiperf::register(&mut catalog);
    aisbench::register(&mut catalog);
    archive::register(&mut catalog);
    bench::register(&mut catalog);
    eval::register(&mut catalog);
    evalscope::register(&mut catalog);
    http::register(&mut catalog);
    inferencemax::register(&mut catalog);
    load::register(&mut catalog);
    metrics::register(&mut catalog);
    report::register(&mut catalog);
    sim::register(&mut catalog);
    table::register(&mut catalog);
    vendor::register(&mut catalog);
    vllm::register(&mut catalog);
    catalog
}
