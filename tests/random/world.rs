//! One workspace and all that is known of it: runs are planned by the reference, done by the binary, and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cache::Cache;
use crate::content::Disk;
use crate::dag::Workflow;
use crate::events;
use crate::graph::Graph;
use crate::plan::{Ask, Before, Outcome, Plan, plan};
use crate::process::{Ended, Started, start};

/// What is known of a workspace.
pub struct World {
    pub workflow: Workflow,
    /// `--set n=`.
    pub set_n: Option<u32>,
    pub root: PathBuf,
    pub cache: Cache,
    /// Paths that flow knows it made.
    pub published: BTreeSet<String>,
    /// Paths of which flow may or may not know that it made them.
    pub unsure: BTreeSet<String>,
    /// Places where a killed command may have been writing.
    pub dirty: BTreeSet<String>,
    /// Steps that fail as things are.
    pub trips: BTreeSet<String>,
    /// Earlier contents of sources.
    pub past: BTreeMap<String, Vec<Vec<u8>>>,
    /// What happened, for people.
    pub told: Vec<String>,
    /// How long the last run took.
    pub pace: Duration,
    /// How many workspaces there were after the first.
    pub roots: usize,
    talk: PathBuf,
    calls: usize,
}

/// How a run is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// As typed, with what they mean.
    pub targets: Vec<Target>,
    pub jobs: usize,
    pub force: bool,
    pub no_cache: bool,
    pub stop_at_failure: bool,
}

/// A target: a step, by its id or by the path of its first output, with what it needs or with what needs it.
#[derive(Clone, Debug)]
pub struct Target {
    pub step: String,
    pub by_path: bool,
    pub up: bool,
    pub down: bool,
}

/// What a run has to come to: with all that the cache may hold, and with no more than it holds for certain.
pub struct Expected<'w> {
    pub graph: Graph<'w>,
    pub most: Plan,
    pub least: Plan,
    /// All files before it.
    pub disk: Disk,
}

/// Ends a function with a message unless something holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(crate) use ensure;

impl World {
    pub fn new(workflow: Workflow, dir: &Path) -> Self {
        let talk = dir.join("talk");
        fs::create_dir_all(&talk).unwrap();
        let root = dir.join("ws0");
        fs::create_dir_all(&root).unwrap();
        Self {
            workflow,
            set_n: None,
            root,
            cache: Cache::default(),
            published: BTreeSet::new(),
            unsure: BTreeSet::new(),
            dirty: BTreeSet::new(),
            trips: BTreeSet::new(),
            past: BTreeMap::new(),
            told: Vec::new(),
            pace: Duration::from_millis(200),
            roots: 0,
            talk,
            calls: 0,
        }
    }

    pub fn tell(&mut self, line: impl Into<String>) {
        self.told.push(line.into());
    }

    pub fn n(&self) -> u32 {
        self.set_n.unwrap_or(self.workflow.n)
    }

    pub fn save_workflow(&self) {
        let text = serde_json::to_string_pretty(&self.workflow.json()).unwrap();
        fs::write(self.root.join("flow.json"), text).unwrap();
    }

    /// Starts a call.
    pub fn start(&mut self, root: &Path, args: &[String], failpoint: Option<&str>) -> Started {
        self.calls += 1;
        start(root, &self.talk, &format!("{:03}", self.calls), args, failpoint)
    }

