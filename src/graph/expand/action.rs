//! What nodes and services run: stages with parameters, commands with arguments. Unaware of axes.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::Expander;
use crate::api::Work;
use crate::graph::eval::{self, Context};
use crate::graph::matrix::Combo;
use crate::graph::pattern::normal;
use crate::graph::value::{Late, Seg};
use crate::graph::{Arg, CommandIo, NodeAction, ShellPart, Text, Value};
use crate::model::{Action, Command, Expr, ExprKind, Part, Span, Template, Workflow};

impl Expander<'_> {
    pub(super) fn action(
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
                    let (message, hint) = fault.worded(&stage.value);
                    self.fault(place, message, Some(hint));
                    return None;
                }
                let cpu =
                    self.catalog.signature(&stage.value).is_some_and(|signature| signature.work == Work::Cpu);
                Some(NodeAction::Stage {
                    name: stage.value.clone(),
                    version: found.version(),
                    with: value,
                    cpu,
                })
            }
            Action::Run { command, cwd, stdin, stdout, depfile, implicit } => {
                let cwd = match cwd {
                    Some(expr) => Some(normal(&self.known_text(expr, "cwd", ctx)?)),
                    None => None,
                };
                let io = CommandIo {
                    cwd,
                    stdin: stdin.as_ref().map(|d| d.value.clone()),
                    stdout: stdout.as_ref().map(|d| d.value.clone()),
                    depfile: match depfile {
                        Some(expr) => Some(self.depfile(expr, ctx)?),
                        None => None,
                    },
                };
                self.command(command, io, ctx, if *implicit { Some(argv) } else { None })
            }
        }
    }

    /// The path of a depfile: known text, and references to outputs of the step.
    fn depfile(&self, expr: &Expr, ctx: &Context<'_>) -> Option<Text> {
        let segs = eval::segments(&self.eval(expr, ctx)?).unwrap_or_default();
        let fits = |seg: &Seg| !matches!(seg, Seg::Late(late) if !matches!(late, Late::Output(_)));
        if segs.is_empty() || !segs.iter().all(fits) {
            let hint = "a path relative to the workspace root, or \"${outputs.N}.d\"".to_owned();
            self.fault(
                expr.span,
                "the depfile is no path that is known before anything runs".to_owned(),
                Some(hint),
            );
            return None;
        }
        Some(Text(segs))
    }

    pub(super) fn command(
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
            match (&value, eval::segments(&value)) {
                (_, Ok(more)) => segs.extend(more),
                (Value::Paths { input, list: true }, _) if each.is_none() => {
                    each = Some((std::mem::take(&mut segs), input.clone()));
                }
                (Value::List(items), _) if template.parts.len() == 1 => {
                    for item in items {
                        match eval::segments(item) {
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
                (Value::Text(_), _) if template.parts.len() == 1 => {
                    args.push(Arg::List(value));
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

    pub(super) fn on_finish(&self, workflow: &Workflow) -> Option<NodeAction> {
        let combo = Combo::default();
        let no_inputs = HashMap::new();
        let ctx = Context { scope: 0, combo: &combo, inputs: &no_inputs, implicit: None };
        let declared = workflow.on_finish.as_ref()?;
        self.command(&declared.value, CommandIo::default(), &ctx, None)
    }
}

/// The place of `a.b[0].c` inside `with`.
pub(super) fn locate(with: &IndexMap<String, Expr>, path: &str) -> Option<Span> {
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
