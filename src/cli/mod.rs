//! The command line: arguments as typed, resolved options, one file per command. Imports everything, imported by nobody.

pub mod args;
pub mod completions;
pub mod reference;
pub mod render;
