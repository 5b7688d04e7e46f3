//! Axes of a step or service: lists, glob axes, combinations. Unaware of what a step does with them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::IndexMap;

use super::Expander;
use crate::graph::eval::{Context, InputPart};
use crate::graph::matrix::{self, Cell, Combo};
use crate::graph::pattern::{Pattern, Piece, normal};
use crate::graph::{Item, Value};
use crate::model::{AxisValues, Expr, ExprKind, Matrix, Part, Reference};

impl Expander<'_> {
    pub(super) fn combos(&self, index: usize) -> Option<Vec<Combo>> {
        let def = &self.scopes.steps[index];
        let step = def.step;
        let combos = self.combinations(def.scope, &step.matrix, &|glob| self.glob_axis(index, glob))?;
        let Some(repeats) = &step.repeats else { return Some(combos) };
        let numbered = |combo: Combo| {
            (1..=repeats.value).map(move |n| {
                let mut next = combo.clone();
                next.axes.insert("repeat".to_owned(), Cell::new(Value::Number(n.into()), n as usize));
                next
            })
        };
        Some(combos.into_iter().flat_map(numbered).collect())
    }

    /// The combinations of a matrix; `glob` finds what an axis of files matches.
    pub(super) fn combinations(
        &self,
        scope: usize,
        matrix: &Matrix,
        glob: &dyn Fn(&Expr) -> Option<Vec<Cell>>,
    ) -> Option<Vec<Combo>> {
        let empty = Combo::default();
        let no_inputs = HashMap::new();
        let ctx = Context { scope, combo: &empty, inputs: &no_inputs, implicit: None };
        let mut axes: IndexMap<String, Vec<Cell>> = IndexMap::new();
        for (name, axis) in &matrix.axes {
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
                AxisValues::Glob(expr) => glob(expr)?,
            };
            axes.insert(name.clone(), cells);
        }
        let names: Vec<String> = axes.keys().cloned().collect();
        let mut combos = matrix::product(&axes);
        if let Some(expr) = &matrix.exclude {
            let entries = self.entries(expr, "exclude", &ctx)?;
            if let Err(message) = matrix::exclude(&mut combos, &entries) {
                self.fault(expr.span, message, None);
                return None;
            }
        }
        if let Some(expr) = &matrix.include {
            let entries = self.entries(expr, "include", &ctx)?;
            if let Err(message) = matrix::include(&mut combos, &names, &entries) {
                self.fault(expr.span, message, None);
                return None;
            }
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
                        if let Item::Made { node, output } = item {
                            found.insert(nodes[node].outputs[output].path.clone(), None);
                        }
                    }
                }
                InputPart::Path(path) => {
                    if self.listing.is_file(&path) || self.listing.is_dir(&path) || self.is_made(index, &path)
                    {
                        found.insert(path, None);
                        continue;
                    }
                    self.fault(
                        expr.span,
                        format!("an axis of files names {path}, which is not there, and no step makes it"),
                        Some("a pattern (with * or ?) may match nothing, a path may not".to_owned()),
                    );
                    return None;
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
    pub(super) fn shapes(&self, path: &Expr, scope: usize, repeats: bool) -> Option<Vec<u32>> {
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
}

pub(super) fn duplicate(combos: &[Combo]) -> Option<(String, String)> {
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
