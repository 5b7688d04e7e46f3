//! One step: every key of the table, typed. Unaware of other steps.

use std::time::Duration;

use indexmap::IndexMap;

use crate::api::Catalog;
use crate::base::suggest;
use crate::model::{Action, Declared, Expr, OutputDecl, Policy, Retry, Step, StepResources};

use super::super::keys;
use super::super::node::{Entry, Kind, Node, merge};
use super::super::params::Chain;
use super::super::report::Report;
use super::command::{command, tools};
use super::expr::{Secrets, expr, is_variable};
use super::field;
use super::matrix::{matrix, repeats};
use super::resources::step_resources;
use super::signature;

/// The step declared by `entry`, `defaults` merged under it. One that does nothing sensible is a fault and still there, so that
/// those who refer to it are not at fault too.
pub(in crate::front) fn step(
    report: &mut Report,
    entry: &Entry,
    defaults: Option<&Node>,
    chain: Chain<'_>,
    catalog: &Catalog,
) -> Step {
    field::id(report, entry, "a step");
    let own = &entry.value;
    let is_map = field::map(report, own).is_some();
    field::known(report, own, keys::STEP, "a step");
    let node = &match defaults {
        Some(defaults) => merge(&fitting(defaults, own), own),
        None => own.clone(),
    };
    not_yet(report, node);
    let action = if is_map { action(report, entry, node) } else { None };
    let known = action.is_some();
    let nothing =
        || Action::Uses { stage: Declared { value: String::new(), span: None }, with: IndexMap::new() };
    let mut step = Step {
        id: entry.key.clone(),
        span: Some(entry.span),
        doc: node.get("doc").and_then(|doc| field::line(report, doc)).unwrap_or_default(),
        action: action.unwrap_or_else(nothing),
        inputs: IndexMap::new(),
        outputs: IndexMap::new(),
        matrix: node.get("matrix").map(|m| matrix(report, m)).unwrap_or_default(),
        repeats: node.get("repeats").and_then(|r| repeats(report, r, chain)),
        needs: Vec::new(),
        env: env(report, node),
        pass_env: Vec::new(),
        tools: node.get("tools").map(|t| tools(report, t)).unwrap_or_default(),
        resources: node.get("resources").map_or_else(StepResources::default, |r| step_resources(report, r)),
        retry: node.get("retry").map(|r| retry(report, r)),
        timeout: node.get("timeout").and_then(|t| field::duration(report, t)),
        policy: None,
        allow_failure: node.get("allow_failure").is_some_and(|a| field::flag(report, a)),
    };
    if let Some(cache) = node.get("cache") {
        step.policy = policy(report, cache, &step.action);
    }
    for input in node.get("inputs").and_then(|i| field::map(report, i)).unwrap_or(&[]) {
        field::id(report, input, "an input");
        paths(report, &input.value);
        step.inputs.insert(input.key.clone(), expr(report, &input.value, Secrets::Refused));
    }
    for output in node.get("outputs").and_then(|o| field::map(report, o)).unwrap_or(&[]) {
        field::id(report, output, "an output");
        step.outputs.insert(output.key.clone(), output_decl(report, &output.value));
    }
    for need in node.get("needs").and_then(|n| field::list(report, n)).unwrap_or(&[]) {
        step.needs.extend(field::declared(report, need));
    }
    for name in node.get("pass_env").and_then(|p| field::list(report, p)).unwrap_or(&[]) {
        step.pass_env.extend(variable(report, name));
    }
    if known {
        signature::step(report, node, &step, catalog);
    }
    if let Some(declared) = &step.repeats
        && let Some(axis) = step.matrix.axes.get("repeat")
    {
        let hint = "'repeats' makes this axis".to_owned();
        report.fault(axis.span.or(declared.span), "the axis 'repeat' is declared twice", Some(hint));
    }
    step
}

/// The defaults that fit a step's kind: those of the other kind do not concern it.
fn fitting(defaults: &Node, own: &Node) -> Node {
    let foreign: &[&str] = match (own.get("uses").is_some(), own.get("run").is_some()) {
        (true, false) => keys::RUN_ONLY,
        (false, true) => keys::USES_ONLY,
        _ => &[],
    };
    let kept = defaults.entries().iter().filter(|entry| !foreign.contains(&entry.key.as_str()));
    Node { span: defaults.span, kind: Kind::Map(kept.cloned().collect()) }
}

