//! `run` and `shell`, tools. Unaware of who runs them.

use crate::model::{Command, Tool};

use super::super::keys;
use super::super::node::{Kind, Node};
use super::super::report::Report;
use super::expr::{Secrets, expr, template};
use super::field;

/// The command of an object with `run` and perhaps `shell`.
pub(in crate::front) fn command(report: &mut Report, owner: &Node, run: &Node) -> Option<Command> {
    let shell = owner.entry("shell");
    match &run.kind {
        Kind::Text(text) => {
            if text.trim().is_empty() {
                report.fault(run.span, "the command is empty", None);
            }
            let shell = match shell {
                None => vec!["sh".to_owned(), "-euc".to_owned()],
                Some(entry) => field::texts(report, &entry.value),
            };
            if shell.is_empty()
                && let Some(entry) = owner.entry("shell")
            {
                report.fault(entry.value.span, "the shell is empty", Some("[\"bash\", \"-euc\"]".to_owned()));
            }
            Some(Command::Shell { text: template(report, text, run.span), span: Some(run.span), shell })
        }
        Kind::List(items) => {
            if let Some(entry) = shell {
                let hint = "a list is started without a shell; write the command as one text".to_owned();
                report.fault(entry.span, "'shell' goes with a command written as text", Some(hint));
            }
            if items.is_empty() {
                report.fault(run.span, "the command is empty", None);
            }
            let mut argv = Vec::with_capacity(items.len());
            for item in items {
                if item.as_text().is_none() {
                    report.expected(item, "text");
                }
                argv.push(expr(report, item, Secrets::Refused));
            }
            Some(Command::Argv(argv))
        }
        _ => {
            report.expected(run, "a list of texts or one text");
            None
        }
    }
}

/// A list of tools: program names, or `{"version": [...], "files": [...]}`.
pub(in crate::front) fn tools(report: &mut Report, node: &Node) -> Vec<Tool> {
    let mut tools = Vec::new();
    for item in field::list(report, node).unwrap_or(&[]) {
        match &item.kind {
            Kind::Map(_) => {
                field::known(report, item, keys::TOOL, "a tool");
                let argv = match item.get("version") {
                    Some(version) => field::texts(report, version),
                    None => {
                        let hint = "{\"version\": [\"vllm\", \"--version\"]}".to_owned();
                        report.fault(item.span, "a tool needs 'version'", Some(hint));
                        continue;
                    }
                };
                if argv.is_empty() {
                    report.fault(item.span, "the version command is empty", None);
                }
                let files = item.get("files").map_or_else(Vec::new, |files| field::texts(report, files));
                tools.push(Tool::Version { argv, files });
            }
            Kind::Text(_) => tools.extend(field::text(report, item).map(Tool::Program)),
            _ => report.expected(item, "a program's name or {\"version\": [...]}"),
        }
    }
    tools
}
