//! Files to one [`Workflow`] tree: reading, includes, profiles, the order in which parameters are bound. Unaware of steps' keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use crate::api::Catalog;
use crate::base::files::normalize;
use crate::base::suggest;
use crate::error::{Error, Result};
use crate::model::{
    Diagnostic, Expr, Include, Param, ParamScope, Resources, Source, SourceId, Sources, Span, Workflow,
};

use super::lower::expr::{Secrets, expr};
use super::lower::{self, field};
use super::node::{Entry, Kind, Node, merge};
use super::params::{Chain, Overrides};
use super::reference::is_id;
use super::report::Report;
use super::{check, keys, syntax};

/// What to load, and with which overrides.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// The workflow file, absolute or relative to the root.
    pub file: PathBuf,
    /// The workspace root, absolute.
    pub root: PathBuf,
    /// A profile, applied to the root and to every include that has it.
    pub profile: Option<String>,
    /// JSON files of params, in rising priority; relative to the root.
    pub params_files: Vec<PathBuf>,
    /// `key=value` or `prefix.key=value`, in rising priority; the value is JSON if it parses, else text.
    pub set: Vec<String>,
}

/// A checked workflow.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// With its includes.
    pub workflow: Workflow,
    /// All files read, the root's first.
    pub sources: Sources,
    /// What is odd but no fault.
    pub warnings: Vec<Diagnostic>,
    /// How long reading and checking took, seconds.
    pub seconds: f64,
}

/// Reads and checks a workflow file; every fault found is in the error's diagnostics, in file order.
pub fn load(request: &LoadRequest, catalog: &Catalog) -> Result<Loaded> {
    Loader::new(request, catalog).run(None)
}

/// As [`load`], for a workflow made in Rust. `request.file` stands for the declaring file: its directory is
/// `${workflow.dir}` and includes are relative to it. Faults show the JSON form of the workflow.
pub fn load_value(value: &Value, request: &LoadRequest, catalog: &Catalog) -> Result<Loaded> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::bug(e.to_string()))?;
    let name = Loader::new(request, catalog).name(&request.root.join(&request.file));
    Loader::new(request, catalog).run(Some(text)).map_err(|mut error| {
        for label in error.diagnostics.iter_mut().filter_map(|d| d.label.as_mut()) {
            if label.file == name {
                label.file = format!("{name} (as JSON)");
            }
        }
        error
    })
}

/// A file that has been read, before anything of it is lowered.
struct Document {
    source: SourceId,
    path: PathBuf,
    node: Node,
    name: String,
}

/// Where a file stands in the tree.
struct Position<'a> {
    /// Prefixes from the root on.
    prefix: Vec<String>,
    /// Params of the including file.
    parent: Option<&'a Chain<'a>>,
    /// Params bound by the including file.
    bound: Vec<(String, Span, Expr)>,
    /// Names of the files from the root to this one.
    stack: Vec<(PathBuf, String)>,
}

struct Loader<'a> {
    request: &'a LoadRequest,
    catalog: &'a Catalog,
    report: Report,
    overrides: Overrides,
    /// All prefixes, dotted.
    prefixes: Vec<String>,
    profiles: Vec<String>,
    profile_found: bool,
}

impl<'a> Loader<'a> {
    fn new(request: &'a LoadRequest, catalog: &'a Catalog) -> Self {
        Self {
            request,
            catalog,
            report: Report::default(),
            overrides: Overrides::default(),
            prefixes: Vec::new(),
            profiles: Vec::new(),
            profile_found: false,
        }
    }