fn not_yet(report: &mut Report, node: &Node) {
    for key in ["shard", "launcher"] {
        if let Some(entry) = node.entry(key) {
            report.not_yet(entry.span, format!("'{key}'"));
        }
    }
    if let Some(entry) = node.entry("executor")
        && let Some(name) = field::text(report, &entry.value)
        && name != "local"
    {
        report.not_yet(entry.value.span, format!("executor '{name}' (there is only \"local\")"));
    }
}

fn action(report: &mut Report, entry: &Entry, node: &Node) -> Option<Action> {
    let foreign = |report: &mut Report, keys: &[&str], other: &str| {
        for key in keys {
            if let Some(found) = node.entry(key) {
                report.fault(found.span, format!("'{key}' does not go with '{other}'"), None);
            }
        }
    };
    match (node.get("uses"), node.get("run")) {
        (Some(uses), None) => {
            foreign(report, keys::RUN_ONLY, "uses");
            let with = values(report, node, "with");
            Some(Action::Uses { stage: field::declared(report, uses)?, with })
        }
        (None, Some(run)) => {
            foreign(report, keys::USES_ONLY, "run");
            let argv = matches!(run.kind, Kind::List(_));
            for key in ["stdin", "stdout"] {
                if let Some(found) = node.entry(key).filter(|_| !argv) {
                    let hint = "in text write a redirection: < ${inputs.N}, > ${outputs.N}".to_owned();
                    report.fault(
                        found.span,
                        format!("'{key}' goes with a command written as a list"),
                        Some(hint),
                    );
                }
            }
            let cwd = node.get("cwd").map(|cwd| {
                if cwd.as_text().is_none() {
                    report.expected(cwd, "a directory");
                }
                expr(report, cwd, Secrets::Refused)
            });
            Some(Action::Run {
                command: command(report, node, run)?,
                cwd,
                stdin: node.get("stdin").and_then(|name| field::declared(report, name)),
                stdout: node.get("stdout").and_then(|name| field::declared(report, name)),
                depfile: node.get("depfile").map(|depfile| {
                    if depfile.as_text().is_none() {
                        report.expected(depfile, "the path of a file");
                    }
                    expr(report, depfile, Secrets::Refused)
                }),
                implicit: node.get("implicit").is_none_or(|flag| field::flag(report, flag)),
            })
        }
        (Some(_), Some(_)) => {
            let place = entry.value.entry("run").or(node.entry("run")).map(|e| e.span);
            report.fault(
                place,
                format!("step '{}' has both 'uses' and 'run'", entry.key),
                Some("keep one: 'uses' names a built-in stage, 'run' is a command".to_owned()),
            );
            None
        }
        (None, None) => {
            report.fault(
                entry.span,
                format!("step '{}' does nothing", entry.key),
                Some("add \"uses\": \"STAGE\" (see flow stages) or \"run\": [\"prog\", \"arg\"]".to_owned()),
            );
            None
        }
    }
}

/// An object of values that may hold secrets.
pub(in crate::front) fn values(report: &mut Report, node: &Node, key: &str) -> IndexMap<String, Expr> {
    let entries = node.get(key).and_then(|values| field::map(report, values)).unwrap_or(&[]);
    entries.iter().map(|e| (e.key.clone(), expr(report, &e.value, Secrets::Allowed))).collect()
}

/// The value of `env`: names of variables, scalar values.
pub(in crate::front) fn env(report: &mut Report, node: &Node) -> IndexMap<String, Expr> {
    let entries = node.get("env").and_then(|values| field::map(report, values)).unwrap_or(&[]);
    let mut env = IndexMap::new();
    for entry in entries {
        if !is_variable(&entry.key) {
            report.fault(
                entry.span,
                format!("'{}' is not the name of an environment variable", entry.key),
                None,
            );
        }
        let value = expr(report, &entry.value, Secrets::Allowed);
        use crate::model::ExprKind::{List, Map, Null};
        if matches!(value.kind, List(_) | Map(_) | Null) {
            report.expected(&entry.value, "text, a number or {\"secret\": \"NAME\"}");
        }
        env.insert(entry.key.clone(), value);
    }
    env
}

