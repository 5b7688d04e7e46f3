//! Names resolved inside a whole workflow tree: every reference is known, and known early enough where it stands. Unaware of JSON.

mod cycle;
mod scope;
mod shell;

use indexmap::IndexMap;

use crate::base::suggest;
use crate::model::{
    Action, AxisValues, Command, Declared, ExclusiveScope, Expr, ExprKind, Matrix, Param, ParamScope,
    Reference, Resources, Service, ServiceAction, Span, Step, Template, Workflow,
};

pub(crate) use self::cycle::circle;
use self::scope::Scope;
use super::params::Chain;
use super::report::Report;

/// Where an expression stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Param,
    WorkflowEnv,
    Inputs,
    Outputs,
    Matrix,
    Glob,
    Cwd,
    Depfile,
    /// `with`, `run`, `env` of a step.
    Step,
    /// `with`, `run`, `env` of a service.
    Service,
    IdentityFiles,
    OnFinish,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Param => "'params'",
            Self::WorkflowEnv => "'env' of the workflow",
            Self::Inputs => "'inputs'",
            Self::Outputs => "'outputs'",
            Self::Matrix | Self::Glob => "'matrix'",
            Self::Cwd => "'cwd'",
            Self::Depfile => "'depfile'",
            Self::Step => "a step",
            Self::Service => "a service",
            Self::IdentityFiles => "'identity'",
            Self::OnFinish => "'on_finish'",
        }
    }

    /// True where a value that is known only while the node runs may stand.
    fn takes_late(self) -> bool {
        matches!(self, Self::Param | Self::WorkflowEnv | Self::Step | Self::Service)
    }

    fn takes_steps(self) -> bool {
        !matches!(self, Self::Matrix | Self::Depfile | Self::Service | Self::IdentityFiles | Self::OnFinish)
    }

    fn in_step(self) -> bool {
        matches!(self, Self::Inputs | Self::Outputs | Self::Cwd | Self::Depfile | Self::Step)
    }
}

/// Checks a whole tree; `root` has the resources of all its includes.
pub(super) fn check(report: &mut Report, root: &Workflow) {
    let scope = Scope { workflow: root, chain: Chain { params: &root.params, parent: None } };
    Checker { report, resources: &root.resources }.workflow(&scope, None);
    cycle::steps(report, root);
}

/// A reference that is known only while a node runs, where it is needed earlier.
pub(super) fn late_fault(
    report: &mut Report,
    span: Option<Span>,
    late: &Reference,
    through: Option<&str>,
    place: &str,
) {
    let through = through.map(|name| format!(", through params.{name},")).unwrap_or_default();
    report.fault(
        span,
        format!("a late reference: ${{{late}}}{through} is not known yet in {place}"),
        Some("it is known only while the node runs; 'with', 'run' and 'env' may hold it".to_owned()),
    );
}

/// A param that the file does not declare.
pub(super) fn unknown_param(report: &mut Report, span: Option<Span>, name: &str, chain: Chain<'_>) {
    let hint = match chain.params.is_empty() {
        true => Some("this file declares no params".to_owned()),
        false => suggest::hint(name, chain.params.keys().map(String::as_str)),
    };
    report.fault(span, format!("unknown param '{name}'"), hint);
}

struct Checker<'r> {
    report: &'r mut Report,
    /// Of the whole run.
    resources: &'r Resources,
}

/// What an expression may refer to.
#[derive(Clone, Copy)]
struct At<'a> {
    scope: &'a Scope<'a>,
    place: Place,
    step: Option<&'a Step>,
    service: Option<&'a Service>,
}

