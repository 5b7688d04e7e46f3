//! What flow says when something is wrong: each message names the place, shows the line and says what to do.

use expect_test::{Expect, expect};
use regex::Regex;

use crate::support::{Run, Workspace};

/// The message of a call, without what differs from machine to machine.
fn message(w: &Workspace, run: &Run) -> String {
    let root = w.root().canonicalize().unwrap();
    let mut text = run.stderr.replace(&root.display().to_string(), "ROOT");
    text = text.replace(&w.root().display().to_string(), "ROOT");
    text = text.replace(&std::env::var("PATH").unwrap_or_default(), "PATH");
    for (changing, fixed) in [(r"\d{8}-\d{6}-[0-9a-f]{4}", "RUN"), (r"  \d+\.\d\ds", "  0.00s")] {
        text = Regex::new(changing).unwrap().replace_all(&text, fixed).into_owned();
    }
    format!("exit {}\n{text}", run.code.unwrap())
}

#[track_caller]
fn says(w: &Workspace, args: &[&str], expected: Expect) {
    let run = w.flow(args);
    assert_eq!(run.stdout, "", "nothing on standard output");
    expected.assert_eq(&message(w, &run));
}

/// `flow check` of a file with this text.
#[track_caller]
fn check(text: &str, expected: Expect) {
    let w = Workspace::new();
    w.write("flow.json", text);
    says(&w, &["check", "flow.json"], expected);
}

/// `flow run` of a file with this text.
#[track_caller]
fn run(text: &str, expected: Expect) {
    let w = Workspace::new();
    w.write("flow.json", text);
    says(&w, &["run", "flow.json", "-q"], expected);
}

