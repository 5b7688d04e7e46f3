//! How one attempt runs: local processes, the guard that lets nothing outlive flow, service processes, devices. Unaware of graphs and keys.

mod command;
mod depfile;
mod device;
mod family;
mod groups;
mod guard;
mod jobserver;
mod launch;
mod lines;
mod mask;
mod plain;
mod port;
mod probe;
mod service;
mod service_log;
mod strict;

pub use command::{CommandJob, Exit, run_command};
pub use depfile::{DepfileFault, parse_depfile};
pub use device::{Denied, Device, Found, MachineLock, MachineLocks, VIRTUAL, device_env, discover, worded};
pub use guard::{Guard, end_run_processes, guard_main};
pub use jobserver::{JobPool, style_of_make};
pub use launch::LaunchError;
pub use mask::{MaskStream, Masker};
pub use service::{ArgvForPort, EnvForPort, RunningService, ServiceFailure, ServiceSpec, Stopped};
pub use strict::{Offence, Rules, Told, confined, strict_main, strict_supported, told};
