//! Publishing: artifacts come into their declared places by rename, from scratch or from the store.

use std::fs;
use std::path::{Path, PathBuf};

use super::collect::Found;
use super::evaluate::{artifacts_of, entries};
use super::session::Session;
use super::{ours, retention};
use crate::base::digest::Digest;
use crate::base::files::{self, Stat};
use crate::base::{clock, failpoint};
use crate::error::{Error, Result};
use crate::graph::{Node, Output};
use crate::model::Artifact;
use crate::store::{PublishedRow, RestoreError, ResultRecord};

/// Why outputs could not be brought into place.
#[derive(Debug)]
pub(super) enum PlaceError {
    /// Bytes are missing or damaged: of which output.
    Lost(String),
    /// Anything else.
    Fault(Error),
}

impl From<Error> for PlaceError {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

/// Publishes what an attempt made.
pub(super) fn publish(session: &Session, node: &Node, found: &[Found]) -> Result<()> {
    // a conflict is found before anything is moved
    for (output, found) in node.outputs.iter().zip(found).filter(|(output, _)| output.append) {
        for (name, entry) in entries(&session.project, &found.artifact)?.unwrap_or_default() {
            already(session, output, &session.project.root.join(&output.path).join(&name), &name, &entry)?;
        }
    }
    for (index, output) in node.outputs.iter().enumerate() {
        one(session, node, output, &found[index])?;
        if index + 1 < node.outputs.len() {
            failpoint::hit("between_renames");
        }
    }
    Ok(())
}

/// Publishes one output from where the attempt left it.
pub(super) fn one(session: &Session, node: &Node, output: &Output, found: &Found) -> Result<()> {
    let Found { made, artifact, stat } = found;
    let place = session.project.root.join(&output.path);
    let workspace = &session.project.workspace;
    if output.append {
        for (name, entry) in entries(&session.project, artifact)?.unwrap_or_default() {
            let target = place.join(&name);
            if !already(session, output, &target, &name, &entry)? {
                rename_into(&made.path.join(&name), &target)?;
            }
            remember(session, &target, &entry);
        }
    } else if *artifact == Artifact::Absent {
        remove_ours(session, output, &place)?;
    } else if made.direct {
        match stat {
            Some((stat, at)) => workspace.remember(&place, *stat, artifact, *at),
            None => remember(session, &place, artifact),
        }
    } else if let Artifact::File { .. } = artifact {
        publish_file(session, output, &made.path, &place, artifact)?;
    } else {
        refuse_foreign(session, output, &place)?;
        let same = workspace.content(&place)?.is_some_and(|content| content.artifact == *artifact);
        if !same {
            rename_into(&made.path, &place)?;
        }
        remember(session, &place, artifact);
    }
    record(session, node, output, artifact)
}

/// Publishes one file: by one rename if nothing stands in its way. A place that holds the same already is left alone, so that nobody
/// who watches time stamps takes it for new.
fn publish_file(
    session: &Session,
    output: &Output,
    from: &Path,
    place: &Path,
    artifact: &Artifact,
) -> Result<()> {
    let workspace = &session.project.workspace;
    if let Ok(there) = fs::symlink_metadata(place) {
        if there.is_dir() {
            refuse_foreign(session, output, place)?;
        } else if workspace.content(place)?.is_some_and(|content| content.artifact == *artifact) {
            return fs::remove_file(from).map_err(|e| Error::io("remove", from, e));
        }
        rename_into(from, place)?;
    } else if fs::rename(from, place).is_err() {
        // its directory may be missing, or on another file system
        rename_into(from, place)?;
    }
    // its time stamp is of this moment: it is hashed again when it is old enough to be trusted
    workspace.forget_file(place);
    Ok(())
}

/// From where, to where, what.
type Move = (PathBuf, PathBuf, Artifact);

/// Brings recorded outputs into place: those of `only`, by index.
pub(super) fn restore(
    session: &Session,
    node: &Node,
    record: &ResultRecord,
    only: &[usize],
    scratch: &Path,
) -> std::result::Result<(), PlaceError> {
    let artifacts = artifacts_of(record, node);
    // all bytes first: a lost one must not leave half of the outputs new
    let mut ready: Vec<(usize, Vec<Move>)> = Vec::new();
    for &index in only {
        let output = &node.outputs[index];
        let place = session.project.root.join(&output.path);
        let mut moves = Vec::new();
        if output.append {
            let mut wanted = Vec::new();
            let entries = entries(&session.project, &artifacts[index])?
                .ok_or_else(|| PlaceError::Lost(output.path.clone()))?;
            for (name, entry) in entries {
                let target = place.join(&name);
                let removed = retention::is_removed(&session.project, &format!("{}/{name}", output.path));
                if !removed && !already(session, output, &target, &name, &entry)? {
                    wanted.push((name, target, entry));
                }
            }
            // an entry that is a directory is known only as a part of the whole
            if !wanted.is_empty() {
                let from = fetch(session, output, &artifacts[index], scratch, index)?;
                moves
                    .extend(wanted.into_iter().map(|(name, target, entry)| (from.join(name), target, entry)));
            }
        } else if artifacts[index] != Artifact::Absent {
            refuse_foreign(session, output, &place)?;
            let from = fetch(session, output, &artifacts[index], scratch, index)?;
            moves.push((from, place, artifacts[index].clone()));
        }
        ready.push((index, moves));
    }
    for (index, moves) in ready {
        let output = &node.outputs[index];
        if artifacts[index] == Artifact::Absent && !output.append {
            remove_ours(session, output, &session.project.root.join(&output.path))?;
        }
        for (from, target, artifact) in moves {
            rename_into(&from, &target)?;
            remember(session, &target, &artifact);
            failpoint::hit("between_renames");
        }
    }
    for (output, artifact) in node.outputs.iter().zip(&artifacts) {
        self::record(session, node, output, artifact)?;
    }
    Ok(())
}

/// Brings an output's bytes to scratch.
fn fetch(
    session: &Session,
    output: &Output,
    artifact: &Artifact,
    scratch: &Path,
    index: usize,
) -> std::result::Result<PathBuf, PlaceError> {
    let from = scratch.join(format!("restore-{index}"));
    fs::create_dir_all(scratch).map_err(|e| Error::io("create", scratch, e))?;
    files::remove_any(&from).map_err(|e| Error::io("remove", &from, e))?;
    match session.project.store.restore(artifact, &from) {
        Ok(()) => Ok(from),
        Err(RestoreError::Missing(_) | RestoreError::Corrupt(_)) => {
            Err(PlaceError::Lost(output.path.clone()))
        }
        Err(other) => Err(Error::environment(format!("failed to restore {}: {other}", output.path)).into()),
    }
}

/// Claims in the workspace state what is in place already.
pub(super) fn claim(session: &Session, node: &Node, artifacts: &[Artifact]) -> Result<()> {
    for (output, artifact) in node.outputs.iter().zip(artifacts) {
        record(session, node, output, artifact)?;
    }
    Ok(())
}

/// Whether an entry of an append directory is there as it should be. Other bytes under its name fail, unless flow put the
/// right ones there once (then they were damaged since, and are restored).
fn already(session: &Session, output: &Output, target: &Path, name: &str, entry: &Artifact) -> Result<bool> {
    let workspace = &session.project.workspace;
    match workspace.content(target)? {
        None => Ok(false),
        Some(content) if content.artifact == *entry => Ok(true),
        Some(_) if workspace.published_as(&format!("{}/{name}", output.path), entry) => Ok(false),
        Some(_) => Err(Error::step(format!(
            "{}/{name} exists already with other content, and an append directory never replaces an entry",
            output.path
        ))
        .hint("remove it by hand if it is not needed, or let the step choose another name")),
    }
}

/// Makes the directory in which an output will lie.
pub(super) fn make_parent(place: &Path) -> Result<()> {
    let Some(parent) = place.parent().filter(|parent| !parent.is_dir()) else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|e| match parent.ancestors().find(|above| above.is_file()) {
        Some(file) => {
            Error::step(format!("{} is a file, and {} is to be made in it", file.display(), place.display()))
                .hint("remove it; if an earlier version of the workflow made it: flow clean FILE --orphans")
        }
        None => Error::io("create", parent, e),
    })
}

