//! What a certificate and its compiled plan say of a graph of which few nodes are concerned by what changed. Unaware of running.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::certificate::{Certified, Changed, Update};
use super::compiled::{self, ABSENT, Compiled};
use super::project::Project;
use super::recover;
use crate::api::Catalog;
use crate::base::files::Stat;
use crate::error::Result;
use crate::graph::NodeIx;
use crate::model::Artifact;
use crate::store::{Content, Store, Workspace};

/// The state of all nodes before this run, and which of them the changes may concern.
pub(super) struct Known {
    pub(super) changed: Mutex<Changed>,
    pub(super) certified: Certified,
    pub(super) compiled: Compiled,
    /// Nodes that take or make a file that changed.
    pub(super) roots: Vec<NodeIx>,
    /// They and all that depend on them, in topological order.
    pub(super) closure: Vec<NodeIx>,
}

/// Opens the project of a certificate whose files changed, without the workflow: only nodes that are asked for are read. `None` if the
/// plan does not say what the changes concern.
pub fn resume(changed: Changed, root: &Path, cache: &Path, catalog: Catalog) -> Result<Option<Project>> {
    let begun = Instant::now();
    let certified = changed.certificate.certified.clone();
    let Some(seal) = certified.plan else { return Ok(None) };
    let read = compiled::read(&changed.place, &seal, |compiled| {
        let roots = roots(compiled, &changed)?;
        let graph = || {
            let closure = compiled.closure(&roots);
            (compiled.graph(&closure), closure)
        };
        let opened = || -> Result<(Arc<Store>, Arc<Workspace>)> {
            let store = Store::open(cache)?;
            store.expect_few();
            let workspace = Arc::new(Workspace::open_sparsely(&store, root)?);
            Ok((Arc::new(store.seen_from(&workspace)), workspace))
        };
        let (opened, (graph, closure)) = rayon::join(opened, graph);
        Some((roots, closure, graph, opened))
    });
    let Some((compiled, Some((roots, closure, graph, opened)))) = read else { return Ok(None) };
    let (store, workspace) = opened?;
    let project = Project {
        root: workspace.root().to_owned(),
        loaded: None,
        catalog,
        graph,
        store,
        workspace,
        asked: certified.asked.clone(),
        expand_seconds: begun.elapsed().as_secs_f64(),
        opened_ns: changed.began_ns,
        machine: super::machine::Machine::default(),
        known: Some(Known { changed: Mutex::new(changed), certified, compiled, roots, closure }),
    };
    Ok((!recover::pending(&project)).then_some(project))
}

/// The nodes that take or make what changed; `None` if something else did, or an input is gone.
fn roots(compiled: &Compiled, changed: &Changed) -> Option<Vec<NodeIx>> {
    let left = changed.changed.iter().map(|(n, content)| (*n as u32, content.is_none()));
    let left: HashMap<u32, bool> = left.collect();
    // most nodes are asked about: a bit is faster than a hash
    let mut differs = vec![false; changed.certificate.len()];
    for (n, _) in &changed.changed {
        differs[*n] = true;
    }
    let differs = |n: &u32| *n != ABSENT && differs[*n as usize];
    let mut taken = HashSet::new();
    let mut roots = Vec::new();
    for ix in 0..compiled.len() {
        let takes: Vec<u32> = compiled.tables.takes.of(ix).iter().copied().filter(differs).collect();
        if takes.iter().any(|n| left[n]) {
            return None;
        }
        let makes = compiled.tables.makes.of(ix).iter().copied().filter(differs);
        let mut concerned = !takes.is_empty();
        for n in takes.into_iter().chain(makes) {
            taken.insert(n);
            concerned = true;
        }
        if concerned {
            roots.push(ix);
        }
    }
    (taken.len() == left.len()).then_some(roots)
}

impl Known {
    /// What the certificate says of the outputs of a node.
    pub(super) fn artifacts(&self, ix: NodeIx) -> Vec<Artifact> {
        let changed = self.changed.lock().unwrap_or_else(|e| e.into_inner());
        let of = |n: &u32| match *n {
            ABSENT => Some(Artifact::Absent),
            n => changed.certificate.content(n as usize).map(|content| content.artifact),
        };
        self.compiled.tables.makes.of(ix).iter().map(|n| of(n).unwrap_or(Artifact::Absent)).collect()
    }

    /// Path and content of every source file that a node takes and of every output it makes, as they were found at the beginning.
    pub(super) fn contents(&self, ix: NodeIx) -> Vec<(std::path::PathBuf, Option<Content>)> {
        let changed = self.changed.lock().unwrap_or_else(|e| e.into_inner());
        let tables = &self.compiled.tables;
        let entries = tables.takes.of(ix).iter().chain(tables.makes.of(ix)).filter(|n| **n != ABSENT);
        let found = |n: usize| {
            if let Ok(at) = changed.changed.binary_search_by_key(&n, |(n, _)| *n) {
                return changed.changed[at].1.clone();
            }
            let mut content = changed.certificate.content(n)?;
            if let Ok(at) = changed.touched.binary_search_by_key(&n, |(n, _)| *n) {
                content.stat = changed.touched[at].1;
            }
            Some(content)
        };
        entries.map(|n| (changed.certificate.path(*n as usize).to_owned(), found(*n as usize))).collect()
    }

    /// What a node is expected to take, microseconds.
    pub(super) fn weight(&self, ix: NodeIx) -> u64 {
        u64::from(self.compiled.tables.weights[ix])
    }

    /// Names of the secrets that any node asks for.
    pub(super) fn secrets(&self) -> &[String] {
        &self.compiled.tables.secrets
    }

    /// After a run in which all went well: the certificate says what is there now. `concerned`: the nodes that were looked at, with
    /// their artifacts. `stat`: of the file at a path, if it was looked at.
    pub(super) fn renew<'n>(
        &self,
        concerned: impl Iterator<Item = (NodeIx, &'n [Artifact])>,
        stat: &dyn Fn(&Path) -> Option<Stat>,
    ) {
        let mut changed = self.changed.lock().unwrap_or_else(|e| e.into_inner());
        let Changed { place, certificate, changed, touched, began_ns } = &mut *changed;
        let mut updates: Vec<Update> = Vec::new();
        for (entry, content) in changed.iter() {
            updates.extend(content.iter().map(|content| Update {
                entry: *entry,
                artifact: content.artifact.clone(),
                stat: Some(content.stat),
            }));
        }
        for (ix, artifacts) in concerned {
            for (entry, artifact) in self.compiled.tables.makes.of(ix).iter().zip(artifacts) {
                if matches!(artifact, Artifact::File { .. }) != (*entry != ABSENT) {
                    // other files than the certificate lists: the next run looks at everything
                    let _ = std::fs::remove_file(place);
                    return;
                }
                if *entry != ABSENT {
                    let entry = *entry as usize;
                    let stat = stat(certificate.path(entry));
                    updates.push(Update { entry, artifact: artifact.clone(), stat });
                }
            }
        }
        certificate.renew(place, touched, &updates, *began_ns);
    }
}
