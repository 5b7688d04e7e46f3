//! A run that goes on from the certificate of one since when listed directories changed: the workflow is expanded anew, but only the
//! directories that changed are read. Nodes that are as they were, with what they take and make, are not looked at; the next
//! certificate is the old one with what was added. Unaware of running.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::certificate::{Asked, Certificate, Certified, Changed, Update, Witness, environment, young};
use super::certify::is_one_of;
use super::compiled::{self, ABSENT, Compiled, Lists, Tables, Texts};
use super::facts::{FactFinder, Outputs};
use super::known::{Known, open, roots};
use super::project::{Expanded, Project, expand_in};
use super::run::weigh;
use super::session::{Session, secret_names};
use super::{listed, query, recover};
use crate::api::Catalog;
use crate::base::digest::Digest;
use crate::base::files::Stat;
use crate::error::Result;
use crate::front::Loaded;
use crate::graph::{Entry, Graph, Item, Node, NodeIx, select};
use crate::key;
use crate::model::{Artifact, Policy};

/// What a run that goes on holds for the next plan.
pub(super) struct Grown {
    texts: Texts,
}

/// Opens the project of a certificate of `targets` whose directories changed. `None` if more is different than that nodes came in and others changed.
pub fn grow(
    changed: Changed,
    loaded: &Loaded,
    root: &Path,
    cache: &Path,
    catalog: &Catalog,
    targets: &[String],
) -> Result<Option<Project>> {
    let begun = Instant::now();
    let certified = changed.certificate.certified.clone();
    let (Some(plan), Some(listed)) = (certified.plan, certified.listed) else { return Ok(None) };
    let entries = entries(&changed.certificate);
    if !is_declared(&changed.certificate, &entries, loaded) {
        return Ok(None);
    }
    let opened = || (open(cache, root), listed::read(&changed.place, &listed));
    let Some((compiled, (opened, listed))) = compiled::read(&changed.place, &plan, |_| opened()) else {
        return Ok(None);
    };
    let Some(listed) = listed else { return Ok(None) };
    let (store, workspace) = opened?;
    workspace.read_published()?;
    let known = unchanged(&changed, listed);
    let Expanded { graph, mut asked, listed } =
        expand_in(loaded, workspace.root(), &store, &workspace, catalog, known)?;
    // a plan is only made of all nodes
    if select(&graph, targets)?.nodes.len() < graph.nodes.len() {
        return Ok(None);
    }
    let digest = || key::plan_digest(&graph, &mut (0..graph.nodes.len()));
    let ((texts, matched), plan_digest) = rayon::join(|| matched(&graph, &compiled), digest);
    let (Some(texts), Some(matched)) = (texts, matched) else { return Ok(None) };
    let others = || graph.nodes.iter().enumerate().filter(|(ix, _)| !matches!(matched[*ix], Then::Same(_)));
    // what an old node and a new tool have in common no table says
    if !others().all(|(_, node)| is_plain(node)) || graph.nodes.iter().any(|node| !node.tools.is_empty()) {
        return Ok(None);
    }
    for name in others().flat_map(|(_, node)| &node.pass_env) {
        asked.env.insert(name.clone(), environment(name));
    }
    let tables = tables(&graph, &matched, &compiled, &entries);
    let Some(mut roots) = roots(&tables, &changed) else { return Ok(None) };
    // a path in a key may be that of a producer
    for (ix, _) in others() {
        roots.push(ix);
        roots.extend(graph.dependents(ix));
    }
    roots.sort_unstable();
    roots.dedup();
    drop(entries);
    let certified = Certified {
        nodes: graph.nodes.len(),
        plan_digest,
        asked: joined(certified.asked, asked.clone()),
        ..certified
    };
    let closure = tables.closure(&roots);
    let mut project = Project {
        root: workspace.root().to_owned(),
        loaded: Some(loaded.clone()),
        catalog: catalog.clone(),
        graph,
        store,
        workspace,
        asked,
        listed,
        expand_seconds: begun.elapsed().as_secs_f64(),
        opened_ns: changed.began_ns,
        machine: super::machine::Machine::default(),
        known: None,
    };
    let orphans = query::orphans(&project);
    project.known = Some(Known {
        changed: Mutex::new(changed),
        certified: Certified { orphans, ..certified },
        tables,
        grown: Some(Grown { texts }),
        roots,
        closure,
    });
    Ok((!recover::pending(&project)).then_some(project))
}