/// A file never replaces a directory that holds files flow did not publish, or that were changed since.
pub(super) fn refuse_foreign(session: &Session, output: &Output, place: &Path) -> Result<()> {
    if output.dir || !fs::symlink_metadata(place).is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    let Some(foreign) = ours::foreign_in(&session.project, &output.path)? else { return Ok(()) };
    Err(Error::step(format!(
        "output '{}' ({}) is a file, and a directory stands there with files that flow did not make, or not as they are now: {foreign}",
        output.name, output.path
    ))
    .hint("move them away, choose another path, or let the declared path end with a slash"))
}

/// Moves `from` to `to`, replacing what is there; across file systems by a copy beside it.
fn rename_into(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    let from_is_dir = fs::symlink_metadata(from).is_ok_and(|m| m.is_dir());
    let to_is_dir = fs::symlink_metadata(to).is_ok_and(|m| m.is_dir());
    // a directory cannot be replaced by one rename: the old one steps aside first
    let old = from.with_extension("flow-old");
    if from_is_dir || to_is_dir {
        for leftover in [beside(to, "new"), beside(to, "old")] {
            files::remove_any(&leftover).map_err(|e| Error::io("remove", &leftover, e))?;
        }
        match fs::rename(to, &old) {
            Ok(()) => failpoint::hit("between_renames"),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => return exchange(from, to),
            Err(e) => return Err(Error::io("set aside", to, e)),
        }
    }
    files::move_any(from, to).map_err(|e| Error::io("publish", to, e))?;
    files::remove_any(&old).map_err(|e| Error::io("remove", &old, e))
}

