//! `report.markdown` with the built-in and with own templates.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::stage::harness::{Bench, Finished, fixtures};

fn render_with(template: &str, title: Value) -> Bench<'static> {
    let with = json!({"template": "page", "title": title, "vars": {"n": 2, "list": ["a|b", 1.5, null]}});
    Bench::new(&Report, with)
        .file("page", "page.md.j2", template)
        .file("data", "data.json", r#"{"z": 1, "a": [1, 2.5], "none": null}"#)
        .file("table", "t.csv", "k,v\na,1\nb,2\na,3\n")
        .file("notes", "notes.txt", "plain <b>")
}

fn page(template: &str) -> String {
    render_with(template, Value::Null).run(&["report"]).ok().text("report")
}

fn failed(finished: Finished, expected: Expect) {
    let error = finished.result.unwrap_err();
    expected.assert_eq(&[vec![error.message], error.hints].concat().join("\n"));
}

#[test]
fn a_template_sees_the_inputs_by_name() {
    assert_eq!(
        page("{{ data.z }} {{ data.a[1] }} {{ data.a|length }} {{ title or 'untitled' }}"),
        "1 2.5 2 untitled\n"
    );
    assert_eq!(
        page("{{ notes }} & {{ vars.n }} {{ vars.list|cell }}.\n\n\n"),
        "plain <b> & 2 a\\|b, 1.5, .\n"
    );
    assert_eq!(page("{{ table.rows }} {{ table.columns|join('+') }} {{ table.table[2].v }}"), "3 k+v 3\n");
    assert_eq!(
        page("{% for r in table.table %}{{ r|pairs }}; {% endfor %}"),
        "k=a, v=1; k=b, v=2; k=a, v=3;\n"
    );
    assert_eq!(
        page(
            "{% for c in table|count_by('k') %}{{ c.value }} {{ c.count }} {{ c.share|percent(2) }}\n{% endfor %}"
        ),
        "a 2 66.67 %\nb 1 33.33 %\n"
    );
    assert_eq!(page("{{ data.none|percent }}{{ data.none|cell }}{{ 0.509|percent }}"), "-50.9 %\n");
}

