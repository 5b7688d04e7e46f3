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

impl Signature {
    /// A stage with the parameters `P` that does pure CPU work: no ports and no repetition unless added below.
    pub fn new<P: schemars::JsonSchema>(doc: &'static str) -> Self {
        Self::with_schema(doc, schemars::schema_for!(P))
    }

    /// Like [`Signature::new`], for parameters that no type describes.
    pub fn with_schema(doc: &'static str, params: schemars::Schema) -> Self {
        Self {
            doc,
            params,
            inputs: Vec::new(),
            outputs: Vec::new(),
            policy: Policy::Pure,
            retry: None,
            work: Work::Cpu,
        }
    }

    /// Adds an input of exactly one file.
    #[must_use]
    pub fn input(self, name: &'static str, doc: &'static str) -> Self {
        self.port(name, Arity::One, doc)
    }

    /// Adds an input of one file or none.
    #[must_use]
    pub fn optional_input(self, name: &'static str, doc: &'static str) -> Self {
        self.port(name, Arity::Optional, doc)
    }

    /// Adds an input of any number of files, in the order given.
    #[must_use]
    pub fn input_list(self, name: &'static str, doc: &'static str) -> Self {
        self.port(name, Arity::Many, doc)
    }

    fn port(mut self, name: &'static str, arity: Arity, doc: &'static str) -> Self {
        self.inputs.push(InputPort { name, arity, doc });
        self
    }

    /// Adds an output that every step declares.
    #[must_use]
    pub fn output(mut self, name: &'static str, doc: &'static str) -> Self {
        self.outputs.push(OutputPort { name, optional: false, dir: false, doc });
        self
    }

    /// Adds an output that every step declares, as a directory: its path ends with a slash.
    #[must_use]
    pub fn output_dir(mut self, name: &'static str, doc: &'static str) -> Self {
        self.outputs.push(OutputPort { name, optional: false, dir: true, doc });
        self
    }

    /// Adds an output that a step may leave out.
    #[must_use]
    pub fn optional_output(mut self, name: &'static str, doc: &'static str) -> Self {
        self.outputs.push(OutputPort { name, optional: true, dir: false, doc });
        self
    }

    /// Sets what `cache: auto` means.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Sets the repetition for steps that do not say.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry: Some(retry), ..self }
    }

    /// Sets what kind of work it is.
    #[must_use]
    pub fn work(self, work: Work) -> Self {
        Self { work, ..self }
    }
}

/// The parameters of a stage that has none.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

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
    /// It has to be a directory. Otherwise it is what the step says.
    pub dir: bool,
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
