//! What a person sees of a run: plain lines in a pipe, a progress bar on a terminal. Unaware of the engine and of stdout.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use anstyle::{AnsiColor, Style};
use indexmap::IndexMap;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::printer::lock;
use super::{Observer, Printer, lines};
use crate::event::{Determinism, Event, NodeReport, Stamped};
use crate::model::Outcome;

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Failures only.
    Quiet,
    /// Nodes that did something, notes, services, a summary.
    #[default]
    Normal,
    /// Also nodes that had nothing to do, and log lines.
    Verbose,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressMode {
    /// A bar on a terminal, plain lines in a pipe.
    #[default]
    Auto,
    /// Plain lines.
    Plain,
    /// Failures, notes and the summary only.
    None,
}

/// Says on standard error what happens in a run.
pub struct Console {
    printer: Arc<Printer>,
    verbosity: Verbosity,
    /// One line per node that did something.
    node_lines: bool,
    state: Mutex<State>,
    /// Closed before the bar is taken away.
    bar: Mutex<Option<Bar>>,
}

#[derive(Default)]
struct State {
    file: String,
    counts: BTreeMap<Outcome, usize>,
}

type Running = Arc<Mutex<IndexMap<String, Instant>>>;

/// The bar, and the thread that keeps its times going.
struct Bar {
    bar: ProgressBar,
    running: Running,
    stop: Option<mpsc::Sender<()>>,
    ticker: Option<JoinHandle<()>>,
}

impl Console {
    /// A console that talks through `printer`.
    pub fn new(printer: Arc<Printer>, verbosity: Verbosity, progress: ProgressMode) -> Self {
        let with_bar =
            progress == ProgressMode::Auto && verbosity != Verbosity::Quiet && printer.talk_is_terminal();
        let bar = with_bar.then(|| {
            let bar = Bar::new();
            printer.set_bar(Some(bar.bar.clone()));
            bar
        });
        Self {
            printer,
            verbosity,
            node_lines: verbosity == Verbosity::Verbose
                || (verbosity == Verbosity::Normal && progress != ProgressMode::None),
            state: Mutex::default(),
            bar: Mutex::new(bar),
        }
    }

    fn normal(&self) -> bool {
        self.verbosity != Verbosity::Quiet
    }

    fn verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    fn say(&self, condition: bool, line: impl FnOnce() -> String) {
        if condition {
            self.printer.talk(&line());
        }
    }

    fn with_bar(&self, act: impl FnOnce(&Bar)) {
        if let Some(bar) = &*lock(&self.bar) {
            act(bar);
        }
    }

    fn end_bar(&self) {
        if let Some(bar) = lock(&self.bar).take() {
            self.printer.set_bar(None);
            drop(bar);
        }
    }

    fn finished(&self, report: &NodeReport) {
        self.with_bar(|bar| bar.finished(&report.id));
        match report.outcome {
            Outcome::Failed if report.allowed => self.say(self.normal(), || lines::failure(report)),
            Outcome::Failed => self.say(true, || lines::failure(report)),
            Outcome::Fresh | Outcome::Cached if !report.adopted => {
                self.say(self.verbose(), || lines::node(report))
            }
            _ => self.say(self.node_lines, || lines::node(report)),
        }
    }
}

impl Observer for Console {
    fn observe(&self, stamped: &Stamped) {
        let mut state = lock(&self.state);
        let dim = Style::new().dimmed();
        let blue = AnsiColor::Blue.on_default();
        let yellow = AnsiColor::Yellow.on_default();
        match &stamped.event {
            Event::RunStarted { run, workflow, file, .. } => {
                state.file.clone_from(file);
                self.say(self.verbose(), || lines::kind("run", dim, &format!("{run}  {workflow}  {file}")));
            }
            Event::Planned { nodes, plan_digest } => {
                self.with_bar(|bar| bar.bar.set_length(*nodes as u64));
                self.say(self.verbose(), || {
                    lines::kind("plan", dim, &format!("{nodes} nodes  {plan_digest}"))
                });
            }
            Event::Note { message } => self.say(self.normal(), || lines::kind("note", blue, message)),
            Event::Looked { .. } | Event::Alive { .. } => {}
            Event::NodeStarted { node, .. } => self.with_bar(|bar| bar.started(node)),
            Event::Log { node, line } => {
                self.say(self.verbose(), || {
                    format!("{} {}", lines::dim(format_args!("{node} |")), strip_str(line))
                });
            }
            Event::NodeRetrying { node, attempt, message, wait } => {
                let first = strip_str(message.lines().next().unwrap_or_default()).to_string();
                let wait = lines::seconds(*wait);
                self.say(self.normal(), || {
                    let rest = format!("{node}  attempt {attempt}: {first}; again in {wait}");
                    lines::kind("retry", yellow, &rest)
                });
            }
            Event::NodeFinished(report) => {
                *state.counts.entry(report.outcome).or_default() += 1;
                self.finished(report);
            }
            Event::AllFresh { nodes } => *state.counts.entry(Outcome::Fresh).or_default() += nodes,
            Event::DeterminismChecked(report) => {
                let bad = matches!(report.verdict, Determinism::Differs | Determinism::Failed);
                self.say(bad || self.node_lines, || lines::determinism(report));
            }
            Event::ServiceStarting { service, devices } => {
                self.say(self.verbose(), || {
                    lines::kind("starting", dim, &format!("service {service}{}", lines::on(devices)))
                });
            }
            Event::ServiceReady { service, url, seconds, .. } => {
                let up = lines::seconds(*seconds);
                self.say(self.node_lines, || {
                    lines::kind("service", blue, &format!("{service}  {url}  ready in {up}"))
                });
            }
            Event::ServiceStopped { service, failure: None } => {
                self.say(self.verbose(), || lines::kind("stopped", dim, &format!("service {service}")));
            }
            Event::ServiceStopped { service, failure: Some(why) } => {
                let red = AnsiColor::Red.on_default().bold();
                self.say(true, || lines::kind("failed", red, &format!("service {service}: {why}")));
            }
            Event::RunFinished { outcome, seconds, orphans } => {
                self.end_bar();
                self.say(self.normal(), || {
                    lines::summary(outcome, &state.counts, *seconds, *orphans, &state.file)
                });
            }
        }
    }
}

