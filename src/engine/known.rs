//! What a certificate and its compiled plan say of a graph of which few nodes are concerned by what changed. Unaware of running.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::certificate::{Certified, Changed, Update};
use super::compiled::{self, ABSENT, Tables};
use super::grown::Grown;
use super::listed::Listed;
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
    /// Of the graph as it is now; entries are those of the certificate.
    pub(super) tables: Tables,
    /// What is not as the compiled plan has it; `None` if all nodes come from there.
    pub(super) grown: Option<Grown>,
    /// Nodes that take or make a file that changed, or are not as they were.
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
        let roots = roots(&compiled.tables, &changed)?;
        let graph = || {
            let closure = compiled.tables.closure(&roots);
            (compiled.graph(&closure), closure)
        };
        let (opened, (graph, closure)) = rayon::join(|| open(cache, root), graph);
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
        listed: Listed::default(),
        expand_seconds: begun.elapsed().as_secs_f64(),
        opened_ns: changed.began_ns,
        machine: super::machine::Machine::default(),
        known: Some(Known {
            changed: Mutex::new(changed),
            certified,
            tables: compiled.tables,
            grown: None,
            roots,
            closure,
        }),
    };
    Ok((!recover::pending(&project)).then_some(project))
}

/// Opens the store and the state of a workspace of which few rows will be asked for.
pub(super) fn open(cache: &Path, root: &Path) -> Result<(Arc<Store>, Arc<Workspace>)> {
    let store = Store::open(cache)?;
    store.expect_few();
    let workspace = Arc::new(Workspace::open_sparsely(&store, root)?);
    Ok((Arc::new(store.seen_from(&workspace)), workspace))
}

/// The nodes that take or make what changed; `None` if something else did, or an input is gone.
pub(super) fn roots(tables: &Tables, changed: &Changed) -> Option<Vec<NodeIx>> {
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
    for ix in 0..tables.weights.len() {
        let takes: Vec<u32> = tables.takes.of(ix).iter().copied().filter(differs).collect();
        if takes.iter().any(|n| left[n]) {
            return None;
        }
        let makes = tables.makes.of(ix).iter().copied().filter(differs);
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

impl Changed {
    /// What is in the place of the files that have other contents.
    pub(super) fn updates(&self) -> Vec<Update> {
        let found = self.changed.iter().filter_map(|(entry, content)| Some((*entry, content.as_ref()?)));
        found
            .map(|(entry, content)| Update {
                entry,
                artifact: content.artifact.clone(),
                stat: Some(content.stat),
            })
            .collect()
    }
}

impl Known {
    /// What the certificate says of the outputs of a node.
    pub(super) fn artifacts(&self, ix: NodeIx) -> Vec<Artifact> {
        let changed = self.changed.lock().unwrap_or_else(|e| e.into_inner());
        let of = |n: &u32| match *n {
            ABSENT => Some(Artifact::Absent),
            n => changed.certificate.content(n as usize).map(|content| content.artifact),
        };
        self.tables.makes.of(ix).iter().map(|n| of(n).unwrap_or(Artifact::Absent)).collect()
    }

    /// Path and content of every source file that a node takes, as they were found at the beginning.
    pub(super) fn taken(&self, ix: NodeIx) -> Vec<(PathBuf, Option<Content>)> {
        self.contents(self.tables.takes.of(ix))
    }

    /// The same of every output that it makes.
    pub(super) fn made(&self, ix: NodeIx) -> Vec<(PathBuf, Option<Content>)> {
        self.contents(self.tables.makes.of(ix))
    }

    fn contents(&self, entries: &[u32]) -> Vec<(PathBuf, Option<Content>)> {
        let changed = self.changed.lock().unwrap_or_else(|e| e.into_inner());
        let entries = entries.iter().filter(|n| **n != ABSENT);
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
        u64::from(self.tables.weights[ix])
    }

    /// Names of the secrets that any node asks for.
    pub(super) fn secrets(&self) -> &[String] {
        &self.tables.secrets
    }

    /// After a run in which all went well: the certificate says what is there now. `concerned`: the nodes that were looked at, with
    /// their artifacts. `stat`: of the file at a path, if it was looked at.
    pub(super) fn renew<'n>(
        &self,
        concerned: impl Iterator<Item = (NodeIx, &'n [Artifact])>,
        stat: &dyn Fn(&Path) -> Option<Stat>,
    ) {
        let mut changed = self.changed.lock().unwrap_or_else(|e| e.into_inner());
        let mut updates = changed.updates();
        let Changed { place, certificate, touched, began_ns, .. } = &mut *changed;
        for (ix, artifacts) in concerned {
            for (entry, artifact) in self.tables.makes.of(ix).iter().zip(artifacts) {
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
