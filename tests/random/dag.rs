//! A workflow as the tests think of it, and as the JSON file that flow reads. Unaware of what a step makes.

use serde_json::{Map, Value, json};

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All files of a list, one after another.
    Cat,
    /// Its lines, sorted, each once: an edit may end here.
    Sort,
    /// The first bytes, `params.n` of them: an edit may end here.
    Head,
    /// Each letter becomes the next one.
    Shift,
    /// Two outputs: the first two lines, the others.
    Split,
    /// Fails if there is a `q` in its input; its log is published nevertheless.
    Fail,
    /// An output only if there is a `z` in its input, and one always.
    Maybe,
    /// A directory with a file for each of the first lines.
    Explode,
    /// A text of all that is in a directory.
    Walk,
    /// A table of two columns.
    Table,
    /// `csv.join` of two tables.
    Join { strict: bool },
    /// `report.markdown`.
    Page,
}

/// What an output is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Text,
    Table,
    Dir,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file nobody makes.
    Source(String),
    /// One for each value of the axis: `src/m-VALUE.txt`.
    SourceOfAxis,
    /// An output of a step.
    Made { step: String, output: &'static str },
    /// A file in the directory that a step makes, by its path.
    Within { step: String },
    /// `src/g*.txt`.
    Glob,
    /// `out/w*.txt`: what the wide steps make.
    Wide,
    /// `src/d`, a directory nobody makes.
    SourceDir,
}

/// A declared output.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    pub name: &'static str,
    pub sort: Sort,
    pub optional: bool,
    pub on_failure: bool,
}

const fn declared(name: &'static str, sort: Sort) -> Declared {
    Declared { name, sort, optional: false, on_failure: false }
}

impl Kind {
    pub fn outputs(self) -> &'static [Declared] {
        const TEXT: &[Declared] = &[declared("o", Sort::Text)];
        const TABLE: &[Declared] = &[declared("o", Sort::Table)];
        const JOINED: &[Declared] = &[declared("csv", Sort::Text)];
        const PAGE: &[Declared] = &[declared("report", Sort::Text)];
        const DIR: &[Declared] = &[declared("o", Sort::Dir)];
        const SPLIT: &[Declared] = &[declared("o", Sort::Text), declared("p", Sort::Text)];
        const FAIL: &[Declared] =
            &[declared("o", Sort::Text), Declared { on_failure: true, ..declared("log", Sort::Text) }];
        const MAYBE: &[Declared] =
            &[Declared { optional: true, ..declared("o", Sort::Text) }, declared("n", Sort::Text)];
        match self {
            Self::Cat | Self::Sort | Self::Head | Self::Shift | Self::Walk => TEXT,
            Self::Page => PAGE,
            Self::Join { .. } => JOINED,
            Self::Split => SPLIT,
            Self::Fail => FAIL,
            Self::Maybe => MAYBE,
            Self::Explode => DIR,
            Self::Table => TABLE,
        }
    }

    /// Its inputs take lists.
    pub fn takes_list(self) -> bool {
        self == Self::Cat
    }

    /// Runs in flow itself.
    pub fn is_stage(self) -> bool {
        matches!(self, Self::Join { .. } | Self::Page)
    }

    pub fn input_names(self) -> &'static [&'static str] {
        match self {
            Self::Join { .. } => &["left", "right"],
            Self::Page => &["a", "template"],
            _ => &["a"],
        }
    }
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    pub id: String,
    pub kind: Kind,
    /// For each of the kind's inputs where it comes from; for a list, all of it.
    pub from: Vec<Vec<Origin>>,
    pub needs: Vec<String>,
    /// One node for each value of the workflow's axis.
    pub matrix: bool,
    pub allow_failure: bool,
    /// Changes the key, and nothing else.
    pub salt: u32,
    /// Part of its outputs' paths.
    pub place: u32,
    /// The command writes the declared path itself.
    pub direct: bool,
    /// It takes its time.
    pub nap: bool,
    /// Fails while the file `trip/ID` is there, of which flow knows nothing.
    pub trip: bool,
    pub pool: bool,
    pub exclusive: bool,
}

