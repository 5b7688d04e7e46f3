//! Steps become nodes: axes, combinations, resolved inputs, outputs and actions. Unaware of which plain path is made by whom.

mod action;
mod axes;
mod services;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::eval::{Context, InputPart};
use super::link;
use super::matrix::Combo;
use super::node::{Graph, Input, Node, NodeAction, NodeIx, Output};
use super::pattern::{Listing, normal};
use super::scope::Scopes;
use super::value::Late;
use crate::api::Catalog;
use crate::error::{Error, Result};
use crate::front::circle;
use crate::model::{Diagnostic, Expr, Policy, Reference, ServiceField, Sources, Span, Workflow};

use services::ServiceTable;

/// What expansion needs.
pub struct Expansion<'a> {
    /// The workflow.
    pub workflow: &'a Workflow,
    /// Its files.
    pub sources: &'a Sources,
    /// The stages.
    pub catalog: &'a Catalog,
    /// The file system.
    pub listing: &'a dyn Listing,
}

/// Expands a workflow to its graph, or returns every fault found.
pub fn expand(request: &Expansion<'_>) -> Result<Graph> {
    let scopes = Scopes::new(request.workflow);
    let mut expander = Expander {
        states: RefCell::new(vec![State::Waiting; scopes.steps.len()]),
        scopes,
        sources: request.sources,
        catalog: request.catalog,
        listing: request.listing,
        nodes: RefCell::default(),
        drafts: RefCell::default(),
        faults: RefCell::default(),
        stack: RefCell::default(),
        joins: RefCell::default(),
        services: ServiceTable::default(),
    };
    expander.services = expander.service_table();
    for step in 0..expander.scopes.steps.len() {
        expander.step(step);
    }
    let services = expander.services();
    let on_finish = expander.on_finish(request.workflow);
    let ids: Vec<String> = expander.scopes.steps.iter().map(|def| def.id.clone()).collect();
    let Expander { nodes, drafts, faults, states, .. } = expander;
    let mut faults = faults.into_inner();
    if faults.is_empty() {
        services::close(&mut nodes.borrow_mut(), &services);
    }
    // nodes stand in declared order of their steps, whatever order expansion took
    let mut order: Vec<NodeIx> = Vec::new();
    let mut empty_steps = Vec::new();
    for (state, id) in states.into_inner().into_iter().zip(ids) {
        if let State::Done(nodes) = state {
            if nodes.is_empty() {
                empty_steps.push(id);
            }
            order.extend(nodes);
        }
    }
    let graph = Graph {
        name: request.workflow.name.clone(),
        file: request.sources.0.first().map(|s| s.name.clone()).unwrap_or_default(),
        files: request.sources.0.iter().map(|s| s.name.clone()).collect(),
        nodes: nodes.into_inner().into(),
        empty_steps,
        services,
        resources: request.workflow.resources.clone(),
        on_finish,
        ..Graph::default()
    };
    let graph = link::link(graph, drafts.into_inner(), &order, request, &mut faults);
    if faults.is_empty() {
        Ok(graph)
    } else {
        Err(Error::diagnostics(in_place_order(faults, request.sources)))
    }
}

fn in_place_order(mut faults: Vec<Diagnostic>, sources: &Sources) -> Vec<Diagnostic> {
    let place = |d: &Diagnostic| {
        d.label.as_ref().map_or((usize::MAX, 0), |label| {
            (sources.0.iter().position(|s| s.name == label.file).unwrap_or(usize::MAX), label.start)
        })
    };
    faults.sort_by_key(place);
    faults
}

/// How far a step has come.
#[derive(Clone, Debug)]
enum State {
    Waiting,
    Running,
    Done(Vec<NodeIx>),
    Failed,
}

/// An input whose plain paths are not linked yet.
pub(super) struct DraftInput {
    pub(super) name: String,
    pub(super) parts: Vec<InputPart>,
    pub(super) list: bool,
    pub(super) span: Option<Span>,
}

/// What `link` needs of a node besides the node.
pub(super) struct Draft {
    pub(super) inputs: Vec<DraftInput>,
    /// Literal argv elements that may be files: (index, text).
    pub(super) argv: Vec<(usize, String)>,
}

/// Nodes of a step by the values of some of its axes.
type Join = HashMap<Vec<String>, Vec<NodeIx>>;

/// The state of one expansion.
pub(super) struct Expander<'a> {
    pub(super) scopes: Scopes<'a>,
    pub(super) sources: &'a Sources,
    pub(super) catalog: &'a Catalog,
    pub(super) listing: &'a dyn Listing,
    pub(super) nodes: RefCell<Vec<Node>>,
    pub(super) faults: RefCell<Vec<Diagnostic>>,
    drafts: RefCell<Vec<Draft>>,
    states: RefCell<Vec<State>>,
    stack: RefCell<Vec<usize>>,
    joins: RefCell<HashMap<(usize, Vec<bool>), Join>>,
    services: ServiceTable,
}

