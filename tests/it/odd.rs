//! Odd names, links, modes and empty things: made, told, restored and removed like anything else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Run, Workspace, names_in};

/// Names that a file may well have. The fifth and sixth look alike.
fn names() -> Vec<String> {
    let plain = [
        "a b",
        "it's",
        "\"q\"",
        "new\nline",
        "caf\u{e9}",
        "cafe\u{301}",
        "-rf",
        "--",
        "#x",
        "$HOME",
        "~",
        "`id`",
        "a\\b",
        "tab\there",
        "[0-9]",
        "{a,b}",
        "a;b|c&d",
        "(x)",
        "%s",
        "\u{1f600}",
        "...",
        " ",
        "a: b",
        "x.d",
    ];
    let mut names: Vec<String> = plain.map(str::to_owned).into();
    names.push("n".repeat(255));
    names.push("\u{e9}".repeat(127));
    names
}

/// A step for each name: `make` writes a file of that name, `take` reads it.
fn steps(names: &[String]) -> Value {
    let mut steps = serde_json::Map::new();
    for (n, name) in names.iter().enumerate() {
        steps.insert(
            format!("shell{n}"),
            json!({"run": format!("printf %s {n} > ${{outputs.o}}"), "outputs": {"o": format!("out/shell/{}", escaped(name))}}),
        );
        steps.insert(
            format!("argv{n}"),
            json!({"run": ["cat", "--", format!("${{steps.shell{n}.o}}")], "stdout": "o",
                "outputs": {"o": format!("out/argv/{}", escaped(name))}}),
        );
    }
    json!({ "steps": steps })
}

/// `${` is the only thing with a meaning in a declared path.
fn escaped(name: &str) -> String {
    name.replace("${", "$${")
}

#[test]
fn a_file_may_have_any_name_that_is_text() {
    let names = names();
    let w = Workspace::with(steps(&names));
    let run = w.run(&[]).ok();
    assert_eq!(run.with_outcome("ran").len(), 2 * names.len());
    let expected: BTreeMap<String, Vec<u8>> =
        names.iter().enumerate().map(|(n, name)| (name.clone(), n.to_string().into_bytes())).collect();
    assert_eq!((w.tree("out/shell"), w.tree("out/argv")), (expected.clone(), expected.clone()));
    w.run(&[]).ok().all_fresh();
    for (n, name) in names.iter().enumerate() {
        let path = format!("out/shell/{name}");
        let why = w.flow(&["why", "flow.json", "--", &path]).ok().stdout;
        assert!(why.contains(&format!("is output 'o' of shell{n}")), "{why}");
        // a single one lost
        if n % 5 == 0 {
            fs::remove_file(w.path(&path)).unwrap();
            let run = w.run(&[]).ok();
            assert_eq!(run.with_outcome("restored").into_iter().collect::<Vec<_>>(), [format!("shell{n}")]);
            assert_eq!(run.node(&format!("shell{n}"))["reason"], format!("output {path} is missing"));
        }
    }
    let list = w.flow(&["ls", "flow.json"]).ok().stdout;
    assert!(list.contains("out/shell/it's") && list.contains("out/argv/caf\u{e9}"), "{list}");
    let explained = w.flow(&["explain", "flow.json", "argv3"]).ok().stdout;
    assert!(explained.contains("out/shell/new"), "{explained}");
    w.flow(&["clean", "flow.json"]).ok();
    assert!(!w.has("out"), "{:?}", w.tree("out"));
    w.run(&[]).ok().ran::<0>([]);
    assert_eq!((w.tree("out/shell"), w.tree("out/argv")), (expected.clone(), expected));
}

