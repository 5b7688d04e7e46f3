//! `flow watch`: runs, waits until something that decided the run is different, and runs again.
//!
//! What is different is found by looking (`engine::Watchlist`); what the system tells of (`notice`) is only when to look. So a look
//! follows each run and each new set of watched directories, and no change is lost in between.

mod notice;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use notice::{Deaf, News, Notices};

use crate::api::{CancelToken, Catalog};
use crate::cli::app::App;
use crate::cli::args::WatchArgs;
use crate::cli::command::run::{Observers, events, execute, lock, run_options};
use crate::cli::{render, signals};
use crate::engine::{Force, Interrupts, Project, RunOptions, Seen, Watchlist};
use crate::error::{Error, Kind, Result};
use crate::front::Loaded;
use crate::observe::jsonl::JsonLines;
use crate::observe::{Verbosity, diagnostic};

/// Between two looks at Ctrl-C.
const TICK: Duration = Duration::from_millis(50);
/// A file that changes all the time is not waited for longer than this.
const LONGEST_SETTLING: Duration = Duration::from_secs(10);
/// Between two tries to read a broken workflow of which no known file changed.
const RETRY: Duration = Duration::from_secs(2);
/// After so many runs in a row during which the same files changed, the next one waits until nobody writes any more.
const OWN_CHANGES: usize = 5;
/// Nobody writes any more if nothing has changed for so long.
const QUIET: Duration = Duration::from_secs(1);

pub(in crate::cli) fn run(app: &App, args: &WatchArgs) -> Result<ExitCode> {
    if args.run.dry_run {
        return Err(Error::usage("a watch runs: it has no --dry-run").hint("flow plan shows what would run"));
    }
    let interrupts = signals::listen()?;
    let mut watch =
        Watch { app, args, events: events(&args.run)?, interrupts, deaf: None, began: false, told: None };
    match watch.go() {
        Err(error) if matches!(error.kind, Kind::Interrupted | Kind::Terminated) => {
            Ok(ExitCode::from(error.kind.exit_code()))
        }
        other => other.map(|never| match never {}),
    }
}

/// No watch ends well: it is ended.
enum Never {}

struct Watch<'a> {
    app: &'a App,
    args: &'a WatchArgs,
    events: Option<Arc<JsonLines>>,
    interrupts: Interrupts,
    /// Why the system does not tell of changes, said once.
    deaf: Option<Deaf>,
    /// A run has come to its end.
    began: bool,
    /// The last fault that was shown while no run came about.
    told: Option<String>,
}

/// What a run was made of, to find out whether another one is due.
struct Ran {
    list: Watchlist,
    loaded: Loaded,
    catalog: Catalog,
    /// It was ended because an input changed.
    restarted: bool,
}

