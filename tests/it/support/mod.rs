//! A workspace in a temporary directory, the real binary, and what its runs said.

mod run;
mod workspace;

pub use run::Run;
pub use workspace::{Workspace, fixtures, flow_binary, repository};
