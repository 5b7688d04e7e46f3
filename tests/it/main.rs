//! Behaviour through the real binary: one module per feature, each test a small story told with `support`.

mod support;

mod first_run;
mod hardening;
