//! The tree keeps its shape: layers, headers, sizes, names. Knows nothing of what the code does.

#![allow(clippy::unwrap_used)] // also the functions beside the tests are tests

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Each layer imports only itself and layers before it.
const ORDER: [&str; 14] = [
    "base", "model", "error", "event", "api", "front", "graph", "key", "store", "exec", "stage", "engine",
    "observe", "cli",
];

/// Imports that the order alone would allow: who, whom, why not.
const FORBIDDEN: [(&str, &str, &str); 3] = [
    ("stage", "store", "a stage sees inputs, outputs and parameters, never the store"),
    ("stage", "exec", "a stage does not know how it is run"),
    ("engine", "stage", "the engine sees stages only through the catalog that cli hands in"),
];

const LONGEST: usize = 800;
const MAIN_LONGEST: usize = 15;
const NAMELESS: [&str; 6] = ["utils", "util", "helpers", "helper", "common", "misc"];

struct Source {
    /// Relative to `src`, e.g. `engine/plan.rs`.
    path: PathBuf,
    text: String,
    /// Declared under `#[cfg(test)]`, or below a module that is.
    test: bool,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(&root).unwrap().to_owned(), text, test: false });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "the tree was found");
    let tests: Vec<PathBuf> = found.iter().flat_map(|s| test_modules(&s.path, &s.text)).collect();
    for source in &mut found {
        let module = source.path.with_extension("");
        source.test = tests.iter().any(|test| module.starts_with(test));
    }
    found
}

/// The text before a trailing `#[cfg(test)] mod`.
fn without_tests(text: &str) -> &str {
    let tests =
        Regex::new(r"(?m)^#\[cfg\(test\)\]\n(?:#\[[^\n]*\n)*(?:pub(?:\([a-z: ]+\))? )?mod \w+ \{").unwrap();
    tests.find(text).map_or(text, |found| &text[..found.start()])
}

/// The modules in files of their own that `file` declares for tests only, relative to `src` and without `.rs`.
fn test_modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let declared =
        Regex::new(r"(?m)^#\[cfg\(test\)\]\n(?:#\[[^\n]*\n)*(?:pub(?:\([a-z: ]+\))? )?mod (\w+);").unwrap();
    let dir = match file.file_name().unwrap().to_str().unwrap() {
        "mod.rs" | "lib.rs" | "main.rs" => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    declared.captures_iter(text).map(|found| dir.join(&found[1])).collect()
}

