//! Ways to declare a workflow, all ending in [`crate::model::Workflow`]: JSON with exact diagnostics, the Rust builder, the schema.
//! Unaware of expansion: nothing is resolved to values, no directory is listed.

pub mod builder;
mod check;
mod keys;
mod load;
mod lower;
mod node;
mod params;
mod reference;
mod report;
mod schema;
mod syntax;
#[cfg(test)]
mod tests;

pub(crate) use check::circle;
pub use load::{LoadRequest, Loaded, load, load_value};
pub use schema::{schema, schema_text};
