//! `flow watch`: what decides a run sets off another one, and nothing else does.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{LONG, Workspace, names_in, nothing_left, signal, wait_for};

/// A running watch; what it says lies outside of the workspace.
struct Watch<'w> {
    w: &'w Workspace,
    child: Child,
    said: tempfile::TempDir,
}

impl<'w> Watch<'w> {
    fn start(w: &'w Workspace, args: &[&str]) -> Self {
        let all: Vec<&str> = ["watch", "flow.json", "--json", "-v"].iter().chain(args).copied().collect();
        Self::of(w, w.command(&all))
    }

    fn of(w: &'w Workspace, mut command: Command) -> Self {
        let said = tempfile::tempdir().unwrap();
        let file = |name| Stdio::from(fs::File::create(said.path().join(name)).unwrap());
        let child = command.stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Self { w, child, said }
    }

    fn err(&self) -> String {
        fs::read_to_string(self.said.path().join("err")).unwrap()
    }

    /// The summaries so far.
    fn runs(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.said.path().join("out")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it says `text` for the `n`-th time.
    #[track_caller]
    fn says(&mut self, n: usize, text: &str) {
        let begun = std::time::Instant::now();
        while self.err().matches(text).count() < n {
            let ended = self.child.try_wait().unwrap();
            let late = begun.elapsed() > LONG;
            assert!(ended.is_none() && !late, "no {n} x {text:?} ({ended:?}) in\n{}", self.err());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Waits until it waits for the `n`-th time; there have been `runs`, and in the last one exactly `ran` ran.
    #[track_caller]
    fn waits(&mut self, n: usize, runs: usize, ran: &[&str]) {
        self.says(n, "waiting for changes");
        let all = self.runs();
        assert_eq!(all.len(), runs, "{}", self.err());
        assert_eq!(self.w.path("cache/runs").read_dir().unwrap().count(), runs);
        let nodes = all[runs - 1]["nodes"].as_array().unwrap();
        let found: Vec<&str> =
            nodes.iter().filter(|n| n["outcome"] == "ran").map(|n| n["id"].as_str().unwrap()).collect();
        assert_eq!(found, ran, "{}", self.err());
    }

    #[track_caller]
    fn ends(mut self, name: &str, code: i32) {
        signal(self.child.id(), name);
        let mut status = None;
        wait_for("the end of the watch", LONG, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(code), "{}", self.err());
        nothing_left(self.w, LONG);
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `copy` of `a`, `both` of that and of all of `data/*.csv`, with an output among the directories that are listed.
fn workspace() -> Workspace {
    let w = Workspace::with(json!({"steps": {
        "copy": {"run": "cat ${inputs.a} > ${outputs.o}", "inputs": {"a": "a"}, "outputs": {"o": "data/copy"}},
        "both": {
            "run": "cat ${inputs.c} ${inputs.d} > ${outputs.o}",
            "inputs": {"c": "${steps.copy.o}", "d": "data/*.csv"}, "outputs": {"o": "data/all"}
        }
    }}));
    w.write("a", "a1\n").write("data/x.csv", "x1\n");
    w
}

#[test]
fn a_changed_input_runs_what_it_decides_and_own_outputs_run_nothing() {
    let w = workspace();
    let mut watch = Watch::start(&w, &["--events", "events.jsonl"]);
    watch.waits(1, 1, &["both", "copy"]);
    // exactly one run for each change: what it publishes lies in a directory that is listed
    w.write("data/x.csv", "x2\n");
    watch.waits(2, 2, &["both"]);
    assert!(watch.err().contains("changed: data/x.csv\n"), "{}", watch.err());
    w.write("a", "a2\n").write("data/x.csv", "x3\n");
    watch.waits(3, 3, &["both", "copy"]);
    assert!(watch.err().contains("changed: a (+1)\n"), "{}", watch.err());
    assert_eq!(w.read("data/all"), "a2\nx3\n");
    // saved by rename, as editors do
    w.write("a.new", "a3\n");
    fs::rename(w.path("a.new"), w.path("a")).unwrap();
    watch.waits(4, 4, &["both", "copy"]);
    // another name for the pattern, and one that it does not match
    w.write("data/.x.csv.swp", "").write("data/note.txt", "").write("data/y.csv", "y1\n");
    watch.waits(5, 5, &["both"]);
    assert!(watch.err().contains("changed: data/y.csv\n"), "{}", watch.err());
    w.remove("data/y.csv");
    watch.waits(6, 6, &[]);
    assert_eq!(w.read("data/all"), "a3\nx3\n");
    // an output changed by hand is brought back
    w.write("data/all", "by hand");
    watch.says(7, "waiting for changes");
    assert_eq!((watch.runs().len(), w.read("data/all").as_str()), (7, "a3\nx3\n"));
    assert_eq!(watch.runs()[6]["nodes"].as_array().unwrap()[0]["outcome"], "restored");
    // touched: a run that finds nothing to do
    fs::File::options().append(true).open(w.path("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    watch.waits(8, 8, &[]);
    assert_eq!(watch.runs()[7]["counts"]["fresh"], 2);
    watch.ends("INT", 130);
    let events = w.read("events.jsonl");
    let count = |event: &str| events.matches(&format!("\"event\":\"{event}\"")).count();
    assert_eq!((count("run_started"), count("run_finished")), (8, 8));
    assert_eq!(names_in(&w.path("cache/tmp")), [""; 0]);
}

#[test]
fn a_broken_workflow_is_shown_and_the_watch_goes_on_when_it_is_mended() {
    let w = workspace();
    let good = w.read("flow.json");
    w.write("flow.json", good.replace("outputs", "ouputs"));
    let mut watch = Watch::start(&w, &[]);
    watch.says(1, "waiting until this is mended");
    assert!(watch.err().contains("unknown key 'ouputs'"), "{}", watch.err());
    w.write("flow.json", &good);
    watch.waits(1, 1, &["both", "copy"]);
    w.write("flow.json", "{");
    watch.says(2, "waiting until this is mended");
    w.write("flow.json", good.replace("cat ${inputs.a}", "cat ${inputs.a} ${inputs.a}"));
    watch.waits(2, 2, &["both", "copy"]);
    assert_eq!(w.read("data/all"), "a1\na1\nx1\n");
    // a fault outside of any file: an include that is not there yet
    let mut including: Value = serde_json::from_str(&good).unwrap();
    including["include"] = json!([{"file": "more/more.json", "as": "more"}]);
    w.workflow(including);
    watch.says(3, "waiting until this is mended");
    w.write("more/more.json", json!({"name": "more", "steps": {"m": {"run": "echo m"}}}).to_string());
    watch.says(3, "waiting for changes");
    w.write("more/more.json", json!({"name": "more", "steps": {"m": {"run": "echo n"}}}).to_string());
    watch.waits(4, 4, &["more.m"]);
    watch.ends("TERM", 143);
}

#[test]
fn a_failing_step_and_vanished_inputs_do_not_end_the_watch() {
    let w = workspace();
    let mut watch = Watch::start(&w, &[]);
    watch.waits(1, 1, &["both", "copy"]);
    fs::rename(w.path("data"), w.path("elsewhere")).unwrap();
    w.remove("a");
    watch.says(2, "waiting for changes");
    assert!(watch.err().contains("input a is not there"), "{}", watch.err());
    w.write("a", "a9\n");
    fs::create_dir_all(w.path("data")).unwrap();
    w.write("data/z.csv", "z\n");
    wait_for("the new directory to be taken", LONG, || w.has("data/all") && w.read("data/all") == "a9\nz\n");
    // nothing of the watch is locked while it waits
    wait_for("the lock", LONG, || w.run(&["--no-wait"]).code == Some(0));
    watch.ends("INT", 130);
}

#[test]
fn a_change_during_a_run_leads_to_one_more() {
    let w = Workspace::with(json!({"steps": {
        "slow": {
            "run": "touch started; while [ -e hold ]; do sleep 0.01; done; cat b > ${outputs.o}",
            "inputs": {"b": "b", "a": "a"}, "outputs": {"o": "out"}
        },
        "next": {"run": "cat ${inputs.s} ${inputs.c} > ${outputs.o}", "inputs": {"s": "${steps.slow.o}", "c": "c"}, "outputs": {"o": "next"}}
    }}));
    w.write("a", "1").write("b", "1").write("c", "1").write("hold", "");
    let mut watch = Watch::start(&w, &[]);
    wait_for("the step", LONG, || w.has("started"));
    w.write("c", "2");
    w.remove("hold");
    watch.says(1, "waiting for changes");
    assert_eq!(w.read("next"), "12");
    let runs = watch.runs().len();
    assert_eq!(runs, 2, "{}", watch.err());
    watch.ends("INT", 130);
}

#[test]
fn with_restart_a_change_ends_the_run() {
    let w = Workspace::with(json!({"steps": {"slow": {
        "run": "touch started; if grep -q wait a; then exec sleep 600; fi; cat a > ${outputs.o}",
        "inputs": {"a": "a"}, "outputs": {"o": "out"}
    }}}));
    w.write("a", "wait");
    let mut watch = Watch::start(&w, &["--restart"]);
    wait_for("the step", LONG, || w.has("started"));
    w.write("a", "go");
    watch.waits(1, 2, &["slow"]);
    assert_eq!(watch.runs()[0]["outcome"], "cancelled");
    assert_eq!(w.read("out"), "go");
    w.remove("started").write("a", "wait");
    wait_for("the step", LONG, || w.has("started"));
    watch.ends("INT", 130);
    assert_eq!(w.read("out"), "go");
}

#[test]
fn what_a_command_says_it_read_is_watched() {
    let w = Workspace::with(json!({"steps": {"cc": {
        "run": "cat src inc/a.h > ${outputs.o}; echo 'x: inc/a.h' > ${outputs.o}.d",
        "inputs": {"s": "src"}, "outputs": {"o": "out"}, "depfile": "${outputs.o}.d"
    }}}));
    w.write("src", "1").write("inc/a.h", "2").write("inc/b.h", "3");
    let mut watch = Watch::start(&w, &[]);
    watch.waits(1, 1, &["cc"]);
    w.write("inc/b.h", "4").write("inc/a.h", "5");
    watch.waits(2, 2, &["cc"]);
    assert!(watch.err().contains("changed: inc/a.h\n"), "{}", watch.err());
    // known from the cache as well as from a run
    w.write("inc/a.h", "2");
    watch.waits(3, 3, &[]);
    w.write("inc/a.h", "6");
    watch.waits(4, 4, &["cc"]);
    assert_eq!(w.read("out"), "16");
    watch.ends("INT", 130);
}

#[test]
fn polling_sees_the_same() {
    let w = workspace();
    w.write("tree/sub/f", "1");
    w.workflow(json!({"steps": {"copy": {
        "run": "cat ${inputs.t}/sub/* > ${outputs.o}", "inputs": {"t": "tree/"}, "outputs": {"o": "out"}
    }}}));
    let mut watch = Watch::start(&w, &["--poll=20", "--debounce", "0"]);
    watch.waits(1, 1, &["copy"]);
    w.write("tree/sub/g", "2");
    watch.says(2, "waiting for changes");
    wait_for("the new file", LONG, || w.read("out") == "12");
    watch.ends("INT", 130);
}

#[test]
fn where_the_system_cannot_tell_it_looks() {
    let limit = "echo 1 > /proc/sys/user/max_inotify_watches";
    let allowed = Command::new("unshare").args(["-Ur", "sh", "-c", limit]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no user namespace of one's own");
        return;
    }
    let w = workspace();
    let flow = w.command(&["watch", "flow.json", "--json", "-v"]);
    let mut command = Command::new("unshare");
    command
        .args(["-Ur", "sh", "-c", &format!("{limit}; exec \"$0\" \"$@\"")])
        .arg(flow.get_program())
        .args(flow.get_args());
    command.current_dir(w.root());
    let mut watch = Watch::of(&w, command);
    watch.says(1, "the limit of watched directories is reached (fs.inotify.max_user_watches = ");
    watch.says(1, "help: raise it: sysctl fs.inotify.max_user_watches=");
    w.write("a", "a2\n");
    watch.waits(2, 2, &["both", "copy"]);
    assert_eq!(watch.err().matches("looking every 2 s instead").count(), 1);
    watch.ends("INT", 130);
}

#[test]
fn a_run_that_writes_its_own_input_does_not_run_for_ever() {
    let w = Workspace::with(json!({"steps": {
        "one": {"run": "cat a > ${outputs.o}", "inputs": {"a": "a"}, "outputs": {"o": "out"}},
        "two": {"run": "cat ${inputs.o}; date +%N >> a", "inputs": {"o": "${steps.one.o}"}}
    }}));
    w.write("a", "1\n");
    let mut watch = Watch::start(&w, &["--debounce", "0"]);
    watch.says(1, "waiting for changes");
    // one of them began when nobody else wrote
    let told = "a changed during each of 6 runs, and nobody wrote it before the last one, so the run itself";
    assert!(watch.err().contains(told), "{}", watch.err());
    assert_eq!(watch.runs().len(), 6);
    // it still runs when somebody else changes it
    w.write("a", "2\n");
    watch.says(2, "waiting for changes");
    assert!(w.read("out").starts_with("2\n"), "{}", watch.err());
    watch.ends("INT", 130);
}

#[test]
fn the_last_edit_of_many_is_not_taken_for_the_runs_own() {
    let w = Workspace::with(json!({"steps": {
        "s": {"run": "cat a > ${outputs.o}; sleep 0.2", "inputs": {"a": "a"}, "outputs": {"o": "out"}},
    }}));
    w.write("a", "0\n");
    let mut watch = Watch::start(&w, &["--debounce", "0"]);
    let mut text = w.read("a");
    // during each run, until it has had enough, and a little longer
    let mut more = 10;
    let begun = std::time::Instant::now();
    while more > 0 {
        text.push_str("more\n");
        w.write("a", &text);
        std::thread::sleep(std::time::Duration::from_millis(60));
        more -= usize::from(watch.err().contains("the next one begins when nothing changes any more"));
        assert!(begun.elapsed() < LONG, "{}", watch.err());
    }
    wait_for("the last edit", LONG, || w.has("out") && w.read("out") == text);
    watch.says(1, "waiting for changes");
    assert!(!watch.err().contains("the run itself"), "{}", watch.err());
    watch.ends("INT", 130);
}

#[test]
fn what_is_asked_wrongly_ends_at_once() {
    let w = workspace();
    w.flow(&["watch", "flow.json", "-n"]).exits(2).says("has no --dry-run");
    w.flow(&["watch", "none.json"]).exits(w.flow(&["run", "none.json"]).code.unwrap());
    w.flow(&["watch", "flow.json", "nothing"]).exits(2).says("nothing");
}
