//! Behaviour through the real binary: one module per feature, each test a small story told with `support`.

mod support;

mod concurrency;
mod first_run;
mod interrupt;
mod kill;
mod services;
