//! A workflow, its steps and services as declared. Unaware of JSON, expansion and running.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Expr, Policy, Reference, Retry, SourceId, Span, Template};

/// Something with the place where it was declared.
#[derive(Clone, Debug)]
pub struct Declared<T> {
    /// The thing.
    pub value: T,
    /// Where; `None` if made in Rust.
    pub span: Option<Span>,
}

/// One workflow file with its includes.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// Declared name.
    pub name: String,
    /// One paragraph.
    pub description: String,
    /// The declaring file.
    pub source: SourceId,
    /// Directory of the file, relative to the workspace root (absolute if outside). Value of `${workflow.dir}`; its identity is the text `workflow.dir`.
    pub dir: String,
    /// Parameters with every override applied.
    pub params: IndexMap<String, Param>,
    /// Environment of every step of this file.
    pub env: IndexMap<String, Expr>,
    /// Pools and devices (the root's are the run's).
    pub resources: Resources,
    /// Services by id.
    pub services: IndexMap<String, Service>,
    /// Steps by id, in declared order, `defaults` applied.
    pub steps: IndexMap<String, Step>,
    /// Included workflows, in declared order.
    pub includes: Vec<Include>,
    /// Command or webhook run after the record is closed.
    pub on_finish: Option<Declared<Command>>,
}

/// An included workflow.
#[derive(Clone, Debug)]
pub struct Include {
    /// Put before its ids, with a dot.
    pub prefix: String,
    /// Where it was asked for.
    pub span: Option<Span>,
    /// The included workflow.
    pub workflow: Workflow,
}

/// A parameter's binding.
#[derive(Clone, Debug)]
pub struct Param {
    /// The value.
    pub value: Expr,
    /// In which file its references are resolved.
    pub scope: ParamScope,
}

/// Where the references of a parameter's value are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamScope {
    /// In the file that declares the parameter (and for plain values from the command line).
    Own,
    /// In the file that includes it.
    Includer,
}

/// Run-wide resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// `gpu:8` and so on, as written.
    pub devices: Option<String>,
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
}

/// A pool of interchangeable slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Number of slots.
    pub size: u32,
    /// Shared by all runs on the machine.
    pub machine: bool,
}

/// A step as declared.
#[derive(Clone, Debug)]
pub struct Step {
    /// `[A-Za-z0-9_-]+`
    pub id: String,
    /// The id's place.
    pub span: Option<Span>,
    /// One line for `flow plan`.
    pub doc: String,
    /// What runs.
    pub action: Action,
    /// Inputs by name.
    pub inputs: IndexMap<String, Expr>,
    /// Outputs by name.
    pub outputs: IndexMap<String, OutputDecl>,
    /// One node per combination.
    pub matrix: Matrix,
    /// Independent samples; `None` is one, unsuffixed.
    pub repeats: Option<Declared<u32>>,
    /// Order only: step ids of this file, or `prefix.id`.
    pub needs: Vec<Declared<String>>,
    /// Variables set.
    pub env: IndexMap<String, Expr>,
    /// Variables passed through.
    pub pass_env: Vec<String>,
    /// Programs whose identity is part of the key.
    pub tools: Vec<Tool>,
    /// What it occupies.
    pub resources: StepResources,
    /// Repetition of failed attempts; `None`: the stage's default.
    pub retry: Option<Retry>,
    /// Longest time of one attempt.
    pub timeout: Option<Duration>,
    /// `None` is `"auto"`.
    pub policy: Option<Declared<Policy>>,
    /// A failure does not fail the run.
    pub allow_failure: bool,
}

impl Step {
    /// Calls `visit` for every reference inside, wherever it stands.
    pub fn for_each_reference<'a>(&'a self, visit: &mut dyn FnMut(&'a Reference)) {
        let mut of = |expr: &'a Expr| expr.for_each_reference(&mut |reference, _| visit(reference));
        self.inputs.values().for_each(&mut of);
        self.outputs.values().for_each(|output| of(&output.path));
        self.env.values().for_each(&mut of);
        for axis in self.matrix.axes.values() {
            if let AxisValues::List(expr) | AxisValues::Glob(expr) = &axis.values {
                of(expr);
            }
        }
        self.matrix.include.iter().chain(&self.matrix.exclude).for_each(&mut of);
        match &self.action {
            Action::Uses { with, .. } => with.values().for_each(of),
            Action::Run { command, cwd, depfile, .. } => {
                cwd.iter().chain(depfile).for_each(&mut of);
                match command {
                    Command::Argv(args) => args.iter().for_each(of),
                    Command::Shell { text, .. } => {
                        text.references().for_each(|(reference, _)| visit(reference))
                    }
                }
            }
        }
    }
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// A built-in stage.
    Uses {
        /// Its name, `domain.verb`.
        stage: Declared<String>,
        /// Its parameters.
        with: IndexMap<String, Expr>,
    },
    /// A command.
    Run {
        /// The command.
        command: Command,
        /// Directory in the workspace.
        cwd: Option<Expr>,
        /// Name of an input.
        stdin: Option<Declared<String>>,
        /// Name of an output.
        stdout: Option<Declared<String>>,
        /// A Make-style file that the command writes: what else it read.
        depfile: Option<Expr>,
        /// Plain argv elements that are files become inputs.
        implicit: bool,
    },
}

