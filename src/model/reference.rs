//! What can stand inside `${...}`. Unaware of how a reference is resolved.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A parsed reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// `params.NAME`
    Param(String),
    /// `matrix.AXIS`, `matrix.AXIS.index` and so on
    Matrix {
        /// Axis or added variable.
        axis: String,
        /// What of it.
        field: MatrixField,
    },
    /// `steps.ID.OUTPUT`, `steps.ID[axis=value].OUTPUT`, `steps.PREFIX.ID.OUTPUT`
    Step(StepRef),
    /// `services.ID.url`, `services.ID[axis=value].url`
    Service {
        /// Service id.
        id: String,
        /// Fixed axes.
        fixed: Vec<(String, String)>,
        /// What of it.
        field: ServiceField,
    },
    /// `service.port`, inside a service's own definition
    ServicePort,
    /// `inputs.NAME`
    Input(String),
    /// `outputs.NAME`
    Output(String),
    /// `env.NAME`: of the environment in which flow runs
    Env(String),
    /// `device.index` or `device.uuid`
    Device(String),
    /// `shard.index` or `shard.count`
    Shard(String),
    /// `workflow.name` or `workflow.dir`
    Workflow(WorkflowField),
}

/// `steps.ID[axis=value].OUTPUT`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StepRef {
    /// Include prefixes and the step id, in order; at least the id.
    pub path: Vec<String>,
    /// Axes fixed to a value (its text form).
    pub fixed: Vec<(String, String)>,
    /// Output name.
    pub output: String,
}

/// What of a matrix value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatrixField {
    /// The value itself.
    Value,
    /// Its place in the axis's list, from 01, at least two digits.
    Index,
    /// The last component of a path.
    Name,
    /// That without its extension.
    Stem,
    /// The path after the pattern's fixed directory.
    Rel,
    /// The directory it lies in; `.` of a path without one.
    Dir,
}

/// What of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServiceField {
    /// URL of the instance leased to this node.
    Url,
    /// URLs of all instances.
    Urls,
    /// Host name.
    Host,
    /// Port number.
    Port,
}

/// What of the workflow file in which the reference stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkflowField {
    /// Its name.
    Name,
    /// The directory of its file.
    Dir,
}

impl ServiceField {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Urls => "urls",
            Self::Host => "host",
            Self::Port => "port",
        }
    }
}

impl Reference {
    /// True if the value is only known while the node runs; such a reference renders by identity in keys.
    pub fn is_late(&self) -> bool {
        matches!(
            self,
            Self::Service { .. } | Self::ServicePort | Self::Output(_) | Self::Device(_) | Self::Shard(_)
        )
    }
}

impl fmt::Display for Reference {
    /// Without `${` and `}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Param(name) => write!(f, "params.{name}"),
            Self::Matrix { axis, field } => {
                write!(f, "matrix.{axis}")?;
                match field {
                    MatrixField::Value => Ok(()),
                    MatrixField::Index => f.write_str(".index"),
                    MatrixField::Name => f.write_str(".name"),
                    MatrixField::Stem => f.write_str(".stem"),
                    MatrixField::Rel => f.write_str(".rel"),
                    MatrixField::Dir => f.write_str(".dir"),
                }
            }
            Self::Step(step) => step.fmt(f),
            Self::Service { id, fixed, field } => {
                write!(f, "services.{id}")?;
                write_fixed(f, fixed)?;
                write!(f, ".{}", field.as_str())
            }
            Self::ServicePort => f.write_str("service.port"),
            Self::Input(name) => write!(f, "inputs.{name}"),
            Self::Output(name) => write!(f, "outputs.{name}"),
            Self::Env(name) => write!(f, "env.{name}"),
            Self::Device(field) => write!(f, "device.{field}"),
            Self::Shard(field) => write!(f, "shard.{field}"),
            Self::Workflow(WorkflowField::Name) => f.write_str("workflow.name"),
            Self::Workflow(WorkflowField::Dir) => f.write_str("workflow.dir"),
        }
    }
}

impl fmt::Display for StepRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "steps.{}", self.path.join("."))?;
        write_fixed(f, &self.fixed)?;
        write!(f, ".{}", self.output)
    }
}

fn write_fixed(f: &mut fmt::Formatter<'_>, fixed: &[(String, String)]) -> fmt::Result {
    if fixed.is_empty() {
        return Ok(());
    }
    let pairs: Vec<String> = fixed.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    write!(f, "[{}]", pairs.join(","))
}