/// A name beside `to` for what only passes through; always the same, so that what a kill leaves there goes the next time.
fn beside(to: &Path, what: &str) -> PathBuf {
    let name = Digest::of(to.file_name().unwrap_or_default().as_encoded_bytes());
    to.with_file_name(format!(".flow-{what}-{}", name.short()))
}

/// Moves `from` to another file system, to the place of `to`: the copy is whole before the old one steps aside.
fn exchange(from: &Path, to: &Path) -> Result<()> {
    let (new, old) = (beside(to, "new"), beside(to, "old"));
    files::move_any(from, &new).map_err(|e| Error::io("publish", to, e))?;
    match fs::rename(to, &old) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("set aside", to, e)),
        _ => failpoint::hit("between_renames"),
    }
    if let Err(e) = fs::rename(&new, to) {
        // the error of the rename is the one to tell
        let _ = fs::rename(&old, to);
        return Err(Error::io("publish", to, e));
    }
    files::remove_any(&old).map_err(|e| Error::io("remove", &old, e))
}

/// Removes the file of an output that is absent now, if flow put it there.
fn remove_ours(session: &Session, output: &Output, place: &Path) -> Result<()> {
    if session.project.workspace.published_path(&output.path) {
        files::remove_any(place).map_err(|e| Error::io("remove", place, e))?;
        session.project.workspace.forget(place);
    }
    Ok(())
}

fn remember(session: &Session, place: &Path, artifact: &Artifact) {
    match Stat::following(place) {
        Ok(stat) => session.project.workspace.remember(place, stat, artifact, clock::now_ns()),
        Err(_) => session.project.workspace.forget(place),
    }
}

fn record(session: &Session, node: &Node, output: &Output, artifact: &Artifact) -> Result<()> {
    let project = &session.project;
    let row = |path: String, artifact: &Artifact| PublishedRow {
        path,
        workflow: project.root_file().to_owned(),
        file: project.graph.file_of(node).to_owned(),
        node: node.id.clone(),
        output: output.name.clone(),
        append: output.append,
        artifact: artifact.clone(),
    };
    let rows = if output.append {
        entries(project, artifact)?
            .unwrap_or_default()
            .into_iter()
            .map(|(name, entry)| (format!("{}/{name}", output.path), entry))
            .filter(|(path, _)| !retention::is_removed(project, path))
            .map(|(path, entry)| row(path, &entry))
            .collect()
    } else if *artifact == Artifact::Absent {
        project.workspace.unclaim(&output.path, project.root_file());
        Vec::new()
    } else {
        vec![row(output.path.clone(), artifact)]
    };
    project.workspace.publish(rows);
    Ok(())
}

/// All outputs of a node are absent: files that flow put there go.
pub(super) fn absent(session: &Session, node: &Node) -> Result<()> {
    for output in node.outputs.iter().filter(|output| !output.append) {
        remove_ours(session, output, &session.project.root.join(&output.path))?;
        record(session, node, output, &Artifact::Absent)?;
    }
    Ok(())
}
