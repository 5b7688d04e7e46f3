//! What a command says it read: its depfile found, read, and turned into discovered inputs. Unaware of which results are known.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::attempt::{Failure, Job};
use super::collect::Made;
use super::evaluate::Keyed;
use super::facts::Missing;
use super::scratch::Scratch;
use super::second_level::{in_order, with_discovered};
use super::session::Session;
use crate::base::digest::Digest;
use crate::base::files::{self, Stat};
use crate::error::{Error, Result};
use crate::exec::parse_depfile;
use crate::graph::{Discovered, Identity, Item, Late, Node, NodeIx, Output, Seg};
use crate::key::InputFact;

/// A time stamp may lie this much before the moment of the change.
const TICK_NS: i64 = 10_000_000;
/// Names of unordered files that an error lists.
const LISTED: usize = 5;

/// Where an attempt writes its depfile.
pub(super) struct Depfile {
    path: PathBuf,
    /// As declared.
    shown: String,
    /// It lies in the workspace and is no output: read, it has served.
    remove: bool,
}

impl Depfile {
    /// Decides where the depfile of a command goes; `made`: where the outputs go. What stands at a place in the workspace is set aside.
    pub(super) fn place(
        session: &Session,
        node: &Node,
        made: &[Made],
        scratch: &mut Scratch<'_>,
    ) -> Result<Option<Self>> {
        let Some(declared) = node.depfile() else { return Ok(None) };
        let root = &session.project.root;
        let mut text = String::new();
        for seg in &declared.0 {
            match seg {
                Seg::Lit(part) | Seg::Aliased { value: part, .. } => text.push_str(part),
                Seg::Late(late) => {
                    let named = |output: &Output| matches!(late, Late::Output(name) if *name == output.name);
                    let at = node.outputs.iter().position(named);
                    let at = at.ok_or_else(|| Error::bug(format!("a depfile at {}", late.identity())))?;
                    text.push_str(&made[at].path.to_string_lossy());
                }
            }
        }
        let mut path = files::normalize(&root.join(text));
        let mut remove = !path.starts_with(session.scratch()?);
        for (output, made) in node.outputs.iter().zip(made) {
            // an output may be the depfile, or hold it: then it is published with it
            if let Ok(sub) = path.strip_prefix(root.join(&output.path)) {
                path = if sub.as_os_str().is_empty() { made.path.clone() } else { made.path.join(sub) };
                remove = false;
                break;
            }
        }
        if remove {
            super::publish::make_parent(&path)?;
            path = scratch.direct(path)?.path;
        }
        Ok(Some(Self { path, shown: declared.fill(&Identity).unwrap_or_default(), remove }))
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// What was at the paths of known lists before an attempt.
pub(super) type Before = BTreeMap<String, Option<Digest>>;

/// What reading a depfile gave.
pub(super) enum Discovery {
    /// The whole key.
    Inputs(Keyed),
    /// This one changed while the command ran, as far as can be told.
    Changed(String),
}

impl Job<'_> {
    /// Looks at everything that the command may discover again.
    pub(super) fn look_at_known(&self, keyed: &Keyed) -> Result<Before> {
        let mut before = Before::new();
        if self.node.depfile().is_none() {
            return Ok(before);
        }
        let project = &self.session.project;
        let first = keyed.first_key(project, self.node);
        let lists = project.store.discovered(&first)?;
        let suspects = self.finder.suspects(&first);
        for path in lists.iter().flat_map(|list| list.iter()).chain(&suspects) {
            if !before.contains_key(path) {
                before.insert(path.clone(), self.source_now(path)?);
            }
        }
        Ok(before)
    }

    /// The content of a path that no node makes.
    fn source_now(&self, path: &str) -> Result<Option<Digest>> {
        let content =
            self.finder.source_of(&self.session.project, self.node, &self.session.project.root.join(path))?;
        Ok(content.and_then(|content| content.artifact.digest()))
    }

    /// Reads the depfile of a command that succeeded. `begun_ns`: when it started.
    pub(super) fn discover(
        &mut self,
        keyed: &Keyed,
        depfile: &Depfile,
        before: &Before,
        begun_ns: i64,
    ) -> std::result::Result<Discovery, Failure> {
        let project = &self.session.project;
        let named = self.read(depfile)?;
        let scratch = self.session.scratch().map_err(Failure::from)?;
        let given: HashSet<String> = self.given();
        let cwd = self.node.action.io().and_then(|io| io.cwd.as_ref());
        let cwd = cwd.map_or_else(|| project.root.clone(), |cwd| project.root.join(cwd));
        let mut items: BTreeMap<String, Item> = BTreeMap::new();
        let mut unordered: BTreeMap<String, Vec<NodeIx>> = BTreeMap::new();
        for (name, line) in named {
            let fault = |message: String| Failure::new(format!("{}:{line}: {message}", depfile.shown));
            let full = cwd.join(&name);
            // what flow itself put into scratch for this attempt, and the depfile
            if files::normalize(&full).starts_with(scratch) || files::normalize(&full) == depfile.path {
                continue;
            }
            let Ok(stat) = Stat::following(&full) else {
                let mut failure = fault(format!("names {name}, which is not there"));
                failure.hints.push(format!(
                    "what a depfile names is relative to the directory in which the command runs ({}), and still there when it ends",
                    cwd.strip_prefix(&project.root).map_or(".".into(), |dir| match dir.to_string_lossy() {
                        dir if dir.is_empty() => ".".into(),
                        dir => dir,
                    })
                ));
                return Err(failure);
            };
            let path = path_of(&project.root, &full, &stat);
            if covered(&given, &path) {
                continue;
            }
            if !stat.is_dir() && !stat.is_file() {
                self.log.line(&format!("{}:{line}: {name} is no file; it is no input", depfile.shown));
                continue;
            }
            if project.root.join(&path).starts_with(project.store.dir()) || covered_by(&path, ".flow") {
                return Err(fault(format!("names {name}, which lies in a directory of flow's own")));
            }
            match project.graph.discovered(self.node, &path) {
                Discovered::Own => {}
                Discovered::Unordered(makers) => drop(unordered.insert(path, makers)),
                Discovered::Item(item) => {
                    let inside = match (&item, stat.is_dir()) {
                        (Item::Source { path, .. }, true) => project.graph.makers_inside(self.node, path),
                        _ => Vec::new(),
                    };
                    if inside.is_empty() {
                        items.insert(path, item);
                    } else {
                        unordered.insert(path, inside);
                    }
                }
            }
        }
        if !unordered.is_empty() {
            return Err(self.undeclared(depfile, &unordered));
        }
        self.facts(keyed, items, before, begun_ns)
    }

    /// The files that the depfile names, with their lines. It is taken away, unless it is an output.
    fn read(&self, depfile: &Depfile) -> std::result::Result<BTreeMap<String, usize>, Failure> {
        let bytes = match std::fs::read(&depfile.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut failure = Failure::new(format!("depfile {} was not written", depfile.shown));
                failure.hints.push(
                    "the command says there what it read, e.g. cc -MMD -MF FILE; the path is relative to the workspace root"
                        .to_owned(),
                );
                return Err(failure);
            }
            Err(error) => return Err(Error::io("read", &depfile.path, error).into()),
        };
        if depfile.remove {
            files::remove_any(&depfile.path)
                .map_err(|e| Failure::from(Error::io("remove", &depfile.path, e)))?;
            files::remove_empty_parents(&depfile.path, &self.session.project.root);
        }
        parse_depfile(&bytes).map_err(|fault| {
            let mut failure = Failure::new(format!("{}:{}: {}", depfile.shown, fault.line, fault.message));
            failure.hints.push("a depfile holds rules as in a Makefile: 'target: file file ...'".to_owned());
            failure
        })
    }

