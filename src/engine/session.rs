//! What all threads of one run share: project, options, tokens, guard, runtime, services, scratch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::options::RunOptions;
use super::project::Project;
use super::services::Services;
use crate::api::CancelToken;
use crate::base::clock;
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::exec::{Guard, Masker};
use crate::graph::{NodeAction, NodeIx, ServiceAction};

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

/// One run.
pub struct Session {
    pub(super) project: Project,
    pub(super) run: String,
    pub(super) options: RunOptions,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) interrupts: Interrupts,
    pub(super) services: Services,
    pub(super) masker: Arc<Masker>,
    pub(super) started: Instant,
    pub(super) scratch: PathBuf,
    pub(super) pool: rayon::ThreadPool,
    /// The program that can be a guard and a simulator: this one.
    pub(super) program: PathBuf,
    guard: OnceLock<Guard>,
    guard_start: Mutex<()>,
    runtime: OnceLock<tokio::runtime::Runtime>,
}

impl Session {
    /// Prepares a run; nothing is started yet.
    pub fn new(
        project: Project,
        options: RunOptions,
        sink: Arc<dyn Sink>,
        interrupts: Interrupts,
    ) -> Result<Self> {
        let run = run_id();
        let scratch = scratch_root(&project)?.join(&run);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.jobs.max(1))
            .thread_name(|n| format!("stage-{n}"))
            .build()
            .map_err(|e| Error::environment(format!("failed to start worker threads: {e}")))?;
        let program = std::env::current_exe()
            .map_err(|e| Error::environment(format!("failed to find the path of this program: {e}")))?;
        let masker = Arc::new(Masker::new(secret_values(&project)));
        Ok(Self {
            services: Services::new(project.graph.services.len()),
            project,
            run,
            options,
            sink,
            interrupts,
            masker,
            started: Instant::now(),
            scratch,
            pool,
            program,
            guard: OnceLock::new(),
            guard_start: Mutex::new(()),
            runtime: OnceLock::new(),
        })
    }

    /// The run's id.
    pub fn run_id(&self) -> &str {
        &self.run
    }

    /// The open project.
    pub fn project(&self) -> &Project {
        &self.project
    }

    pub(super) fn emit(&self, event: Event) {
        self.sink.emit(event);
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

    /// Scratch directory of one attempt.
    pub(super) fn attempt_dir(&self, node: NodeIx, attempt: u32) -> PathBuf {
        self.scratch.join(format!("{node}.{attempt}"))
    }

    /// Ends the guard and removes scratch; called once, after all jobs.
    pub(super) fn close(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.finish();
            super::recover::unmark_active(&self.project);
        }
        if !super::recover::holds_aside(&self.scratch) {
            let _ = std::fs::remove_dir_all(&self.scratch);
        }
    }

    /// Environment of a command or service: little is inherited.
    pub(super) fn base_env(&self) -> Vec<(String, String)> {
        let inherited = ["PATH", "HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];
        let mut env: Vec<(String, String)> = inherited
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        env.push(("LANG".to_owned(), "C.UTF-8".to_owned()));
        env.push(("TZ".to_owned(), "UTC".to_owned()));
        env.push((ENV_RUN.to_owned(), self.run.clone()));
        env.push((ENV_ROOT.to_owned(), self.project.root.to_string_lossy().into_owned()));
        env
    }
}

/// `20261121-101500-7f3a`, UTC.
fn run_id() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    format!("{now}-{:04x}", fastrand::u16(..))
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

/// Values of every secret that the graph names and the environment has.
fn secret_values(project: &Project) -> Vec<String> {
    let mut names = Vec::new();
    for node in &project.graph.nodes {
        if let NodeAction::Stage { with, .. } = &node.action {
            with.secrets(&mut names);
        }
        node.env.values().for_each(|value| value.secrets(&mut names));
    }
    for service in &project.graph.services {
        if let ServiceAction::Simulator { with, .. } = &service.action {
            with.secrets(&mut names);
        }
        service.env.values().for_each(|value| value.secrets(&mut names));
    }
    let names: BTreeSet<String> = names.into_iter().collect();
    names.iter().filter_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty()).collect()
}

/// RFC 3339 text of the start, for the record.
pub(super) fn started_text() -> String {
    clock::now_text()
}
