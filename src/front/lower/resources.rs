//! `resources` of a step, of a service and of a workflow. Unaware of leases.

use std::collections::BTreeMap;

use crate::model::{
    DeviceSpec, ExclusiveScope, GpuDemand, Include, Jobserver, Pool, Resources, Span, StepResources,
};

use super::super::keys;
use super::super::node::{Kind, Node};
use super::super::report::Report;
use super::field;

/// `resources` of a step.
pub(in crate::front) fn step_resources(report: &mut Report, node: &Node) -> StepResources {
    let mut resources = StepResources::default();
    if field::map(report, node).is_none() {
        return resources;
    }
    field::known(report, node, keys::STEP_RESOURCES, "'resources' of a step");
    if let Some(cpu) = node.get("cpu").and_then(|cpu| field::count(report, cpu, 1)) {
        resources.cpu = cpu;
    }
    if let Some(mem) = node.get("mem").and_then(|mem| field::bytes(report, mem)) {
        resources.mem = mem;
    }
    resources.gpu = node.get("gpu").and_then(|gpu| self::gpu(report, gpu));
    for pool in node.get("pool").and_then(|pool| field::map(report, pool)).unwrap_or(&[]) {
        field::id(report, pool, "a pool");
        if let Some(slots) = field::count(report, &pool.value, 1) {
            resources.pools.insert(pool.key.clone(), slots);
        }
    }
    resources.exclusive = match node.get("exclusive").map(|e| (e, &e.kind)) {
        None | Some((_, Kind::Bool(false))) => None,
        Some((_, Kind::Bool(true))) => Some(ExclusiveScope::Run),
        Some((_, Kind::Text(pool))) => Some(ExclusiveScope::Pool(pool.clone())),
        Some((other, _)) => {
            report.expected(other, "true or the name of a pool");
            None
        }
    };
    resources.jobserver = match node.get("jobserver").map(|j| (j, &j.kind)) {
        None | Some((_, Kind::Bool(false))) => None,
        Some((_, Kind::Bool(true))) => Some(Jobserver::Auto),
        Some((_, Kind::Text(style))) if style == "fifo" => Some(Jobserver::Fifo),
        Some((_, Kind::Text(style))) if style == "pipe" => Some(Jobserver::Pipe),
        Some((other, _)) => {
            report.expected(other, "true, \"fifo\" or \"pipe\"");
            None
        }
    };
    resources
}

/// `resources` of a service: what it leases as long as it lives.
pub(in crate::front) fn service_resources(report: &mut Report, node: &Node) -> Option<GpuDemand> {
    field::map(report, node)?;
    field::known(report, node, keys::SERVICE_RESOURCES, "'resources' of a service");
    node.get("gpu").and_then(|gpu| self::gpu(report, gpu))
}

/// `gpu`: how many, or what they have to be like.
fn gpu(report: &mut Report, node: &Node) -> Option<GpuDemand> {
    let Kind::Map(_) = &node.kind else {
        return field::count(report, node, 1).map(|count| GpuDemand { count, mem: 0, model: None });
    };
    field::known(report, node, keys::GPU, "'gpu'");
    let count = node.get("count").map_or(Some(1), |count| field::count(report, count, 1));
    let mem = node.get("mem").map_or(Some(0), |mem| field::bytes(report, mem));
    let model = node.get("model").map(|model| field::text(report, model));
    if let (Some(entry), Some(Some(""))) = (node.entry("model"), model.as_ref().map(|m| m.as_deref())) {
        report.fault(
            entry.value.span,
            "'model' is empty",
            Some("leave it out: then any model will do".to_owned()),
        );
    }
    Some(GpuDemand { count: count?, mem: mem?, model: model.flatten() })
}

