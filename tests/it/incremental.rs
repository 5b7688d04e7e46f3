//! The change table: what runs again after which change, counted outside of flow.

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::support::Workspace;

/// The table's commands; `hid` reads `h` without saying so. Every command that runs writes itself into `log`.
fn definition() -> Value {
    json!({
        "defaults": {"shell": ["./logged"]},
        "steps": {
            "a": {"run": "cat s > a", "inputs": {"s": "s"}, "outputs": {"a": "a"}},
            "cut": {"run": "tr -d 0-9 < a > cut", "inputs": {"a": "${steps.a.a}"}, "outputs": {"cut": "cut"}},
            "c": {"run": "cat cut > c", "inputs": {"cut": "cut"}, "outputs": {"c": "c"}},
            "hid": {"run": "cat s2 h > hid", "inputs": {"s2": "s2"}, "outputs": {"hid": "hid"}},
        },
    })
}

/// The table's workspace after its first run.
fn table() -> Workspace {
    let w = Workspace::with(definition());
    w.script("logged", "#!/bin/sh\necho \"$1\" >> log\nexec sh -euc \"$1\"\n");
    w.write("s", "x1y\n").write("s2", "two\n").write("h", "hidden\n");
    assert_eq!(commands(&w).len(), 4);
    w
}

/// Runs, and gives the commands that ran, sorted.
fn commands(w: &Workspace) -> Vec<String> {
    w.write("log", "");
    w.run(&[]).ok();
    let mut lines: Vec<String> = w.read("log").lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn modified(w: &Workspace, path: &str) -> SystemTime {
    w.path(path).metadata().unwrap().modified().unwrap()
}

fn set_modified(w: &Workspace, path: &str, time: SystemTime) {
    File::options().write(true).open(w.path(path)).unwrap().set_modified(time).unwrap();
}

const CUT: &str = "tr -d 0-9 < a > cut";

#[test]
fn nothing_changed() {
    let w = table();
    assert_eq!(commands(&w), [""; 0]);
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_touch_is_no_change() {
    let w = table();
    set_modified(&w, "s", SystemTime::now());
    assert_eq!(commands(&w), [""; 0]);
}

#[test]
fn an_edit_that_ends_at_the_cut() {
    let w = table();
    w.write("s", "x23y\n");
    assert_eq!(commands(&w), ["cat s > a", CUT]);
    assert_eq!((w.read("a"), w.read("c")), ("x23y\n".to_owned(), "xy\n".to_owned()));
    w.write("s", "x23z\n");
    assert_eq!(commands(&w), ["cat cut > c", "cat s > a", CUT]);
    assert_eq!(w.read("c"), "xz\n");
}

#[test]
fn an_edit_of_the_same_size_with_the_time_put_back() {
    let w = table();
    let before = modified(&w, "s");
    w.write("s", "x2y\n");
    set_modified(&w, "s", before);
    assert_eq!(commands(&w), ["cat s > a", CUT]);
    assert_eq!(w.read("a"), "x2y\n");
}

#[test]
fn an_edit_with_an_older_time() {
    let w = table();
    w.write("s", "x3y\n");
    set_modified(&w, "s", SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    assert_eq!(commands(&w), ["cat s > a", CUT]);
    assert_eq!(w.read("a"), "x3y\n");
}

#[test]
fn a_deleted_or_corrupted_output_is_restored() {
    let w = table();
    w.remove("a");
    w.write("log", "");
    w.run(&[]).ok().ran([]).restored(["a"]);
    assert_eq!((w.read("a"), w.read("log")), ("x1y\n".to_owned(), String::new()));

    w.write("a", "damaged, and longer\n");
    w.run(&[]).ok().ran([]).restored(["a"]);
    assert_eq!(w.read("a"), "x1y\n");

    let before = modified(&w, "a");
    w.write("a", "x9y\n");
    set_modified(&w, "a", before);
    w.run(&[]).ok().ran([]).restored(["a"]);
    assert_eq!((w.read("a"), w.read("log")), ("x1y\n".to_owned(), String::new()));
    w.run(&[]).ok().all_fresh();
}

#[test]
fn another_command_runs_as_far_as_its_bytes_differ() {
    for (command, ran, c) in [
        ("cat ./s > a", vec!["cat ./s > a"], "xy\n"),
        ("tr 1 7 < s > a", vec![CUT, "tr 1 7 < s > a"], "xy\n"),
        ("tr y z < s > a", vec!["cat cut > c", CUT, "tr y z < s > a"], "xz\n"),
    ] {
        let w = table();
        let mut changed = definition();
        changed["steps"]["a"]["run"] = command.into();
        w.workflow(changed);
        let mut expected = ran;
        expected.sort_unstable();
        assert_eq!(commands(&w), expected);
        assert_eq!(w.read("c"), c);
        // and back: every result is known
        w.workflow(definition());
        assert_eq!(commands(&w), [""; 0], "back from {command}");
        assert_eq!(w.read("c"), "xy\n");
    }
}

#[test]
fn an_edit_soon_after_a_run_is_always_seen() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat s > a", "inputs": {"s": "s"}, "outputs": {"a": "a"}},
    }}));
    w.write("s", "0");
    w.run(&[]).ok().ran(["a"]);
    for n in 1..=8 {
        // the pause is what is tested: none, then 50 ms
        let until = Instant::now() + Duration::from_millis(if n % 2 == 0 { 50 } else { 0 });
        while Instant::now() < until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        w.write("s", n.to_string());
        w.run(&[]).ok().ran(["a"]);
        assert_eq!(w.read("a"), n.to_string());
    }
}

