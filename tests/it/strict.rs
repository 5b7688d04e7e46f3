//! `flow run --strict`: what a command does not declare is refused, named, and fails the node.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::{LONG, Run, Workspace, nothing_left, wait_for};

/// A workspace with one step, unless this machine cannot confine.
fn confined(step: Value) -> Option<Workspace> {
    let w = Workspace::with(json!({"steps": {"s": step}}));
    w.write("in.txt", "input\n")
        .write("secret.txt", "undeclared\n")
        .write("data/a.txt", "a\n")
        .write("data/b.txt", "b\n");
    able().then_some(w)
}

/// Whether this machine can confine; says why not.
fn able() -> bool {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let why_not = WHY_NOT.get_or_init(|| {
        let w = Workspace::with(json!({"steps": {"s": {"run": "echo > o", "outputs": {"o": "o"}}}}));
        let run = w.run(&["--strict"]);
        if run.code != Some(4) {
            run.ok();
            return None;
        }
        assert!(run.stderr.contains("--strict needs"), "{}", run.stderr);
        Some(run.stderr)
    });
    if let Some(why) = why_not {
        eprintln!("skipped: {why}");
    }
    why_not.is_none()
}

#[track_caller]
fn refused(w: &Workspace, access: &str) -> Run {
    w.run(&["--strict"]).exits(1).failed(["s"]).says("--strict").says(access)
}

#[test]
fn a_command_that_keeps_to_what_it_declares_runs_as_ever_and_its_key_is_the_same() {
    let Some(w) = confined(json!({
        "run": "cat ${inputs.i} | tr a-z A-Z > ${outputs.o}; cp in.txt copy.txt; mktemp -d; echo x > \"$TMPDIR/x\"; ls > /dev/null",
        "inputs": {"i": "in.txt"}, "outputs": {"o": "out.txt", "c": "copy.txt"}}))
    else {
        return;
    };
    w.run(&["--strict"]).ok().ran(["s"]);
    assert_eq!((w.read("out.txt"), w.read("copy.txt")), ("INPUT\n".into(), "input\n".into()));
    w.run(&[]).ok().all_fresh();
    w.run(&["--strict"]).ok().all_fresh();
    w.run(&["--strict", "--force"]).ok().ran(["s"]);
    nothing_left(&w, LONG);
}

#[test]
fn reading_an_undeclared_file_is_refused_by_name() {
    let step = json!({"run": "cat in.txt secret.txt > o", "inputs": {"i": "in.txt"}, "outputs": {"o": "o"}});
    let Some(w) = confined(step) else { return };
    let run = refused(&w, "read secret.txt (by cat)").says("exit code 1").says("'inputs'");
    assert!(!w.has("o") && !run.stderr.contains("undeclared\n"), "{}", run.stderr);
    assert!(run.node("s")["error"].as_str().unwrap().contains("secret.txt"));
    w.run(&[]).ok().ran(["s"]);
}

#[test]
fn a_refusal_that_the_program_tolerates_fails_all_the_same() {
    let step =
        json!({"run": "(cat secret.txt || echo none) 2> /dev/null > ${outputs.o}", "outputs": {"o": "o"}});
    let Some(w) = confined(step) else { return };
    refused(&w, "read secret.txt").says("exit code 0");
    assert!(!w.has("o"));
    // what is not there is not refused: nothing was read
    w.remove("secret.txt");
    w.run(&["--strict"]).ok().ran(["s"]);
    assert_eq!(w.read("o"), "none\n");
}

