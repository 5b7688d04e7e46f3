//! Steps that need each other through references and `needs`, over the whole tree. Unaware of globs and plain paths: expansion sees those.

use std::collections::HashMap;

use crate::model::{ParamScope, Reference, Span, Workflow};

use super::super::report::Report;

/// Reports every circle among steps.
pub(super) fn steps(report: &mut Report, root: &Workflow) {
    let mut search = Search { report, steps: Vec::new(), by_id: HashMap::new(), path: Vec::new() };
    search.collect(&mut Vec::new(), root, String::new());
    for index in 0..search.steps.len() {
        search.visit(index);
    }
}

/// Message and hint for steps that need each other: each the next, the last is the first.
pub(crate) fn circle(path: &[&str]) -> (String, String) {
    let (message, hint) = match path {
        [step, _] => (
            format!("step '{step}' needs itself: {step} -> {step}"),
            "a reference to its own output, or a glob that matches it: narrow the glob, or write elsewhere",
        ),
        _ => (
            format!("steps need each other: {}", path.join(" -> ")),
            "an arrow leads from a step to one that it refers to or names in needs, or whose outputs its glob matches",
        ),
    };
    (message, hint.to_owned())
}

/// A step and the ids of those it needs.
struct Needing {
    id: String,
    span: Option<Span>,
    needs: Vec<String>,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Waiting,
    Running,
    Done,
}

struct Search<'r> {
    report: &'r mut Report,
    steps: Vec<Needing>,
    by_id: HashMap<String, usize>,
    path: Vec<usize>,
}

/// A file of the tree and the prefix of its ids, with its dot.
type Level<'a> = (&'a Workflow, String);

impl Search<'_> {
    /// Notes what the steps of a file need, then those of its includes; `above` are the files that include it.
    fn collect<'a>(&mut self, above: &mut Vec<Level<'a>>, workflow: &'a Workflow, prefix: String) {
        above.push((workflow, prefix.clone()));
        for step in workflow.steps.values() {
            let mut needs = Vec::new();
            step.for_each_reference(&mut |reference| needed(above, reference, &mut Vec::new(), &mut needs));
            // a step that names itself is told so where it does
            let named = step.needs.iter().map(|need| &need.value).filter(|need| **need != step.id);
            needs.extend(named.map(|need| format!("{prefix}{need}")));
            let id = format!("{prefix}{}", step.id);
            self.by_id.insert(id.clone(), self.steps.len());
            self.steps.push(Needing { id, span: step.span, needs, state: State::Waiting });
        }
        for include in &workflow.includes {
            self.collect(above, &include.workflow, format!("{prefix}{}.", include.prefix));
        }
        above.pop();
    }

    fn visit(&mut self, index: usize) {
        match self.steps[index].state {
            State::Waiting => {}
            State::Running => return self.found(index),
            State::Done => return,
        }
        self.steps[index].state = State::Running;
        self.path.push(index);
        for need in std::mem::take(&mut self.steps[index].needs) {
            if let Some(other) = self.by_id.get(&need) {
                self.visit(*other);
            }
        }
        self.path.pop();
        self.steps[index].state = State::Done;
    }

    fn found(&mut self, index: usize) {
        let from = self.path.iter().position(|step| *step == index).unwrap_or(0);
        let path: Vec<&str> =
            self.path[from..].iter().chain([&index]).map(|step| self.steps[*step].id.as_str()).collect();
        let (message, hint) = circle(&path);
        self.report.fault(self.steps[index].span, message, Some(hint));
    }
}

/// Adds the id of the step that a reference in the innermost of `levels` leads to, directly or through params.
fn needed<'a>(
    levels: &[Level<'a>],
    reference: &'a Reference,
    seen: &mut Vec<(usize, &'a str)>,
    found: &mut Vec<String>,
) {
    let Some(((workflow, prefix), outer)) = levels.split_last() else { return };
    match reference {
        Reference::Step(step) => found.push(format!("{prefix}{}", step.path.join("."))),
        Reference::Param(name) if !seen.contains(&(levels.len(), name.as_str())) => {
            seen.push((levels.len(), name));
            let Some(param) = workflow.params.get(name) else { return };
            let levels = match param.scope {
                ParamScope::Own => levels,
                ParamScope::Includer => outer,
            };
            param.value.for_each_reference(&mut |inner, _| needed(levels, inner, seen, found));
        }
        _ => {}
    }
}
