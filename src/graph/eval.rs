//! Resolution of references: an expression in its scope, for one combination, becomes a value. Unaware of how nodes are linked.

use std::collections::HashMap;

use super::expand::Expander;
use super::matrix::{Cell, Combo};
use super::node::{Input, Item};
use super::pattern::{Pattern, Piece, normal};
use super::value::{Late, Seg, Text, Value};
use crate::model::{
    Diagnostic, Expr, ExprKind, MatrixField, ParamScope, Part, Reference, ServiceField, Span, StepRef,
    Template, WorkflowField,
};

/// Where an expression is being resolved.
pub(super) struct Context<'c> {
    pub(super) scope: usize,
    pub(super) combo: &'c Combo,
    /// Names of the step's own inputs: whether each is a list.
    pub(super) inputs: &'c HashMap<String, bool>,
    /// Takes inputs that references in the action bring along.
    pub(super) implicit: Option<&'c std::cell::RefCell<Vec<Input>>>,
}

impl<'c> Context<'c> {
    /// The same combination, seen from another file.
    fn in_scope(&self, scope: usize) -> Context<'c> {
        Context { scope, combo: self.combo, inputs: self.inputs, implicit: self.implicit }
    }
}

/// Outputs that a step reference means for one combination.
pub(super) struct Gathered {
    pub(super) items: Vec<Item>,
    pub(super) list: bool,
}

/// A plain path or pattern of an input, not yet linked.
pub(super) enum InputPart {
    Gathered(Gathered),
    Path(String),
    Glob(Pattern),
}

