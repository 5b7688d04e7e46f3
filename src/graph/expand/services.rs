//! Services: one per combination of their matrix, and which of them a reference means. Unaware of instances and devices.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Expander;
use super::action::locate;
use super::axes::duplicate;
use crate::graph::eval::Context;
use crate::graph::matrix::Combo;
use crate::graph::node::needed_services as needed;
use crate::graph::{CommandIo, Late, Node, ServiceAction, ServiceIx, ServiceNode, Value};
use crate::model::{Service, ServiceAction as Declared, ServiceField, Span};

/// The combinations of every declared service, in order; [`ServiceIx`] counts through all of them.
#[derive(Default)]
pub(super) struct ServiceTable(Vec<Vec<(ServiceIx, Combo)>>);

impl Expander<'_> {
    /// Finds out which services there are. Comes before anything that refers to them.
    pub(super) fn service_table(&self) -> ServiceTable {
        let mut next = 0;
        let mut table = Vec::with_capacity(self.scopes.services.len());
        for def in &self.scopes.services {
            let no_files = |_: &_| None;
            let combos = self.combinations(def.scope, &def.service.matrix, &no_files).unwrap_or_default();
            if let Some((first, second)) = duplicate(&combos) {
                let message = format!("two combinations of '{}' are equal: {first} and {second}", def.id);
                let hint = "every combination must differ in at least one axis".to_owned();
                self.fault(def.service.span, message, Some(hint));
            }
            let from = next;
            next += combos.len();
            table.push((from..).zip(combos).collect());
        }
        ServiceTable(table)
    }

    /// All services.
    pub(super) fn services(&self) -> Vec<ServiceNode> {
        let mut out = Vec::new();
        let mut places = Vec::new();
        for (def, combos) in self.services.0.iter().enumerate() {
            for service in combos.iter().filter_map(|(_, combo)| self.service(def, combo)) {
                out.push(service);
                places.push(self.scopes.services[def].service.span);
            }
        }
        // a fault shifted the indices
        if !self.faults.borrow().is_empty() {
            return out;
        }
        for (ix, service) in out.iter().enumerate() {
            if needed(&out, ix).contains(&ix) {
                let hint = "one of them has to be up before the other: give it a fixed port, or start both in one service";
                let message = format!("service '{}' needs itself to be up", service.id);
                self.fault(places[ix], message, Some(hint.to_owned()));
            }
            let several = |used: &ServiceNode| used.per_gpu || used.replicas > 1 || used.beside.is_some();
            for used in service.one.iter().map(|used| &out[*used]).filter(|used| several(used)) {
                let hint = format!("take all of them (services.{}.urls)", used.id);
                let message = format!(
                    "service '{}' refers to one instance of '{}', which has several",
                    service.id, used.id
                );
                self.fault(places[ix], message, Some(hint));
            }
        }
        out
    }

    fn service(&self, def: usize, combo: &Combo) -> Option<ServiceNode> {
        let def = &self.scopes.services[def];
        let no_inputs = HashMap::new();
        let ctx = Context { scope: def.scope, combo, inputs: &no_inputs, implicit: None };
        let service = def.service;
        let action = self.service_action(service, &ctx)?;
        let (mut uses, mut one) = (BTreeSet::new(), BTreeSet::new());
        let mut note = |late: &Late| {
            if let Late::Service { services, field, .. } = late {
                uses.extend(services);
                if *field != ServiceField::Urls {
                    one.extend(services);
                }
            }
        };
        match &action {
            ServiceAction::Simulator { with, .. } => with.for_each_late(&mut note),
            ServiceAction::Command(action) => action.for_each_late(&mut note),
        }
        let workflow = self.scopes.scopes[def.scope].workflow;
        let mut env = BTreeMap::new();
        for (name, expr) in workflow.env.iter().chain(&service.env) {
            let value = self.eval(expr, &ctx)?;
            value.for_each_late(&mut note);
            env.insert(name.clone(), value);
        }
        let identity_files: Option<Vec<String>> = service
            .identity_files
            .iter()
            .map(|expr| self.known_text(expr, "an identity file", &ctx))
            .collect();
        let beside = match &service.with_service {
            None => None,
            Some(other) => {
                let found = self.meant(&other.value, &[], &ctx, other.span)?;
                let [one] = found.as_slice() else {
                    return self.several(&other.value, &found, other.span);
                };
                Some(*one)
            }
        };
        Some(ServiceNode {
            id: named(&def.id, combo),
            source: workflow.source,
            action,
            env,
            port: service.port,
            probe: service.ready.probe.clone(),
            ready_timeout: service.ready.timeout,
            stop: service.stop,
            identity_tools: service.identity_tools.clone(),
            identity_files: identity_files?,
            gpu: service.gpu.clone(),
            per_gpu: service.per_gpu,
            replicas: service.replicas,
            beside,
            uses: uses.into_iter().collect(),
            one: one.into_iter().collect(),
        })
    }

    fn service_action(&self, service: &Service, ctx: &Context<'_>) -> Option<ServiceAction> {
        let (name, with) = match &service.action {
            Declared::Uses { service, with } => (service, with),
            Declared::Run(command) => {
                return self.command(command, CommandIo::default(), ctx, None).map(ServiceAction::Command);
            }
        };
        let Some(info) = self.catalog.simulator(&name.value) else {
            self.fault(name.span, format!("unknown built-in service '{}'", name.value), None);
            return None;
        };
        let map: Option<Vec<_>> =
            with.iter().map(|(key, expr)| Some((key.clone(), self.eval(expr, ctx)?))).collect();
        let values = Value::Map(map?);
        if let Err(fault) = (info.check)(&values.identity()) {
            let place = locate(with, &fault.path).or(name.span);
            let (message, hint) = fault.worded(&name.value);
            self.fault(place, message, Some(hint));
            return None;
        }
        Some(ServiceAction::Simulator { name: name.value.clone(), version: info.version, with: values })
    }

    /// What `services.ID.FIELD` means for a combination: axes of the same name are joined, `fixed` names others.
    pub(in crate::graph) fn service_reference(
        &self,
        id: &str,
        fixed: &[(String, String)],
        field: ServiceField,
        ctx: &Context<'_>,
        span: Option<Span>,
    ) -> Option<Late> {
        let services = self.meant(id, fixed, ctx, span)?;
        let def = self.scopes.service(ctx.scope, id)?;
        let full = &self.scopes.services[def].id;
        let id = match services.as_slice() {
            [one] => self.services.0[def]
                .iter()
                .find(|(ix, _)| ix == one)
                .map_or_else(|| full.clone(), |(_, combo)| named(full, combo)),
            _ if field == ServiceField::Urls => full.clone(),
            several => return self.several(id, several, span),
        };
        Some(Late::Service { services, id, field })
    }

    fn meant(
        &self,
        id: &str,
        fixed: &[(String, String)],
        ctx: &Context<'_>,
        span: Option<Span>,
    ) -> Option<Vec<ServiceIx>> {
        let Some(def) = self.scopes.service(ctx.scope, id) else {
            self.fault(span, format!("unknown service '{id}'"), None);
            return None;
        };
        let wanted = |axis: &str| {
            let fixed = fixed.iter().find(|(name, _)| name == axis).map(|(_, value)| value.clone());
            fixed.or_else(|| ctx.combo.axes.get(axis).map(|cell| cell.text.clone()))
        };
        let agrees = |combo: &Combo| {
            combo.axes.iter().all(|(axis, cell)| wanted(axis).is_none_or(|value| value == cell.text))
        };
        let found: Vec<ServiceIx> =
            self.services.0[def].iter().filter(|(_, combo)| agrees(combo)).map(|(ix, _)| *ix).collect();
        if found.is_empty() {
            let axes = self.services.0[def].first().into_iter().flat_map(|(_, combo)| combo.axes.keys());
            let missing: Vec<String> =
                axes.filter_map(|axis| wanted(axis).map(|value| format!("{axis}={value}"))).collect();
            let (message, hint) = match missing.is_empty() {
                true => (format!("service '{id}' has no combinations"), "give its axes values"),
                false => (
                    format!("service '{id}' has none with {}", missing.join(",")),
                    "axes of the same name are joined: the service needs the values of the step",
                ),
            };
            self.fault(span, message, Some(hint.to_owned()));
            return None;
        }
        Some(found)
    }

    fn several<T>(&self, id: &str, found: &[ServiceIx], span: Option<Span>) -> Option<T> {
        let hint = format!(
            "name one (services.{id}[axis=value].url), give the step the same axes, or take services.{id}.urls"
        );
        self.fault(span, format!("there are {} of service '{id}'", found.len()), Some(hint));
        None
    }
}

/// A node that uses a service needs those that this one needs, and all their instances.
pub(super) fn close(nodes: &mut [Node], services: &[ServiceNode]) {
    if services.iter().all(|service| service.uses.is_empty()) {
        return;
    }
    for node in nodes.iter_mut().filter(|node| !node.services.is_empty()) {
        let needed: BTreeSet<ServiceIx> = node.services.iter().flat_map(|ix| needed(services, *ix)).collect();
        for list in [&mut node.services, &mut node.whole] {
            list.extend(&needed);
            list.sort_unstable();
            list.dedup();
        }
    }
}

/// `pods[model=a]`
fn named(id: &str, combo: &Combo) -> String {
    if combo.axes.is_empty() { id.to_owned() } else { format!("{id}[{}]", combo.label()) }
}
