//! Steps become nodes: axes, combinations, resolved inputs, outputs and actions. Unaware of which plain path is made by whom.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::IndexMap;

use super::eval::{Context, InputPart};
use super::link;
use super::matrix::{self, Cell, Combo};
use super::node::{
    Arg, CommandIo, Graph, Input, Node, NodeAction, NodeIx, Output, ServiceAction, ServiceNode, ShellPart,
};
use super::pattern::{Listing, Pattern, Piece, normal};
use super::scope::Scopes;
use super::value::{Late, Seg, Text, Value};
use crate::api::{Catalog, Work};
use crate::error::{Error, Result};
use crate::model::{
    Action, AxisValues, Command, Diagnostic, Expr, ExprKind, Part, Policy, Reference,
    ServiceAction as Declared, Sources, Span, Step, Template, Workflow,
};

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
    let expander = Expander {
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
    };
    for step in 0..expander.scopes.steps.len() {
        expander.step(step);
    }
    let services = expander.services();
    let on_finish = expander.on_finish(request.workflow);
    let Expander { nodes, drafts, faults, states, .. } = expander;
    let mut faults = faults.into_inner();
    // nodes stand in declared order of their steps, whatever order expansion took
    let mut order: Vec<NodeIx> = Vec::new();
    for state in states.into_inner() {
        if let State::Done(nodes) = state {
            order.extend(nodes);
        }
    }
    let graph = Graph {
        name: request.workflow.name.clone(),
        file: request.sources.0.first().map(|s| s.name.clone()).unwrap_or_default(),
        files: request.sources.0.iter().map(|s| s.name.clone()).collect(),
        nodes: nodes.into_inner(),
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
        self.fault(
            self.scopes.steps[index].step.span,
            format!("steps need each other: {}", path.join(" -> ")),
            Some(
                "each step of this path refers to the next, or its glob matches what the next one makes"
                    .to_owned(),
            ),
        );
    }

    fn nodes_of(&self, index: usize) -> Option<Vec<NodeIx>> {
        let def = &self.scopes.steps[index];
        let (step, scope) = (def.step, def.scope);
        let mut needed = Vec::new();
        step_expressions(step, &mut |expr| self.steps_in(expr, scope, &mut needed));
        step_templates(step, &mut |template| {
            for (reference, _) in template.references() {
                self.step_in(reference, scope, &mut needed);
            }
        });
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
        if let Some((first, second)) = duplicate(&combos) {
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

    fn combos(&self, index: usize) -> Option<Vec<Combo>> {
        let def = &self.scopes.steps[index];
        let (step, scope) = (def.step, def.scope);
        let empty = Combo::default();
        let no_inputs = HashMap::new();
        let ctx = Context { scope, combo: &empty, inputs: &no_inputs, implicit: None };
        let mut axes: IndexMap<String, Vec<Cell>> = IndexMap::new();
        for (name, axis) in &step.matrix.axes {
            let cells = match &axis.values {
                AxisValues::Ladder(numbers) => numbers
                    .iter()
                    .enumerate()
                    .map(|(i, n)| Cell::new(Value::Number(n.clone()), i + 1))
                    .collect(),
                AxisValues::List(expr) => {
                    let Value::List(items) = self.eval(expr, &ctx)? else {
                        self.fault(
                            expr.span.or(axis.span),
                            format!("axis '{name}' is not a list"),
                            Some(
                                "an axis takes a list, a reference to one, a ladder, or {\"glob\": ...}"
                                    .to_owned(),
                            ),
                        );
                        return None;
                    };
                    items.into_iter().enumerate().map(|(i, value)| Cell::new(value, i + 1)).collect()
                }
                AxisValues::Glob(expr) => self.glob_axis(index, expr)?,
            };
            axes.insert(name.clone(), cells);
        }
        let names: Vec<String> = axes.keys().cloned().collect();
        let mut combos = matrix::product(&axes);
        if let Some(expr) = &step.matrix.exclude {
            let entries = self.entries(expr, "exclude", &ctx)?;
            if let Err(message) = matrix::exclude(&mut combos, &entries) {
                self.fault(expr.span, message, None);
                return None;
            }
        }
        if let Some(expr) = &step.matrix.include {
            let entries = self.entries(expr, "include", &ctx)?;
            if let Err(message) = matrix::include(&mut combos, &names, &entries) {
                self.fault(expr.span, message, None);
                return None;
            }
        }
        if let Some(repeats) = &step.repeats {
            combos = combos
                .into_iter()
                .flat_map(|combo| {
                    (1..=repeats.value).map(move |n| {
                        let mut next = combo.clone();
                        next.axes.insert("repeat".to_owned(), Cell::new(Value::Number(n.into()), n as usize));
                        next
                    })
                })
                .collect();
        }
        Some(combos)
    }

    fn entries(&self, expr: &Expr, what: &str, ctx: &Context<'_>) -> Option<Vec<Vec<(String, Value)>>> {
        let mut entries = Vec::new();
        if let Value::List(items) = self.eval(expr, ctx)? {
            for item in items {
                match item {
                    Value::Map(map) if !map.is_empty() => entries.push(map),
                    _ => {
                        self.fault(
                            expr.span,
                            format!("{what} is a list of objects that name axes or variables"),
                            None,
                        );
                        return None;
                    }
                }
            }
            return Some(entries);
        }
        self.fault(expr.span, format!("{what} is a list of objects that name axes or variables"), None);
        None
    }

    /// Paths that match: declared outputs (their steps are expanded first) and plain files that are no orphans.
    fn glob_axis(&self, index: usize, expr: &Expr) -> Option<Vec<Cell>> {
        let scope = self.scopes.steps[index].scope;
        let empty = Combo::default();
        let no_inputs = HashMap::new();
        let ctx = Context { scope, combo: &empty, inputs: &no_inputs, implicit: None };
        let (parts, _) = self.input(expr, &ctx)?;
        let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
        for part in parts {
            match part {
                InputPart::Gathered(gathered) => {
                    let nodes = self.nodes.borrow();
                    for item in gathered.items {
                        if let super::Item::Made { node, output } = item {
                            found.insert(nodes[node].outputs[output].path.clone(), None);
                        }
                    }
                }
                InputPart::Path(path) => {
                    if self.listing.is_file(&path) || self.listing.is_dir(&path) || self.is_made(index, &path)
                    {
                        found.insert(path, None);
                    }
                }
                InputPart::Glob(pattern) => {
                    for path in self.matches(index, &pattern) {
                        let rel = pattern.rel(&path).to_owned();
                        found.insert(path, Some(rel));
                    }
                }
            }
        }
        let cells = found.into_iter().enumerate().map(|(i, (path, rel))| Cell {
            value: Value::text(path.as_str()),
            text: path,
            index: i + 1,
            rel,
        });
        Some(cells.collect())
    }

    fn is_made(&self, index: usize, path: &str) -> bool {
        match Pattern::new(&[Piece::Plain(path)]) {
            Ok(pattern) => !self.declared_matches(index, &pattern).is_empty(),
            Err(_) => false,
        }
    }

    fn matches(&self, index: usize, pattern: &Pattern) -> BTreeSet<String> {
        let mut found = self.declared_matches(index, pattern);
        let nodes = self.nodes.borrow();
        let dirs: Vec<&str> =
            nodes.iter().flat_map(|n| &n.outputs).filter(|o| o.dir).map(|o| o.path.as_str()).collect();
        for path in pattern.walk(self.listing) {
            let within =
                dirs.iter().any(|dir| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')));
            if !within && !self.listing.published(&path) {
                found.insert(path);
            }
        }
        found
    }

    /// Declared outputs that match, after expanding every step whose outputs could.
    fn declared_matches(&self, index: usize, pattern: &Pattern) -> BTreeSet<String> {
        for (other, def) in self.scopes.steps.iter().enumerate() {
            let could = def.step.outputs.values().any(|output| {
                self.shapes(&output.path, def.scope, def.step.repeats.is_some())
                    .is_none_or(|shape| pattern.can_meet(&shape))
            });
            if could {
                self.step(other);
            }
        }
        let mut found = BTreeSet::new();
        for (step, _) in self.scopes.steps.iter().enumerate().filter(|(step, _)| *step != index) {
            for ix in self.expanded(step) {
                for output in &self.nodes.borrow()[ix].outputs {
                    if output.dir == pattern.dirs && pattern.matches(&output.path) {
                        found.insert(output.path.clone());
                    }
                }
            }
        }
        found
    }

    /// What an output path could look like before its step is expanded; `None` if nothing is known.
    fn shapes(&self, path: &Expr, scope: usize, repeats: bool) -> Option<Vec<u32>> {
        let ExprKind::Text(template) = &path.kind else { return None };
        let empty = Combo::default();
        let no_inputs = HashMap::new();
        let ctx = Context { scope, combo: &empty, inputs: &no_inputs, implicit: None };
        let mut texts: Vec<Option<String>> = Vec::new();
        for part in &template.parts {
            texts.push(match part {
                Part::Lit(text) => Some(text.clone()),
                Part::Ref(Reference::Matrix { .. }, _) => None,
                Part::Ref(reference, span) => match self.reference(reference, *span, &ctx)? {
                    Value::Text(text) => text.known(),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                },
            });
        }
        let dir = matches!(texts.last(), Some(Some(text)) if text.ends_with('/'));
        // text before the first unknown part is a fixed path: normalize it
        if let Some(Some(first)) = texts.first_mut() {
            let slash = first.ends_with('/');
            let mut clean = normal(first);
            if slash && !clean.is_empty() {
                clean.push('/');
            }
            *first = clean;
        }
        if repeats {
            texts.insert(1.min(texts.len()), None);
            texts.truncate(2);
        }
        let pieces: Vec<Piece<'_>> =
            texts.iter().map(|text| text.as_deref().map_or(Piece::Unknown, Piece::Plain)).collect();
        Some(Pattern::shape(&pieces, dir))
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
            NodeAction::Stage { name, .. } => self.catalog.stage(name).map(|stage| stage.signature()),
            _ => None,
        };
        let policy = match &step.policy {
            Some(policy) => policy.value.clone(),
            None => signature.as_ref().map_or(Policy::Pure, |s| s.policy.clone()),
        };
        let mut services = BTreeSet::new();
        let mut note = |late: &Late| {
            if let Late::Service { service, .. } = late {
                services.insert(*service);
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
            resources: step.resources.clone(),
            retry: step.retry.clone().or_else(|| signature.and_then(|s| s.retry)),
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

    fn action(
        &self,
        action: &Action,
        ctx: &Context<'_>,
        argv: &mut Vec<(usize, String)>,
    ) -> Option<NodeAction> {
        match action {
            Action::Uses { stage, with } => {
                let Some(found) = self.catalog.stage(&stage.value) else {
                    self.fault(stage.span, format!("unknown stage '{}'", stage.value), None);
                    return None;
                };
                let mut map = Vec::with_capacity(with.len());
                for (key, expr) in with {
                    map.push((key.clone(), self.eval(expr, ctx)?));
                }
                let value = Value::Map(map);
                if let Err(fault) = found.check(&value.identity()) {
                    let place = locate(with, &fault.path).or(stage.span);
                    let known = found.signature().params;
                    let message = match fault.path.as_str() {
                        "" => format!("{}: {}", stage.value, fault.message),
                        path => format!("{}: parameter '{path}': {}", stage.value, fault.message),
                    };
                    let names: Vec<&str> = known
                        .get("properties")
                        .and_then(|p| p.as_object())
                        .map(|p| p.keys().map(String::as_str).collect())
                        .unwrap_or_default();
                    let unknown =
                        fault.message.strip_prefix("unknown field `").and_then(|m| m.split('`').next());
                    let hint =
                        unknown.and_then(|name| crate::base::suggest::hint(name, names.iter().copied()));
                    self.fault(place, message, hint.or(Some(format!("see: flow stages {}", stage.value))));
                    return None;
                }
                let cpu = found.signature().work == Work::Cpu;
                Some(NodeAction::Stage {
                    name: stage.value.clone(),
                    version: found.version(),
                    with: value,
                    cpu,
                })
            }
            Action::Run { command, cwd, stdin, stdout, implicit } => {
                let cwd = match cwd {
                    Some(expr) => Some(normal(&self.known_text(expr, "cwd", ctx)?)),
                    None => None,
                };
                let io = CommandIo {
                    cwd,
                    stdin: stdin.as_ref().map(|d| d.value.clone()),
                    stdout: stdout.as_ref().map(|d| d.value.clone()),
                };
                self.command(command, io, ctx, if *implicit { Some(argv) } else { None })
            }
        }
    }

    fn command(
        &self,
        command: &Command,
        io: CommandIo,
        ctx: &Context<'_>,
        mut argv: Option<&mut Vec<(usize, String)>>,
    ) -> Option<NodeAction> {
        match command {
            Command::Shell { text, span, shell } => {
                let mut parts = Vec::new();
                for part in &text.parts {
                    parts.push(match part {
                        Part::Lit(text) => ShellPart::Raw(text.clone()),
                        Part::Ref(reference, at) => {
                            ShellPart::Quoted(self.reference(reference, at.or(*span), ctx)?)
                        }
                    });
                }
                Some(NodeAction::Shell { shell: shell.clone(), parts, io })
            }
            Command::Argv(elements) => {
                let mut args = Vec::new();
                for element in elements {
                    match &element.kind {
                        ExprKind::Text(template) => {
                            if let (Some(text), Some(argv)) = (template.as_literal(), argv.as_mut()) {
                                argv.push((args.len(), text.to_owned()));
                            }
                            self.argument(element, template, ctx, &mut args)?;
                        }
                        ExprKind::Number(number) => args.push(Arg::One(Text::literal(number.to_string()))),
                        ExprKind::Bool(flag) => args.push(Arg::One(Text::literal(flag.to_string()))),
                        _ => {
                            self.fault(element.span, "an argument is text or a number".to_owned(), None);
                            return None;
                        }
                    }
                }
                Some(NodeAction::Argv { args, io })
            }
        }
    }

    fn argument(
        &self,
        element: &Expr,
        template: &Template,
        ctx: &Context<'_>,
        args: &mut Vec<Arg>,
    ) -> Option<()> {
        let mut segs: Vec<Seg> = Vec::new();
        let mut each: Option<(Vec<Seg>, String)> = None;
        for part in &template.parts {
            let (reference, span) = match part {
                Part::Lit(text) => {
                    segs.push(Seg::Lit(text.clone()));
                    continue;
                }
                Part::Ref(reference, span) => (reference, span.or(element.span)),
            };
            let value = self.reference(reference, span, ctx)?;
            match (&value, super::eval::segments(&value)) {
                (_, Ok(more)) => segs.extend(more),
                (Value::Paths { input, list: true }, _) if each.is_none() => {
                    each = Some((std::mem::take(&mut segs), input.clone()));
                }
                (Value::List(items), _) if template.parts.len() == 1 => {
                    for item in items {
                        match super::eval::segments(item) {
                            Ok(more) => args.push(Arg::One(Text(more))),
                            Err(kind) => {
                                self.fault(
                                    span,
                                    format!("${{{reference}}} holds {kind}, which is no argument"),
                                    None,
                                );
                                return None;
                            }
                        }
                    }
                    return Some(());
                }
                (_, Err(kind)) => {
                    self.fault(
                        span,
                        format!("${{{reference}}} is {kind}, and stands inside a longer argument"),
                        Some("let it stand alone: each item becomes an argument of its own".to_owned()),
                    );
                    return None;
                }
            }
        }
        args.push(match each {
            Some((before, input)) => Arg::Each { before: Text(before), input, after: Text(segs) },
            None => Arg::One(Text(segs)),
        });
        Some(())
    }

    fn services(&self) -> Vec<ServiceNode> {
        let mut out = Vec::new();
        let combo = Combo::default();
        let no_inputs = HashMap::new();
        for def in &self.scopes.services {
            let ctx = Context { scope: def.scope, combo: &combo, inputs: &no_inputs, implicit: None };
            let service = def.service;
            let action = match &service.action {
                Declared::Uses { service: name, with } => {
                    let Some(info) = self.catalog.simulator(&name.value) else {
                        self.fault(name.span, format!("unknown built-in service '{}'", name.value), None);
                        continue;
                    };
                    let map: Option<Vec<_>> =
                        with.iter().map(|(key, expr)| Some((key.clone(), self.eval(expr, &ctx)?))).collect();
                    let Some(map) = map else { continue };
                    let with_value = Value::Map(map);
                    if let Err(fault) = (info.check)(&with_value.identity()) {
                        let place = locate(with, &fault.path).or(name.span);
                        self.fault(
                            place,
                            format!("{}: parameter '{}': {}", name.value, fault.path, fault.message),
                            None,
                        );
                        continue;
                    }
                    ServiceAction::Simulator {
                        name: name.value.clone(),
                        version: info.version,
                        with: with_value,
                    }
                }
                Declared::Run(command) => match self.command(command, CommandIo::default(), &ctx, None) {
                    Some(action) => ServiceAction::Command(action),
                    None => continue,
                },
            };
            let mut others = false;
            let mut note = |late: &Late| others |= matches!(late, Late::Service { .. });
            match &action {
                ServiceAction::Simulator { with, .. } => with.for_each_late(&mut note),
                ServiceAction::Command(action) => action.for_each_late(&mut note),
            }
            if others {
                self.fault(
                    service.span,
                    format!("not yet: service '{}' refers to another service", def.id),
                    Some("give it a fixed port, or start both in one service".to_owned()),
                );
            }
            let workflow = self.scopes.scopes[def.scope].workflow;
            let env: Option<BTreeMap<_, _>> = workflow
                .env
                .iter()
                .chain(&service.env)
                .map(|(name, expr)| Some((name.clone(), self.eval(expr, &ctx)?)))
                .collect();
            let files: Option<Vec<String>> = service
                .identity_files
                .iter()
                .map(|expr| self.known_text(expr, "an identity file", &ctx))
                .collect();
            let (Some(env), Some(identity_files)) = (env, files) else { continue };
            out.push(ServiceNode {
                id: def.id.clone(),
                source: workflow.source,
                action,
                env,
                port: service.port,
                probe: service.ready.probe.clone(),
                ready_timeout: service.ready.timeout,
                stop: service.stop,
                identity_tools: service.identity_tools.clone(),
                identity_files,
            });
        }
        out
    }

    fn on_finish(&self, workflow: &Workflow) -> Option<NodeAction> {
        let combo = Combo::default();
        let no_inputs = HashMap::new();
        let ctx = Context { scope: 0, combo: &combo, inputs: &no_inputs, implicit: None };
        let declared = workflow.on_finish.as_ref()?;
        self.command(&declared.value, CommandIo::default(), &ctx, None)
    }
}

/// Calls `visit` for every expression of a step.
fn step_expressions<'s>(step: &'s Step, visit: &mut dyn FnMut(&'s Expr)) {
    step.inputs.values().for_each(&mut *visit);
    step.outputs.values().for_each(|output| visit(&output.path));
    step.env.values().for_each(&mut *visit);
    for axis in step.matrix.axes.values() {
        if let AxisValues::List(expr) | AxisValues::Glob(expr) = &axis.values {
            visit(expr);
        }
    }
    step.matrix.include.iter().chain(&step.matrix.exclude).for_each(&mut *visit);
    match &step.action {
        Action::Uses { with, .. } => with.values().for_each(&mut *visit),
        Action::Run { command: Command::Argv(args), cwd, .. } => args.iter().chain(cwd).for_each(visit),
        Action::Run { cwd, .. } => cwd.iter().for_each(visit),
    }
}

fn step_templates<'s>(step: &'s Step, visit: &mut dyn FnMut(&'s Template)) {
    if let Action::Run { command: Command::Shell { text, .. }, .. } = &step.action {
        visit(text);
    }
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

fn duplicate(combos: &[Combo]) -> Option<(String, String)> {
    let mut seen: HashMap<Vec<&str>, usize> = HashMap::with_capacity(combos.len());
    for (index, combo) in combos.iter().enumerate() {
        let key = combo.axes.values().map(|cell| cell.text.as_str()).collect();
        if let Some(first) = seen.insert(key, index) {
            let place = |n: usize| format!("[{}] (combination {})", combos[n].label(), n + 1);
            return Some((place(first), place(index)));
        }
    }
    None
}

/// The place of `a.b[0].c` inside `with`.
fn locate(with: &IndexMap<String, Expr>, path: &str) -> Option<Span> {
    let mut parts = path.split(['.', '[']).map(|part| part.trim_end_matches(']'));
    let mut expr = with.get(parts.next()?)?;
    for part in parts {
        expr = match &expr.kind {
            ExprKind::Map(map) => match map.iter().find(|(key, _)| key == part) {
                Some((_, inner)) => inner,
                None => break,
            },
            ExprKind::List(items) => match part.parse::<usize>().ok().and_then(|at| items.get(at)) {
                Some(inner) => inner,
                None => break,
            },
            _ => break,
        };
    }
    expr.span
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