    /// Paths of declared inputs: their content is in the key already.
    fn given(&self) -> HashSet<String> {
        let graph = &self.session.project.graph;
        self.inputs
            .iter()
            .flatten()
            .filter(|item| !self.is_appended(item))
            .map(|item| graph.item_path(item))
            .collect()
    }

    fn undeclared(&self, depfile: &Depfile, unordered: &BTreeMap<String, Vec<NodeIx>>) -> Failure {
        let graph = &self.session.project.graph;
        let id = &self.node.id;
        let mut lines = Vec::new();
        let mut steps = BTreeSet::new();
        for (path, makers) in unordered {
            let maker = &graph.nodes[makers[0]];
            steps.extend(makers.iter().map(|maker| graph.nodes[*maker].step.as_str()));
            let verb = if graph.made_by.contains_key(path) { "makes" } else { "makes (something in it)" };
            lines.push(format!(
                "{id} read {path}, which {} {verb}, and does not say that it comes after it",
                maker.id
            ));
        }
        if lines.len() > LISTED {
            let more = lines.len() - LISTED;
            lines.truncate(LISTED);
            lines.push(format!("and {more} more"));
        }
        let steps: Vec<String> = steps.into_iter().map(|step| format!("\"{step}\"")).collect();
        let mut failure = Failure::new(format!("{}: {}", depfile.shown, lines.join("\n")));
        failure
            .hints
            .push(format!("declare what it reads under 'inputs', or add \"needs\": [{}]", steps.join(", ")));
        failure
    }