#[test]
fn what_is_not_declared_is_not_seen() {
    // documented: a file that a command reads without saying so decides nothing
    let w = table();
    w.write("h", "other\n");
    assert_eq!(commands(&w), [""; 0]);
    assert_eq!(w.read("hid"), "two\nhidden\n");
}

#[test]
fn the_script_that_a_command_names_is_an_input() {
    let w = Workspace::with(json!({"steps": {
        "sh": {"run": ["sh", "x.sh"], "outputs": {"o": "by-sh"}},
        "python": {"run": ["python3", "tools/x.py"], "outputs": {"o": "by-python"}},
        "off": {"run": ["sh", "y.sh"], "implicit": false, "outputs": {"o": "off"}},
    }}));
    w.write("x.sh", "echo 1 > by-sh\n").write("y.sh", "echo 1 > off\n");
    w.write("tools/x.py", "open('by-python', 'w').write('1')\n");
    w.run(&[]).ok().ran(["sh", "python", "off"]);
    w.run(&[]).ok().all_fresh();
    w.write("x.sh", "echo 2 > by-sh\n").write("y.sh", "echo 2 > off\n");
    let run = w.run(&[]).ok().ran(["sh"]);
    assert!(run.node("sh")["reason"].as_str().unwrap().contains("x.sh"), "{}", run.stdout);
    w.write("tools/x.py", "open('by-python', 'w').write('2')\n");
    w.run(&[]).ok().ran(["python"]);
    assert_eq!((w.read("by-sh"), w.read("by-python")), ("2\n".to_owned(), "2".to_owned()));
}

#[test]
fn what_decides_no_result_runs_nothing() {
    let w = table();
    w.write("log", "");
    w.run(&["-j", "1"]).ok().all_fresh();
    w.run(&["-j", "7", "--keep-going"]).ok().all_fresh();
    let mut changed = definition();
    changed["resources"] = json!({"pools": {"db": 2}});
    changed["description"] = "other".into();
    for (key, value) in [
        ("resources", json!({"cpu": 2, "mem": "1MiB", "pool": {"db": 1}})),
        ("doc", json!("says what it does")),
        ("retry", json!({"max": 2, "backoff": "1ms"})),
        ("timeout", json!("1h")),
        ("allow_failure", json!(true)),
        ("needs", json!(["hid"])),
    ] {
        changed["steps"]["a"][key] = value;
        w.workflow(changed.clone());
        w.run(&[]).ok().all_fresh();
    }
    assert_eq!(w.read("log"), "");
}

fn copy(from: &Workspace, what: &[&str], to: &Workspace) {
    for name in what {
        let status = Command::new("cp").arg("-r").args([from.path(name), to.path(name)]).status().unwrap();
        assert!(status.success());
    }
}

#[test]
fn a_copy_at_another_path_runs_nothing() {
    let w = table();
    let sources = ["flow.json", "logged", "s", "s2", "h", "cache"];
    let whole = Workspace::new();
    copy(&w, &sources, &whole);
    copy(&w, &["a", "cut", "c", "hid"], &whole);
    whole.run(&[]).ok().all_fresh();
    assert!(!whole.has("log"));
    // only sources and cache
    let bare = Workspace::new();
    copy(&w, &sources, &bare);
    bare.run(&[]).ok().ran([]).restored(["a", "cut", "c", "hid"]);
    assert!(!bare.has("log"));
    assert_eq!(bare.read("c"), "xy\n");
    bare.run(&[]).ok().all_fresh();
}

#[test]
fn many_edits_agree_with_a_clean_run() {
    // a fixed sequence of edits, each followed by a run; a fresh workspace must give the same outputs
    let w = table();
    let contents = ["x1y\n", "x2y\n", "ab9\n", "x1y\n", "12\n", "", "ab9\n"];
    for text in contents {
        w.write("s", text).write("s2", format!("<{text}>"));
        w.run(&[]).ok();
        let digits: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        assert_eq!((w.read("a"), w.read("cut"), w.read("c")), (text.to_owned(), digits.clone(), digits));
        assert_eq!(w.read("hid"), format!("<{text}>hidden\n"));
    }
}

