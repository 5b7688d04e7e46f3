//! The one error type of the library: a kind that decides the exit code, a message, hints. Rendered once, in `cli`.

use std::fmt;

use crate::model::Diagnostic;

/// What went wrong, as far as the caller's next step depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A step failed: exit 1.
    Step,
    /// The command line is wrong: exit 2.
    Usage,
    /// The workflow is wrong: exit 3.
    Workflow,
    /// The machine lacks something: exit 4.
    Environment,
    /// A bug in flow: exit 70.
    Bug,
    /// Ctrl-C: exit 130.
    Interrupted,
    /// SIGTERM: exit 143.
    Terminated,
}

impl Kind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Step => 1,
            Self::Usage => 2,
            Self::Workflow => 3,
            Self::Environment => 4,
            Self::Bug => 70,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// An error with everything a person needs to act on it.
#[derive(Clone, Debug)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// One or more lines, no final full stop, lower case unless a name begins it.
    pub message: String,
    /// What to try; each a line of its own.
    pub hints: Vec<String>,
    /// Faults of workflow files, each with its place.
    pub diagnostics: Vec<Diagnostic>,
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How a full disk or quota ends the text of an error: of the system (no space, quota, file size), and of SQLite.
const FULL: [&str; 4] = ["(os error 28)", "(os error 122)", "(os error 27)", "database or disk is full"];

impl Error {
    /// An error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), diagnostics: Vec::new() }
    }

    /// A failed step.
    pub fn step(message: impl Into<String>) -> Self {
        Self::new(Kind::Step, message)
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// An invalid workflow without a place in a file.
    pub fn workflow(message: impl Into<String>) -> Self {
        Self::new(Kind::Workflow, message)
    }

    /// Something the machine lacks.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Kind::Environment, message)
    }

    /// A bug in flow.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// A failed system call: `failed to <what> <path>: <cause>`. A full disk gets its hint here.
    pub fn io(what: &str, path: &std::path::Path, cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        let error = Self::environment(format!("failed to {what} {}: {cause}", path.display()));
        if FULL.iter().any(|full| cause.contains(full)) {
            return error.hint("make room there and run again: what was done before stays done");
        }
        error
    }

    /// Faults of a workflow, all of them at once.
    pub fn diagnostics(diagnostics: Vec<Diagnostic>) -> Self {
        let message = match diagnostics.len() {
            1 => "the workflow has a fault".to_owned(),
            n => format!("the workflow has {n} faults"),
        };
        Self { kind: Kind::Workflow, message, hints: Vec::new(), diagnostics }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for diagnostic in &self.diagnostics {
            write!(f, "\n{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
