//! One service. Unaware of processes, ports and leases.

use std::time::Duration;

use crate::api::Catalog;
use crate::model::{Command, Probe, Ready, Service, ServiceAction};

use super::super::keys;
use super::super::node::{Entry, Kind, Node};
use super::super::report::Report;
use super::command::{command, tools};
use super::expr::{Secrets, expr};
use super::field;
use super::matrix::matrix;
use super::resources::service_resources;
use super::signature;
use super::step::{env, values};

/// How long a service may take until it is ready, unless it says so.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Grace after TERM, unless it says so.
const STOP: Duration = Duration::from_secs(5);
/// Instances are processes.
const MOST_REPLICAS: u32 = 1024;

/// The service declared by `entry`. One that does nothing sensible is a fault and still there, so that those who refer to it
/// are not at fault too.
pub(in crate::front) fn service(report: &mut Report, entry: &Entry, catalog: &Catalog) -> Service {
    field::id(report, entry, "a service");
    let node = &entry.value;
    let is_map = field::map(report, node).is_some();
    field::known(report, node, keys::SERVICE, "a service");
    let action = if is_map { action(report, entry) } else { None };
    let action = action.unwrap_or(ServiceAction::Run(Command::Argv(Vec::new())));
    let default = match &action {
        ServiceAction::Uses { service, .. } => {
            signature::simulator(report, node, service, catalog);
            Probe::Announce
        }
        ServiceAction::Run(_) => Probe::Tcp,
    };
    let port = node.get("port").and_then(|port| {
        let number = field::count(report, port, 1)?;
        let number = u16::try_from(number).ok();
        if number.is_none() {
            report.fault(port.span, "a port is at most 65535", None);
        }
        number
    });
    let mut service = Service {
        id: entry.key.clone(),
        span: Some(entry.span),
        action,
        env: env(report, node),
        port,
        ready: node.get("ready").map_or(Ready { probe: default.clone(), timeout: READY_TIMEOUT }, |ready| {
            self::ready(report, ready, default)
        }),
        stop: node.get("stop").and_then(|stop| field::duration(report, stop)).unwrap_or(STOP),
        identity_tools: Vec::new(),
        identity_files: Vec::new(),
        matrix: node.get("matrix").map(|m| matrix(report, m)).unwrap_or_default(),
        gpu: node.get("resources").and_then(|resources| service_resources(report, resources)),
        per_gpu: false,
        replicas: node.get("replicas").and_then(|n| field::count(report, n, 1)).unwrap_or(1),
        with_service: node.get("with_service").and_then(|other| field::declared(report, other)),
    };
    places(report, node, &mut service);
    if let Some(identity) = node.get("identity")
        && field::map(report, identity).is_some()
    {
        field::known(report, identity, keys::IDENTITY, "'identity'");
        service.identity_tools = identity.get("tools").map(|t| tools(report, t)).unwrap_or_default();
        for file in identity.get("files").and_then(|f| field::list(report, f)).unwrap_or(&[]) {
            if file.as_text().is_none() {
                report.expected(file, "a path or a pattern");
            }
            service.identity_files.push(expr(report, file, Secrets::Refused));
        }
    }
    service
}

/// `per`, and what does not go together.
fn places(report: &mut Report, node: &Node, service: &mut Service) {
    if let Some(per) = node.get("per") {
        service.per_gpu = per.as_text() == Some("gpu");
        if !service.per_gpu {
            report.expected(per, "\"gpu\"");
        }
    }
    if let (Some(other), true) = (&service.with_service, service.per_gpu || service.gpu.is_some()) {
        let hint = "it has an instance on the devices of each instance of that service".to_owned();
        report.fault(other.span, "'with_service' goes with neither 'per' nor 'gpu'", Some(hint));
    }
    let most = service.replicas > 1
        || service.per_gpu
        || service.with_service.is_some()
        || !service.matrix.axes.is_empty();
    if let (Some(port), true) = (node.entry("port"), service.port.is_some() && most) {
        let hint = "leave 'port' out: each gets a free one, ${service.port}".to_owned();
        report.fault(port.span, "instances of one service cannot share a port", Some(hint));
    }
    if service.replicas > MOST_REPLICAS
        && let Some(replicas) = node.get("replicas")
    {
        report.fault(replicas.span, format!("more than {MOST_REPLICAS} replicas"), None);
    }
}

fn action(report: &mut Report, entry: &Entry) -> Option<ServiceAction> {
    let node = &entry.value;
    match (node.get("uses"), node.get("run")) {
        (Some(uses), None) => {
            if let Some(shell) = node.entry("shell") {
                report.fault(shell.span, "'shell' does not go with 'uses'", None);
            }
            let with = values(report, node, "with");
            Some(ServiceAction::Uses { service: field::declared(report, uses)?, with })
        }
        (None, Some(run)) => {
            if let Some(with) = node.entry("with") {
                report.fault(with.span, "'with' does not go with 'run'", None);
            }
            Some(ServiceAction::Run(command(report, node, run)?))
        }
        (both, _) => {
            let message = match both {
                Some(_) => format!("service '{}' has both 'uses' and 'run'", entry.key),
                None => format!("service '{}' does nothing", entry.key),
            };
            let hint = "'uses' names a built-in simulator, 'run' is a command: one of them".to_owned();
            report.fault(entry.span, message, Some(hint));
            None
        }
    }
}

fn ready(report: &mut Report, node: &Node, default: Probe) -> Ready {
    let mut ready = Ready { probe: default, timeout: READY_TIMEOUT };
    if field::map(report, node).is_none() {
        return ready;
    }
    field::known(report, node, keys::READY, "'ready'");
    if let Some(timeout) = node.get("timeout").and_then(|t| field::duration(report, t)) {
        ready.timeout = timeout;
    }
    let probes: Vec<&Entry> = node.entries().iter().filter(|e| e.key != "timeout").collect();
    if let [_, second, ..] = probes[..] {
        report.fault(second.span, "'ready' asks in one way: 'http', 'tcp' or 'log'", None);
    }
    let Some(probe) = probes.first() else { return ready };
    match probe.key.as_str() {
        "http" => {
            if let Some(path) = field::text(report, &probe.value) {
                if !path.starts_with('/') {
                    let hint = Some(format!("write \"/{path}\""));
                    report.fault(probe.value.span, "the path of 'http' begins with '/'", hint);
                }
                ready.probe = Probe::Http(path);
            }
        }
        "tcp" => match probe.value.kind {
            Kind::Bool(true) => ready.probe = Probe::Tcp,
            _ => report.expected(&probe.value, "true"),
        },
        "log" => {
            if let Some(pattern) = field::text(report, &probe.value) {
                if let Err(error) = regex::Regex::new(&pattern) {
                    let cause = error.to_string();
                    let cause = cause.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned();
                    report.fault(probe.value.span, format!("not a regular expression: {cause}"), None);
                }
                ready.probe = Probe::Log(pattern);
            }
        }
        _ => {}
    }
    ready
}
