//! What the launcher of a confined command tells flow: one JSON line each, written at once, so that a kill loses none.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::rules::Access;
use crate::error::{Error, Kind, Result};
use crate::exec::LaunchError;

/// An access that was not declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offence {
    /// Relative to the workspace if it lies there.
    pub path: String,
    /// What was done or tried.
    pub access: Access,
    /// The name of the process.
    pub program: String,
    /// The command was ended before it could.
    pub prevented: bool,
    /// It was let pass: a depfile may name it.
    pub passed: bool,
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Offence(Offence),
    /// The command never began: why, what to try, and whether the machine lacks something.
    NotStarted {
        message: String,
        hints: Vec<String>,
        lack: bool,
    },
}

/// What the launcher told.
#[derive(Debug, Default)]
pub struct Told {
    /// In the order in which they happened.
    pub offences: Vec<Offence>,
    /// Why the command never began.
    pub failure: Option<Error>,
}

/// The launcher's end.
pub(super) struct Report(File);

impl Report {
    pub(super) fn append_to(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        file.map(Self).map_err(|e| Error::io("open", path, e))
    }

    pub(super) fn offence(&mut self, offence: &Offence) {
        self.line(&Line::Offence(offence.clone()));
    }

    /// The command could not be started.
    pub(super) fn not_started(&mut self, error: LaunchError) {
        let LaunchError { message, hints, missing } = error;
        self.line(&Line::NotStarted { message, hints, lack: missing });
    }

    /// It could not be confined.
    pub(super) fn not_confined(&mut self, error: Error) {
        self.line(&Line::NotStarted { message: error.message, hints: error.hints, lack: true });
    }

    fn line(&mut self, line: &Line) {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        // without a report the end of the launcher tells of the failure
        let _ = self.0.write_all(&text);
    }
}

/// Reads what a launcher wrote; nothing if it wrote nothing.
pub(super) fn read(path: &Path) -> Result<Told> {
    let mut told = Told::default();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(told),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    // a line without its end was being written when its writer was killed
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        match serde_json::from_str(line) {
            Ok(Line::Offence(offence)) => told.offences.push(offence),
            Ok(Line::NotStarted { message, hints, lack }) => {
                let kind = if lack { Kind::Environment } else { Kind::Step };
                told.failure = Some(hints.into_iter().fold(Error::new(kind, message), Error::hint));
            }
            Err(e) => return Err(Error::bug(format!("{} cannot be read: {e}", path.display()))),
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_and_half_a_line_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        assert!(read(&path).unwrap().offences.is_empty());
        let offence = Offence {
            path: "a\n\"b".into(),
            access: Access::Read,
            program: "cat".into(),
            prevented: false,
            passed: false,
        };
        let mut report = Report::append_to(&path).unwrap();
        report.offence(&offence);
        report.not_confined(Error::environment("no").hint("x").hint("y"));
        report.0.write_all(b"{\"offence\":").unwrap();
        let told = read(&path).unwrap();
        assert_eq!(told.offences, [offence]);
        let failure = told.failure.unwrap();
        assert_eq!((failure.kind.exit_code(), failure.message.as_str()), (4, "no"));
        assert_eq!(failure.hints, ["x", "y"]);
        std::fs::write(&path, "?\n").unwrap();
        assert!(read(&path).is_err());
    }
}
