//! Pure: expansion of a workflow to nodes, the DAG, selection, drawing. Unaware of keys, stores and running.
//!
//! `scope` flattens includes, `eval` resolves references, `matrix` makes combinations, `expand` turns steps into nodes,
//! `link` connects plain paths to the nodes that make them and finds cycles, `depfile` does so for what depfiles name, `select` picks targets, `draw` shows the result.

mod depfile;
pub mod draw;
mod eval;
mod expand;
mod link;
mod matcher;
mod matrix;
mod node;
mod node_set;
mod nodes;
pub mod pattern;
mod scope;
mod select;
mod undeclared;
mod value;

pub use depfile::Discovered;
pub use expand::{Expansion, expand};
pub use node::{
    Arg, CommandIo, Graph, Input, Item, Node, NodeAction, NodeIx, Output, ServiceAction, ServiceIx,
    ServiceNode, ShellPart,
};
pub use node_set::NodeSet;
pub use nodes::Nodes;
pub(crate) use pattern::join;
pub use pattern::{Entry, Listing, NoFiles, Pattern, Piece};
pub use select::{Selection, matcher, one, select, select_all};
pub use undeclared::Undeclared;
pub use value::{Fill, Identity, Late, Seg, Text, Value, shell_words};
