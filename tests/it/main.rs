//! Behaviour through the real binary: one module per feature, each test a small story told with `support`.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, reason = "all of it is test code")]

mod support;

mod adopt;
mod changed_files;
mod cli;
mod compare;
mod concurrency;
mod critical_path;
mod depfile;
mod determinism;
mod aisbench;
mod evalscope;
mod evalscope_broken;
mod evalscope_slo;
mod explain;
mod faults;
mod first_run;
mod freshness;
mod frozen;
mod full_disk;
mod fuzz;
mod gc;
mod graph;
mod hardening;
mod incremental;
mod inferencemax;
mod interrupt;
mod jobserver;
mod kill;
mod messages;
mod nothing_to_do;
mod odd;
mod outputs;
mod plain;
mod policies;
mod relocation;
mod secrets;
mod services;
mod shipped;
mod store;
mod strict;
mod trace;
mod upgrade;
mod vendor;
mod watch;