#[test]
fn sources_of_any_name_are_matched_and_named_in_reasons() {
    let names: Vec<String> = names().into_iter().filter(|name| name != " ").collect();
    let w = Workspace::with(json!({"steps": {
        "all": {"run": ["cat", "--", "${inputs.f}"], "stdout": "o", "inputs": {"f": "in/*"}, "outputs": {"o": "all"}},
        "each": {"matrix": {"f": {"glob": "in/*"}}, "run": ["cp", "--", "${inputs.f}", "${outputs.o}"],
            "inputs": {"f": "${matrix.f}"}, "outputs": {"o": "each/${matrix.f.name}"}},
    }}));
    for name in &names {
        w.write(&format!("in/{name}"), name);
    }
    // one that begins with a dot is hidden from patterns, as in a shell
    let shown: Vec<&String> = names.iter().filter(|name| !name.starts_with('.')).collect();
    let run = w.run(&[]).ok();
    assert_eq!(run.with_outcome("ran").len(), shown.len() + 1);
    for name in &shown {
        assert_eq!(&w.read(&format!("each/{name}")), *name);
    }
    for name in ["new\nline", "caf\u{e9}", "[0-9]", "-rf"] {
        w.write(&format!("in/{name}"), "edited");
        let run = w.run(&[]).ok();
        assert_eq!(run.with_outcome("ran").len(), 2);
        assert_eq!(run.node("all")["reason"], format!("input f changed (in/{name})"));
    }
}