impl Checker<'_> {
    fn workflow(&mut self, scope: &Scope<'_>, parent: Option<&Scope<'_>>) {
        let workflow = scope.workflow;
        self.cycles(workflow);
        for param in workflow.params.values() {
            let scope = match param.scope {
                ParamScope::Own => Some(scope),
                ParamScope::Includer => parent,
            };
            if let Some(scope) = scope {
                self.expr(At { scope, place: Place::Param, step: None, service: None }, &param.value);
            }
        }
        let at = At { scope, place: Place::WorkflowEnv, step: None, service: None };
        workflow.env.values().for_each(|value| self.expr(at, value));
        for service in workflow.services.values() {
            self.service(scope, service);
        }
        for step in workflow.steps.values() {
            self.step(scope, step);
        }
        if let Some(command) = &workflow.on_finish {
            self.command(At { place: Place::OnFinish, ..at }, &command.value);
        }
        for include in &workflow.includes {
            self.workflow(&scope.inner(&include.workflow), Some(scope));
        }
    }

    /// Params of one file that refer to each other in a circle.
    fn cycles(&mut self, workflow: &Workflow) {
        let mut done: Vec<&str> = Vec::new();
        for name in workflow.params.keys() {
            self.cycle(workflow, name, &mut Vec::new(), &mut done);
        }
    }

    fn cycle<'a>(
        &mut self,
        workflow: &'a Workflow,
        name: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut Vec<&'a str>,
    ) {
        if let Some(first) = path.iter().position(|known| *known == name) {
            let circle = [&path[first..], &[name]].concat().join(" -> ");
            let span = workflow.params.get(name).and_then(|param| param.value.span);
            let hint = Some("give one of them a value of its own".to_owned());
            self.report.fault(span, format!("the params form a cycle: {circle}"), hint);
            return;
        }
        let Some(Param { value, scope: ParamScope::Own }) = workflow.params.get(name) else { return };
        if done.contains(&name) {
            return;
        }
        path.push(name);
        let mut next = Vec::new();
        value.for_each_reference(&mut |reference, _| {
            if let Reference::Param(name) = reference {
                next.push(name.as_str());
            }
        });
        for name in next {
            self.cycle(workflow, name, path, done);
        }
        path.pop();
        done.push(name);
    }

    fn service(&mut self, scope: &Scope<'_>, service: &Service) {
        let at = At { scope, place: Place::Service, step: None, service: Some(service) };
        match &service.action {
            ServiceAction::Uses { with, .. } => with.values().for_each(|value| self.expr(at, value)),
            ServiceAction::Run(command) => self.command(at, command),
        }
        service.env.values().for_each(|value| self.expr(at, value));
        let files = At { place: Place::IdentityFiles, ..at };
        service.identity_files.iter().for_each(|file| self.expr(files, file));
        self.matrix(at, &service.matrix);
        if service.gpu.is_some() || service.per_gpu || service.with_service.is_some() {
            self.own_mask(&service.env);
        }
        if let Some(other) = &service.with_service {
            self.beside(scope, service, other);
        }
    }

    /// Devices that are leased cannot be chosen by hand as well.
    fn own_mask(&mut self, env: &IndexMap<String, Expr>) {
        if let Some(value) = env.get("CUDA_VISIBLE_DEVICES") {
            let hint = "take it out: it is set to the devices that are leased, ${device.index}".to_owned();
            let message = "CUDA_VISIBLE_DEVICES of a process that leases devices";
            self.report.fault(value.span, message, Some(hint));
        }
    }

    /// What `with_service` names.
    fn beside(&mut self, scope: &Scope<'_>, service: &Service, other: &Declared<String>) {
        let services = &scope.workflow.services;
        let (message, hint) = match services.get(&other.value) {
            None => {
                let hint = suggest::hint(&other.value, services.keys().map(String::as_str));
                (format!("unknown service '{}'", other.value), hint)
            }
            Some(_) if other.value == service.id => {
                (format!("service '{}' is beside itself", service.id), None)
            }
            Some(found) if found.with_service.is_some() => {
                let hint = "name the service that has the devices".to_owned();
                (format!("service '{}' is itself on the devices of another", found.id), Some(hint))
            }
            Some(found) if !found.per_gpu && found.gpu.is_none() => {
                let hint = "give that one \"per\": \"gpu\" or \"resources\": {\"gpu\": 1}".to_owned();
                (format!("service '{}' has no devices", found.id), Some(hint))
            }
            Some(_) => return,
        };
        self.report.fault(other.span, message, hint);
    }

    fn matrix(&mut self, at: At<'_>, matrix: &Matrix) {
        for axis in matrix.axes.values() {
            match &axis.values {
                AxisValues::List(values) => self.expr(At { place: Place::Matrix, ..at }, values),
                AxisValues::Glob(pattern) if at.service.is_some() => {
                    let hint = "write the values out, or take them from a param".to_owned();
                    let message = "an axis of a service takes no files";
                    self.report.fault(pattern.span.or(axis.span), message, Some(hint));
                }
                AxisValues::Glob(pattern) => self.expr(At { place: Place::Glob, ..at }, pattern),
                AxisValues::Ladder(_) => {}
            }
        }
        for entries in matrix.include.iter().chain(&matrix.exclude) {
            self.expr(At { place: Place::Matrix, ..at }, entries);
        }
    }

    fn step(&mut self, scope: &Scope<'_>, step: &Step) {
        let at = At { scope, place: Place::Step, step: Some(step), service: None };
        match &step.action {
            Action::Uses { with, .. } => with.values().for_each(|value| self.expr(at, value)),
            Action::Run { command, cwd, depfile, .. } => {
                self.command(at, command);
                depfile.iter().for_each(|file| self.expr(At { place: Place::Depfile, ..at }, file));
                cwd.iter().for_each(|cwd| self.expr(At { place: Place::Cwd, ..at }, cwd));
            }
        }
        step.env.values().for_each(|value| self.expr(at, value));
        for input in step.inputs.values() {
            self.expr(At { place: Place::Inputs, ..at }, input);
        }
        for output in step.outputs.values() {
            self.expr(At { place: Place::Outputs, ..at }, &output.path);
        }
        self.matrix(at, &step.matrix);
        for need in &step.needs {
            if need.value == step.id {
                self.report.fault(need.span, "a step cannot need itself", None);
                continue;
            }
            let lacking = self.report.lacks_includes && need.value.contains('.');
            if let Err((message, hint)) = scope.need(need)
                && !lacking
            {
                self.report.fault(need.span, message, hint);
            }
        }
        self.pools(step);
        if step.resources.gpu.is_some() {
            self.own_mask(&step.env);
        }
        if step.resources.jobserver.is_some() && matches!(step.action, Action::Uses { .. }) {
            let message = format!("step '{}': only a command can use a jobserver", step.id);
            self.report.fault(step.span, message, Some("take it out of 'resources'".to_owned()));
        }
    }

    fn pools(&mut self, step: &Step) {
        let exclusive = step.resources.exclusive.iter().filter_map(|exclusive| match exclusive {
            ExclusiveScope::Pool(pool) => Some(pool),
            ExclusiveScope::Run => None,
        });
        for name in step.resources.pools.keys().chain(exclusive) {
            match self.resources.pools.get(name) {
                None => {
                    let hint = suggest::hint(name, self.resources.pools.keys().map(String::as_str))
                        .unwrap_or_else(|| {
                            format!("declare it: \"resources\": {{\"pools\": {{\"{name}\": 1}}}}")
                        });
                    let message = format!("step '{}': unknown pool '{name}'", step.id);
                    self.report.fault(step.span, message, Some(hint));
                }
                Some(pool) if step.resources.pools.get(name).is_some_and(|slots| *slots > pool.size) => {
                    let message = format!(
                        "step '{}' wants {} slots of the pool '{name}', which has {}",
                        step.id, step.resources.pools[name], pool.size
                    );
                    self.report.fault(step.span, message, None);
                }
                Some(_) => {}
            }
        }
    }

    fn command(&mut self, at: At<'_>, command: &Command) {
        match command {
            Command::Argv(argv) => argv.iter().for_each(|arg| self.expr(at, arg)),
            Command::Shell { text, .. } => {
                self.template(at, text);
                for span in shell::quoted(text) {
                    self.report.fault(
                        span,
                        "a reference inside quotes of a shell text",
                        Some("it is inserted quoted already: remove the quotes around it".to_owned()),
                    );
                }
            }
        }
    }

    fn expr(&mut self, at: At<'_>, expr: &Expr) {
        match &expr.kind {
            ExprKind::Text(template) => self.template(at, template),
            ExprKind::List(items) => items.iter().for_each(|item| self.expr(at, item)),
            ExprKind::Map(map) => map.iter().for_each(|(_, item)| self.expr(at, item)),
            ExprKind::Null | ExprKind::Bool(_) | ExprKind::Number(_) | ExprKind::Secret { .. } => {}
        }
    }

    fn template(&mut self, at: At<'_>, template: &Template) {
        for (reference, span) in template.references() {
            self.reference(at, reference, span);
        }
    }

    fn reference(&mut self, at: At<'_>, reference: &Reference, span: Option<Span>) {
        let own_port = at.place == Place::Service && *reference == Reference::ServicePort;
        let own_output = at.place == Place::Depfile && matches!(reference, Reference::Output(_));
        if reference.is_late() && !own_port && !own_output && !at.place.takes_late() {
            return late_fault(self.report, span, reference, None, at.place.name());
        }
        match reference {
            Reference::Param(name) => self.param(at, name, span),
            Reference::Matrix { axis, .. } => self.axis(at, axis, span),
            Reference::Step(step) if step.path.len() > 1 && self.report.lacks_includes => {}
            Reference::Step(step) => match at.scope.step_ref(step) {
                Err((message, hint)) => self.report.fault(span, message, hint),
                Ok(()) if !at.place.takes_steps() => self.step_refused(at.place, span, reference, None),
                Ok(()) => {}
            },
            Reference::Service { id, fixed, .. } => self.service_ref(at, id, fixed, span),
            Reference::ServicePort if at.service.is_none() => {
                let hint = "elsewhere write services.ID.port".to_owned();
                self.report.fault(span, "service.port is known only in a service", Some(hint));
            }
            Reference::Input(name) => {
                let known = at.step.filter(|_| at.place == Place::Step).map(|step| step.inputs.keys());
                self.port(span, "input", name, known);
            }
            Reference::Output(name) => {
                let here = matches!(at.place, Place::Step | Place::Depfile);
                let known = at.step.filter(|_| here).map(|step| step.outputs.keys());
                self.port(span, "output", name, known);
            }
            Reference::Device(_) => {
                let leases = match (at.step, at.service) {
                    (Some(step), _) => step.resources.gpu.is_some(),
                    (_, Some(service)) => {
                        service.per_gpu || service.gpu.is_some() || service.with_service.is_some()
                    }
                    // where a param or the variables of all steps are declared nobody knows yet
                    _ => true,
                };
                if !leases {
                    let hint = "add \"resources\": {\"gpu\": 1}".to_owned();
                    let message = format!("${{{reference}}} is known only where a device is leased");
                    self.report.fault(span, message, Some(hint));
                }
            }
            Reference::Shard(_) => {
                let what = format!("${{{reference}}}");
                let hint = "this is part of the format, and of a later version of flow".to_owned();
                self.report.fault(span, format!("not yet: {what}"), Some(hint));
            }
            Reference::ServicePort | Reference::Env(_) | Reference::Workflow(_) => {}
        }
    }

    fn param(&mut self, at: At<'_>, name: &str, span: Option<Span>) {
        if !at.scope.chain.params.contains_key(name) {
            return unknown_param(self.report, span, name, at.scope.chain);
        }
        for reached in at.scope.chain.reached(name) {
            if reached.is_late() && !at.place.takes_late() {
                return late_fault(self.report, span, reached, Some(name), at.place.name());
            }
            if matches!(reached, Reference::Step(_)) && !at.place.takes_steps() {
                return self.step_refused(at.place, span, reached, Some(name));
            }
        }
    }

    fn step_refused(
        &mut self,
        place: Place,
        span: Option<Span>,
        reference: &Reference,
        through: Option<&str>,
    ) {
        let through = through.map(|name| format!(", through params.{name},")).unwrap_or_default();
        let hint = match place {
            Place::Depfile => "the depfile is a file of its own, beside an output: ${outputs.N}.d",
            Place::Matrix => "an axis over the files of a step is {\"glob\": \"${steps.ID.OUTPUT}\"}",
            _ => "an output of a step is known in steps only",
        };
        let message = format!("${{{reference}}}{through} is not known in {}", place.name());
        self.report.fault(span, message, Some(hint.to_owned()));
    }

    fn axis(&mut self, at: At<'_>, axis: &str, span: Option<Span>) {
        let (what, id, matrix, repeats) = match (at.step.filter(|_| at.place.in_step()), at.service) {
            (Some(step), _) => ("step", &step.id, &step.matrix, step.repeats.is_some()),
            (None, Some(service)) if at.place != Place::Matrix => {
                ("service", &service.id, &service.matrix, false)
            }
            _ => {
                let message = format!("matrix.{axis} is not known in {}", at.place.name());
                let hint = "it is known in the step that declares the axis".to_owned();
                return self.report.fault(span, message, Some(hint));
            }
        };
        let Some(mut known) = scope::variables(matrix, at.scope.chain) else { return };
        known.extend(repeats.then(|| "repeat".to_owned()));
        if !known.iter().any(|name| name == axis) {
            let hint = match known.is_empty() {
                true => Some(format!("{what} '{id}' has no matrix")),
                false => suggest::hint(axis, known.iter().map(String::as_str)),
            };
            self.report.fault(span, format!("unknown axis '{axis}'"), hint);
        }
    }

    fn service_ref(&mut self, at: At<'_>, id: &str, fixed: &[(String, String)], span: Option<Span>) {
        let services = &at.scope.workflow.services;
        let Some(service) = services.get(id) else {
            let hint = match services.is_empty() {
                true => Some("this file declares no services".to_owned()),
                false => suggest::hint(id, services.keys().map(String::as_str)),
            };
            return self.report.fault(span, format!("unknown service '{id}'"), hint);
        };
        if at.service.is_some_and(|own| own.id == id) {
            let hint = "its own port is ${service.port}".to_owned();
            return self.report.fault(span, format!("service '{id}' refers to itself"), Some(hint));
        }
        let Some(known) = scope::axes(&service.matrix, at.scope.chain) else { return };
        if let Some((axis, _)) = fixed.iter().find(|(axis, _)| !known.contains(axis)) {
            let (message, hint) = match known.is_empty() {
                true => (format!("service '{id}' has no axes"), None),
                false => (
                    format!("service '{id}' has no axis '{axis}'"),
                    suggest::hint(axis, known.iter().map(String::as_str)),
                ),
            };
            self.report.fault(span, message, hint);
        }
    }

    fn port<'k>(
        &mut self,
        span: Option<Span>,
        what: &str,
        name: &str,
        known: Option<impl Iterator<Item = &'k String>>,
    ) {
        let Some(known) = known else {
            let message = format!("{what}s.{name} is known only in 'with', 'run' and 'env' of its step");
            return self.report.fault(span, message, None);
        };
        let known: Vec<&str> = known.map(String::as_str).collect();
        if !known.contains(&name) {
            let hint = match known.is_empty() {
                true => Some(format!("this step declares no {what}s")),
                false => suggest::hint(name, known.iter().copied()),
            };
            self.report.fault(span, format!("unknown {what} '{name}' of this step"), hint);
        }
    }
}
