//! What a drawing of a graph shows: boxes, arrows, layers; the forms of it are one file each. Unaware of files and terminals.

mod dot;
mod json;
mod layout;
mod mermaid;
mod svg;
mod text;

use std::collections::{BTreeMap, HashMap};

use super::{Graph, Node, NodeAction, ServiceAction, ServiceIx};

pub use dot::dot;
pub use json::json;
pub use mermaid::mermaid;
pub use svg::svg;
pub use text::text;

/// A graph of more nodes is drawn by step.
const MOST_NODES: usize = 24;

/// A graph ready to be drawn: one box per step, or per node if they are few.
struct Picture<'g> {
    graph: &'g Graph,
    /// Steps or nodes in declared order, then the services that something uses or that nothing uses.
    boxes: Vec<Box<'g>>,
    /// Sorted by ends, each pair once, none from a box to itself.
    arrows: Vec<Arrow>,
}

/// One box.
struct Box<'g> {
    /// Step, node or service id.
    id: &'g str,
    /// Nodes in it; 0 for a service.
    count: usize,
    /// Stage, simulator or first word of the command.
    action: String,
    /// The step's line of documentation.
    doc: &'g str,
    /// Longest way from a box without arrows to it.
    layer: usize,
}

/// What an arrow says, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ArrowKind {
    /// `to` uses the service `from`.
    Service,
    /// `to` only runs after `from`.
    Order,
    /// `to` takes something that `from` makes.
    Data,
}

/// An arrow between two boxes, by index.
struct Arrow {
    from: usize,
    to: usize,
    kind: ArrowKind,
}

impl<'g> Picture<'g> {
    fn of(graph: &'g Graph) -> Self {
        let by_node = graph.nodes.len() <= MOST_NODES;
        let mut boxes: Vec<Box> = Vec::new();
        let mut place: HashMap<&str, usize> = HashMap::new();
        let mut of_node = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let id = if by_node { &node.id } else { &node.step };
            let ix = *place.entry(id).or_insert_with(|| {
                let action = action(&node.action);
                boxes.push(Box { id, count: 0, action, doc: &node.doc, layer: 0 });
                boxes.len() - 1
            });
            boxes[ix].count += 1;
            of_node.push(ix);
        }
        let first_service = boxes.len();
        for service in &graph.services {
            let action = match &service.action {
                ServiceAction::Simulator { name, .. } => name.clone(),
                ServiceAction::Command(command) => action(command),
            };
            boxes.push(Box { id: &service.id, count: 0, action, doc: "", layer: 0 });
        }
        let mut arrows: BTreeMap<(usize, usize), ArrowKind> = BTreeMap::new();
        let mut arrow = |from: usize, to: usize, kind: ArrowKind| {
            if from != to {
                let known = arrows.entry((from, to)).or_insert(kind);
                *known = kind.max(*known);
            }
        };
        for (ix, node) in graph.nodes.iter().enumerate() {
            let to = of_node[ix];
            node.producers.iter().for_each(|from| arrow(of_node[*from], to, ArrowKind::Data));
            node.needs.iter().for_each(|from| arrow(of_node[*from], to, ArrowKind::Order));
            node.services.iter().for_each(|from| arrow(first_service + from, to, ArrowKind::Service));
        }
        let arrows = arrows.into_iter().map(|((from, to), kind)| Arrow { from, to, kind }).collect();
        let mut picture = Self { graph, boxes, arrows };
        picture.set_layers(&of_node, first_service);
        picture
    }

    /// Steps may take of each other although nodes do not: an arrow against the order of first nodes counts for no layer.
    fn set_layers(&mut self, of_node: &[usize], first_service: usize) {
        let mut order: Vec<usize> = (first_service..self.boxes.len()).collect();
        let mut rank: HashMap<usize, usize> = order.iter().map(|ix| (*ix, 0)).collect();
        for node in &self.graph.order {
            let ix = of_node[*node];
            rank.entry(ix).or_insert_with(|| {
                order.push(ix);
                order.len()
            });
        }
        for ix in order {
            let before = self.arrows.iter().filter(|a| a.to == ix && rank[&a.from] < rank[&ix]);
            let layer = before.map(|a| self.boxes[a.from].layer + 1).max();
            self.boxes[ix].layer = layer.unwrap_or(0);
        }
        // a service stands right before its first user
        for ix in first_service..self.boxes.len() {
            let users = self.arrows.iter().filter(|a| a.from == ix).map(|a| self.boxes[a.to].layer);
            self.boxes[ix].layer = users.min().unwrap_or(0).saturating_sub(1);
        }
    }

    /// `3 nodes of 2 steps, 1 service`
    fn size(&self) -> String {
        let plural = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        let steps: std::collections::HashSet<&str> =
            self.graph.nodes.iter().map(|node| node.step.as_str()).collect();
        let mut text =
            format!("{} of {}", plural(self.graph.nodes.len(), "node"), plural(steps.len(), "step"));
        if !self.graph.services.is_empty() {
            text.push_str(&format!(", {}", plural(self.graph.services.len(), "service")));
        }
        text
    }
}

