//! Facts for keys: passed variables, tools, service identities, hardware, input contents. Each is found once per run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

use super::project::Project;
use crate::base::digest::Digest;
use crate::base::files::{self, Stat};
use crate::error::{Error, Result};
use crate::graph::{Discovered, Item, Node, NodeIx, Pattern, ServiceIx};
use crate::key::{Facts, InputFact, service_identity};
use crate::model::{Artifact, Policy, Tool, TreeEntry, TreeEntryKind};
use crate::store::{Content, Look};

/// Where the engine keeps what it knows of node outputs, for the facts of their consumers.
pub(super) trait Outputs {
    /// The artifacts of a node that is done, in the order of its outputs.
    fn artifacts(&self, node: NodeIx) -> Option<&[Artifact]>;
}

/// A node whose facts could not be made.
#[derive(Debug)]
pub(super) enum Missing {
    /// A one-file input is absent: the node has nothing to do.
    Absent,
    /// An input file is not there and nobody makes it.
    Input(String),
    /// What its directory holds is not in the cache any more: the node has to make it again.
    Lost(NodeIx),
    /// A tool, a probe or a file could not be read.
    Fault(Error),
}

/// Finds facts and remembers them for the run.
#[derive(Default)]
pub(super) struct FactFinder {
    tools: Mutex<HashMap<String, std::result::Result<String, String>>>,
    services: Mutex<HashMap<ServiceIx, Digest>>,
    contents: Mutex<HashMap<PathBuf, Option<Arc<Content>>>>,
    /// Whether a directory was looked at that no node makes.
    directories: AtomicBool,
    /// Directories that no node makes.
    sources: Mutex<HashMap<PathBuf, Option<Arc<Content>>>>,
    /// Published for one of this graph's files, and declared by no node now.
    orphans: std::sync::OnceLock<HashSet<String>>,
    probes: Mutex<()>,
    /// Inputs that an attempt discovered and that may have changed while it ran, by the first level of the key: the next attempt
    /// looks at them before it begins.
    suspects: Mutex<HashMap<Digest, Vec<String>>>,
}

impl FactFinder {
    /// Content of a path, looked at once per run.
    pub(super) fn content(&self, project: &Project, path: &Path) -> Result<Option<Arc<Content>>> {
        if let Some(known) = lock(&self.contents).get(path) {
            return Ok(known.clone());
        }
        let content = project.workspace.content(path)?.map(Arc::new);
        lock(&self.contents).insert(path.to_owned(), content.clone());
        Ok(content)
    }

