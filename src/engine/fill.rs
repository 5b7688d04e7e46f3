//! The value rendering: late parts, secrets and paths as they are while a node runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::services::{Called, plain};
use crate::api::InputFile;
use crate::exec::Device;
use crate::graph::{Arg, Fill, Late, NodeAction, ShellPart, shell_words};
use crate::model::ServiceField;

/// Where a running service can be reached.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) url: String,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Everything late of one attempt.
#[derive(Default)]
pub(super) struct Running {
    pub(super) inputs: IndexMap<String, Vec<InputFile>>,
    pub(super) outputs: HashMap<String, PathBuf>,
    /// Of each service the instances that are used.
    pub(super) services: Called,
    /// Leased by the node itself, or by the service that is being started.
    pub(super) devices: Vec<Device>,
    pub(super) port: Option<u16>,
}

impl Fill for Running {
    fn late(&self, late: &Late) -> Result<String, String> {
        let missing = || format!("{} is not known here", late.identity());
        match late {
            Late::Service { services, field, .. } => {
                let first = services.first().and_then(|service| self.services.get(service)?.first());
                let address = first.ok_or_else(missing)?;
                Ok(match field {
                    ServiceField::Url | ServiceField::Urls => address.url.clone(),
                    ServiceField::Host => address.host.clone(),
                    ServiceField::Port => address.port.to_string(),
                })
            }
            Late::ServicePort => self.port.map(|port| port.to_string()).ok_or_else(missing),
            Late::Output(name) => self.outputs.get(name).map(|path| text_of(path)).ok_or_else(missing),
            Late::Input(name) => match self.inputs.get(name).map(Vec::as_slice) {
                Some([file]) => Ok(text_of(&file.path)),
                _ => Err(missing()),
            },
            Late::Device(field) => {
                let one = |device: &Device| match field.as_str() {
                    "uuid" => device.uuid.clone(),
                    _ => device.index.to_string(),
                };
                let all: Vec<String> = self.devices.iter().map(one).collect();
                if all.is_empty() { Err(missing()) } else { Ok(all.join(",")) }
            }
            Late::Shard(_) => Err(missing()),
        }
    }

    fn late_list(&self, late: &Late) -> Option<Vec<String>> {
        match late {
            Late::Service { services, field: ServiceField::Urls, .. } => {
                let of =
                    |service| Some(self.services.get(service)?.iter().map(|address| address.url.clone()));
                let all: Option<Vec<_>> = services.iter().map(of).collect();
                Some(all?.into_iter().flatten().collect())
            }
            _ => None,
        }
    }

    fn aliased(&self, value: &str, _identity: &str) -> String {
        value.to_owned()
    }

    fn secret(&self, name: &str, format: &str) -> Result<Json, String> {
        match std::env::var(name) {
            Ok(value) => Ok(Json::String(format.replacen("{}", &value, 1))),
            Err(_) => Err(format!("secret {name} is not set in the environment")),
        }
    }

    fn paths(&self, input: &str, list: bool) -> Result<Json, String> {
        let files = self.inputs.get(input).map(Vec::as_slice).unwrap_or_default();
        match (list, files) {
            (false, [file]) => Ok(Json::String(text_of(&file.path))),
            _ => Ok(files.iter().map(|file| Json::String(text_of(&file.path))).collect()),
        }
    }
}

impl Running {
    /// The argument vector of a command.
    pub(super) fn argv(&self, action: &NodeAction) -> Result<Vec<String>, String> {
        match action {
            NodeAction::Stage { name, .. } => Err(format!("{name} is a stage, not a command")),
            NodeAction::Argv { args, .. } => {
                let mut argv = Vec::with_capacity(args.len());
                for arg in args {
                    match arg {
                        Arg::One(text) => argv.push(text.fill(self)?),
                        Arg::List(value) => match value.fill(self)? {
                            Json::Array(items) => argv.extend(items.iter().map(plain)),
                            one => argv.push(plain(&one)),
                        },
                        Arg::Each { before, input, after } => {
                            let (before, after) = (before.fill(self)?, after.fill(self)?);
                            for file in self.inputs.get(input).map(Vec::as_slice).unwrap_or_default() {
                                argv.push(format!("{before}{}{after}", text_of(&file.path)));
                            }
                        }
                    }
                }
                Ok(argv)
            }
            NodeAction::Shell { shell, parts, .. } => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        ShellPart::Raw(raw) => text.push_str(raw),
                        ShellPart::Quoted(value) => text.push_str(&shell_words(&value.fill(self)?)?),
                    }
                }
                Ok(shell.iter().cloned().chain([text]).collect())
            }
        }
    }
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
