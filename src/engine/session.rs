//! What all threads of one run share: project, options, tokens, guard, runtime, services, scratch.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::aside::Asides;
use super::options::RunOptions;
use super::project::Project;
use super::services::Services;
use crate::api::CancelToken;
use crate::base::clock;
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::exec::{Guard, JobPool, Masker, strict_supported};
use crate::graph::{Graph, Node, NodeAction, NodeIx, Selection, ServiceAction, ServiceNode};
use crate::model::Jobserver;

/// The run id, in the environment of everything a run starts.
pub(super) const ENV_RUN: &str = "FLOW_RUN";
/// The workspace root, likewise: a `flow` inside a run knows that it is.
pub(super) const ENV_ROOT: &str = "FLOW_ROOT";

/// Ctrl-C, once and twice.
#[derive(Clone, Debug, Default)]
pub struct Interrupts {
    /// Once: start nothing more, end what runs.
    pub stop: CancelToken,
    /// Twice: kill.
    pub kill: CancelToken,
    /// SIGTERM rather than SIGINT.
    pub terminated: CancelToken,
}

/// An attempt of a stage, which is ended by its token alone.
struct Watched {
    token: CancelToken,
    job: CancelToken,
    deadline: Option<Instant>,
}

/// One run.
pub struct Session {
    watched: Mutex<std::collections::HashMap<NodeIx, Watched>>,
    pub(super) project: Project,
    pub(super) run: String,
    pub(super) options: RunOptions,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) interrupts: Interrupts,
    pub(super) services: Services,
    pub(super) masker: Arc<Masker>,
    pub(super) started: Instant,
    /// When the workflow was about to be looked at, ns since 1970.
    pub(super) started_ns: i64,
    /// What commands write themselves.
    pub(super) asides: Asides,
    scratch: PathBuf,
    scratch_made: OnceLock<()>,
    /// What every command and service gets.
    env: OnceLock<Vec<(String, String)>>,
    /// The program that can be a guard and a simulator: this one.
    pub(super) program: PathBuf,
    /// What was done about runs that were killed.
    pub(super) recovered: Vec<String>,
    /// The pool of job tokens, if one is used.
    jobs: OnceLock<Arc<JobPool>>,
    /// How commands are told of it where they do not say.
    jobs_style: OnceLock<Jobserver>,
    guard: OnceLock<Guard>,
    guard_start: Mutex<()>,
    runtime: OnceLock<tokio::runtime::Runtime>,
}

impl Session {
    /// Prepares a run whose caller holds the workspace lock: first what killed runs left behind is brought in order.
    pub fn recovering(
        mut project: Project,
        options: RunOptions,
        sink: Arc<dyn Sink>,
        interrupts: Interrupts,
    ) -> Result<Self> {
        let recovered = super::recover::recover(&mut project)?;
        Ok(Self { recovered, ..Self::new(project, options, sink, interrupts)? })
    }

    /// Prepares a run; nothing is started yet.
    pub fn new(
        project: Project,
        options: RunOptions,
        sink: Arc<dyn Sink>,
        interrupts: Interrupts,
    ) -> Result<Self> {
        // what is asked wrongly is no run: it leaves no record
        if options.strict {
            strict_supported()?;
        }
        let selection = project.select(&options.targets)?;
        // those of a compiled plan were checked when it was made
        if project.loaded.is_some() {
            super::run::check_demands(&project, &options, &selection)?;
        }
        super::evaluate::check_patterns(&project, &options, &selection)?;
        super::machine::check_leases(&project, &options, &selection)?;
        let run = new_run_id(project.store.dir());
        let project_opened = project.opened_ns;
        let scratch = scratch_root(&project)?.join(format!("{}{run}", scratch_prefix(&project)));
        let program = std::env::current_exe()
            .map_err(|e| Error::environment(format!("failed to find the path of this program: {e}")))?;
        let masker = Arc::new(Masker::new(secret_values(&project)));
        Ok(Self {
            watched: Mutex::default(),
            services: Services::default(),
            project,
            run,
            options,
            sink,
            interrupts,
            masker,
            started: Instant::now(),
            started_ns: project_opened,
            asides: Asides::new(&scratch),
            scratch,
            scratch_made: OnceLock::new(),
            env: OnceLock::new(),
            program,
            recovered: Vec::new(),
            jobs: OnceLock::new(),
            jobs_style: OnceLock::new(),
            guard: OnceLock::new(),
            guard_start: Mutex::new(()),
            runtime: OnceLock::new(),
        })
    }

    /// The run's id.
    pub fn run_id(&self) -> &str {
        &self.run
    }

    /// Closes what is open; what is only memory, of many nodes, is left to the end of the process, which frees it at once.
    pub fn end_with_process(self) {
        let Project { graph, asked, listed, known, loaded, .. } = self.project;
        std::mem::forget((graph, asked, listed, known, loaded));
    }