#[test]
fn writing_beside_the_outputs_is_refused_by_name() {
    let Some(w) =
        confined(json!({"run": "echo x > other.txt; echo y > ${outputs.o}", "outputs": {"o": "o"}}))
    else {
        return;
    };
    refused(&w, "created other.txt").says("TMPDIR");
    assert!(!w.has("other.txt"));
    for (what, says) in [
        ("echo x >> in.txt", "wrote in.txt"),
        ("rm in.txt", "removed in.txt"),
        ("mv in.txt ${outputs.o}", "removed in.txt"),
        ("mkdir dir", "created dir"),
        ("ln -s in.txt link", "created link"),
        ("echo x > /tmp/flow-strict-test-never", "created /tmp/flow-strict-test-never"),
    ] {
        w.workflow(json!({"steps": {"s": {
            "run": format!("{what} || true; echo y > ${{outputs.o}}"), "inputs": {"i": "in.txt"}, "outputs": {"o": "o"}}}}));
        refused(&w, says);
        assert_eq!(w.read("in.txt"), "input\n", "{what}");
    }
    assert!(!Path::new("/tmp/flow-strict-test-never").exists());
}

/// Where the command makes an output in its place, the kernel has to open the whole directory: the tracer looks after the rest.
#[test]
fn beside_an_output_in_its_place_nothing_else_is_touched() {
    let make = |run: &str| json!({"steps": {"s": {"run": run, "outputs": {"o": "result.txt"}}}});
    let Some(w) = confined(json!({"run": "echo x > result.txt", "outputs": {"o": "result.txt"}})) else {
        return;
    };
    w.run(&["--strict"]).ok().ran(["s"]);
    assert_eq!(w.read("result.txt"), "x\n");
    for (run, says) in [
        ("echo y > result.txt; echo lost > secret.txt", "wrote secret.txt"),
        ("echo y > result.txt; rm -f secret.txt", "removed secret.txt"),
        ("echo y > result.txt; mv secret.txt result.txt", "removed secret.txt"),
        ("echo y > result.txt; echo y > left.txt", "created left.txt"),
        ("cat secret.txt > result.txt", "read secret.txt"),
        ("echo y > result.txt; echo > cache/index.db", "wrote cache/index.db"),
        ("echo y > result.txt; echo > cache/new", "created cache/new"),
    ] {
        w.workflow(make(run));
        let run_of = refused(&w, says);
        assert!(!run_of.stderr.contains("SIGKILL"), "{}", run_of.stderr);
        assert_eq!(w.read("secret.txt"), "undeclared\n", "{run}");
        assert_eq!(w.read("result.txt"), "x\n", "{run}");
    }
    // a file that is renamed to the output when it is whole
    w.workflow(make("echo z > .result.tmp; cat .result.tmp; mv .result.tmp result.txt"));
    w.run(&["--strict"]).ok().ran(["s"]);
    assert_eq!(w.read("result.txt"), "z\n");
}

#[test]
fn executing_an_undeclared_script_is_refused_by_name() {
    let Some(w) = confined(json!({"run": "./tool.sh > ${outputs.o}", "outputs": {"o": "o"}})) else { return };
    w.script("tool.sh", "#!/bin/sh\necho made\n");
    refused(&w, "executed tool.sh");
    w.workflow(json!({"steps": {"s": {"run": "./tool.sh > ${outputs.o}", "tools": ["./tool.sh"], "outputs": {"o": "o"}}}}));
    w.run(&["--strict"]).ok().ran(["s"]);
    assert_eq!(w.read("o"), "made\n");
    // as a list, it is an input by itself
    w.workflow(json!({"steps": {"s": {"run": ["./tool.sh"], "stdout": "o", "outputs": {"o": "o"}}}}));
    w.run(&["--strict"]).ok().ran(["s"]);
    w.workflow(json!({"steps": {"s": {"run": ["./tool.sh"], "implicit": false, "stdout": "o", "outputs": {"o": "o"}}}}));
    refused(&w, "executed tool.sh");
}

