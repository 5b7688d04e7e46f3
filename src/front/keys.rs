//! The keys of every object of a workflow file: what the reader knows, the schema lists. Unaware of what they mean.

pub(super) const WORKFLOW: &[&str] = &[
    "$schema",
    "name",
    "description",
    "include",
    "params",
    "profiles",
    "env",
    "defaults",
    "resources",
    "services",
    "steps",
    "on_finish",
];

pub(super) const PROFILE: &[&str] = &["params", "env", "defaults", "resources", "services", "steps"];

pub(super) const INCLUDE: &[&str] = &["file", "as", "params"];

/// Keys of a step with `uses` alone.
pub(super) const USES_ONLY: &[&str] = &["uses", "with"];

/// Keys of a step with `run` alone.
pub(super) const RUN_ONLY: &[&str] = &["run", "shell", "cwd", "stdin", "stdout", "implicit", "depfile"];

pub(super) const STEP: &[&str] = &[
    "uses",
    "with",
    "run",
    "shell",
    "cwd",
    "stdin",
    "stdout",
    "implicit",
    "depfile",
    "inputs",
    "outputs",
    "matrix",
    "repeats",
    "shard",
    "needs",
    "env",
    "pass_env",
    "tools",
    "resources",
    "retry",
    "timeout",
    "cache",
    "launcher",
    "allow_failure",
    "executor",
    "doc",
];

pub(super) const OUTPUT: &[&str] = &["path", "append", "optional", "on_failure"];

pub(super) const STEP_RESOURCES: &[&str] = &["cpu", "mem", "gpu", "pool", "exclusive", "jobserver"];

pub(super) const SERVICE_RESOURCES: &[&str] = &["gpu"];

pub(super) const GPU: &[&str] = &["count", "mem", "model"];

pub(super) const RESOURCES: &[&str] = &["devices", "pools", "executors"];

pub(super) const POOL: &[&str] = &["size", "scope"];

pub(super) const RETRY: &[&str] = &["max", "backoff", "max_backoff"];

pub(super) const TOOL: &[&str] = &["version", "files"];

pub(super) const SERVICE: &[&str] = &[
    "uses",
    "with",
    "run",
    "shell",
    "env",
    "resources",
    "per",
    "replicas",
    "with_service",
    "port",
    "ready",
    "stop",
    "identity",
    "matrix",
];

pub(super) const READY: &[&str] = &["http", "tcp", "log", "timeout"];

pub(super) const IDENTITY: &[&str] = &["tools", "files"];

pub(super) const ON_FINISH: &[&str] = &["run", "shell", "url"];

/// Names of the policies that are written as text.
pub(super) const POLICIES: &[&str] = &["auto", "pure", "validate", "sample", "never"];
