//! The nodes of a workflow, their inputs found: what flow's expansion does, in the simplest way. Unaware of contents.

use std::collections::BTreeSet;

use crate::content::Disk;
use crate::dag::{Action, Declared, Origin, Step, Workflow};

/// One file or directory that a node takes.
#[derive(Clone, Debug)]
pub enum Item {
    Source(String),
    Made { node: usize, output: usize },
    Within { node: usize, output: usize, rest: &'static str },
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node<'w> {
    pub id: String,
    pub step: &'w Step,
    /// Name, whether it takes a list, files.
    pub inputs: Vec<(&'static str, bool, Vec<Item>)>,
    /// Declaration and path, without a slash at the end.
    pub outputs: Vec<(Declared, String)>,
    /// What it takes something of.
    pub producers: BTreeSet<usize>,
    pub needs: BTreeSet<usize>,
    /// All of its definition that decides a result.
    pub action: String,
}

/// All nodes; each comes after those it takes something of.
pub struct Graph<'w> {
    pub nodes: Vec<Node<'w>>,
    pub workflow: &'w Workflow,
    pub n: u32,
}

impl<'w> Graph<'w> {
    /// `published`: what flow knows that it made; on the disk such a file matches no pattern unless it is declared.
    pub fn expand(workflow: &'w Workflow, n: u32, disk: &Disk, published: &BTreeSet<String>) -> Self {
        let mut graph = Self { nodes: Vec::new(), workflow, n };
        for step in &workflow.steps {
            let values: Vec<Option<&String>> =
                if step.matrix { workflow.axis.iter().map(Some).collect() } else { vec![None] };
            for value in values {
                let node = graph.node(step, value, disk, published);
                graph.nodes.push(node);
            }
        }
        graph
    }

    fn node(
        &self,
        step: &'w Step,
        value: Option<&String>,
        disk: &Disk,
        published: &BTreeSet<String>,
    ) -> Node<'w> {
        let fill = |text: &str| {
            let text = text.replace("${params.n}", &self.n.to_string());
            value.map_or(text.clone(), |value| text.replace("${matrix.m}", value))
        };
        let mut producers = BTreeSet::new();
        let mut inputs = Vec::new();
        for (name, origins) in step.kind.input_names().iter().zip(&step.from) {
            let mut items = Vec::new();
            for origin in origins {
                self.origin(origin, step, value, disk, published, &mut items);
            }
            producers.extend(items.iter().filter_map(|item| match item {
                Item::Source(_) => None,
                Item::Made { node, .. } | Item::Within { node, .. } => Some(*node),
            }));
            inputs.push((*name, step.kind.takes_list(), items));
        }
        let needs = step.needs.iter().flat_map(|id| self.of_step(id)).collect();
        let action = match step.action() {
            Action::Shell(text) => format!("sh {}", fill(&text)),
            Action::Argv(words) => {
                format!("argv {:?}", words.iter().map(|word| fill(word)).collect::<Vec<_>>())
            }
            Action::Stage(name) => format!("stage {name} {}", fill(&step.with().to_string())),
        };
        let salt = if step.kind.is_stage() { 0 } else { step.salt };
        Node {
            id: value.map_or(step.id.clone(), |value| format!("{}[m={value}]", step.id)),
            step,
            inputs,
            outputs: step
                .kind
                .outputs()
                .iter()
                .map(|output| (*output, fill(&step.path(output)).trim_end_matches('/').to_owned()))
                .collect(),
            producers,
            needs,
            action: format!("{action}\nsalt {salt}"),
        }
    }

    fn origin(
        &self,
        origin: &Origin,
        step: &Step,
        value: Option<&String>,
        disk: &Disk,
        published: &BTreeSet<String>,
        items: &mut Vec<Item>,
    ) {
        match origin {
            Origin::Source(path) => items.push(Item::Source(path.clone())),
            Origin::SourceDir => items.push(Item::Source("src/d".to_owned())),
            Origin::SourceOfAxis => {
                items.push(Item::Source(format!("src/m-{}.txt", value.map_or("", String::as_str))));
            }
            Origin::Glob => items.extend(disk.matching("src", "g").into_iter().map(Item::Source)),
            Origin::Made { step: id, output } => {
                let index = |node: usize| {
                    self.nodes[node]
                        .outputs
                        .iter()
                        .position(|(declared, _)| declared.name == *output)
                        .unwrap()
                };
                let made = self.joined(id, step, value);
                items.extend(made.into_iter().map(|node| Item::Made { node, output: index(node) }));
            }
            Origin::Within { step: id } => {
                let made = self.joined(id, step, value);
                items.extend(made.into_iter().map(|node| Item::Within { node, output: 0, rest: "sub/all" }));
            }
            Origin::Wide => {
                let mut found: Vec<(String, Item)> = Vec::new();
                for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.step.is_wide()) {
                    for (output, (_, path)) in node.outputs.iter().enumerate() {
                        if path.starts_with("out/w") && path.ends_with(".txt") {
                            found.push((path.clone(), Item::Made { node: index, output }));
                        }
                    }
                }
                for path in disk.matching("out", "w") {
                    if !published.contains(&path) && !found.iter().any(|(other, _)| *other == path) {
                        found.push((path.clone(), Item::Source(path)));
                    }
                }
                found.sort_by(|a, b| a.0.cmp(&b.0));
                items.extend(found.into_iter().map(|(_, item)| item));
            }
        }
    }

    /// Nodes of a step that a node takes: that of its own value, or all.
    fn joined(&self, id: &str, of: &Step, value: Option<&String>) -> Vec<usize> {
        let nodes = self.of_step(id);
        match value {
            Some(value) if of.matrix && self.workflow.step(id).matrix => {
                let own = format!("{id}[m={value}]");
                nodes.into_iter().filter(|node| self.nodes[*node].id == own).collect()
            }
            _ => nodes,
        }
    }

    pub fn of_step(&self, id: &str) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].step.id == id).collect()
    }

    pub fn item_path(&self, item: &Item) -> String {
        match item {
            Item::Source(path) => path.clone(),
            Item::Made { node, output } => self.nodes[*node].outputs[*output].1.clone(),
            Item::Within { node, output, rest } => format!("{}/{rest}", self.nodes[*node].outputs[*output].1),
        }
    }

    /// The targets' nodes, and with them all that they need.
    pub fn closure(&self, targets: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut all = targets.clone();
        for node in (0..self.nodes.len()).rev() {
            if all.contains(&node) {
                all.extend(self.nodes[node].producers.iter().chain(&self.nodes[node].needs));
            }
        }
        all
    }

    /// Those that need one of these, with them.
    pub fn below(&self, targets: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut all = targets.clone();
        for (index, node) in self.nodes.iter().enumerate() {
            if node.producers.iter().chain(&node.needs).any(|other| all.contains(other)) {
                all.insert(index);
            }
        }
        all
    }

    pub fn declared(&self) -> BTreeSet<String> {
        self.nodes.iter().flat_map(|node| node.outputs.iter().map(|(_, path)| path.clone())).collect()
    }
}
