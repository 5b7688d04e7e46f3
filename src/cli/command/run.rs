//! `flow run`: options resolved, observers set up, the lock taken, the engine run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use crate::api::Catalog;
use crate::cli::app::App;
use crate::cli::args::{Restore, RunArgs, SelectArgs};
use crate::cli::signals;
use crate::engine::{self, Check, Force, RunOptions, RunSummary, Session};
use crate::error::{Error, Kind, Result};
use crate::event::Sink;
use crate::exec::JobPool;
use crate::front::Loaded;
use crate::observe::jsonl::JsonLines;
use crate::observe::record::Recorder;
use crate::observe::summary::Summary;
use crate::observe::trace::Trace;
use crate::observe::{Console, Fanout, Observer};
use crate::store::WorkspaceLock;
use crate::store::runs::RunWriter;

/// Options of a run from the arguments that `run` and `plan` share.
pub(super) fn options(select: &SelectArgs) -> RunOptions {
    RunOptions {
        targets: select.targets.clone(),
        force: match select.force.as_deref() {
            None => Force::Nothing,
            Some("*") => Force::All,
            Some(pattern) => Force::Matching(pattern.to_owned()),
        },
        remeasure: select.remeasure.clone(),
        adopt: select.adopt.clone(),
        no_cache: select.no_cache,
        offline: select.offline,
        restore: select.restore.map(|restore| match restore {
            Restore::All => engine::Restore::All,
            Restore::Targets => engine::Restore::Targets,
        }),
        ..RunOptions::default()
    }
}

/// Options of a run from its arguments, and from a make above it.
pub(super) fn run_options(app: &App, args: &RunArgs) -> RunOptions {
    let mut options = options(&args.select);
    options.keep_going = args.keep_going;
    options.frozen = args.frozen;
    options.strict = args.strict;
    options.check_determinism = args.check_determinism.clone();
    match JobPool::inherited(std::env::var_os("MAKEFLAGS").as_deref()) {
        None => {}
        Some(Ok(pool)) => {
            options.jobs = pool.slots().map_or(options.jobs, |n| n as usize);
            options.jobserver = Some(Arc::new(pool));
        }
        Some(Err(why)) => {
            let line = format!(
                "the jobserver of make cannot be used ({why}): its jobs and those of flow are not counted together"
            );
            app.printer.talk(&format!("{line}\nhelp: begin the line of the rule with '+'\n"));
        }
    }
    if let Some(jobs) = args.jobs {
        options.jobs = jobs;
    }
    options
}

pub(in crate::cli) fn run(app: &App, args: &RunArgs) -> Result<ExitCode> {
    let mut options = run_options(app, args);
    let interrupts = signals::listen()?;
    // a slip in them is said whether or not there is something to do
    App::machine(&args.select.workflow)?;
    let place = certificate(app, args, &options);
    options.certificate = place.clone().map(|place| (place, args.select.workflow.params.clone()));
    let mut read = None;
    if let Some(place) = place.filter(|place| place.is_file())
        && let Ok(lock) = engine::locked(&app.root, true, &mut |_| {}, &|| false)
    {
        match engine::check_certificate(&place) {
            Check::Holds(certified) => return nothing_to_do(app, args, &certified),
            Check::Changed(changed) => {
                let catalog = crate::stage::catalog();
                if let Some(project) = engine::resume(*changed, &app.root, &app.cache(), catalog)? {
                    let project = project.on(App::machine(&args.select.workflow)?);
                    let ended = told(app, args, options.clone(), project, lock, interrupts.clone())?;
                    if let Some(code) = ended {
                        return Ok(code);
                    }
                }
            }
            Check::Listed(changed) => {
                let (loaded, catalog) = app.load(&args.select.workflow)?;
                let (cache, targets) = (app.cache(), &options.targets);
                let grown = engine::grow(*changed, &loaded, &app.root, &cache, &catalog, targets)?;
                if let Some(project) = grown {
                    let project = project.on(App::machine(&args.select.workflow)?);
                    let ended = told(app, args, options.clone(), project, lock, interrupts.clone())?;
                    if let Some(code) = ended {
                        return Ok(code);
                    }
                }
                read = Some((loaded, catalog));
            }
            Check::Void => {}
        }
    }
    // faults of the file are said before anything is waited for
    let (loaded, catalog) = match read {
        Some(read) => read,
        None => app.load(&args.select.workflow)?,
    };
    let lock = lock(app, args.no_wait, &interrupts)?;
    whole(app, args, (loaded, catalog), options, (interrupts, lock))
}