/// Entries of a certificate by path.
fn entries(certificate: &Certificate) -> HashMap<&str, u32> {
    let paths = (0..certificate.len()).filter_map(|n| Some((certificate.path(n).to_str()?, n as u32)));
    paths.collect()
}

/// Whether the workflow is the one of the certificate.
fn is_declared(certificate: &Certificate, entries: &HashMap<&str, u32>, loaded: &Loaded) -> bool {
    loaded.sources.0.iter().all(|source| {
        let entry = source.path.to_str().and_then(|path| entries.get(path));
        let content = entry.and_then(|n| certificate.content(*n as usize));
        content.and_then(|content| content.artifact.digest()) == Some(Digest::of(source.text.as_bytes()))
    })
}

/// The directories that need not be read.
fn unchanged(
    changed: &Changed,
    listed: Vec<(String, Arc<[Entry]>)>,
) -> HashMap<String, (Stat, Arc<[Entry]>)> {
    let dirs: HashSet<&str> = changed.dirs.iter().map(String::as_str).collect();
    let then = &changed.certificate.certified.asked.dirs;
    let same = listed.into_iter().filter(|(dir, _)| !dirs.contains(dir.as_str()));
    same.filter_map(|(dir, entries)| Some(((*then.get(&dir)?)?, (dir, entries))))
        .map(|(stat, (dir, entries))| (dir, (stat, entries)))
        .collect()
}

/// All that was asked then and now.
fn joined(then: Asked, now: Asked) -> Asked {
    let Asked { mut files, mut is_dir, mut env, .. } = then;
    files.extend(now.files);
    is_dir.extend(now.is_dir);
    env.extend(now.env);
    Asked { dirs: now.dirs, files, is_dir, env }
}

/// For each node the one of the plan with its id, and whether that is the same.
#[derive(Clone, Copy)]
enum Then {
    New,
    Changed(NodeIx),
    Same(NodeIx),
}

/// The texts of the nodes, and what they were; nothing of the latter if a node of the plan is gone.
fn matched(graph: &Graph, compiled: &Compiled) -> (Option<Texts>, Option<Vec<Then>>) {
    let Some(texts) = Texts::of(graph) else { return (None, None) };
    let then = then(graph, &texts, compiled);
    (Some(texts), then)
}

fn then(graph: &Graph, texts: &Texts, compiled: &Compiled) -> Option<Vec<Then>> {
    let by_id: Option<HashMap<&str, NodeIx>> =
        (0..compiled.len()).map(|ix| Some((compiled.id(ix)?, ix))).collect();
    let by_id = by_id?;
    let then: Vec<Option<NodeIx>> = graph.nodes.iter().map(|node| by_id.get(&*node.id).copied()).collect();
    let mut now: Vec<Option<NodeIx>> = vec![None; compiled.len()];
    for (ix, then) in then.iter().enumerate() {
        if let Some(then) = then {
            now[*then] = Some(ix);
        }
    }
    let now: Vec<NodeIx> = now.into_iter().collect::<Option<_>>()?;
    let old = compiled.graph(&[]);
    let of = |(ix, then): (NodeIx, Option<NodeIx>)| {
        let Some(then) = then else { return Then::New };
        let node = &graph.nodes[ix];
        let alone = node.producers.is_empty() && node.needs.is_empty();
        let equal = if alone {
            compiled.text(then) == texts.get(ix)
        } else {
            let mut was = old.nodes[then].clone();
            renumber(&mut was, &now);
            postcard::to_stdvec(&was).is_ok_and(|was| was == texts.get(ix))
        };
        if equal { Then::Same(then) } else { Then::Changed(then) }
    };
    Some(then.into_iter().enumerate().map(of).collect())
}

