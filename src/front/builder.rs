//! The Rust builder: makes the JSON form of a workflow, which the same code lowers as a file. Unaware of lowering.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::{Catalog, Done, ParamFault, Signature, Stage, StageContext, StageError};
use crate::error::Result;

use super::{LoadRequest, Loaded, load_value};

/// A workflow made in Rust; `Workflow` in the prelude.
pub struct WorkflowBuilder {
    document: Document,
    stages: Rc<RefCell<Vec<Closure>>>,
    file: std::path::PathBuf,
}

/// Shared, so that handles of steps and the workflow can be used side by side.
type Document = Rc<RefCell<Map<String, Value>>>;

/// A parameter; stands for `${params.NAME}`.
#[derive(Clone, Debug)]
pub struct ParamHandle(String);

/// A step being declared.
pub struct StepBuilder {
    document: Document,
    stages: Rc<RefCell<Vec<Closure>>>,
    id: String,
}

/// A built-in stage with its parameters.
pub trait StageCall {
    /// Name and `with`.
    fn call(self) -> (String, Value);
}

/// Any stage by name.
#[derive(Clone, Debug)]
pub struct Uses(String, Value);

impl Uses {
    /// The stage `name` with the parameters `with`, an object.
    pub fn new(name: impl Into<String>, with: impl Into<Value>) -> Self {
        Self(name.into(), with.into())
    }
}

impl StageCall for Uses {
    fn call(self) -> (String, Value) {
        (self.0, self.1)
    }
}

impl StageCall for &str {
    fn call(self) -> (String, Value) {
        (self.to_owned(), json!({}))
    }
}

impl fmt::Display for ParamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{params.{}}}", self.0)
    }
}

impl From<&ParamHandle> for Value {
    fn from(param: &ParamHandle) -> Self {
        Self::String(param.to_string())
    }
}

impl From<ParamHandle> for Value {
    fn from(param: ParamHandle) -> Self {
        Self::from(&param)
    }
}

impl WorkflowBuilder {
    /// An empty workflow.
    pub fn new(name: &str) -> Self {
        let mut map = Map::new();
        map.insert("name".to_owned(), json!(name));
        let file = format!("{name}.rs").into();
        Self { document: Rc::new(RefCell::new(map)), stages: Rc::default(), file }
    }

    /// Says which file declares it, relative to the workspace root: `wf.at(file!())`. Its directory is `${workflow.dir}`, and
    /// includes are relative to it. Default: `NAME.rs` in the root.
    pub fn at(&mut self, file: &str) -> &mut Self {
        self.file = file.into();
        self
    }

    /// The declaring file.
    pub fn file(&self) -> std::path::PathBuf {
        self.file.clone()
    }

    /// Sets any top-level key.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.document.borrow_mut().insert(key.to_owned(), value.into());
        self
    }

    /// Declares a parameter with its default.
    pub fn param(&mut self, name: &str, value: impl Into<Value>) -> ParamHandle {
        put(&self.document, &["params", name], value.into());
        ParamHandle(name.to_owned())
    }

    /// Declares a service by its JSON form.
    pub fn service(&mut self, id: &str, definition: impl Into<Value>) -> &mut Self {
        put(&self.document, &["services", id], definition.into());
        self
    }

    /// Declares a profile by its JSON form.
    pub fn profile(&mut self, name: &str, definition: impl Into<Value>) -> &mut Self {
        put(&self.document, &["profiles", name], definition.into());
        self
    }

    /// Includes a workflow file under `prefix`, with its params bound.
    pub fn include(&mut self, file: &str, prefix: &str, params: impl Into<Value>) -> &mut Self {
        let entry = json!({"file": file, "as": prefix, "params": params.into()});
        let mut document = self.document.borrow_mut();
        if let Value::Array(list) = document.entry("include").or_insert_with(|| json!([])) {
            list.push(entry);
        }
        drop(document);
        self
    }

    /// Begins a step. Declaring one id twice continues the first.
    pub fn step(&mut self, id: &str) -> StepBuilder {
        let mut document = self.document.borrow_mut();
        if let Value::Object(steps) = document.entry("steps").or_insert_with(|| json!({})) {
            steps.entry(id).or_insert_with(|| json!({}));
        }
        StepBuilder { document: self.document.clone(), stages: self.stages.clone(), id: id.to_owned() }
    }

    /// The JSON form.
    pub fn to_json(&self) -> Value {
        Value::Object(self.document.borrow().clone())
    }

    /// Adds the closures given to [`StepBuilder::uses_fn`] to a catalog.
    pub fn register(&self, catalog: &mut Catalog) {
        for stage in self.stages.borrow().iter() {
            catalog.add(stage.clone());
        }
    }

    /// Lowers and checks it as a file would be; `catalog` gets the closures. See [`load_value`] for `request.file`.
    pub fn load(&self, request: &LoadRequest, catalog: &mut Catalog) -> Result<Loaded> {
        self.register(catalog);
        load_value(&self.to_json(), request, catalog)
    }
}