/// A run by a command that holds the lock of the workspace and wrote the workflow itself.
pub(super) fn run_holding(
    app: &App,
    args: &RunArgs,
    interrupts: engine::Interrupts,
    lock: WorkspaceLock,
) -> Result<ExitCode> {
    let options = run_options(app, args);
    whole(app, args, app.load(&args.select.workflow)?, options, (interrupts, lock))
}

fn whole(
    app: &App,
    args: &RunArgs,
    (loaded, catalog): (Loaded, Catalog),
    options: RunOptions,
    (interrupts, lock): (engine::Interrupts, WorkspaceLock),
) -> Result<ExitCode> {
    let machine = App::machine(&args.select.workflow)?;
    let project = engine::Project::with_loaded(loaded, &app.root, Some(&app.cache()), &catalog)?.on(machine);
    let ended = told(app, args, options, project, lock, interrupts)?;
    ended.ok_or_else(|| Error::bug("a run of the whole workflow was incomplete"))
}

/// One run of an open project with what its options ask to be told; `None` if it was not enough, and everything has to be looked at.
fn told(
    app: &App,
    args: &RunArgs,
    options: RunOptions,
    project: engine::Project,
    lock: WorkspaceLock,
    interrupts: engine::Interrupts,
) -> Result<Option<ExitCode>> {
    let observers = Observers::new(app, args, events(args)?)?;
    let (outcome, session) = execute(app, observers, project, options, interrupts, lock, |summary| {
        if args.json { app.json(&summary.json(app.cli.global.verbose)).map(drop) } else { Ok(()) }
    })?;
    session.end_with_process();
    Ok(match outcome.failure {
        _ if outcome.incomplete => None,
        None => Some(ExitCode::SUCCESS),
        Some(kind) => Some(ExitCode::from(kind.exit_code())),
    })
}

/// A run from an open project to `on_finish`, and what it amounts to told.
pub(super) fn execute(
    app: &App,
    observers: Observers,
    project: engine::Project,
    options: RunOptions,
    interrupts: engine::Interrupts,
    lock: WorkspaceLock,
    tell: impl FnOnce(&Summary) -> Result<()>,
) -> Result<(RunSummary, Session)> {
    let store = Arc::clone(&project.store);
    let frozen = options.frozen;
    let mut session = Session::recovering(project, options, observers.sink(), interrupts)?;
    observers.begin(RunWriter::create(store.dir(), session.run_id())?);
    let result = engine::run(&mut session);
    drop(lock);
    let recorded = observers.finish();
    let outcome = result?;
    if outcome.incomplete {
        return Ok((outcome, session));
    }
    let word = if outcome.failure.is_none() { "ok" } else { "failed" };
    if !frozen && let Some(message) = engine::on_finish(session.project(), session.run_id(), word) {
        app.printer.talk(&format!("{message}\n"));
    }
    tell(&observers.summary)?;
    recorded?;
    Ok((outcome, session))
}

/// The file of `--events`, made or emptied.
pub(super) fn events(args: &RunArgs) -> Result<Option<Arc<JsonLines>>> {
    args.events.as_deref().map(JsonLines::create).transpose().map(|events| events.map(Arc::new))
}

/// A sink for commands that are no runs: services are talked about, nothing else.
pub(super) fn quiet_sink(app: &App) -> Arc<dyn Sink> {
    let console: Arc<dyn Observer> = Arc::new(Console::new(
        Arc::clone(&app.printer),
        app.cli.global.verbosity(),
        crate::observe::ProgressMode::None,
    ));
    Arc::new(Fanout::new(vec![console]))
}

/// Takes the workspace lock for a command that writes.
pub(super) fn lock(app: &App, no_wait: bool, interrupts: &engine::Interrupts) -> Result<WorkspaceLock> {
    let printer = Arc::clone(&app.printer);
    engine::locked(&app.root, no_wait, &mut |line| printer.talk(&format!("{line}\n")), &|| {
        interrupts.stop.is_cancelled()
    })
    .map_err(|error| match error.kind {
        Kind::Interrupted if interrupts.terminated.is_cancelled() => {
            Error { kind: Kind::Terminated, ..error }
        }
        _ => error,
    })
}

