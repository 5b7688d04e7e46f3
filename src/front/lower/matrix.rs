//! `matrix` and `repeats`: axes, ladders, globs, include and exclude. Unaware of nodes.

use serde_json::Number;

use crate::model::{Axis, AxisValues, Declared, Expr, ExprKind, Matrix, Reference};

use super::super::check;
use super::super::node::{Kind, Node};
use super::super::params::Chain;
use super::super::report::Report;
use super::expr::{Secrets, expr};
use super::field;

/// A longer ladder is a slip.
const LADDER_LIMIT: usize = 100_000;

/// The value of `matrix`.
pub(in crate::front) fn matrix(report: &mut Report, node: &Node) -> Matrix {
    let mut matrix = Matrix::default();
    for entry in field::map(report, node).unwrap_or(&[]) {
        match entry.key.as_str() {
            "include" => matrix.include = combinations(report, &entry.value),
            "exclude" => matrix.exclude = combinations(report, &entry.value),
            _ => {
                field::id(report, entry, "an axis");
                // an axis at fault is still one that may be named
                let values = axis(report, &entry.value).unwrap_or(AxisValues::Ladder(Vec::new()));
                matrix.axes.insert(entry.key.clone(), Axis { span: Some(entry.span), values });
            }
        }
    }
    matrix
}

fn combinations(report: &mut Report, node: &Node) -> Option<Expr> {
    let value = expr(report, node, Secrets::Refused);
    match (&node.kind, &value.kind) {
        (Kind::List(items), _) => {
            for item in items {
                if !matches!(item.kind, Kind::Map(_) | Kind::Text(_)) {
                    report.expected(item, "an object (axis -> value)");
                }
            }
        }
        (_, ExprKind::Text(template)) if template.as_reference().is_some() => {}
        _ => {
            report.expected(node, "a list of objects, or a reference to one");
            return None;
        }
    }
    Some(value)
}

fn axis(report: &mut Report, node: &Node) -> Option<AxisValues> {
    const FORMS: &str =
        "a list, a reference to one, {\"glob\": ...} or {\"start\", \"end\", \"factor\" or \"step\"}";
    match &node.kind {
        Kind::List(_) => Some(AxisValues::List(expr(report, node, Secrets::Refused))),
        Kind::Text(text) => {
            let value = expr(report, node, Secrets::Refused);
            let exact = matches!(&value.kind, ExprKind::Text(t) if t.as_reference().is_some());
            if !exact
                && (!text.contains("${") || matches!(&value.kind, ExprKind::Text(t) if t.parts.len() > 1))
            {
                report.fault(
                    node.span,
                    format!("expected {FORMS}, found text"),
                    Some(format!("one value is a list too: [{}]", node.to_json())),
                );
            }
            Some(AxisValues::List(value))
        }
        Kind::Map(_) if node.get("glob").is_some() => {
            field::known(report, node, &["glob"], "a glob axis");
            let glob = node.get("glob")?;
            match &glob.kind {
                Kind::Text(_) => {}
                Kind::List(items) => {
                    for item in items.iter().filter(|item| item.as_text().is_none()) {
                        report.expected(item, "a pattern");
                    }
                }
                _ => report.expected(glob, "a pattern, a list of patterns, or a reference to outputs"),
            }
            Some(AxisValues::Glob(expr(report, glob, Secrets::Refused)))
        }
        Kind::Map(_) if node.get("start").is_some() || node.get("end").is_some() => {
            field::known(report, node, &["start", "end", "factor", "step"], "a ladder");
            ladder(report, node).map(AxisValues::Ladder)
        }
        _ => {
            report.expected(node, FORMS);
            None
        }
    }
}

fn ladder(report: &mut Report, node: &Node) -> Option<Vec<Number>> {
    let mut number = |key: &str| -> Option<f64> {
        let value = node.get(key)?;
        match &value.kind {
            Kind::Number(number) => number.as_f64(),
            _ => {
                report.expected(value, "a number");
                None
            }
        }
    };
    let (start, end) = (number("start"), number("end"));
    let (factor, step) = (number("factor"), number("step"));
    let missing = ["start", "end"].into_iter().find(|key| node.get(key).is_none());
    if let Some(key) = missing {
        report.fault(node.span, format!("a ladder needs '{key}'"), None);
        return None;
    }
    if node.get("factor").is_some() == node.get("step").is_some() {
        report.fault(node.span, "a ladder has either 'factor' or 'step'", None);
        return None;
    }
    let (start, end) = (start?, end?);
    let fault = match (factor, step) {
        (Some(factor), _) if factor <= 1.0 || start <= 0.0 => {
            Some("a ladder with 'factor' needs a factor above 1 and a start above 0")
        }
        (_, Some(step)) if step <= 0.0 => Some("a ladder needs a 'step' above 0"),
        _ if end < start => Some("a ladder's 'end' is not below its 'start'"),
        _ => None,
    };
    if let Some(fault) = fault {
        report.fault(node.span, fault, None);
        return None;
    }
    let mut values = Vec::new();
    loop {
        let place = values.len() as f64;
        let value = match (factor, step) {
            (Some(factor), _) => start * factor.powf(place),
            (_, Some(step)) => start + step * place,
            _ => return None,
        };
        if value > end * (1.0 + 1e-12) && value > end + 1e-12 {
            return Some(values);
        }
        if values.len() == LADDER_LIMIT {
            report.fault(node.span, format!("the ladder has more than {LADDER_LIMIT} values"), None);
            return None;
        }
        values.push(plain(value)?);
    }
}

/// A whole value as an integer, so that it is written without `.0`.
fn plain(value: f64) -> Option<Number> {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        Some(Number::from(value as i64))
    } else {
        Number::from_f64(value)
    }
}

/// The value of `repeats`: a number, or a reference to a param that is one.
pub(in crate::front) fn repeats(report: &mut Report, node: &Node, chain: Chain<'_>) -> Option<Declared<u32>> {
    if node.as_text().is_none() {
        return field::count(report, node, 1).map(|value| Declared { value, span: Some(node.span) });
    }
    let value = expr(report, node, Secrets::Refused);
    let ExprKind::Text(template) = &value.kind else { return None };
    for (reference, place) in template.references() {
        let Reference::Param(name) = reference else { continue };
        if !chain.params.contains_key(name) {
            check::unknown_param(report, place, name, chain);
            return None;
        }
        if let Some(late) = chain.reached(name).into_iter().find(|reached| reached.is_late()) {
            check::late_fault(report, place, late, Some(name), "'repeats'");
            return None;
        }
    }
    if let Some((late, place)) = template.references().find(|(reference, _)| reference.is_late()) {
        check::late_fault(report, place, late, None, "'repeats'");
        return None;
    }
    let number = chain.resolve(&value).and_then(|(_, found)| match &found.kind {
        ExprKind::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
        _ => None,
    });
    if number.is_none() {
        let hint = "write a number, or a reference to a param that is one".to_owned();
        report.fault(node.span, "expected a whole number of at least 1", Some(hint));
    }
    number.map(|value| Declared { value, span: Some(node.span) })
}
