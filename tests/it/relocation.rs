//! A workspace with its cache at another path, or a cache that is moved alone: every node is a hit.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{Run, Workspace};

/// Commands with and without a shell, direct and given places, a directory, a matrix, stages, an include, an append directory, a
/// directory of sources, an absent output.
fn everything() -> Workspace {
    let w = Workspace::with(json!({
        "steps": {
            "direct": {"run": "cat data/a > out/direct", "inputs": {"a": "data/a"}, "outputs": {"o": "out/direct"}},
            "argv": {"run": ["head", "-c", "3", "data/a"], "inputs": {"a": "data/a"}, "stdout": "o", "outputs": {"o": "out/argv"}},
            "tree": {"run": "mkdir ${outputs.d}/sub; cp ${inputs.o} ${outputs.d}/sub/x; ln -s sub/x ${outputs.d}/link; printf '#!/bin/sh\\n' > ${outputs.d}/run; chmod +x ${outputs.d}/run",
                     "inputs": {"o": "${steps.direct.o}"}, "outputs": {"d": "out/tree/"}},
            "each": {"run": "seq ${matrix.n} 5000 > ${outputs.o}; cat ${inputs.d}/sub/x >> ${outputs.o}", "matrix": {"n": [1, 2, 3]},
                     "inputs": {"d": "${steps.tree.d}"}, "outputs": {"o": "out/each.${matrix.n}"}},
            "gather": {"run": "cat ${inputs.all} > ${outputs.o}", "inputs": {"all": "${steps.each.o}"}, "outputs": {"o": "out/all"}},
            "sources": {"run": "cat data/*.csv | wc -c > ${outputs.o}; ls ${inputs.d} >> ${outputs.o}", "inputs": {"d": "data/", "f": "data/*.csv"}, "outputs": {"o": "out/sources"}},
            "join": {"uses": "csv.join", "with": {"on": ["k"]}, "inputs": {"left": "data/l.csv", "right": "data/r.csv"}, "outputs": {"csv": "out/joined.csv"}},
            "version": {"run": "cp ${inputs.j} ${outputs.v}/one", "inputs": {"j": "${steps.gather.o}"}, "outputs": {"v": {"path": "out/versions/", "append": true}}},
            "maybe": {"run": "true", "inputs": {"a": "data/a"}, "outputs": {"o": {"path": "out/maybe", "optional": true}}},
        },
        "include": [{"file": "sub/flow.json", "as": "sub"}],
    }));
    w.write("sub/flow.json", json!({"name": "sub", "steps": {
        "in": {"run": "cat ${workflow.dir}/in > ${outputs.o}", "inputs": {"i": "${workflow.dir}/in"}, "outputs": {"o": "out/sub"}},
    }}).to_string());
    w.write("sub/in", "inner")
        .write("data/a", "abcdef")
        .write("data/l.csv", "k,x\n1,2\n")
        .write("data/r.csv", "k,y\n1,3\n");
    w.write("out/.keep", "").write(".gitignore", "/cache/\n/out/*\n!/out/.keep\n");
    w
}

fn run_in(dir: &Path, args: &[&str]) -> Run {
    let mut command = Command::new(crate::support::flow_binary());
    command.args(["run", "flow.json", "--json", "-v"]).args(args).current_dir(dir);
    Run::of(command.output().unwrap())
}

#[track_caller]
fn sh(dir: &Path, script: &str) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Nothing ran, and everything is in place.
#[track_caller]
fn all_hits(run: Run, outcome: &str) -> Run {
    let run = run.ok().ran([]);
    let counts = run.json()["counts"].clone();
    // the absent output is as it should be in any case
    let (as_asked, fresh) = (counts[outcome].as_u64().unwrap(), counts["fresh"].as_u64().unwrap());
    let hits = if outcome == "fresh" { (12, 12) } else { (11, 1) };
    assert_eq!((as_asked, fresh), hits, "{counts}\n{}", run.stderr);
    run
}

fn tree_of(dir: &Path) -> String {
    let output = Command::new("sh")
        .args(["-c", "find out -type f ! -name .keep -exec sha256sum {} + | sort; find out -type l -printf '%p %l\\n' | sort; find out -perm /111 -type f | sort"])
        .current_dir(dir)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_copy_of_the_workspace_with_its_cache_runs_nothing() {
    let w = everything();
    assert_eq!(w.run(&[]).ok().with_outcome("ran").len(), 12);
    let elsewhere = tempfile::tempdir().unwrap();
    for (name, copy) in [("all", "cp -r"), ("kept stamps", "cp -a")] {
        let to = elsewhere.path().join(name);
        sh(w.root(), &format!("{copy} . '{}'", to.display()));
        all_hits(run_in(&to, &[]), "fresh");
        assert_eq!(tree_of(&to), tree_of(w.root()));
        // and its outputs come back from the cache
        sh(&to, "rm -r out/*");
        all_hits(run_in(&to, &[]), "restored");
        assert_eq!(tree_of(&to), tree_of(w.root()));
        // an edit is seen there as here
        sh(&to, "echo 9 >> sub/in");
        run_in(&to, &[]).ok().ran(["sub.in"]);
    }
    // nothing happened to the one that was copied
    w.run(&[]).ok().all_fresh();
}

#[test]
fn a_git_clone_with_the_copied_cache_restores_everything() {
    let w = everything();
    w.run(&[]).ok();
    let elsewhere = tempfile::tempdir().unwrap();
    let to = elsewhere.path().join("clone");
    sh(w.root(), "git init -q . && git add -A && git -c user.name=x -c user.email=x@x commit -q -m x");
    sh(w.root(), &format!("git clone -q . '{0}' && cp -r cache '{0}/cache'", to.display()));
    all_hits(run_in(&to, &[]), "restored");
    assert_eq!(tree_of(&to), tree_of(w.root()));
    run_in(&to, &[]).ok().all_fresh();
    // without the state of any workspace it is the same: only results and blobs are needed
    sh(
        elsewhere.path(),
        "git clone -q clone bare-state && cp -r clone/cache bare-state/cache && rm -r bare-state/cache/workspaces",
    );
    all_hits(run_in(&elsewhere.path().join("bare-state"), &[]), "restored");
}

#[test]
fn a_cache_that_was_moved_serves_from_its_new_place() {
    let w = everything();
    w.run(&[]).ok();
    let before = tree_of(w.root());
    let elsewhere = tempfile::tempdir().unwrap();
    let cache = elsewhere.path().join("moved cache");
    sh(w.root(), &format!("mv cache '{}'", cache.display()));
    let cache = cache.to_str().unwrap();
    all_hits(run_in(w.root(), &["--cache", cache]), "fresh");
    sh(w.root(), "rm -r out/*");
    all_hits(run_in(w.root(), &["--cache", cache]), "restored");
    assert_eq!(tree_of(w.root()), before);
    assert!(!w.has("cache"));
    // by the environment, for another workspace
    let to = elsewhere.path().join("clone");
    sh(w.root(), &format!("mkdir '{0}' && cp -r flow.json sub data '{0}' && mkdir '{0}/out'", to.display()));
    let mut command = Command::new(crate::support::flow_binary());
    command.args(["run", "flow.json", "--json", "-v"]).current_dir(&to).env("FLOW_CACHE", cache);
    all_hits(Run::of(command.output().unwrap()), "restored");
    assert_eq!(tree_of(&to), before);
    // a link to the workspace is the workspace
    std::os::unix::fs::symlink(w.root(), elsewhere.path().join("link")).unwrap();
    run_in(&elsewhere.path().join("link"), &["--cache", cache]).ok().all_fresh();
}