/// `resources` of a workflow.
pub(in crate::front) fn resources(report: &mut Report, node: &Node) -> Resources {
    let mut resources = Resources::default();
    if field::map(report, node).is_none() {
        return resources;
    }
    field::known(report, node, keys::RESOURCES, "'resources'");
    if let Some(executors) = node.entry("executors") {
        report.not_yet(executors.span, "executors other than \"local\"");
    }
    if let Some(devices) = node.get("devices")
        && let Some(spec) = field::text(report, devices)
    {
        match DeviceSpec::parse(&spec) {
            Ok(_) => resources.devices = Some(spec),
            Err(message) => report.fault(devices.span, message, Some(DeviceSpec::FORMS.to_owned())),
        }
    }
    for entry in node.get("pools").and_then(|pools| field::map(report, pools)).unwrap_or(&[]) {
        field::id(report, entry, "a pool");
        if let Some(pool) = pool(report, &entry.value) {
            resources.pools.insert(entry.key.clone(), pool);
        }
    }
    resources
}

fn pool(report: &mut Report, node: &Node) -> Option<Pool> {
    let Kind::Map(_) = &node.kind else {
        return field::count(report, node, 1).map(|size| Pool { size, machine: false });
    };
    field::known(report, node, keys::POOL, "a pool");
    let machine = match node.get("scope").map(|scope| (scope, scope.as_text())) {
        None | Some((_, Some("run"))) => false,
        Some((_, Some("machine"))) => true,
        Some((scope, _)) => {
            report.fault(scope.span, "the scope of a pool is \"run\" or \"machine\"", None);
            false
        }
    };
    match node.get("size") {
        Some(size) => field::count(report, size, 1).map(|size| Pool { size, machine }),
        None => {
            report.fault(node.span, "a pool needs 'size'", None);
            None
        }
    }
}

/// Completes the root's resources with those of its includes: the root's definition wins; includes that disagree are a fault;
/// of several `gpu:N` the largest counts.
pub(in crate::front) fn join(report: &mut Report, root: &mut Resources, includes: &[Include]) {
    let mut found: Vec<(&Include, &Resources)> = Vec::new();
    let mut open: Vec<&Include> = includes.iter().rev().collect();
    while let Some(include) = open.pop() {
        found.push((include, &include.workflow.resources));
        open.extend(include.workflow.includes.iter().rev());
    }
    let mut pools: BTreeMap<&str, (&Pool, &str)> = BTreeMap::new();
    let mut devices: Option<(&str, &str)> = None;
    for (include, resources) in &found {
        let prefix = include.prefix.as_str();
        for (name, pool) in &resources.pools {
            match pools.get(name.as_str()) {
                _ if root.pools.contains_key(name) => {}
                Some((first, other)) if *first != pool => {
                    disagree(report, include.span, &format!("pool '{name}'"), other, prefix);
                }
                Some(_) => {}
                None => {
                    pools.insert(name, (pool, prefix));
                }
            }
        }
        let Some(spec) = resources.devices.as_deref().filter(|_| root.devices.is_none()) else { continue };
        devices = match devices {
            None => Some((spec, prefix)),
            Some((first, other)) => match (virtual_count(first), virtual_count(spec)) {
                _ if first == spec => devices,
                (Some(a), Some(b)) if a >= b => devices,
                (Some(_), Some(_)) => Some((spec, prefix)),
                _ => {
                    disagree(report, include.span, "'devices'", other, prefix);
                    devices
                }
            },
        };
    }
    let pools: Vec<_> = pools.into_iter().map(|(name, (pool, _))| (name.to_owned(), pool.clone())).collect();
    let devices = devices.map(|(spec, _)| spec.to_owned());
    root.pools.extend(pools);
    root.devices = root.devices.take().or(devices);
}

fn virtual_count(spec: &str) -> Option<u32> {
    match DeviceSpec::parse(spec) {
        Ok(DeviceSpec::Virtual(count)) => Some(count),
        _ => None,
    }
}

fn disagree(report: &mut Report, span: Option<Span>, what: &str, first: &str, second: &str) {
    report.fault(
        span,
        format!("the includes '{first}' and '{second}' define {what} differently"),
        Some("define it under 'resources' of this file: the root's definition wins".to_owned()),
    );
}