impl Expander<'_> {
    /// Nodes of an expanded step.
    pub(super) fn expanded(&self, step: usize) -> Vec<NodeIx> {
        match &self.states.borrow()[step] {
            State::Done(nodes) => nodes.clone(),
            _ => Vec::new(),
        }
    }

    /// Whether a step could not be expanded (a fault is noted).
    pub(super) fn failed(&self, step: usize) -> bool {
        !matches!(self.states.borrow()[step], State::Done(_))
    }

    /// Nodes of `step` whose axes have the wanted values; `None` wants any.
    pub(super) fn matching(&self, step: usize, wanted: &[Option<String>]) -> Vec<NodeIx> {
        let mask: Vec<bool> = wanted.iter().map(Option::is_some).collect();
        let mut joins = self.joins.borrow_mut();
        let join = joins.entry((step, mask.clone())).or_insert_with(|| {
            let nodes = self.nodes.borrow();
            let mut join = Join::new();
            for ix in self.expanded(step) {
                let axes = nodes[ix].axes.iter().zip(&mask);
                let key = axes.filter(|(_, wanted)| **wanted).map(|((_, value), _)| value.clone()).collect();
                join.entry(key).or_default().push(ix);
            }
            join
        });
        let key: Vec<String> = wanted.iter().flatten().cloned().collect();
        join.get(&key).cloned().unwrap_or_default()
    }

    /// Expands one step, those it refers to first.
    fn step(&self, index: usize) {
        match self.states.borrow()[index] {
            State::Waiting => {}
            State::Running => return self.loop_at(index),
            State::Done(_) | State::Failed => return,
        }
        self.states.borrow_mut()[index] = State::Running;
        self.stack.borrow_mut().push(index);
        let nodes = self.nodes_of(index);
        self.stack.borrow_mut().pop();
        self.states.borrow_mut()[index] = nodes.map_or(State::Failed, State::Done);
    }

    fn loop_at(&self, index: usize) {
        let stack = self.stack.borrow();
        let from = stack.iter().position(|step| *step == index).unwrap_or(0);
        let mut path: Vec<&str> =
            stack[from..].iter().map(|step| self.scopes.steps[*step].id.as_str()).collect();
        path.push(&self.scopes.steps[index].id);
        let (message, hint) = circle(&path);
        self.fault(self.scopes.steps[index].step.span, message, Some(hint));
    }

    fn nodes_of(&self, index: usize) -> Option<Vec<NodeIx>> {
        let def = &self.scopes.steps[index];
        let (step, scope) = (def.step, def.scope);
        let mut needed = Vec::new();
        step.for_each_reference(&mut |reference| self.step_in(reference, scope, &mut needed));
        for need in &step.needs {
            match self.scopes.step_named(scope, &need.value) {
                Some(other) => needed.push(other),
                None => {
                    self.fault(need.span, format!("needs names the unknown step '{}'", need.value), None);
                    return None;
                }
            }
        }
        for other in needed {
            self.step(other);
        }
        let combos = self.combos(index)?;
        if let Some((first, second)) = axes::duplicate(&combos) {
            self.fault(
                step.span,
                format!("two combinations of '{}' are equal: {} and {}", def.id, first, second),
                Some("every combination must differ in at least one axis".to_owned()),
            );
            return None;
        }
        let mut out = Vec::with_capacity(combos.len());
        let mut failed = false;
        for combo in &combos {
            match self.node(index, combo) {
                Some(ix) => out.push(ix),
                None => failed = true,
            }
            if failed && self.faults.borrow().len() > 50 {
                break;
            }
        }
        (!failed).then_some(out)
    }

    fn node(&self, index: usize, combo: &Combo) -> Option<NodeIx> {
        let def = &self.scopes.steps[index];
        let (step, scope) = (def.step, def.scope);
        let id =
            if combo.axes.is_empty() { def.id.clone() } else { format!("{}[{}]", def.id, combo.label()) };
        let no_inputs = HashMap::new();
        let paths = Context { scope, combo, inputs: &no_inputs, implicit: None };

        let mut inputs = Vec::new();
        for (name, expr) in &step.inputs {
            let (parts, list) = self.input(expr, &paths)?;
            inputs.push(DraftInput { name: name.clone(), parts, list, span: expr.span });
        }
        let mut outputs = Vec::new();
        for (name, declared) in &step.outputs {
            let text = self.known_text(&declared.path, &format!("the path of output '{name}'"), &paths)?;
            if let Some((axis, value)) = combo.climbs().filter(|_| climbs(&text)) {
                let message = format!(
                    "output '{name}' of {id}: '..' in ${{matrix.{axis}}} ({value}) leads out of the directory before it: {}",
                    normal(&text)
                );
                let hint = "give that value as an absolute path, or put another axis into the path";
                self.fault(declared.path.span.or(step.span), message, Some(hint.to_owned()));
                return None;
            }
            let text = if step.repeats.is_some() && !uses_repeat(&declared.path) {
                suffixed(&text, &combo.axes["repeat"].text)
            } else {
                text
            };
            outputs.push(Output {
                name: name.clone(),
                dir: text.ends_with('/'),
                path: normal(&text),
                append: declared.append,
                optional: declared.optional,
                on_failure: declared.on_failure,
                span: declared.path.span.or(step.span),
            });
        }

        let lists: HashMap<String, bool> = inputs.iter().map(|i| (i.name.clone(), i.list)).collect();
        let implicit = RefCell::new(Vec::new());
        let ctx = Context { scope, combo, inputs: &lists, implicit: Some(&implicit) };
        let mut argv = Vec::new();
        let action = self.action(&step.action, &ctx, &mut argv)?;
        let workflow = self.scopes.scopes[scope].workflow;
        let mut env = BTreeMap::new();
        for (name, expr) in workflow.env.iter().chain(&step.env) {
            env.insert(name.clone(), self.eval(expr, &ctx)?);
        }

        let signature = match &action {
            NodeAction::Stage { name, .. } => self.catalog.signature(name),
            _ => None,
        };
        let policy = match &step.policy {
            Some(policy) => policy.value.clone(),
            None => signature.as_ref().map_or(Policy::Pure, |s| s.policy.clone()),
        };
        let (mut services, mut whole) = (BTreeSet::new(), BTreeSet::new());
        let mut note = |late: &Late| {
            if let Late::Service { services: meant, field, .. } = late {
                services.extend(meant);
                if *field == ServiceField::Urls {
                    whole.extend(meant);
                }
            }
        };
        action.for_each_late(&mut note);
        env.values().for_each(|value| value.for_each_late(&mut note));
        let mut needs = BTreeSet::new();
        for need in &step.needs {
            if let Some(other) = self.scopes.step_named(scope, &need.value) {
                needs.extend(self.expanded(other));
            }
        }
        let node = Node {
            id,
            step: def.id.clone(),
            source: workflow.source,
            span: step.span,
            doc: step.doc.clone(),
            axes: combo.axes.iter().map(|(axis, cell)| (axis.clone(), cell.text.clone())).collect(),
            action,
            inputs: implicit.into_inner(),
            outputs,
            needs: needs.into_iter().collect(),
            producers: Vec::new(),
            env,
            pass_env: {
                let mut names = step.pass_env.clone();
                names.sort();
                names.dedup();
                names
            },
            tools: step.tools.clone(),
            services: services.into_iter().collect(),
            whole: whole.into_iter().collect(),
            resources: step.resources.clone(),
            retry: step.retry.clone().or_else(|| signature.and_then(|s| s.retry.clone())),
            timeout: step.timeout,
            policy,
            allow_failure: step.allow_failure,
            sample: combo.axes.get("repeat").map_or(1, |cell| cell.index as u32),
        };
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        self.drafts.borrow_mut().push(Draft { inputs, argv });
        Some(nodes.len() - 1)
    }
}