/// Puts the numbers of now in the place of those of the plan.
fn renumber(node: &mut Node, now: &[NodeIx]) {
    for item in node.inputs.iter_mut().flat_map(|input| &mut input.items) {
        match item {
            Item::Made { node, .. } | Item::Within { node, .. } => *node = now[*node],
            Item::Source { inside, .. } => inside.iter_mut().for_each(|node| *node = now[*node]),
        }
    }
    node.needs.iter_mut().chain(&mut node.producers).for_each(|node| *node = now[*node]);
}

/// Whether a certificate and a plan can hold a node that was not there.
fn is_plain(node: &Node) -> bool {
    let single = |item: &Item| match item {
        Item::Made { .. } => true,
        Item::Source { inside, .. } => inside.is_empty(),
        Item::Within { .. } => false,
    };
    node.policy == Policy::Pure
        && node.services.is_empty()
        && node.depfile().is_none()
        && node.resources.jobserver.is_none()
        && node.inputs.iter().flat_map(|input| &input.items).all(single)
        && !node.outputs.iter().any(|output| output.append || output.dir)
}

/// The tables of the graph as it is now, with the entries that there are.
fn tables(graph: &Graph, matched: &[Then], compiled: &Compiled, entries: &HashMap<&str, u32>) -> Tables {
    let mut tables = Tables {
        name: graph.name.clone(),
        file: graph.file.clone(),
        files: graph.files.clone(),
        resources: graph.resources.clone(),
        secrets: secret_names(graph),
        order: graph.order.iter().map(|ix| *ix as u32).collect(),
        ..Tables::default()
    };
    for (ix, node) in graph.nodes.iter().enumerate() {
        tables.dependents.push(graph.dependents(ix).map(|dependent| dependent as u32));
        tables.weights.push(match matched[ix] {
            Then::Same(then) | Then::Changed(then) => compiled.tables.weights[then],
            Then::New => u32::try_from(weigh(node, &[])).unwrap_or(u32::MAX),
        });
        if let Then::Same(then) = matched[ix] {
            tables.takes.push(compiled.tables.takes.of(then).iter().copied());
            tables.makes.push(compiled.tables.makes.of(then).iter().copied());
            continue;
        }
        tables.takes.push(sources(node).filter_map(|path| entries.get(path).copied()));
        let make = |path: &str| entries.get(path).copied().unwrap_or(ABSENT);
        tables.makes.push(node.outputs.iter().map(|output| make(&output.path)));
    }
    tables
}

/// Paths of what a node takes and no node makes.
fn sources(node: &Node) -> impl Iterator<Item = &str> {
    node.inputs.iter().flat_map(|input| &input.items).filter_map(|item| match item {
        Item::Source { path, .. } => Some(path.as_str()),
        Item::Made { .. } | Item::Within { .. } => None,
    })
}