    /// A file in a directory whose list the cache has lost: told by the directory itself, if it stands in its place as recorded.
    fn in_place(
        &self,
        project: &Project,
        whole: &Artifact,
        place: &str,
        sub: &str,
    ) -> Result<Option<Artifact>> {
        let place = project.root.join(place);
        if !self.content(project, &place)?.is_some_and(|content| content.artifact == *whole) {
            return Ok(None);
        }
        let file = place.join(sub);
        if !std::fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file()) {
            return Ok(None);
        }
        Ok(self.content(project, &file)?.map(|content| content.artifact.clone()))
    }

    /// Looks at many paths in parallel, at each once.
    pub(super) fn prefetch(&self, project: &Project, looks: impl Iterator<Item = Look>) {
        let looks: IndexSet<Look> = looks.collect();
        let looks: Vec<Look> = looks.into_iter().collect();
        let found = project.workspace.contents(&looks);
        let mut contents = lock(&self.contents);
        for (look, content) in looks.into_iter().zip(found) {
            if let Ok(content) = content {
                contents.insert(look.path, content.map(Arc::new));
            }
        }
    }

    /// What is at `path`, as somebody has just found it.
    pub(super) fn found(&self, path: PathBuf, content: Option<Content>) {
        lock(&self.contents).entry(path).or_insert_with(|| content.map(Arc::new));
    }

    /// What was found at `path`; `None` if it was not looked at since it was last written.
    pub(super) fn known(&self, path: &Path) -> Option<Arc<Content>> {
        lock(&self.contents).get(path).cloned().flatten()
    }

    /// Every path that was looked at, with what was there.
    pub(super) fn seen(&self) -> Vec<(PathBuf, Option<Arc<Content>>)> {
        lock(&self.contents).iter().map(|(path, content)| (path.clone(), content.clone())).collect()
    }

    /// Whether a directory was looked at that no node makes: [`Self::seen`] does not have what lies in it.
    pub(super) fn saw_a_directory(&self) -> bool {
        self.directories.load(Ordering::Relaxed)
    }

    /// A path was written, or seen to change: look again.
    pub(super) fn forget(&self, path: &Path) {
        lock(&self.contents).remove(path);
        lock(&self.sources).remove(path);
    }

    /// Inputs of a node to look at before its next attempt.
    pub(super) fn suspect(&self, first: Digest, paths: Vec<String>) {
        lock(&self.suspects).insert(first, paths);
    }

    /// What an attempt of this run noted by [`suspect`](Self::suspect).
    pub(super) fn suspects(&self, first: &Digest) -> Vec<String> {
        lock(&self.suspects).get(first).cloned().unwrap_or_default()
    }

    /// What a path that no node makes holds now. A directory is taken without what never is an input: `cache/`, `.flow/` and `.git`,
    /// orphans, and the outputs for which `without` is true.
    pub(super) fn source(
        &self,
        project: &Project,
        path: &Path,
        without: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Content>> {
        use crate::graph::Listing;
        // only a directory asks for these
        let disk = std::cell::OnceCell::new();
        let disk = || {
            disk.get_or_init(|| super::listing::Disk::new(&project.root, project.store.dir(), HashSet::new()))
        };
        let orphans = || {
            self.orphans.get_or_init(|| {
                let mine =
                    |row: &crate::store::PublishedRow| !row.append && project.graph.files.contains(&row.file);
                let rows = project.workspace.published().into_iter().filter(mine);
                rows.map(|row| row.path).filter(|path| !project.graph.made_by.contains_key(path)).collect()
            })
        };
        let skip = |full: &Path| {
            let name = full.strip_prefix(&project.root).unwrap_or(full).to_string_lossy();
            disk().hidden(&name) || orphans().contains(&*name) || without(&name)
        };
        project.workspace.source_content(path, &skip)
    }

    /// The same for an input of `node`, which never takes what it makes itself.
    pub(super) fn source_of(&self, project: &Project, node: &Node, path: &Path) -> Result<Option<Content>> {
        self.source(project, path, &|name| node.outputs.iter().any(|output| output.path == name))
    }

    /// [`source_of`](Self::source_of) a directory, looked at once per run where it is the same for all nodes.
    fn source_dir(&self, project: &Project, node: &Node, path: &Path) -> Result<Option<Arc<Content>>> {
        self.directories.store(true, Ordering::Relaxed);
        let own = node.outputs.iter().any(|output| project.root.join(&output.path).starts_with(path));
        if own {
            return Ok(self.source_of(project, node, path)?.map(Arc::new));
        }
        if let Some(known) = lock(&self.sources).get(path) {
            return Ok(known.clone());
        }
        let content = self.source_of(project, node, path)?.map(Arc::new);
        lock(&self.sources).insert(path.to_owned(), content.clone());
        Ok(content)
    }

    /// All facts of a node whose producers are done.
    pub(super) fn facts(
        &self,
        project: &Project,
        node: &Node,
        outputs: &dyn Outputs,
    ) -> std::result::Result<Facts, Missing> {
        let mut facts = Facts {
            pass_env: node.pass_env.iter().map(|name| std::env::var(name).ok()).collect(),
            ..Facts::default()
        };
        for tool in &node.tools {
            facts.tools.push(self.tool(project, tool).map_err(Missing::Fault)?);
        }
        for service in &node.services {
            facts.services.push(self.service(project, *service).map_err(Missing::Fault)?);
        }
        if node.policy == Policy::Sample {
            facts.hardware = Some(project.hardware(node).map_err(Missing::Fault)?);
        }
        for input in &node.inputs {
            let mut files = Vec::with_capacity(input.items.len());
            for item in &input.items {
                match self.input(project, node, item, outputs)? {
                    Some(fact) => files.push(fact),
                    None if input.list => {}
                    None => return Err(Missing::Absent),
                }
            }
            facts.inputs.push(files);
        }
        Ok(facts)
    }

    /// A path that a depfile named; `None` if nothing that the node may read is there now.
    pub(super) fn discovered(
        &self,
        project: &Project,
        taker: &Node,
        path: &str,
        outputs: &dyn Outputs,
    ) -> std::result::Result<Option<InputFact>, Missing> {
        let Discovered::Item(item) = project.graph.discovered(taker, path) else { return Ok(None) };
        if let Item::Source { path, .. } = &item {
            let absolute = project.root.join(path);
            let known = lock(&self.contents).contains_key(&absolute);
            if !known && absolute.is_dir() && !project.graph.makers_inside(taker, path).is_empty() {
                return Ok(None);
            }
        }
        match self.input(project, taker, &item, outputs) {
            Err(Missing::Absent | Missing::Input(_)) => Ok(None),
            other => other,
        }
    }

    /// One file of an input; `None` if it is absent.
    fn input(
        &self,
        project: &Project,
        taker: &Node,
        item: &Item,
        outputs: &dyn Outputs,
    ) -> std::result::Result<Option<InputFact>, Missing> {
        let path = project.graph.item_path(item);
        let artifact = match item {
            Item::Made { node, output } => match outputs.artifacts(*node) {
                Some(artifacts) => artifacts[*output].clone(),
                None => return Ok(None),
            },
            Item::Within { node, output, sub } => {
                let whole = outputs.artifacts(*node).map(|artifacts| artifacts[*output].clone());
                let Some((whole, tree)) = whole.and_then(|whole| Some((whole.clone(), whole.digest()?)))
                else {
                    return Ok(None);
                };
                let found = match project.store.tree(&tree).map_err(Missing::Fault)? {
                    Some(entries) => within(entries, sub).map_err(Missing::Fault)?,
                    None => {
                        let place = &project.graph.nodes[*node].outputs[*output].path;
                        let found = self.in_place(project, &whole, place, sub).map_err(Missing::Fault)?;
                        Some(found.ok_or(Missing::Lost(*node))?)
                    }
                };
                found.ok_or_else(|| Missing::Input(path.clone()))?
            }
            Item::Source { path, inside } => {
                let absolute = project.root.join(path);
                if !inside.is_empty() {
                    self.forget(&absolute);
                }
                let known = lock(&self.contents).contains_key(&absolute);
                let content = if !known && absolute.is_dir() {
                    self.source_dir(project, taker, &absolute)
                } else {
                    self.content(project, &absolute)
                };
                match content.map_err(Missing::Fault)? {
                    Some(content) => content.artifact.clone(),
                    None => return Err(Missing::Input(path.clone())),
                }
            }
        };
        let Some(digest) = artifact.digest() else { return Ok(None) };
        let kind = match artifact {
            Artifact::Tree { .. } => "tree",
            Artifact::File { exec: true, .. } => "executable",
            _ => "file",
        };
        Ok(Some(InputFact { path: shown(&path), kind, digest }))
    }

    /// Asks all probes of these nodes at once; what they answer, also a failure, is remembered.
    pub(super) fn ask_probes<'n>(&self, project: &Project, nodes: impl Iterator<Item = &'n Node>) {
        let mut probes: Vec<&Tool> =
            nodes.flat_map(|node| &node.tools).filter(|tool| matches!(tool, Tool::Version { .. })).collect();
        probes.sort_by_key(|tool| format!("{tool:?}"));
        probes.dedup();
        std::thread::scope(|scope| {
            for tool in probes {
                scope.spawn(|| self.tool(project, tool).is_ok());
            }
        });
    }

    /// Identity of a tool: content digest of the resolved file, or the text its probe prints.
    fn tool(&self, project: &Project, tool: &Tool) -> Result<String> {
        let name = format!("{tool:?}");
        if let Some(known) = lock(&self.tools).get(&name) {
            return known.clone().map_err(lacking);
        }
        let found = match tool {
            Tool::Program(program) => self.program(project, program),
            Tool::Version { argv, files } => self.probe(project, argv, files),
        };
        lock(&self.tools).insert(name, found.clone());
        found.map_err(lacking)
    }

    fn program(&self, project: &Project, program: &str) -> std::result::Result<String, String> {
        let path = resolve(&project.root, program)
            .ok_or_else(|| format!("tool '{program}' was not found in PATH"))?;
        match self.content(project, &path) {
            Ok(Some(content)) => content
                .artifact
                .digest()
                .map(|d| d.to_string())
                .ok_or_else(|| format!("tool '{program}' is no file")),
            Ok(None) => Err(format!("tool '{program}' vanished from {}", path.display())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Asks a program for its version; with `files`, only when their stats changed.
    fn probe(
        &self,
        project: &Project,
        argv: &[String],
        patterns: &[String],
    ) -> std::result::Result<String, String> {
        let stats = if patterns.is_empty() { None } else { Some(probe_stats(project, patterns)?) };
        let path = project.workspace.dir().join("probes.json");
        let mut known = read_probes(&path);
        let name = argv.join("\u{1f}");
        if let (Some(stats), Some(probe)) = (&stats, known.get(&name))
            && probe.files == *stats
        {
            return Ok(probe.output.clone());
        }
        let (program, args) = argv.split_first().ok_or("an empty version command")?;
        let shown = argv.join(" ");
        let output = std::process::Command::new(program)
            .args(args)
            .env_clear()
            .envs(super::session::plain_env())
            .current_dir(&project.root)
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|e| format!("probe `{shown}` could not be started: {e}"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("probe `{shown}` failed ({}): {}", output.status, text.trim()));
        }
        let mut text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if text.is_empty() {
            text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        }
        if let Some(files) = stats {
            // probes run in parallel: what another one wrote meanwhile stays
            let _writing = lock(&self.probes);
            known = read_probes(&path);
            known.insert(name, Probe { files, output: text.clone() });
            let bytes = serde_json::to_vec(&known).map_err(|e| e.to_string())?;
            files::write_atomic(&path, &bytes)
                .map_err(|e| format!("failed to write {}: {e}", path.display()))?;
        }
        Ok(text)
    }

    /// Identity of a service: its definition, tools and files.
    fn service(&self, project: &Project, ix: ServiceIx) -> Result<Digest> {
        if let Some(known) = lock(&self.services).get(&ix) {
            return Ok(*known);
        }
        let service = &project.graph.services[ix];
        let mut tools = Vec::new();
        for tool in &service.identity_tools {
            tools.push(self.tool(project, tool)?);
        }
        let mut found = Vec::new();
        for text in &service.identity_files {
            for path in matching_files(project, text)? {
                let content = self.content(project, &project.root.join(&path))?;
                if let Some(digest) = content.and_then(|c| c.artifact.digest()) {
                    found.push((shown(&path), digest));
                }
            }
        }
        let identity = service_identity(service, &tools, &found);
        lock(&self.services).insert(ix, identity);
        Ok(identity)
    }
}

#[derive(Serialize, Deserialize)]
struct Probe {
    files: Vec<(String, Stat)>,
    output: String,
}

fn read_probes(path: &Path) -> BTreeMap<String, Probe> {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn probe_stats(project: &Project, patterns: &[String]) -> std::result::Result<Vec<(String, Stat)>, String> {
    let mut out = Vec::new();
    for text in patterns {
        for path in matching_files(project, text).map_err(|e| e.to_string())? {
            let stat = Stat::following(&project.root.join(&path)).map_err(|e| format!("{path}: {e}"))?;
            out.push((path, stat));
        }
    }
    Ok(out)
}

pub(super) fn matching_files(project: &Project, text: &str) -> Result<Vec<String>> {
    use crate::graph::Piece;
    let pattern = Pattern::new(&[Piece::Wild(text)])
        .map_err(|e| Error::workflow(format!("identity file pattern '{text}': {e}")))?;
    let disk = super::listing::Disk::new(&project.root, project.store.dir(), Default::default());
    let found = pattern.walk(&disk);
    if found.is_empty() {
        return Err(Error::environment(format!("identity file '{text}' matches nothing")));
    }
    Ok(found)
}

/// A file or directory inside a recorded tree.
fn within(entries: Vec<TreeEntry>, sub: &str) -> Result<Option<Artifact>> {
    if let Some(entry) = entries.iter().find(|entry| entry.path == sub)
        && let TreeEntryKind::File { digest, size, exec } = entry.kind
    {
        return Ok(Some(Artifact::File { digest, size, exec }));
    }
    let prefix = format!("{sub}/");
    let inner: Vec<TreeEntry> = entries
        .into_iter()
        .filter_map(|entry| {
            Some(TreeEntry { path: entry.path.strip_prefix(&prefix)?.to_owned(), kind: entry.kind })
        })
        .collect();
    if inner.is_empty() { Ok(None) } else { crate::store::tree_artifact(&inner).map(Some) }
}

/// A path in a key: as declared, but outside the root only its name.
pub(super) fn shown(path: &str) -> String {
    if path.starts_with('/') || path.starts_with("../") {
        path.rsplit('/').next().unwrap_or(path).to_owned()
    } else {
        path.to_owned()
    }
}

/// The file that a program name means.
pub(super) fn resolve(root: &Path, program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        let path = root.join(program);
        return path.is_file().then_some(path);
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| Stat::following(path).is_ok_and(|stat| stat.executable()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// A tool without an identity: an error, never a key.
fn lacking(message: String) -> Error {
    Error::environment(message).hint(
        "the identity of everything under 'tools' is part of the key: install it, or take it out of 'tools'",
    )
}