impl Expander<'_> {
    /// Resolves `expr`; faults are noted and give `None`.
    pub(super) fn eval(&self, expr: &Expr, ctx: &Context<'_>) -> Option<Value> {
        Some(match &expr.kind {
            ExprKind::Null => Value::Null,
            ExprKind::Bool(flag) => Value::Bool(*flag),
            ExprKind::Number(number) => Value::Number(number.clone()),
            ExprKind::Secret { name, format } => Value::Secret { name: name.clone(), format: format.clone() },
            ExprKind::List(items) => {
                let mut out = Vec::with_capacity(items.len());
                for item in items {
                    out.push(self.eval(item, ctx)?);
                }
                Value::List(out)
            }
            ExprKind::Map(map) => {
                let mut out = Vec::with_capacity(map.len());
                for (key, item) in map {
                    out.push((key.clone(), self.eval(item, ctx)?));
                }
                Value::Map(out)
            }
            ExprKind::Text(template) => match template.parts.as_slice() {
                [] => Value::text(""),
                [Part::Lit(text)] => Value::text(text.as_str()),
                [Part::Ref(reference, span)] => self.reference(reference, span.or(expr.span), ctx)?,
                _ => Value::Text(self.template(template, expr.span, ctx)?),
            },
        })
    }

    /// Text put together from several parts.
    pub(super) fn template(
        &self,
        template: &Template,
        span: Option<Span>,
        ctx: &Context<'_>,
    ) -> Option<Text> {
        let mut segs = Vec::new();
        for part in &template.parts {
            match part {
                Part::Lit(text) => segs.push(Seg::Lit(text.clone())),
                Part::Ref(reference, at) => {
                    let span = at.or(span);
                    let value = self.reference(reference, span, ctx)?;
                    match segments(&value) {
                        Ok(more) => segs.extend(more),
                        Err(kind) => {
                            self.fault(
                                span,
                                format!("${{{reference}}} is {kind}, and stands inside a longer text"),
                                Some(
                                    "a list or an object can only stand alone, as the whole text".to_owned(),
                                ),
                            );
                            return None;
                        }
                    }
                }
            }
        }
        Some(Text(segs))
    }

    /// The value of one reference.
    pub(super) fn reference(
        &self,
        reference: &Reference,
        span: Option<Span>,
        ctx: &Context<'_>,
    ) -> Option<Value> {
        match reference {
            Reference::Param(name) => {
                let Some(param) = self.scopes.scopes[ctx.scope].workflow.params.get(name) else {
                    self.fault(span, format!("unknown parameter '{name}'"), None);
                    return None;
                };
                let scope = match param.scope {
                    ParamScope::Own => ctx.scope,
                    ParamScope::Includer => self.scopes.scopes[ctx.scope].parent?,
                };
                self.eval(&param.value, &ctx.in_scope(scope))
            }
            Reference::Matrix { axis, field } => match ctx.combo.get(axis) {
                Some(cell) => Some(matrix_value(cell, *field)),
                None => {
                    self.fault(span, format!("this step has no axis or variable '{axis}' here"), None);
                    None
                }
            },
            Reference::Step(step) => {
                let gathered = self.gather(step, span, ctx)?;
                let Some(implicit) = ctx.implicit else {
                    self.fault(span, format!("${{{reference}}} cannot stand here"), None);
                    return None;
                };
                let name = reference.to_string();
                let list = gathered.list;
                let mut implicit = implicit.borrow_mut();
                if !implicit.iter().any(|input| input.name == name) {
                    implicit.push(Input {
                        name: name.clone(),
                        items: gathered.items,
                        list,
                        patterns: Vec::new(),
                        implicit: true,
                    });
                }
                Some(Value::Paths { input: name, list })
            }
            Reference::Input(name) => {
                Some(Value::Paths { input: name.clone(), list: *ctx.inputs.get(name).unwrap_or(&false) })
            }
            Reference::Output(name) => Some(Value::Text(Text(vec![Seg::Late(Late::Output(name.clone()))]))),
            Reference::Service { id, fixed, field } => {
                let late = self.service_reference(id, fixed, *field, ctx, span)?;
                Some(Value::Text(Text(vec![Seg::Late(late)])))
            }
            Reference::ServicePort => Some(Value::Text(Text(vec![Seg::Late(Late::ServicePort)]))),
            Reference::Env(name) => match self.listing.env(name) {
                Some(value) => Some(Value::text(value)),
                None => {
                    self.fault(
                        span,
                        format!("environment variable '{name}' is not set"),
                        Some(format!("set it ({name}=... flow run ...), or use a parameter with a default")),
                    );
                    None
                }
            },
            Reference::Device(field) => Some(Value::Text(Text(vec![Seg::Late(Late::Device(field.clone()))]))),
            Reference::Shard(_) => {
                self.fault(span, format!("not yet: ${{{reference}}}"), None);
                None
            }
            Reference::Workflow(WorkflowField::Name) => {
                Some(Value::text(self.scopes.scopes[ctx.scope].workflow.name.as_str()))
            }
            Reference::Workflow(WorkflowField::Dir) => Some(Value::Text(Text(vec![Seg::Aliased {
                value: match self.scopes.scopes[ctx.scope].workflow.dir.as_str() {
                    "" => ".".to_owned(),
                    dir => dir.to_owned(),
                },
                identity: "${workflow.dir}".to_owned(),
            }]))),
        }
    }

    /// The outputs that `${steps...}` means for this combination.
    pub(super) fn gather(&self, step: &StepRef, span: Option<Span>, ctx: &Context<'_>) -> Option<Gathered> {
        let Some(producer) = self.scopes.step(ctx.scope, step) else {
            self.fault(span, format!("unknown step '{}'", step.path.join(".")), None);
            return None;
        };
        let nodes = self.expanded(producer);
        let Some(&first) = nodes.first() else {
            // a step without combinations (an empty glob axis) gives an empty list
            return (!self.failed(producer)).then(|| Gathered { items: Vec::new(), list: true });
        };
        let first = &self.nodes.borrow()[first];
        let axes: Vec<&String> = first.axes.iter().map(|(axis, _)| axis).collect();
        if let Some((axis, _)) = step.fixed.iter().find(|(axis, _)| !axes.contains(&axis)) {
            let known: Vec<&str> = axes.iter().map(|a| a.as_str()).collect();
            self.fault(
                span,
                format!("step '{}' has no axis '{axis}'", self.scopes.steps[producer].id),
                crate::base::suggest::hint(axis, known),
            );
            return None;
        }
        let mut wanted: Vec<Option<String>> = Vec::with_capacity(axes.len());
        for axis in &axes {
            let fixed = step.fixed.iter().find(|(name, _)| name == *axis).map(|(_, value)| value.clone());
            let joined = || ctx.combo.axes.get(*axis).map(|cell| cell.text.clone());
            wanted.push(fixed.or_else(joined));
        }
        let Some(output) = first.outputs.iter().position(|output| output.name == step.output) else {
            self.fault(
                span,
                format!("step '{}' has no output '{}'", self.scopes.steps[producer].id, step.output),
                crate::base::suggest::hint(&step.output, first.outputs.iter().map(|o| o.name.as_str())),
            );
            return None;
        };
        let list = wanted.iter().any(Option::is_none);
        let found = self.matching(producer, &wanted);
        if found.is_empty() {
            let missing: Vec<String> = axes
                .iter()
                .zip(&wanted)
                .filter_map(|(axis, value)| value.as_ref().map(|v| format!("{axis}={v}")))
                .collect();
            self.fault(
                span,
                format!("step '{}' has no node with {}", self.scopes.steps[producer].id, missing.join(",")),
                Some("axes of the same name are joined: both steps need the same values".to_owned()),
            );
            return None;
        }
        Some(Gathered { items: found.into_iter().map(|node| Item::Made { node, output }).collect(), list })
    }

    /// Files of one declared input, flattened; also says whether it is a list.
    pub(super) fn input(&self, expr: &Expr, ctx: &Context<'_>) -> Option<(Vec<InputPart>, bool)> {
        match &expr.kind {
            ExprKind::List(items) => {
                let mut parts = Vec::new();
                for item in items {
                    parts.extend(self.input(item, ctx)?.0);
                }
                Some((parts, true))
            }
            ExprKind::Text(template) => {
                if let [Part::Ref(Reference::Step(step), span)] = template.parts.as_slice() {
                    let gathered = self.gather(step, span.or(expr.span), ctx)?;
                    let list = gathered.list;
                    return Some((vec![InputPart::Gathered(gathered)], list));
                }
                if let [Part::Ref(Reference::Param(name), _)] = template.parts.as_slice() {
                    let param = self.scopes.scopes[ctx.scope].workflow.params.get(name)?;
                    let scope = match param.scope {
                        ParamScope::Own => ctx.scope,
                        ParamScope::Includer => self.scopes.scopes[ctx.scope].parent?,
                    };
                    return self.input(&param.value, &ctx.in_scope(scope));
                }
                if let Some(reference) = template.as_reference()
                    && let Value::List(items) = self.reference(reference, expr.span, ctx)?
                {
                    let mut parts = Vec::new();
                    for item in items {
                        match &item {
                            Value::Text(text) => {
                                parts.push(InputPart::Path(normal(&text.known().unwrap_or_default())));
                            }
                            _ => {
                                self.fault(
                                    expr.span,
                                    "an input is a path or a list of paths".to_owned(),
                                    None,
                                );
                                return None;
                            }
                        }
                    }
                    return Some((parts, true));
                }
                let pattern = self.pattern(expr, template, ctx)?;
                Some(match pattern.literal.clone() {
                    Some(path) => (vec![InputPart::Path(path)], false),
                    None => (vec![InputPart::Glob(pattern)], true),
                })
            }
            _ => {
                self.fault(
                    expr.span,
                    "an input is a path, a pattern, a reference, or a list of them".to_owned(),
                    None,
                );
                None
            }
        }
    }

    /// A path or pattern; what references bring in is literal, unless the whole text is one parameter.
    pub(super) fn pattern(&self, expr: &Expr, template: &Template, ctx: &Context<'_>) -> Option<Pattern> {
        if let [Part::Ref(Reference::Param(name), _)] = template.parts.as_slice()
            && let Some(param) = self.scopes.scopes[ctx.scope].workflow.params.get(name)
            && let ExprKind::Text(inner) = &param.value.kind
        {
            let scope = match param.scope {
                ParamScope::Own => ctx.scope,
                ParamScope::Includer => self.scopes.scopes[ctx.scope].parent?,
            };
            return self.pattern(&param.value, inner, &ctx.in_scope(scope));
        }
        let mut texts: Vec<(bool, String)> = Vec::new();
        for part in &template.parts {
            match part {
                Part::Lit(text) => texts.push((true, text.clone())),
                Part::Ref(reference, span) => {
                    let value = self.reference(reference, span.or(expr.span), ctx)?;
                    let text = match segments(&value) {
                        Ok(segs) => Text(segs).known(),
                        Err(_) => None,
                    };
                    let Some(text) = text else {
                        self.fault(
                            span.or(expr.span),
                            format!("${{{reference}}} cannot be part of a path"),
                            Some("a path is made of text that is known before anything runs".to_owned()),
                        );
                        return None;
                    };
                    texts.push((false, text));
                }
            }
        }
        let pieces: Vec<Piece<'_>> = texts
            .iter()
            .map(|(wild, text)| if *wild { Piece::Wild(text) } else { Piece::Plain(text) })
            .collect();
        match Pattern::new(&pieces) {
            Ok(pattern) => Some(pattern),
            Err(message) => {
                self.fault(expr.span, format!("not a pattern: {message}"), None);
                None
            }
        }
    }

    /// Text that must be known before anything runs: a path.
    pub(super) fn known_text(&self, expr: &Expr, what: &str, ctx: &Context<'_>) -> Option<String> {
        let value = self.eval(expr, ctx)?;
        let text = match &value {
            Value::Text(text) => text.known(),
            _ => None,
        };
        if text.is_none() {
            self.fault(expr.span, format!("{what} must be text that is known before anything runs"), None);
        }
        text
    }

    /// Every step that `expr` refers to, parameters followed.
    pub(super) fn steps_in(&self, expr: &Expr, scope: usize, found: &mut Vec<usize>) {
        let mut references = Vec::new();
        expr.for_each_reference(&mut |reference, _| references.push(reference));
        for reference in references {
            self.step_in(reference, scope, found);
        }
    }

    /// The same for one reference.
    pub(super) fn step_in(&self, reference: &Reference, scope: usize, found: &mut Vec<usize>) {
        match reference {
            Reference::Step(step) => {
                if let Some(index) = self.scopes.step(scope, step)
                    && !found.contains(&index)
                {
                    found.push(index);
                }
            }
            Reference::Param(name) => {
                if let Some(param) = self.scopes.scopes[scope].workflow.params.get(name) {
                    let own = match param.scope {
                        ParamScope::Own => Some(scope),
                        ParamScope::Includer => self.scopes.scopes[scope].parent,
                    };
                    if let Some(own) = own {
                        self.steps_in(&param.value, own, found);
                    }
                }
            }
            _ => {}
        }
    }

    /// Notes a fault once.
    pub(super) fn fault(&self, span: Option<Span>, message: String, hint: Option<String>) {
        let diagnostic = match span {
            Some(span) => Diagnostic::at(self.sources, span, message),
            None => Diagnostic::new(message),
        };
        let diagnostic = diagnostic.maybe_hint(hint);
        let mut faults = self.faults.borrow_mut();
        let same = |other: &Diagnostic| {
            other.message == diagnostic.message
                && other.label.as_ref().map(|l| (&l.file, l.start))
                    == diagnostic.label.as_ref().map(|l| (&l.file, l.start))
        };
        if !faults.iter().any(same) {
            faults.push(diagnostic);
        }
    }
}