/// After a run in which all went well: the certificate of all nodes. Without it the next run goes on from the old one: no harm.
pub(super) fn certify(
    session: &Session,
    known: &Known,
    finder: &FactFinder,
    looked_at: impl Iterator<Item = NodeIx>,
    outputs: &dyn Outputs,
) {
    let Some((place, extra)) = &session.options.certificate else { return };
    let young = |stat: &Stat| young(stat, session.started_ns);
    if finder.saw_a_directory() || known.certified.asked.dirs.values().flatten().any(young) {
        return;
    }
    let mut changed = known.changed.lock().unwrap_or_else(PoisonError::into_inner);
    let growth = Growth::new(session, known, changed.certificate.len(), extra);
    let (Some(grown), Some(mut growth)) = (&known.grown, growth) else { return };
    let entries = entries(&changed.certificate);
    let looked_at: HashSet<NodeIx> = looked_at.collect();
    let (mut takes, mut makes) = (Lists::default(), Lists::default());
    for ix in 0..session.project.graph.nodes.len() {
        if !looked_at.contains(&ix) {
            takes.push(known.tables.takes.of(ix).iter().copied());
            makes.push(known.tables.makes.of(ix).iter().copied());
            continue;
        }
        let artifacts = outputs.artifacts(ix).unwrap_or_default();
        let Some((taken, made)) = growth.node(finder, &entries, ix, artifacts) else { return };
        takes.push(taken);
        makes.push(made);
    }
    drop(entries);
    let Growth { mut certified, mut updates, added, .. } = growth;
    updates.splice(0..0, changed.updates());
    certified.plan = compiled::write(place, Tables { takes, makes, ..known.tables.clone() }, &grown.texts);
    certified.listed = session.project.listed.write(place);
    let Changed { certificate, touched, began_ns, .. } = &mut *changed;
    let _ = certificate.extend(place, &certified, (touched, &updates, *began_ns), &added);
}

/// What comes to a certificate.
struct Growth<'s> {
    session: &'s Session,
    /// Device and inode of every file that declares something.
    others: HashSet<(u64, u64)>,
    certified: Certified,
    updates: Vec<Update>,
    added: Vec<Witness>,
    /// How many entries there were.
    count: usize,
    /// Entries of the added ones.
    entries: HashMap<String, u32>,
}

impl<'s> Growth<'s> {
    fn new(session: &'s Session, known: &Known, count: usize, extra: &[PathBuf]) -> Option<Self> {
        let sources = session.project.loaded.as_ref()?.sources.0.iter().map(|source| &source.path);
        let others = sources.chain(extra).map(|path| Stat::following(path).ok());
        let others: Option<_> = others.map(|stat| stat.map(|stat| (stat.device, stat.inode))).collect();
        Some(Self {
            session,
            others: others?,
            certified: known.certified.clone(),
            updates: Vec::new(),
            added: Vec::new(),
            count,
            entries: HashMap::new(),
        })
    }

    /// The entries of what a node takes and makes; `None` if no certificate can hold one of them.
    fn node(
        &mut self,
        finder: &FactFinder,
        known: &HashMap<&str, u32>,
        ix: NodeIx,
        artifacts: &[Artifact],
    ) -> Option<(Vec<u32>, Vec<u32>)> {
        let project = &self.session.project;
        let node = &project.graph.nodes[ix];
        let mut takes = Vec::new();
        for path in sources(node) {
            takes.push(match known.get(path).or_else(|| self.entries.get(path)) {
                Some(entry) => *entry,
                None => {
                    let content = finder.known(&project.root.join(path))?;
                    self.add(path, Some(&content.stat), &content.artifact)?
                }
            });
        }
        let mut makes = Vec::new();
        for (output, artifact) in node.outputs.iter().zip(artifacts) {
            let path = output.path.as_str();
            let stat = finder.known(&project.root.join(path)).map(|content| content.stat);
            makes.push(match (artifact, known.get(path)) {
                (Artifact::Absent, None) => {
                    self.certified.absent.insert(path.to_owned());
                    ABSENT
                }
                (Artifact::File { .. }, Some(&entry)) => {
                    self.updates.push(Update { entry: entry as usize, artifact: artifact.clone(), stat });
                    entry
                }
                (Artifact::File { .. }, None) => {
                    self.certified.absent.remove(path);
                    self.add(path, stat.as_ref(), artifact)?
                }
                _ => return None,
            });
        }
        Some((takes, makes))
    }

    fn add(&mut self, path: &str, stat: Option<&Stat>, artifact: &Artifact) -> Option<u32> {
        if is_one_of(&self.session.project.root.join(path), &self.others) {
            return None;
        }
        let entry = u32::try_from(self.count + self.added.len()).ok()?;
        self.added.push(Witness::new(path, stat, artifact, self.session.started_ns)?);
        self.entries.insert(path.to_owned(), entry);
        Some(entry)
    }
}
