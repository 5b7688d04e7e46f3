//! What decided a run, as it was when last seen, and what of it is different now. Unaware of how a change is noticed.
//!
//! Stats decide. What a pattern lists is judged by listing again, not by the directory's own stat: an editor's swap file and
//! flow's own outputs change the directory, and no input.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;

use super::certificate::{Asked, young};
use super::facts::{matching_files, resolve};
use super::project::Project;
use crate::base::clock;
use crate::base::digest::Digest;
use crate::base::files::{Stat, normalize};
use crate::error::Result;
use crate::graph::{Item, select};
use crate::model::Tool;

/// A file system's tick, and how often it is waited for.
const TICK: Duration = Duration::from_millis(21);
const YOUNG_LOOKS: usize = 5;

/// How a path was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing was there.
    Nothing,
    /// A file.
    File(Stat),
    /// A directory: the stat of every file in it, `None` for directories.
    Tree(BTreeMap<PathBuf, Option<Stat>>),
    /// It changed while it was read: different from whatever is there now.
    Changing,
}

impl Seen {
    /// Whether it could still change without its time stamps telling.
    fn young(&self, now_ns: i64) -> bool {
        match self {
            Self::Nothing | Self::Changing => false,
            Self::File(stat) => young(stat, now_ns),
            Self::Tree(tree) => tree.values().flatten().any(|stat| young(stat, now_ns)),
        }
    }

    /// How `path` is, links followed.
    pub fn now(path: &Path) -> Self {
        Self::without(path, &|_| false)
    }

    /// The same; in a directory nothing for which `skip` is true counts.
    fn without(path: &Path, skip: &dyn Fn(&Path) -> bool) -> Self {
        match Stat::following(path) {
            Err(_) => Self::Nothing,
            Ok(stat) if !stat.is_dir() => Self::File(stat),
            Ok(_) => {
                let mut tree = BTreeMap::new();
                walk(path, skip, &mut tree);
                Self::Tree(tree)
            }
        }
    }
}

fn walk(dir: &Path, skip: &dyn Fn(&Path) -> bool, out: &mut BTreeMap<PathBuf, Option<Stat>>) {
    // what cannot be read is seen as empty: the run says what is wrong with it
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if skip(&path) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            walk(&path, skip, out);
            out.insert(path, None);
        } else {
            // a link counts by itself, as in the digest of a tree
            out.insert(path.clone(), Stat::of(&path).ok());
        }
    }
}

/// Everything that decided a run.
#[derive(Clone, Debug)]
pub struct Watchlist {
    root: PathBuf,
    /// Relative to the root, if it lies inside.
    cache: Option<PathBuf>,
    /// Sources, files that declare the workflow, tools.
    inputs: BTreeMap<PathBuf, Seen>,
    outputs: BTreeMap<PathBuf, Seen>,
    asked: Asked,
    /// Of the selected nodes and the items that they take.
    shape: Digest,
}

impl Watchlist {
    /// What will decide a run of `targets`, as it is now. `declared`: files besides the workflow's that declare it, as they were before
    /// they were read. `embedded`: the root workflow is part of the program.
    pub fn new(
        project: &Project,
        targets: &[String],
        declared: Vec<(PathBuf, Seen)>,
        embedded: bool,
    ) -> Result<Self> {
        let (root, graph) = (&project.root, &project.graph);
        let selection = select(graph, targets)?;
        let cache = project.store.dir().strip_prefix(root).ok().map(Path::to_owned);
        let mut list = Self {
            root: root.clone(),
            cache,
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            asked: project.asked.clone(),
            shape: Digest::of(b""),
        };
        let mut shape = blake3::Hasher::new();
        let mut put = |text: &str| {
            shape.update(&(text.len() as u64).to_le_bytes());
            shape.update(text.as_bytes());
        };
        let mut services = BTreeSet::new();
        let mut paths = BTreeSet::new();
        for ix in selection.nodes.iter() {
            let node = &graph.nodes[ix];
            put(&node.id);
            for input in &node.inputs {
                put(&input.name);
                for item in &input.items {
                    let path = graph.item_path(item);
                    put(&path);
                    if let Item::Source { .. } = item {
                        paths.insert(normalize(&root.join(path)));
                    }
                }
            }
            for output in &node.outputs {
                put(&output.path);
                list.outputs.insert(root.join(&output.path), Seen::Nothing);
            }
            add_tools(project, &node.tools, &mut paths);
            services.extend(node.services.iter().copied());
        }
        for service in services.into_iter().map(|ix| &graph.services[ix]) {
            add_tools(project, &service.identity_tools, &mut paths);
            add_files(project, &service.identity_files, &mut paths);
        }
        list.shape = Digest::from(shape);
        list.inputs = list.look(paths.into_iter().collect());
        list.settle();
        for source in project.loaded.iter().flat_map(|loaded| &loaded.sources.0).skip(usize::from(embedded)) {
            // another text than the one that was read is a change already
            let path = vec![source.path.clone()];
            list.inputs.extend(list.look(path));
            if !std::fs::read(&source.path).is_ok_and(|text| text == source.text.as_bytes()) {
                list.inputs.insert(source.path.clone(), Seen::Changing);
            }
        }
        list.inputs.extend(declared);
        Ok(list)
    }