    /// The open project.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// Says something to the world: the one gate, so that no text leaves with a secret in it.
    pub(super) fn emit(&self, mut event: Event) {
        self.mask(&mut event);
        self.sink.emit(event);
    }

    fn mask(&self, event: &mut Event) {
        if self.masker.is_empty() {
            return;
        }
        let mask = |text: &mut String| *text = self.masker.mask(text);
        match event {
            Event::Note { message } | Event::NodeRetrying { message, .. } => mask(message),
            Event::Log { line, .. } => mask(line),
            Event::ServiceStopped { failure, .. } => failure.iter_mut().for_each(mask),
            Event::NodeFinished(report) => {
                report.reason.iter_mut().chain(&mut report.error).for_each(mask);
                report.hints.iter_mut().chain(&mut report.tail).for_each(mask);
                report.record.values_mut().for_each(|value| self.mask_json(value));
            }
            Event::DeterminismChecked(report) => {
                report.reason.iter_mut().for_each(mask);
                report.differences.iter_mut().flat_map(|found| &mut found.lines).for_each(mask);
            }
            Event::RunStarted { .. }
            | Event::Planned { .. }
            | Event::AllFresh { .. }
            | Event::Looked { .. }
            | Event::Alive { .. }
            | Event::NodeStarted { .. }
            | Event::ServiceStarting { .. }
            | Event::ServiceReady { .. }
            | Event::RunFinished { .. } => {}
        }
    }

    fn mask_json(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => *text = self.masker.mask(text),
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| self.mask_json(item)),
            serde_json::Value::Object(map) => map.values_mut().for_each(|item| self.mask_json(item)),
            _ => {}
        }
    }

    /// A moment as the stamps of events have it: seconds.
    pub(super) fn stamp(&self, moment: Instant) -> f64 {
        let micros = moment.saturating_duration_since(self.sink.begun()).as_micros();
        micros as f64 / 1e6
    }

    pub(super) fn note(&self, message: impl Into<String>) {
        self.emit(Event::Note { message: message.into() });
    }

    pub(super) fn stopping(&self) -> bool {
        self.interrupts.stop.is_cancelled()
    }

    /// The guard, started with the first process of the run.
    pub(super) fn guard(&self) -> Result<&Guard> {
        if let Some(guard) = self.guard.get() {
            return Ok(guard);
        }
        let _starting = self.guard_start.lock().unwrap_or_else(|e| e.into_inner());
        if self.guard.get().is_none() {
            super::recover::mark_active(&self.project, &self.run)?;
            let guard = Guard::start(&self.program, &self.run)?;
            let _ = self.guard.set(guard);
        }
        self.guard.get().ok_or_else(|| Error::bug("the guard vanished"))
    }

    /// The pool of job tokens that the run has with others, if there is one.
    pub(super) fn jobs(&self) -> Option<&Arc<JobPool>> {
        self.jobs.get()
    }

    /// Finds or makes the pool of `slots` job tokens: that of a make above, or one of its own if a selected command asks for it.
    pub(super) fn share_jobs(&self, selection: &Selection, slots: u32) -> Result<()> {
        let asked = |ix: &NodeIx| self.project.graph.nodes[*ix].resources.jobserver.is_some();
        let pool = match &self.options.jobserver {
            Some(pool) => Arc::clone(pool),
            // a compiled plan is only made where nobody asks
            None if self.project.known.is_none() && selection.nodes.iter().any(|ix| asked(&ix)) => {
                Arc::new(JobPool::create(&self.scratch()?.join("jobs"), slots)?)
            }
            None => return Ok(()),
        };
        let _ = self.jobs.set(pool);
        Ok(())
    }

    /// `style`, or what the make of this machine understands.
    pub(super) fn jobs_style(&self, style: Jobserver) -> Jobserver {
        match style {
            Jobserver::Auto => *self
                .jobs_style
                .get_or_init(|| crate::exec::style_of_make(std::env::var("PATH").ok().as_deref())),
            said => said,
        }
    }

    /// The runtime of waiting stages.
    pub(super) fn runtime(&self) -> Result<tokio::runtime::Handle> {
        if self.runtime.get().is_none() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("wait")
                .enable_all()
                .build()
                .map_err(|e| Error::environment(format!("failed to start the async runtime: {e}")))?;
            let _ = self.runtime.set(runtime);
        }
        self.runtime.get().map(|r| r.handle().clone()).ok_or_else(|| Error::bug("the runtime vanished"))
    }

    /// A cancel token for one attempt of a stage: set when the job's is, or when the time is up.
    pub(super) fn watch(&self, node: NodeIx, job: &CancelToken, deadline: Option<Instant>) -> CancelToken {
        let token = CancelToken::default();
        let watched = Watched { token: token.clone(), job: job.clone(), deadline };
        self.watched.lock().unwrap_or_else(|e| e.into_inner()).insert(node, watched);
        token
    }

    /// The attempt is over.
    pub(super) fn unwatch(&self, node: NodeIx) {
        self.watched.lock().unwrap_or_else(|e| e.into_inner()).remove(&node);
    }

    /// Called now and then.
    pub(super) fn check_watched(&self) {
        for watched in self.watched.lock().unwrap_or_else(|e| e.into_inner()).values() {
            if watched.job.is_cancelled()
                || watched.deadline.is_some_and(|deadline| Instant::now() > deadline)
            {
                watched.token.cancel();
            }
        }
    }

    /// The scratch directory of the run, made when it is first needed.
    pub(super) fn scratch(&self) -> Result<&Path> {
        if self.scratch_made.get().is_none() {
            std::fs::create_dir_all(&self.scratch).map_err(|e| Error::io("create", &self.scratch, e))?;
            let _ = self.scratch_made.set(());
        }
        Ok(&self.scratch)
    }

    /// Ends the guard and removes scratch; called once, after all jobs.
    pub(super) fn close(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.finish();
            super::recover::unmark_active(&self.project, &self.run);
        }
        // what cannot be put back now stays for the next run
        let _ = super::recover::clear(&self.project, &self.scratch);
    }

    /// Environment of a command or service: little is inherited.
    pub(super) fn base_env(&self) -> Vec<(String, String)> {
        let env = self.env.get_or_init(|| {
            let mut env = plain_env();
            env.push((ENV_RUN.to_owned(), self.run.clone()));
            env.push((ENV_ROOT.to_owned(), self.project.root.to_string_lossy().into_owned()));
            env
        });
        env.clone()
    }
}