/// Whether a path goes back behind a directory that it names.
fn climbs(path: &str) -> bool {
    path.split('/').skip_while(|part| matches!(*part, "" | "." | "..")).any(|part| part == "..")
}

fn uses_repeat(path: &Expr) -> bool {
    let mut found = false;
    path.for_each_reference(&mut |reference, _| {
        found |= matches!(reference, Reference::Matrix { axis, .. } if axis == "repeat");
    });
    found
}

/// `a/b.json` -> `a/b.2.json`; `a/b/` -> `a/b.2/`.
fn suffixed(path: &str, repeat: &str) -> String {
    let (body, slash) = match path.strip_suffix('/') {
        Some(body) => (body, "/"),
        None => (path, ""),
    };
    let name_at = body.rfind('/').map_or(0, |at| at + 1);
    match body[name_at..].rfind('.') {
        Some(dot) if dot > 0 => {
            let dot = name_at + dot;
            format!("{}.{repeat}{}{slash}", &body[..dot], &body[dot..])
        }
        _ => format!("{body}.{repeat}{slash}"),
    }
}

/// Inputs of a draft that still have to be linked, as the finished form.
pub(super) fn empty_input(draft: &DraftInput) -> Input {
    Input {
        name: draft.name.clone(),
        items: Vec::new(),
        list: draft.list,
        patterns: Vec::new(),
        implicit: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_go_before_the_extension() {
        for (path, expected) in
            [("a/b.json", "a/b.2.json"), ("a.d/b", "a.d/b.2"), ("a/b/", "a/b.2/"), ("a/.x", "a/.x.2")]
        {
            assert_eq!(suffixed(path, "2"), expected);
        }
    }
}
