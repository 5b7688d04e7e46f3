//! Tests of the whole layer: workflows in a temporary directory, stages that exist by name only.

mod file_messages;
mod meaning;
mod step_messages;

use std::path::Path;

use serde_json::Value;

use crate::api::{Catalog, Done, ParamFault, Signature, SimulatorInfo, Stage, StageContext, StageError};
use crate::error::{Error, Result};
use crate::model::Policy;
use crate::observe::diagnostic::draw;

use super::{LoadRequest, Loaded, load};

/// A stage that exists by name: ports are written `name`, `name?` (optional), `name*` (any number).
struct Fake {
    name: &'static str,
    inputs: &'static [&'static str],
    outputs: &'static [&'static str],
    policy: Policy,
}

impl Stage for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        let params = schemars::json_schema!({"type": "object", "properties": {"url": {"type": "string"}}});
        let mut signature = Signature::with_schema("", params).policy(self.policy.clone());
        for text in self.inputs {
            signature = match (text.trim_end_matches(['?', '*']), text.chars().last()) {
                ("", _) => signature.input_list("*", ""),
                (name, Some('?')) => signature.optional_input(name, ""),
                (name, Some('*')) => signature.input_list(name, ""),
                (name, _) => signature.input(name, ""),
            };
        }
        for text in self.outputs {
            signature = match text.strip_suffix('?') {
                Some(name) => signature.optional_output(name, ""),
                None => signature.output(text.trim_end_matches('*'), ""),
            };
        }
        signature
    }

    fn check(&self, _with: &Value) -> std::result::Result<(), ParamFault> {
        Ok(())
    }

    fn run(&self, _ctx: &mut StageContext) -> std::result::Result<Done, StageError> {
        Ok(Done::Made)
    }
}

/// The stages and simulators of the example workflows, by name only.
pub(super) fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let mut add = |name, inputs, outputs| catalog.add(Fake { name, inputs, outputs, policy: Policy::Pure });
    add("inferencemax.wrap", &["body"], &["file"]);
    add("inferencemax.clean", &["file"], &["data?", "quarantined?", "verdict"]);
    add("inferencemax.clean_report", &["verdicts*"], &["report"]);
    add("inferencemax.convert", &["data"], &["rows"]);
    add("inferencemax.tables", &["rows*"], &["e2e", "interactivity", "columns"]);
    add("inferencemax.verify", &["e2e", "interactivity"], &["report"]);
    add("csv.join", &["left", "right"], &["csv", "report?"]);
    add("archive.version", &["tables*", "reports*", "raw*"], &["versions"]);
    add("report.markdown", &["*"], &["report"]);
    add("load.prompts", &[], &["prompts"]);
    add("llm.load", &["prompts"], &["requests", "summary"]);
    add("aisbench.export", &["requests"], &["pod"]);
    catalog.add(Fake { name: "http.fetch", inputs: &[], outputs: &["body"], policy: Policy::Validate });
    for name in ["sim.http", "sim.llm"] {
        let params = schemars::json_schema!({"type": "object"});
        catalog.add_simulator(SimulatorInfo { name, version: 1, doc: "", params, check: |_| Ok(()) });
    }
    catalog
}

/// Files of a workspace; the first is the root workflow.
pub(super) struct Project {
    dir: tempfile::TempDir,
    request: LoadRequest,
}

impl Project {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let request = LoadRequest { file: file.into(), root: dir.path().to_owned(), ..Default::default() };
        Self { dir, request }.file(file, text)
    }

    /// One workflow file `w.json` with the given text after its name.
    pub(super) fn body(text: &str) -> Self {
        Self::new("w.json", &format!("{{\n  \"name\": \"w\",\n{text}\n}}\n"))
    }

    pub(super) fn file(self, file: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub(super) fn set(mut self, set: &str) -> Self {
        self.request.set.push(set.to_owned());
        self
    }

    pub(super) fn profile(mut self, profile: &str) -> Self {
        self.request.profile = Some(profile.to_owned());
        self
    }

    pub(super) fn params_file(mut self, file: &str) -> Self {
        self.request.params_files.push(file.into());
        self
    }

    pub(super) fn load(&self) -> Result<Loaded> {
        load(&self.request, &catalog())
    }

    #[track_caller]
    pub(super) fn ok(&self) -> Loaded {
        self.load().unwrap_or_else(|error| panic!("{}", shown(&error)))
    }

    /// The faults as drawn.
    #[track_caller]
    pub(super) fn faults(&self) -> String {
        match self.load() {
            Ok(_) => panic!("the workflow was accepted"),
            Err(error) => shown(&error),
        }
    }
}

/// Compares the faults as drawn.
#[track_caller]
pub(super) fn says(project: &Project, wanted: expect_test::Expect) {
    wanted.assert_eq(&project.faults());
}

/// An error as a person sees it.
fn shown(error: &Error) -> String {
    let mut text = String::new();
    if error.diagnostics.is_empty() {
        text = format!("error: {}\n", error.message);
        for hint in &error.hints {
            text.push_str(&format!("help: {hint}\n"));
        }
    }
    for diagnostic in &error.diagnostics {
        text.push_str(&draw(diagnostic, false));
        text.push('\n');
    }
    text
}

/// The design's example workflows, if they are there.
pub(super) fn examples() -> Option<std::path::PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/design/example-workflows");
    dir.is_dir().then_some(dir)
}