    fn run(mut self, text: Option<String>) -> Result<Loaded> {
        let begun = std::time::Instant::now();
        let path = normalize(&self.request.root.join(&self.request.file));
        let document = match text {
            Some(text) => self.parse(path, text),
            None => self.open(path, None),
        };
        self.read_overrides()?;
        let mut workflow = document.and_then(|document| {
            let stack = vec![(identity(&document.path), self.name(&document.path))];
            let position = Position { prefix: Vec::new(), parent: None, bound: Vec::new(), stack };
            self.workflow(document, position)
        });
        if let Some(workflow) = &mut workflow {
            let Workflow { resources, includes, .. } = workflow;
            lower::join_resources(&mut self.report, resources, includes);
            check::check(&mut self.report, workflow);
        }
        if workflow.is_some() && self.report.is_sound() {
            self.overrides.finish(&mut self.report, &self.prefixes);
            self.profile_known();
        }
        match (self.report.take_error(), workflow) {
            (Some(error), _) => Err(error),
            (None, None) => Err(Error::bug("a workflow was refused without a fault")),
            (None, Some(workflow)) => {
                let Report { sources, warnings, .. } = self.report;
                let seconds = begun.elapsed().as_secs_f64();
                Ok(Loaded { workflow, sources, warnings, seconds })
            }
        }
    }

    /// A path as the user would name it.
    fn name(&self, path: &Path) -> String {
        let path = normalize(path);
        path.strip_prefix(normalize(&self.request.root)).unwrap_or(&path).display().to_string()
    }