#[test]
fn several_files_of_an_input_are_a_list() {
    let with = json!({"template": "page", "title": "T"});
    let done = Bench::new(&Report, with)
        .file("page", "p.j2", "{{ title }}{% for d in data %} {{ d.n }}{% endfor %}")
        .file("data", "1.json", r#"{"n": 1}"#)
        .file("data", "2.json", r#"{"n": 18446744073709551615}"#)
        .run(&["report"])
        .ok();
    assert_eq!(done.text("report"), "T 1 18446744073709551615\n");
}

#[test]
fn faults_name_template_and_line() {
    let run = |template: &str| render_with(template, Value::Null).run(&["report"]);
    failed(
        run("# x\n\n{{ dat.z }}\n"),
        expect![[r#"
            template page.md.j2:3: undefined value: `dat` is undefined
              | {{ dat.z }}"#]],
    );
    failed(
        run("a\n{{ data.nothing|cell }}\n"),
        expect![[r#"
        template page.md.j2:2: undefined value: the filter 'cell' got no value
          | {{ data.nothing|cell }}"#]],
    );
    failed(
        run("a\n{% for %}\n"),
        expect![[r#"
        template page.md.j2:2: syntax error: unexpected end of block, expected in
          | {% for %}"#]],
    );
    failed(
        run("{{ table|count_by('model') }}"),
        expect![[r#"
        template page.md.j2:1: invalid operation: t.csv has no column 'model'; its header is: k,v
          | {{ table|count_by('model') }}"#]],
    );
    let unknown = Bench::new(&Report, json!({"template": "inferencmax"})).run(&["report"]);
    failed(
        unknown,
        expect![[r#"
        no template 'inferencmax': neither an input of the step nor built in
        did you mean 'inferencemax'?"#]],
    );
    let bad = Bench::new(&Report, json!({"template": "page"}))
        .file("page", "p.j2", "x")
        .file("data", "d.json", "{\n\"a\": }")
        .run(&["report"]);
    failed(bad, expect!["d.json:2: expected value at line 2 column 6"]);
    let reserved =
        Bench::new(&Report, json!({"template": "inferencemax"})).file("vars", "d.json", "1").run(&["report"]);
    failed(
        reserved,
        expect!["an input cannot be named 'vars': templates see the parameter of that name there"],
    );
}

fn inferencemax(merged: &[u8], reports: [Value; 4]) -> String {
    let mut bench =
        Bench::new(&Report, json!({"template": "inferencemax"})).file("merged", "merged.csv", merged);
    for (name, value) in ["columns", "clean", "join", "verify"].iter().zip(reports) {
        bench = bench.file(name, &format!("{name}.json"), value.to_string());
    }
    bench.run(&["report"]).ok().text("report")
}

fn shown(page: &str) -> &str {
    page.split("## Definitions").next().unwrap()
}

#[test]
fn the_inferencemax_page_of_small_reports() {
    let merged = b"model_name,sequence_length,conc,hwKey,precision,tp\r\nA|1,1k-1k,1,b200,fp4,8\r\nB,1k-1k,2,b200,fp8,8\r\nB,8k-1k,2,h100,fp8,8\r\n";
    let page = inferencemax(
        merged,
        [
            json!([{"name": "conc", "unit": "requests", "meaning": "a | b"}]),
            json!({
                "files": [
                    {"file": "a.json", "ok": true, "code": null, "bytes": 9, "points": 2, "valid_points": 2},
                    {"file": "b.json", "ok": false, "code": "json_parse", "bytes": 5, "points": null, "valid_points": null}
                ],
                "skipped": ["README.json"]
            }),
            json!({
                "matched_keys": 2, "left_only": [{"k": "1"}], "right_only": [], "duplicates": [{"key": {"k": "2"}, "left": 1, "right": 2}],
                "conflicts": [{"key": {"k": "3", "m": "A|1"}, "columns": ["x_roof", "y_roof"]}], "match_rate": 2.0 / 3.0
            }),
            json!({
                "pareto": {"checked": 6, "equal": 6}, "cost": {"checked": 18, "within_rounding": 17},
                "tok_s_per_mw": {"checked": 6, "within_rounding": 6}, "differences": [{}]
            }),
        ],
    );
    expect![[r#"
        # InferenceMAX data

        ## Data set

        3 rows, 6 columns. One row is one configuration: a model, an input and output length, a number of
        concurrent requests, a kind of hardware, a precision and a tensor-parallel size.

        ### Model

        | model | rows | share |
        | --- | ---: | ---: |
        | B | 2 | 66.7 % |
        | A\|1 | 1 | 33.3 % |

        ### Sequence length

        | sequence length | rows | share |
        | --- | ---: | ---: |
        | 1k-1k | 2 | 66.7 % |
        | 8k-1k | 1 | 33.3 % |

        ### Hardware

        | hardware | rows | share |
        | --- | ---: | ---: |
        | b200 | 2 | 66.7 % |
        | h100 | 1 | 33.3 % |

        ### Precision

        | precision | rows | share |
        | --- | ---: | ---: |
        | fp8 | 2 | 66.7 % |
        | fp4 | 1 | 33.3 % |

        ## Cleaning

        2 files checked: 1 ok, 1 quarantined. 1 skipped by name.

        | quarantined file | code | bytes | points | valid points |
        | --- | --- | ---: | ---: | ---: |
        | b.json | json_parse | 5 |  |  |

        Skipped: README.json.

        ## Join of the two measurements

        | | |
        | --- | ---: |
        | keys matched | 2 |
        | keys with end-to-end latency only | 1 |
        | keys with interactivity only | 0 |
        | keys with several rows on a side | 1 |
        | joined rows whose shared columns disagree | 1 |
        | match rate | 66.67 % |

        End-to-end latency only:

        - k=1

        Several rows, as end-to-end x interactivity:

        - k=2: 1 x 2

        Where the two sides disagree, the row carries the end-to-end side:

        | key | columns |
        | --- | --- |
        | k=3, m=A\|1 | x_roof, y_roof |

        ## Verification

        Published values, computed again from the published tokens/s/GPU:

        | values | checked | agree | all | rule |
        | --- | ---: | ---: | --- | --- |
        | Pareto flags | 6 | 6 | yes | equal |
        | cost | 18 | 17 | **no** | within rounding to 3 decimals |
        | tokens/s/MW | 6 | 6 | yes | within rounding to 3 decimals |

        Differences: 1, listed in the verification report.

        ## Columns

        | column | unit | meaning |
        | --- | --- | --- |
        | conc | requests | a \| b |

    "#]]
    .assert_eq(shown(&page));
}

#[test]
fn the_inferencemax_page_of_empty_reports() {
    let page = inferencemax(
        b"model_name,sequence_length\r\n",
        [
            json!([]),
            json!({"files": [], "skipped": []}),
            json!({"matched_keys": 0, "left_only": [], "right_only": [], "duplicates": [], "conflicts": [], "match_rate": null}),
            json!({
                "pareto": {"checked": 0, "equal": 0}, "cost": {"checked": 0, "within_rounding": 0},
                "tok_s_per_mw": {"checked": 0, "within_rounding": 0}, "differences": []
            }),
        ],
    );
    expect![[r#"
        # InferenceMAX data

        ## Data set

        0 rows, 2 columns. One row is one configuration: a model, an input and output length, a number of
        concurrent requests, a kind of hardware, a precision and a tensor-parallel size.

        ### Model

        | model | rows | share |
        | --- | ---: | ---: |

        ### Sequence length

        | sequence length | rows | share |
        | --- | ---: | ---: |

        ## Cleaning

        0 files checked: 0 ok, 0 quarantined. 0 skipped by name.

        ## Join of the two measurements

        | | |
        | --- | ---: |
        | keys matched | 0 |
        | keys with end-to-end latency only | 0 |
        | keys with interactivity only | 0 |
        | keys with several rows on a side | 0 |
        | joined rows whose shared columns disagree | 0 |
        | match rate | - |

        ## Verification

        Published values, computed again from the published tokens/s/GPU:

        | values | checked | agree | all | rule |
        | --- | ---: | ---: | --- | --- |
        | Pareto flags | 0 | 0 | - | equal |
        | cost | 0 | 0 | - | within rounding to 3 decimals |
        | tokens/s/MW | 0 | 0 | - | within rounding to 3 decimals |

        No differences.

        ## Columns

        No column is described.

    "#]]
    .assert_eq(shown(&page));
}

#[test]
fn the_inferencemax_page_needs_the_table_only() {
    let Some(root) = fixtures() else { return };
    let merged = root.join("inferencemax/oct23/expected/inference_max_merged.csv");
    let with = json!({"template": "inferencemax", "title": "October 23"});
    let done = Bench::new(&Report, with).path("merged", &merged).run(&["report"]).ok();
    let page = done.text("report");
    assert!(page.starts_with("# October 23\n\n## Data set\n\n1339 rows, 20 columns."));
    for line in [
        "| Llama 3.3 70B Instruct | 681 | 50.9 % |",
        "| 8k-1k | 453 | 33.8 % |",
        "| gb200_mtp | 21 | 1.6 % |",
        "| fp4 | 725 | 54.1 % |",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
    assert!(!page.contains("\n\n\n"), "one blank line is enough");
}
