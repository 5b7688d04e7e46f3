//! `sim.http`: a static file server with ETag, Last-Modified, gzip and faults on demand. Unaware of workflows.

mod body;
mod fault;
mod file;
mod params;
mod respond;
mod server;

#[cfg(test)]
mod tests;

pub use params::{Fault, Params, RetryAfter};
pub use server::Server;

use crate::api::SimulatorInfo;

/// What `flow check` and the docs see.
pub fn info() -> SimulatorInfo {
    SimulatorInfo {
        name: "sim.http",
        version: 1,
        doc: "Serves the files of a directory on 127.0.0.1: GET and HEAD, ETag, Last-Modified, 304, gzip; \
              faults by path for tests; files are read at every request",
        params: schemars::schema_for!(Params),
        check: params::check,
    }
}