/// A workflow.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// Each takes only what earlier ones make.
    pub steps: Vec<Step>,
    pub axis: Vec<String>,
    /// `params.n` as the file has it.
    pub n: u32,
}

/// Slots of the pool that some steps take one of.
pub const POOL: u32 = 2;

impl Step {
    /// The path of an output, with `${matrix.m}` in it for a step with a matrix.
    pub fn path(&self, output: &Declared) -> String {
        let of_axis = if self.matrix { "-${matrix.m}" } else { "" };
        let end = match output.sort {
            Sort::Text => ".txt",
            Sort::Table => ".csv",
            Sort::Dir => ".d/",
        };
        // some lie deeper; what patterns match does not
        let dir = if self.place % 3 == 2 && !self.is_wide() { "out/deep/" } else { "out/" };
        let name = if output.name == self.kind.outputs()[0].name {
            String::new()
        } else {
            format!(".{}", output.name)
        };
        format!("{dir}{}{of_axis}.{}{name}{end}", self.id, self.place)
    }

    /// Its outputs are matched by a pattern.
    pub fn is_wide(&self) -> bool {
        self.id.starts_with('w')
    }

    /// The command's text, or the arguments of one without a shell.
    pub fn action(&self) -> Action {
        let direct = self.path(&self.kind.outputs()[0]);
        let o = if self.direct { direct.as_str() } else { "${outputs.o}" };
        let plain = !self.nap && !self.trip && !self.direct;
        let argv = |words: &[&str]| Action::Argv(words.iter().map(|word| (*word).to_owned()).collect());
        let body = match self.kind {
            Kind::Cat if plain => return argv(&["cat", "/dev/null", "${inputs.a}"]),
            Kind::Head if plain => return argv(&["head", "-c", "${params.n}", "${inputs.a}"]),
            Kind::Join { .. } => return Action::Stage("csv.join"),
            Kind::Page => return Action::Stage("report.markdown"),
            Kind::Cat => format!("cat /dev/null ${{inputs.a}} > {o}"),
            Kind::Head => format!("head -c ${{params.n}} ${{inputs.a}} > {o}"),
            Kind::Sort => format!("sort -u ${{inputs.a}} > {o}"),
            Kind::Shift => format!("tr a-y b-z < ${{inputs.a}} > {o}"),
            Kind::Split => {
                format!("head -n 2 ${{inputs.a}} > {o}; tail -n +3 ${{inputs.a}} > ${{outputs.p}}")
            }
            Kind::Fail => format!(
                "echo begun > ${{outputs.log}}; cat ${{inputs.a}} > {o}; \
                 if grep -q q ${{inputs.a}}; then echo found > ${{outputs.log}}; exit 3; fi"
            ),
            Kind::Maybe => format!(
                "grep -c '' ${{inputs.a}} > ${{outputs.n}} || :; \
                 if grep -q z ${{inputs.a}}; then cat ${{inputs.a}} > {o}; fi"
            ),
            Kind::Explode => format!(
                "mkdir -p {o}/sub; cat ${{inputs.a}} > {o}/sub/all; n=0; head -n 5 ${{inputs.a}} | \
                 while read -r line; do n=$((n+1)); printf '%s\\n' \"$line\" > {o}/\"f$n\"; done"
            ),
            Kind::Walk => format!(
                "find ${{inputs.a}} -type f -printf '%P\\n' | LC_ALL=C sort | \
                 while read -r name; do echo \"$name\"; cat ${{inputs.a}}/\"$name\"; done > {o}"
            ),
            Kind::Table => format!(
                "{{ echo k,v; tr -c 'a-z0-9\\n' x < ${{inputs.a}} | sed -n 's/^\\(.\\)\\(.*\\)$/\\1,\\2/p'; }} > {o}"
            ),
        };
        let trip = if self.trip { format!("[ ! -e trip/{} ] || exit 7; ", self.id) } else { String::new() };
        let nap = if self.nap { "sleep 0.02; " } else { "" };
        Action::Shell(format!("{trip}{nap}{body}"))
    }

