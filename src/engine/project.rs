//! A workflow opened in its workspace: declared, expanded, with store and state at hand.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificate::Asked;
use super::known::Known;
use super::listed::Listed;
use super::listing::Disk;
use super::machine::Machine;
use crate::api::Catalog;
use crate::base::clock;
use crate::base::digest::Digest;
use crate::base::files::Stat;
use crate::base::process;
use crate::error::{Error, Result};
use crate::front::{self, LoadRequest, Loaded};
use crate::graph::{Entry, Expansion, Graph, NodeSet, Selection, expand, select};
use crate::key;
use crate::store::{LockOutcome, Store, Workspace, WorkspaceLock};

/// What to open.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// Workflow file, profile, parameters; its `root` is the workspace root.
    pub load: LoadRequest,
    /// Cache directory; default `cache/` in the root.
    pub cache: Option<PathBuf>,
}

/// An open workflow.
pub struct Project {
    /// Workspace root, absolute.
    pub root: PathBuf,
    /// The declaration; `None` if all nodes come from a compiled plan.
    pub loaded: Option<Loaded>,
    /// The stages.
    pub catalog: Catalog,
    /// The expanded graph.
    pub graph: Graph,
    /// The artifact store.
    pub store: Arc<Store>,
    /// The workspace's state.
    pub workspace: Arc<Workspace>,
    /// What expansion asked of directories and environment.
    pub(super) asked: Asked,
    /// What the directories held that it listed.
    pub(super) listed: Listed,
    /// How long opening the store and expanding took, seconds.
    pub(super) expand_seconds: f64,
    /// When it was opened, ns since 1970.
    pub(super) opened_ns: i64,
    /// What is known of nodes that are not looked at.
    pub(super) known: Option<Known>,
    /// Whose devices are leased, and whose hardware stands in keys.
    pub(super) machine: Machine,
}

impl Project {
    /// Loads a workflow file and opens it.
    pub fn open(request: &OpenRequest, catalog: &Catalog) -> Result<Self> {
        let loaded = front::load(&request.load, catalog)?;
        Self::with_loaded(loaded, &request.load.root, request.cache.as_deref(), catalog)
    }

    /// Opens a workflow that was declared already.
    pub fn with_loaded(loaded: Loaded, root: &Path, cache: Option<&Path>, catalog: &Catalog) -> Result<Self> {
        let opened_ns = clock::now_ns();
        let begun = std::time::Instant::now();
        let root = root.canonicalize().map_err(|e| Error::io("open the workspace", root, e))?;
        text(&root, "workspace", "rename the directory, or work in another one")?;
        let cache = cache.map_or_else(|| root.join("cache"), |dir| root.join(dir));
        let store = Store::open(&cache)?;
        text(store.dir(), "cache", "rename the directory, or name another one with --cache DIR")?;
        let workspace = Arc::new(Workspace::open(&store, &root)?);
        let store = Arc::new(store.seen_from(&workspace));
        let Expanded { graph, asked, listed } =
            expand_in(&loaded, &root, &store, &workspace, catalog, HashMap::new())?;
        let (loaded, catalog) = (Some(loaded), catalog.clone());
        let expand_seconds = begun.elapsed().as_secs_f64();
        Ok(Self {
            root,
            loaded,
            catalog,
            graph,
            store,
            workspace,
            asked,
            listed,
            expand_seconds,
            opened_ns,
            known: None,
            machine: Machine::default(),
        })
    }

    /// Expands again: what a killed run had set aside is back in the directories.
    pub fn refresh(&mut self) -> Result<()> {
        let loaded = self.loaded.as_ref().ok_or_else(|| Error::bug("a compiled plan was to be expanded"))?;
        let Expanded { graph, asked, listed } =
            expand_in(loaded, &self.root, &self.store, &self.workspace, &self.catalog, HashMap::new())?;
        (self.graph, self.asked, self.listed) = (graph, asked, listed);
        Ok(())
    }