    /// A run ended: the outputs are as they ought to be.
    pub fn settle(&mut self) {
        self.outputs = self.look(self.outputs.keys().cloned().collect());
    }

    /// Adds files that a run looked at besides: what its commands said they read.
    pub fn add(&mut self, seen: Vec<(PathBuf, Seen)>) {
        for (path, seen) in seen {
            let known =
                path.ancestors().any(|dir| self.inputs.contains_key(dir) || self.outputs.contains_key(dir));
            // a directory is looked at for what it holds; what is to be absent is an output
            let file = matches!(seen, Seen::File(stat) if !stat.is_dir());
            if file && !known && !self.hidden(&path) {
                self.inputs.insert(path, seen);
            }
        }
    }

    /// Everything counts as seen, as it is now.
    pub fn accept(&mut self) {
        self.inputs = self.look(self.inputs.keys().cloned().collect());
        self.settle();
    }

    /// How the paths are now. What is so young that it could still change with equal time stamps is looked at again a tick later.
    fn look(&self, paths: Vec<PathBuf>) -> BTreeMap<PathBuf, Seen> {
        let look = |paths: Vec<PathBuf>| -> BTreeMap<PathBuf, Seen> {
            let seen = paths.into_par_iter().map(|path| (self.now(&path), path));
            seen.map(|(seen, path)| (path, seen)).collect()
        };
        let mut all = look(paths);
        for _ in 0..YOUNG_LOOKS {
            let now = clock::now_ns();
            let young = all
                .iter()
                .filter(|(_, seen)| seen.young(now))
                .map(|(path, _)| path.clone())
                .collect::<Vec<_>>();
            if young.is_empty() {
                break;
            }
            std::thread::sleep(TICK);
            all.extend(look(young));
        }
        all
    }

    fn now(&self, path: &Path) -> Seen {
        Seen::without(path, &|inner| self.hidden(inner) || self.outputs.contains_key(inner))
    }

    /// Never an input.
    fn hidden(&self, path: &Path) -> bool {
        let inner = path.strip_prefix(&self.root).unwrap_or(path);
        inner.starts_with(".flow")
            || inner.components().any(|part| part.as_os_str() == ".git")
            || self.cache.as_ref().is_some_and(|cache| inner.starts_with(cache))
    }

    /// Inputs that are not as they were, by name.
    pub fn changed_inputs(&self) -> Vec<String> {
        self.differing(&self.inputs)
    }

    /// Inputs and outputs that are not as they were, by name.
    pub fn changed(&self) -> Vec<String> {
        let mut names = self.differing(&self.inputs);
        names.extend(self.differing(&self.outputs));
        names.sort();
        names
    }

    fn differing(&self, among: &BTreeMap<PathBuf, Seen>) -> Vec<String> {
        let mut names: Vec<String> = among
            .par_iter()
            .filter_map(|(path, then)| {
                let now = self.now(path);
                (now != *then).then(|| self.name(&within(path, then, &now)))
            })
            .collect();
        names.sort();
        names
    }

    /// A path as a person names it.
    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// Whether a directory that a pattern listed has another stat, or a path appeared or vanished that was asked for: what the patterns
    /// mean has to be found out anew.
    pub fn listed_differs(&self) -> bool {
        let at = |path: &str| self.root.join(path);
        self.asked.dirs.iter().any(|(dir, then)| Stat::following(&at(dir)).ok() != *then)
            || self.asked.files.iter().any(|(path, there)| at(path).is_file() != *there)
            || self.asked.is_dir.iter().any(|(path, there)| at(path).is_dir() != *there)
    }

    /// What was listed anew. The same meaning: remembered as seen, and nothing changed. Else the paths that came and went, by name.
    pub fn relisted(&mut self, project: &Project, targets: &[String]) -> Result<Vec<String>> {
        let new = Self::new(project, targets, Vec::new(), true)?;
        if new.shape == self.shape {
            self.asked = new.asked;
            return Ok(Vec::new());
        }
        let came = new.inputs.keys().filter(|path| !self.inputs.contains_key(*path));
        let went = self.inputs.iter().filter(|(path, seen)| {
            **seen != Seen::Nothing && !new.inputs.contains_key(*path) && !path.exists()
        });
        let mut names: Vec<String> = came.chain(went.map(|(path, _)| path)).map(|p| self.name(p)).collect();
        names.sort();
        if names.is_empty() {
            // an axis that lists a directory
            names.extend(self.asked.dirs.keys().next().map(|dir| format!("{dir}/")));
        }
        Ok(names)
    }

