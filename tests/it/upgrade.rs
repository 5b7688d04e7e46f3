//! After an upgrade: the note before anything starts, and measurements that nobody repeats by himself.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use flow::api::Catalog;
use flow::engine::{self, Interrupts, PlannedNode, Project, RunOptions, Session};
use flow::event::{Event, NodeReport, Sink};
use flow::front::LoadRequest;
use flow::front::builder::WorkflowBuilder;

use crate::support::Workspace;

/// Keeps what was said.
struct Heard(Mutex<Vec<Event>>);

impl Sink for Heard {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn begun(&self) -> Instant {
        Instant::now()
    }
}

/// `first` and `second` in a row by one stage, `other` by another, and `m`, which measures.
fn open(w: &Workspace, write: u32, measure: u32) -> Project {
    let mut wf = WorkflowBuilder::new("upgrade");
    let copy = move |ctx: &mut flow::api::StageContext<'_>| ctx.write("o", write.to_string().as_bytes());
    wf.step("first").uses_fn("my.copy", write, copy).input("i", "s").output("o", "first");
    wf.step("second").uses_fn("my.copy", write, copy).input("i", "first").output("o", "second");
    wf.step("other")
        .uses_fn("my.other", 7, |ctx| ctx.write("o", b"other"))
        .input("i", "s")
        .output("o", "other");
    wf.step("m")
        .uses_fn("my.measure", measure, move |ctx| {
            ctx.record.insert("speed".to_owned(), 42.into());
            ctx.write("o", measure.to_string().as_bytes())
        })
        .set("cache", "sample")
        .output("o", "m");
    let mut catalog = Catalog::default();
    let request = LoadRequest { file: wf.file(), root: w.root().to_owned(), ..LoadRequest::default() };
    let loaded = wf.load(&request, &mut catalog).unwrap();
    Project::with_loaded(loaded, w.root(), None, &catalog).unwrap()
}

struct Ran {
    notes: Vec<String>,
    nodes: Vec<NodeReport>,
    ok: bool,
}

impl Ran {
    fn outcome(&self, id: &str) -> &'static str {
        self.node(id).outcome.as_str()
    }

    fn node(&self, id: &str) -> &NodeReport {
        self.nodes.iter().find(|node| node.id == id).unwrap()
    }
}

fn run(project: Project, options: RunOptions) -> Ran {
    let heard = Arc::new(Heard(Mutex::default()));
    let mut session = Session::new(project, options, heard.clone(), Interrupts::default()).unwrap();
    let ok = engine::run(&mut session).unwrap().failure.is_none();
    drop(session);
    let events = heard.0.lock().unwrap().clone();
    let mut ran = Ran { notes: Vec::new(), nodes: Vec::new(), ok };
    for event in events {
        match event {
            Event::Note { message } => {
                assert!(ran.nodes.is_empty(), "said before anything starts: {message}");
                ran.notes.push(message);
            }
            Event::NodeFinished(report) => ran.nodes.push(report),
            _ => {}
        }
    }
    ran
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn planned(project: &Project, options: &RunOptions, id: &str) -> PlannedNode {
    engine::plan(project, options).unwrap().into_iter().find(|node| node.id == id).unwrap()
}

#[test]
fn a_new_version_of_a_stage_is_said_once_with_the_number_of_nodes() {
    let w = Workspace::new();
    w.write("s", "1");
    let options = RunOptions { keep_going: true, ..RunOptions::default() };
    assert!(run(open(&w, 1, 1), options.clone()).notes.is_empty(), "nothing ran here before");
    assert!(run(open(&w, 1, 1), options.clone()).notes.is_empty());

    let expected =
        format!("flow {}: stage my.copy 1 -> 2: 2 nodes run again only because of that", version());
    let project = open(&w, 2, 1);
    assert_eq!(engine::upgrade_note_for(&project, &options).unwrap(), Some(expected.clone()));
    drop(project);
    // a run of other nodes does not forget those that it left out
    let other = RunOptions { targets: vec!["other".to_owned()], ..options.clone() };
    assert!(run(open(&w, 2, 1), other).notes.is_empty());
    let all = run(open(&w, 2, 1), options.clone());
    assert_eq!(all.notes, [expected]);
    assert_eq!(all.node("first").reason.as_deref(), Some("stage version 1 -> 2"));
    assert_eq!((all.outcome("first"), all.outcome("second"), all.outcome("other")), ("ran", "ran", "fresh"));
    assert!(run(open(&w, 2, 1), options.clone()).notes.is_empty(), "nothing is left");

    // an edit besides: that is no node that runs only because of the upgrade
    w.write("s", "2");
    let both = run(open(&w, 3, 1), options.clone());
    assert!(both.notes.is_empty(), "{:?}", both.notes);
    assert_eq!((both.outcome("first"), both.outcome("second")), ("ran", "ran"));
    // back to results that are known: nothing runs, nothing is said
    w.write("s", "1");
    let back = run(open(&w, 2, 1), options);
    assert!(back.notes.is_empty(), "{:?}", back.notes);
    assert_eq!(back.outcome("second"), "restored");
}

#[test]
fn a_measurement_is_adopted_or_made_again_when_somebody_says_so() {
    let w = Workspace::new();
    w.write("s", "1");
    let options = RunOptions { keep_going: true, ..RunOptions::default() };
    assert!(run(open(&w, 1, 1), options.clone()).ok);

    let note =
        format!("flow {}: stage my.measure 1 -> 2: 1 measurement needs --adopt or --remeasure", version());
    let project = open(&w, 1, 2);
    assert_eq!(engine::upgrade_note_for(&project, &options).unwrap(), Some(note.clone()));
    assert_eq!(planned(&project, &options, "m").status.as_str(), "would_fail");
    drop(project);
    let stuck = run(open(&w, 1, 2), options.clone());
    assert_eq!((stuck.ok, stuck.outcome("m"), stuck.notes), (false, "failed", vec![note]));
    let stuck = run(open(&w, 1, 2), options.clone());
    let m = stuck.node("m");
    assert_eq!(m.error.as_deref(), Some("stage version 1 -> 2: a measurement is never repeated by itself"));
    assert!(m.hints.iter().any(|hint| hint.contains("--adopt 'm'")), "{:?}", m.hints);
    assert!(m.hints.iter().any(|hint| hint.contains("--remeasure 'm'")), "{:?}", m.hints);
    assert_eq!(w.read("m"), "1");

    // its bytes are gone from their place: the cache has them
    w.remove("m");
    let adopt = RunOptions { adopt: Some("m".to_owned()), ..options.clone() };
    assert_eq!(planned(&open(&w, 1, 2), &adopt, "m").status.as_str(), "would_adopt");
    let adopted = run(open(&w, 1, 2), adopt);
    assert_eq!((adopted.ok, adopted.outcome("m"), adopted.node("m").adopted), (true, "fresh", true));
    assert_eq!(w.read("m"), "1");
    let project = open(&w, 1, 2);
    let explained = engine::explain(&project, "m").unwrap();
    assert!(explained.adopted.is_some() && explained.changed.is_empty(), "{explained:?}");
    drop(project);
    let again = run(open(&w, 1, 2), options.clone());
    assert!(again.ok && again.notes.is_empty(), "{:?}", again.notes);

    let remeasure = RunOptions { remeasure: Some("m".to_owned()), ..options.clone() };
    assert_eq!(run(open(&w, 1, 3), remeasure).outcome("m"), "ran");
    assert_eq!(w.read("m"), "3");
    assert_eq!(engine::explain(&open(&w, 1, 3), "m").unwrap().adopted, None);
}