/// A scalar's text; `Err` names the kind of what is none.
pub(super) fn segments(value: &Value) -> Result<Vec<Seg>, &'static str> {
    Ok(match value {
        Value::Text(text) => {
            if let [Seg::Late(Late::Service { field: ServiceField::Urls, .. })] = text.0.as_slice() {
                return Err("a list");
            }
            text.0.clone()
        }
        Value::Number(number) => vec![Seg::Lit(number.to_string())],
        Value::Bool(flag) => vec![Seg::Lit(flag.to_string())],
        Value::Paths { input, list: false } => vec![Seg::Late(Late::Input(input.clone()))],
        Value::Paths { list: true, .. } | Value::List(_) => return Err("a list"),
        Value::Map(_) => return Err("an object"),
        Value::Null => return Err("null"),
        Value::Secret { .. } => return Err("a secret"),
    })
}

fn matrix_value(cell: &Cell, field: MatrixField) -> Value {
    let name = || cell.text.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned();
    match field {
        MatrixField::Value => cell.value.clone(),
        MatrixField::Index => Value::text(format!("{:02}", cell.index)),
        MatrixField::Name => Value::text(name()),
        MatrixField::Stem => {
            let name = name();
            let stem = match name.rfind('.') {
                Some(at) if at > 0 => &name[..at],
                _ => &name,
            };
            Value::text(stem)
        }
        MatrixField::Rel => Value::text(cell.rel.clone().unwrap_or_else(|| cell.text.clone())),
        MatrixField::Dir => Value::text(match cell.text.trim_end_matches('/').rsplit_once('/') {
            Some(("", _)) => "/",
            Some((dir, _)) => dir,
            None => ".",
        }),
    }
}
