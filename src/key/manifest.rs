//! The one walk over everything that decides a node's result. Unaware of how facts are found.

use serde_json::json;

use crate::base::canonical;
use crate::base::digest::Digest;
use crate::graph::{Arg, Graph, Identity, Node, NodeAction, NodeIx, ServiceAction, ServiceNode, ShellPart};
use crate::model::Tool;

/// Version of the manifest; raised when the same node would be described otherwise.
pub const FORMAT: &str = "1";
/// Domain separation of the key hash; changes with [`FORMAT`].
const CONTEXT: &str = "flow 2026-11 node key v1";

/// Receives the components in their fixed order.
pub trait Visitor {
    /// One component: its name, and its text.
    fn component(&mut self, name: &str, text: &str);
}

/// Hashes components, length-prefixed.
pub struct Hash(blake3::Hasher);

impl Default for Hash {
    fn default() -> Self {
        Self(blake3::Hasher::new_derive_key(CONTEXT))
    }
}

impl Visitor for Hash {
    fn component(&mut self, name: &str, text: &str) {
        for part in [name, text] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part.as_bytes());
        }
    }
}

impl Hash {
    /// The digest of what was visited.
    pub fn digest(self) -> Digest {
        self.0.into()
    }
}

/// Collects components for people and for later comparison.
pub type Components = Vec<(String, String)>;

impl Visitor for Components {
    fn component(&mut self, name: &str, text: &str) {
        self.push((name.to_owned(), text.to_owned()));
    }
}

/// What is not in the graph but decides a result.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Value of each passed variable, in the node's order; `None` if unset.
    pub pass_env: Vec<Option<String>>,
    /// Identity of each tool, in the node's order.
    pub tools: Vec<String>,
    /// Identity of each service used, in the node's order.
    pub services: Vec<Digest>,
    /// For policy sample.
    pub hardware: Option<String>,
    /// Files of each input, in the node's order; absent ones left out.
    pub inputs: Vec<Vec<InputFact>>,
    /// What its depfile named, sorted. `None`: the declared components alone, the first level of a two-level key.
    pub discovered: Option<Vec<InputFact>>,
}

/// One input file or directory as it stands in the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFact {
    /// Relative to the root; outside of it the file name.
    pub path: String,
    /// `file`, `executable` or `tree`.
    pub kind: &'static str,
    /// Of the content.
    pub digest: Digest,
}

/// The places of `names` in the order of the names: in what order a file declares them decides nothing.
fn by_name(names: impl Iterator<Item = String>) -> Vec<usize> {
    let mut named: Vec<(String, usize)> = names.enumerate().map(|(index, name)| (name, index)).collect();
    named.sort();
    named.into_iter().map(|(_, index)| index).collect()
}

/// Walks a node's manifest. Without facts, only what the graph itself knows (`plan_digest`).
pub fn walk(graph: &Graph, node: &Node, facts: Option<&Facts>, visit: &mut dyn Visitor) {
    visit.component("format", FORMAT);
    match &node.action {
        NodeAction::Stage { name, version, with, .. } => {
            visit.component("stage", name);
            visit.component("stage version", &version.to_string());
            if let serde_json::Value::Object(map) = with.identity() {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by(|a, b| a.0.cmp(b.0));
                for (key, value) in entries {
                    visit.component(&format!("with.{key}"), &canonical::to_string(value));
                }
            }
        }
        NodeAction::Argv { args, .. } => {
            let args: Vec<String> = args.iter().map(Arg::identity).collect();
            visit.component("command", &canonical::to_string(&json!(args)));
        }
        NodeAction::Shell { shell, parts, .. } => {
            visit.component("shell", &canonical::to_string(&json!(shell)));
            visit.component("command", &parts.iter().map(ShellPart::identity).collect::<String>());
        }
    }
    if let Some(io) = node.action.io() {
        for (name, value) in [("cwd", &io.cwd), ("stdin", &io.stdin), ("stdout", &io.stdout)] {
            if let Some(value) = value {
                visit.component(name, value);
            }
        }
        if let Some(depfile) = &io.depfile {
            visit.component("depfile", &depfile.fill(&Identity).unwrap_or_default());
        }
    }
    for (name, value) in &node.env {
        visit.component(&format!("env.{name}"), &canonical::to_string(&value.identity()));
    }
    for (index, name) in node.pass_env.iter().enumerate() {
        let value = match facts {
            Some(facts) => match &facts.pass_env[index] {
                Some(value) => format!("= {value}"),
                None => "unset".to_owned(),
            },
            None => String::new(),
        };
        visit.component(&format!("pass_env.{name}"), &value);
    }
    for index in by_name(node.tools.iter().map(tool_name)) {
        let tool = &node.tools[index];
        let identity = facts.map_or("", |facts| facts.tools[index].as_str());
        visit.component(&format!("tool.{}", tool_name(tool)), identity);
    }
    for index in by_name(node.services.iter().map(|service| graph.services[*service].id.clone())) {
        let service = &graph.services[node.services[index]];
        let identity = match facts {
            Some(facts) => facts.services[index].to_string(),
            None => service_definition(service).to_string(),
        };
        visit.component(&format!("service.{}", service.id), &identity);
    }
    for index in by_name(node.outputs.iter().map(|output| output.name.clone())) {
        let output = &node.outputs[index];
        let mut flags = vec![if output.dir { "directory" } else { "file" }];
        flags.extend(output.append.then_some("append"));
        flags.extend(output.optional.then_some("optional"));
        flags.extend(output.on_failure.then_some("on_failure"));
        visit.component(&format!("output.{}", output.name), &flags.join(" "));
    }
    visit.component("sample", &node.sample.to_string());
    if let Some(hardware) = facts.and_then(|facts| facts.hardware.as_ref()) {
        visit.component("hardware", hardware);
    }
    for index in by_name(node.inputs.iter().map(|input| input.name.clone())) {
        let input = &node.inputs[index];
        let shape = if input.list { "list" } else { "one" };
        match facts {
            Some(facts) => {
                let files = &facts.inputs[index];
                visit.component(&format!("input.{}", input.name), &format!("{shape} {}", files.len()));
                for file in files {
                    let text = format!("{} {}", file.kind, file.digest);
                    visit.component(&format!("input.{}: {}", input.name, file.path), &text);
                }
            }
            None if input.implicit => {}
            None if input.patterns.is_empty() => {
                let paths: Vec<String> = input.items.iter().map(|item| graph.item_path(item)).collect();
                visit.component(&format!("input.{}", input.name), &format!("{shape} {}", paths.join("\n")));
            }
            None => {
                visit.component(
                    &format!("input.{}", input.name),
                    &format!("{shape} {}", input.patterns.join("\n")),
                );
            }
        }
    }
    if let Some(discovered) = facts.and_then(|facts| facts.discovered.as_ref()) {
        visit.component("discovered", &discovered.len().to_string());
        for file in discovered {
            visit.component(&format!("{DISCOVERED}{}", file.path), &format!("{} {}", file.kind, file.digest));
        }
    }
}