impl Box<'_> {
    fn is_service(&self) -> bool {
        self.count == 0
    }

    /// `fetch x18`, and the id alone for one node or a service.
    fn title(&self) -> String {
        if self.count > 1 { format!("{} x{}", self.id, self.count) } else { self.id.to_owned() }
    }
}

/// Stage, or the first word of the command.
fn action(action: &NodeAction) -> String {
    match action {
        NodeAction::Stage { name, .. } => name.clone(),
        NodeAction::Argv { args, .. } => args.first().map(super::Arg::identity).unwrap_or_default(),
        NodeAction::Shell { parts, .. } => {
            let text: String = parts.iter().map(super::ShellPart::identity).collect();
            text.split_whitespace().next().unwrap_or_default().to_owned()
        }
    }
}

/// Ids of a node's services.
fn services<'g>(graph: &'g Graph, node: &Node) -> Vec<&'g str> {
    node.services.iter().map(|ix: &ServiceIx| graph.services[*ix].id.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::node::{CommandIo, Item, Output};
    use super::super::{Input, ShellPart, Value};
    use super::*;
    use crate::model::{Policy, Probe, SourceId, StepResources};
    use expect_test::expect;
    use std::time::Duration;

    fn node(step: &str, axes: &[(&str, &str)], action: NodeAction, producers: &[usize]) -> Node {
        let values: Vec<String> = axes.iter().map(|(a, v)| format!("{a}={v}")).collect();
        let id = if axes.is_empty() { step.to_owned() } else { format!("{step}[{}]", values.join(",")) };
        let items = producers.iter().map(|node| Item::Made { node: *node, output: 0 }).collect();
        let input =
            Input { name: "in".to_owned(), items, list: false, patterns: Vec::new(), implicit: false };
        let output = Output {
            name: "out".to_owned(),
            path: format!("o/{id}"),
            dir: false,
            append: false,
            optional: false,
            on_failure: false,
            span: None,
        };
        Node {
            id,
            step: step.to_owned(),
            source: SourceId(0),
            span: None,
            doc: String::new(),
            axes: axes.iter().map(|(a, v)| ((*a).to_owned(), (*v).to_owned())).collect(),
            action,
            inputs: if producers.is_empty() { Vec::new() } else { vec![input] },
            outputs: vec![output],
            needs: Vec::new(),
            producers: producers.to_vec(),
            env: Default::default(),
            pass_env: Vec::new(),
            tools: Vec::new(),
            services: Vec::new(),
            whole: Vec::new(),
            resources: StepResources::default(),
            retry: None,
            timeout: None,
            policy: Policy::Pure,
            allow_failure: false,
            sample: 1,
        }
    }

    fn stage(name: &str) -> NodeAction {
        NodeAction::Stage { name: name.to_owned(), version: 1, with: Value::Map(Vec::new()), cpu: true }
    }

    fn shell(text: &str) -> NodeAction {
        let parts = vec![ShellPart::Raw(text.to_owned())];
        NodeAction::Shell { shell: vec!["sh".to_owned()], parts, io: CommandIo::default() }
    }

    /// `fetch` of `n` files from a service, a step that merges them, one that only comes after it.
    fn graph(n: usize) -> Graph {
        let mut graph = Graph { name: "a & <b>".to_owned(), ..Graph::default() };
        for i in 0..n {
            let mut fetch = node("fetch", &[("f", &format!("\"{i}\""))], stage("http.fetch"), &[]);
            fetch.services.push(0);
            graph.nodes.push(fetch);
        }
        graph.nodes.push(node("merge", &[], stage("csv.join"), &(0..n).collect::<Vec<_>>()));
        let mut last = node("last", &[], shell("echo \"<&>\" | cat"), &[]);
        last.needs.push(n);
        graph.nodes.push(last);
        graph.services.push(super::super::ServiceNode {
            id: "web".to_owned(),
            source: SourceId(0),
            action: ServiceAction::Simulator {
                name: "sim.http".to_owned(),
                version: 1,
                with: Value::Map(Vec::new()),
            },
            env: Default::default(),
            port: None,
            probe: Probe::Tcp,
            ready_timeout: Duration::ZERO,
            stop: Duration::ZERO,
            identity_tools: Vec::new(),
            identity_files: Vec::new(),
            gpu: None,
            per_gpu: false,
            replicas: 1,
            beside: None,
            uses: Vec::new(),
            one: Vec::new(),
        });
        graph.order = (0..graph.nodes.len()).collect();
        graph
    }

    #[test]
    fn as_text() {
        expect![[r#"
            a & <b>: 4 nodes of 3 steps, 1 service

            fetch[f="0"]  http.fetch
              <- web (service)

            fetch[f="1"]  http.fetch
              <- web (service)

            merge         csv.join
              <- fetch[f="0"]
              <- fetch[f="1"]

            last          echo
              <- merge (order only)

            web           service sim.http
        "#]]
        .assert_eq(&text(&graph(2)));
        expect![[r#"
            a & <b>: 32 nodes of 3 steps, 1 service

            fetch x30  http.fetch
              <- web (service)

            merge      csv.join
              <- fetch x30

            last       echo
              <- merge (order only)

            web        service sim.http
        "#]]
        .assert_eq(&text(&graph(30)));
        expect![[r#"
            the workflow: 0 nodes of 0 steps
        "#]]
        .assert_eq(&text(&Graph::default()));
    }

    #[test]
    fn as_dot() {
        let few = dot(&graph(1));
        expect![[r#"
            digraph "a & <b>" {
              rankdir=LR;
              node [shape=box];
              "fetch[f=\"0\"]" [label="fetch[f=\"0\"]\nhttp.fetch"];
              "merge" [label="merge\ncsv.join"];
              "last" [label="last\necho"];
              "web" [label="web\nsim.http", shape=oval, style=dashed];
              "fetch[f=\"0\"]" -> "merge";
              "merge" -> "last" [style=dotted];
              "web" -> "fetch[f=\"0\"]" [style=dashed];
            }
        "#]]
        .assert_eq(&few);
        let many = few
            .replace(r#"label="fetch[f=\"0\"]"#, "label=\"fetch x30")
            .replace(r#"fetch[f=\"0\"]"#, "fetch");
        assert_eq!(dot(&graph(30)), many);
    }

    #[test]
    fn as_mermaid() {
        let few = mermaid(&graph(1));
        expect![[r#"
            flowchart LR
              n0["fetch[f=#34;0#34;]<br/>http.fetch"]
              n1["merge<br/>csv.join"]
              n2["last<br/>echo"]
              n3(["web<br/>sim.http"])
              n0 --> n1
              n1 -.-> n2
              n3 --- n0
        "#]]
        .assert_eq(&few);
        assert_eq!(mermaid(&graph(30)), few.replace("fetch[f=#34;0#34;]", "fetch x30"));
    }

    #[test]
    fn as_json() {
        expect![[r#"
            {
              "workflow": "a & <b>",
              "nodes": [
                {
                  "id": "fetch[f=\"0\"]",
                  "step": "fetch",
                  "stage": "http.fetch",
                  "inputs": {},
                  "outputs": {
                    "out": "o/fetch[f=\"0\"]"
                  },
                  "services": [
                    "web"
                  ]
                },
                {
                  "id": "merge",
                  "step": "merge",
                  "stage": "csv.join",
                  "inputs": {
                    "in": [
                      "o/fetch[f=\"0\"]"
                    ]
                  },
                  "outputs": {
                    "out": "o/merge"
                  }
                },
                {
                  "id": "last",
                  "step": "last",
                  "command": "echo \"<&>\" | cat",
                  "inputs": {},
                  "outputs": {
                    "out": "o/last"
                  },
                  "needs": [
                    "merge"
                  ]
                }
              ],
              "edges": [
                [
                  "fetch[f=\"0\"]",
                  "merge"
                ],
                [
                  "merge",
                  "last"
                ]
              ],
              "services": [
                {
                  "id": "web",
                  "simulator": "sim.http"
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&json(&graph(1))).unwrap());
    }

    #[test]
    fn as_svg() {
        expect![[r#"
            <svg xmlns="http://www.w3.org/2000/svg" width="511" height="118" viewBox="0 0 511 118" role="img">
            <title>a &amp; &lt;b&gt;: 3 nodes of 3 steps, 1 service</title>
            <style>
            (style)
            </style>
            <defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>
            <rect class="back" width="511" height="118"/>
            <text class="title" x="20" y="34">a &amp; &lt;b&gt;: 3 nodes of 3 steps, 1 service</text>
            <g transform="translate(20 54)">
            <path class="arrow" marker-end="url(#head)" d="M206.9 22H206.9C238.9 22 238.9 22 270.9 22"/>
            <path class="arrow order" marker-end="url(#head)" d="M353.3 22H353.3C385.3 22 385.3 22 417.3 22"/>
            <path class="arrow uses" marker-end="url(#head)" d="M82.4 22H82.4C114.4 22 114.4 22 146.4 22"/>
            <g><title>fetch[f=&quot;0&quot;]
            http.fetch</title><rect class="box" x="146.4" y="0" width="60.5" height="44" rx="4"/><text class="id" x="158.4" y="18">fetch</text><text class="soft" x="158.4" y="34">f=&quot;0&quot;</text></g>
            <g><title>merge
            csv.join</title><rect class="box" x="270.9" y="0" width="82.4" height="44" rx="4"/><text class="id" x="282.9" y="18">merge</text><text class="soft" x="282.9" y="34">csv.join</text></g>
            <g><title>last
            echo</title><rect class="box" x="417.3" y="0" width="53.2" height="44" rx="4"/><text class="id" x="429.3" y="18">last</text><text class="soft" x="429.3" y="34">echo</text></g>
            <g><title>web
            sim.http</title><rect class="service" x="0" y="0" width="82.4" height="44" rx="20"/><text class="id" x="12" y="18">web</text><text class="soft" x="12" y="34">sim.http</text></g>
            </g>
            </svg>
        "#]].assert_eq(&svg(&graph(1)).replace(svg::STYLE, "(style)"));
        let many = svg(&graph(30));
        assert!(many.contains(">fetch x30<") && !many.contains("<b>"), "{many}");
    }

    #[test]
    fn steps_that_take_of_each_other_have_layers_all_the_same() {
        // a[1] -> b[1] -> a[2] -> ... -> b[20]: no cycle of nodes, one of steps
        let mut graph = Graph::default();
        for i in 0..40 {
            let step = if i % 2 == 0 { "a" } else { "b" };
            let before: Vec<usize> = if i == 0 { vec![] } else { vec![i - 1] };
            graph.nodes.push(node(step, &[("i", &i.to_string())], shell("x"), &before));
        }
        graph.order = (0..40).collect();
        let picture = Picture::of(&graph);
        assert_eq!(picture.boxes.iter().map(|b| b.layer).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(picture.arrows.len(), 2);
        assert!(svg(&graph).ends_with("</svg>\n"));
    }
}
