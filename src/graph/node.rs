//! Nodes, their inputs and outputs, services, and the graph of them. Unaware of how they came to be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use petgraph::graph::DiGraph;
use serde::{Deserialize, Serialize};

use super::{Fill, Identity, NodeSet, Nodes, Text, Value, shell_words};
use crate::model::{GpuDemand, Policy, Probe, Resources, Retry, SourceId, Span, StepResources, Tool};

/// Which node, as an index into [`Graph::nodes`].
pub type NodeIx = usize;
/// Which service, as an index into [`Graph::services`].
pub type ServiceIx = usize;

/// The expanded workflow.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Name of the root workflow.
    pub name: String,
    /// Name of the root workflow's file.
    pub file: String,
    /// Names of all files of the graph, by [`SourceId`].
    pub files: Vec<String>,
    /// All nodes; steps in declared order (includes after their file's own), combinations row-major.
    pub nodes: Nodes,
    /// Steps without nodes: an axis of theirs is empty.
    pub empty_steps: Vec<String>,
    /// All services.
    pub services: Vec<ServiceNode>,
    /// Run-wide resources.
    pub resources: Resources,
    /// Producer -> consumer.
    pub dag: DiGraph<(), ()>,
    /// A topological order, stable.
    pub order: Vec<NodeIx>,
    /// Output path (no trailing slash) -> its nodes (several only for append directories).
    pub made_by: HashMap<String, Vec<(NodeIx, usize)>>,
    /// Node id -> index.
    pub by_id: HashMap<String, NodeIx>,
    /// `on_finish` of the root.
    pub on_finish: Option<NodeAction>,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// `fetch[model=x,kind=e2e]`, prefixed by includes. First: a compiled plan reads it alone.
    pub id: String,
    /// `fetch`, prefixed by includes.
    pub step: String,
    /// Declaring file.
    pub source: SourceId,
    /// Place of the step's id.
    pub span: Option<Span>,
    /// One line.
    pub doc: String,
    /// Axis name and value's text form, in order.
    pub axes: Vec<(String, String)>,
    /// What runs.
    pub action: NodeAction,
    /// Inputs in declared order, implicit ones last.
    pub inputs: Vec<Input>,
    /// Outputs in declared order.
    pub outputs: Vec<Output>,
    /// Order only.
    pub needs: Vec<NodeIx>,
    /// Nodes that make something this one takes, sorted.
    pub producers: Vec<NodeIx>,
    /// Variables set, sorted by name.
    pub env: BTreeMap<String, Value>,
    /// Variables passed through, sorted.
    pub pass_env: Vec<String>,
    /// Programs in the key.
    pub tools: Vec<Tool>,
    /// Services used, sorted.
    pub services: Vec<ServiceIx>,
    /// Those of them of which every instance is used (`.urls`), sorted.
    pub whole: Vec<ServiceIx>,
    /// What it occupies.
    pub resources: StepResources,
    /// Repetition of failed attempts.
    pub retry: Option<Retry>,
    /// Longest time of one attempt.
    pub timeout: Option<Duration>,
    /// What an equal key means.
    pub policy: Policy,
    /// A failure does not fail the run.
    pub allow_failure: bool,
    /// Sample number, 1 without `repeats`.
    pub sample: u32,
}

/// What a node runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum NodeAction {
    /// A stage.
    Stage {
        /// Its name.
        name: String,
        /// Its version.
        version: u32,
        /// Its parameters, an object.
        with: Value,
        /// Runs on CPU slots (otherwise it waits).
        cpu: bool,
    },
    /// A command without a shell.
    Argv {
        /// Its arguments.
        args: Vec<Arg>,
        /// Where and with what.
        io: CommandIo,
    },
    /// Text run by a shell.
    Shell {
        /// `sh -euc`
        shell: Vec<String>,
        /// The text in parts.
        parts: Vec<ShellPart>,
        /// Where and with what.
        io: CommandIo,
    },
}

