//! What a run has to come to: an outcome for every node, and what lies where afterwards. Unaware of the binary.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::Cache;
use crate::content::{Content, Disk};
use crate::graph::{Graph, Item};
use crate::interpret::{self, Made};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Fresh,
    Restored,
    Cached,
    Ran,
    Failed,
    Skipped,
    Absent,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Restored => "restored",
            Self::Cached => "cached",
            Self::Ran => "ran",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Absent => "absent",
        }
    }
}

/// What a run is asked.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Nodes asked for; `None`: all.
    pub targets: Option<BTreeSet<usize>>,
    pub force: bool,
    pub no_cache: bool,
}

/// What a run starts from.
pub struct Before<'a> {
    pub disk: &'a Disk,
    pub published: &'a BTreeSet<String>,
    pub trips: &'a BTreeSet<String>,
    pub cache: &'a Cache,
    /// Places where a killed command was writing: whatever was there comes back.
    pub dirty: &'a BTreeSet<String>,
}

/// The answer.
pub struct Plan {
    /// `None`: not selected.
    pub outcomes: Vec<Option<Outcome>>,
    pub keys: Vec<Option<String>>,
    /// The contents of the outputs of nodes that are well.
    pub outputs: Vec<Option<Vec<Option<Content>>>>,
    /// What a failed node left.
    pub leftovers: Vec<Vec<Option<Content>>>,
    /// For a node with the same key as another that runs: what it is if the other is the one that ran.
    pub otherwise: Vec<Option<Outcome>>,
    /// All files after it.
    pub disk: Disk,
}

/// Plans a run. `certain`: with no more in the cache than is known to be there; else with all that may be there, `stored` among it:
/// what other nodes put there meanwhile.
pub fn plan(graph: &Graph, before: &Before, ask: &Ask, stored: Option<&Plan>) -> Plan {
    let count = graph.nodes.len();
    let all: BTreeSet<usize> = (0..count).collect();
    let wanted = ask.targets.clone().unwrap_or(all);
    let mut planner = Planner {
        graph,
        before,
        ask,
        certain: stored.is_none(),
        others: stored.map(|plan| plan.stored()).unwrap_or_default(),
        selected: graph.closure(&wanted),
        wanted,
        stored: BTreeMap::new(),
        above: vec![BTreeSet::new(); count],
        leaders: BTreeMap::new(),
        plan: Plan {
            outcomes: vec![None; count],
            keys: vec![None; count],
            outputs: vec![None; count],
            leftovers: vec![Vec::new(); count],
            otherwise: vec![None; count],
            disk: before.disk.clone(),
        },
    };
    for node in 0..count {
        if planner.selected.contains(&node) {
            planner.visit(node);
        }
    }
    planner.plan
}

impl Plan {
    pub fn with(&self, outcome: Outcome) -> BTreeSet<usize> {
        (0..self.outcomes.len()).filter(|node| self.outcomes[*node] == Some(outcome)).collect()
    }

    pub fn is_well(&self, node: usize) -> bool {
        self.outputs[node].is_some()
    }

    /// Blobs that nodes which run put into the cache, with the nodes.
    fn stored(&self) -> BTreeMap<String, BTreeSet<usize>> {
        let mut out: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for node in self.with(Outcome::Ran) {
            for content in self.outputs[node].iter().flatten().flatten() {
                for blob in content.blobs() {
                    out.entry(blob).or_default().insert(node);
                }
            }
        }
        out
    }
}

struct Planner<'a> {
    graph: &'a Graph<'a>,
    before: &'a Before<'a>,
    ask: &'a Ask,
    certain: bool,
    /// Put there by others, perhaps in time.
    others: BTreeMap<String, BTreeSet<usize>>,
    selected: BTreeSet<usize>,
    wanted: BTreeSet<usize>,
    /// Put there by this run.
    stored: BTreeMap<String, BTreeSet<usize>>,
    /// What is done for certain before a node starts.
    above: Vec<BTreeSet<usize>>,
    leaders: BTreeMap<String, usize>,
    plan: Plan,
}

