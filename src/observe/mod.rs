//! Consumers of events: console, progress bar, JSON lines, run records. Unaware of the engine.

pub mod diagnostic;
