//! Traits only: what a stage is to the engine, and what the engine is to a stage.

mod context;
mod not_json;
mod signature;
mod stage;
mod wording;

pub use context::{CancelToken, InputFile, LOCAL, Previous, StageContext};
pub use signature::{Arity, InputPort, NoParams, OutputPort, Signature, Work};
pub use stage::{
    Catalog, Done, ParamFault, SimulatorInfo, Stage, StageError, check_params, parse_params, secrets_as_text,
};
pub use wording::{needs_parameter, no_parameter};