    /// The key with what lies at these paths now, unless something of it changed since the attempt began.
    fn facts(
        &self,
        keyed: &Keyed,
        items: BTreeMap<String, Item>,
        before: &Before,
        begun_ns: i64,
    ) -> std::result::Result<Discovery, Failure> {
        let project = &self.session.project;
        let mut facts: Vec<InputFact> = Vec::with_capacity(items.len());
        let mut changed = None;
        for (path, item) in &items {
            let absolute = project.root.join(path);
            self.finder.forget(&absolute);
            let fact = match self.finder.discovered(project, self.node, path, &self.fed) {
                Ok(fact) => fact,
                Err(Missing::Fault(error)) => return Err(error.into()),
                Err(_) => None,
            };
            let Some(fact) = fact else {
                changed.get_or_insert_with(|| path.clone());
                continue;
            };
            let same = match item {
                // what the command read is what its maker made
                Item::Made { .. } | Item::Within { .. } => {
                    let content = project.workspace.content(&absolute).map_err(Failure::from)?;
                    content.and_then(|content| content.artifact.digest()) == Some(fact.digest)
                }
                Item::Source { .. } => match before.get(path) {
                    Some(then) => *then == Some(fact.digest),
                    None => Stat::following(&absolute).is_ok_and(|stat| stat.ctime_ns < begun_ns - TICK_NS),
                },
            };
            if !same {
                changed.get_or_insert_with(|| path.clone());
            }
            facts.push(fact);
        }
        let paths: Vec<String> = items.into_keys().collect();
        if let Some(path) = changed {
            self.finder.suspect(keyed.first_key(project, self.node), paths);
            return Ok(Discovery::Changed(path));
        }
        let keyed = Keyed::new(project, self.node, with_discovered(keyed, in_order(facts)));
        if !self.session.options.no_cache {
            // committed before the result that it leads to
            let first = keyed.first_key(project, self.node);
            project.store.put_discovered(&first, &paths).map_err(Failure::from)?;
        }
        Ok(Discovery::Inputs(keyed))
    }
}

/// A path as lists hold it: relative to the root if it lies there, else as it was named. `stat`: of what it leads to.
fn path_of(root: &Path, full: &Path, stat: &Stat) -> String {
    let same = |path: &Path| {
        Stat::following(path).is_ok_and(|other| (other.device, other.inode) == (stat.device, stat.inode))
    };
    let mut path = files::normalize(full);
    // `link/../x` is not `x`
    if !same(&path)
        && let Ok(real) = full.canonicalize()
    {
        path = real;
    }
    if !path.starts_with(root)
        && let Ok(real) = path.canonicalize()
        && real.starts_with(root)
    {
        path = real;
    }
    path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned()
}

/// Whether `path` is one of `dirs`, or lies in one.
fn covered(dirs: &HashSet<String>, path: &str) -> bool {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(dir, _)| dir))
        .any(|dir| dirs.contains(dir))
}

fn covered_by(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