    /// What its declaration says besides inputs and outputs, as far as it decides a result.
    pub fn with(&self) -> Value {
        match self.kind {
            Kind::Join { strict } => json!({
                "on": ["k"], "columns": ["v"], "on_duplicate": "first", "line_end": "lf",
                "one_sided": if strict { "fail" } else { "keep" },
            }),
            Kind::Page => json!({"template": "template", "vars": {"n": "${params.n}", "salt": self.salt}}),
            _ => Value::Null,
        }
    }

    fn json(&self, workflow: &Workflow) -> Value {
        let mut step = Map::new();
        match self.action() {
            Action::Shell(text) => {
                step.insert("run".into(), text.into());
            }
            Action::Argv(words) => {
                step.insert("run".into(), words.into());
                step.insert("stdout".into(), "o".into());
            }
            Action::Stage(name) => {
                step.insert("uses".into(), name.into());
                step.insert("with".into(), self.with());
            }
        }
        if self.salt > 0 && !self.kind.is_stage() {
            step.insert("env".into(), json!({"SALT": self.salt.to_string()}));
        }
        let mut inputs = Map::new();
        for (name, origins) in self.kind.input_names().iter().zip(&self.from) {
            let values: Vec<Value> = origins.iter().map(|origin| workflow.origin(origin).into()).collect();
            let one = values.len() == 1 && !self.kind.takes_list();
            inputs.insert((*name).into(), if one { values[0].clone() } else { values.into() });
        }
        step.insert("inputs".into(), inputs.into());
        let mut outputs = Map::new();
        for output in self.kind.outputs() {
            let path = self.path(output);
            let value = match (output.optional, output.on_failure) {
                (false, false) => path.into(),
                (optional, on_failure) => {
                    json!({"path": path, "optional": optional, "on_failure": on_failure})
                }
            };
            outputs.insert(output.name.into(), value);
        }
        step.insert("outputs".into(), outputs.into());
        if self.matrix {
            step.insert("matrix".into(), json!({"m": "${params.axis}"}));
        }
        if !self.needs.is_empty() {
            step.insert("needs".into(), json!(self.needs));
        }
        if self.allow_failure {
            step.insert("allow_failure".into(), true.into());
        }
        let mut resources = Map::new();
        if self.pool {
            resources.insert("pool".into(), json!({"p": 1}));
        }
        if self.exclusive {
            resources.insert("exclusive".into(), true.into());
        }
        if !resources.is_empty() {
            step.insert("resources".into(), resources.into());
        }
        step.into()
    }
}

/// What runs.
#[derive(Clone, Debug)]
pub enum Action {
    Shell(String),
    Argv(Vec<String>),
    Stage(&'static str),
}

impl Workflow {
    pub fn step(&self, id: &str) -> &Step {
        self.steps.iter().find(|step| step.id == id).unwrap_or_else(|| panic!("no step {id}"))
    }

    /// An origin as an input's value in the file.
    fn origin(&self, origin: &Origin) -> String {
        match origin {
            Origin::Source(path) => path.clone(),
            Origin::SourceOfAxis => "src/m-${matrix.m}.txt".to_owned(),
            Origin::Made { step, output } => format!("${{steps.{step}.{output}}}"),
            Origin::Within { step } => {
                let step = self.step(step);
                format!("{}sub/all", step.path(&step.kind.outputs()[0]))
            }
            Origin::Glob => "src/g*.txt".to_owned(),
            Origin::Wide => "out/w*.txt".to_owned(),
            Origin::SourceDir => "src/d".to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        let steps: Map<String, Value> =
            self.steps.iter().map(|step| (step.id.clone(), step.json(self))).collect();
        json!({
            "name": "random",
            "params": {"n": self.n, "axis": self.axis},
            "resources": {"pools": {"p": POOL}},
            "steps": steps,
        })
    }
}
