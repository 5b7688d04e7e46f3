//! Text that needs no shell comes to the same as with one.

use serde_json::json;

use crate::support::{Run, Workspace};

/// One step with `text`, by the default shell or by one that is always started.
fn run(text: &str, shell: Option<&str>) -> (Workspace, Run) {
    let mut step =
        json!({"run": text, "inputs": {"i": "in"}, "outputs": {"o": {"path": "out/o", "optional": true}}});
    if let Some(shell) = shell {
        step["shell"] = json!([shell, "-euc"]);
    }
    let w = Workspace::with(json!({"steps": {"a": step}}));
    w.write("in", "one\ntwo\n").write("data", "no program").write("dir/x", "");
    w.script("tool", "#!/bin/sh\nprintf '%s|' \"$0\" \"$@\"; echo \"$PWD\" | sed 's:.*/::' | wc -l");
    w.script("env", "#!/bin/sh\nenv | cut -d= -f1 | grep -v -e ^_ -e SHLVL -e OLDPWD | sort");
    std::fs::write(w.path("headless"), "echo no first line\n").unwrap();
    std::fs::set_permissions(w.path("headless"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let run = w.run(&[]);
    (w, run)
}

#[test]
fn outcome_files_and_message_are_the_same() {
    for text in [
        "head -n 1 in > out/o",
        "head -n 1 in >out/o",
        "./tool a b=c --d=1,2 @x %y +z > out/o",
        "./env > out/o",
        "head -n 1 in",
        "head -n 1 none > out/o",
        "head -n 1 in > none/o",
        "head -n 1 in > dir",
        "nosuchprogram in > out/o",
        "./none > out/o",
        "./data > out/o",
        "./dir > out/o",
        "./headless > out/o",
        "ls in out/ > out/o",
    ] {
        let (by_default, one) = run(text, None);
        let (by_shell, two) = run(text, Some("/bin/sh"));
        assert_eq!(one.code, two.code, "{text}: {}\n{}", one.stderr, two.stderr);
        assert_eq!(by_default.tree("out"), by_shell.tree("out"), "{text}");
        let said = |run: &Run| {
            let lines = run.stderr.lines().filter(|line| line.contains("sh: ") || line.contains("exit code"));
            lines.map(|line| line.replace("/bin/sh: ", "sh: ")).collect::<Vec<_>>()
        };
        assert_eq!(said(&one), said(&two), "{text}");
    }
}

#[test]
fn what_is_no_plain_file_is_opened_by_the_command() {
    // each of these means something else to flow than to a command, or would make it wait
    for text in ["ls in > /dev/stderr", "ls in > /dev/stdout", "ls in > /dev/fd/8", "ls in > link/8"] {
        let w = Workspace::with(
            json!({"steps": {"a": {"run": text, "inputs": {"i": "in"}, "allow_failure": true}}}),
        );
        w.write("in", "x");
        std::os::unix::fs::symlink("/dev/fd", w.path("link")).unwrap();
        let run = w.flow(&["run", "flow.json", "-q"]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{text}: {}", run.stderr);
        w.flow(&["cache", "verify"]).ok();
        if text.contains("std") {
            assert!(w.flow(&["log", "output", "a"]).ok().stdout.contains("in"), "{text}");
        }
    }
    let w = Workspace::with(json!({"steps": {"a": {"run": "ls / > pipe", "timeout": "500ms"}}}));
    assert!(std::process::Command::new("mkfifo").arg(w.path("pipe")).status().unwrap().success());
    w.run(&[]).exits(1).says("timed out");
}

#[test]
fn a_script_is_told_no_absolute_path() {
    let w = Workspace::with(json!({"steps": {
        "given": {"run": "./t > out/given", "outputs": {"o": "out/given"}},
        "list": {"run": ["./t"], "stdout": "o", "outputs": {"o": "out/list"}},
        "found": {"run": "t > out/found", "env": {"PATH": "bin:/usr/bin:/bin"}, "outputs": {"o": "out/found"}}
    }}));
    w.script("t", "#!/bin/sh\necho $0\n").script("bin/t", "#!/bin/sh\necho $0\n");
    w.run(&[]).ok();
    assert_eq!(
        ["given", "list", "found"].map(|name| w.read(&format!("out/{name}"))),
        ["./t\n", "./t\n", "bin/t\n"]
    );
}

#[test]
fn no_shell_is_started() {
    let w = Workspace::with(json!({"steps": {
        "plain": {"run": "./parent > out/plain", "outputs": {"o": "out/plain"}},
        "shell": {"run": "./parent > out/shell; :", "outputs": {"o": "out/shell"}}
    }}));
    w.script("parent", "#!/bin/sh\ncat /proc/$PPID/comm");
    w.run(&[]).ok().ran(["plain", "shell"]);
    assert_eq!((w.read("out/plain").trim(), w.read("out/shell").trim()), ("flow", "sh"));
}
