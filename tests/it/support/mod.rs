//! A workspace in a temporary directory, the real binary, and what its runs said.

mod disk;
mod process;
mod run;
mod workspace;

pub use disk::Disks;
pub use process::{LONG, names_in, nothing_left, processes_of, signal, wait_for};
pub use run::Run;
pub use workspace::{Workspace, fixtures, flow_binary, repository};