    /// Reads a file; `asked` is where it was asked for.
    fn open(&mut self, path: PathBuf, asked: Option<Span>) -> Option<Document> {
        match std::fs::read(&path) {
            Err(error) => {
                let message = format!("failed to read {}: {}", self.name(&path), cause(&error));
                let hint = match (near(&path), asked) {
                    (Some(near), _) => format!("did you mean {}?", self.name(&near)),
                    (None, Some(_)) => "the path of an include is relative to the including file".to_owned(),
                    (None, None) => "a relative path is relative to the workspace root (-C DIR)".to_owned(),
                };
                self.report.fault(asked, message, Some(hint));
                None
            }
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => self.parse(path, text),
                Err(error) => {
                    let at = error.utf8_error().valid_up_to();
                    let message =
                        format!("{} is not UTF-8 (first bad byte at offset {at})", self.name(&path));
                    self.report.fault(asked, message, None);
                    None
                }
            },
        }
    }

    fn source(&mut self, path: &Path, text: String) -> SourceId {
        if let Some(known) = self.report.sources.0.iter().position(|source| source.path == path) {
            return SourceId(known as u32);
        }
        let source = Source { name: self.name(path), path: path.to_owned(), text: Arc::from(text) };
        self.report.sources.add(source)
    }

    fn parse(&mut self, path: PathBuf, text: String) -> Option<Document> {
        let source = self.source(&path, text);
        let node = syntax::parse(&mut self.report, source)?;
        field::map(&mut self.report, &node)?;
        let name = match node.get("name") {
            Some(name) => field::text(&mut self.report, name).unwrap_or_default(),
            None => {
                let place = Span { end: node.span.start + 1, ..node.span };
                let hint = "add \"name\": \"...\" (letters, digits, '_', '-')".to_owned();
                self.report.fault(place, "the workflow has no name", Some(hint));
                String::new()
            }
        };
        if let Some(place) = node.get("name").filter(|_| !name.is_empty() && !is_id(&name)) {
            let hint = "letters, digits, '_' and '-' are allowed".to_owned();
            self.report.fault(place.span, format!("'{name}' is not a name for a workflow"), Some(hint));
        }
        Some(Document { source, path, node, name })
    }

    fn read_overrides(&mut self) -> Result<()> {
        for file in &self.request.params_files {
            let path = normalize(&self.request.root.join(file));
            let text = std::fs::read_to_string(&path).map_err(|e| {
                Error::usage(format!("--params {}: failed to read it: {}", file.display(), cause(&e)))
                    .hint("a relative path is relative to the workspace root (-C DIR)")
            })?;
            let source = self.source(&path, text);
            let Some(node) = syntax::parse(&mut self.report, source) else { continue };
            for entry in field::map(&mut self.report, &node).unwrap_or(&[]) {
                self.overrides.add(&entry.key, entry.value.to_json(), Some(entry.span), String::new());
            }
        }
        for text in &self.request.set {
            self.overrides.add_set(&mut self.report, text);
        }
        Ok(())
    }

    fn workflow(&mut self, document: Document, at: Position<'_>) -> Option<Workflow> {
        let Document { source, path, node, name } = document;
        field::known(&mut self.report, &node, keys::WORKFLOW, "a workflow");
        if let Some(schema) = node.get("$schema") {
            field::line(&mut self.report, schema);
        }
        let node = self.with_profile(node);
        let report = &mut self.report;
        let params = node.get("params").map(|params| lower::params(report, params)).unwrap_or_default();
        let includes = self.open_includes(&node, &path, &at.stack);
        let params = self.bind(params, &at, &includes);
        let chain = Chain { params: &params, parent: at.parent };
        let mut included = Vec::new();
        for pending in includes {
            included.extend(self.include(pending, &at, &chain));
        }
        let (report, catalog) = (&mut self.report, self.catalog);
        let defaults = node.get("defaults");
        if let Some(defaults) = defaults {
            field::map(report, defaults);
            field::known(report, defaults, keys::STEP, "'defaults'");
        }
        let services = node.get("services").and_then(|s| field::map(report, s)).unwrap_or(&[]);
        let services = services.iter().map(|e| lower::service(report, e, catalog)).map(|s| (s.id.clone(), s));
        let services = services.collect();
        let steps = node.get("steps").and_then(|s| field::map(report, s)).unwrap_or(&[]);
        let steps: IndexMap<_, _> = steps
            .iter()
            .map(|entry| lower::step(report, entry, defaults, chain, catalog))
            .map(|step| (step.id.clone(), step))
            .collect();
        if node.get("steps").is_none() && node.get("include").is_none() {
            let hint = "add \"steps\": {...} or \"include\": [...]".to_owned();
            let place = node.entry("name").map_or(node.span, |name| name.span);
            report.fault(place, "the workflow has no steps", Some(hint));
        }
        let workflow = Workflow {
            name,
            description: node
                .get("description")
                .and_then(|text| field::line(report, text))
                .unwrap_or_default(),
            source,
            dir: self.dir(&path),
            env: lower::env(&mut self.report, &node),
            resources: node
                .get("resources")
                .map_or_else(Resources::default, |r| lower::resources(&mut self.report, r)),
            services,
            steps,
            includes: included,
            on_finish: node.get("on_finish").and_then(|f| lower::on_finish(&mut self.report, f)),
            params: IndexMap::new(),
        };
        Some(Workflow { params, ..workflow })
    }

    /// The directory of a file, relative to the root where it lies inside; never empty.
    fn dir(&self, path: &Path) -> String {
        match path.parent().map(|dir| self.name(dir)) {
            Some(dir) if !dir.is_empty() => dir,
            _ => ".".to_owned(),
        }
    }

    /// Binds params in rising priority: the file and its profile (in `params` already), the include, the command line.
    fn bind(
        &mut self,
        mut params: IndexMap<String, Param>,
        at: &Position<'_>,
        includes: &[Pending],
    ) -> IndexMap<String, Param> {
        for (name, span, value) in &at.bound {
            match params.get_mut(name) {
                Some(param) => *param = Param { value: value.clone(), scope: ParamScope::Includer },
                None => {
                    let hint = suggest::hint(name, params.keys().map(String::as_str));
                    let file = at.stack.last().map_or("", |(_, name)| name.as_str());
                    self.report.fault(*span, format!("{file} has no param '{name}'"), hint);
                }
            }
        }
        let below = includes.iter().flat_map(|Pending { prefix, document, .. }| {
            let params = document.node.get("params").map_or(&[][..], Node::entries);
            params.iter().map(move |entry| format!("{prefix}.{}", entry.key))
        });
        let below: Vec<String> = below.collect();
        self.overrides.apply(&mut self.report, &at.prefix, &below, &mut params);
        params
    }
}

/// An include that has been read.
struct Pending {
    prefix: String,
    span: Span,
    document: Document,
    bound: Vec<Entry>,
}