/// The text without comments, so that a doc link is no import.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| match line.trim_start() {
        trimmed if trimmed.starts_with("//") => "",
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The layer of a file, `None` for `lib.rs` and `main.rs`.
fn layer(path: &Path) -> Option<String> {
    let first = path.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// How many modules below the crate root a file's module is: `event.rs` 1, `key/mod.rs` 1, `key/reason.rs` 2.
fn depth(path: &Path) -> usize {
    let parts = path.components().count();
    if path.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// The first names of every path that starts at the crate root: `crate::X`, `crate::{X::.., Y}`, `super::super::X`.
fn imports(text: &str, depth: usize) -> BTreeSet<String> {
    let supers = "super::".repeat(depth);
    let start = Regex::new(&format!(r"(?:^|[^\w:$])(?:crate::|{supers})(\w+|\{{)")).unwrap();
    let mut names = BTreeSet::new();
    for found in start.captures_iter(text) {
        match &found[1] {
            "{" => names.extend(group(&text[found.get(1).unwrap().end()..])),
            "super" => {}
            name => {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// The first name of each member of a `use` group, whose text begins after the opening brace.
fn group(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut level = 0;
    let mut member = String::new();
    for c in text.chars() {
        match c {
            '{' => level += 1,
            '}' if level == 0 => break,
            '}' => level -= 1,
            ',' if level == 0 => names.push(std::mem::take(&mut member)),
            _ if level == 0 => member.push(c),
            _ => {}
        }
    }
    names.push(member);
    let first = |member: &String| member.trim().split([':', ' ']).next().unwrap_or_default().to_owned();
    names.iter().map(first).filter(|name| !name.is_empty()).collect()
}

fn check(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn a_layer_imports_only_layers_before_it() {
    let place = |name: &str| ORDER.iter().position(|layer| *layer == name);
    let mut faults = Vec::new();
    for source in sources().into_iter().filter(|source| !source.test) {
        let Some(own) = layer(&source.path) else { continue };
        let Some(own_place) = place(&own) else {
            faults.push(format!("src/{}: '{own}' is no layer", source.path.display()));
            continue;
        };
        for name in imports(&without_comments(without_tests(&source.text)), depth(&source.path)) {
            // `crate::Error` and `crate::Result` are the root's names for the layer `error`.
            let name = if matches!(name.as_str(), "Error" | "Result") { "error" } else { &name };
            match place(name) {
                None => faults.push(format!("src/{}: crate::{name} is no layer", source.path.display())),
                Some(other) if other > own_place => {
                    faults
                        .push(format!("src/{}: {own} imports {name}, a later layer", source.path.display()));
                }
                Some(_) => {}
            }
            for (who, whom, why) in FORBIDDEN {
                if own == who && name == whom {
                    faults.push(format!("src/{}: {who} imports {whom}: {why}", source.path.display()));
                }
            }
        }
    }
    check(faults);
}

#[test]
fn every_file_says_its_job_in_its_first_line() {
    let without = |source: &&Source| !source.text.starts_with("//! ");
    let sources = sources();
    check(
        sources.iter().filter(without).map(|s| format!("src/{}: no //! header", s.path.display())).collect(),
    );
}

#[test]
fn no_file_is_too_long() {
    let mut faults = Vec::new();
    for source in sources().into_iter().filter(|source| !source.test) {
        let lines = without_tests(&source.text).lines().count();
        let most = if source.path == Path::new("main.rs") { MAIN_LONGEST } else { LONGEST };
        if lines > most {
            faults
                .push(format!("src/{}: {lines} lines without tests, at most {most}", source.path.display()));
        }
    }
    check(faults);
}

#[test]
fn no_module_is_named_after_nothing() {
    let mut faults = Vec::new();
    for source in sources() {
        for part in source.path.components() {
            let part = part.as_os_str().to_str().unwrap();
            if NAMELESS.contains(&part.strip_suffix(".rs").unwrap_or(part)) {
                faults.push(format!("src/{}: a name that says nothing", source.path.display()));
            }
        }
    }
    check(faults);
}

#[test]
fn the_rules_see_what_they_should() {
    let names = |text: &str, depth: usize| imports(text, depth).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(names("use crate::{store::A, key::{B, c::D}, Error};", 2), "Error key store");
    assert_eq!(
        names("use crate::engine::Plan;\nlet x = crate::graph::of(crate::model::M);", 1),
        "engine graph model"
    );
    assert_eq!(names("use super::super::store::A;\nuse super::sibling::B;", 2), "store");
    assert_eq!(names("use super::store::A;", 1), "store");
    assert_eq!(names("use super::super::inner::A;", 3), "");
    assert_eq!(names("my_crate::x(); other::crate_::y; $crate::z!()", 2), "");
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nuse crate::cli::X;\n}\n"), "a\n");
    assert_eq!(without_tests("#[cfg(test)]\nmod harness;\nb\n"), "#[cfg(test)]\nmod harness;\nb\n");
    let test_modules = |file: &str| {
        let text = "mod a;\n#[cfg(test)]\nmod b;\n#[cfg(test)]\n#[allow(x)]\npub(crate) mod c;\n#[cfg(test)]\nmod d {}\n";
        test_modules(Path::new(file), text).iter().map(|m| m.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(test_modules("front/mod.rs"), ["front/b", "front/c"]);
    assert_eq!(test_modules("front/load.rs"), ["front/load/b", "front/load/c"]);
    assert_eq!(without_comments("/// [`crate::cli`]\nx"), "\nx");
    assert_eq!(
        (depth(Path::new("event.rs")), depth(Path::new("key/mod.rs")), depth(Path::new("key/a.rs"))),
        (1, 1, 2)
    );
}
