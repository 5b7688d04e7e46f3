//! `table.compare` on real and on small tables.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::stage::harness::{Bench, Finished, fixtures};

const ALL: [&str; 3] = ["changes", "summary", "markdown"];

fn compare(with: Value, old: &str, new: &str) -> Finished {
    Bench::new(&Compare, with).file("old", "old.csv", old).file("new", "new.csv", new).run(&ALL)
}

fn failed(finished: &Finished, expected: Expect) {
    let error = finished.result.as_ref().unwrap_err();
    expected.assert_eq(&[vec![error.message.clone()], error.hints.clone()].concat().join("\n"));
}

#[test]
fn oct23_against_itself_with_edits_gives_exactly_the_edits() {
    let Some(root) = fixtures() else { return };
    let old =
        std::fs::read_to_string(root.join("inferencemax/oct23/expected/inference_max_merged.csv")).unwrap();
    let mut rows: Vec<Vec<String>> =
        old.split_terminator("\r\n").map(|line| line.split(',').map(str::to_owned).collect()).collect();
    let key = |row: &[String]| json!({"model_name": row[0], "sequence_length": row[1], "conc": row[2], "hwKey": row[9], "precision": row[10], "tp": row[11]});
    let place = |column: &str| old.lines().next().unwrap().split(',').position(|c| c == column).unwrap();
    rows[100][place("e2e_x")] = "0.5".into();
    rows[900][place("costh_roof")] = "maybe".into();
    let edited = [rows[100][..].to_vec(), rows[900][..].to_vec()];
    let mut removed = Vec::new();
    for place in [1300, 1299, 700, 12, 1] {
        removed.push(key(&rows.remove(place)));
    }
    removed.reverse();
    let mut added = Vec::new();
    for n in 0..3 {
        let mut row = rows[5].clone();
        row[2] = format!("9{n}");
        added.push(key(&row));
        rows.push(row);
    }
    let new: String = rows.iter().map(|row| row.join(",") + "\n").collect();
    let with = json!({"on": ["model_name", "sequence_length", "conc", "hwKey", "precision", "tp"]});
    let done = compare(with.clone(), &old, &new).ok();
    let summary = done.json("summary");
    assert_eq!(summary["common"], 1334);
    assert_eq!(summary["added"], 3);
    assert_eq!(summary["removed"], 5);
    assert_eq!(summary["changed"], json!({"costh_roof": 1, "e2e_x": 1}));
    assert_eq!(summary["added_keys"], json!(added));
    assert_eq!(summary["removed_keys"], json!(removed));
    let changes = Table::parse("changes", done.text("changes").as_bytes()).unwrap();
    assert_eq!(changes.columns()[6..], CHANGE_COLUMNS);
    assert_eq!(changes.rows().len(), 2);
    for (row, (edited, column)) in changes.rows().zip(edited.iter().zip(["e2e_x", "costh_roof"])) {
        let row = row.read();
        let cells: Vec<&str> = row.cells().collect();
        assert_eq!(cells[..3], edited[..3]);
        assert_eq!(cells[3..6], edited[9..12]);
        assert_eq!((cells[6], cells[8], cells[11]), (column, edited[place(column)].as_str(), "true"));
    }
    let same = compare(with, &old, &old.replace("\r\n", "\n")).ok();
    assert_eq!(same.json("summary")["changed"], json!({}));
    assert_eq!(same.text("changes").lines().count(), 1);
}

