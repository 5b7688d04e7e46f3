//! What is known at a place: params, axes, steps and their outputs. Unaware of which references a place allows.

use crate::base::suggest;
use crate::model::{Declared, ExprKind, Matrix, Step, StepRef, Workflow};

use super::super::params::Chain;

/// A file with the bindings of its params.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) chain: Chain<'a>,
}

/// A name that is not known: message and hint.
pub(super) type Unknown = (String, Option<String>);

impl<'a> Scope<'a> {
    /// Of an included workflow; its params may refer to those of `self`.
    pub(super) fn inner(&'a self, workflow: &'a Workflow) -> Self {
        Scope { workflow, chain: Chain { params: &workflow.params, parent: Some(&self.chain) } }
    }

    /// Checks that a step, its output and its fixed axes exist.
    pub(super) fn step_ref(&self, reference: &StepRef) -> Result<(), Unknown> {
        let Some((first, rest)) = reference.path.split_first() else { return Ok(()) };
        if rest.is_empty() {
            let Some(step) = self.workflow.steps.get(first) else {
                return Err(self.unknown_step(first, reference));
            };
            return self.output(step, reference);
        }
        let Some(include) = self.workflow.includes.iter().find(|include| include.prefix == *first) else {
            let hint = match self.workflow.steps.contains_key(first) {
                true => Some(format!("'{first}' is a step: write steps.{first}.OUTPUT")),
                false => {
                    suggest::hint(first, self.workflow.includes.iter().map(|include| include.prefix.as_str()))
                }
            };
            return Err((format!("no include has the prefix '{first}'"), hint));
        };
        let inner = StepRef { path: rest.to_vec(), ..reference.clone() };
        self.inner(&include.workflow).step_ref(&inner)
    }

    fn unknown_step(&self, id: &str, reference: &StepRef) -> Unknown {
        let steps = self.workflow.steps.keys().map(String::as_str);
        if let Some(include) = self.workflow.includes.iter().find(|include| include.prefix == id) {
            let known = include.workflow.steps.contains_key(&reference.output);
            let step = if known { reference.output.as_str() } else { "ID" };
            let hint = format!("'{id}' is an include: write steps.{id}.{step}.OUTPUT");
            return (format!("unknown step '{id}'"), Some(hint));
        }
        let elsewhere = self.workflow.includes.iter().find(|include| include.workflow.steps.contains_key(id));
        let hint = match elsewhere {
            Some(include) => {
                Some(format!("did you mean 'steps.{}.{id}.{}'?", include.prefix, reference.output))
            }
            None => suggest::hint(id, steps),
        };
        (format!("unknown step '{id}'"), hint)
    }

    fn output(&self, step: &Step, reference: &StepRef) -> Result<(), Unknown> {
        if !step.outputs.contains_key(&reference.output) {
            let message = format!("step '{}' has no output '{}'", step.id, reference.output);
            let hint = match step.outputs.is_empty() {
                true => Some("it declares no outputs".to_owned()),
                false => suggest::hint(&reference.output, step.outputs.keys().map(String::as_str)),
            };
            return Err((message, hint));
        }
        let Some(mut axes) = axes(&step.matrix, self.chain) else { return Ok(()) };
        axes.extend(step.repeats.iter().map(|_| "repeat".to_owned()));
        match reference.fixed.iter().find(|(axis, _)| !axes.contains(axis)) {
            None => Ok(()),
            Some((axis, _)) => {
                let message = format!("step '{}' has no axis '{axis}'", step.id);
                let hint = match axes.is_empty() {
                    true => Some("it has no matrix".to_owned()),
                    false => suggest::hint(axis, axes.iter().map(String::as_str)),
                };
                Err((message, hint))
            }
        }
    }

    /// Checks an entry of `needs`: `ID` or `PREFIX.ID`.
    pub(super) fn need(&self, need: &Declared<String>) -> Result<(), Unknown> {
        let (mut workflow, mut known) = (self.workflow, String::new());
        let mut parts = need.value.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                if workflow.steps.contains_key(part) {
                    return Ok(());
                }
                let steps = workflow.steps.keys().map(|id| format!("{known}{id}"));
                let below = workflow.includes.iter().flat_map(|include| {
                    include.workflow.steps.keys().map(|id| format!("{known}{}.{id}", include.prefix))
                });
                let all: Vec<String> = steps.chain(below).collect();
                let hint = suggest::hint(&need.value, all.iter().map(String::as_str));
                return Err((format!("unknown step '{}'", need.value), hint));
            }
            let Some(include) = workflow.includes.iter().find(|include| include.prefix == part) else {
                let prefixes = workflow.includes.iter().map(|include| include.prefix.as_str());
                return Err((format!("no include has the prefix '{part}'"), suggest::hint(part, prefixes)));
            };
            workflow = &include.workflow;
            known.push_str(part);
            known.push('.');
        }
        Ok(())
    }
}

/// Axes of a matrix; `None` if they are not known before running.
pub(super) fn axes(matrix: &Matrix, chain: Chain<'_>) -> Option<Vec<String>> {
    let axes: Vec<String> = matrix.axes.keys().cloned().collect();
    if axes.is_empty() { included(matrix, chain) } else { Some(axes) }
}

/// All that `${matrix.X}` may name of a matrix: axes and added variables; `None` if they are not known before running.
pub(super) fn variables(matrix: &Matrix, chain: Chain<'_>) -> Option<Vec<String>> {
    let mut names: Vec<String> = matrix.axes.keys().cloned().collect();
    for name in included(matrix, chain)? {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// The keys of the entries of `matrix.include`.
fn included(matrix: &Matrix, chain: Chain<'_>) -> Option<Vec<String>> {
    let Some(include) = &matrix.include else { return Some(Vec::new()) };
    let (chain, include) = chain.resolve(include)?;
    let ExprKind::List(items) = &include.kind else { return None };
    let mut names = Vec::new();
    for item in items {
        let (_, item) = chain.resolve(item)?;
        let ExprKind::Map(map) = &item.kind else { return None };
        for (key, _) in map {
            if !names.contains(key) {
                names.push(key.clone());
            }
        }
    }
    Some(names)
}
