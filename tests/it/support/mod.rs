//! A workspace in a temporary directory, the real binary, and what its runs said.

mod process;
mod run;
mod workspace;

pub use process::{LONG, names_in, nothing_left, processes_of, signal, wait_for};
pub use run::Run;
pub use workspace::{Workspace, fixtures, flow_binary, repository};
