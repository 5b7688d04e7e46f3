//! What a person reads about a fault of a file, an include or the command line, as drawn.

use expect_test::expect;

use super::{Project, says};
use crate::error::Kind;

#[test]
fn duplicate_key() {
    says(
        &Project::body(
            "  \"steps\": {\n    \"a\": {\"run\": [\"true\"]},\n    \"a\": {\"run\": [\"false\"]}\n  }",
        ),
        expect![[r#"
            error: duplicate key 'a'
             --> w.json:5:5
              |
            5 |     "a": {"run": ["false"]}
              |     ^^^
              |
              = help: first declared at w.json:4:5
        "#]],
    );
}

#[test]
fn truncated_json() {
    says(
        &Project::new("w.json", "{\n  \"name\": \"w\",\n  \"steps\": {\n    \"a\": {\"run\": [\"true\"]"),
        expect![[r#"
            error: unterminated object (the file ends too early)
             --> w.json:4:10
              |
            4 |     "a": {"run": ["true"]
              |          ^
              |
              = help: this object is never closed: add the missing '}'
        "#]],
    );
    says(
        &Project::new("w.json", "{\n  \"name\": \"w\",\n  \"steps\": {\"a\": {\"run\": \"tr"),
        expect![[r#"
            error: unterminated string literal (the file ends too early)
             --> w.json:3:26
              |
            3 |   "steps": {"a": {"run": "tr
              |                          ^^^
              |
              = help: text stands between double quotes; a quote or backslash inside is written \" or \\
        "#]],
    );
    says(
        &Project::new("w.json", "{\n  \"name\":"),
        expect![[r#"
            error: expected value after colon in object property (the file ends too early)
             --> w.json:2:9
              |
            2 |   "name":
              |         ^
        "#]],
    );
    says(
        &Project::new("w.json", ""),
        expect![[r#"
            error: w.json: the file holds no JSON value
            help: a workflow is a JSON object: {"name": "...", "steps": {...}}
        "#]],
    );
}

#[test]
fn json_that_is_none() {
    says(
        &Project::new("w.json", "{\n  // no\n  \"name\": \"w\"}"),
        expect![[r#"
            error: comments are not allowed
             --> w.json:2:3
              |
            2 |   // no
              |   ^^^^^
              |
              = help: JSON has no comments; a step has "doc" for a line of explanation
        "#]],
    );
    says(
        &Project::new("w.json", "{\"name\": \"w\",}"),
        expect![[r#"
            error: trailing commas are not allowed
             --> w.json:1:13
              |
            1 | {"name": "w",}
              |             ^
              |
              = help: remove the comma after the last element
        "#]],
    );
    says(
        &Project::new("w.json", "{\"name\": \"a\tb\"}"),
        expect![[r#"
            error: not valid JSON: control character (\u0000-\u001F) found while parsing a string
             --> w.json:1:12
              |
            1 | {"name": "a    b"}
              |            ^^^^
        "#]],
    );
    says(
        &Project::new("w.json", "[1]"),
        expect![[r#"
            error: expected an object, found a list
             --> w.json:1:1
              |
            1 | [1]
              | ^^^
        "#]],
    );
}

#[test]
fn unreadable_files() {
    let mut gone = Project::body("  \"steps\": {}");
    gone.request.file = "gone.json".into();
    says(
        &gone,
        expect![[r#"
            error: failed to read gone.json: No such file or directory
            help: a relative path is relative to the workspace root (-C DIR)
        "#]],
    );
    says(
        &Project::body(r#"  "include": ["parts/gone.json"]"#),
        expect![[r#"
            error: failed to read parts/gone.json: No such file or directory
             --> w.json:3:15
              |
            3 |   "include": ["parts/gone.json"]
              |               ^^^^^^^^^^^^^^^^^
              |
              = help: the path of an include is relative to the including file
        "#]],
    );
    says(
        &Project::body(r#"  "include": ["bad.json"]"#).file("bad.json", b"{\"name\": \"\xff\"}"),
        expect![[r#"
            error: bad.json is not UTF-8 (first bad byte at offset 10)
             --> w.json:3:15
              |
            3 |   "include": ["bad.json"]
              |               ^^^^^^^^^^
        "#]],
    );
}

#[test]
fn include_cycle() {
    says(
        &Project::new("a.json", r#"{"name": "a", "include": ["sub/b.json"]}"#)
            .file("sub/b.json", r#"{"name": "b", "include": [{"file": "../a.json", "as": "again"}]}"#),
        expect![[r#"
            error: include cycle: a.json -> sub/b.json -> a.json
             --> sub/b.json:1:36
              |
            1 | {"name": "b", "include": [{"file": "../a.json", "as": "again"}]}
              |                                    ^^^^^^^^^^^
              |
              = help: remove one of these includes
        "#]],
    );
}

#[test]
fn unknown_profile() {
    let project = Project::body(r#"  "profiles": {"live": {}, "dry": {}}, "steps": {}"#);
    let project = project.profile("lvie");
    assert_eq!(project.load().unwrap_err().kind, Kind::Usage);
    says(
        &project,
        expect![[r#"
            error: --profile lvie: no file of this workflow has it (known: dry, live)
            help: did you mean 'live'?
        "#]],
    );
}

#[test]
fn several_faults_of_several_files_in_file_order() {
    says(
        &Project::body(
            r#"  "include": [{"file": "in.json", "params": {"otu": 1}}],
  "steps": {
    "a": {"run": ["true"], "cache": "alwyas", "inputs": {"x": "${params.nope}"}},
    "b": {"needs": ["c", "in.x", "b"], "uses": "http.fetch"}
  }"#,
        )
        .file(
            "in.json",
            "{\"name\": \"in\", \"params\": {\"out\": 0},\n \"steps\": {\"y\": {\"run\": [\"${inputs.z}\", \"${matrix.m}\", \"${services.s.url}\"]}}}",
        ),
        expect![[r#"
            error: in.json has no param 'otu'
             --> w.json:3:46
              |
            3 |   "include": [{"file": "in.json", "params": {"otu": 1}}],
              |                                              ^^^^^
              |
              = help: known here: out
            error: unknown cache policy 'alwyas'
             --> w.json:5:37
              |
            5 |     "a": {"run": ["true"], "cache": "alwyas", "inputs": {"x": "${params.nope}"}},
              |                                     ^^^^^^^^
              |
              = help: known here: auto, pure, validate, sample, never
            error: unknown param 'nope'
             --> w.json:5:64
              |
            5 |     "a": {"run": ["true"], "cache": "alwyas", "inputs": {"x": "${params.nope}"}},
              |                                                                ^^^^^^^^^^^^^^
              |
              = help: this file declares no params
            error: unknown step 'c'
             --> w.json:6:21
              |
            6 |     "b": {"needs": ["c", "in.x", "b"], "uses": "http.fetch"}
              |                     ^^^
              |
              = help: known here: a, b, in.y
            error: unknown step 'in.x'
             --> w.json:6:26
              |
            6 |     "b": {"needs": ["c", "in.x", "b"], "uses": "http.fetch"}
              |                          ^^^^^^
              |
              = help: did you mean 'in.y'?
            error: a step cannot need itself
             --> w.json:6:34
              |
            6 |     "b": {"needs": ["c", "in.x", "b"], "uses": "http.fetch"}
              |                                  ^^^
            error: stage http.fetch needs the output 'body'
             --> w.json:6:48
              |
            6 |     "b": {"needs": ["c", "in.x", "b"], "uses": "http.fetch"}
              |                                                ^^^^^^^^^^^^
              |
              = help: add it under 'outputs'
            error: unknown input 'z' of this step
             --> in.json:2:27
              |
            2 |  "steps": {"y": {"run": ["${inputs.z}", "${matrix.m}", "${services.s.url}"]}}}
              |                           ^^^^^^^^^^^
              |
              = help: this step declares no inputs
            error: unknown axis 'm'
             --> in.json:2:42
              |
            2 |  "steps": {"y": {"run": ["${inputs.z}", "${matrix.m}", "${services.s.url}"]}}}
              |                                          ^^^^^^^^^^^
              |
              = help: step 'y' has no matrix
            error: unknown service 's'
             --> in.json:2:57
              |
            2 |  "steps": {"y": {"run": ["${inputs.z}", "${matrix.m}", "${services.s.url}"]}}}
              |                                                         ^^^^^^^^^^^^^^^^^
              |
              = help: this file declares no services
        "#]],
    );
}

#[test]
fn faults_of_the_command_line() {
    let base = || {
        Project::body(
            r#"  "params": {"out": "x"}, "include": [{"file": "in.json", "as": "process"}], "steps": {}"#,
        )
        .file("in.json", r#"{"name": "in", "params": {"raw": 0}, "steps": {}}"#)
    };
    let one = base().set("otu=1");
    assert_eq!(one.load().unwrap_err().kind, Kind::Usage);
    says(
        &one,
        expect![[r#"
            error: --set otu=1: unknown param 'otu'
            help: known here: out, process.raw
        "#]],
    );
    says(
        &base().set("raw=1").set("proces.raw=1").set("process.row=1").set("x"),
        expect![[r#"
            error: --set x: expected KEY=VALUE
            help: for a param of an include write --set PREFIX.KEY=VALUE
            error: --set raw=1: unknown param 'raw'
            help: known here: out, process.raw
            error: --set process.row=1: unknown param 'process.row'
            help: did you mean 'process.raw'?
            error: --set proces.raw=1: no include has the prefix 'proces'
            help: did you mean 'process'?
        "#]],
    );
    says(
        &base().params_file("p.json").file("p.json", "{\"out\": 1,\n \"rw\": 2}"),
        expect![[r#"
            error: unknown param 'rw'
             --> p.json:2:2
              |
            2 |  "rw": 2}
              |  ^^^^
              |
              = help: known here: out, process.raw
        "#]],
    );
}

#[test]
fn includes_that_disagree() {
    says(
        &Project::body(
            r#"  "include": ["a.json", {"file": "b.json"}, {"file": "b.json"}, {"file": "a.json", "as": "s"}],
  "steps": {"s": {"run": ["true"]}}"#,
        )
        .file(
            "a.json",
            r#"{"name": "a", "resources": {"pools": {"net": 1}, "devices": "gpu:2"}, "steps": {}}"#,
        )
        .file(
            "b.json",
            r#"{"name": "b", "resources": {"pools": {"net": 2}, "devices": "gpu:8"}, "steps": {}}"#,
        ),
        expect![[r#"
            error: the includes 'a' and 'b' define pool 'net' differently
             --> w.json:3:34
              |
            3 |   "include": ["a.json", {"file": "b.json"}, {"file": "b.json"}, {"file": "a.json", "as": "s"}],
              |                                  ^^^^^^^^
              |
              = help: define it under 'resources' of this file: the root's definition wins
            error: two includes have the prefix 'b'
             --> w.json:3:54
              |
            3 |   "include": ["a.json", {"file": "b.json"}, {"file": "b.json"}, {"file": "a.json", "as": "s"}],
              |                                                      ^^^^^^^^
              |
              = help: the other one is at w.json:3:34; give one of them another with "as"
            error: 's' is the prefix of an include and the id of a step
             --> w.json:3:90
              |
            3 |   "include": ["a.json", {"file": "b.json"}, {"file": "b.json"}, {"file": "a.json", "as": "s"}],
              |                                                                                          ^^^
              |
              = help: give the include another prefix with "as"
        "#]],
    );
}