/// Where the certificate of this command line is; `None` if such a run shows or does more than a certificate says.
fn certificate(app: &App, args: &RunArgs, options: &RunOptions) -> Option<PathBuf> {
    let plain = options.force == Force::Nothing
        && options.remeasure.is_none()
        && options.adopt.is_none()
        && !options.no_cache
        && !options.strict
        && options.check_determinism.is_none()
        && !app.embedded()
        && !app.cli.global.verbose;
    if !plain {
        return None;
    }
    let file = &args.select.workflow;
    let mut arguments = vec![file.file.to_str()?.to_owned(), format!("{:?}", file.profile)];
    arguments.extend(file.set.iter().map(|(key, value)| format!("set {key}={value}")));
    for params in &file.params {
        arguments.push(format!("params {}", params.to_str()?));
    }
    arguments.extend(options.targets.iter().map(|target| format!("target {target}")));
    arguments.push(format!("{:?} {}", options.restore, options.offline));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    engine::certificate_path(&app.cache(), &app.root, &arguments)
}

/// A run whose certificate still holds.
fn nothing_to_do(app: &App, args: &RunArgs, certified: &engine::Certified) -> Result<ExitCode> {
    let observers = Observers::new(app, args, events(args)?)?;
    let run = engine::new_run_id(&app.cache());
    observers.begin(RunWriter::create(&app.cache(), &run)?);
    engine::run_certified(certified, &run, &observers.sink());
    observers.finish()?;
    if args.json {
        app.json(&observers.summary.json(false))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Who listens to a run: console, summary, record, and the event file if one is asked for.
pub(super) struct Observers {
    summary: Arc<Summary>,
    events: Option<Arc<JsonLines>>,
    trace: Option<Arc<Trace>>,
    record: Arc<Mutex<RecordFile>>,
    sink: Arc<dyn Sink>,
}

impl Observers {
    pub(super) fn new(app: &App, args: &RunArgs, events: Option<Arc<JsonLines>>) -> Result<Self> {
        let summary = Arc::new(Summary::default());
        let console = Arc::new(Console::new(
            Arc::clone(&app.printer),
            app.cli.global.verbosity(),
            args.progress.into(),
        ));
        let mut observers: Vec<Arc<dyn Observer>> = vec![console, Arc::clone(&summary) as Arc<dyn Observer>];
        observers.extend(events.clone().map(|events| events as Arc<dyn Observer>));
        let trace = args.trace.as_deref().map(Trace::create).transpose()?.map(Arc::new);
        observers.extend(trace.clone().map(|trace| trace as Arc<dyn Observer>));
        let record: Arc<Mutex<RecordFile>> = Arc::default();
        let file = Arc::clone(&record);
        observers.push(Arc::new(Recorder::new(move |line| {
            file.lock().unwrap_or_else(|e| e.into_inner()).line(line);
        })));
        Ok(Self { summary, events, trace, record, sink: Arc::new(Fanout::new(observers)) })
    }

    fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.sink)
    }

    fn begin(&self, writer: RunWriter) {
        self.record.lock().unwrap_or_else(|e| e.into_inner()).writer = Some(writer);
    }

    fn finish(&self) -> Result<()> {
        self.record.lock().unwrap_or_else(|e| e.into_inner()).finish()?;
        self.events.as_ref().map_or(Ok(()), |events| events.finish())?;
        self.trace.as_ref().map_or(Ok(()), |trace| trace.finish())
    }
}

/// The run record as it is written. What cannot be written must not end the run it records: the first error ends the record, and is
/// told when the run is over.
#[derive(Default)]
struct RecordFile {
    writer: Option<RunWriter>,
    failure: Option<Error>,
}

impl RecordFile {
    fn line(&mut self, line: &str) {
        if let Some(writer) = self.writer.as_mut()
            && let Err(error) = writer.line(line)
        {
            self.failure = Some(error);
            self.writer = None;
        }
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(error) = self.failure.take() {
            return Err(error.hint("what the run did stands; only its record ends early"));
        }
        self.writer.take().map_or(Ok(()), RunWriter::finish)
    }
}
