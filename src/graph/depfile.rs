//! Depfiles in the graph: where one may lie, and what a path that it names is to its node. Unaware of their content and of the disk.

use std::collections::{BTreeSet, HashMap};

use super::pattern::normal;
use super::{Graph, Item, Listing, Node, NodeIx, Text};
use crate::model::Span;

/// What a path that a depfile names is to the node that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovered {
    /// It is an output of the node itself, or lies in one.
    Own,
    /// A file or directory that the node may read: a source, or made by a node that comes before it.
    Item(Item),
    /// These nodes make it, and the node neither takes anything of them nor names them in `needs`.
    Unordered(Vec<NodeIx>),
}

impl Node {
    /// Its depfile, if it has one.
    pub fn depfile(&self) -> Option<&Text> {
        self.action.io().and_then(|io| io.depfile.as_ref())
    }

    /// Nodes whose files it may read: those that make its inputs; with a depfile also those that it names in `needs`.
    pub fn feeders(&self) -> impl Iterator<Item = NodeIx> + '_ {
        let needs = if self.depfile().is_some() { self.needs.as_slice() } else { &[] };
        self.producers.iter().chain(needs).copied()
    }
}

impl Graph {
    /// What `path` (normalized; relative to the root, or outside of it) is to `taker`.
    pub fn discovered(&self, taker: &Node, path: &str) -> Discovered {
        for dir in around(path) {
            let Some(made) = self.made_by.get(dir) else { continue };
            let own = made.iter().any(|(node, _)| self.nodes[*node].id == taker.id);
            if own {
                return Discovered::Own;
            }
            let before = made.iter().find(|(node, _)| taker.feeders().any(|feeder| feeder == *node));
            let Some(&(node, output)) = before else {
                return Discovered::Unordered(made.iter().map(|(node, _)| *node).collect());
            };
            return Discovered::Item(match path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/')) {
                Some(sub) => Item::Within { node, output, sub: sub.to_owned() },
                None => Item::Made { node, output },
            });
        }
        Discovered::Item(Item::Source { path: path.to_owned(), inside: Vec::new() })
    }

    /// Nodes other than `taker` that make something in the directory `path`.
    pub fn makers_inside(&self, taker: &Node, path: &str) -> Vec<NodeIx> {
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let made = self.made_by.iter().filter(|(made, _)| made.starts_with(&below));
        let makers: BTreeSet<NodeIx> =
            made.flat_map(|(_, made)| made.iter().map(|(node, _)| *node)).collect();
        makers.into_iter().filter(|node| self.nodes[*node].id != taker.id).collect()
    }
}

/// A fault of a declared depfile: the place, what is wrong, and what to do.
pub(super) type Fault = (Option<Span>, String, &'static str);

/// Checks where depfiles with a path of their own lie.
pub(super) fn faults(graph: &Graph, listing: &dyn Listing) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut written: HashMap<String, NodeIx> = HashMap::new();
    for (ix, node) in graph.nodes.iter().enumerate() {
        let Some(text) = node.depfile().and_then(Text::known) else { continue };
        let path = normal(&text);
        let mut fault = |what: String, hint: &'static str| {
            found.push((node.span, format!("the depfile of {}{what}", node.id), hint))
        };
        if path.is_empty() || text.ends_with('/') {
            fault(" is a directory".to_owned(), "name a file");
        } else if path.starts_with('/') || path.starts_with("..") {
            fault(
                format!(" is outside the workspace: {path}"),
                "a depfile is a path below the workspace root, or ${outputs.N}.d",
            );
        } else if listing.hidden(&path) {
            fault(
                format!(" lies in a directory of flow's own or of git: {path}"),
                "choose a path outside cache/, .flow/ and .git, or ${outputs.N}.d",
            );
        } else if let Some(other) = written.insert(path.clone(), ix) {
            fault(
                format!(" is that of {}, too: {path}", graph.nodes[other].id),
                "give each its own (put ${matrix.AXIS} into it), or write ${outputs.N}.d",
            );
        } else if let Some(maker) = maker(graph, &path).filter(|maker| *maker != ix) {
            let other = &graph.nodes[maker].id;
            fault(
                format!(" lies in an output of {other}: {path}"),
                "give it a path of its own, or write ${outputs.N}.d",
            );
        } else if node.inputs.iter().flat_map(|input| &input.items).any(|item| graph.item_path(item) == path)
        {
            fault(
                format!(" is an input of it, too: {path}"),
                "the command writes the depfile; give it a path of its own",
            );
        } else if node.outputs.iter().any(|output| output.dir && output.path == path) {
            fault(format!(" is a directory output of it: {path}"), "name a file");
        }
    }
    found
}

/// A node that makes `path`, or a directory around it.
fn maker(graph: &Graph, path: &str) -> Option<NodeIx> {
    around(path).find_map(|dir| graph.made_by.get(dir)).and_then(|made| made.first()).map(|(node, _)| *node)
}

/// A path and the directories around it, inmost first.
fn around(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(dir, _)| dir))
}