#[test]
fn links_are_followed() {
    let w = Workspace::with(json!({"steps": {
        "file": {"run": "cat s > o", "inputs": {"s": "s"}, "outputs": {"o": "o"}},
        "tree": {"run": "cat d/* > t", "inputs": {"d": "d"}, "outputs": {"t": "t"}},
    }}));
    w.write("one", "1").write("two", "2").write("real/x", "x");
    let link = |to: &str, at: &str| {
        let _ = std::fs::remove_file(w.path(at));
        std::os::unix::fs::symlink(to, w.path(at)).unwrap();
    };
    link("one", "s");
    link("real", "d");
    w.run(&[]).ok().ran(["file", "tree"]);
    w.write("one", "3");
    w.run(&[]).ok().ran(["file"]);
    link("two", "s");
    w.run(&[]).ok().ran(["file"]);
    assert_eq!(w.read("o"), "2");
    w.write("real/x", "y");
    w.run(&[]).ok().ran(["tree"]);
    assert_eq!(w.read("t"), "y");
}

#[test]
fn a_missing_input_fails_and_an_emptied_list_does_not() {
    let w = Workspace::with(json!({"steps": {
        "one": {"run": "cat s > o", "inputs": {"s": "s"}, "outputs": {"o": "o"}},
        "many": {"run": "cat ${inputs.d} /dev/null > m", "inputs": {"d": "d/*"}, "outputs": {"m": "m"}},
    }}));
    w.write("s", "1").write("d/x", "x");
    w.run(&[]).ok();
    w.remove("s").remove("d/x");
    w.run(&["-k"]).exits(1).failed(["one"]).ran(["many"]).says("input s is not there");
    assert_eq!((w.read("o"), w.read("m")), ("1".into(), String::new()));
}

/// A small generator: the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// A random graph: node `n` takes some nodes before it and a source, and adds its word; empty text makes no file.
struct Model {
    words: Vec<String>,
    from: Vec<Vec<usize>>,
    sources: Vec<String>,
}

impl Model {
    fn workflow(&self) -> Value {
        let mut steps = json!({});
        for (n, from) in self.from.iter().enumerate() {
            let mut inputs = vec![format!("s{}", n % self.sources.len())];
            inputs.extend(from.iter().map(|other| format!("${{steps.n{other}.o}}")));
            steps[format!("n{n}")] = json!({
                "run": format!("cat ${{inputs.i}} > $$ 2>&1; printf %s {} >> $$; if [ -s $$ ]; then mv $$ ${{outputs.o}}; else rm $$; fi", self.words[n])
                    .replace("$$", &format!("tmp-{n}")),
                "inputs": {"i": inputs}, "outputs": {"o": {"path": format!("out/n{n}"), "optional": true}},
            });
        }
        json!({"steps": steps})
    }

    /// What every node must give: a reference in five lines.
    fn expected(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for (n, from) in self.from.iter().enumerate() {
            let mut text = self.sources[n % self.sources.len()].clone();
            from.iter().for_each(|other| text.push_str(&out[*other]));
            out.push(text + self.words[n].trim_matches('\''));
        }
        out
    }
}

#[test]
fn random_graphs_and_edits_agree_with_a_reference() {
    for seed in 1..=2 {
        let mut dice = Dice(seed);
        let words = ["''", "a", "b"];
        let mut model = Model {
            words: (0..7).map(|_| words[dice.roll(3)].to_owned()).collect(),
            from: (0..7).map(|n| (0..n).filter(|_| dice.roll(3) == 0).collect()).collect(),
            sources: vec![String::new(), "x".to_owned(), "y".to_owned()],
        };
        let w = Workspace::new();
        for step in 0..12 {
            for (n, text) in model.sources.iter().enumerate() {
                w.write(&format!("s{n}"), text);
            }
            w.workflow(model.workflow());
            let target = format!("+n{}", dice.roll(7));
            let args: &[&str] = if dice.roll(3) == 0 { &[&target] } else { &[] };
            w.run(args).ok();
            w.run(&[]).ok();
            for (n, text) in model.expected().iter().enumerate() {
                let path = format!("out/n{n}");
                let found = if w.has(&path) { w.read(&path) } else { String::new() };
                assert_eq!(&found, text, "seed {seed}, step {step}, node {n}: {}", model.workflow());
                assert_eq!(w.has(&path), !text.is_empty(), "seed {seed}, step {step}, node {n}");
            }
            w.run(&[]).ok().ran([]).restored([]);
            let n = dice.roll(7);
            let path = format!("out/n{n}");
            match dice.roll(5) {
                0 => model.sources[n % 3] = ["", "x", "y", "z"][dice.roll(4)].to_owned(),
                1 => model.words[n] = words[dice.roll(3)].to_owned(),
                2 if w.has(&path) => drop(w.remove(&path)),
                3 if w.has(&path) => drop(w.write(&path, "damaged")),
                _ => model.from[n] = (0..n).filter(|_| dice.roll(2) == 0).collect(),
            }
        }
    }
}