/// A new run's id: `20261121-101500-7f3a`, UTC. None that has a record in `cache`: many runs may begin in one second.
pub fn new_run_id(cache: &Path) -> String {
    loop {
        let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let id = format!("{now}-{:04x}", fastrand::u16(..));
        if !crate::store::runs::exists(cache, &id) {
            return id;
        }
    }
}

/// Where scratch goes: in the cache, or in `.flow/` in the root if the cache is on another file system.
pub(super) fn scratch_root(project: &Project) -> Result<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).map(|m| m.dev());
    let cache = project.store.dir();
    let same = match (device(&project.root), device(cache)) {
        (Ok(a), Ok(b)) => a == b,
        _ => true,
    };
    let dir = if same { cache.join("tmp") } else { project.root.join(".flow/tmp") };
    std::fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
    Ok(dir)
}

/// Begins the names of this workspace's scratch directories: other workspaces may share the cache.
pub(super) fn scratch_prefix(project: &Project) -> String {
    let name = project.workspace.dir().file_name().unwrap_or_default().to_string_lossy();
    format!("{}-", name.chars().take(16).collect::<String>())
}

/// Values of every secret that the graph names and the environment has.
fn secret_values(project: &Project) -> Vec<String> {
    let names = match &project.known {
        Some(known) => known.secrets().to_vec(),
        None => secret_names(&project.graph),
    };
    names.iter().filter_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty()).collect()
}

/// Names of every secret that nodes and services ask for, sorted.
pub(super) fn secret_names(graph: &Graph) -> Vec<String> {
    let mut names = Vec::new();
    graph.nodes.iter().for_each(|node| node_secrets(node, &mut names));
    graph.services.iter().for_each(|service| service_secrets(service, &mut names));
    names.sort_unstable();
    names.dedup();
    names
}

fn node_secrets(node: &Node, names: &mut Vec<String>) {
    if let NodeAction::Stage { with, .. } = &node.action {
        with.secrets(names);
    }
    node.env.values().for_each(|value| value.secrets(names));
}

fn service_secrets(service: &ServiceNode, names: &mut Vec<String>) {
    if let ServiceAction::Simulator { with, .. } = &service.action {
        with.secrets(names);
    }
    service.env.values().for_each(|value| value.secrets(names));
}

/// Every secret of a node and of the services it uses has to be there when it runs.
pub(super) fn check_secrets(project: &Project, node: &Node) -> Result<()> {
    let mut names = Vec::new();
    node_secrets(node, &mut names);
    node.services.iter().for_each(|ix| service_secrets(&project.graph.services[*ix], &mut names));
    match names.into_iter().find(|name| std::env::var_os(name).is_none()) {
        None => Ok(()),
        Some(name) => Err(Error::environment(format!("secret {name} is not set in the environment"))
            .hint(format!("set it for this call ({name}=... flow run ...) or export it"))),
    }
}

/// RFC 3339 text of the start, for the record.
pub(super) fn started_text() -> String {
    clock::now_text()
}

/// What every program that flow starts for a workflow inherits, and nothing else.
pub(super) fn plain_env() -> Vec<(String, String)> {
    let inherited = ["PATH", "HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];
    let mut env: Vec<(String, String)> =
        inherited.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    env.push(("LANG".to_owned(), "C.UTF-8".to_owned()));
    env.push(("TZ".to_owned(), "UTC".to_owned()));
    env
}
