//! What the machine has, what nodes ask of it, and which goes first. Unaware of what they do.

use super::Coordinator;
use crate::engine::attempt::Task;
use crate::engine::command;
use crate::engine::machine::wants;
use crate::engine::options::RunOptions;
use crate::engine::project::Project;
use crate::engine::schedule::{Capacity, Demand};
use crate::engine::session::Session;
use crate::error::{Error, Result};
use crate::graph::{Node, NodeAction, NodeIx, Selection};

impl Coordinator<'_> {
    pub(super) fn push(&mut self, ix: NodeIx) {
        let node = self.node(ix);
        let demand = match self.tasks.get(&ix) {
            Some(Task::Restore { .. } | Task::Adopt { .. }) => Demand { cpu: 1, ..Demand::default() },
            _ => demand(node),
        };
        self.queued(ix);
        self.scheduler.push(ix, demand, self.priority[ix]);
    }
}

/// What a node occupies while it runs.
pub(in crate::engine) fn demand(node: &Node) -> Demand {
    let waits = matches!(&node.action, NodeAction::Stage { cpu, .. } if !cpu);
    Demand {
        cpu: if waits { 0 } else { node.resources.cpu.max(1) },
        waits,
        mem: node.resources.mem,
        pools: node.resources.pools.clone(),
        exclusive: node.resources.exclusive.clone(),
        wants: wants(node),
        ..Demand::default()
    }
}

pub(in crate::engine) fn capacity(project: &Project, options: &RunOptions) -> Capacity {
    let pools = &project.graph.resources.pools;
    Capacity {
        cpu: options.jobs.max(1) as u32,
        mem: memory(),
        pools: pools.iter().map(|(name, pool)| (name.clone(), pool.size)).collect(),
        machine_pools: pools.iter().filter(|(_, pool)| pool.machine).map(|(name, _)| name.clone()).collect(),
    }
}

/// Memory of the machine in bytes; without limit where it cannot be found.
fn memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or(u64::MAX, |kib: u64| kib * 1024)
}

/// A demand that can never be met is an error before anything starts.
pub(in crate::engine) fn check_demands(
    project: &Project,
    options: &RunOptions,
    selection: &Selection,
) -> Result<()> {
    let capacity = capacity(project, options);
    for ix in selection.nodes.iter() {
        let node = &project.graph.nodes[ix];
        for (pool, n) in &node.resources.pools {
            let size = capacity.pools.get(pool).copied().unwrap_or(0);
            if *n > size {
                return Err(Error::environment(format!(
                    "{} asks for {n} of pool '{pool}', which has {size}",
                    node.id
                ))
                .hint(format!("raise resources.pools.{pool} in the workflow")));
            }
        }
        if node.resources.mem > capacity.mem {
            return Err(Error::environment(format!(
                "{} asks for {} MiB of memory, and the machine has {} MiB",
                node.id,
                node.resources.mem >> 20,
                capacity.mem >> 20
            )));
        }
    }
    Ok(())
}

/// Longest remaining path of every node in microseconds, by recorded durations.
pub(super) fn priorities(session: &Session, selection: &Selection) -> Vec<u64> {
    let project = &session.project;
    let graph = &project.graph;
    let mut out = vec![0u64; graph.nodes.len()];
    for ix in graph.ordered(&selection.nodes).rev() {
        let own = match &project.known {
            Some(known) => known.weight(ix),
            None => expected(project, &graph.nodes[ix]),
        };
        let rest = graph.dependents(ix).map(|dependent| out[dependent]).max().unwrap_or(0);
        out[ix] = own + rest;
    }
    out
}

/// What a node is expected to take by its recorded durations, microseconds.
pub(in crate::engine) fn expected(project: &Project, node: &Node) -> u64 {
    let summary = project.workspace.node_summary(project.root_file(), &node.id);
    weigh(node, summary.as_ref().map_or(&[], |row| &row.seconds))
}

/// The same by these durations in seconds.
pub(in crate::engine) fn weigh(node: &Node, recorded: &[f64]) -> u64 {
    let unknown = if command::is_command(node) { 1.0 } else { 0.05 };
    (median(recorded).unwrap_or(unknown).max(0.000_001) * 1e6) as u64
}

fn median(seconds: &[f64]) -> Option<f64> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
