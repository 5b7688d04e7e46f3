//! `flow`: make for LLM-inference benchmark and data pipelines.
//!
//! A workflow, declared in JSON ([`front`]) or Rust, is expanded to a graph of nodes; each node's identity is a digest of everything
//! that decides its result; results live in a content-addressed store; only what changed runs again.
//! The modules below are layers: each imports only those above it.
//!
//! A workflow in Rust has the whole command line (`cargo run --example inferencemax -- run`):
//!
//! ```
//! use flow::prelude::*;
//!
//! let mut wf = Workflow::new("demo");
//! let sizes = wf.param("sizes", json!([1, 2]));
//! let make = wf.step("make").matrix("n", &sizes).run(["seq", "${matrix.n}"]).set("stdout", "list");
//! let make = make.output("list", "out/${matrix.n}.txt");
//! wf.step("all").run(["cat", &make.out("list")]).set("stdout", "all").output("all", "out/all.txt");
//! assert_eq!(wf.to_json()["steps"]["all"]["run"][1], "${steps.make.list}");
//! // in main: flow::cli::main_with(|_args| wf)
//! ```

pub mod base;
pub mod model;
pub mod error;
pub mod event;
pub mod api;
pub mod front;
pub mod graph;
pub mod key;
pub mod store;
pub mod exec;
pub mod stage;
pub mod engine;
pub mod observe;
pub mod cli;

pub use error::{Error, Result};

/// What a program that declares workflows in Rust needs.
pub mod prelude {
    pub use crate::api::{Stage, StageContext, StageError};
    pub use crate::front::builder::{ParamHandle, StageCall, StepBuilder, Uses, WorkflowBuilder as Workflow};
    pub use serde_json::json;

    /// Calls of the `http` stages.
    pub mod http {
        pub use crate::stage::http::FetchCall as Fetch;
    }
}