    /// The root workflow file's name: whose rows of the workspace state are meant.
    pub fn root_file(&self) -> &str {
        &self.graph.file
    }

    /// Digest of the whole expanded graph.
    pub fn plan_digest(&self) -> Digest {
        match &self.known {
            Some(known) => known.certified.plan_digest,
            None => key::plan_digest(&self.graph, &mut (0..self.graph.nodes.len())),
        }
    }

    /// The nodes that a run with these targets is about; of a compiled plan those that the changes may concern.
    pub(super) fn select(&self, targets: &[String]) -> Result<Selection> {
        match &self.known {
            Some(known) => {
                let nodes: NodeSet = known.closure.iter().copied().collect();
                Ok(Selection { targets: nodes.clone(), nodes })
            }
            None => select(&self.graph, targets),
        }
    }
}

/// An error if a path is none that commands and stages can be given as text.
fn text(path: &Path, what: &str, hint: &str) -> Result<()> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(Error::environment(format!(
            "the path of the {what} is not UTF-8 ({}), and commands are given paths in it as text",
            path.display()
        ))
        .hint(hint)),
    }
}

/// A graph, and what its expansion asked of the workspace.
pub(super) struct Expanded {
    pub(super) graph: Graph,
    pub(super) asked: Asked,
    pub(super) listed: Listed,
}

/// Expands a workflow. `known`: directories that need not be read, with their stat.
pub(super) fn expand_in(
    loaded: &Loaded,
    root: &Path,
    store: &Store,
    workspace: &Workspace,
    catalog: &Catalog,
    known: HashMap<String, (Stat, Arc<[Entry]>)>,
) -> Result<Expanded> {
    let files: HashSet<&str> = loaded.sources.0.iter().map(|source| source.name.as_str()).collect();
    let published: HashSet<String> = workspace
        .published()
        .into_iter()
        .filter(|row| !row.append && files.contains(row.file.as_str()))
        .map(|row| row.path)
        .collect();
    let listing = Disk::new(root, store.dir(), published).knowing(known);
    let graph = expand(&Expansion {
        workflow: &loaded.workflow,
        sources: &loaded.sources,
        catalog,
        listing: &listing,
    })?;
    let (asked, listed) = listing.into_asked()?;
    Ok(Expanded { graph, asked, listed })
}

/// Takes the lock that every writing command holds; waits, or with `no_wait` fails with exit code 4.
pub fn locked(
    root: &Path,
    no_wait: bool,
    say: &mut dyn FnMut(String),
    cancelled: &dyn Fn() -> bool,
) -> Result<WorkspaceLock> {
    let root = root.canonicalize().map_err(|e| Error::io("open the workspace", root, e))?;
    let inside = || {
        Error::environment("flow is already running in this workspace, and started this command")
            .hint("a step cannot run flow on its own workspace; use include, or another workspace (-C DIR)")
    };
    if std::env::var_os(super::session::ENV_ROOT).is_some_and(|outer| Path::new(&outer) == root) {
        return Err(inside());
    }
    let who =
        |pid: Option<u32>| pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    match Workspace::try_lock(&root)? {
        LockOutcome::Held(lock) => return Ok(lock),
        // by way of a run of another workspace, or without the environment
        LockOutcome::Busy { pid: Some(pid) } if process::ancestors().contains(&pid) => return Err(inside()),
        LockOutcome::Busy { pid } if no_wait => {
            return Err(Error::environment(format!("the workspace is in use by {}", who(pid)))
                .hint("wait for it, or leave out --no-wait"));
        }
        LockOutcome::Busy { pid } => say(format!("waiting for {}, which runs in this workspace", who(pid))),
    }
    match Workspace::lock(&root, &mut |_| {}, cancelled)? {
        Some(lock) => Ok(lock),
        None => {
            Err(Error::new(crate::error::Kind::Interrupted, "interrupted while waiting for the workspace"))
        }
    }
}