impl Drop for Console {
    /// Also without a last event the terminal is left as it was.
    fn drop(&mut self) {
        self.end_bar();
    }
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:24}] {pos}/{len}  {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        let running = Running::default();
        let (stop, stopped) = mpsc::channel();
        let (drawn, shown) = (bar.clone(), running.clone());
        let ticker = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                let text = running_text(&lock(&shown), Instant::now());
                drawn.set_message(text);
            }
        });
        Self { bar, running, stop: Some(stop), ticker: ticker.ok() }
    }

    fn started(&self, node: &str) {
        lock(&self.running).entry(node.to_owned()).or_insert_with(Instant::now);
    }

    fn finished(&self, node: &str) {
        lock(&self.running).shift_remove(node);
        self.bar.inc(1);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(ticker) = self.ticker.take() {
            ticker.join().ok();
        }
        self.bar.finish_and_clear();
    }
}

/// `1.20s merge, 0.40s fetch[seq=1k_1k] +5`: what runs, the longest first. The time is in front, where a narrow terminal leaves it.
fn running_text(running: &IndexMap<String, Instant>, now: Instant) -> String {
    const SHOWN: usize = 4;
    let names: Vec<String> = running
        .iter()
        .take(SHOWN)
        .map(|(node, since)| format!("{} {node}", lines::seconds(now.duration_since(*since).as_secs_f64())))
        .collect();
    let mut text = names.join(", ");
    if running.len() > SHOWN {
        text.push_str(&format!(" +{}", running.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record::tests::events;
    use expect_test::expect;

    fn said(verbosity: Verbosity, progress: ProgressMode) -> String {
        let (printer, captured) = Printer::captured(false);
        let console = Console::new(Arc::new(printer), verbosity, progress);
        for event in events() {
            console.observe(&Stamped { t: 0.0, event });
        }
        assert_eq!(captured.out(), "", "standard output is for data");
        captured.err()
    }

    #[test]
    fn in_a_pipe_one_line_per_node_that_did_something() {
        expect![[r#"
            service   dashboard  http://127.0.0.1:1  ready in 0.05s
            retry     fetch[seq=1k_1k]  attempt 1: answered 503; again in 1.00s
            ran       merge  0.02s  input left changed
            failed    fetch[seq=1k_1k]  1.50s  answered 404  2 attempts
                | GET /x
                log: cache/runs/r1/fetch.log
            skipped   wrap
            note      a note
            failed: 1 failed, 1 skipped, 1 ran, 1 fresh in 1.93s, 3 orphans (flow ls w.json --orphans)
        "#]]
        .assert_eq(&said(Verbosity::Normal, ProgressMode::Auto));
        assert_eq!(said(Verbosity::Normal, ProgressMode::Plain), said(Verbosity::Normal, ProgressMode::Auto));
    }

    #[test]
    fn quiet_says_failures_only() {
        expect![[r#"
            failed    fetch[seq=1k_1k]  1.50s  answered 404  2 attempts
                | GET /x
                log: cache/runs/r1/fetch.log
        "#]]
        .assert_eq(&said(Verbosity::Quiet, ProgressMode::Auto));
    }

    #[test]
    fn verbose_adds_fresh_nodes_and_log_lines() {
        let text = said(Verbosity::Verbose, ProgressMode::None);
        for line in [
            "fresh     clean  checked",
            "fetch[seq=1k_1k] | GET /x",
            "ran       merge",
            "stopped   service dashboard",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn without_progress_failures_notes_and_the_summary_remain() {
        let text = said(Verbosity::Normal, ProgressMode::None);
        assert!(!text.contains("merge") && !text.contains("wrap"), "{text}");
        assert!(
            text.contains("failed    fetch") && text.contains("a note") && text.contains("failed: 1 failed")
        );
    }

    #[test]
    fn the_bar_names_what_runs_and_leaves_nothing_behind() {
        let start = Instant::now();
        let names = ["a", "b", "c", "d", "e"];
        let running: IndexMap<String, Instant> = names.iter().map(|n| ((*n).to_owned(), start)).collect();
        let text = running_text(&running, start + Duration::from_millis(1200));
        assert_eq!(text, "1.20s a, 1.20s b, 1.20s c, 1.20s d +1");
        let bar = Bar::new();
        bar.bar.set_draw_target(ProgressDrawTarget::hidden());
        bar.started("a");
        bar.finished("a");
        assert_eq!(bar.bar.position(), 1);
        assert!(lock(&bar.running).is_empty());
    }
}