impl Planner<'_> {
    fn visit(&mut self, node: usize) {
        let it = &self.graph.nodes[node];
        let before: BTreeSet<usize> = it.producers.union(&it.needs).copied().collect();
        for other in &before {
            let above = self.above[*other].clone();
            self.above[node].extend(above);
        }
        self.above[node].extend(&before);
        let bad =
            |other: usize| matches!(self.plan.outcomes[other], Some(Outcome::Failed | Outcome::Skipped));
        let allowed = |other: usize| {
            self.graph.nodes[other].step.allow_failure && self.plan.outcomes[other] == Some(Outcome::Failed)
        };
        if it.producers.iter().any(|p| bad(*p)) || it.needs.iter().any(|p| bad(*p) && !allowed(*p)) {
            self.plan.outcomes[node] = Some(Outcome::Skipped);
            return;
        }
        let mut taken: Vec<Vec<Content>> = Vec::new();
        let mut key = it.action.clone();
        for (declared, _) in &it.outputs {
            key += &format!(
                "\noutput {} {:?} {} {}",
                declared.name, declared.sort, declared.optional, declared.on_failure
            );
        }
        for (name, list, items) in &it.inputs {
            let mut contents = Vec::new();
            let mut lines = String::new();
            for item in items {
                let content = match self.content(item) {
                    Found::Content(content) => content,
                    Found::Absent if *list => continue,
                    Found::Absent => {
                        for (_, path) in &it.outputs {
                            self.remove_ours(path);
                        }
                        self.plan.outcomes[node] = Some(Outcome::Absent);
                        self.plan.outputs[node] = Some(vec![None; it.outputs.len()]);
                        return;
                    }
                    Found::Missing => {
                        self.plan.outcomes[node] = Some(Outcome::Failed);
                        return;
                    }
                };
                lines += &format!("\n  {} {}", self.graph.item_path(item), content.digest());
                contents.push(content);
            }
            key += &format!("\ninput {name} {list} {}{lines}", contents.len());
            taken.push(contents);
        }
        // to know the list of a directory, somebody has to have it
        for item in it.inputs.iter().flat_map(|(_, _, items)| items) {
            if let Item::Within { node: producer, output, .. } = item {
                let tree = self.plan.outputs[*producer].as_ref().and_then(|outputs| outputs[*output].clone());
                let list = tree.map(|tree| tree.digest());
                if list.is_some_and(|list| !self.has_blob(node, &list)) {
                    self.demand_again(*producer);
                }
            }
        }
        let made = interpret::run(it.step.kind, it.step.salt, self.graph.n, &taken);
        let known = !self.ask.force && !self.ask.no_cache;
        self.plan.keys[node] = Some(key.clone());
        let leader = self.leaders.get(&key).copied().filter(|_| known);
        match made {
            Made::Outputs(outputs)
                if known && (leader.is_some() || self.before.cache.has(&key, self.certain)) =>
            {
                self.plan.outputs[node] = Some(outputs);
                if let Some(leader) = leader {
                    // what the leader would be if this one had run
                    self.plan.otherwise[leader] = Some(self.hit_outcome(leader));
                    self.above[node].insert(leader);
                }
                let outcome = self.hit_outcome(node);
                self.plan.outcomes[node] = Some(outcome);
                if outcome == Outcome::Restored {
                    self.bring(node);
                }
                if leader.is_some() {
                    self.plan.otherwise[node] = Some(Outcome::Ran);
                }
            }
            made => {
                self.run(node, made);
                if self.plan.outcomes[node] == Some(Outcome::Ran) && known {
                    self.leaders.insert(key, node);
                }
            }
        }
    }

    /// What becomes of a node with a result, as far as its bytes allow it.
    fn hit_outcome(&self, node: usize) -> Outcome {
        if self.differing(node).is_empty() {
            Outcome::Fresh
        } else if self.wanted.contains(&node) {
            Outcome::Restored
        } else {
            Outcome::Cached
        }
    }

    /// Outputs whose place, before the run, held something else.
    fn differing(&self, node: usize) -> Vec<usize> {
        let outputs = self.plan.outputs[node].as_ref().unwrap();
        let places = self.graph.nodes[node].outputs.iter().map(|(_, path)| path);
        let differs = |path: &String, content: &Option<Content>| match content {
            _ if self.before.dirty.contains(path) => self.certain,
            Some(_) => self.before.disk.content(path) != *content,
            None => self.before.published.contains(path) && self.before.disk.content(path).is_some(),
        };
        places
            .zip(outputs)
            .enumerate()
            .filter(|(_, (path, content))| differs(path, content))
            .map(|(index, _)| index)
            .collect()
    }

    /// Restores what differs, or runs the node if bytes are lost.
    fn bring(&mut self, node: usize) {
        let differing = self.differing(node);
        let outputs = self.plan.outputs[node].clone().unwrap();
        let there = differing.iter().filter_map(|index| outputs[*index].as_ref());
        let there = there.flat_map(Content::blobs).all(|blob| self.has_blob(node, &blob));
        if there {
            self.plan.outcomes[node] = Some(Outcome::Restored);
            for index in differing {
                let path = &self.graph.nodes[node].outputs[index].1;
                match &outputs[index] {
                    Some(content) => self.plan.disk.put(path, content),
                    None => self.remove_ours(path),
                }
            }
        } else {
            self.run(node, Made::Outputs(outputs));
        }
    }

    /// Somebody needs the bytes of a node that is known to have them.
    fn demand(&mut self, node: usize) {
        if self.plan.outcomes[node] == Some(Outcome::Cached) {
            self.bring(node);
        }
    }

    /// Somebody needs what only the cache or the place could tell, and they do not.
    fn demand_again(&mut self, node: usize) {
        if self.plan.outcomes[node] == Some(Outcome::Cached) {
            let outputs = self.plan.outputs[node].clone().unwrap();
            self.run(node, Made::Outputs(outputs));
        }
    }

    fn run(&mut self, node: usize, made: Made) {
        let it = &self.graph.nodes[node];
        self.plan.outputs[node] = None;
        for item in it.inputs.iter().flat_map(|(_, _, items)| items) {
            if let Item::Made { node: producer, output } | Item::Within { node: producer, output, .. } = item
                && self.plan.outputs[*producer].as_ref().is_some_and(|outputs| outputs[*output].is_some())
            {
                self.demand(*producer);
                if !self.plan.is_well(*producer) {
                    self.plan.outcomes[node] = Some(Outcome::Skipped);
                    return;
                }
            }
        }
        if it.step.trip && self.before.trips.contains(&it.step.id) {
            self.plan.outcomes[node] = Some(Outcome::Failed);
            return;
        }
        match made {
            Made::Outputs(outputs) => {
                for ((_, path), content) in it.outputs.iter().zip(&outputs) {
                    match content {
                        Some(content) => self.plan.disk.put(path, content),
                        None => self.remove_ours(path),
                    }
                }
                for blob in outputs.iter().flatten().flat_map(Content::blobs) {
                    self.stored.entry(blob).or_default().insert(node);
                }
                self.plan.outputs[node] = Some(outputs);
                self.plan.outcomes[node] = Some(Outcome::Ran);
            }
            Made::Failed(left) => {
                for ((declared, path), content) in it.outputs.iter().zip(&left) {
                    if let Some(content) = content.as_ref().filter(|_| declared.on_failure) {
                        self.plan.disk.put(path, content);
                    }
                }
                self.plan.leftovers[node] = left;
                self.plan.outcomes[node] = Some(Outcome::Failed);
            }
        }
    }

    fn has_blob(&self, node: usize, blob: &str) -> bool {
        let stored = |by: &BTreeMap<String, BTreeSet<usize>>, good: &dyn Fn(&usize) -> bool| {
            by.get(blob).is_some_and(|nodes| nodes.iter().any(good))
        };
        // what is stored beside a damaged blob leaves it as it is
        let kept = !(self.certain && self.before.cache.is_damaged(blob));
        self.before.cache.has_blob(blob, self.certain)
            || kept && stored(&self.stored, &|other| self.above[node].contains(other))
            || stored(&self.others, &|other| *other != node)
    }

    fn content(&self, item: &Item) -> Found {
        let of = |node: usize, output: usize| match &self.plan.outputs[node] {
            Some(outputs) => outputs[output].clone(),
            None => panic!("{} is not well", self.graph.nodes[node].id),
        };
        match item {
            Item::Source(path) => self.before.disk.content(path).map_or(Found::Missing, Found::Content),
            Item::Made { node, output } => of(*node, *output).map_or(Found::Absent, Found::Content),
            Item::Within { node, output, rest } => {
                let Some(tree) = of(*node, *output) else { return Found::Absent };
                let mut disk = Disk::default();
                disk.put("t", &tree);
                disk.content(&format!("t/{rest}")).map_or(Found::Missing, Found::Content)
            }
        }
    }

    fn remove_ours(&mut self, path: &str) {
        if self.before.published.contains(path) {
            self.plan.disk.remove(path);
        }
    }
}

enum Found {
    Content(Content),
    Absent,
    Missing,
}
