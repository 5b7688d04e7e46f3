//! What a stage takes and gives, as data: used by `flow check`, `flow stages`, the docs and the schema.

use crate::model::{Policy, Retry};

/// The public face of a stage.
#[derive(Clone, Debug)]
pub struct Signature {
    /// One line, then details: what it does, units, the source of definitions.
    pub doc: &'static str,
    /// JSON Schema of the parameters (made by schemars from the stage's parameter struct).
    pub params: schemars::Schema,
    /// Inputs.
    pub inputs: Vec<InputPort>,
    /// Outputs.
    pub outputs: Vec<OutputPort>,
    /// What `cache: auto` means.
    pub policy: Policy,
    /// Repetition when the step does not say.
    pub retry: Option<Retry>,
    /// What kind of work it is, so where it runs.
    pub work: Work,
}

/// A named input.
#[derive(Clone, Debug)]
pub struct InputPort {
    /// Its name; `*` takes inputs of any name.
    pub name: &'static str,
    /// How many files.
    pub arity: Arity,
    /// One line.
    pub doc: &'static str,
}

/// A named output.
#[derive(Clone, Debug)]
pub struct OutputPort {
    /// Its name.
    pub name: &'static str,
    /// The step may leave it out.
    pub optional: bool,
    /// One line.
    pub doc: &'static str,
}

/// How many files an input takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one.
    One,
    /// One or none.
    Optional,
    /// Any number, in the order given.
    Many,
}

/// What kind of work a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Computes: occupies CPU slots.
    Cpu,
    /// Waits for others (network): occupies no CPU slot.
    Wait,
}