impl StepBuilder {
    /// Adds an axis: a list, or a parameter that is one.
    pub fn matrix(self, axis: &str, values: impl Into<Value>) -> Self {
        self.put(&["matrix", axis], values.into())
    }

    /// Adds an axis over the paths that match: a pattern, a list of patterns, or a reference to outputs.
    pub fn matrix_glob(self, axis: &str, pattern: impl Into<Value>) -> Self {
        self.put(&["matrix", axis], json!({"glob": pattern.into()}))
    }

    /// Runs a built-in stage.
    pub fn uses(self, stage: impl StageCall) -> Self {
        let (name, with) = stage.call();
        let step = self.put(&["uses"], json!(name));
        match &with {
            Value::Object(map) if map.is_empty() => step,
            _ => step.put(&["with"], with),
        }
    }

    /// Runs Rust code, cached like a built-in stage. Raise `version` whenever the same inputs could give other bytes.
    pub fn uses_fn<F>(self, name: &str, version: u32, run: F) -> Self
    where
        F: Fn(&mut StageContext<'_>) -> std::result::Result<(), StageError> + Send + Sync + 'static,
    {
        // A stage's name lives as long as the program; one per closure stage is kept.
        let stage =
            Closure { name: Box::leak(name.to_owned().into_boxed_str()), version, run: Arc::new(run) };
        self.stages.borrow_mut().push(stage);
        self.put(&["uses"], json!(name))
    }

    /// Runs a command, started without a shell.
    pub fn run<A: Into<Value>>(self, argv: impl IntoIterator<Item = A>) -> Self {
        let argv: Vec<Value> = argv.into_iter().map(Into::into).collect();
        self.put(&["run"], Value::Array(argv))
    }

    /// Declares an input.
    pub fn input(self, name: &str, from: impl Into<Value>) -> Self {
        self.put(&["inputs", name], from.into())
    }

    /// Declares an output.
    pub fn output(self, name: &str, path: impl Into<String>) -> Self {
        self.put(&["outputs", name], Value::String(path.into()))
    }

    /// Declares an output by its JSON form: `{"path": ..., "optional": true}`.
    pub fn output_with(self, name: &str, declaration: impl Into<Value>) -> Self {
        self.put(&["outputs", name], declaration.into())
    }

    /// Names the Make-style file in which the command says what else it read: a path, or `${outputs.N}.d`.
    pub fn depfile(self, path: impl Into<String>) -> Self {
        self.put(&["depfile"], Value::String(path.into()))
    }

    /// Sets any other key of the step.
    pub fn set(self, key: &str, value: impl Into<Value>) -> Self {
        self.put(&[key], value.into())
    }

    /// `${steps.ID.OUTPUT}`
    pub fn out(&self, output: &str) -> String {
        format!("${{steps.{}.{output}}}", self.id)
    }

    fn put(self, path: &[&str], value: Value) -> Self {
        let full: Vec<&str> = ["steps", self.id.as_str()].iter().chain(path).copied().collect();
        put(&self.document, &full, value);
        self
    }
}

/// Sets the value at `path`, making objects on the way.
fn put(document: &Document, path: &[&str], value: Value) {
    let mut document = document.borrow_mut();
    let Some((last, parents)) = path.split_last() else { return };
    let mut map = &mut *document;
    for key in parents {
        let slot = map.entry(*key).or_insert_with(|| json!({}));
        if !slot.is_object() {
            *slot = json!({});
        }
        match slot {
            Value::Object(inner) => map = inner,
            _ => return,
        }
    }
    map.insert((*last).to_owned(), value);
}

/// What a closure stage does.
type ClosureFn = dyn Fn(&mut StageContext<'_>) -> std::result::Result<(), StageError> + Send + Sync;

/// A closure as a stage: takes inputs and outputs of any name, and any parameters.
#[derive(Clone)]
struct Closure {
    name: &'static str,
    version: u32,
    run: Arc<ClosureFn>,
}

impl Stage for Closure {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn signature(&self) -> Signature {
        Signature::with_schema(
            "A function of the program that declares the workflow.",
            schemars::Schema::from(true),
        )
        .input_list("*", "any")
        .optional_output("*", "any")
    }

    fn check(&self, _with: &Value) -> std::result::Result<(), ParamFault> {
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> std::result::Result<Done, StageError> {
        (self.run)(ctx).map(|()| Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, ExprKind};

    fn request() -> LoadRequest {
        LoadRequest { file: "workflows/demo.rs".into(), root: "/nowhere".into(), ..Default::default() }
    }

    #[test]
    fn the_builder_makes_the_public_format() {
        let mut wf = WorkflowBuilder::new("demo");
        let models = wf.param("models", ["a", "b"]);
        let fetch = wf
            .step("fetch")
            .matrix("model", &models)
            .uses(Uses::new("my.fetch", json!({"url": "https://x/${matrix.model}"})))
            .output("body", "raw/${matrix.model}.json");
        wf.step("merge").input("files", fetch.out("body")).output("csv", "merged.csv").uses_fn(
            "my.merge",
            1,
            |ctx| ctx.write("csv", b""),
        );
        assert_eq!(
            wf.to_json(),
            json!({
                "name": "demo",
                "params": {"models": ["a", "b"]},
                "steps": {
                    "fetch": {
                        "matrix": {"model": "${params.models}"},
                        "uses": "my.fetch",
                        "with": {"url": "https://x/${matrix.model}"},
                        "outputs": {"body": "raw/${matrix.model}.json"}
                    },
                    "merge": {
                        "inputs": {"files": "${steps.fetch.body}"},
                        "outputs": {"csv": "merged.csv"},
                        "uses": "my.merge"
                    }
                }
            })
        );
    }

    #[test]
    fn it_is_lowered_as_a_file_is_and_faults_show_its_json() {
        let mut wf = WorkflowBuilder::new("demo");
        wf.step("a").uses_fn("my.a", 1, |_| Ok(())).output("x", "out/x");
        let mut catalog = Catalog::default();
        let loaded = wf.load(&request(), &mut catalog).unwrap();
        assert_eq!(loaded.workflow.dir, "workflows");
        assert!(
            matches!(&loaded.workflow.steps["a"].action, Action::Uses { stage, .. } if stage.value == "my.a")
        );
        assert!(matches!(&loaded.workflow.steps["a"].outputs["x"].path.kind, ExprKind::Text(_)));

        wf.step("a").set("retries", 3);
        let error = wf.load(&request(), &mut catalog).unwrap_err();
        let place = error.diagnostics[0].to_string();
        assert_eq!(place, "workflows/demo.rs (as JSON):9:7: unknown key 'retries' of a step", "{place}");
    }
}
