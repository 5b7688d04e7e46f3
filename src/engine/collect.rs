//! After an attempt: every declared output is found, checked against its declaration, and stored.

use std::path::PathBuf;

use super::session::Session;
use crate::base::clock;
use crate::base::files::Stat;
use crate::error::{Error, Result};
use crate::graph::{Node, Output};
use crate::model::Artifact;

/// Where an attempt was told to write its outputs, in the order of the node's outputs.
#[derive(Clone)]
pub(super) struct Made {
    /// Where to look.
    pub(super) path: PathBuf,
    /// The declared place itself (the command writes it), not scratch.
    pub(super) direct: bool,
    /// A directory that flow made: still empty, it says nothing.
    pub(super) precreated: bool,
}

/// What was found there.
pub(super) struct Found {
    pub(super) made: Made,
    /// Its content, which is stored.
    pub(super) artifact: Artifact,
    /// Of a file as it was before it was read, and the moment of that, ns since 1970.
    pub(super) stat: Option<(Stat, i64)>,
}

/// Stores every output that was made. A missing or unfit one is an error that names it.
pub(super) fn collect(session: &Session, node: &Node, made: &[Made]) -> Result<Vec<Found>> {
    let mut found = Vec::with_capacity(made.len());
    let mut missing = Vec::new();
    for (output, made) in node.outputs.iter().zip(made) {
        match one(session, output, made)? {
            Some(stored) => found.push(stored),
            None if output.optional => {
                found.push(Found { made: made.clone(), artifact: Artifact::Absent, stat: None });
            }
            None => missing.push(format!("output '{}' ({}) was not made", output.name, output.path)),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    Err(Error::step(missing.join("\n")).hint(
        "every declared output must be written; declare it with \"optional\": true if it may be left out",
    ))
}

/// Stores one output if it was made.
pub(super) fn one(session: &Session, output: &Output, made: &Made) -> Result<Option<Found>> {
    let now = clock::now_ns();
    // a link is what it leads to
    let looked = std::fs::symlink_metadata(&made.path);
    let link = looked.as_ref().is_ok_and(|meta| meta.is_symlink());
    let looked = if link { std::fs::metadata(&made.path) } else { looked };
    let Ok(meta) = looked else { return Ok(None) };
    let what = || format!("output '{}' ({})", output.name, output.path);
    if output.dir != meta.is_dir() {
        let (is, hint) = if meta.is_dir() {
            ("a directory, and was declared as a file", "let the declared path end with a slash")
        } else {
            ("a file, and was declared as a directory", "leave out the slash at the end of the declared path")
        };
        return Err(Error::step(format!("{} is {is}", what())).hint(hint));
    }
    if !meta.is_dir() && !meta.is_file() {
        return Err(Error::step(format!("{} is neither a file nor a directory", what())));
    }
    if meta.is_dir() && made.precreated && output.optional && is_empty(&made.path) {
        return Ok(None);
    }
    refuse_secrets(session, &made.path, &what())?;
    let store = &session.project.store;
    let artifact = if meta.is_dir() { store.put_tree(&made.path) } else { store.put_file(&made.path) };
    let artifact =
        artifact.map_err(|error| Error { message: format!("{}: {}", what(), error.message), ..error })?;
    if link {
        // a link would lead elsewhere once it is moved, or change with what it leads to
        std::fs::remove_file(&made.path).map_err(|e| Error::io("remove", &made.path, e))?;
        store.restore(&artifact, &made.path).map_err(Error::from)?;
    }
    let stat = (!link && meta.is_file()).then(|| (Stat::from_metadata(&meta), now));
    Ok(Some(Found { made: made.clone(), artifact, stat }))
}

fn is_empty(dir: &std::path::Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// A declared output that contains a secret fails the node.
fn refuse_secrets(session: &Session, path: &std::path::Path, what: &str) -> Result<()> {
    if session.masker.is_empty() {
        return Ok(());
    }
    let holds = if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| Error::io("read", path, e))?;
        for entry in entries.flatten() {
            refuse_secrets(session, &entry.path(), what)?;
        }
        false
    } else {
        session.masker.contains_in_file(path).map_err(|e| Error::io("read", path, e))?
    };
    if holds {
        return Err(Error::step(format!("{what} contains the value of a secret, and was not stored"))
            .hint("let the command leave the secret out of what it writes"));
    }
    Ok(())
}
