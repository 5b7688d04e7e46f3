//! Ways to declare a workflow, all ending in model::Workflow: JSON with exact diagnostics, the Rust builder, the schema.