impl Loader<'_> {
    fn open_includes(&mut self, node: &Node, path: &Path, stack: &[(PathBuf, String)]) -> Vec<Pending> {
        let mut found: Vec<Pending> = Vec::new();
        let items = node.get("include").and_then(|i| field::list(&mut self.report, i)).unwrap_or(&[]);
        for item in items {
            let Some(pending) = self.open_include(item, path, stack) else {
                self.report.lacks_includes = true;
                continue;
            };
            let prefix = &pending.prefix;
            if let Some(other) = found.iter().find(|other| other.prefix == *prefix) {
                let place = self.report.place(other.span);
                let hint = format!("the other one is at {place}; give one of them another with \"as\"");
                self.report.fault(
                    pending.span,
                    format!("two includes have the prefix '{prefix}'"),
                    Some(hint),
                );
                continue;
            }
            if node.get("steps").is_some_and(|steps| steps.entry(prefix).is_some()) {
                let hint = "give the include another prefix with \"as\"".to_owned();
                let message = format!("'{prefix}' is the prefix of an include and the id of a step");
                self.report.fault(pending.span, message, Some(hint));
                continue;
            }
            found.push(pending);
        }
        found
    }

    fn open_include(&mut self, item: &Node, path: &Path, stack: &[(PathBuf, String)]) -> Option<Pending> {
        let (file_node, prefix_node) = match &item.kind {
            Kind::Text(_) => (item, None),
            Kind::Map(_) => {
                field::known(&mut self.report, item, keys::INCLUDE, "an include");
                let Some(file) = item.get("file") else {
                    self.report.fault(item.span, "an include needs 'file'", None);
                    return None;
                };
                (file, item.get("as"))
            }
            _ => {
                self.report.expected(item, "a path or {\"file\": ...}");
                return None;
            }
        };
        let file = field::text(&mut self.report, file_node)?;
        let target = normalize(&path.parent().unwrap_or(Path::new("")).join(file));
        let id = identity(&target);
        if let Some(first) = stack.iter().position(|(known, _)| *known == id) {
            let names = stack[first..].iter().map(|(_, name)| name.as_str());
            let cycle: Vec<&str> = names.chain([stack[first].1.as_str()]).collect();
            let hint = "remove one of these includes".to_owned();
            self.report.fault(file_node.span, format!("include cycle: {}", cycle.join(" -> ")), Some(hint));
            return None;
        }
        let document = self.open(target, Some(file_node.span))?;
        let prefix = match prefix_node {
            None => document.name.clone(),
            Some(node) => field::text(&mut self.report, node)?,
        };
        if !is_id(&prefix) {
            if let Some(node) = prefix_node {
                let hint = "letters, digits, '_' and '-' are allowed".to_owned();
                self.report.fault(node.span, format!("'{prefix}' is not a prefix"), Some(hint));
            }
            return None;
        }
        let bound = item.get("params").and_then(|params| field::map(&mut self.report, params));
        let span = prefix_node.unwrap_or(file_node).span;
        Some(Pending { prefix, span, document, bound: bound.unwrap_or(&[]).to_vec() })
    }

    fn include(&mut self, pending: Pending, at: &Position<'_>, chain: &Chain<'_>) -> Option<Include> {
        let Pending { prefix, span, document, bound } = pending;
        let bound = bound.iter().map(|entry| {
            (entry.key.clone(), entry.span, expr(&mut self.report, &entry.value, Secrets::Refused))
        });
        let bound = bound.collect();
        let path: Vec<String> = at.prefix.iter().chain([&prefix]).cloned().collect();
        self.prefixes.push(path.join("."));
        let mut stack = at.stack.clone();
        stack.push((identity(&document.path), self.name(&document.path)));
        let position = Position { prefix: path, parent: Some(chain), bound, stack };
        let workflow = self.workflow(document, position)?;
        Some(Include { prefix, span: Some(span), workflow })
    }

    /// Checks the profiles of a file and merges the chosen one over it: services are replaced whole.
    fn with_profile(&mut self, node: Node) -> Node {
        let report = &mut self.report;
        let profiles = node.get("profiles").and_then(|p| field::map(report, p)).unwrap_or(&[]);
        let mut chosen = None;
        for entry in profiles {
            field::id(report, entry, "a profile");
            if !self.profiles.contains(&entry.key) {
                self.profiles.push(entry.key.clone());
            }
            if field::map(report, &entry.value).is_none() {
                continue;
            }
            field::known(report, &entry.value, keys::PROFILE, "a profile");
            let wanted = self.request.profile.as_deref() == Some(entry.key.as_str());
            if wanted {
                self.profile_found = true;
                chosen = Some(&entry.value);
            } else {
                check_unused(report, &entry.value);
            }
        }
        let Some(profile) = chosen else { return node };
        let mut merged = node.clone();
        let Kind::Map(entries) = &mut merged.kind else { return node };
        for patch in profile.entries().iter().filter(|e| keys::PROFILE.contains(&e.key.as_str())) {
            let Some(old) = entries.iter_mut().find(|entry| entry.key == patch.key) else {
                entries.push(patch.clone());
                continue;
            };
            old.value = match patch.key.as_str() {
                "services" => replace(&old.value, &patch.value),
                _ => merge(&old.value, &patch.value),
            };
        }
        merged
    }

    fn profile_known(&mut self) {
        let Some(wanted) = self.request.profile.as_deref().filter(|_| !self.profile_found) else { return };
        self.profiles.sort();
        let known = self.profiles.iter().map(String::as_str);
        let hint = suggest::nearest(wanted, known.clone()).map(|near| format!("did you mean '{near}'?"));
        let message = match self.profiles.is_empty() {
            true => format!("--profile {wanted}: no file of this workflow has profiles"),
            false => format!(
                "--profile {wanted}: no file of this workflow has it (known: {})",
                self.profiles.join(", ")
            ),
        };
        self.report.usage(message, hint);
    }
}

