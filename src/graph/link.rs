//! Linking: plain paths and patterns find the nodes that make them, outputs are checked against each other, cycles are found.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::rc::Rc;

use petgraph::graph::{DiGraph, NodeIndex};

use super::depfile;
use super::eval::InputPart;
use super::expand::{Draft, Expansion, empty_input};
use super::node::{Graph, Input, Item, Node, NodeAction, NodeIx};
use super::pattern::{Pattern, normal};
use crate::api::Arity;
use crate::model::{Diagnostic, Span};

/// Finishes a graph whose nodes stand in the order of expansion; `order` is the order wanted.
pub(super) fn link(
    mut graph: Graph,
    drafts: Vec<Draft>,
    order: &[NodeIx],
    request: &Expansion<'_>,
    faults: &mut Vec<Diagnostic>,
) -> Graph {
    let drafts = reorder(&mut graph, drafts, order);
    let linker =
        Linker { request, faults: std::cell::RefCell::default(), matches: std::cell::RefCell::default() };
    linker.outputs(&mut graph);
    let dirs = Dirs::of(&graph);
    let mut sorted: Vec<(String, NodeIx, usize)> = graph
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(ix, node)| {
            node.outputs.iter().enumerate().map(move |(o, output)| (output.path.clone(), ix, o))
        })
        .collect();
    sorted.sort();
    for (ix, draft) in drafts.iter().enumerate() {
        let linked = linker.inputs(&graph, ix, draft, &dirs, &sorted);
        let node = &mut graph.nodes[ix];
        let implicit = std::mem::take(&mut node.inputs);
        node.inputs = linked;
        node.inputs.extend(implicit);
        linker.ports(&graph.nodes[ix], draft);
    }
    for ix in 0..graph.nodes.len() {
        let made: BTreeSet<NodeIx> =
            graph.nodes[ix].inputs.iter().flat_map(|input| &input.items).flat_map(Item::producers).collect();
        graph.nodes[ix].producers = made.into_iter().collect();
    }
    for (span, message, hint) in depfile::faults(&graph, request.listing) {
        linker.fault(span, message, hint);
    }
    linker.edges(&mut graph);
    faults.extend(linker.faults.into_inner());
    graph
}

/// Puts the nodes into the wanted order and renumbers every reference to them.
fn reorder(graph: &mut Graph, drafts: Vec<Draft>, order: &[NodeIx]) -> Vec<Draft> {
    let mut place = vec![usize::MAX; graph.nodes.len()];
    for (new, old) in order.iter().enumerate() {
        place[*old] = new;
    }
    let mut slots: Vec<Option<(Node, Draft)>> =
        std::mem::take(&mut graph.nodes).into_iter().zip(drafts).map(Some).collect();
    let mut out = Vec::with_capacity(order.len());
    for old in order {
        let Some((mut node, mut draft)) = slots[*old].take() else { continue };
        let renumber = |item: &mut Item| {
            if let Item::Made { node, .. } = item {
                *node = place[*node];
            }
        };
        for input in &mut node.inputs {
            input.items.iter_mut().for_each(renumber);
        }
        for input in &mut draft.inputs {
            for part in &mut input.parts {
                if let InputPart::Gathered(gathered) = part {
                    gathered.items.iter_mut().for_each(renumber);
                }
            }
        }
        for need in &mut node.needs {
            *need = place[*need];
        }
        node.needs.retain(|need| *need != usize::MAX);
        node.needs.sort_unstable();
        graph.nodes.push(node);
        out.push(draft);
    }
    out
}

struct Linker<'a> {
    request: &'a Expansion<'a>,
    faults: std::cell::RefCell<Vec<Diagnostic>>,
    /// What a pattern matches, by its identity.
    matches: std::cell::RefCell<HashMap<String, Rc<Vec<Item>>>>,
}

