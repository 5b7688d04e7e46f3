//! Ground floor: digests, canonical JSON, files, processes and clocks. Knows nothing of workflows.

pub mod canonical;
pub mod clock;
pub mod digest;
pub mod failpoint;
pub mod files;
pub mod http;
pub mod process;
pub mod suggest;
