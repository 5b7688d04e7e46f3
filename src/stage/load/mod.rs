//! Load on model servers: prompts sent by a schedule or a number at a time, every event of every answer stamped. Unaware of who
//! started the servers.
//!
//! `params` say what is asked, `prompt` makes bodies and `arrival` a schedule of it, `conversation` what is said after an answer, `plan` is the whole load, a `shard` a thread that sends
//! its part over `connection`s on the ways that `network` knows, `exchange` one request on one of them (`wire`, `chunk` and `likeness` read the answer), `record` what was
//! measured. `prompts` (with `lengths`) makes files of prompts. When the clock has stopped `table` writes the rows, `selfcheck` judges the client, `steady` finds the steady state, `measure` puts them together for the `stage`;
//! `search` tries level after level, `sweep` puts loads side by side,
//! `answers` hands on what was said.

mod answers;
mod arrival;
mod chunk;
mod clock;
mod connection;
mod conversation;
mod endpoint;
mod exchange;
mod failure;
mod lengths;
mod likeness;
mod measure;
mod network;
mod params;
mod plan;
mod prompt;
mod prompts;
mod record;
mod search;
mod selfcheck;
mod shard;
mod stage;
mod steady;
mod summary;
mod sweep;
mod table;
mod trace;
mod wire;

#[cfg(test)]
mod tests;

use crate::api::Catalog;

/// Adds this domain's stages.
pub fn register(catalog: &mut Catalog) {
    catalog.add(answers::Answers);
    catalog.add(prompts::Prompts);
    catalog.add(search::Search);
    catalog.add(stage::Load);
    catalog.add(sweep::Sweep);
}