    /// The arguments of a run.
    pub fn args(&self, graph: &Graph, request: &Request) -> Vec<String> {
        let mut args: Vec<String> =
            ["run", "flow.json", "--json", "-v"].iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["-j".to_owned(), request.jobs.to_string()]);
        if !request.stop_at_failure {
            args.push("-k".to_owned());
        }
        if request.force {
            args.push("--force".to_owned());
        }
        if request.no_cache {
            args.push("--no-cache".to_owned());
        }
        if let Some(n) = self.set_n {
            args.extend(["--set".to_owned(), format!("n={n}")]);
        }
        for target in &request.targets {
            let name = match graph.of_step(&target.step).first() {
                Some(node) if target.by_path => graph.nodes[*node].outputs[0].1.clone(),
                _ => target.step.clone(),
            };
            let (up, down) = (if target.up { "+" } else { "" }, if target.down { "+" } else { "" });
            args.push(format!("{up}{name}{down}"));
        }
        args
    }

    /// What the run has to come to.
    pub fn expect<'w>(&self, workflow: &'w Workflow, request: &Request) -> Expected<'w> {
        self.expect_in(workflow, request, Disk::read(&self.root), &self.published)
    }

    pub fn expect_in<'w>(
        &self,
        workflow: &'w Workflow,
        request: &Request,
        disk: Disk,
        published: &BTreeSet<String>,
    ) -> Expected<'w> {
        let graph = Graph::expand(workflow, self.n(), &disk, published);
        let mut wanted = BTreeSet::new();
        for target in &request.targets {
            let mut nodes: BTreeSet<usize> = graph.of_step(&target.step).into_iter().collect();
            if target.by_path {
                nodes = nodes.into_iter().take(1).collect();
            }
            if target.up {
                wanted.extend(graph.closure(&nodes));
            }
            if target.down {
                wanted.extend(graph.below(&nodes));
            }
            wanted.extend(nodes);
        }
        let ask = Ask {
            targets: (!request.targets.is_empty()).then_some(wanted),
            force: request.force,
            no_cache: request.no_cache,
        };
        let before =
            Before { disk: &disk, published, trips: &self.trips, cache: &self.cache, dirty: &self.dirty };
        let least = plan(&graph, &before, &ask, None);
        let most = plan(&graph, &before, &ask, Some(&least));
        Expected { graph, most, least, disk }
    }

    /// One run to its end, compared with the reference in all it does.
    pub fn run(&mut self, request: &Request) -> Result<(), String> {
        let workflow = self.workflow.clone();
        let expected = self.expect(&workflow, request);
        let args = self.args(&expected.graph, request);
        self.tell(format!("flow {}", args.join(" ")));
        let begun = Instant::now();
        let root = self.root.clone();
        let ended = self.start(&root, &args, None).wait()?;
        self.pace = begun.elapsed();
        self.compare(&expected, request, &ended)
    }

    /// Compares a run that ended by itself, and takes note of what it did.
    pub fn compare(&mut self, expected: &Expected, request: &Request, ended: &Ended) -> Result<(), String> {
        let said = || format!("\nstdout:\n{}\nstderr:\n{}", ended.stdout, ended.stderr);
        let outcomes = self.outcomes(expected, ended).map_err(|e| e + &said())?;
        self.judge(expected, request, ended, &outcomes).map_err(|e| e + &said())?;
        self.compare_disk(expected, &outcomes, &Disk::read(&self.root)).map_err(|e| e + &said())?;
        self.note(expected, request, &outcomes);
        crate::COMPARED.fetch_add(1, Ordering::Relaxed);
        let ran = outcomes.values().filter(|outcome| *outcome == "ran").count();
        crate::NODES_RAN.fetch_add(ran as u64, Ordering::Relaxed);
        Ok(())
    }

    /// What the run says of each selected node.
    pub fn outcomes(&self, expected: &Expected, ended: &Ended) -> Result<BTreeMap<usize, String>, String> {
        let json: Value = serde_json::from_str(&ended.stdout).map_err(|e| format!("no summary: {e}"))?;
        let graph = &expected.graph;
        let selected: Vec<usize> =
            (0..graph.nodes.len()).filter(|node| expected.most.outcomes[*node].is_some()).collect();
        let nodes = json["nodes"].as_array().cloned().unwrap_or_default();
        if nodes.is_empty() && json["counts"]["fresh"] == selected.len() {
            return Ok(selected.into_iter().map(|node| (node, "fresh".to_owned())).collect());
        }
        let mut found = BTreeMap::new();
        for report in &nodes {
            let id = report["id"].as_str().unwrap_or_default();
            let node = (0..graph.nodes.len()).find(|node| graph.nodes[*node].id == id);
            let node = node.ok_or_else(|| format!("{id} is no node"))?;
            let twice = found.insert(node, report["outcome"].as_str().unwrap_or_default().to_owned());
            ensure!(twice.is_none(), "{id} is told twice");
        }
        let told: Vec<usize> = found.keys().copied().collect();
        ensure!(told == selected, "selected are {selected:?}, told are {told:?}");
        Ok(found)
    }

    fn judge(
        &self,
        expected: &Expected,
        request: &Request,
        ended: &Ended,
        outcomes: &BTreeMap<usize, String>,
    ) -> Result<(), String> {
        let Expected { graph, most, least, .. } = expected;
        events::check(graph, &ended.events, request.jobs, true)?;
        let may = self.allowed(expected);
        let some_fail = !least.with(Outcome::Failed).is_empty();
        let mut leaders: BTreeMap<&str, usize> = BTreeMap::new();
        for (&node, outcome) in outcomes {
            let id = &graph.nodes[node].id;
            let mut allowed: BTreeSet<&str> = may[node].iter().map(|outcome| outcome.as_str()).collect();
            if request.stop_at_failure && some_fail {
                allowed.insert("cancelled");
                if outcome == "cached" {
                    // nobody came to ask for its bytes
                    continue;
                }
            }
            ensure!(
                allowed.contains(outcome.as_str()),
                "{id}: {outcome}, and the reference says {allowed:?}"
            );
            // found damaged when it was brought into place: by then the other one runs
            let lost = ended.stderr.contains(&format!("{id}: cached bytes of "));
            let shared = !lost && (most.otherwise[node].is_some() || least.otherwise[node].is_some());
            if let Some(key) = most.keys[node].as_deref().filter(|_| shared && outcome == "ran")
                && let Some(other) = leaders.insert(key, node)
            {
                return Err(format!("{id} and {} have the same key, and both ran", graph.nodes[other].id));
            }
        }
        let fails = outcomes
            .iter()
            .any(|(node, outcome)| outcome == "failed" && !graph.nodes[*node].step.allow_failure);
        let code = ended.status.code();
        ensure!(code == Some(i32::from(fails)), "it ended with {code:?}");
        Ok(())
    }

    /// Every output of a node that is well is as the reference makes it, all else is as it was.
    pub fn compare_disk(
        &self,
        expected: &Expected,
        outcomes: &BTreeMap<usize, String>,
        found: &Disk,
    ) -> Result<(), String> {
        let mut wanted = expected.disk.clone();
        let mut open = BTreeSet::new();
        for (index, node) in expected.graph.nodes.iter().enumerate() {
            let outcome = outcomes.get(&index).map(String::as_str);
            let placed = matches!(outcome, Some("ran" | "restored" | "fresh" | "absent"));
            let outputs = expected.most.outputs[index].as_ref().or(expected.least.outputs[index].as_ref());
            for (output, (declared, path)) in node.outputs.iter().enumerate() {
                let content = outputs.and_then(|outputs| outputs[output].as_ref());
                if placed {
                    match content {
                        Some(content) => wanted.put(path, content),
                        None if self.published.contains(path) => wanted.remove(path),
                        // flow cannot know whose it is; a command that writes the place itself has it set aside
                        None if self.unsure.contains(path) || (node.step.direct && output == 0) => {
                            open.insert(path.clone());
                        }
                        None => {}
                    }
                } else if self.dirty.contains(path) {
                    open.insert(path.clone());
                } else if outcome == Some("failed") && declared.on_failure {
                    let left = expected.most.leftovers[index].get(output);
                    if let Some(Some(content)) = left {
                        wanted.put(path, content);
                    }
                }
            }
        }
        let below =
            |path: &str| open.iter().any(|open| path == open || path.starts_with(&format!("{open}/")));
        let differing: Vec<String> =
            wanted.differing(found).into_iter().filter(|path| !below(path)).collect();
        if let Some(path) = differing.first() {
            let show =
                |disk: &Disk| disk.content(path).map_or("nothing".to_owned(), |content| content.short());
            return Err(format!(
                "these files differ: {differing:?}\n{path} is {}\nit was {}\nthe reference makes {}",
                show(found),
                show(&expected.disk),
                show(&wanted)
            ));
        }
        Ok(())
    }

    /// Takes note of what a run did that ended by itself.
    pub fn note(&mut self, expected: &Expected, request: &Request, outcomes: &BTreeMap<usize, String>) {
        for (&node, outcome) in outcomes {
            let it = &expected.graph.nodes[node];
            let plan = if expected.least.is_well(node) { &expected.least } else { &expected.most };
            let contents = plan.outputs[node].clone().unwrap_or_default();
            let well = matches!(outcome.as_str(), "ran" | "restored" | "fresh" | "cached");
            if let Some(key) = plan.keys[node].as_ref().filter(|_| well && !request.no_cache) {
                self.cache.commit(key, true);
            }
            if matches!(outcome.as_str(), "ran" | "restored") {
                contents.iter().flatten().for_each(|content| self.cache.store(content, outcome == "ran"));
            }
            if outcome == "failed" {
                plan.leftovers[node].iter().flatten().for_each(|content| self.cache.store(content, false));
            }
            if matches!(outcome.as_str(), "ran" | "restored" | "fresh" | "absent") {
                for (index, (_, path)) in it.outputs.iter().enumerate() {
                    if contents.get(index).is_some_and(Option::is_some) {
                        self.published.insert(path.clone());
                    } else {
                        self.published.remove(path);
                    }
                    self.unsure.remove(path);
                    self.dirty.remove(path);
                }
            }
            if outcome == "failed" {
                let left = it.outputs.iter().zip(&plan.leftovers[node]);
                for ((declared, path), content) in left {
                    if declared.on_failure && content.is_some() {
                        self.published.insert(path.clone());
                        self.unsure.remove(path);
                    }
                }
            }
        }
    }
}