#[test]
fn unknown_key() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true", "ouputs": {"o": "o"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: unknown key 'ouputs' of a step
             --> flow.json:4:26
              |
            4 |     "a": {"run": "true", "ouputs": {"o": "o"}}
              |                          ^^^^^^^^
              |
              = help: did you mean 'outputs'?

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn unknown_step_in_a_reference() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "fetch": {"run": "echo > ${outputs.body}", "outputs": {"body": "b"}},
    "merge": {"run": "cat ${inputs.in} > ${outputs.o}", "inputs": {"in": "${steps.fecth.body}"}, "outputs": {"o": "o"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: unknown step 'fecth'
             --> flow.json:5:75
              |
            5 |     "merge": {"run": "cat ${inputs.in} > ${outputs.o}", "inputs": {"in": "${steps.fecth.body}"}, "outputs": {"o": "o"}}
              |                                                                           ^^^^^^^^^^^^^^^^^^^
              |
              = help: did you mean 'fetch'?

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn unknown_output_in_a_reference() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "fetch": {"run": "echo > ${outputs.body}", "outputs": {"body": "b"}},
    "merge": {"run": ["cat", "${steps.fetch.boddy}"], "stdout": "o", "outputs": {"o": "o"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: step 'fetch' has no output 'boddy'
             --> flow.json:5:31
              |
            5 |     "merge": {"run": ["cat", "${steps.fetch.boddy}"], "stdout": "o", "outputs": {"o": "o"}}
              |                               ^^^^^^^^^^^^^^^^^^^^
              |
              = help: did you mean 'body'?

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn unknown_param_and_axis_in_a_reference() {
    check(
        r#"{
  "name": "x",
  "params": {"models": ["m"]},
  "steps": {
    "a": {
      "matrix": {"model": "${params.modles}"},
      "run": "echo ${matrix.mode} > ${outputs.o}",
      "outputs": {"o": "o/${matrix.model}"}
    }
  }
}"#,
        expect![[r#"
            exit 3
            error: unknown param 'modles'
             --> flow.json:6:28
              |
            6 |       "matrix": {"model": "${params.modles}"},
              |                            ^^^^^^^^^^^^^^^^
              |
              = help: did you mean 'models'?

            error: unknown axis 'mode'
             --> flow.json:7:20
              |
            7 |       "run": "echo ${matrix.mode} > ${outputs.o}",
              |                    ^^^^^^^^^^^^^^
              |
              = help: did you mean 'model'?

            error: the workflow has 2 faults
        "#]],
    );
}

#[test]
fn unknown_fixed_value_of_an_axis() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"matrix": {"kind": ["e2e", "inter"]}, "run": "echo > ${outputs.o}", "outputs": {"o": "o/${matrix.kind}"}},
    "b": {"run": ["cat", "${steps.a[kind=e2].o}"], "stdout": "o", "outputs": {"o": "b"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: step 'a' has no node with kind=e2
             --> flow.json:5:27
              |
            5 |     "b": {"run": ["cat", "${steps.a[kind=e2].o}"], "stdout": "o", "outputs": {"o": "b"}}
              |                           ^^^^^^^^^^^^^^^^^^^^^
              |
              = help: axes of the same name are joined: both steps need the same values

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn cycle_through_references() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": ["cat", "${steps.c.o}"], "stdout": "o", "outputs": {"o": "a"}},
    "b": {"run": ["cat", "${steps.a.o}"], "stdout": "o", "outputs": {"o": "b"}},
    "c": {"run": ["cat", "${steps.b.o}"], "stdout": "o", "outputs": {"o": "c"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: steps need each other: a -> c -> b -> a
             --> flow.json:4:5
              |
            4 |     "a": {"run": ["cat", "${steps.c.o}"], "stdout": "o", "outputs": {"o": "a"}},
              |     ^^^
              |
              = help: an arrow leads from a step to one that it refers to or names in needs, or whose outputs its glob matches

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn cycle_through_needs_and_plain_paths() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "cp b a", "inputs": {"b": "b"}, "outputs": {"o": "a"}},
    "b": {"run": "echo > b", "needs": ["a"], "outputs": {"o": "b"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: nodes need each other: a -> b -> a
             --> flow.json:4:5
              |
            4 |     "a": {"run": "cp b a", "inputs": {"b": "b"}, "outputs": {"o": "a"}},
              |     ^^^
              |
              = help: an arrow leads from a node to one whose output it takes, or that it names in needs

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn cycle_through_needs_only() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true", "needs": ["b"]},
    "b": {"run": "true", "needs": ["a"]}
  }
}"#,
        expect![[r#"
            exit 3
            error: steps need each other: a -> b -> a
             --> flow.json:4:5
              |
            4 |     "a": {"run": "true", "needs": ["b"]},
              |     ^^^
              |
              = help: an arrow leads from a step to one that it refers to or names in needs, or whose outputs its glob matches

            error: the workflow has a fault
        "#]],
    );
    check(
        r#"{
  "name": "x",
  "steps": {
    "c": {"run": "true", "needs": ["c"]}
  }
}"#,
        expect![[r#"
            exit 3
            error: a step cannot need itself
             --> flow.json:4:36
              |
            4 |     "c": {"run": "true", "needs": ["c"]}
              |                                    ^^^

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn duplicate_output() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "echo > o", "outputs": {"o": "out/o"}},
    "b": {"run": "echo > o", "outputs": {"p": "out/./o"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: two nodes make out/o: output 'o' of a and output 'p' of b
             --> flow.json:5:47
              |
            5 |     "b": {"run": "echo > o", "outputs": {"p": "out/./o"}}
              |                                               ^^^^^^^^^
              |
              = help: give each its own path (put ${matrix.AXIS} into it), or declare both with append

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn duplicate_output_of_one_step() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"matrix": {"m": [1, 2]}, "run": "echo > o", "outputs": {"o": "out/o"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: two nodes make out/o: output 'o' of a[m=1] and output 'o' of a[m=2]
             --> flow.json:4:72
              |
            4 |     "a": {"matrix": {"m": [1, 2]}, "run": "echo > o", "outputs": {"o": "out/o"}}
              |                                                                        ^^^^^^^
              |
              = help: give each its own path (put ${matrix.AXIS} into it), or declare both with append

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn nested_output() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "mkdir -p out", "outputs": {"dir": "out/"}},
    "b": {"run": "echo > out/o", "outputs": {"o": "out/o"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: out/o (output 'o' of b) lies inside out (output 'dir' of a)
             --> flow.json:5:51
              |
            5 |     "b": {"run": "echo > out/o", "outputs": {"o": "out/o"}}
              |                                                   ^^^^^^^
              |
              = help: one output cannot lie inside another

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn wrong_type() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true", "timeout": 90, "needs": "b", "resources": {"cpu": "two"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: expected a duration, found a number
             --> flow.json:4:37
              |
            4 |     "a": {"run": "true", "timeout": 90, "needs": "b", "resources": {"cpu": "two"}}
              |                                     ^^
              |
              = help: write a number and a unit: "200ms", "90s", "5m", "2h", "1d"

            error: expected a list, found text
             --> flow.json:4:50
              |
            4 |     "a": {"run": "true", "timeout": 90, "needs": "b", "resources": {"cpu": "two"}}
              |                                                  ^^^

            error: expected a whole number, found text
             --> flow.json:4:76
              |
            4 |     "a": {"run": "true", "timeout": 90, "needs": "b", "resources": {"cpu": "two"}}
              |                                                                            ^^^^^

            error: the workflow has 3 faults
        "#]],
    );
}

#[test]
fn directory_as_file() {
    let w = Workspace::new();
    w.write("flows/x.json", "");
    says(
        &w,
        &["run", "flows"],
        expect![[r#"
            exit 3
            error: failed to read flows: Is a directory
            help: did you mean flows/x.json?

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn missing_file() {
    let w = Workspace::new();
    w.write("workflow.json", "{}");
    says(
        &w,
        &["run", "other/flow.json"],
        expect![[r#"
        exit 3
        error: failed to read other/flow.json: No such file or directory
        help: a relative path is relative to the workspace root (-C DIR)

        error: the workflow has a fault
    "#]],
    );
    says(
        &w,
        &["run", "workflows.json"],
        expect![[r#"
            exit 3
            error: failed to read workflows.json: No such file or directory
            help: did you mean workflow.json?

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn missing_include() {
    let w = Workspace::new();
    w.write("flow.json", "{\n  \"name\": \"x\",\n  \"include\": [\"parts/one.json\"],\n  \"steps\": {}\n}");
    says(
        &w,
        &["run", "flow.json"],
        expect![[r#"
            exit 3
            error: failed to read parts/one.json: No such file or directory
             --> flow.json:3:15
              |
            3 |   "include": ["parts/one.json"],
              |               ^^^^^^^^^^^^^^^^
              |
              = help: the path of an include is relative to the including file

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn truncated_json() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true", "outputs": {"o": "o"
"#,
        expect![[r#"
            exit 3
            error: unterminated object (the file ends too early)
             --> flow.json:4:37
              |
            4 |     "a": {"run": "true", "outputs": {"o": "o"
              |                                     ^
              |
              = help: this object is never closed: add the missing '}'

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn missing_comma() {
    check(
        r#"{
  "name": "x"
  "steps": {}
}"#,
        expect![[r#"
            exit 3
            error: expected comma
             --> flow.json:2:14
              |
            2 |     "name": "x"
              |  ______________^
            3 | |   "steps": {}
              | |_^
              |
              = help: a comma is missing between two elements

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn empty_file_and_other_text() {
    check(
        "",
        expect![[r#"
            exit 3
            error: flow.json: the file holds no JSON value
            help: a workflow is a JSON object: {"name": "...", "steps": {...}}

            error: the workflow has a fault
        "#]],
    );
    check(
        "[1, 2]\n",
        expect![[r#"
            exit 3
            error: expected an object, found a list
             --> flow.json:1:1
              |
            1 | [1, 2]
              | ^^^^^^

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn duplicate_key() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true"},
    "a": {"run": "false"}
  }
}"#,
        expect![[r#"
            exit 3
            error: duplicate key 'a'
             --> flow.json:5:5
              |
            5 |     "a": {"run": "false"}
              |     ^^^
              |
              = help: first declared at flow.json:4:5

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn late_reference_in_matrix() {
    check(
        r#"{
  "name": "x",
  "services": {"web": {"uses": "sim.http", "with": {"dir": "d"}}},
  "steps": {
    "a": {"matrix": {"url": ["${services.web.url}"]}, "run": "true", "outputs": {"o": "out/${services.web.port}"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: a late reference: ${services.web.url} is not known yet in 'matrix'
             --> flow.json:5:31
              |
            5 |     "a": {"matrix": {"url": ["${services.web.url}"]}, "run": "true", "outputs": {"o": "out/${services.web.port}"}}
              |                               ^^^^^^^^^^^^^^^^^^^
              |
              = help: it is known only while the node runs; 'with', 'run' and 'env' may hold it

            error: a late reference: ${services.web.port} is not known yet in 'outputs'
             --> flow.json:5:92
              |
            5 |     "a": {"matrix": {"url": ["${services.web.url}"]}, "run": "true", "outputs": {"o": "out/${services.web.port}"}}
              |                                                                                            ^^^^^^^^^^^^^^^^^^^^
              |
              = help: it is known only while the node runs; 'with', 'run' and 'env' may hold it

            error: the workflow has 2 faults
        "#]],
    );
}

#[test]
fn file_for_an_output_of_a_stage_that_is_a_directory() {
    check(
        r#"{
  "name": "x",
  "params": {"out": "out/run"},
  "steps": {
    "a": {
      "uses": "evalscope.export",
      "inputs": {"requests": "r.sqlite", "summary": "s.json"},
      "outputs": {"run": "${params.out}"}
    },
    "b": {"uses": "archive.version", "inputs": {"f": "r.csv"}, "outputs": {"versions": "out/versions"}},
    "c": {"uses": "archive.version", "inputs": {"f": "r.csv"}, "outputs": {"versions": "out/v/"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: output 'run' of evalscope.export is a directory: "out/run" in a
             --> flow.json:8:26
              |
            8 |       "outputs": {"run": "${params.out}"}
              |                          ^^^^^^^^^^^^^^^
              |
              = help: let the path end with a slash: "out/run/"

            error: output 'versions' of archive.version is a directory: "out/versions" in b
              --> flow.json:10:88
               |
            10 |     "b": {"uses": "archive.version", "inputs": {"f": "r.csv"}, "outputs": {"versions": "out/versions"}},
               |                                                                                        ^^^^^^^^^^^^^^
               |
               = help: let the path end with a slash: "out/versions/"

            error: the workflow has 2 faults
        "#]],
    );
}

#[test]
fn list_for_a_one_file_input_of_a_stage() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"matrix": {"m": [1, 2]}, "run": "echo > ${outputs.o}", "outputs": {"o": "a/${matrix.m}.csv"}},
    "join": {
      "uses": "csv.join",
      "inputs": {"left": "${steps.a.o}", "right": "r.csv"},
      "with": {"on": ["k"]},
      "outputs": {"csv": "j.csv"}
    }
  }
}"#,
        expect![[r#"
            exit 3
            error: input 'left' of csv.join takes one file, and is given a list of 2 in join
             --> flow.json:7:26
              |
            7 |       "inputs": {"left": "${steps.a.o}", "right": "r.csv"},
              |                          ^^^^^^^^^^^^^^
              |
              = help: fix the gathered axes as in ${steps.ID[axis=value].OUTPUT}, or give this step the same axes

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn stage_inputs_and_outputs() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "cut": {"uses": "csv.jion", "outputs": {"csv": "c"}},
    "other": {"uses": "csv.join", "inputs": {"lft": "l.csv"}, "with": {"on": ["k"]}, "outputs": {"csvs": "x.csv"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: unknown stage 'csv.jion'
             --> flow.json:4:21
              |
            4 |     "cut": {"uses": "csv.jion", "outputs": {"csv": "c"}},
              |                     ^^^^^^^^^^
              |
              = help: did you mean 'csv.join'?

            error: stage csv.join needs the input 'left'
             --> flow.json:5:23
              |
            5 |     "other": {"uses": "csv.join", "inputs": {"lft": "l.csv"}, "with": {"on": ["k"]}, "outputs": {"csvs": "x.csv"}}
              |                       ^^^^^^^^^^
              |
              = help: add it under 'inputs'

            error: stage csv.join needs the input 'right'
             --> flow.json:5:23
              |
            5 |     "other": {"uses": "csv.join", "inputs": {"lft": "l.csv"}, "with": {"on": ["k"]}, "outputs": {"csvs": "x.csv"}}
              |                       ^^^^^^^^^^
              |
              = help: add it under 'inputs'

            error: stage csv.join needs the output 'csv'
             --> flow.json:5:23
              |
            5 |     "other": {"uses": "csv.join", "inputs": {"lft": "l.csv"}, "with": {"on": ["k"]}, "outputs": {"csvs": "x.csv"}}
              |                       ^^^^^^^^^^
              |
              = help: add it under 'outputs'

            error: stage csv.join has no input 'lft'
             --> flow.json:5:46
              |
            5 |     "other": {"uses": "csv.join", "inputs": {"lft": "l.csv"}, "with": {"on": ["k"]}, "outputs": {"csvs": "x.csv"}}
              |                                              ^^^^^
              |
              = help: did you mean 'left'?

            error: stage csv.join has no output 'csvs'
             --> flow.json:5:98
              |
            5 |     "other": {"uses": "csv.join", "inputs": {"lft": "l.csv"}, "with": {"on": ["k"]}, "outputs": {"csvs": "x.csv"}}
              |                                                                                                  ^^^^^^
              |
              = help: did you mean 'csv'?

            error: the workflow has 6 faults
        "#]],
    );
}

#[test]
fn stage_parameters() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "join": {
      "uses": "csv.join",
      "inputs": {"left": "l.csv", "right": "r.csv"},
      "with": {"on": ["k"], "on_duplicates": "cross"},
      "outputs": {"csv": "j.csv"}
    },
    "columns": {
      "uses": "csv.join",
      "inputs": {"left": "l.csv", "right": "r.csv"},
      "with": {"on": ["k"], "columns": 3},
      "outputs": {"csv": "k.csv"}
    },
    "choice": {
      "uses": "csv.join",
      "inputs": {"left": "l.csv", "right": "r.csv"},
      "with": {"on": ["k"], "on_duplicate": "cros"},
      "outputs": {"csv": "l.csv"}
    },
    "get": {"uses": "http.fetch", "outputs": {"body": "b"}},
    "headers": {"uses": "http.fetch", "with": {"url": "http://x/", "headers": {"A": 1}}, "outputs": {"body": "h"}}
  },
  "services": {"web": {"uses": "sim.http", "with": {"dirr": "d"}}}
}"#,
        expect![[r#"
            exit 3
            error: csv.join has no parameter 'on_duplicates'
             --> flow.json:7:29
              |
            7 |       "with": {"on": ["k"], "on_duplicates": "cross"},
              |                             ^^^^^^^^^^^^^^^
              |
              = help: did you mean 'on_duplicate'?

            error: parameter 'columns' of csv.join: expected a list, found a number
              --> flow.json:13:40
               |
            13 |       "with": {"on": ["k"], "columns": 3},
               |                                        ^
               |
               = help: see: flow stages csv.join

            error: parameter 'on_duplicate' of csv.join: 'cros' is no choice
              --> flow.json:19:45
               |
            19 |       "with": {"on": ["k"], "on_duplicate": "cros"},
               |                                             ^^^^^^
               |
               = help: did you mean 'cross'?

            error: http.fetch needs 'url'
              --> flow.json:22:21
               |
            22 |     "get": {"uses": "http.fetch", "outputs": {"body": "b"}},
               |                     ^^^^^^^^^^^^
               |
               = help: add "url" under 'with'; see: flow stages http.fetch

            error: parameter 'headers.A' of http.fetch: expected text, found a number
              --> flow.json:23:85
               |
            23 |     "headers": {"uses": "http.fetch", "with": {"url": "http://x/", "headers": {"A": 1}}, "outputs": {"body": "h"}}
               |                                                                                     ^
               |
               = help: see: flow stages http.fetch

            error: sim.http has no parameter 'dirr'
              --> flow.json:25:53
               |
            25 |   "services": {"web": {"uses": "sim.http", "with": {"dirr": "d"}}}
               |                                                     ^^^^^^
               |
               = help: did you mean 'dir'?

            error: the workflow has 6 faults
        "#]],
    );
}

#[test]
fn unknown_profile_and_param() {
    let w = Workspace::new();
    w.write(
        "flow.json",
        r#"{"name": "x", "params": {"models": [1]}, "profiles": {"live": {}}, "steps": {"a": {"run": "echo ${params.models}"}}}"#,
    );
    says(
        &w,
        &["check", "flow.json", "--profile", "life"],
        expect![[r#"
            exit 2
            error: --profile life: no file of this workflow has it (known: live)
            help: did you mean 'live'?
        "#]],
    );
    says(
        &w,
        &["check", "flow.json", "--set", "model=1"],
        expect![[r#"
            exit 2
            error: --set model=1: unknown param 'model'
            help: did you mean 'models'?
        "#]],
    );
    says(
        &w,
        &["check", "flow.json", "--set", "models"],
        expect![[r#"
            exit 2
            error: invalid value 'models' for '--set <KEY=VALUE>': expected KEY=VALUE

            For more information, try '--help'.
        "#]],
    );
    says(
        &w,
        &["check", "flow.json", "--params", "p.json"],
        expect![[r#"
            exit 2
            error: --params p.json: failed to read it: No such file or directory
            help: a relative path is relative to the workspace root (-C DIR)
        "#]],
    );
}

#[test]
fn missing_input_file() {
    run(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": ["cat", "${inputs.s}"], "inputs": {"s": "data/s.txt"}, "stdout": "o", "outputs": {"o": "o"}}
  }
}"#,
        expect![[r#"
            exit 1
            failed    a  input data/s.txt is not there, and no step makes it
                help: check the path (relative to the workspace root), or declare it as an output of a step
        "#]],
    );
}

#[test]
fn program_not_found() {
    run(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": ["no-such-program", "x"]}
  }
}"#,
        expect![[r#"
            exit 4
            failed    a  0.00s  program 'no-such-program' not found in PATH (PATH)
                help: install it, or set PATH in 'env' to a list that holds its directory
        "#]],
    );
    run(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "no-such-program x"}
  }
}"#,
        expect![[r#"
            exit 1
            failed    a  0.00s  exit status 127
                | sh: 1: no-such-program: not found
                log: cache/logs/RUN/a.log
        "#]],
    );
}

#[test]
fn missing_tool() {
    run(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true", "tools": ["no-such-tool"]}
  }
}"#,
        expect![[r#"
            exit 4
            failed    a  tool 'no-such-tool' was not found in PATH
                help: the identity of everything under 'tools' is part of the key: install it, or take it out of 'tools'
        "#]],
    );
    run(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true", "tools": [{"version": ["sh", "-c", "echo broken >&2; exit 3"]}]}
  }
}"#,
        expect![[r#"
            exit 4
            failed    a  probe `sh -c echo broken >&2; exit 3` failed (exit status: 3): broken
                help: the identity of everything under 'tools' is part of the key: install it, or take it out of 'tools'
        "#]],
    );
}

#[test]
fn unset_secret_and_variable() {
    run(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true", "env": {"TOKEN": {"secret": "HF_TOKEN"}}}
  }
}"#,
        expect![[r#"
            exit 4
            failed    a  0.00s  secret HF_TOKEN is not set in the environment
                help: set it for this call (HF_TOKEN=... flow run ...) or export it
        "#]],
    );
    check(
        r#"{
  "name": "x",
  "params": {"home": "${env.NO_SUCH_VARIABLE}"},
  "steps": {
    "a": {"run": "echo ${params.home}"}
  }
}"#,
        expect![[r#"
            exit 3
            error: environment variable 'NO_SUCH_VARIABLE' is not set
             --> flow.json:3:23
              |
            3 |   "params": {"home": "${env.NO_SUCH_VARIABLE}"},
              |                       ^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: set it (NO_SUCH_VARIABLE=... flow run ...), or use a parameter with a default

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn glob_axis_loop() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {
      "matrix": {"f": {"glob": "out/*.json"}},
      "run": "cp ${matrix.f} ${outputs.o}",
      "outputs": {"o": "out/${matrix.f.stem}.json"}
    }
  }
}"#,
        expect![[r#"
            exit 3
            error: step 'a' needs itself: a -> a
             --> flow.json:4:5
              |
            4 |     "a": {
              |     ^^^
              |
              = help: a reference to its own output, or a glob that matches it: narrow the glob, or write elsewhere

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn equal_combinations() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {
      "matrix": {"m": ["x", "y", "x"]},
      "run": "echo > ${outputs.o}",
      "outputs": {"o": "out/${matrix.m}"}
    }
  }
}"#,
        expect![[r#"
            exit 3
            error: two combinations of 'a' are equal: [m=x] (combination 1) and [m=x] (combination 3)
             --> flow.json:4:5
              |
            4 |     "a": {
              |     ^^^
              |
              = help: every combination must differ in at least one axis

            error: the workflow has a fault
        "#]],
    );
}

#[test]
fn several_faults_in_one_go() {
    check(
        r#"{
  "name": "x",
  "parms": {},
  "steps": {
    "a": {"run": "true", "uses": "csv.join"},
    "b": {"inputs": {"i": "${steps.zz.o}"}},
    "c d": {"run": []},
    "d": {"run": "cat \"${steps.b.o}\"", "cache": "pur"}
  }
}"#,
        expect![[r#"
            exit 3
            error: unknown key 'parms' of a workflow
             --> flow.json:3:3
              |
            3 |   "parms": {},
              |   ^^^^^^^
              |
              = help: did you mean 'params'?

            error: step 'a' has both 'uses' and 'run'
             --> flow.json:5:11
              |
            5 |     "a": {"run": "true", "uses": "csv.join"},
              |           ^^^^^
              |
              = help: keep one: 'uses' names a built-in stage, 'run' is a command

            error: step 'b' does nothing
             --> flow.json:6:5
              |
            6 |     "b": {"inputs": {"i": "${steps.zz.o}"}},
              |     ^^^
              |
              = help: add "uses": "STAGE" (see flow stages) or "run": ["prog", "arg"]

            error: unknown step 'zz'
             --> flow.json:6:28
              |
            6 |     "b": {"inputs": {"i": "${steps.zz.o}"}},
              |                            ^^^^^^^^^^^^^
              |
              = help: known here: a, b, c d, d

            error: 'c d' is not a name for a step
             --> flow.json:7:5
              |
            7 |     "c d": {"run": []},
              |     ^^^^^
              |
              = help: letters, digits, '_' and '-' are allowed

            error: the command is empty
             --> flow.json:7:20
              |
            7 |     "c d": {"run": []},
              |                    ^^

            error: step 'b' has no output 'o'
             --> flow.json:8:25
              |
            8 |     "d": {"run": "cat \"${steps.b.o}\"", "cache": "pur"}
              |                         ^^^^^^^^^^^^
              |
              = help: it declares no outputs

            error: a reference inside quotes of a shell text
             --> flow.json:8:25
              |
            8 |     "d": {"run": "cat \"${steps.b.o}\"", "cache": "pur"}
              |                         ^^^^^^^^^^^^
              |
              = help: it is inserted quoted already: remove the quotes around it

            error: unknown cache policy 'pur'
             --> flow.json:8:51
              |
            8 |     "d": {"run": "cat \"${steps.b.o}\"", "cache": "pur"}
              |                                                   ^^^^^
              |
              = help: did you mean 'pure'?

            error: the workflow has 9 faults
        "#]],
    );
}

#[test]
fn outputs_in_wrong_places() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true", "outputs": {"o": "../o"}},
    "b": {"run": "true", "outputs": {"o": "cache/o"}},
    "c": {"run": "true", "outputs": {"o": "/tmp/o"}},
    "d": {"run": "true", "outputs": {"o": "."}},
    "e": {"run": "true", "outputs": {"o": ".git/o"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: output 'o' of a is outside the workspace
             --> flow.json:4:43
              |
            4 |     "a": {"run": "true", "outputs": {"o": "../o"}},
              |                                           ^^^^^^
              |
              = help: an output is a path below the workspace root

            error: output 'o' of b lies in a directory of flow's own or of git: "cache/o"
             --> flow.json:5:43
              |
            5 |     "b": {"run": "true", "outputs": {"o": "cache/o"}},
              |                                           ^^^^^^^^^
              |
              = help: choose a path outside cache/, .flow/ and .git

            error: output 'o' of c is outside the workspace
             --> flow.json:6:43
              |
            6 |     "c": {"run": "true", "outputs": {"o": "/tmp/o"}},
              |                                           ^^^^^^^^
              |
              = help: an output is a path below the workspace root

            error: output 'o' of d is the workspace itself
             --> flow.json:7:43
              |
            7 |     "d": {"run": "true", "outputs": {"o": "."}},
              |                                           ^^^
              |
              = help: an output is a path below the workspace root

            error: output 'o' of e lies in a directory of flow's own or of git: ".git/o"
             --> flow.json:8:43
              |
            8 |     "e": {"run": "true", "outputs": {"o": ".git/o"}}
              |                                           ^^^^^^^^
              |
              = help: choose a path outside cache/, .flow/ and .git

            error: the workflow has 5 faults
        "#]],
    );
}

#[test]
fn not_yet() {
    check(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "true", "shard": {"input": "x", "rows": 2}},
    "c": {"run": "true", "launcher": true},
    "d": {"run": "true", "executor": "slurm"}
  }
}"#,
        expect![[r#"
            exit 3
            error: not yet: 'shard'
             --> flow.json:4:26
              |
            4 |     "a": {"run": "true", "shard": {"input": "x", "rows": 2}},
              |                          ^^^^^^^
              |
              = help: this is part of the format, and of a later version of flow

            error: not yet: 'launcher'
             --> flow.json:5:26
              |
            5 |     "c": {"run": "true", "launcher": true},
              |                          ^^^^^^^^^^
              |
              = help: this is part of the format, and of a later version of flow

            error: not yet: executor 'slurm' (there is only "local")
             --> flow.json:6:38
              |
            6 |     "d": {"run": "true", "executor": "slurm"}
              |                                      ^^^^^^^
              |
              = help: this is part of the format, and of a later version of flow

            error: the workflow has 3 faults
        "#]],
    );
    let w = Workspace::new();
    w.write("flow.json", r#"{"name": "x", "steps": {"a": {"run": "true"}}}"#);
    says(
        &w,
        &["devices"],
        expect![[r#"
            exit 0
            note: NVML: there is no libnvidia-ml.so.1
            note: there is no nvidia-smi
            no devices; --devices gpu:N of flow run gives N virtual ones
            2 cores: AMD EPYC
        "#]],
    );
    says(
        &w,
        &["run", "flow.json", "--part", "1/2"],
        expect![[r#"
            exit 2
            error: not yet: --part
            help: this version of flow does not do it; flow --help lists what it does
        "#]],
    );
}

#[test]
fn unknown_target_and_node() {
    let w = Workspace::new();
    w.write(
        "flow.json",
        r#"{"name": "x", "steps": {"fetch": {"matrix": {"m": [1, 2]}, "run": "true"}, "merge": {"run": "true"}}}"#,
    );
    says(
        &w,
        &["run", "flow.json", "merg"],
        expect![[r#"
            exit 2
            error: no node, step or output matches 'merg'
            help: did you mean 'merge'?
            help: flow ls FILE lists nodes and outputs
        "#]],
    );
    says(
        &w,
        &["run", "flow.json", "fetch[m=3]"],
        expect![[r#"
            exit 2
            error: no node, step or output matches 'fetch[m=3]'
            help: did you mean 'fetch[m=2]'?
            help: flow ls FILE lists nodes and outputs
        "#]],
    );
    says(
        &w,
        &["run", "flow.json", "out/*.csv"],
        expect![[r#"
            exit 2
            error: no node, step or output matches 'out/*.csv'
            help: known here: fetch, merge
            help: flow ls FILE lists nodes and outputs
        "#]],
    );
    says(
        &w,
        &["explain", "flow.json", "merg"],
        expect![[r#"
            exit 2
            error: no node, step or output matches 'merg'
            help: did you mean 'merge'?
            help: flow ls FILE lists nodes and outputs
        "#]],
    );
    says(
        &w,
        &["explain", "flow.json", "fetch"],
        expect![[r#"
            exit 2
            error: 'fetch' means several nodes
            help: name one of them, e.g. 'fetch[m=1]'
        "#]],
    );
    says(
        &w,
        &["why", "flow.json", "no/such/file"],
        expect![[r#"
            exit 2
            error: no node makes or takes 'no/such/file'
            help: flow ls FILE lists nodes and outputs
        "#]],
    );
    says(
        &w,
        &["log", "show", "nope"],
        expect![[r#"
            exit 2
            error: no run 'nope'
            help: flow log lists the runs
        "#]],
    );
    says(
        &w,
        &["log", "output", "merg"],
        expect![[r#"
            exit 2
            error: there is no run yet
        "#]],
    );
    says(
        &w,
        &["stages", "csv.jion"],
        expect![[r#"
            exit 2
            error: no stage is called 'csv.jion'
            help: did you mean 'csv.join'?
            help: flow stages lists all
        "#]],
    );
    says(
        &w,
        &["exec", "flow.json", "merg", "--", "true"],
        expect![[r#"
            exit 2
            error: no node, step or output matches 'merg'
            help: did you mean 'merge'?
            help: flow ls FILE lists nodes and outputs
        "#]],
    );
    says(
        &w,
        &["up", "flow.json", "web"],
        expect![[r#"
            exit 2
            error: this workflow has no service 'web'
            help: this workflow declares no services
        "#]],
    );
}

#[test]
fn a_failed_step() {
    run(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "echo one; echo two >&2; exit 7", "outputs": {"o": "o"}},
    "b": {"run": ["cat", "${steps.a.o}"]}
  }
}"#,
        expect![[r#"
            exit 1
            failed    a  0.00s  exit status 7
                | one
                | two
                log: cache/logs/RUN/a.log
        "#]],
    );
    run(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "echo hello", "outputs": {"o": "o"}}
  }
}"#,
        expect![[r#"
            exit 1
            failed    a  0.00s  output 'o' (o) was not made
                | hello
                log: cache/logs/RUN/a.log
                help: every declared output must be written; declare it with "optional": true if it may be left out
        "#]],
    );
    run(
        r#"{
  "name": "x",
  "steps": {
    "a": {"run": "sleep 60", "timeout": "100ms"}
  }
}"#,
        expect![[r#"
            exit 1
            failed    a  0.00s  timed out after 0.1 s
        "#]],
    );
}

#[test]
fn faults_of_keys_stages_types_and_cycles_in_one_go() {
    check(
        r#"{
  "name": "x",
  "step_defaults": {},
  "steps": {
    "fetch": {
      "uses": "http.fetch",
      "with": {"url": "http://x/", "expect": {"jsn": true}, "user_agnt": "me"},
      "timeout": 90,
      "outputs": {"body": "raw"}
    },
    "a": {"run": ["cat", "${steps.b.o}"], "stdout": "o", "outputs": {"o": "a"}},
    "b": {"run": "echo > ${outputs.o}", "needs": ["a"], "outputs": {"o": "b"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: unknown key 'step_defaults' of a workflow
             --> flow.json:3:3
              |
            3 |   "step_defaults": {},
              |   ^^^^^^^^^^^^^^^
              |
              = help: did you mean 'steps'?

            error: http.fetch has no parameter 'expect.jsn'
             --> flow.json:7:47
              |
            7 |       "with": {"url": "http://x/", "expect": {"jsn": true}, "user_agnt": "me"},
              |                                               ^^^^^
              |
              = help: did you mean 'json'?

            error: http.fetch has no parameter 'user_agnt'
             --> flow.json:7:61
              |
            7 |       "with": {"url": "http://x/", "expect": {"jsn": true}, "user_agnt": "me"},
              |                                                             ^^^^^^^^^^^
              |
              = help: did you mean 'user_agent'?

            error: expected a duration, found a number
             --> flow.json:8:18
              |
            8 |       "timeout": 90,
              |                  ^^
              |
              = help: write a number and a unit: "200ms", "90s", "5m", "2h", "1d"

            error: steps need each other: a -> b -> a
              --> flow.json:11:5
               |
            11 |     "a": {"run": ["cat", "${steps.b.o}"], "stdout": "o", "outputs": {"o": "a"}},
               |     ^^^
               |
               = help: an arrow leads from a step to one that it refers to or names in needs, or whose outputs its glob matches

            error: the workflow has 5 faults
        "#]],
    );
}

#[test]
fn names_and_values_of_parameters_beside_references() {
    check(
        r#"{
  "name": "x",
  "params": {"host": "http://x"},
  "steps": {
    "a": {"uses": "http.fetch", "with": {"ulr": "${params.host}/a", "user_agent": 1}, "outputs": {"body": "a"}},
    "b": {"uses": "http.fetch", "with": {"url": 1, "headers": {"A": {"secret": "TOKEN"}}}, "outputs": {"body": "b"}},
    "c": {"uses": "http.fetch", "with": {"ulr": "http://x/", "headers": {"A": 1}}, "outputs": {"body": "c"}}
  }
}"#,
        expect![[r#"
            exit 3
            error: http.fetch needs 'url'
             --> flow.json:5:19
              |
            5 |     "a": {"uses": "http.fetch", "with": {"ulr": "${params.host}/a", "user_agent": 1}, "outputs": {"body": "a"}},
              |                   ^^^^^^^^^^^^
              |
              = help: add "url" under 'with'; see: flow stages http.fetch

            error: http.fetch has no parameter 'ulr'
             --> flow.json:5:42
              |
            5 |     "a": {"uses": "http.fetch", "with": {"ulr": "${params.host}/a", "user_agent": 1}, "outputs": {"body": "a"}},
              |                                          ^^^^^
              |
              = help: known here: url, headers, expect, timeouts, per_host, user_agent, follow_redirects

            error: parameter 'user_agent' of http.fetch: expected text, found a number
             --> flow.json:5:83
              |
            5 |     "a": {"uses": "http.fetch", "with": {"ulr": "${params.host}/a", "user_agent": 1}, "outputs": {"body": "a"}},
              |                                                                                   ^
              |
              = help: see: flow stages http.fetch

            error: http.fetch needs 'url'
             --> flow.json:7:19
              |
            7 |     "c": {"uses": "http.fetch", "with": {"ulr": "http://x/", "headers": {"A": 1}}, "outputs": {"body": "c"}}
              |                   ^^^^^^^^^^^^
              |
              = help: add "url" under 'with'; see: flow stages http.fetch

            error: http.fetch has no parameter 'ulr'
             --> flow.json:7:42
              |
            7 |     "c": {"uses": "http.fetch", "with": {"ulr": "http://x/", "headers": {"A": 1}}, "outputs": {"body": "c"}}
              |                                          ^^^^^
              |
              = help: known here: url, headers, expect, timeouts, per_host, user_agent, follow_redirects

            error: parameter 'headers.A' of http.fetch: expected text, found a number
             --> flow.json:7:79
              |
            7 |     "c": {"uses": "http.fetch", "with": {"ulr": "http://x/", "headers": {"A": 1}}, "outputs": {"body": "c"}}
              |                                                                               ^
              |
              = help: see: flow stages http.fetch

            error: the workflow has 6 faults
        "#]],
    );
}

#[test]
fn a_cycle_through_params_and_includes() {
    let w = Workspace::new();
    w.write(
        "in.json",
        r#"{"name": "in", "params": {"from": "x"}, "steps": {"s": {"run": ["cat", "${params.from}"], "stdout": "o", "outputs": {"o": "s"}}}}"#,
    );
    w.write(
        "flow.json",
        r#"{
  "name": "x",
  "include": [{"file": "in.json", "as": "in", "params": {"from": "${steps.a.o}"}}],
  "steps": {
    "a": {"run": ["cat", "${steps.in.s.o}"], "stdout": "o", "outputs": {"o": "a"}},
    "own": {"run": ["cat", "${steps.own.o}"], "stdout": "o", "outputs": {"o": "own"}}
  }
}"#,
    );
    says(
        &w,
        &["check", "flow.json"],
        expect![[r#"
        exit 3
        error: steps need each other: a -> in.s -> a
         --> flow.json:5:5
          |
        5 |     "a": {"run": ["cat", "${steps.in.s.o}"], "stdout": "o", "outputs": {"o": "a"}},
          |     ^^^
          |
          = help: an arrow leads from a step to one that it refers to or names in needs, or whose outputs its glob matches

        error: step 'own' needs itself: own -> own
         --> flow.json:6:5
          |
        6 |     "own": {"run": ["cat", "${steps.own.o}"], "stdout": "o", "outputs": {"o": "own"}}
          |     ^^^^^
          |
          = help: a reference to its own output, or a glob that matches it: narrow the glob, or write elsewhere

        error: the workflow has 2 faults
    "#]],
    );
}

#[test]
fn what_refers_to_something_at_fault_is_not_at_fault() {
    check(
        r#"{
  "name": "x",
  "include": ["missing.json"],
  "services": {"web": {"ready": {"tcp": true}}},
  "steps": {
    "a": {"matrix": {"m": 5}, "inputs": {"i": "${steps.in.s.o}"}, "outputs": {"o": "a${matrix.m}"}},
    "b": {"run": ["cat", "${steps.a.o}"], "stdout": "o", "outputs": {"o": {"append": true}}},
    "c": {"run": ["cat", "${steps.b.o}", "${services.web.url}"], "needs": ["d"]},
    "d": 1
  }
}"#,
        expect![[r#"
            exit 3
            error: failed to read missing.json: No such file or directory
             --> flow.json:3:15
              |
            3 |   "include": ["missing.json"],
              |               ^^^^^^^^^^^^^^
              |
              = help: the path of an include is relative to the including file

            error: service 'web' does nothing
             --> flow.json:4:16
              |
            4 |   "services": {"web": {"ready": {"tcp": true}}},
              |                ^^^^^
              |
              = help: 'uses' names a built-in simulator, 'run' is a command: one of them

            error: step 'a' does nothing
             --> flow.json:6:5
              |
            6 |     "a": {"matrix": {"m": 5}, "inputs": {"i": "${steps.in.s.o}"}, "outputs": {"o": "a${matrix.m}"}},
              |     ^^^
              |
              = help: add "uses": "STAGE" (see flow stages) or "run": ["prog", "arg"]

            error: expected a list, a reference to one, {"glob": ...} or {"start", "end", "factor" or "step"}, found a number
             --> flow.json:6:27
              |
            6 |     "a": {"matrix": {"m": 5}, "inputs": {"i": "${steps.in.s.o}"}, "outputs": {"o": "a${matrix.m}"}},
              |                           ^

            error: an output needs 'path'
             --> flow.json:7:75
              |
            7 |     "b": {"run": ["cat", "${steps.a.o}"], "stdout": "o", "outputs": {"o": {"append": true}}},
              |                                                                           ^^^^^^^^^^^^^^^^

            error: expected an object, found a number
             --> flow.json:9:10
              |
            9 |     "d": 1
              |          ^

            error: the workflow has 6 faults
        "#]],
    );
}

#[test]
fn services_in_a_circle() {
    check(
        r#"{
  "name": "x",
  "services": {
    "web": {"run": ["web", "${services.api.url}"]},
    "many": {"run": ["many"], "replicas": 2},
    "api": {"run": ["api", "${services.many.url}"], "env": {"PORT": "${service.port}", "WEB": "${services.web.url}"}}
  },
  "steps": {"a": {"run": "true"}}
}"#,
        expect![[r#"
            exit 3
            error: service 'web' needs itself to be up
             --> flow.json:4:5
              |
            4 |     "web": {"run": ["web", "${services.api.url}"]},
              |     ^^^^^
              |
              = help: one of them has to be up before the other: give it a fixed port, or start both in one service

            error: service 'api' needs itself to be up
             --> flow.json:6:5
              |
            6 |     "api": {"run": ["api", "${services.many.url}"], "env": {"PORT": "${service.port}", "WEB": "${services.web.url}"}}
              |     ^^^^^
              |
              = help: one of them has to be up before the other: give it a fixed port, or start both in one service

            error: service 'api' refers to one instance of 'many', which has several
             --> flow.json:6:5
              |
            6 |     "api": {"run": ["api", "${services.many.url}"], "env": {"PORT": "${service.port}", "WEB": "${services.web.url}"}}
              |     ^^^^^
              |
              = help: take all of them (services.many.urls)

            error: the workflow has 3 faults
        "#]],
    );
}

#[test]
fn a_service_of_a_workflow_without_services() {
    let w = Workspace::new();
    w.write("flow.json", r#"{"name": "x", "steps": {"a": {"run": "true"}}}"#);
    says(
        &w,
        &["up", "flow.json", "web"],
        expect![[r#"
        exit 2
        error: this workflow has no service 'web'
        help: this workflow declares no services
    "#]],
    );
}
