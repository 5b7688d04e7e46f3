//! `sim.llm`: an OpenAI-compatible model server that says when it wrote what, with faults on demand. Unaware of workflows and of clients.

mod alarm;
mod answer;
mod ask;
mod connection;
mod fault;
mod frame;
mod link;
mod log;
mod params;
mod pause;
mod plan;
mod quantity;
mod request;
mod script;
mod server;
mod site;
mod words;

#[cfg(test)]
mod tests;

pub use server::Server;

use crate::api::SimulatorInfo;

/// What `flow check` and the docs see.
pub fn info() -> SimulatorInfo {
    SimulatorInfo {
        name: "sim.llm",
        version: 1,
        doc: "An OpenAI-compatible model server on 127.0.0.1 (chat and text completions, streamed or whole): set delays, slots, \
              framing and faults; a log of the true time of every write",
        params: schemars::schema_for!(params::Params),
        check: params::check,
    }
}
