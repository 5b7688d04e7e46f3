//! A step held against the signature of its stage: names of inputs and outputs, parameters. Unaware of what references stand for.

use crate::api::{Arity, Catalog};
use crate::base::suggest;
use crate::model::{Action, Declared, Policy, Step};

use super::super::node::Node;
use super::super::report::Report;
use super::with::with;

/// Checks the names of a step: against the catalog for `uses`, among themselves for `run`.
pub(super) fn step(report: &mut Report, node: &Node, step: &Step, catalog: &Catalog) {
    match &step.action {
        Action::Run { stdin, stdout, .. } => {
            own(report, stdin.as_ref(), "stdin", "input", step.inputs.keys());
            own(report, stdout.as_ref(), "stdout", "output", step.outputs.keys());
        }
        Action::Uses { stage: name, .. } => {
            let Some(stage) = catalog.stage(&name.value) else {
                let hint = match catalog.simulator(&name.value) {
                    Some(_) => Some("this is a simulator: it goes under 'services'".to_owned()),
                    None => suggest::hint(&name.value, catalog.stages().map(|stage| stage.name())),
                };
                report.fault(name.span, format!("unknown stage '{}'", name.value), hint);
                return;
            };
            let signature = stage.signature();
            let inputs: Vec<(&str, bool)> =
                signature.inputs.iter().map(|port| (port.name, port.arity == Arity::One)).collect();
            let outputs: Vec<(&str, bool)> =
                signature.outputs.iter().map(|port| (port.name, !port.optional)).collect();
            ports(report, node, name, "input", &inputs);
            ports(report, node, name, "output", &outputs);
            with(report, node, name, &signature.params, &|values| stage.check(values));
            let asks =
                matches!(&step.policy, Some(p) if matches!(p.value, Policy::Validate | Policy::FreshFor(_)));
            if asks && !matches!(signature.policy, Policy::Validate | Policy::FreshFor(_)) {
                let place = node.get("cache").map(|cache| cache.span);
                report.fault(place, format!("stage {} cannot validate", name.value), None);
            }
        }
    }
}

/// `names`: each port and whether it is required.
fn ports(report: &mut Report, node: &Node, stage: &Declared<String>, what: &str, names: &[(&str, bool)]) {
    let given = node.get(&format!("{what}s"));
    let any = names.iter().any(|(name, _)| *name == "*");
    for entry in given.map(Node::entries).unwrap_or(&[]) {
        if !any && !names.iter().any(|(name, _)| *name == entry.key) {
            let hint = match names.is_empty() {
                true => Some(format!("it has no {what}s")),
                false => suggest::hint(&entry.key, names.iter().map(|(name, _)| *name)),
            };
            report.fault(entry.span, format!("stage {} has no {what} '{}'", stage.value, entry.key), hint);
        }
    }
    for (name, required) in names {
        if *required && *name != "*" && given.is_none_or(|given| given.get(name).is_none()) {
            let hint = format!("add it under '{what}s'");
            report.fault(stage.span, format!("stage {} needs the {what} '{name}'", stage.value), Some(hint));
        }
    }
}

fn own<'k>(
    report: &mut Report,
    name: Option<&Declared<String>>,
    key: &str,
    what: &str,
    known: impl Iterator<Item = &'k String>,
) {
    let Some(name) = name else { return };
    let known: Vec<&str> = known.map(String::as_str).collect();
    if !known.contains(&name.value.as_str()) {
        let hint = suggest::hint(&name.value, known.iter().copied());
        report.fault(
            name.span,
            format!("'{key}' names an {what} of this step; '{}' is none", name.value),
            hint,
        );
    }
}

/// Checks the name of a simulator and its parameters.
pub(super) fn simulator(report: &mut Report, node: &Node, name: &Declared<String>, catalog: &Catalog) {
    let Some(info) = catalog.simulator(&name.value) else {
        let hint = match catalog.stage(&name.value) {
            Some(_) => Some("this is a stage: it goes under 'steps'".to_owned()),
            None => suggest::hint(&name.value, catalog.simulators().map(|info| info.name)),
        };
        return report.fault(name.span, format!("unknown simulator '{}'", name.value), hint);
    };
    with(report, node, name, &info.params, &info.check);
}
