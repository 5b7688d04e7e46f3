//! Behaviour through the real binary: one module per feature, each test a small story told with `support`.

#![allow(clippy::unwrap_used, unreachable_pub)] // all of it is tests

mod support;

mod cli;
mod first_run;
mod messages;
mod secrets;
