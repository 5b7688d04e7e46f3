//! The command line: arguments as typed, resolved options, one file per command. Imports everything, imported by nobody.

mod app;
pub mod args;
mod command;
pub mod completions;
pub mod reference;
pub mod render;
mod signals;
mod signature;
mod stage_reference;

pub use app::{main, main_with};
