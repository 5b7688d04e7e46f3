//! Plain data, no I/O: what a workflow is once it has been declared, however it was declared.
//!
//! `front` makes a [`Workflow`]; `graph` expands it to nodes. Texts keep their references; nothing here is resolved.

mod artifact;
mod device;
mod diagnostic;
mod expr;
mod policy;
mod reference;
mod source;
mod workflow;

pub use artifact::{Artifact, TreeEntry, TreeEntryKind};
pub use device::DeviceSpec;
pub use diagnostic::{Diagnostic, Label};
pub use expr::{Expr, ExprKind, Part, Template};
pub use policy::{Outcome, Policy, Retry};
pub use reference::{MatrixField, Reference, ServiceField, StepRef, WorkflowField};
pub use source::{Source, SourceId, Sources, Span};
pub use workflow::{
    Action, Axis, AxisValues, Command, Declared, ExclusiveScope, GpuDemand, Include, Jobserver, Matrix,
    OutputDecl, Param, ParamScope, Pool, Probe, Ready, Resources, Service, ServiceAction, Step,
    StepResources, Tool, Workflow,
};
