//! The inputs of an attempt: where to read them, and whether they are what the key says, before and after. Unaware of what runs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::attempt::Job;
use super::certificate::young;
use super::command::is_command;
use super::evaluate::{Keyed, entries};
use super::scratch::Scratch;
use crate::api::InputFile;
use crate::base::files::Stat;
use crate::error::{Error, Result};
use crate::graph::Item;
use crate::model::{Artifact, Policy};
use crate::store::Content;

/// An input as it was before the attempt.
pub(super) struct Seen {
    path: PathBuf,
    artifact: Artifact,
    /// No node makes it.
    source: bool,
    implicit: bool,
}

impl Job<'_> {
    /// Input files by name, as the stage or command gets them.
    pub(super) fn files(
        &self,
        keyed: &Keyed,
        scratch: &mut Scratch<'_>,
    ) -> Result<IndexMap<String, Vec<InputFile>>> {
        let project = &self.session.project;
        // a command that runs elsewhere could not find them by a path relative to the root
        let elsewhere = self.node.action.io().is_some_and(|io| io.cwd.is_some());
        let mut out = IndexMap::new();
        for (index, (input, items)) in self.node.inputs.iter().zip(&self.inputs).enumerate() {
            let mut files: Vec<InputFile> = Vec::with_capacity(items.len());
            for (n, item) in items.iter().enumerate() {
                let path = match project.graph.item_path(item) {
                    root if root.is_empty() => ".".to_owned(),
                    path => path,
                };
                let outside = path.starts_with('/') || path.starts_with("../");
                let name =
                    if outside { path.rsplit('/').next().unwrap_or(&path).to_owned() } else { path.clone() };
                if self.is_appended(item) {
                    let view = scratch.directory()?.join(format!("in-{index}")).join(path.replace('/', "_"));
                    self.view(&view, &path, &keyed.facts.inputs[index][n].digest)?;
                    // several nodes may add to one append directory: it is given once, with what they all contribute
                    if files.iter().all(|file| file.path != view) {
                        files.push(InputFile { path: view, name });
                    }
                    continue;
                }
                let path = if elsewhere { project.root.join(path) } else { PathBuf::from(path) };
                files.push(InputFile { path, name });
            }
            out.insert(input.name.clone(), files);
        }
        Ok(out)
    }

    pub(super) fn is_appended(&self, item: &Item) -> bool {
        matches!(item, Item::Made { node, output } if self.session.project.graph.nodes[*node].outputs[*output].append)
    }

    /// A directory of links to the present entries that one node contributes to an append directory: a consumer sees no others.
    fn view(&self, view: &Path, directory: &str, tree: &crate::base::digest::Digest) -> Result<()> {
        let project = &self.session.project;
        std::fs::create_dir_all(view).map_err(|e| Error::io("create", view, e))?;
        let whole = Artifact::Tree { digest: *tree, files: 0, size: 0 };
        for (name, _) in entries(project, &whole)?.unwrap_or_default() {
            let link = view.join(&name);
            match symlink(project.root.join(directory).join(&name), &link) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io("create", &link, e)),
            }
        }
        Ok(())
    }

    /// Looks at every input before the attempt; `Err` names one that no longer is what the key says.
    pub(super) fn look(&self, keyed: &Keyed) -> Result<std::result::Result<Vec<Seen>, String>> {
        let project = &self.session.project;
        // what a stage may do in vain it need not be kept from: a look afterwards tells as much
        let at_ease = !is_command(self.node) && self.node.policy == Policy::Pure;
        let mut seen = Vec::new();
        for (index, (input, items)) in self.node.inputs.iter().zip(&self.inputs).enumerate() {
            for (item, fact) in items.iter().zip(&keyed.facts.inputs[index]) {
                if self.is_appended(item) {
                    continue;
                }
                let path = project.graph.item_path(item);
                let absolute = project.root.join(&path);
                let source = matches!(item, Item::Source { .. });
                let content = match self.known(&absolute).filter(|_| at_ease) {
                    Some(known) => Some(known.as_ref().clone()),
                    None => self.content(&absolute, source)?,
                };
                match content {
                    Some(content) if content.artifact.digest() == Some(fact.digest) => {
                        let artifact = content.artifact;
                        seen.push(Seen { path: absolute, artifact, source, implicit: input.implicit });
                    }
                    _ => {
                        self.finder.forget(&absolute);
                        return Ok(Err(path));
                    }
                }
            }
        }
        Ok(Ok(seen))
    }

    /// What this run found in a file, if the stat of then tells for as long as the run lasts whether that is still so.
    fn known(&self, path: &Path) -> Option<Arc<Content>> {
        let tells =
            |known: &Arc<Content>| known.stat.is_file() && !young(&known.stat, self.session.started_ns);
        self.finder.known(path).filter(tells)
    }

    /// What an input holds now.
    fn content(&self, path: &Path, source: bool) -> Result<Option<Content>> {
        if let Some(known) = self.known(path)
            && Stat::following(path).is_ok_and(|stat| stat == known.stat)
        {
            return Ok(Some(known.as_ref().clone()));
        }
        if source {
            self.finder.source_of(&self.session.project, self.node, path)
        } else {
            self.session.project.workspace.content(path)
        }
    }

    /// An input that is not what it was before the attempt, and whether it is an implicit one.
    pub(super) fn changed_since(&self, before: &[Seen]) -> Result<Option<(String, bool)>> {
        let project = &self.session.project;
        for Seen { path, artifact, source, implicit } in before {
            let same = self.content(path, *source)?.is_some_and(|content| content.artifact == *artifact);
            if !same {
                self.finder.forget(path);
                let shown = path.strip_prefix(&project.root).unwrap_or(path).to_string_lossy().into_owned();
                return Ok(Some((shown, *implicit)));
            }
        }
        Ok(None)
    }

    /// An input that the attempt moved to one of its outputs is put back before that output is undone: nothing is lost.
    pub(super) fn bring_back(&mut self, before: &[Seen]) -> Result<()> {
        let store = self.session.project.store.clone();
        for Seen { path, artifact, .. } in before {
            if std::fs::symlink_metadata(path).is_err() && store.has(artifact) {
                store.restore(artifact, path).map_err(Error::from)?;
                self.log.line(&format!("{} was moved away by the attempt, and is put back", path.display()));
            }
        }
        Ok(())
    }
}