    /// Files and directories in it.
    pub fn len(&self) -> usize {
        self.inputs.len() + self.outputs.len() + self.asked.dirs.len()
    }

    /// True if nothing decides the run.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether something that happened to `path` may have changed what decides a run.
    pub fn concerns(&self, path: &Path) -> bool {
        if self.hidden(path) {
            return false;
        }
        let known = |map: &BTreeMap<PathBuf, Seen>| {
            // itself, something below it, or a directory that it lies in
            map.range(path.to_owned()..).next().is_some_and(|(next, _)| next.starts_with(path))
                || path.ancestors().any(|dir| matches!(map.get(dir), Some(Seen::Tree(_))))
        };
        let name = path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy();
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        known(&self.inputs)
            || known(&self.outputs)
            || self.asked.dirs.contains_key(parent)
            || names_below(&self.asked.dirs, &name)
            || names_below(&self.asked.files, &name)
            || names_below(&self.asked.is_dir, &name)
    }

    /// The directories in which a change is an event: those of all paths, those that patterns listed, every directory of a tree, and
    /// everything above them up to the root. Of a directory that is not there, the nearest one above it.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let mut dirs = BTreeSet::new();
        for (path, seen) in self.inputs.iter().chain(&self.outputs) {
            self.add_dir(path.parent(), &mut dirs);
            if path.is_symlink()
                && let Ok(real) = path.canonicalize()
            {
                // where it leads
                self.add_dir(real.parent(), &mut dirs);
            }
            if let Seen::Tree(tree) = seen {
                self.add_dir(Some(path), &mut dirs);
                dirs.extend(tree.iter().filter(|(_, stat)| stat.is_none()).map(|(path, _)| path.clone()));
            }
        }
        for dir in self.asked.dirs.keys().chain(self.asked.is_dir.keys()) {
            self.add_dir(Some(&self.root.join(dir)), &mut dirs);
        }
        for file in self.asked.files.keys() {
            self.add_dir(self.root.join(file).parent(), &mut dirs);
        }
        dirs
    }

    fn add_dir(&self, dir: Option<&Path>, dirs: &mut BTreeSet<PathBuf>) {
        let there = dir.and_then(|dir| dir.ancestors().find(|dir| dirs.contains(*dir) || dir.is_dir()));
        for dir in there.into_iter().flat_map(Path::ancestors) {
            let inside = dir.starts_with(&self.root);
            if self.hidden(dir) || !dirs.insert(normalize(dir)) || !inside {
                break;
            }
            if dir == self.root {
                break;
            }
        }
    }
}

/// Whether `path` or something below it is a key.
fn names_below<T>(map: &BTreeMap<String, T>, path: &str) -> bool {
    let inner = format!("{path}/");
    map.contains_key(path)
        || map.range(inner.clone()..).next().is_some_and(|(key, _)| key.starts_with(&inner))
}

/// The one path that makes two looks at `path` differ, if it is one inside of it.
fn within(path: &Path, then: &Seen, now: &Seen) -> PathBuf {
    let (Seen::Tree(then), Seen::Tree(now)) = (then, now) else { return path.to_owned() };
    let differs = |(inner, stat): &(&PathBuf, &Option<Stat>), other: &BTreeMap<PathBuf, Option<Stat>>| {
        other.get(*inner) != Some(stat)
    };
    let changed = now.iter().find(|entry| differs(entry, then));
    let gone = then.iter().find(|entry| differs(entry, now));
    changed.or(gone).map_or_else(|| path.to_owned(), |(inner, _)| inner.clone())
}

/// Files that tools are: those given by path, and where the others are found now.
fn add_tools(project: &Project, tools: &[Tool], paths: &mut BTreeSet<PathBuf>) {
    for tool in tools {
        match tool {
            Tool::Program(program) => {
                let found = resolve(&project.root, program);
                let missing = || program.contains('/').then(|| project.root.join(program));
                paths.extend(found.or_else(missing).map(|path| normalize(&path)));
            }
            Tool::Version { argv, files } => {
                let program = argv.first().filter(|program| program.contains('/'));
                paths.extend(program.map(|program| normalize(&project.root.join(program))));
                add_files(project, files, paths);
            }
        }
    }
}

/// Files of a tool or service that patterns name; the run says what is wrong with a pattern.
fn add_files(project: &Project, patterns: &[String], paths: &mut BTreeSet<PathBuf>) {
    for pattern in patterns {
        for path in matching_files(project, pattern).unwrap_or_default() {
            paths.insert(normalize(&project.root.join(path)));
        }
    }
}
