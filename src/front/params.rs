//! Bindings of parameters: what a name stands for, and the values given on the command line. Unaware of steps.

use std::cell::Cell;

use indexmap::IndexMap;
use serde_json::Value;

use crate::base::suggest;
use crate::model::{Expr, ExprKind, Param, ParamScope, Reference, Span};

use super::report::Report;

/// The parameters of a file, and those of the file that includes it.
#[derive(Clone, Copy)]
pub(super) struct Chain<'a> {
    pub(super) params: &'a IndexMap<String, Param>,
    pub(super) parent: Option<&'a Chain<'a>>,
}

/// How many bindings are followed before a value counts as unknown (cycles are reported elsewhere).
const DEPTH: usize = 100;

impl<'a> Chain<'a> {
    /// The chain in which the references of `param` are resolved.
    pub(super) fn of(&self, param: &Param) -> Option<Self> {
        match param.scope {
            ParamScope::Own => Some(*self),
            ParamScope::Includer => self.parent.copied(),
        }
    }

    /// Follows `expr` through parameters as long as it is exactly one reference to one; gives the chain of what it found too.
    pub(super) fn resolve(&self, expr: &'a Expr) -> Option<(Self, &'a Expr)> {
        let (mut chain, mut expr) = (*self, expr);
        for _ in 0..DEPTH {
            let ExprKind::Text(template) = &expr.kind else { return Some((chain, expr)) };
            let Some(Reference::Param(name)) = template.as_reference() else { return Some((chain, expr)) };
            let param = chain.params.get(name)?;
            chain = chain.of(param)?;
            expr = &param.value;
        }
        None
    }
}

impl<'a> Chain<'a> {
    /// All references but those to params that the value of the param `name` holds, however indirectly.
    pub(super) fn reached(&self, name: &str) -> Vec<&'a Reference> {
        let (mut found, mut seen) = (Vec::new(), Vec::new());
        self.collect(name, &mut seen, &mut found);
        found
    }

    fn collect(
        &self,
        name: &str,
        seen: &mut Vec<(*const IndexMap<String, Param>, String)>,
        found: &mut Vec<&'a Reference>,
    ) {
        let place = (std::ptr::from_ref(self.params), name.to_owned());
        if seen.contains(&place) {
            return;
        }
        seen.push(place);
        let Some(param) = self.params.get(name) else { return };
        let Some(chain) = self.of(param) else { return };
        param.value.for_each_reference(&mut |reference, _| match reference {
            Reference::Param(next) => chain.collect(next, seen, found),
            other => found.push(other),
        });
    }
}

/// A value of `--set` or `--params`.
pub(super) struct Override {
    /// Include prefixes.
    prefix: Vec<String>,
    name: String,
    value: Value,
    /// In a params file.
    span: Option<Span>,
    /// As typed, for messages.
    origin: String,
    used: Cell<bool>,
}

/// All of them, in rising priority.
#[derive(Default)]
pub(super) struct Overrides(Vec<Override>);

impl Overrides {
    /// Adds `prefix.key` = `value`.
    pub(super) fn add(&mut self, key: &str, value: Value, span: Option<Span>, origin: String) {
        let mut prefix: Vec<String> = key.split('.').map(str::to_owned).collect();
        let name = prefix.pop().unwrap_or_default();
        self.0.push(Override { prefix, name, value, span, origin, used: Cell::new(false) });
    }

    /// Reads `key=value`; the value is JSON if it parses, else text.
    pub(super) fn add_set(&mut self, report: &mut Report, text: &str) {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
                self.add(key.trim(), value, None, format!("--set {text}"));
            }
            _ => report.usage(
                format!("--set {text}: expected KEY=VALUE"),
                Some("for a param of an include write --set PREFIX.KEY=VALUE".to_owned()),
            ),
        }
    }

    /// Applies what is meant for the file included under `prefix`; `below` are the params of its own includes, for hints.
    pub(super) fn apply(
        &self,
        report: &mut Report,
        prefix: &[String],
        below: &[String],
        params: &mut IndexMap<String, Param>,
    ) {
        for given in self.0.iter().filter(|given| given.prefix == prefix) {
            given.used.set(true);
            if let Some(param) = params.get_mut(&given.name) {
                *param = Param { value: Expr::from_json(&given.value), scope: ParamScope::Own };
                continue;
            }
            let dotted = |name: &String| prefix.iter().chain([name]).cloned().collect::<Vec<_>>().join(".");
            let known: Vec<String> = params.keys().chain(below).map(dotted).collect();
            let hint = suggest::hint(&given.key(), known.iter().map(String::as_str));
            given.fault(report, format!("unknown param '{}'", given.key()), hint);
        }
    }

    /// Faults for prefixes that no include has.
    pub(super) fn finish(&self, report: &mut Report, prefixes: &[String]) {
        for given in self.0.iter().filter(|given| !given.used.get()) {
            let prefix = given.prefix.join(".");
            let hint = suggest::hint(&prefix, prefixes.iter().map(String::as_str));
            given.fault(report, format!("no include has the prefix '{prefix}'"), hint);
        }
    }
}

impl Override {
    fn key(&self) -> String {
        self.prefix.iter().chain([&self.name]).map(String::as_str).collect::<Vec<_>>().join(".")
    }

    fn fault(&self, report: &mut Report, message: String, hint: Option<String>) {
        match self.span {
            Some(span) => report.fault(span, message, hint),
            None => report.usage(format!("{}: {message}", self.origin), hint),
        }
    }
}