#[test]
fn a_directory_is_declared_with_all_that_is_in_it_and_nothing_beside() {
    let step = |run: &str| json!({"run": run, "inputs": {"d": "data"}, "outputs": {"o": "o"}});
    let Some(w) = confined(step("cat data/*.txt ${inputs.d}/deep/* > ${outputs.o}")) else { return };
    w.write("data/deep/c.txt", "c\n").write("more/d.txt", "d\n");
    w.run(&["--strict"]).ok().ran(["s"]);
    symlink("../secret.txt", w.path("data/link")).unwrap();
    w.workflow(json!({"steps": {"s": step("cat data/link > ${outputs.o}")}}));
    refused(&w, "read secret.txt");
    w.workflow(json!({"steps": {"s": step("ls more > ${outputs.o}")}}));
    refused(&w, "listed more (by ls)");
    w.workflow(json!({"steps": {"s": step("ls . data > ${outputs.o}")}}));
    w.run(&["--strict"]).ok().ran(["s"]);
    // the cache is never an input, whatever it lies in
    w.workflow(json!({"steps": {"s": {"run": "cat cache/index.db > ${outputs.o}", "inputs": {"d": "."}, "outputs": {"o": "o"}}}}));
    refused(&w, "read cache/index.db");
}

#[test]
fn streams_pipelines_a_directory_of_its_own_and_each_node_of_a_matrix() {
    let Some(w) = confined(json!({
        "run": ["tr", "a-z", "A-Z"], "inputs": {"i": "in.txt"}, "stdin": "i", "stdout": "o", "outputs": {"o": "o"}}))
    else {
        return;
    };
    w.run(&["--strict"]).ok().ran(["s"]);
    assert_eq!(w.read("o"), "INPUT\n");
    w.workflow(json!({"steps": {"s": {"run": "cat a.txt | sort | cat - ../secret.txt > ${outputs.o}",
        "cwd": "data", "inputs": {"a": "data/a.txt"}, "outputs": {"o": "o"}}}}));
    refused(&w, "read secret.txt");
    w.workflow(json!({"steps": {"s": {"matrix": {"x": ["a", "b"]}, "run": "cat data/a.txt > ${outputs.o}",
        "inputs": {"f": "data/${matrix.x}.txt"}, "outputs": {"o": "o-${matrix.x}"}}}}));
    w.run(&["--strict", "-k"]).exits(1).ran(["s[x=a]"]).failed(["s[x=b]"]).says("read data/a.txt");
}

#[test]
fn inputs_made_by_other_nodes_entries_of_append_directories_and_links() {
    let Some(w) = confined(json!({"run": "true"})) else { return };
    symlink("data/a.txt", w.path("link.txt")).unwrap();
    w.workflow(json!({"steps": {
        "first": {"run": "echo 1 > ${outputs.o}", "outputs": {"o": "out/first.txt"}},
        "add": {"run": "echo e > ${outputs.o}/entry", "outputs": {"o": {"path": "all/", "append": true}}},
        "last": {"run": "cat ${inputs.f} ${inputs.l} ${inputs.e}/entry > ${outputs.o}",
            "inputs": {"f": "${steps.first.o}", "e": "${steps.add.o}", "l": "link.txt"}, "outputs": {"o": "last"}}}}));
    w.run(&["--strict"]).ok().ran(["first", "add", "last"]);
    assert_eq!(w.read("last"), "1\na\ne\n");
}

/// With a depfile a command may read what it likes in the workspace, and has to name it afterwards.
#[test]
fn a_depfile_is_checked_against_what_was_read() {
    let step = |named: &str| {
        json!({"run": format!("cat in.txt data/a.txt data/b.txt > ${{outputs.o}}; echo 'o: {named}' > dep.d"),
            "inputs": {"i": "in.txt"}, "depfile": "dep.d", "outputs": {"o": "o"}})
    };
    let Some(w) = confined(step("data/a.txt data/b.txt")) else { return };
    w.run(&["--strict"]).ok().ran(["s"]);
    assert_eq!(w.read("o"), "input\na\nb\n");
    w.write("data/b.txt", "c\n");
    w.run(&["--strict"]).ok().ran(["s"]);
    w.workflow(json!({"steps": {"s": step("data/a.txt")}}));
    refused(&w, "read data/b.txt (by cat)").says("its depfile does not name it");
    w.workflow(json!({"steps": {"s": {"run": "echo x > secret.txt; echo 'o:' > dep.d; echo > ${outputs.o}",
        "depfile": "dep.d", "outputs": {"o": "o"}}}}));
    refused(&w, "wrote secret.txt");
    assert_eq!(w.read("secret.txt"), "undeclared\n");
}

