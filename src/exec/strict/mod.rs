//! `--strict`: a command behind a wall of its declared inputs and outputs, with a tracer that names what the wall refused. Unaware of nodes.
//!
//! flow starts `FLOW_EXE __strict SPEC` instead of the program. That process has one thread and is the tracer; it starts itself once
//! more (`--inner`), and this child waits to be traced, puts itself behind the Landlock rules (`wall`) and the filter that stops it at
//! calls with paths (`filter`), and becomes the program. Landlock decides; the tracer (`trace`) reads from each call what it was about
//! (`call`) and tells flow (`report`). `rules` is what both go by.

mod call;
mod filter;
mod launcher;
mod report;
mod rules;
mod sys;
mod trace;
mod wall;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use launcher::strict_main;
pub use report::{Offence, Told};
pub use rules::Rules;
pub use wall::supported as strict_supported;

use crate::{Error, Result};

/// A command and what it may touch, on its way to the launcher.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    rules: Rules,
    argv: Vec<String>,
}

/// Replaces a command by one that runs it confined. `scratch`: a directory of the attempt that the command cannot see.
///
/// # Errors
/// A path is no Unicode, or the directory cannot be written.
pub fn confined(flow_exe: &Path, scratch: &Path, rules: Rules, argv: Vec<String>) -> Result<Vec<String>> {
    let spec = spec_path(scratch);
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Error::environment(format!("--strict needs a path in Unicode: {}", path.display()))
        })
    };
    let bytes = serde_json::to_vec(&Spec { rules, argv })
        .map_err(|e| Error::environment(format!("--strict needs paths in Unicode: {e}")))?;
    std::fs::write(&spec, bytes).map_err(|e| Error::io("write", &spec, e))?;
    Ok(vec![text(flow_exe)?, "__strict".to_owned(), text(&spec)?])
}

/// What the launcher told of an attempt.
///
/// # Errors
/// It cannot be read.
pub fn told(scratch: &Path) -> Result<Told> {
    report::read(&report_path(&spec_path(scratch)))
}

fn spec_path(scratch: &Path) -> PathBuf {
    scratch.join("strict.json")
}

fn report_path(spec: &Path) -> PathBuf {
    spec.with_extension("report")
}