/// Directory and streams of a command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CommandIo {
    /// Directory relative to the root.
    pub cwd: Option<String>,
    /// Name of an input.
    pub stdin: Option<String>,
    /// Name of an output.
    pub stdout: Option<String>,
    /// A Make-style file that the command writes: what else it read. Relative to the root; late parts are own outputs.
    pub depfile: Option<Text>,
}

/// One declared argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Arg {
    /// One argument.
    One(Text),
    /// One argument for each path of an input, between a prefix and a suffix.
    Each {
        /// Before the path.
        before: Text,
        /// Input name.
        input: String,
        /// After the path.
        after: Text,
    },
    /// One argument for each item of a list that is known while running (`.urls`).
    List(Value),
}

/// One part of shell text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ShellPart {
    /// As written.
    Raw(String),
    /// Inserted quoted.
    Quoted(Value),
}

/// One named input of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its files in order.
    pub items: Vec<Item>,
    /// A list, also when of one.
    pub list: bool,
    /// Patterns it was matched from, in order.
    pub patterns: Vec<String>,
    /// Not declared under `inputs` (a reference in the action, a file in argv).
    pub implicit: bool,
}

/// One file or directory of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// An output of a node.
    Made {
        /// The node.
        node: NodeIx,
        /// Index of its output.
        output: usize,
    },
    /// A file inside a directory output of a node.
    Within {
        /// The node.
        node: NodeIx,
        /// Index of its output.
        output: usize,
        /// Path inside the directory.
        sub: String,
    },
    /// A path that no node makes; if a directory, nodes may put files into it.
    Source {
        /// Relative to the root, or absolute outside of it.
        path: String,
        /// Nodes whose outputs lie in it.
        inside: Vec<NodeIx>,
    },
}

/// One declared output of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Relative to the root, normalized, no trailing slash.
    pub path: String,
    /// A directory tree.
    pub dir: bool,
    /// Entries are added, never removed.
    pub append: bool,
    /// May be absent.
    pub optional: bool,
    /// Published even if the attempt failed.
    pub on_failure: bool,
    /// Place of its path.
    pub span: Option<Span>,
}

/// One service.
#[derive(Clone, Debug)]
pub struct ServiceNode {
    /// Id, prefixed by includes.
    pub id: String,
    /// Declaring file.
    pub source: SourceId,
    /// What runs.
    pub action: ServiceAction,
    /// Variables set.
    pub env: BTreeMap<String, Value>,
    /// Fixed port.
    pub port: Option<u16>,
    /// When it is up.
    pub probe: Probe,
    /// How long that may take.
    pub ready_timeout: Duration,
    /// Grace after TERM.
    pub stop: Duration,
    /// Programs in its identity.
    pub identity_tools: Vec<Tool>,
    /// Files in its identity (paths or patterns).
    pub identity_files: Vec<String>,
    /// Devices that an instance leases; with `per_gpu` how many instances of one device there are.
    pub gpu: Option<GpuDemand>,
    /// One instance per device.
    pub per_gpu: bool,
    /// Instances on the same devices (`per_gpu`, `beside`), or in all.
    pub replicas: u32,
    /// Its instances are on the devices of this service's.
    pub beside: Option<ServiceIx>,
    /// Services that it refers to itself, sorted: they are up before it.
    pub uses: Vec<ServiceIx>,
    /// Those of them of which it refers to one instance, sorted.
    pub one: Vec<ServiceIx>,
}

/// What a service runs.
#[derive(Clone, Debug)]
pub enum ServiceAction {
    /// A simulator.
    Simulator {
        /// Its name.
        name: String,
        /// Its version.
        version: u32,
        /// Its parameters.
        with: Value,
    },
    /// A command.
    Command(NodeAction),
}

/// The services that have to be up before this one: those that it refers to, and theirs.
pub(super) fn needed_services(services: &[ServiceNode], ix: ServiceIx) -> BTreeSet<ServiceIx> {
    let mut found = BTreeSet::new();
    let mut open = services[ix].uses.clone();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(&services[next].uses);
        }
    }
    found
}