#[test]
fn ends_are_told_as_they_were() {
    let step = |run: &str| json!({"steps": {"s": {"run": run, "timeout": "2s", "outputs": {"o": "o"}}}});
    let Some(w) = confined(json!({"run": "true"})) else { return };
    for (run, says) in [
        ("exit 7", "exit status 7"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("sleep 60", "timed out after 2 s"),
        ("trap '' TERM; sleep 60 & sleep 60", "timed out after 2 s"),
    ] {
        w.workflow(step(run));
        w.run(&["--strict"]).exits(1).failed(["s"]).says(says);
    }
    w.workflow(json!({"steps": {"s": {"run": ["no-such-program"], "outputs": {"o": "o"}}}}));
    w.run(&["--strict"]).exits(4).says("program 'no-such-program' not found in PATH");
    // what it leaves behind goes with it; a child that stops and is woken goes on
    w.workflow(step(
        "sleep 60 & (kill -STOP $(sh -c 'echo $PPID'); echo woken > ${outputs.o}) & p=$!; \
                     while ! grep -q '^State:.[tT]' /proc/$p/status; do :; done; kill -CONT $p; wait $p",
    ));
    w.run(&["--strict"]).ok().ran(["s"]);
    assert_eq!(w.read("o"), "woken\n");
    nothing_left(&w, LONG);
}

#[test]
fn threads_and_real_time_signals_are_followed() {
    let code = "import concurrent.futures as c, signal, os\n\
                signal.signal(signal.SIGRTMIN + 3, lambda *_: None); os.kill(os.getpid(), signal.SIGRTMIN + 3)\n\
                print(sum(c.ThreadPoolExecutor(4).map(lambda n: len(open('in.txt').read()), range(50))))\n\
                try: open('secret.txt')\nexcept OSError: pass\n";
    let run = json!({"run": ["python3", "-c", code], "stdout": "o", "inputs": {"i": "in.txt"}, "outputs": {"o": "o"}});
    let Some(w) = confined(run) else { return };
    if std::process::Command::new("python3").arg("-V").output().is_err() {
        return eprintln!("skipped: no python3");
    }
    refused(&w, "read secret.txt").says("exit code 0");
    w.remove("secret.txt");
    w.run(&["--strict"]).ok().ran(["s"]);
    assert_eq!(w.read("o"), "300\n");
}

#[test]
fn nothing_outlives_a_killed_flow() {
    let Some(w) = confined(json!({"run": "sleep 600 & sleep 600", "outputs": {"o": "o"}})) else {
        return;
    };
    let mut child = w.command(&["run", "flow.json", "--strict"]).spawn().unwrap();
    wait_for("the command", LONG, || {
        crate::support::processes_of(&w).iter().filter(|(_, line)| line.contains("sleep 600")).count() >= 2
    });
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_left(&w, LONG);
}

#[test]
fn a_kernel_without_landlock_is_said_and_nothing_runs() {
    let w = Workspace::with(json!({"steps": {"s": {"run": "echo > ${outputs.o}", "outputs": {"o": "o"}}}}));
    let mut command = w.command(&["run", "flow.json", "--strict"]);
    // a filter as a container has it: the calls of Landlock do not exist
    let run = std::thread::spawn(move || {
        let rules = [(nix::libc::SYS_landlock_create_ruleset, Vec::new())].into();
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = seccompiler::SeccompFilter::new(
            rules,
            seccompiler::SeccompAction::Allow,
            seccompiler::SeccompAction::Errno(nix::libc::ENOSYS as u32),
            arch,
        );
        let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
        Run::of(command.output().unwrap())
    });
    run.join().unwrap().exits(4).says("Landlock").says("Linux 5.19");
    assert!(!w.has("o"));
    w.run(&[]).ok().ran(["s"]);
}
