//! Runs after files came into listed directories: what was there before is not looked at again, and the outcome is that of a look at
//! everything.

use serde_json::json;

use crate::changed_files::{Said, settle};
use crate::support::Workspace;

/// Each file of `data` goes through two steps of its own, then all into one file; `numbered` depends on the place in the list.
fn workspace() -> Workspace {
    let glob = json!({ "f": { "glob": "data/**/*.txt" } });
    let w = Workspace::with(json!({"steps": {
        "up": {"matrix": glob, "run": "tr a-z A-Z < ${inputs.f} > ${outputs.o}", "inputs": {"f": "${matrix.f}"},
            "outputs": {"o": "up/${matrix.f.rel}"}},
        "twice": {"matrix": glob, "run": "cat ${inputs.u} ${inputs.u} > ${outputs.o}", "inputs": {"u": "${steps.up.o}"},
            "outputs": {"o": "twice/${matrix.f.rel}"}},
        "numbered": {"matrix": glob, "run": "echo ${matrix.f.index} > ${outputs.o}", "outputs": {"o": "numbered/${matrix.f.rel}"}},
        "all": {"run": "cat ${inputs.t} > all", "inputs": {"t": "${steps.twice.o}"}, "outputs": {"o": "all"}},
        "apart": {"run": "cat s > apart", "inputs": {"s": "s"}, "outputs": {"o": "apart"}},
    }}));
    w.write("data/b.txt", "b\n").write("data/deep/d.txt", "d\n").write("s", "1\n");
    w
}

/// One run: what ran. The run after it has nothing to do, and a look at everything agrees.
fn run(w: &Workspace) -> Said {
    let said = Said::of(w, &[], true);
    settle(w);
    let all = w.flow(&["run", "flow.json", "--json", "-v"]).ok().json();
    for outcome in ["ran", "restored", "failed"] {
        assert_eq!(all["counts"][outcome], 0, "{outcome}");
    }
    settle(w);
    said
}

#[test]
fn only_what_came_in_is_looked_at() {
    let w = workspace();
    assert_eq!(run(&w).ran().len(), 8);
    // between the others: what is numbered is another one
    w.write("data/c.txt", "c\n");
    let said = run(&w);
    let id = |step: &str, file: &str| format!("{step}[f=\"data/{file}\"]");
    let expected = ["all".to_owned(), id("numbered", "deep/d.txt"), id("twice", "c.txt"), id("up", "c.txt")];
    assert_eq!(said.ran(), expected);
    assert!(said.named.contains(&(id("numbered", "c.txt"), "restored".to_owned())), "{:?}", said.named);
    assert_eq!((said.untouched, said.named.len()), (6, 5));
    assert_eq!(w.read("all"), "B\nB\nC\nC\nD\nD\n");
    assert_eq!(w.read("numbered/deep/d.txt"), "03\n");
    // the plan of now knows the new ones
    w.write("data/c.txt", "cc\n");
    let said = run(&w);
    assert_eq!(said.ran(), ["all".to_owned(), id("twice", "c.txt"), id("up", "c.txt")]);
    assert_eq!(said.untouched, 8);
    // in a directory of its own, while another file changes and an output is lost
    w.write("data/new/e.txt", "e\n").write("s", "2\n").remove("up/b.txt");
    let said = run(&w);
    assert_eq!(said.ran().len(), 5);
    assert_eq!((said.counts["restored"].as_u64(), said.untouched), (Some(1), 8));
    assert_eq!((w.read("all"), w.read("apart")), ("B\nB\nCC\nCC\nD\nD\nE\nE\n".to_owned(), "2\n".to_owned()));
    assert_eq!(w.read("up/b.txt"), "B\n");
}

#[test]
fn what_matches_nothing_concerns_nobody() {
    let w = workspace();
    run(&w);
    w.write("data/readme.md", "").write("data/.hidden.txt", "");
    let said = run(&w);
    assert_eq!((said.named.len(), said.untouched), (0, 8));
}