impl Linker<'_> {
    fn fault(&self, span: Option<Span>, message: String, hint: &str) {
        let diagnostic = match span {
            Some(span) => Diagnostic::at(self.request.sources, span, message),
            None => Diagnostic::new(message),
        };
        self.faults.borrow_mut().push(diagnostic.hint(hint));
    }

    /// Fills `made_by` and `by_id`; refuses paths outside the root, duplicates and nesting.
    fn outputs(&self, graph: &mut Graph) {
        let mut made_by: HashMap<String, Vec<(NodeIx, usize)>> = HashMap::new();
        let mut all: Vec<(&str, NodeIx, usize)> = Vec::new();
        for (ix, node) in graph.nodes.iter().enumerate() {
            graph.by_id.insert(node.id.clone(), ix);
            for (o, output) in node.outputs.iter().enumerate() {
                let path = output.path.as_str();
                if path.is_empty() || path.starts_with('/') || path == ".." || path.starts_with("../") {
                    let place =
                        if path.is_empty() { "the workspace itself" } else { "outside the workspace" };
                    self.fault(
                        output.span,
                        format!("output '{}' of {} is {place}", output.name, node.id),
                        "an output is a path below the workspace root",
                    );
                    continue;
                }
                if self.request.listing.hidden(path) {
                    self.fault(
                        output.span,
                        format!(
                            "output '{}' of {} lies in a directory of flow's own or of git: {path:?}",
                            output.name, node.id
                        ),
                        "choose a path outside cache/, .flow/ and .git",
                    );
                    continue;
                }
                if output.append && !output.dir {
                    self.fault(
                        output.span,
                        format!("append output '{}' of {} is no directory: {path:?}", output.name, node.id),
                        "let the path end with a slash",
                    );
                }
                all.push((path, ix, o));
                made_by.entry(path.to_owned()).or_default().push((ix, o));
            }
        }
        // by components, so that what lies in a directory follows it at once
        all.sort_by_cached_key(|(path, ix, _)| (path.replace('/', "\0"), *ix));
        let name = |(_, ix, o): &(&str, NodeIx, usize)| {
            let node = &graph.nodes[*ix];
            format!("output '{}' of {}", node.outputs[*o].name, node.id)
        };
        let mut around: Vec<(&str, NodeIx, usize)> = Vec::new();
        for entry in all {
            while let Some(last) = around.last() {
                let inside = entry.0 == last.0
                    || entry.0.strip_prefix(last.0).is_some_and(|rest| rest.starts_with('/'));
                if inside {
                    break;
                }
                around.pop();
            }
            let output = &graph.nodes[entry.1].outputs[entry.2];
            if let Some(outer) = around.last() {
                let other = &graph.nodes[outer.1].outputs[outer.2];
                if outer.0 == entry.0 {
                    if !(output.append && other.append) {
                        self.fault(
                            output.span,
                            format!("two nodes make {}: {} and {}", entry.0, name(outer), name(&entry)),
                            "give each its own path (put ${matrix.AXIS} into it), or declare both with append",
                        );
                    }
                } else {
                    self.fault(
                        output.span,
                        format!("{} ({}) lies inside {} ({})", entry.0, name(&entry), outer.0, name(outer)),
                        "one output cannot lie inside another",
                    );
                }
            }
            around.push(entry);
        }
        graph.made_by = made_by;
    }

    fn inputs(
        &self,
        graph: &Graph,
        ix: NodeIx,
        draft: &Draft,
        dirs: &Dirs,
        sorted: &[(String, NodeIx, usize)],
    ) -> Vec<Input> {
        let mut out = Vec::new();
        for declared in &draft.inputs {
            let mut input = empty_input(declared);
            for part in &declared.parts {
                match part {
                    InputPart::Gathered(gathered) => input.items.extend(gathered.items.iter().cloned()),
                    InputPart::Path(path) => input.items.extend(self.path(graph, ix, path, dirs, sorted)),
                    InputPart::Glob(pattern) => {
                        input.patterns.push(pattern.text.clone());
                        let matched = self.matched(graph, pattern, dirs, sorted);
                        let own = |item: &Item| matches!(item, Item::Made { node, .. } if *node == ix);
                        input.items.extend(matched.iter().filter(|item| !own(item)).cloned());
                    }
                }
            }
            out.push(input);
        }
        let node = &graph.nodes[ix];
        if let NodeAction::Argv { io, .. } = &node.action {
            for (place, text) in &draft.argv {
                // the command reads it from where it runs
                let path = match &io.cwd {
                    Some(cwd) if !text.starts_with('/') => normal(&format!("{cwd}/{text}")),
                    _ => normal(text),
                };
                if path.is_empty() || path == "." || node.outputs.iter().any(|o| o.path == path) {
                    continue;
                }
                let made = graph.made_by.contains_key(&path) || dirs.around(&path).is_some();
                let listing = self.request.listing;
                let plain = || listing.is_file(&path) && !listing.published(&path) && !listing.hidden(&path);
                let program = *place == 0 && !text.contains('/');
                if !program && (made || plain()) {
                    out.push(Input {
                        name: format!("argv[{place}]"),
                        items: self.path(graph, ix, &path, dirs, sorted),
                        list: false,
                        patterns: Vec::new(),
                        implicit: true,
                    });
                }
            }
        }
        out
    }

    /// Declared outputs and plain files that match, in order; found once for all nodes that have the pattern.
    fn matched(
        &self,
        graph: &Graph,
        pattern: &Pattern,
        dirs: &Dirs,
        sorted: &[(String, NodeIx, usize)],
    ) -> Rc<Vec<Item>> {
        let name = pattern.identity();
        if let Some(known) = self.matches.borrow().get(&name) {
            return Rc::clone(known);
        }
        let mut found: Vec<(String, Item)> = Vec::new();
        let before = match pattern.fixed_dir() {
            dir if dir.is_empty() || dir.ends_with('/') => dir.to_owned(),
            dir => format!("{dir}/"),
        };
        for (path, node, output) in starting_with(sorted, &before) {
            let (node, output) = (*node, *output);
            if graph.nodes[node].outputs[output].dir == pattern.dirs && pattern.matches(path) {
                found.push((path.clone(), Item::Made { node, output }));
            }
        }
        for path in pattern.walk(self.request.listing) {
            let declared = graph.made_by.contains_key(&path);
            if !declared && dirs.around(&path).is_none() && !self.request.listing.published(&path) {
                found.push((path.clone(), Item::Source { path, inside: Vec::new() }));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
        let found: Rc<Vec<Item>> = Rc::new(found.into_iter().map(|(_, item)| item).collect());
        self.matches.borrow_mut().insert(name, Rc::clone(&found));
        found
    }

    fn path(
        &self,
        graph: &Graph,
        taker: NodeIx,
        path: &str,
        dirs: &Dirs,
        sorted: &[(String, NodeIx, usize)],
    ) -> Vec<Item> {
        let path = normal(path);
        if let Some(made) = graph.made_by.get(&path) {
            return made.iter().map(|(node, output)| Item::Made { node: *node, output: *output }).collect();
        }
        if let Some((dir, node, output)) = dirs.around(&path) {
            if graph.nodes[node].outputs[output].append {
                // any of those that add to it may be the one that makes this entry
                let makers = graph.made_by.get(dir).into_iter().flatten().map(|(node, _)| *node);
                let inside: BTreeSet<NodeIx> = makers.filter(|maker| *maker != taker).collect();
                return vec![Item::Source { path, inside: inside.into_iter().collect() }];
            }
            let sub = path[dir.len() + 1..].to_owned();
            return vec![Item::Within { node, output, sub }];
        }
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let inside: BTreeSet<NodeIx> = starting_with(sorted, &below)
            .map(|(_, ix, _)| *ix)
            // what a node makes itself is no input of it
            .filter(|ix| *ix != taker)
            .collect();
        vec![Item::Source { path, inside: inside.into_iter().collect() }]
    }

    /// A list given to an input that takes one file, a file for an output that is a directory.
    fn ports(&self, node: &Node, draft: &Draft) {
        let span_of =
            |name: &str| draft.inputs.iter().find(|i| i.name == name).and_then(|i| i.span).or(node.span);
        if let Some(stdin) = node.action.io().and_then(|io| io.stdin.as_ref())
            && let Some(input) = node.inputs.iter().find(|input| input.name == *stdin)
            && (input.list || input.items.len() != 1)
        {
            self.fault(
                span_of(stdin),
                format!(
                    "stdin of {} takes one file, and input '{stdin}' is a list of {}",
                    node.id,
                    input.items.len()
                ),
                "fix the axes that are gathered, or cat the list in a step of its own",
            );
        }
        let NodeAction::Stage { name, .. } = &node.action else { return };
        let Some(signature) = self.request.catalog.signature(name) else { return };
        for port in &signature.inputs {
            if port.arity == Arity::Many {
                continue;
            }
            let Some(input) = node.inputs.iter().find(|input| input.name == port.name) else { continue };
            if input.list {
                self.fault(
                    span_of(port.name),
                    format!(
                        "input '{}' of {name} takes one file, and is given a list of {} in {}",
                        port.name,
                        input.items.len(),
                        node.id
                    ),
                    "fix the gathered axes as in ${steps.ID[axis=value].OUTPUT}, or give this step the same axes",
                );
            }
        }
        for port in signature.outputs.iter().filter(|port| port.dir) {
            let output = node.outputs.iter().find(|output| output.name == port.name);
            // an append output that is none was refused already
            if let Some(output) = output.filter(|output| !output.dir && !output.append) {
                self.fault(
                    output.span.or(node.span),
                    format!(
                        "output '{}' of {name} is a directory: {:?} in {}",
                        port.name, output.path, node.id
                    ),
                    &format!("let the path end with a slash: \"{}/\"", output.path),
                );
            }
        }
    }

    fn edges(&self, graph: &mut Graph) {
        let mut dag = DiGraph::with_capacity(graph.nodes.len(), graph.nodes.len());
        for _ in &graph.nodes {
            dag.add_node(());
        }
        for (ix, node) in graph.nodes.iter().enumerate() {
            let from: BTreeSet<NodeIx> = node.producers.iter().chain(&node.needs).copied().collect();
            for producer in from {
                dag.add_edge(NodeIndex::new(producer), NodeIndex::new(ix), ());
            }
        }
        let mut waiting: Vec<usize> = vec![0; graph.nodes.len()];
        let mut ready = BinaryHeap::new();
        for (ix, waiting) in waiting.iter_mut().enumerate() {
            *waiting = dag.neighbors_directed(NodeIndex::new(ix), petgraph::Incoming).count();
            if *waiting == 0 {
                ready.push(Reverse(ix));
            }
        }
        let mut order = Vec::with_capacity(graph.nodes.len());
        while let Some(Reverse(ix)) = ready.pop() {
            order.push(ix);
            for next in dag.neighbors(NodeIndex::new(ix)) {
                waiting[next.index()] -= 1;
                if waiting[next.index()] == 0 {
                    ready.push(Reverse(next.index()));
                }
            }
        }
        if order.len() < graph.nodes.len() {
            self.cycle(graph, &dag, &waiting);
        }
        graph.order = order;
        graph.dag = dag;
    }

    /// Names one shortest cycle (each node needs the next) among the nodes that never became ready.
    fn cycle(&self, graph: &Graph, dag: &DiGraph<(), ()>, waiting: &[usize]) {
        let mut best: Option<Vec<usize>> = None;
        for component in petgraph::algo::tarjan_scc(dag) {
            let mut members: Vec<usize> = component.iter().map(|ix| ix.index()).collect();
            members.sort_unstable();
            let start = members[0];
            if waiting[start] == 0 || (members.len() == 1 && !dag.contains_edge(component[0], component[0])) {
                continue;
            }
            // breadth first from `start` back to itself
            let mut from: HashMap<usize, usize> = HashMap::new();
            let mut queue = std::collections::VecDeque::from([start]);
            'search: while let Some(at) = queue.pop_front() {
                let mut next: Vec<usize> = dag.neighbors(NodeIndex::new(at)).map(|n| n.index()).collect();
                next.sort_unstable();
                for next in next.into_iter().filter(|n| members.binary_search(n).is_ok()) {
                    if next == start {
                        let mut path = vec![start, at];
                        let mut at = at;
                        while at != start {
                            at = from[&at];
                            path.push(at);
                        }
                        if best.as_ref().is_none_or(|b| path.len() < b.len()) {
                            best = Some(path);
                        }
                        break 'search;
                    }
                    if let std::collections::hash_map::Entry::Vacant(slot) = from.entry(next) {
                        slot.insert(at);
                        queue.push_back(next);
                    }
                }
            }
        }
        if let Some(path) = best {
            let names: Vec<&str> = path.iter().map(|ix| graph.nodes[*ix].id.as_str()).collect();
            self.fault(
                graph.nodes[path[0]].span,
                format!("nodes need each other: {}", names.join(" -> ")),
                "an arrow leads from a node to one whose output it takes, or that it names in needs",
            );
        }
    }
}

/// Outputs that are directories, by path; of those that several nodes add to, that of the first.
struct Dirs(HashMap<String, (NodeIx, usize)>);

impl Dirs {
    fn of(graph: &Graph) -> Self {
        let mut dirs = HashMap::new();
        for (ix, node) in graph.nodes.iter().enumerate() {
            for (o, output) in node.outputs.iter().enumerate().filter(|(_, output)| output.dir) {
                dirs.entry(output.path.clone()).or_insert((ix, o));
            }
        }
        Self(dirs)
    }

    /// The one in which `path` lies.
    fn around<'p>(&self, path: &'p str) -> Option<(&'p str, NodeIx, usize)> {
        let mut outer =
            std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(outer, _)| outer)).skip(1);
        outer.find_map(|dir| self.0.get(dir).map(|(node, output)| (dir, *node, *output)))
    }
}

/// Of sorted outputs those whose paths begin with `text`.
fn starting_with<'s>(
    sorted: &'s [(String, NodeIx, usize)],
    text: &'s str,
) -> impl Iterator<Item = &'s (String, NodeIx, usize)> {
    let from = sorted.partition_point(|(path, ..)| path.as_str() < text);
    sorted[from..].iter().take_while(move |(path, ..)| path.starts_with(text))
}
