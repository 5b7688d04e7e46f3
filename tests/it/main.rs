//! Behaviour through the real binary: one module per feature, each test a small story told with `support`.

mod support;

mod compare;
mod first_run;
mod freshness;
mod inferencemax;
mod shipped;
