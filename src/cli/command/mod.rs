//! One file per command, each with one function that takes the arguments and prints.

pub(super) mod cache;
pub(super) mod check;
pub(super) mod clean;
pub(super) mod devices;
pub(super) mod exec;
pub(super) mod explain;
pub(super) mod graph;
pub(super) mod key;
pub(super) mod load;
pub(super) mod log;
pub(super) mod ls;
pub(super) mod plan;
pub(super) mod run;
pub(super) mod schema;
pub(super) mod stages;
pub(super) mod up;
pub(super) mod watch;
pub(super) mod why;
