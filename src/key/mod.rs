//! Pure: the manifest of what decides a result; hash and explanation are two visitors of it.
//!
//! | what | component | in the key | in `plan_digest` |
//! | --- | --- | --- | --- |
//! | manifest format | `format` | version | version |
//! | stage | `stage`, `stage version` | name, version | same |
//! | command | `command`, `shell`, `cwd`, `stdin`, `stdout` | text by identity | same |
//! | parameters | `with.NAME` | canonical JSON by identity | same |
//! | environment set | `env.NAME` | value by identity | same |
//! | environment passed | `pass_env.NAME` | value | name only |
//! | programs | `tool.NAME` | content digest or version text | name only |
//! | services | `service.ID` | digest of the definition and identity entries | the definition |
//! | outputs | `output.NAME` | kind and flags, never the path | same |
//! | sample number | `sample` | number | same |
//! | hardware (policy sample) | `hardware` | CPU model and cores, devices | no |
//! | inputs | `input.NAME`, `input.NAME: PATH` | order, kind, x-bit, content digest | names and patterns |
//! | depfile | `depfile` | path by identity | same |
//! | discovered inputs | `discovered`, `discovered.PATH` | number, kind, x-bit, content digest | no |
//!
//! A node with a depfile has a key of two levels: the digest of all components but the discovered ones leads to the lists of paths
//! that its last successes discovered; the digest of all, with what lies at one of these lists of paths now, leads to a result.
//!
//! Never in a key: output paths, attempts, resources, worker counts, times, absolute paths, ports, process ids.

mod manifest;
mod reason;

pub use manifest::{
    Components, FORMAT, Facts, Hash, InputFact, Visitor, discovered_path, hash, hash_of, is_discovered,
    manifest, plan_digest, service_definition, service_identity, static_digest, walk,
};
pub use reason::{Change, Reason, changes};