/// `patch` over `target`, one level deep: each value replaced whole, `null` removes.
fn replace(target: &Node, patch: &Node) -> Node {
    let (Kind::Map(old), Kind::Map(new)) = (&target.kind, &patch.kind) else { return patch.clone() };
    let mut merged = old.clone();
    for entry in new {
        let at = merged.iter().position(|e| e.key == entry.key);
        match at {
            Some(at) if matches!(entry.value.kind, Kind::Null) => drop(merged.remove(at)),
            Some(at) => merged[at] = entry.clone(),
            None => merged.push(entry.clone()),
        }
    }
    Node { span: target.span, kind: Kind::Map(merged) }
}

/// A profile that is not chosen is checked as far as it can be alone.
fn check_unused(report: &mut Report, profile: &Node) {
    for service in profile.get("services").and_then(|s| field::map(report, s)).unwrap_or(&[]) {
        if !matches!(service.value.kind, Kind::Null) {
            field::known(report, &service.value, keys::SERVICE, "a service");
        }
    }
    for step in profile.get("steps").and_then(|s| field::map(report, s)).unwrap_or(&[]) {
        field::known(report, &step.value, keys::STEP, "a step");
    }
    if let Some(defaults) = profile.get("defaults") {
        field::known(report, defaults, keys::STEP, "'defaults'");
    }
    if let Some(resources) = profile.get("resources") {
        field::known(report, resources, keys::RESOURCES, "'resources'");
    }
    if let Some(params) = profile.get("params") {
        lower::params(report, params);
    }
}

/// What makes two paths the same file.
fn identity(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| normalize(path))
}

/// What the system says, without its number.
fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// A JSON file beside a missing one whose name is nearly the same; the only one in a directory.
fn near(path: &Path) -> Option<PathBuf> {
    let is_dir = path.is_dir();
    let dir = if is_dir { path } else { path.parent()? };
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort_unstable();
    let name = match (is_dir, &names[..]) {
        (true, [only]) => only.as_str(),
        (true, _) => return None,
        (false, _) => suggest::nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?,
    };
    Some(dir.join(name))
}