impl Graph {
    /// The services that have to be up before this one: those that it refers to, and theirs.
    pub fn needed_services(&self, ix: ServiceIx) -> BTreeSet<ServiceIx> {
        needed_services(&self.services, ix)
    }

    /// Path of an item as a person names it.
    pub fn item_path(&self, item: &Item) -> String {
        match item {
            Item::Made { node, output } => self.nodes[*node].outputs[*output].path.clone(),
            Item::Within { node, output, sub } => {
                format!("{}/{sub}", self.nodes[*node].outputs[*output].path)
            }
            Item::Source { path, .. } => path.clone(),
        }
    }

    /// These nodes in topological order.
    pub fn ordered<'g>(&'g self, nodes: &'g NodeSet) -> impl DoubleEndedIterator<Item = NodeIx> + 'g {
        self.order.iter().copied().filter(|ix| nodes.contains(*ix))
    }

    /// Nodes that take something of `node` or are ordered after it.
    pub fn dependents(&self, node: NodeIx) -> impl Iterator<Item = NodeIx> + '_ {
        self.dag.neighbors(petgraph::graph::NodeIndex::new(node)).map(|ix| ix.index())
    }

    /// Nodes that `node` waits for, each once.
    pub fn predecessors(&self, node: NodeIx) -> impl Iterator<Item = NodeIx> + '_ {
        let ix = petgraph::graph::NodeIndex::new(node);
        self.dag.neighbors_directed(ix, petgraph::Incoming).map(|ix| ix.index())
    }

    /// Nodes that `node` takes something of or is ordered after.
    pub fn dependencies(&self, node: NodeIx) -> impl Iterator<Item = NodeIx> + '_ {
        self.nodes[node].producers.iter().chain(&self.nodes[node].needs).copied()
    }

    /// The file that declares `node`.
    pub fn file_of(&self, node: &Node) -> &str {
        &self.files[node.source.0 as usize]
    }
}

impl Item {
    /// The node that makes it.
    pub fn producers(&self) -> Vec<NodeIx> {
        match self {
            Self::Made { node, .. } | Self::Within { node, .. } => vec![*node],
            Self::Source { inside, .. } => inside.clone(),
        }
    }
}

impl Arg {
    /// As it stands in keys: `${inputs.NAME...}` for one argument per path.
    pub fn identity(&self) -> String {
        let text = |text: &Text| text.fill(&Identity).unwrap_or_default();
        match self {
            Self::One(one) => text(one),
            Self::Each { before, input, after } => {
                format!("{}${{inputs.{input}...}}{}", text(before), text(after))
            }
            Self::List(value) => shell_words(&value.identity()).unwrap_or_default(),
        }
    }
}

impl ShellPart {
    /// As it stands in keys. Equal texts are equal commands: references are told from raw text, in which `${` is escaped.
    pub fn identity(&self) -> String {
        match self {
            Self::Raw(text) => Identity.literal(text),
            Self::Quoted(value) => shell_words(&value.identity()).unwrap_or_default(),
        }
    }
}

impl NodeAction {
    /// The command's directory and streams.
    pub fn io(&self) -> Option<&CommandIo> {
        match self {
            Self::Stage { .. } => None,
            Self::Argv { io, .. } | Self::Shell { io, .. } => Some(io),
        }
    }

    /// Calls `visit` for every late part.
    pub fn for_each_late(&self, visit: &mut dyn FnMut(&super::Late)) {
        match self {
            Self::Stage { with, .. } => with.for_each_late(visit),
            Self::Argv { args, .. } => {
                for arg in args {
                    match arg {
                        Arg::One(text) => text.for_each_late(visit),
                        Arg::List(value) => value.for_each_late(visit),
                        Arg::Each { before, after, .. } => {
                            before.for_each_late(visit);
                            after.for_each_late(visit);
                        }
                    }
                }
            }
            Self::Shell { parts, .. } => {
                for part in parts {
                    if let ShellPart::Quoted(value) = part {
                        value.for_each_late(visit);
                    }
                }
            }
        }
    }
}
