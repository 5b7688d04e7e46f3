//! What a person reads about a fault of a step, a service or a reference, as drawn.

use expect_test::expect;

use super::{Project, says};

#[test]
fn unknown_key() {
    says(
        &Project::body(r#"  "steps": {"a": {"run": ["true"], "ouputs": {"x": "out/x"}}}"#),
        expect![[r#"
            error: unknown key 'ouputs' of a step
             --> w.json:3:36
              |
            3 |   "steps": {"a": {"run": ["true"], "ouputs": {"x": "out/x"}}}
              |                                    ^^^^^^^^
              |
              = help: did you mean 'outputs'?
        "#]],
    );
}

#[test]
fn wrong_type() {
    says(
        &Project::body(
            r#"  "steps": {"a": {"run": ["sleep", 1], "timeout": 90, "needs": "b", "resources": {"mem": "lots"}}}"#,
        ),
        expect![[r#"
            error: expected text, found a number
             --> w.json:3:36
              |
            3 |   "steps": {"a": {"run": ["sleep", 1], "timeout": 90, "needs": "b", "resources": {"mem": "lots"}}}
              |                                    ^
            error: expected a duration, found a number
             --> w.json:3:51
              |
            3 |   "steps": {"a": {"run": ["sleep", 1], "timeout": 90, "needs": "b", "resources": {"mem": "lots"}}}
              |                                                   ^^
              |
              = help: write a number and a unit: "200ms", "90s", "5m", "2h", "1d"
            error: expected a list, found text
             --> w.json:3:64
              |
            3 |   "steps": {"a": {"run": ["sleep", 1], "timeout": 90, "needs": "b", "resources": {"mem": "lots"}}}
              |                                                                ^^^
            error: "lots" is not a size
             --> w.json:3:90
              |
            3 |   "steps": {"a": {"run": ["sleep", 1], "timeout": 90, "needs": "b", "resources": {"mem": "lots"}}}
              |                                                                                          ^^^^^^
              |
              = help: write a number and a unit: "512MiB", "40GiB", "1.5TB"
        "#]],
    );
}

#[test]
fn unknown_kind_of_reference() {
    says(
        &Project::body(r#"  "steps": {"a": {"run": "echo \"x\" ${param.x} ${HOME}"}}"#),
        expect![[r#"
            error: unknown kind of reference 'param'
             --> w.json:3:38
              |
            3 |   "steps": {"a": {"run": "echo \"x\" ${param.x} ${HOME}"}}
              |                                      ^^^^^^^^^^
              |
              = help: did you mean 'params'?
              = help: for a literal '${' write '$${'
            error: unknown kind of reference 'HOME'
             --> w.json:3:49
              |
            3 |   "steps": {"a": {"run": "echo \"x\" ${param.x} ${HOME}"}}
              |                                                 ^^^^^^^
              |
              = help: for a variable of the shell write $${HOME} or $HOME
              = help: for a literal '${' write '$${'
        "#]],
    );
}

#[test]
fn unknown_step_and_wrong_output() {
    says(
        &Project::body(
            r#"  "steps": {
    "fetch": {"uses": "http.fetch", "outputs": {"body": "out/b"}},
    "a": {"run": ["cat", "${steps.fecth.body}", "${steps.fetch.boddy}", "${steps.fetch[kind=x].body}"]}
  }"#,
        ),
        expect![[r#"
            error: unknown step 'fecth'
             --> w.json:5:27
              |
            5 |     "a": {"run": ["cat", "${steps.fecth.body}", "${steps.fetch.boddy}", "${steps.fetch[kind=x].body}"]}
              |                           ^^^^^^^^^^^^^^^^^^^
              |
              = help: did you mean 'fetch'?
            error: step 'fetch' has no output 'boddy'
             --> w.json:5:50
              |
            5 |     "a": {"run": ["cat", "${steps.fecth.body}", "${steps.fetch.boddy}", "${steps.fetch[kind=x].body}"]}
              |                                                  ^^^^^^^^^^^^^^^^^^^^
              |
              = help: did you mean 'body'?
            error: step 'fetch' has no axis 'kind'
             --> w.json:5:74
              |
            5 |     "a": {"run": ["cat", "${steps.fecth.body}", "${steps.fetch.boddy}", "${steps.fetch[kind=x].body}"]}
              |                                                                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: it has no matrix
        "#]],
    );
}

#[test]
fn late_references() {
    says(
        &Project::body(
            r#"  "params": {"url": "${services.web.url}", "far": "x-${params.url}"},
  "services": {"web": {"uses": "sim.http"}},
  "steps": {
    "a": {"run": ["true", "${services.web.port}"], "matrix": {"u": ["${services.web.url}", "${params.far}"]}},
    "b": {"run": ["true"], "outputs": {"x": "out/${params.url}"}, "repeats": "${params.url}"}
  }"#,
        ),
        expect![[r#"
            error: a late reference: ${services.web.url} is not known yet in 'matrix'
             --> w.json:6:70
              |
            6 |     "a": {"run": ["true", "${services.web.port}"], "matrix": {"u": ["${services.web.url}", "${params.far}"]}},
              |                                                                      ^^^^^^^^^^^^^^^^^^^
              |
              = help: it is known only while the node runs; 'with', 'run' and 'env' may hold it
            error: a late reference: ${services.web.url}, through params.far, is not known yet in 'matrix'
             --> w.json:6:93
              |
            6 |     "a": {"run": ["true", "${services.web.port}"], "matrix": {"u": ["${services.web.url}", "${params.far}"]}},
              |                                                                                             ^^^^^^^^^^^^^
              |
              = help: it is known only while the node runs; 'with', 'run' and 'env' may hold it
            error: a late reference: ${services.web.url}, through params.url, is not known yet in 'outputs'
             --> w.json:7:50
              |
            7 |     "b": {"run": ["true"], "outputs": {"x": "out/${params.url}"}, "repeats": "${params.url}"}
              |                                                  ^^^^^^^^^^^^^
              |
              = help: it is known only while the node runs; 'with', 'run' and 'env' may hold it
            error: a late reference: ${services.web.url}, through params.url, is not known yet in 'repeats'
             --> w.json:7:79
              |
            7 |     "b": {"run": ["true"], "outputs": {"x": "out/${params.url}"}, "repeats": "${params.url}"}
              |                                                                               ^^^^^^^^^^^^^
              |
              = help: it is known only while the node runs; 'with', 'run' and 'env' may hold it
        "#]],
    );
}

#[test]
fn a_late_reference_bound_by_the_includer() {
    says(
        &Project::body(
            r#"  "services": {"web": {"uses": "sim.http"}},
  "include": [{"file": "in.json", "params": {"url": "${services.web.url}"}}]"#,
        )
        .file(
            "in.json",
            "{\"name\": \"in\", \"params\": {\"url\": \"\"},\n \"steps\": {\"a\": {\"run\": [\"true\"], \"inputs\": {\"x\": \"${params.url}/x\"}}}}",
        ),
        expect![[r#"
            error: a late reference: ${services.web.url}, through params.url, is not known yet in 'inputs'
             --> in.json:2:52
              |
            2 |  "steps": {"a": {"run": ["true"], "inputs": {"x": "${params.url}/x"}}}}
              |                                                    ^^^^^^^^^^^^^
              |
              = help: it is known only while the node runs; 'with', 'run' and 'env' may hold it
        "#]],
    );
}

#[test]
fn param_cycle() {
    says(
        &Project::body(
            r#"  "params": {"a": "${params.b}", "b": "x${params.c}", "c": ["${params.a}"]}, "steps": {}"#,
        ),
        expect![[r#"
            error: the params form a cycle: a -> b -> c -> a
             --> w.json:3:19
              |
            3 |   "params": {"a": "${params.b}", "b": "x${params.c}", "c": ["${params.a}"]}, "steps": {}
              |                   ^^^^^^^^^^^^^
              |
              = help: give one of them a value of its own
        "#]],
    );
}

#[test]
fn unknown_stage() {
    says(
        &Project::body(
            r#"  "services": {"s": {"uses": "sim.htp"}},
  "steps": {
    "a": {"uses": "http.fetsh", "outputs": {"body": "b"}},
    "b": {"uses": "sim.http"}
  }"#,
        ),
        expect![[r#"
            error: unknown simulator 'sim.htp'
             --> w.json:3:30
              |
            3 |   "services": {"s": {"uses": "sim.htp"}},
              |                              ^^^^^^^^^
              |
              = help: did you mean 'sim.http'?
            error: unknown stage 'http.fetsh'
             --> w.json:5:19
              |
            5 |     "a": {"uses": "http.fetsh", "outputs": {"body": "b"}},
              |                   ^^^^^^^^^^^^
              |
              = help: did you mean 'http.fetch'?
            error: unknown stage 'sim.http'
             --> w.json:6:19
              |
            6 |     "b": {"uses": "sim.http"}
              |                   ^^^^^^^^^^
              |
              = help: this is a simulator: it goes under 'services'
        "#]],
    );
}

#[test]
fn names_of_a_stage() {
    says(
        &Project::body(
            r#"  "steps": {
    "a": {"uses": "csv.join", "inputs": {"left": "l.csv", "rigth": "r.csv"}, "outputs": {"reprot": "r"}, "cache": "validate"},
    "b": {"run": ["true"], "with": {"x": 1}, "cache": {"fresh_for": "24h"}, "stdin": "in"}
  }"#,
        ),
        expect![[r#"
            error: stage csv.join needs the input 'right'
             --> w.json:4:19
              |
            4 |     "a": {"uses": "csv.join", "inputs": {"left": "l.csv", "rigth": "r.csv"}, "outputs": {"reprot": "r"}, "cache": "validate"},
              |                   ^^^^^^^^^^
              |
              = help: add it under 'inputs'
            error: stage csv.join needs the output 'csv'
             --> w.json:4:19
              |
            4 |     "a": {"uses": "csv.join", "inputs": {"left": "l.csv", "rigth": "r.csv"}, "outputs": {"reprot": "r"}, "cache": "validate"},
              |                   ^^^^^^^^^^
              |
              = help: add it under 'outputs'
            error: stage csv.join has no input 'rigth'
             --> w.json:4:59
              |
            4 |     "a": {"uses": "csv.join", "inputs": {"left": "l.csv", "rigth": "r.csv"}, "outputs": {"reprot": "r"}, "cache": "validate"},
              |                                                           ^^^^^^^
              |
              = help: did you mean 'right'?
            error: stage csv.join has no output 'reprot'
             --> w.json:4:90
              |
            4 |     "a": {"uses": "csv.join", "inputs": {"left": "l.csv", "rigth": "r.csv"}, "outputs": {"reprot": "r"}, "cache": "validate"},
              |                                                                                          ^^^^^^^^
              |
              = help: did you mean 'report'?
            error: stage csv.join cannot validate
             --> w.json:4:115
              |
            4 |     "a": {"uses": "csv.join", "inputs": {"left": "l.csv", "rigth": "r.csv"}, "outputs": {"reprot": "r"}, "cache": "validate"},
              |                                                                                                                   ^^^^^^^^^^
            error: 'with' does not go with 'run'
             --> w.json:5:28
              |
            5 |     "b": {"run": ["true"], "with": {"x": 1}, "cache": {"fresh_for": "24h"}, "stdin": "in"}
              |                            ^^^^^^
            error: a command cannot validate
             --> w.json:5:55
              |
            5 |     "b": {"run": ["true"], "with": {"x": 1}, "cache": {"fresh_for": "24h"}, "stdin": "in"}
              |                                                       ^^^^^^^^^^^^^^^^^^^^
              |
              = help: a command is "pure", "sample" or "never"
            error: 'stdin' names an input of this step; 'in' is none
             --> w.json:5:86
              |
            5 |     "b": {"run": ["true"], "with": {"x": 1}, "cache": {"fresh_for": "24h"}, "stdin": "in"}
              |                                                                                      ^^^^
        "#]],
    );
}

#[test]
fn quoted_reference_in_shell_text() {
    says(
        &Project::body(
            r#"  "params": {"x": "1"},
  "steps": {"a": {"run": "echo \"é ${params.x}\" ${params.x} 'a ${params.x}'"}}"#,
        ),
        expect![[r#"
            error: a reference inside quotes of a shell text
             --> w.json:4:36
              |
            4 |   "steps": {"a": {"run": "echo \"é ${params.x}\" ${params.x} 'a ${params.x}'"}}
              |                                    ^^^^^^^^^^^
              |
              = help: it is inserted quoted already: remove the quotes around it
            error: a reference inside quotes of a shell text
             --> w.json:4:65
              |
            4 |   "steps": {"a": {"run": "echo \"é ${params.x}\" ${params.x} 'a ${params.x}'"}}
              |                                                                 ^^^^^^^^^^^
              |
              = help: it is inserted quoted already: remove the quotes around it
        "#]],
    );
}

#[test]
fn not_yet() {
    says(
        &Project::body(
            r#"  "resources": {"executors": {}, "devices": "gpu:2"},
  "on_finish": {"url": "https://x.example"},
  "steps": {"a": {"run": ["true", "${shard.index}"], "shard": {}, "executor": "slurm", "launcher": true}}"#,
        ),
        expect![[r#"
            error: not yet: executors other than "local"
             --> w.json:3:17
              |
            3 |   "resources": {"executors": {}, "devices": "gpu:2"},
              |                 ^^^^^^^^^^^
              |
              = help: this is part of the format, and of a later version of flow
            error: not yet: a webhook in 'on_finish'
             --> w.json:4:17
              |
            4 |   "on_finish": {"url": "https://x.example"},
              |                 ^^^^^
              |
              = help: this is part of the format, and of a later version of flow
            error: not yet: ${shard.index}
             --> w.json:5:36
              |
            5 |   "steps": {"a": {"run": ["true", "${shard.index}"], "shard": {}, "executor": "slurm", "launcher": true}}
              |                                    ^^^^^^^^^^^^^^
              |
              = help: this is part of the format, and of a later version of flow
            error: not yet: 'shard'
             --> w.json:5:54
              |
            5 |   "steps": {"a": {"run": ["true", "${shard.index}"], "shard": {}, "executor": "slurm", "launcher": true}}
              |                                                      ^^^^^^^
              |
              = help: this is part of the format, and of a later version of flow
            error: not yet: executor 'slurm' (there is only "local")
             --> w.json:5:79
              |
            5 |   "steps": {"a": {"run": ["true", "${shard.index}"], "shard": {}, "executor": "slurm", "launcher": true}}
              |                                                                               ^^^^^^^
              |
              = help: this is part of the format, and of a later version of flow
            error: not yet: 'launcher'
             --> w.json:5:88
              |
            5 |   "steps": {"a": {"run": ["true", "${shard.index}"], "shard": {}, "executor": "slurm", "launcher": true}}
              |                                                                                        ^^^^^^^^^^
              |
              = help: this is part of the format, and of a later version of flow
        "#]],
    );
}

#[test]
fn misplaced_references_and_secrets() {
    says(
        &Project::body(
            r#"  "params": {"key": {"secret": "KEY"}, "m": "${matrix.x}"},
  "services": {"s": {"run": ["serve", "${service.port}", "${services.s.url}", "${steps.a.x}"]}},
  "steps": {
    "a": {
      "run": ["true", "${service.port}"],
      "env": {"K": {"secret": "K-1", "format": "Bearer"}},
      "matrix": {"f": "${steps.b.x}", "g": "one", "h": {"start": 1, "end": 9}},
      "inputs": {"x": "${inputs.y}"},
      "outputs": {"x": "out/${matrix.f}/${outputs.x}"}
    },
    "b": {"run": "true", "outputs": {"x": {"path": "b", "apend": true}}, "resources": {"pool": {"net": 1}}}
  }"#,
        ),
        expect![[r#"
            error: a secret may stand only in 'env' or 'with'
             --> w.json:3:21
              |
            3 |   "params": {"key": {"secret": "KEY"}, "m": "${matrix.x}"},
              |                     ^^^^^^^^^^^^^^^^^
              |
              = help: write it where it is used; it is read from the environment at that moment
            error: matrix.x is not known in 'params'
             --> w.json:3:46
              |
            3 |   "params": {"key": {"secret": "KEY"}, "m": "${matrix.x}"},
              |                                              ^^^^^^^^^^^
              |
              = help: it is known in the step that declares the axis
            error: service 's' refers to itself
             --> w.json:4:59
              |
            4 |   "services": {"s": {"run": ["serve", "${service.port}", "${services.s.url}", "${steps.a.x}"]}},
              |                                                           ^^^^^^^^^^^^^^^^^
              |
              = help: its own port is ${service.port}
            error: ${steps.a.x} is not known in a service
             --> w.json:4:80
              |
            4 |   "services": {"s": {"run": ["serve", "${service.port}", "${services.s.url}", "${steps.a.x}"]}},
              |                                                                                ^^^^^^^^^^^^
              |
              = help: an output of a step is known in steps only
            error: service.port is known only in a service
             --> w.json:7:24
              |
            7 |       "run": ["true", "${service.port}"],
              |                        ^^^^^^^^^^^^^^^
              |
              = help: elsewhere write services.ID.port
            error: 'K-1' is not the name of an environment variable
             --> w.json:8:31
              |
            8 |       "env": {"K": {"secret": "K-1", "format": "Bearer"}},
              |                               ^^^^^
            error: the format of a secret has no '{}'
             --> w.json:8:48
              |
            8 |       "env": {"K": {"secret": "K-1", "format": "Bearer"}},
              |                                                ^^^^^^^^
              |
              = help: '{}' stands for the value: "Bearer {}"
            error: ${steps.b.x} is not known in 'matrix'
             --> w.json:9:24
              |
            9 |       "matrix": {"f": "${steps.b.x}", "g": "one", "h": {"start": 1, "end": 9}},
              |                        ^^^^^^^^^^^^
              |
              = help: an axis over the files of a step is {"glob": "${steps.ID.OUTPUT}"}
            error: expected a list, a reference to one, {"glob": ...} or {"start", "end", "factor" or "step"}, found text
             --> w.json:9:44
              |
            9 |       "matrix": {"f": "${steps.b.x}", "g": "one", "h": {"start": 1, "end": 9}},
              |                                            ^^^^^
              |
              = help: one value is a list too: ["one"]
            error: a ladder has either 'factor' or 'step'
             --> w.json:9:56
              |
            9 |       "matrix": {"f": "${steps.b.x}", "g": "one", "h": {"start": 1, "end": 9}},
              |                                                        ^^^^^^^^^^^^^^^^^^^^^^
            error: inputs.y is known only in 'with', 'run' and 'env' of its step
              --> w.json:10:24
               |
            10 |       "inputs": {"x": "${inputs.y}"},
               |                        ^^^^^^^^^^^
            error: a late reference: ${outputs.x} is not known yet in 'outputs'
              --> w.json:11:41
               |
            11 |       "outputs": {"x": "out/${matrix.f}/${outputs.x}"}
               |                                         ^^^^^^^^^^^^
               |
               = help: it is known only while the node runs; 'with', 'run' and 'env' may hold it
            error: step 'b': unknown pool 'net'
              --> w.json:13:5
               |
            13 |     "b": {"run": "true", "outputs": {"x": {"path": "b", "apend": true}}, "resources": {"pool": {"net": 1}}}
               |     ^^^
               |
               = help: declare it: "resources": {"pools": {"net": 1}}
            error: unknown key 'apend' of an output
              --> w.json:13:57
               |
            13 |     "b": {"run": "true", "outputs": {"x": {"path": "b", "apend": true}}, "resources": {"pool": {"net": 1}}}
               |                                                         ^^^^^^^
               |
               = help: did you mean 'append'?
        "#]],
    );
}