/// Before the path of a discovered input, in the name of its component.
const DISCOVERED: &str = "discovered.";

/// The path of a discovered input, if `component` is that of one.
pub fn discovered_path(component: &str) -> Option<&str> {
    component.strip_prefix(DISCOVERED)
}

/// Whether `component` belongs to the second level of a key: it tells of what a depfile named.
pub fn is_discovered(component: &str) -> bool {
    component == "discovered" || discovered_path(component).is_some()
}

/// How a tool is called in a manifest.
fn tool_name(tool: &Tool) -> String {
    match tool {
        Tool::Program(name) => name.clone(),
        Tool::Version { argv, .. } => argv.join(" "),
    }
}

/// Digest of a service's definition as written.
pub fn service_definition(service: &ServiceNode) -> Digest {
    let mut hash = Hash::default();
    match &service.action {
        ServiceAction::Simulator { name, version, with } => {
            hash.component("uses", name);
            hash.component("version", &version.to_string());
            hash.component("with", &canonical::to_string(&with.identity()));
        }
        ServiceAction::Command(NodeAction::Argv { args, .. }) => {
            let args: Vec<String> = args.iter().map(Arg::identity).collect();
            hash.component("command", &canonical::to_string(&json!(args)));
        }
        ServiceAction::Command(NodeAction::Shell { shell, parts, .. }) => {
            hash.component("shell", &canonical::to_string(&json!(shell)));
            hash.component("command", &parts.iter().map(ShellPart::identity).collect::<String>());
        }
        ServiceAction::Command(NodeAction::Stage { .. }) => {}
    }
    for (name, value) in &service.env {
        hash.component(&format!("env.{name}"), &canonical::to_string(&value.identity()));
    }
    hash.digest()
}

/// Digest of a service's definition and of its identity entries: `tools` in order, then (path, digest) of files.
pub fn service_identity(service: &ServiceNode, tools: &[String], files: &[(String, Digest)]) -> Digest {
    let mut hash = Hash::default();
    hash.component("definition", &service_definition(service).to_string());
    for (tool, identity) in service.identity_tools.iter().zip(tools) {
        hash.component(&format!("tool.{}", tool_name(tool)), identity);
    }
    for (path, digest) in files {
        hash.component(&format!("file.{path}"), &digest.to_string());
    }
    hash.digest()
}

/// A node's key.
pub fn hash(graph: &Graph, node: &Node, facts: &Facts) -> Digest {
    let mut hash = Hash::default();
    walk(graph, node, Some(facts), &mut hash);
    hash.digest()
}

/// The key of a node with this manifest.
pub fn hash_of(manifest: &Components) -> Digest {
    let mut hash = Hash::default();
    manifest.iter().for_each(|(name, text)| hash.component(name, text));
    hash.digest()
}

/// A node's manifest, as `explain` shows it.
pub fn manifest(graph: &Graph, node: &Node, facts: &Facts) -> Components {
    let mut components = Components::new();
    walk(graph, node, Some(facts), &mut components);
    components
}

/// Digest of what the graph alone says of a node.
pub fn static_digest(graph: &Graph, node: &Node) -> Digest {
    let mut hash = Hash::default();
    walk(graph, node, None, &mut hash);
    hash.digest()
}

/// Digest of the expanded graph: ids, edges, static manifests.
pub fn plan_digest(graph: &Graph, nodes: &mut dyn Iterator<Item = NodeIx>) -> Digest {
    let mut hash = Hash::default();
    for ix in nodes {
        let node = &graph.nodes[ix];
        hash.component("node", &node.id);
        walk(graph, node, None, &mut hash);
        let mut from: Vec<&str> = graph.dependencies(ix).map(|dep| graph.nodes[dep].id.as_str()).collect();
        from.sort_unstable();
        hash.component("after", &from.join("\n"));
    }
    hash.digest()
}