/// The target of each link, the permissions of everything else, by path.
fn shape(at: &Path) -> BTreeMap<String, String> {
    fn walk(at: &Path, base: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(base).unwrap().to_str().unwrap().to_owned();
            if meta.is_symlink() {
                out.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
            } else if meta.is_dir() {
                walk(&path, base, out);
                out.insert(name, "dir".to_owned());
            } else {
                let exec = if meta.permissions().mode() & 0o111 != 0 { " x" } else { "" };
                out.insert(name, format!("{} bytes{exec}", meta.len()));
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(at, at, &mut out);
    out
}

const TREE: &str = r#"
cd "$1"
mkdir -p full/deep 'empty dir' full/void
echo x > full/deep/file; : > empty; : > 'full/also empty'
printf '#!/bin/sh\n' > tool; chmod 755 tool; printf x > odd; chmod 4711 odd; printf y > private; chmod 600 private
ln -s full/deep/file inside; ln -s deep full/dir; ln -s nowhere dangling; ln -s /etc/passwd absolute
ln -s ../../../outside escaping; ln -s . full/self; ln -s 'it'\''s "odd"' 'a link'
"#;

#[test]
fn a_directory_output_keeps_links_x_bits_and_empty_things() {
    for run in [
        json!(["sh", "-euc", TREE, "sh", "${outputs.d}"]),
        json!(["sh", "-euc", format!("mkdir -p out/d\n{TREE}"), "sh", "out/d"]),
    ] {
        let w = Workspace::with(json!({"steps": {
            "make": {"run": run, "outputs": {"d": "out/d/"}, "implicit": false},
            "take": {"run": "find ${steps.make.d} | LC_ALL=C sort > ${outputs.l}", "outputs": {"l": "list"}},
            "one": {"run": ["cat", "${inputs.f}"], "stdout": "o", "inputs": {"f": "out/d/full/deep/file"}, "outputs": {"o": "one"}},
        }}));
        w.run(&[]).ok().ran(["make", "take", "one"]);
        let made = shape(&w.path("out/d"));
        assert_eq!(made["inside"], "-> full/deep/file");
        assert_eq!(
            (made["absolute"].as_str(), made["escaping"].as_str()),
            ("-> /etc/passwd", "-> ../../../outside")
        );
        assert_eq!(
            (made["empty dir"].as_str(), made["full/void"].as_str(), made["empty"].as_str()),
            ("dir", "dir", "0 bytes")
        );
        assert_eq!(
            (made["tool"].as_str(), made["odd"].as_str(), made["private"].as_str()),
            ("10 bytes x", "1 bytes x", "1 bytes")
        );
        assert_eq!(made.len(), 17);
        w.run(&[]).ok().all_fresh();
        let list = w.read("list");
        for remove in
            ["out", "out/d/empty dir", "out/d/dangling", "out/d/escaping", "out/d/empty", "out/d/full/void"]
        {
            let path = w.path(remove);
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            }
            .unwrap();
            w.run(&[]).ok().restored(["make"]);
            assert_eq!(shape(&w.path("out/d")), made, "{remove}");
        }
        // nothing was written through a link
        assert!(!w.has("outside") && !w.has("out/outside"));
        // a link led elsewhere, an x-bit lost, a directory filled: each is noticed
        fs::remove_file(w.path("out/d/inside")).unwrap();
        std::os::unix::fs::symlink("tool", w.path("out/d/inside")).unwrap();
        w.run(&[]).ok().restored(["make"]);
        fs::set_permissions(w.path("out/d/tool"), fs::Permissions::from_mode(0o644)).unwrap();
        w.run(&[]).ok().restored(["make"]);
        w.write("out/d/empty dir/more", "").run(&[]).ok().restored(["make"]);
        assert_eq!(shape(&w.path("out/d")), made);
        w.flow(&["clean", "flow.json"]).ok();
        assert!(!w.has("out"));
        w.run(&[]).ok().ran::<0>([]);
        assert_eq!((shape(&w.path("out/d")), w.read("list")), (made, list));
    }
}

#[test]
fn a_link_that_would_lead_elsewhere_once_moved_is_refused() {
    let w = Workspace::with(json!({"steps": {
        "s": {"run": "echo x > ${outputs.d}/a; ln -s ${outputs.d}/a ${outputs.d}/b", "outputs": {"d": "out/"}},
    }}));
    w.run(&[])
        .exits(1)
        .failed(["s"])
        .says("output 'd' (out): the link ")
        .says("by an absolute path")
        .says("ln -sr");
    assert!(!w.has("out"));
}

#[test]
fn empty_outputs_are_outputs() {
    let w = Workspace::with(json!({"steps": {
        "file": {"run": ["true"], "stdout": "o", "outputs": {"o": "empty/file"}},
        "dir": {"run": "mkdir -p empty/dir", "outputs": {"d": "empty/dir/"}},
        "asked": {"run": "ls ${outputs.d}", "outputs": {"d": "empty/asked/"}},
        "take": {"run": "ls -A ${steps.dir.d} ${steps.asked.d} > l; wc -c < ${steps.file.o} >> l", "outputs": {"l": "l"}},
    }}));
    w.run(&[]).ok().ran(["file", "dir", "asked", "take"]);
    w.run(&[]).ok().all_fresh();
    w.remove("empty").run(&[]).ok().restored(["file", "dir", "asked"]);
    assert_eq!(
        shape(&w.path("empty")).into_iter().collect::<Vec<_>>(),
        [
            ("asked".to_owned(), "dir".to_owned()),
            ("dir".to_owned(), "dir".to_owned()),
            ("file".to_owned(), "0 bytes".to_owned()),
        ]
    );
    w.flow(&["clean", "flow.json"]).ok();
    assert!(!w.has("empty"));
}

#[test]
fn outputs_that_may_not_be_written_are_replaced_and_removed() {
    let w = Workspace::with(json!({"params": {"t": "1"}, "steps": {
        "direct": {"run": "mkdir -p d/sub; echo ${params.t} > d/sub/f; chmod 444 d/sub/f; chmod 555 d/sub d", "outputs": {"d": "d/"}},
        "file": {"run": "echo ${params.t} > ${outputs.f}; chmod 400 ${outputs.f}", "outputs": {"f": "f"}},
    }}));
    w.run(&[]).ok().ran(["direct", "file"]);
    w.run(&["--set", "t=2"]).ok().ran(["direct", "file"]);
    assert_eq!((w.read("d/sub/f"), w.read("f")), ("2\n".to_owned(), "2\n".to_owned()));
    w.run(&[]).ok().restored(["direct", "file"]);
    assert_eq!((w.read("d/sub/f"), w.read("f")), ("1\n".to_owned(), "1\n".to_owned()));
    w.flow(&["clean", "flow.json"]).ok();
    assert!(!w.has("d") && !w.has("f"));
}

#[test]
fn a_name_that_is_not_utf8_is_refused_by_name() {
    let odd = std::ffi::OsString::from_vec(b"n\xffm".to_vec());
    let made = r#"printf x > "$(printf 'out/d/n\377m')""#;
    let w = Workspace::with(json!({"steps": {
        "s": {"run": format!("mkdir -p out/d; {made}"), "outputs": {"d": "out/d/"}},
    }}));
    w.run(&[]).exits(1).failed(["s"]).says("output 'd' (out/d)").says("not UTF-8").says("n\u{fffd}m");
    assert!(!w.has("out/d"), "nothing is published");
    // among what a pattern lists, and in a directory input
    let w = Workspace::with(json!({"steps": {
        "s": {"run": ["cat", "${inputs.f}"], "stdout": "o", "inputs": {"f": "in/*"}, "outputs": {"o": "o"}},
    }}));
    w.write("in/a", "a");
    fs::write(w.path("in").join(&odd), "x").unwrap();
    w.run(&[]).exits(4).says("not UTF-8").says("rename it");
    w.workflow(json!({"steps": {"s": {"run": ["ls", "${inputs.f}"], "stdout": "o", "inputs": {"f": "in"}, "outputs": {"o": "o"}}}}));
    w.run(&[]).exits(1).says("not UTF-8").says("n\u{fffd}m");
    // a link to such a name
    fs::remove_file(w.path("in").join(&odd)).unwrap();
    let w = Workspace::with(json!({"steps": {
        "s": {"run": r#"mkdir -p d; ln -s "$(printf 'n\377m')" d/link"#, "outputs": {"d": "d/"}},
    }}));
    w.run(&[]).exits(1).says("not UTF-8");
}

#[test]
fn a_workspace_or_cache_whose_path_is_not_utf8_is_refused_at_the_start() {
    let odd = std::ffi::OsString::from_vec(b"w\xffs".to_vec());
    let w = Workspace::with(json!({"steps": {
        "s": {"run": "echo x > ${outputs.o}; touch ran", "outputs": {"o": "o"}},
    }}));
    fs::create_dir(w.path("").join(&odd)).unwrap();
    fs::copy(w.path("flow.json"), w.path("").join(&odd).join("flow.json")).unwrap();
    for args in [["run", "flow.json"], ["watch", "flow.json"], ["plan", "flow.json"]] {
        let mut command = w.command(&args);
        let run = Run::of(command.current_dir(w.path("").join(&odd)).output().unwrap());
        run.exits(4)
            .says("the path of the workspace is not UTF-8 (")
            .says("w\u{fffd}s")
            .says("help: rename the directory");
    }
    assert_eq!(names_in(&w.path("").join(&odd)), ["flow.json"], "nothing is made");
    let mut command = w.command(&["run", "flow.json", "--cache"]);
    let run = Run::of(command.arg(&odd).output().unwrap());
    run.exits(4).says("the path of the cache is not UTF-8 (").says("--cache DIR");
    assert!(!w.has("ran"));
}

#[test]
fn a_directory_in_the_place_of_a_lock_file_is_named_with_what_to_do() {
    let w = Workspace::with(json!({"steps": {"s": {"run": "echo x > o", "outputs": {"o": "o"}}}}));
    let locks = (0..16).map(|n| format!("cache/locks/{n:x}"));
    for path in locks.clone() {
        fs::create_dir_all(w.path(&path)).unwrap();
    }
    w.run(&[]).says("cache/locks/").says("is only locked: remove it");
    for path in locks {
        w.remove(&path);
    }
    w.remove("cache/gc.lock");
    fs::create_dir(w.path("cache/gc.lock")).unwrap();
    w.run(&[]).exits(4).says("cache/gc.lock").says("is only locked: remove it");
    w.remove("cache/gc.lock");
    w.run(&[]).ok();
}

#[test]
fn a_name_that_is_too_long_is_an_error_that_names_it() {
    let long = "n".repeat(256);
    let w = Workspace::with(json!({"steps": {
        "asked": {"run": "echo x > ${outputs.o}", "outputs": {"o": format!("out/{long}")}},
        "direct": {"run": "true", "outputs": {"o": format!("{long}/x")}},
        "stream": {"run": ["echo", "x"], "stdout": "o", "outputs": {"o": format!("out/s{long}")}},
    }}));
    let run = w.run(&["-k"]).exits(4).failed(["asked", "direct", "stream"]);
    for node in ["direct", "stream"] {
        let error = run.node(node)["error"].as_str().unwrap().to_owned();
        assert!(error.contains("too long") && error.contains("nnnn"), "{error}");
    }
}

#[test]
fn an_output_of_another_step_in_a_shell_text_is_remarked() {
    let text = "use: its command names out/x, which make makes, and does not take it";
    let make = json!({"run": "echo x > out/x", "outputs": {"x": "out/x"}});
    let using = |more: Value| {
        let mut step = json!({"run": "cat out/x > used", "outputs": {"u": "used"}});
        for (key, value) in more.as_object().unwrap() {
            step[key] = value.clone();
        }
        Workspace::with(json!({"steps": {"make": make, "use": step}}))
    };
    let w = using(json!({}));
    w.flow(&["check", "flow.json"]).ok().says(text).says("add it to 'inputs'");
    w.flow(&["plan", "flow.json"]).ok().says(text);
    w.run(&["make"]).ok().says(text);
    for more in [
        json!({"inputs": {"x": "out/x"}}),
        json!({"inputs": {"any": "${steps.make.x}"}}),
        json!({"needs": ["make"]}),
        json!({"run": "echo out/x > used"}),
        json!({"run": "cat out/xy sout/x > used"}),
        json!({"run": ["echo", "--in=out/x"]}),
    ] {
        let check = using(more).flow(&["check", "flow.json"]).ok();
        assert!(!check.stderr.contains("does not take it"), "{}", check.stderr);
    }
}

/// Neither a link that leads nowhere nor a pipe is a file; what a link leads to may come later.
#[test]
fn patterns_match_what_is_there() {
    let w = Workspace::new();
    w.write("in/a", "1");
    w.write("in/b\\c[1]/x", "2");
    std::os::unix::fs::symlink("../later", w.path("in/link")).unwrap();
    nix::unistd::mkfifo(&w.path("in/pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let cat = json!({ "run": "cat ${inputs.all} > ${outputs.out}", "inputs": { "all": "in/*" }, "outputs": { "out": "out/all" } });
    let inner = json!({
        "matrix": { "d": { "glob": "in/*/x" } }, "run": "cat ${inputs.f} > ${outputs.o}",
        "inputs": { "f": "${matrix.d.dir}/*" }, "outputs": { "o": "out/${matrix.d.index}" }
    });
    w.write("flow.json", json!({ "name": "t", "steps": { "all": cat, "inner": inner } }).to_string());
    w.run(&[]).ok();
    assert_eq!((w.read("out/all"), w.read("out/01")), ("1".to_owned(), "2".to_owned()));
    w.run(&[]).all_fresh();
    w.write("later", "3");
    w.run(&[]).ran(["all"]);
    assert_eq!(w.read("out/all"), "13");
}

#[test]
fn an_axis_names_what_is_there_and_stays_where_it_is_put() {
    let w = Workspace::new();
    w.write("in/a", "1");
    w.write("in/deep/b", "2");
    let flow = |files: Value| {
        let step = json!({
            "matrix": { "f": { "glob": files } }, "run": "cat ${inputs.f} > ${outputs.o}",
            "inputs": { "f": "${matrix.f}" }, "outputs": { "o": "out/${matrix.f}.txt" }
        });
        w.write("flow.json", json!({ "name": "t", "steps": { "s": step } }).to_string());
        w.run(&[])
    };
    flow(json!(["in/a", "in/nothing*"])).ok();
    flow(json!(["in/a", "in/b"])).exits(3).says("names in/b, which is not there, and no step makes it");
    w.write("up/x", "3");
    let outside = w.path("up").parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    flow(json!([format!("../{outside}/up/x")])).exits(3).says("leads out of the directory before it");
    assert!(!w.path("up/x.txt").exists());
}