/// A command line.
#[derive(Clone, Debug)]
pub enum Command {
    /// Started without a shell; an element that is exactly one reference to a list becomes several arguments.
    Argv(Vec<Expr>),
    /// Run by a shell; references are inserted quoted.
    Shell {
        /// The text.
        text: Template,
        /// Place of the text.
        span: Option<Span>,
        /// Default `sh -euc`; the text is its last argument.
        shell: Vec<String>,
    },
}

/// A declared output.
#[derive(Clone, Debug)]
pub struct OutputDecl {
    /// Path relative to the root; a trailing `/` means a directory tree.
    pub path: Expr,
    /// Entries are added, never removed.
    pub append: bool,
    /// May be absent.
    pub optional: bool,
    /// Published even if the attempt failed after making it.
    pub on_failure: bool,
}

/// The matrix of a step or service.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// Axes in declared order.
    pub axes: IndexMap<String, Axis>,
    /// Entries that add combinations or variables.
    pub include: Option<Expr>,
    /// Entries that remove combinations.
    pub exclude: Option<Expr>,
}

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Its place.
    pub span: Option<Span>,
    /// Where its values come from.
    pub values: AxisValues,
}

/// Where the values of an axis come from.
#[derive(Clone, Debug)]
pub enum AxisValues {
    /// A list, or a reference to one.
    List(Expr),
    /// Paths that match: a pattern, a list of patterns, or a reference to outputs.
    Glob(Expr),
    /// `{"start", "end", "factor" | "step"}` already multiplied out.
    Ladder(Vec<serde_json::Number>),
}

/// A program whose identity is part of the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tool {
    /// Content digest of the resolved file.
    Program(String),
    /// The output of a command, asked again only when `files` changed.
    Version {
        /// The command.
        argv: Vec<String>,
        /// Patterns of files that decide the output.
        files: Vec<String>,
    },
}

/// What a node occupies while it runs. Never part of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepResources {
    /// CPU slots; default 1.
    pub cpu: u32,
    /// Memory in bytes, 0 if not said.
    pub mem: u64,
    /// Slots of named pools.
    pub pools: BTreeMap<String, u32>,
    /// Alone in the run, or alone in a pool.
    pub exclusive: Option<ExclusiveScope>,
    /// The command takes the tokens of its further jobs from the pool of the run.
    pub jobserver: Option<Jobserver>,
    /// Devices leased as long as it runs.
    pub gpu: Option<GpuDemand>,
}

impl Default for StepResources {
    fn default() -> Self {
        Self { cpu: 1, mem: 0, pools: BTreeMap::new(), exclusive: None, jobserver: None, gpu: None }
    }
}

/// Devices that a node or a service leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuDemand {
    /// How many, at least 1.
    pub count: u32,
    /// Memory that each has at least, bytes; 0 if not said.
    pub mem: u64,
    /// Part of the model's name, whatever its case; `None`: any.
    pub model: Option<String>,
}

/// How a command is told of the pool of job tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Jobserver {
    /// As the make of this machine understands it.
    Auto,
    /// By the name of a pipe: GNU make 4.4, ninja 1.13, cargo.
    Fifo,
    /// By two open descriptors: GNU make 4.2 and later, cargo.
    Pipe,
}

/// How alone a node wants to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExclusiveScope {
    /// Nothing else runs.
    Run,
    /// Nothing else that uses this pool runs.
    Pool(String),
}

/// A service as declared.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// The id's place.
    pub span: Option<Span>,
    /// What runs.
    pub action: ServiceAction,
    /// Variables set.
    pub env: IndexMap<String, Expr>,
    /// Fixed port; `None`: a free one.
    pub port: Option<u16>,
    /// When it counts as up.
    pub ready: Ready,
    /// Grace after TERM.
    pub stop: Duration,
    /// Programs whose identity is part of its own.
    pub identity_tools: Vec<Tool>,
    /// Patterns of files whose content is part of its identity.
    pub identity_files: Vec<Expr>,
    /// One service per combination.
    pub matrix: Matrix,
    /// Devices that an instance leases as long as it lives; with `per_gpu` how many instances there are.
    pub gpu: Option<GpuDemand>,
    /// One instance per device.
    pub per_gpu: bool,
    /// Instances on the same devices (`per_gpu`), or in all.
    pub replicas: u32,
    /// Its instances are on the devices of this service's.
    pub with_service: Option<Declared<String>>,
}

/// What a service runs.
#[derive(Clone, Debug)]
pub enum ServiceAction {
    /// A built-in simulator.
    Uses {
        /// Its name, e.g. `sim.http`.
        service: Declared<String>,
        /// Its parameters.
        with: IndexMap<String, Expr>,
    },
    /// A command.
    Run(Command),
}

/// When a service counts as up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// How it is asked.
    pub probe: Probe,
    /// How long it may take.
    pub timeout: Duration,
}

/// How readiness is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A 2xx answer to GET of this path.
    Http(String),
    /// The port accepts connections.
    Tcp,
    /// A line of its output matches.
    Log(String),
    /// It prints one JSON line with `url` (the built-in simulators).
    Announce,
}