impl Watch<'_> {
    fn go(&mut self) -> Result<Never> {
        let mut own: Vec<String> = Vec::new();
        let mut in_a_row = 0;
        // the next run begins when nobody else writes
        let mut alone = false;
        loop {
            let begun = Instant::now();
            let mut ran = match self.run() {
                Ok(ran) => {
                    self.told = None;
                    ran
                }
                Err(error) => {
                    self.stop_if_asked()?;
                    self.survive(error)?;
                    in_a_row = 0;
                    alone = false;
                    continue;
                }
            };
            self.stop_if_asked()?;
            let mut changed = self.different(&mut ran)?;
            if changed.is_empty() || ran.restarted {
                in_a_row = 0;
            } else if own == changed {
                in_a_row += 1;
            } else {
                in_a_row = 1;
            }
            own.clone_from(&changed);
            let mut waited = false;
            if in_a_row > OWN_CHANGES && alone {
                self.say(&format!(
                    "{} changed during each of {in_a_row} runs, and nobody wrote it before the last one, so the run itself seems to write it: waiting for another change",
                    named(&changed)
                ));
                ran.list.accept();
                changed = self.different(&mut ran)?;
                alone = false;
            } else if in_a_row >= OWN_CHANGES {
                self.say(&format!(
                    "{} changed during each of {in_a_row} runs: the next one begins when nothing changes any more",
                    named(&changed)
                ));
                alone = self.quiet(&ran, begun.elapsed())?;
                changed = self.different(&mut ran)?;
                waited = !changed.is_empty();
                alone &= waited;
            } else {
                alone = false;
            }
            if changed.is_empty() {
                self.say(&format!("waiting for changes ({} paths)", ran.list.len()));
            }
            if !waited {
                changed = self.wait(&mut ran)?;
            }
            self.clear();
            self.say(&format!("changed: {}", named(&changed)));
        }
    }

    /// One run. An error: it did not come to a list of what decides it.
    fn run(&mut self) -> Result<Ran> {
        let file = &self.args.run.select.workflow;
        let declared: Vec<(PathBuf, Seen)> = file
            .params
            .iter()
            .map(|path| self.app.root.join(path))
            .map(|path| (path.clone(), Seen::now(&path)))
            .collect();
        let (loaded, catalog) = self.app.load(file)?;
        let lock = lock(self.app, self.args.run.no_wait, &self.interrupts)?;
        let project = self.open(loaded.clone(), &catalog)?;
        let mut list =
            Watchlist::new(&project, &self.args.run.select.targets, declared, self.app.embedded())?;
        let notices = self.args.restart.then(|| self.notices(&list.directories()));
        let mut options = run_options(self.app, &self.args.run);
        options.note_seen = true;
        if self.began {
            options = RunOptions { force: Force::Nothing, remeasure: None, adopt: None, ..options };
        }
        let observers = Observers::new(self.app, &self.args.run, self.events.clone())?;
        let tell = |summary: &crate::observe::summary::Summary| {
            if self.args.run.json {
                let line = summary.json(self.app.cli.global.verbose).to_string();
                self.app.printer.data(&format!("{line}\n"));
            }
            Ok(())
        };
        let (result, restarted) = match notices {
            None => {
                let interrupts = self.interrupts.clone();
                (execute(self.app, observers, project, options, interrupts, lock, tell), false)
            }
            Some(notices) => {
                let stop = CancelToken::default();
                let interrupts = Interrupts { stop: stop.clone(), ..self.interrupts.clone() };
                let over = CancelToken::default();
                let say = self.sayer();
                let asked = self.interrupts.stop.clone();
                std::thread::scope(|scope| {
                    let watcher =
                        scope.spawn(|| restart_on_change(&list, notices, [&asked, &stop, &over], &say));
                    let result = execute(self.app, observers, project, options, interrupts, lock, tell);
                    over.cancel();
                    (result, watcher.join().unwrap_or(false))
                })
            }
        };
        match result {
            Ok((outcome, _)) => list.add(outcome.seen),
            // what was asked wrongly is wrong until the command line is another
            Err(error) if !self.began && error.kind != Kind::Step => return Err(error),
            Err(error) => self.tell(&error),
        }
        self.began = true;
        list.settle();
        Ok(Ran { list, loaded, catalog, restarted })
    }

    fn open(&self, loaded: Loaded, catalog: &Catalog) -> Result<Project> {
        let machine = App::machine(&self.args.run.select.workflow)?;
        Ok(Project::with_loaded(loaded, &self.app.root, Some(&self.app.cache()), catalog)?.on(machine))
    }

    /// A fault of the workflow is shown, and waited for to be mended; anything else that keeps the first run from beginning is an error.
    fn survive(&mut self, error: Error) -> Result<()> {
        let file = &self.args.run.select.workflow;
        let path = self.app.root.join(&file.file);
        let mendable = error.kind == Kind::Workflow && (self.app.embedded() || path.is_file());
        if error.kind == Kind::Bug || !(self.began || mendable) {
            return Err(error);
        }
        let text = render::text(&error, false, diagnostic::draw);
        if self.told.as_ref() != Some(&text) {
            self.tell(&error);
            self.say("waiting until this is mended");
            self.told = Some(text.clone());
        }
        let labels = error.diagnostics.iter().filter_map(|fault| fault.label.as_ref());
        let mut known: Vec<PathBuf> = labels.map(|label| self.app.root.join(&label.file)).collect();
        known.push(path);
        known.extend(file.params.iter().map(|path| self.app.root.join(path)));
        let look = || known.iter().map(|path| Seen::now(path)).collect::<Vec<_>>();
        let mut seen = look();
        let mut next = Instant::now() + RETRY;
        loop {
            self.stop_if_asked()?;
            std::thread::sleep(TICK);
            let now = look();
            let touched = now != seen;
            if touched {
                self.settle_files(&look, now)?;
                seen = look();
            } else if Instant::now() < next {
                continue;
            }
            // an include that was not there, or a directory that an axis lists, is no file that was read
            let tried = self.try_open();
            if touched || tried.as_ref().err() != Some(&text) {
                self.clear();
                return Ok(());
            }
            next = Instant::now() + RETRY;
        }
    }

    /// The text of the fault, if the workflow still has one.
    fn try_open(&self) -> Result<(), String> {
        let opened = self.app.read(&self.args.run.select.workflow).and_then(|(loaded, catalog)| {
            let project = self.open(loaded, &catalog)?;
            Watchlist::new(&project, &self.args.run.select.targets, Vec::new(), self.app.embedded())
        });
        opened.map(drop).map_err(|error| render::text(&error, false, diagnostic::draw))
    }

    fn settle_files(&self, look: &dyn Fn() -> Vec<Seen>, mut then: Vec<Seen>) -> Result<()> {
        let begun = Instant::now();
        let mut quiet = Instant::now();
        while quiet.elapsed() < self.debounce() && begun.elapsed() < LONGEST_SETTLING {
            self.stop_if_asked()?;
            std::thread::sleep(TICK.min(self.debounce()));
            let now = look();
            if now != then {
                then = now;
                quiet = Instant::now();
            }
        }
        Ok(())
    }

    /// Waits until something is different; its names.
    fn wait(&mut self, ran: &mut Ran) -> Result<Vec<String>> {
        loop {
            let dirs = ran.list.directories();
            let mut notices = self.notices(&dirs);
            // what happened before the watch stood comes first
            while self.different(ran)?.is_empty() && ran.list.directories() == dirs {
                self.hear(&mut notices, &ran.list)?;
            }
            self.settle(&mut notices, &ran.list)?;
            let changed = self.different(ran)?;
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }

    /// Waits for news that concern the list.
    fn hear(&self, notices: &mut Notices, list: &Watchlist) -> Result<()> {
        loop {
            self.stop_if_asked()?;
            if notices.next(TICK).is_some_and(|news| concerns(list, &news)) {
                return Ok(());
            }
        }
    }

    /// Waits until nothing has changed for a while.
    fn settle(&self, notices: &mut Notices, list: &Watchlist) -> Result<()> {
        if let Notices::Looked { .. } = notices {
            // two looks that see the same
            let begun = Instant::now();
            let mut then = list.changed();
            loop {
                let until = Instant::now() + self.debounce();
                while Instant::now() < until {
                    self.stop_if_asked()?;
                    std::thread::sleep(TICK.min(self.debounce()));
                }
                let now = list.changed();
                if now == then || begun.elapsed() > LONGEST_SETTLING {
                    return Ok(());
                }
                then = now;
            }
        }
        let begun = Instant::now();
        let mut quiet = Instant::now();
        while quiet.elapsed() < self.debounce() && begun.elapsed() < LONGEST_SETTLING {
            self.stop_if_asked()?;
            let left = self.debounce().saturating_sub(quiet.elapsed());
            if notices.next(left.min(TICK)).is_some_and(|news| concerns(list, &news)) {
                quiet = Instant::now();
            }
        }
        Ok(())
    }

    /// Waits until nothing has changed for a while: as long as the last run took, so that whoever writes now and then is found out, too.
    /// False if there is no end to it.
    fn quiet(&self, ran: &Ran, took: Duration) -> Result<bool> {
        let quiet = took.min(LONGEST_SETTLING).max(QUIET).max(self.debounce());
        let begun = Instant::now();
        loop {
            let mut now = ran.list.clone();
            now.accept();
            let until = Instant::now() + quiet;
            while Instant::now() < until {
                self.stop_if_asked()?;
                std::thread::sleep(TICK);
            }
            if now.changed().is_empty() {
                return Ok(true);
            }
            if begun.elapsed() > LONGEST_SETTLING + quiet {
                return Ok(false);
            }
        }
    }

    /// What is different from how it was seen, by name; patterns are listed again where a directory changed.
    fn different(&self, ran: &mut Ran) -> Result<Vec<String>> {
        let changed = ran.list.changed();
        if !changed.is_empty() || !ran.list.listed_differs() {
            return Ok(changed);
        }
        let project = self.open(ran.loaded.clone(), &ran.catalog)?;
        // a fault now is told by the run
        Ok(ran
            .list
            .relisted(&project, &self.args.run.select.targets)
            .unwrap_or_else(|_| vec![self.args.run.select.workflow.file.display().to_string()]))
    }

    fn notices(&mut self, dirs: &BTreeSet<PathBuf>) -> Notices {
        if let Some(every) = self.args.poll {
            return Notices::looking(Duration::from_millis(every));
        }
        let (notices, deaf) = Notices::of(dirs);
        if let Some(deaf) = deaf.filter(|deaf| self.deaf.as_ref() != Some(deaf)) {
            let mut text = format!("{}\n", deaf.message);
            if let Some(hint) = &deaf.hint {
                text.push_str(&format!("help: {hint}\n"));
            }
            self.app.printer.talk(&text);
            self.deaf = Some(deaf);
        }
        notices
    }

    fn debounce(&self) -> Duration {
        Duration::from_millis(self.args.debounce)
    }

    /// An error if the watch is to end.
    fn stop_if_asked(&self) -> Result<()> {
        if !self.interrupts.stop.is_cancelled() {
            return Ok(());
        }
        let kind =
            if self.interrupts.terminated.is_cancelled() { Kind::Terminated } else { Kind::Interrupted };
        Err(Error::new(kind, "interrupted"))
    }

    fn tell(&self, error: &Error) {
        self.app.printer.talk(&render::text(error, self.app.printer.talk_color(), diagnostic::draw));
    }

    fn say(&self, line: &str) {
        self.sayer()(line);
    }

    fn sayer(&self) -> impl Fn(&str) + Sync + use<> {
        let quiet = self.app.cli.global.verbosity() == Verbosity::Quiet;
        let printer = Arc::clone(&self.app.printer);
        move |line| {
            if !quiet {
                printer.talk(&format!("{line}\n"));
            }
        }
    }

    fn clear(&self) {
        if self.args.clear && self.app.printer.talk_is_terminal() {
            self.app.printer.talk("\x1b[H\x1b[2J\x1b[3J");
        }
    }
}

/// Passes Ctrl-C (`asked`) on to the run by `stop`, and ends the run when an input changed. Whether it did.
fn restart_on_change(
    list: &Watchlist,
    mut notices: Notices,
    [asked, stop, over]: [&CancelToken; 3],
    say: &dyn Fn(&str),
) -> bool {
    while !over.is_cancelled() {
        if asked.is_cancelled() {
            stop.cancel();
            return false;
        }
        if !notices.next(TICK).is_some_and(|news| concerns(list, &news)) {
            continue;
        }
        let changed = list.changed_inputs();
        if !changed.is_empty() && !over.is_cancelled() {
            say(&format!("changed: {}; ending this run", named(&changed)));
            stop.cancel();
            return true;
        }
    }
    false
}

/// `data/a.csv (+2)`.
fn named(changed: &[String]) -> String {
    match changed {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} (+{})", rest.len()),
    }
}

fn concerns(list: &Watchlist, news: &News) -> bool {
    match news {
        News::Anything => true,
        News::Paths(paths) => paths.iter().any(|path| list.concerns(path)),
    }
}