fn variable(report: &mut Report, node: &Node) -> Option<String> {
    let name = field::text(report, node)?;
    if !is_variable(&name) {
        report.fault(node.span, format!("'{name}' is not the name of an environment variable"), None);
    }
    Some(name)
}

/// Checks that an input is a text or a list of texts, nested or not.
fn paths(report: &mut Report, node: &Node) {
    match &node.kind {
        Kind::Text(_) => {}
        Kind::List(items) => items.iter().for_each(|item| paths(report, item)),
        _ => report.expected(node, "a path, a pattern, a reference, or a list of them"),
    }
}

fn output_decl(report: &mut Report, node: &Node) -> OutputDecl {
    let nowhere = OutputDecl { path: Expr::text(""), append: false, optional: false, on_failure: false };
    let path_node = match &node.kind {
        Kind::Text(_) => node,
        Kind::Map(_) => {
            field::known(report, node, keys::OUTPUT, "an output");
            match node.get("path") {
                Some(path) => path,
                None => {
                    report.fault(node.span, "an output needs 'path'", None);
                    return nowhere;
                }
            }
        }
        _ => {
            report.expected(node, "a path or {\"path\": ...}");
            return nowhere;
        }
    };
    match path_node.as_text() {
        None => report.expected(path_node, "a path"),
        Some("") => report.fault(path_node.span, "the path of an output is empty", None),
        Some(_) => {}
    }
    let mut flag = |key: &str| node.get(key).is_some_and(|flag| field::flag(report, flag));
    let (append, optional, on_failure) = (flag("append"), flag("optional"), flag("on_failure"));
    let path = expr(report, path_node, Secrets::Refused);
    if append && path_node.as_text().is_some_and(|path| !path.ends_with('/') && !path.ends_with('}')) {
        let hint = format!("write \"{}/\"", path_node.as_text().unwrap_or_default());
        report.fault(path_node.span, "an append output is a directory", Some(hint));
    }
    OutputDecl { path, append, optional, on_failure }
}

fn retry(report: &mut Report, node: &Node) -> Retry {
    let mut retry = Retry { max: 3, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(60) };
    if field::map(report, node).is_none() {
        return retry;
    }
    field::known(report, node, keys::RETRY, "'retry'");
    if let Some(max) = node.get("max").and_then(|max| field::count(report, max, 0)) {
        retry.max = max;
    }
    if let Some(backoff) = node.get("backoff").and_then(|b| field::duration(report, b)) {
        retry.backoff = backoff;
        retry.max_backoff = retry.max_backoff.max(backoff);
    }
    if let Some(longest) = node.get("max_backoff").and_then(|b| field::duration(report, b)) {
        retry.max_backoff = longest;
    }
    retry
}

fn policy(report: &mut Report, node: &Node, action: &Action) -> Option<Declared<Policy>> {
    let policy = match &node.kind {
        Kind::Text(text) => match text.as_str() {
            "auto" => return None,
            "pure" => Policy::Pure,
            "validate" => Policy::Validate,
            "sample" => Policy::Sample,
            "never" => Policy::Never,
            other => {
                let hint = suggest::hint(other, keys::POLICIES.iter().copied());
                report.fault(node.span, format!("unknown cache policy '{other}'"), hint);
                return None;
            }
        },
        Kind::Map(_) => {
            field::known(report, node, &["fresh_for"], "'cache'");
            match node.get("fresh_for") {
                Some(age) => Policy::FreshFor(field::duration(report, age)?),
                None => {
                    report.fault(node.span, "expected {\"fresh_for\": \"24h\"}", None);
                    return None;
                }
            }
        }
        _ => {
            report.expected(node, "the name of a policy or {\"fresh_for\": \"24h\"}");
            return None;
        }
    };
    if matches!(action, Action::Run { .. }) && matches!(policy, Policy::Validate | Policy::FreshFor(_)) {
        let hint = "a command is \"pure\", \"sample\" or \"never\"".to_owned();
        report.fault(node.span, "a command cannot validate", Some(hint));
        return None;
    }
    Some(Declared { value: policy, span: Some(node.span) })
}