#[test]
fn what_is_gone_is_noticed() {
    let w = workspace();
    run(&w);
    w.remove("data/deep/d.txt");
    let said = run(&w);
    assert_eq!(said.ran(), ["all"]);
    assert_eq!(w.read("all"), "B\nB\n");
    // back, and another one in its place
    w.write("data/deep/d.txt", "d\n").remove("data/b.txt");
    run(&w);
    assert_eq!(w.read("all"), "D\nD\n");
    assert_eq!(w.read("numbered/deep/d.txt"), "01\n");
    w.remove("data/deep/d.txt").write("data/b.txt", "b\n");
    run(&w);
    assert_eq!(w.read("all"), "B\nB\n");
}

#[test]
fn a_link_that_leads_elsewhere_is_followed() {
    let w = workspace();
    w.write("elsewhere/x.txt", "x\n");
    std::os::unix::fs::symlink("../elsewhere", w.path("data/deep/linked")).unwrap();
    std::os::unix::fs::symlink("../s", w.path("data/z.txt")).unwrap();
    run(&w);
    assert_eq!(w.read("all"), "B\nB\nD\nD\n1\n1\n");
    // a directory now: it no longer matches, and nothing in `data` tells
    w.remove("s").write("s/1", "").write("data/c.txt", "c\n");
    let said = w.flow(&["run", "flow.json", "--json", "-k"]);
    assert_eq!(said.exits(1).json()["counts"]["failed"], 1);
    assert_eq!(w.read("all"), "B\nB\nC\nC\nD\nD\n");
}

#[test]
fn a_workflow_that_changed_with_the_directory_is_read() {
    let w = workspace();
    run(&w);
    let text = w.read("flow.json").replace("tr a-z A-Z", "tr a-z b-za");
    w.write("flow.json", text).write("data/c.txt", "c\n");
    run(&w);
    assert_eq!(w.read("all"), "c\nc\nd\nd\ne\ne\n");
}

#[test]
fn a_failure_among_the_new_ones_is_told_until_it_is_mended() {
    let w = Workspace::with(json!({"steps": {
        "check": {"matrix": {"f": {"glob": "data/*"}}, "run": "grep -v bad ${inputs.f} > ${outputs.o}", "inputs": {"f": "${matrix.f}"},
            "outputs": {"o": "good/${matrix.f.name}"}},
        "all": {"run": "cat ${inputs.g} > all", "inputs": {"g": "${steps.check.o}"}, "outputs": {"o": "all"}},
    }}));
    w.write("data/a", "1\n").write("data/c", "3\n");
    Said::of(&w, &[], true);
    settle(&w);
    w.write("data/b", "bad\n");
    for _ in 0..2 {
        let said = Said::of(&w, &[], false);
        assert!(said.named.contains(&("check[f=\"data/b\"]".to_owned(), "failed".to_owned())));
        assert_eq!(w.read("all"), "1\n3\n");
    }
    w.write("data/b", "2\n");
    assert_eq!(run(&w).ran(), ["all", "check[f=\"data/b\"]"]);
    assert_eq!(w.read("all"), "1\n2\n3\n");
}

#[test]
fn what_came_in_and_no_target_needs_is_left() {
    let glob = json!({ "f": { "glob": "data/*" } });
    let w = Workspace::with(json!({"steps": {
        "up": {"matrix": glob, "run": "tr a-z A-Z < ${matrix.f} > ${outputs.o}", "inputs": {"f": "${matrix.f}"},
            "outputs": {"o": "up/${matrix.f.name}"}},
        "all": {"run": "cat ${inputs.u} > all", "inputs": {"u": "${steps.up.o}"}, "outputs": {"o": "all"}},
        "beside": {"matrix": glob, "run": "cp ${matrix.f} ${outputs.o}", "inputs": {"f": "${matrix.f}"},
            "outputs": {"o": "beside/${matrix.f.name}"}},
    }}));
    w.write("data/b", "b\n");
    let targets = ["all", "beside/b"];
    let glance = || Said::of(&w, &targets, true).named.is_empty();
    let settled = |_| {
        glance() || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            false
        }
    };
    assert!((0..100).any(settled));
    w.write("data/c", "c\n");
    assert_eq!(Said::of(&w, &targets, true).ran(), ["all", "up[f=\"data/c\"]"]);
    assert_eq!((w.read("all").as_str(), w.path("beside/c").exists()), ("B\nC\n", false));
}