#[test]
fn every_output_of_a_small_comparison() {
    let old = "k,x,note,gone\na,100,p|q,1\nb,200,s,1\nc,0,s,1\nd,1,s,1\n";
    let new = "k,note,x,fresh\nb,s,200.1,1\na,r,150,1\ne,s,1,1\nc,s,3,1\n";
    let done = compare(json!({"on": ["k"], "threshold": 0.01}), old, new).ok();
    expect![[r#"
        k,column,old,new,absolute,relative,beyond_noise
        a,x,100,150,50,0.5,true
        a,note,p|q,r,,,true
        b,x,200,200.1,0.09999999999999432,0.0004999999999999716,false
        c,x,0,3,3,,true
    "#]]
    .assert_eq(&done.text("changes").replace("\r\n", "\n"));
    expect![[r##"
        # Comparison of two tables

        Key: k. A change counts if it is above 1 %; where measurements were repeated, only if their ranges are apart.

        | keys | number |
        | --- | ---: |
        | in both | 3 |
        | of these changed | 2 |
        | added | 1 |
        | removed | 1 |

        ## Changed values

        | column | changed | within noise | largest relative change |
        | --- | ---: | ---: | ---: |
        | x | 2 | 1 | +50.00 % |
        | note | 1 | 0 |  |

        ## Largest changes

        | k | column | old | new | change |
        | --- | --- | ---: | ---: | ---: |
        | a | note | p\|q | r |  |
        | c | x | 0 | 3 |  |
        | a | x | 100 | 150 | +50.00 % |

        ## Added keys

        | k |
        | --- |
        | e |

        ## Removed keys

        | k |
        | --- |
        | d |

        Columns only the old table has: gone.

        Columns only the new table has: fresh.
    "##]]
    .assert_eq(&done.text("markdown"));
    assert_eq!(
        done.json("summary"),
        json!({
            "common": 3, "added": 1, "removed": 1, "changed": {"x": 2, "note": 1}, "within_noise": {"x": 1}, "changed_keys": 2,
            "added_keys": [{"k": "e"}], "removed_keys": [{"k": "d"}],
            "columns": {"compared": ["x", "note"], "old_only": ["gone"], "new_only": ["fresh"]}
        })
    );
}

#[test]
fn a_repeated_key_is_refused_with_files_and_lines() {
    let with = || json!({"on": ["k"], "columns": ["v"]});
    let done =
        compare(with(), "k,v,repeat\na,1,1\nb,2,1\na,3,2\n", "k,v,repeat\nb,1,1\nb,2,2\nb,3,3\nb,4,4\n");
    failed(
        &done,
        expect![[r#"
            the key (k) is not unique, so rows cannot be told apart:
              k=a: old.csv lines 2 and 4
              k=b: new.csv lines 2, 3 and 2 more
            add the column that tells these rows apart to 'on', or to 'spread' if they are repeats of one measurement"#]],
    );
    assert!(!done.path("changes").exists());
    let many: String = "k,v\n".to_owned() + &"a,1\nb,1\nc,1\nd,1\ne,1\nf,1\n".repeat(2);
    let error = compare(with(), &many, "k,v\n").result.unwrap_err();
    assert!(error.message.ends_with("k=e: old.csv lines 6 and 12\n  and 1 more"), "{}", error.message);
}

#[test]
fn repeats_change_only_when_their_ranges_are_apart() {
    let old = "k,repeat,v\na,1,10\na,2,12\nb,1,10\nb,2,12\n";
    let new = "k,repeat,v\na,1,11\na,2,15\nb,1,14\nb,2,13\nb,3,15\n";
    let done = compare(json!({"on": ["k"], "spread": ["repeat"], "fail_on": "changed"}), old, new);
    failed(
        &done,
        expect![[r#"
            new.csv differs from old.csv ('fail_on' is changed): values changed beyond noise: v 1
            the outputs 'changes', 'summary' and 'markdown' say where; declare them 'on_failure' to keep them"#]],
    );
    assert_eq!(
        done.text("changes").replace("\r\n", "\n"),
        "k,column,old,new,absolute,relative,beyond_noise\na,v,11,13,2,0.18181818181818182,false\nb,v,11,14,3,0.2727272727272727,true\n"
    );
    let twice = compare(json!({"on": ["k"], "spread": ["repeat"]}), old, "k,repeat,v\na,1,11\na,1,15\n");
    assert!(twice.result.unwrap_err().message.contains("k=a, repeat=1: new.csv lines 2 and 3"));
}

#[test]
fn fail_on_says_what_fails() {
    let run = |fail_on: &str, new: &str| {
        compare(json!({"on": ["k"], "fail_on": fail_on, "threshold": 0.1}), "k,v\na,10\nb,10\n", new)
            .result
            .map_err(|e| e.message.split_once("): ").unwrap().1.to_owned())
            .err()
            .unwrap_or_default()
    };
    assert_eq!(run("changed", "k,v\na,10.5\nc,1\n"), "");
    assert_eq!(run("changed", "k,v\na,12\nb,NaN\n"), "values changed beyond noise: v 2");
    assert_eq!(run("removed", "k,v\na,12\nb,1\nc,1\n"), "");
    assert_eq!(run("removed", "k,v\na,12\n"), "keys removed: 1");
    assert_eq!(run("any", "k,v\na,10\nb,10\nc,1\n"), "keys added: 1");
    assert_eq!(
        run("any", "k,v\na,20\nc,1\n"),
        "values changed beyond noise: v 1; keys removed: 1; keys added: 1"
    );
    let kept = compare(json!({"on": ["k"], "fail_on": "any"}), "k,v\na,1\n", "k,v\n");
    assert!(kept.result.is_err());
    assert!(
        ALL.iter().all(|output| kept.path(output).exists()),
        "outputs are written before the stage fails"
    );
}

#[test]
fn parameters_are_checked_before_anything_runs() {
    let fault = |with: Value| {
        let fault = Compare.check(&with).unwrap_err();
        format!("{}: {}", fault.path, fault.message)
    };
    assert_eq!(fault(json!({"on": []})), "on: expected at least one key column");
    assert_eq!(fault(json!({"on": ["k"], "columns": ["k"]})), "columns: 'k' stands in 'on' already");
    assert_eq!(fault(json!({"on": ["k"], "spread": ["k"]})), "spread: 'k' stands in 'on' already");
    assert_eq!(
        fault(json!({"on": ["k"], "threshold": -1})),
        "threshold: expected a share of 0 or more (0.01 is 1 %)"
    );
    assert_eq!(
        fault(json!({"on": ["old"]})),
        "on: a key column cannot be named 'old': the output 'changes' has a column of that name"
    );
}

/// scipy 1.17.1: `stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)` of tps are
/// -0.5847 to 2.7181 for a and 0.8665 to 3.1335 for b, so a is noise.
#[test]
fn verdicts_say_what_got_better_or_worse_beyond_noise() {
    let old = "k,repeat,tps,ttft\na,1,10,1\na,2,11,1\na,3,10.2,1\nb,1,10,1\nb,2,10.5,1\nb,3,9.5,1\nc,1,5,2\nd,1,5,0\ne,1,1,1\n";
    let new = "k,repeat,tps,ttft\na,1,11,1\na,2,11,1\na,3,12.4,1\nb,1,12,1.5\nb,2,12.5,1.6\nb,3,11.5,1.4\nc,1,5.04,NaN\nd,1,4,3\nf,1,1,1\n";
    let with = |extra: Value| {
        let mut with = json!({
            "on": ["k"], "spread": ["repeat"], "columns": ["tps", "ttft"], "threshold": 0.01, "noise": "welch",
            "better": {"tps": "higher", "ttft": "lower"}
        });
        with.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        with
    };
    let run = |extra: Value| {
        Bench::new(&Compare, with(extra))
            .file("old", "old.csv", old)
            .file("new", "new.csv", new)
            .run(&["changes", "summary", "markdown", "verdicts"])
    };
    let done = run(json!({})).ok();
    let table = Table::parse("verdicts", done.text("verdicts")).unwrap();
    let rows: Vec<String> = table
        .rows()
        .map(|row| [0, 1, 2, 3, 10, 11].map(|column| row.cell(column).into_owned()).join(" "))
        .collect();
    expect![[r#"
        a tps noise welch 3 3
        a ttft same  3 3
        b tps better welch 3 3
        b ttft worse welch 3 3
        c tps same threshold 1 1
        c ttft only_left  1 0
        d tps worse threshold 1 1
        d ttft worse threshold 1 1
        e  only_left  1 0
        f  only_right  0 1"#]]
    .assert_eq(&rows.join("\n"));
    let cell = |row: usize, column: &str| -> f64 {
        table.row(row).cell(table.column(column).unwrap()).parse().unwrap()
    };
    for (row, low, high) in
        [(0, -0.584749894814977, 2.71808322814831), (2, 0.8665210322362404, 3.1334789677637596)]
    {
        assert!((cell(row, "low") - low).abs() < 1e-9, "{row}");
        assert!((cell(row, "high") - high).abs() < 1e-9, "{row}");
    }
    assert_eq!(
        done.json("summary")["verdicts"]["ttft"],
        json!({"better": 0, "worse": 2, "same": 1, "noise": 0, "only_left": 1, "only_right": 0})
    );
    let page = done.text("markdown");
    expect![[r#"

        ## Better and worse

        | column | better is | better | worse | same | noise | only_left | only_right |
        | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
        | tps | higher | 1 | 1 | 1 | 1 | 0 | 0 |
        | ttft | lower | 0 | 2 | 1 | 0 | 1 | 0 |

        ### Worse

        | k | column | old | new | change | decided by |
        | --- | --- | ---: | ---: | ---: | --- |
        | c | ttft | 2 |  |  | threshold |
        | d | ttft | 0 | 3 |  | threshold |
        | b | ttft | 1 | 1.5 | +50.00 % | welch |
        | d | tps | 5 | 4 | -20.00 % | threshold |
    "#]]
    .assert_eq(&page[page.find("\n## Better").unwrap()..]);

    failed(
        &run(json!({"fail_over": 0.1})),
        expect![[r#"
            new.csv is worse than old.csv by more than 10 % ('fail_over' is 0.1) in 4 values:
              k=c: ttft 2 -> 
              k=d: ttft 0 -> 3
              k=b: ttft 1 -> 1.5 (+50.00 %)
              k=d: tps 5 -> 4 (-20.00 %)
            the outputs 'changes', 'summary' and 'markdown' say where; declare them 'on_failure' to keep them"#]],
    );
    failed(
        &run(json!({"fail_over": 0.1, "fail_on": "removed"})),
        expect![[r#"
            new.csv differs from old.csv ('fail_on' is removed): keys removed: 1
            new.csv is worse than old.csv by more than 10 % ('fail_over' is 0.1) in 4 values:
              k=c: ttft 2 -> 
              k=d: ttft 0 -> 3
              k=b: ttft 1 -> 1.5 (+50.00 %)
              k=d: tps 5 -> 4 (-20.00 %)
            the outputs 'changes', 'summary' and 'markdown' say where; declare them 'on_failure' to keep them"#]],
    );
    assert!(run(json!({"fail_over": 0.5, "better": {"tps": "higher"}})).result.is_ok());
    // more confidence asked for, and less is sure
    let sure = run(json!({"confidence": 0.9999})).ok();
    assert_eq!(sure.json("summary")["verdicts"]["ttft"]["noise"], json!(1));
}

#[test]
fn a_column_with_a_direction_holds_numbers() {
    let with = json!({"on": ["k"], "better": {"v": "lower"}});
    failed(
        &compare(with.clone(), "k,v\na,1\n", "k,v\na,x\n"),
        expect![[r#"
            new.csv line 2, column 'v': 'x' is no number
            'better' names columns of numbers; empty cells and NaN are passed over"#]],
    );
    failed(
        &compare(with, "k,v\na,1\n", "k,w\na,1\n"),
        expect!["new.csv: no column 'v' (parameter 'better'); its header is: k,w"],
    );
    let fault = |with: Value| {
        let fault = Compare.check(&with).unwrap_err();
        format!("{}: {}", fault.path, fault.message)
    };
    assert_eq!(
        fault(json!({"on": ["k"], "fail_over": 0.1})),
        "fail_over: 'better' has to say which columns can get worse, and how"
    );
    assert_eq!(
        fault(json!({"on": ["k"], "columns": ["v"], "better": {"w": "lower"}})),
        "better: 'w' is not among the columns that are compared"
    );
    assert_eq!(
        fault(json!({"on": ["k"], "confidence": 1})),
        "confidence: expected a probability between 0 and 1 (0.95 is 95 %)"
    );
    assert_eq!(
        fault(json!({"on": ["low"], "better": {"w": "lower"}})),
        "on: a key column cannot be named 'low': the output 'verdicts' has a column of that name"
    );
}

#[test]
fn summaries_under_different_rule_sets_are_refused() {
    let old = "k,repeat,rules,ttft\na,1,flow,1\na,2,flow,1\nb,1,flow,1\n";
    let with = |extra: Value| {
        let mut with = json!({"on": ["k"], "spread": ["repeat"]});
        with.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        with
    };
    failed(
        &compare(with(json!({})), old, "k,repeat,rules,ttft\na,1,flow,2\nb,1,aisbench,2\n"),
        expect![[r#"
            old.csv and new.csv hold numbers under different rule sets, which cannot be compared: k=b is under 'flow' in old.csv line 4, under 'aisbench' in new.csv line 3
            compute both by one rule set: the parameter 'rules' of metrics.compute
            with 'rules' in 'on', rows are compared with those under the same one only"#]],
    );
    // whatever is compared, and among repeats as well
    let mixed = "k,repeat,rules,ttft\na,1,flow,2\na,2,vllm,2\n";
    let error = compare(with(json!({"columns": ["ttft"]})), old, mixed).result.unwrap_err();
    assert!(error.message.ends_with("under 'flow' in old.csv line 2, under 'vllm' in new.csv line 3"));
    // the rule set as part of the key, as the only thing compared, unknown; another meaning of the column
    compare(json!({"on": ["k", "rules"], "spread": ["repeat"]}), old, mixed).ok();
    compare(with(json!({"columns": ["rules"]})), old, mixed).ok();
    compare(with(json!({})), old, "k,repeat,rules,ttft\na,1,,2\n").ok();
    compare(with(json!({})), &old.replace("flow", "x"), &old.replace("flow", "y")).ok();
}

#[test]
fn percentiles_by_different_rules_are_refused() {
    for column in ["percentile_rule", "rule"] {
        let table = |rule: &str| format!("k,{column},p99\na,{rule},1\n");
        let compared =
            |on: Value, old: &str, new: &str| compare(json!({ "on": on }), &table(old), &table(new));
        let error = compared(json!(["k"]), "linear", "nearest").result.unwrap_err();
        assert_eq!(
            error.message,
            "old.csv and new.csv hold percentiles by different rules, which cannot be compared: k=a is under 'linear' in old.csv line 2, \
                under 'nearest' in new.csv line 2"
        );
        assert!(error.hints[0].contains("'percentile_rule'") && error.hints[1].contains(column), "{error:?}");
        compared(json!(["k"]), "nearest", "nearest").ok();
        compared(json!(["k", column]), "linear", "nearest").ok();
        compared(json!(["k"]), "mine", "yours").ok();
    }
}

#[test]
fn json_is_no_table() {
    failed(
        &compare(json!({"on": ["k"]}), "k\n", "{\n  \"rules\": \"flow\"\n}\n"),
        expect![[r#"
            new.csv: expected CSV with a header, found JSON
            make tables of what is to be compared (of summaries with the column 'rules', which says what their numbers mean); table.convert makes CSV of a list of objects"#]],
    );
}

#[test]
fn null_is_as_good_as_not_given() {
    let null = json!({
        "on": ["k"], "columns": null, "threshold": null, "spread": null, "noise": null, "confidence": null, "better": null,
        "fail_on": null, "fail_over": null
    });
    let run = |with: Value| compare(with, "k,v\na,1\n", "k,v\na,2\n").ok();
    let (found, expected) = (run(null), run(json!({"on": ["k"]})));
    for output in ALL {
        assert_eq!(found.text(output), expected.text(output), "{output}");
    }
    let fault = Compare.check(&json!({"on": ["k"], "noise": "range"})).unwrap_err();
    assert_eq!(fault.worded("table.compare").0, "parameter 'noise' of table.compare: 'range' is no choice");
}
