//! `report.markdown`: a page from a template and the files it is about. Unaware of what the files mean.

use std::path::Path;

use indexmap::IndexMap;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value as TemplateValue;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::values;
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, check_params};
use crate::base::suggest;

/// The templates that come with flow, by name.
const BUILT_IN: [(&str, &str); 2] = [
    ("inferencemax", include_str!("templates/inferencemax.md.j2")),
    ("multi-pod", include_str!("templates/multi-pod.md.j2")),
];

/// Names a template sees that are no inputs.
const RESERVED: [&str; 2] = ["title", "vars"];

/// The stage.
pub struct Report;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The input that is the template, or else the name of a built-in one (`inferencemax`, `multi-pod`).
    template: String,
    /// The page's title; without it the template's own.
    #[serde(default)]
    title: Option<String>,
    /// Whatever else the template is to see, as `vars`.
    #[serde(default)]
    vars: Map<String, Value>,
}

impl Stage for Report {
    fn name(&self) -> &'static str {
        "report.markdown"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Writes a Markdown page from a template and the files it is about.\n\
                \n\
                The template language is Jinja's (minijinja). A template sees every other input under its name, several files as a\n\
                list: .json parsed; .csv as columns (names), rows (their number) and table (rows: column -> text); anything else as\n\
                text; besides title (null if not given) and vars. Nothing is escaped. A name that is not defined is an error that says\n\
                template and line. Filters besides Jinja's: cell (a value as one cell of a Markdown table), count_by(column) (of a CSV\n\
                or a list: value, count, share; most frequent first), percent(digits=1) (0.509 as '50.9 %', null as '-'), pairs (an\n\
                object as 'a=1, b=2'). The page ends with one line end.\n\
                \n\
                Built-in template 'inferencemax': inputs merged (CSV), columns, clean, join, verify (the JSON reports of those stages);\n\
                each but merged may be left out.\n\
                \n\
                Built-in template 'multi-pod': inputs merge (the report of bench.merge), merged (the exact report of bench.report) and\n\
                pods (summaries of llm.load), which may be left out.",
        )
        .input_list("*", "files the template sees under the input's name; one may be the template")
        .output("report", "the page")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Params>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let (name, source) = template(ctx, &params.template)?;
        let mut seen = IndexMap::new();
        for (input, files) in ctx.inputs.iter().filter(|(input, _)| **input != params.template) {
            if RESERVED.contains(&input.as_str()) {
                return Err(StageError::new(format!(
                    "an input cannot be named '{input}': templates see the parameter of that name there"
                )));
            }
            let mut all = files.iter().map(values::of_file).collect::<Result<Vec<_>, _>>()?;
            let value = if all.len() == 1 { all.remove(0) } else { TemplateValue::from(all) };
            seen.insert(input.clone(), value);
        }
        seen.insert("title".into(), TemplateValue::from(params.title));
        seen.insert("vars".into(), values::of_json(Value::Object(params.vars)));
        let mut page = render(&name, &source, TemplateValue::from_pairs(seen))?;
        page.truncate(page.trim_end().len());
        page.push('\n');
        std::fs::write(ctx.output("report")?, page)
            .map_err(|e| StageError::io("write output", Path::new("report"), e))?;
        Ok(Done::Made)
    }
}

/// The template's name in messages and its source: an input's file, or a built-in one.
fn template(ctx: &StageContext, name: &str) -> Result<(String, String), StageError> {
    if ctx.inputs.contains_key(name) {
        let file = ctx.input(name)?;
        return Ok((file.name.clone(), file.read_text()?));
    }
    let built_in = BUILT_IN.iter().find(|(built_in, _)| *built_in == name);
    built_in.map(|(name, source)| ((*name).to_owned(), (*source).to_owned())).ok_or_else(|| {
        let known = BUILT_IN.iter().map(|(name, _)| *name).chain(ctx.inputs.keys().map(String::as_str));
        let error =
            StageError::new(format!("no template '{name}': neither an input of the step nor built in"));
        match suggest::hint(name, known) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

fn render(name: &str, source: &str, seen: TemplateValue) -> Result<String, StageError> {
    let failed = |error: minijinja::Error| {
        let line = error.line().map(|line| format!(":{line}")).unwrap_or_default();
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        let mut message = format!("template {name}{line}: {}{detail}", error.kind());
        if let Some(text) = error.line().and_then(|line| source.lines().nth(line.saturating_sub(1))) {
            message += &format!("\n  | {}", text.trim_end());
        }
        StageError::new(message)
    };
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .map_err(failed)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("cell", |value: TemplateValue| values::cell(&value));
    environment
        .add_filter("count_by", |source: TemplateValue, column: String| values::count_by(&source, &column));
    environment
        .add_filter("percent", |share: TemplateValue, digits: Option<usize>| values::percent(&share, digits));
    environment.add_filter("pairs", |value: TemplateValue| values::pairs(&value));
    environment.add_template(name, source).map_err(failed)?;
    environment.get_template(name).and_then(|template| template.render(seen)).map_err(failed)
}

#[cfg(test)]
mod tests;
