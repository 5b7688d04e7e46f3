//! Nodes of one file to model types, every fault reported, nothing resolved. Unaware of files and of other workflows.

mod command;
pub(super) mod expr;
pub(super) mod field;
mod matrix;
mod resources;
mod service;
mod signature;
mod step;
mod with;

pub(super) use resources::{join as join_resources, resources};
pub(super) use service::service;
pub(super) use step::{env, step};

use indexmap::IndexMap;

use crate::model::{Command, Declared, Param, ParamScope};

use self::expr::{Secrets, expr};
use super::keys;
use super::node::Node;
use super::report::Report;

/// `params` of a file.
pub(super) fn params(report: &mut Report, node: &Node) -> IndexMap<String, Param> {
    let mut params = IndexMap::new();
    for entry in field::map(report, node).unwrap_or(&[]) {
        field::id(report, entry, "a param");
        let value = expr(report, &entry.value, Secrets::Refused);
        params.insert(entry.key.clone(), Param { value, scope: ParamScope::Own });
    }
    params
}

/// `on_finish`: a command.
pub(super) fn on_finish(report: &mut Report, node: &Node) -> Option<Declared<Command>> {
    field::map(report, node)?;
    field::known(report, node, keys::ON_FINISH, "'on_finish'");
    if let Some(url) = node.entry("url") {
        report.not_yet(url.span, "a webhook in 'on_finish'");
        return None;
    }
    match node.get("run") {
        Some(run) => {
            command::command(report, node, run).map(|value| Declared { value, span: Some(node.span) })
        }
        None => {
            let hint = "write {\"run\": [\"prog\", \"arg\"]}".to_owned();
            report.fault(node.span, "'on_finish' needs 'run'", Some(hint));
            None
        }
    }
}
