//! From `main` to a command: parses, opens the workflow, renders the error. Unaware of what the commands do.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::args::{Cli, Command, FileArgs};
use super::{command, render};
use crate::api::Catalog;
use crate::engine::{Machine, Project};
use crate::error::{Error, Result};
use crate::front::builder::WorkflowBuilder;
use crate::front::{self, LoadRequest, Loaded};
use crate::observe::{Printer, diagnostic};

/// The `flow` program.
pub fn main() -> ExitCode {
    start(None)
}

/// A program that brings its own workflow: the whole command line without FILE.
pub fn main_with(build: impl Fn(&Cli) -> WorkflowBuilder + 'static) -> ExitCode {
    start(Some(Box::new(build)))
}

type Build = Box<dyn Fn(&Cli) -> WorkflowBuilder>;

/// What commands share.
pub(super) struct App {
    pub(super) cli: Cli,
    pub(super) printer: Arc<Printer>,
    pub(super) root: PathBuf,
    build: Option<Build>,
}

fn start(build: Option<Build>) -> ExitCode {
    let cli = match Cli::parse_from_args(std::env::args_os(), build.is_some()) {
        Ok(cli) => cli,
        Err(error) => {
            // clap chooses the stream; a closed one is no reason to fail
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match &cli.command {
        Command::Guard(args) => return crate::exec::guard_main(&args.run),
        Command::Strict(args) => return crate::exec::strict_main(&args.spec, args.inner),
        Command::Sim(args) => return crate::stage::sim::main(&args.name, &args.with),
        _ => {}
    }
    let printer = Arc::new(Printer::new(cli.global.color_choice()));
    let code = match run(cli, Arc::clone(&printer), build) {
        Ok(code) => code,
        Err(error) => render::error(&error, &printer, diagnostic::draw),
    };
    match printer.finish() {
        Ok(()) => code,
        Err(error) => render::error(&error, &printer, diagnostic::draw),
    }
}

fn run(cli: Cli, printer: Arc<Printer>, build: Option<Build>) -> Result<ExitCode> {
    cli.refuse_later()?;
    if let Some(dir) = &cli.global.directory {
        std::env::set_current_dir(dir).map_err(|e| Error::io("enter", dir, e))?;
    }
    let root = std::env::current_dir()
        .and_then(|dir| dir.canonicalize())
        .map_err(|e| Error::environment(format!("failed to find the current directory: {e}")))?;
    let app = App { cli, printer, root, build };
    match &app.cli.command {
        Command::Run(args) if args.dry_run => command::plan::run(&app, &args.select, args.json),
        Command::Run(args) => command::run::run(&app, args),
        Command::Watch(args) => command::watch::run(&app, args),
        Command::Plan(args) => command::plan::run(&app, &args.select, args.json),
        Command::Check(args) => command::check::run(&app, args),
        Command::Key(args) => command::key::run(&app, args),
        Command::Explain(args) => command::explain::run(&app, args),
        Command::Why(args) => command::why::run(&app, args),
        Command::Ls(args) => command::ls::run(&app, args),
        Command::Graph(args) => command::graph::run(&app, args),
        Command::Log(args) => command::log::run(&app, args),
        Command::Clean(args) => command::clean::run(&app, args),
        Command::Stages(args) => command::stages::run(&app, args),
        Command::Schema => command::schema::run(&app),
        Command::Cache(args) => command::cache::run(&app, args),
        Command::Load(args) => command::load::run(&app, args),
        Command::Up(args) => command::up::run(&app, args),
        Command::Exec(args) => command::exec::run(&app, args),
        Command::Completions(args) => {
            let command = super::args::command_for(app.build.is_some());
            super::completions::run(&command, args.shell, &app.printer);
            Ok(ExitCode::SUCCESS)
        }
        Command::Guard(_) | Command::Strict(_) | Command::Sim(_) => {
            Err(Error::bug("a hidden command was not handled"))
        }
        Command::Devices(args) => command::devices::run(&app, args),
        Command::Report(_) | Command::Init(_) => Err(Error::bug("a later command was not refused")),
    }
}

impl App {
    /// In another directory, without a workflow of its own.
    pub(super) fn at(cli: Cli, printer: Arc<Printer>, root: PathBuf) -> Self {
        Self { cli, printer, root, build: None }
    }

    /// The program brings its own workflow.
    pub(super) fn embedded(&self) -> bool {
        self.build.is_some()
    }

    /// The cache directory.
    pub(super) fn cache(&self) -> PathBuf {
        self.root.join(self.cli.global.cache_dir(std::env::var_os("FLOW_CACHE")))
    }

    /// Loads and checks the workflow; says its warnings.
    pub(super) fn load(&self, file: &FileArgs) -> Result<(Loaded, Catalog)> {
        let (loaded, catalog) = self.read(file)?;
        for warning in &loaded.warnings {
            self.printer.talk(&diagnostic::draw_warning(warning, self.printer.talk_color()));
        }
        Ok((loaded, catalog))
    }

    /// Loads and checks the workflow.
    pub(super) fn read(&self, file: &FileArgs) -> Result<(Loaded, Catalog)> {
        let mut catalog = crate::stage::catalog();
        let mut request = LoadRequest {
            file: file.file.clone(),
            root: self.root.clone(),
            profile: file.profile.clone(),
            params_files: file.params.clone(),
            set: file.set.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        };
        let loaded = match &self.build {
            Some(build) => {
                let builder = build(&self.cli);
                request.file = builder.file();
                builder.load(&request, &mut catalog)?
            }
            None => front::load(&request, &catalog)?,
        };
        Ok((loaded, catalog))
    }

    /// The machine that a command is about.
    pub(super) fn machine(file: &FileArgs) -> Result<Machine> {
        Machine::new(file.devices.as_deref(), file.hardware.as_deref())
    }

    /// Loads the workflow and opens it in the workspace.
    pub(super) fn open(&self, file: &FileArgs) -> Result<Project> {
        let machine = Self::machine(file)?;
        let (loaded, catalog) = self.load(file)?;
        Ok(Project::with_loaded(loaded, &self.root, Some(&self.cache()), &catalog)?.on(machine))
    }

    /// Data as JSON on standard output.
    pub(super) fn json(&self, value: &impl serde::Serialize) -> Result<ExitCode> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::bug(format!("no JSON: {e}")))?;
        self.printer.data(&format!("{text}\n"));
        Ok(ExitCode::SUCCESS)
    }
}
