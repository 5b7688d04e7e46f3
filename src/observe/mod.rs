//! Consumers of events: console, progress bar, JSON lines, run records. Unaware of the engine.

pub mod console;
pub mod critical_path;
pub mod diagnostic;
pub mod fanout;
pub mod history;
pub mod jsonl;
mod lines;
mod printer;
pub mod record;
#[cfg(test)]
mod snapshot;
pub mod summary;
pub mod table;
pub mod timeline;
pub mod trace;

pub use console::{Console, ProgressMode, Verbosity};
pub use fanout::{Fanout, Observer};
pub use printer::{Captured, Printer};
#[cfg(test)]
pub(crate) use snapshot::check_current;
