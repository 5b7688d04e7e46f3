//! `csv.join` on real and on small tables.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::stage::harness::{Bench, Finished, fixtures};

fn imx(on_duplicate: &str) -> Value {
    json!({
        "on": ["model_name", "sequence_length", "conc", "hwKey", "precision", "tp"], "columns": ["x", "y"],
        "prefix": {"left": "e2e_", "right": "inter_"}, "on_duplicate": on_duplicate
    })
}

fn join(with: Value, left: &str, right: &str) -> Finished {
    Bench::new(&Join, with).file("left", "l.csv", left).file("right", "r.csv", right).run(&["csv", "report"])
}

fn small(extra: Value) -> Value {
    let mut with =
        json!({"on": ["k"], "columns": ["v"], "prefix": {"left": "l_", "right": "r_"}, "line_end": "lf"});
    with.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    with
}

fn failed(finished: &Finished, expected: Expect) {
    let error = finished.result.as_ref().unwrap_err();
    expected.assert_eq(&[vec![error.message.clone()], error.hints.clone()].concat().join("\n"));
    assert!(!error.retryable);
    assert!(!finished.path("csv").exists(), "a failed join leaves no table");
}

#[test]
fn oct23_is_reproduced_byte_for_byte() {
    let Some(root) = fixtures() else { return };
    let dir = root.join("inferencemax/oct23/expected");
    for policy in ["cross", "fail"] {
        let done = Bench::new(&Join, imx(policy))
            .path("left", &dir.join("inference_max_e2e.csv"))
            .path("right", &dir.join("inference_max_interactivity.csv"))
            .run(&["csv", "report"])
            .ok();
        assert_eq!(
            std::fs::read(done.path("csv")).unwrap(),
            std::fs::read(dir.join("inference_max_merged.csv")).unwrap()
        );
        let report = done.json("report");
        let conflicts: Value =
            serde_json::from_slice(&std::fs::read(dir.join("join-conflicts.json")).unwrap()).unwrap();
        assert_eq!(report["conflicts"], conflicts);
        assert_eq!(report["conflicts"].as_array().unwrap().len(), 23);
        assert_eq!(report["matched_keys"], 1339);
        assert_eq!(report["match_rate"], json!(1.0));
        assert_eq!(report["rows"], json!({"left": 1339, "right": 1339, "joined": 1339}));
        assert_eq!(report["completeness"]["inter_y"], json!(1.0));
        for empty in ["left_only", "right_only", "duplicates"] {
            assert_eq!(report[empty], json!([]));
        }
    }
}

const LEFT: &str = "k,s,v\nb,1,10\na,1,11\nb,2,12\nc,3,13\n";
const RIGHT: &str = "k,v,s,e\nd,20,4,x\nb,21,1,y\nb,22,2,z\na,23,1,w\n";

#[test]
fn rows_of_a_key_stay_together_and_right_only_keys_come_last() {
    let done = join(small(json!({"on_duplicate": "cross"})), LEFT, RIGHT).ok();
    expect![[r#"
        k,s,l_v,r_v,e
        b,1,10,21,y
        b,1,10,22,z
        b,2,12,21,y
        b,2,12,22,z
        a,1,11,23,w
        c,3,13,,
        d,4,,20,x
    "#]]
    .assert_eq(&done.text("csv"));
    expect![[r#"
        {
          "matched_keys": 2,
          "left_only": [
            {
              "k": "c"
            }
          ],
          "right_only": [
            {
              "k": "d"
            }
          ],
          "duplicates": [
            {
              "key": {
                "k": "b"
              },
              "left": 2,
              "right": 2
            }
          ],
          "conflicts": [
            {
              "key": {
                "k": "b"
              },
              "columns": [
                "s"
              ]
            },
            {
              "key": {
                "k": "b"
              },
              "columns": [
                "s"
              ]
            }
          ],
          "match_rate": 0.5,
          "rows": {
            "left": 4,
            "right": 4,
            "joined": 7
          },
          "dropped": {
            "left": 0,
            "right": 0
          },
          "completeness": {
            "l_v": 0.8571428571428571,
            "r_v": 0.8571428571428571
          },
          "columns": {
            "left_only": [],
            "right_only": [
              "e"
            ]
          }
        }
    "#]]
    .assert_eq(&done.text("report"));
}

#[test]
fn first_and_last_take_one_row_per_side_and_count_the_others() {
    let first = join(small(json!({"on_duplicate": "first"})), LEFT, RIGHT).ok();
    assert_eq!(first.text("csv"), "k,s,l_v,r_v,e\nb,1,10,21,y\na,1,11,23,w\nc,3,13,,\nd,4,,20,x\n");
    let last = join(small(json!({"on_duplicate": "last", "one_sided": "drop"})), LEFT, RIGHT).ok();
    assert_eq!(last.text("csv"), "k,s,l_v,r_v,e\nb,2,12,22,z\na,1,11,23,w\n");
    assert_eq!(first.json("report")["dropped"], json!({"left": 1, "right": 1}));
    assert_eq!(last.json("report")["dropped"], json!({"left": 2, "right": 2}));
}

#[test]
fn duplicates_fail_by_default_and_the_report_is_there() {
    let done = join(small(json!({})), LEFT, RIGHT);
    failed(
        &done,
        expect![[r#"
            the key (k) is not unique: 1 with several rows
              k=b: l.csv lines 2 and 4; r.csv lines 3 and 4
            add the column that tells these rows apart to 'on'
            or choose with 'on_duplicate': cross (every combination), first, last"#]],
    );
    assert_eq!(done.json("report")["duplicates"], json!([{"key": {"k": "b"}, "left": 2, "right": 2}]));
}

#[test]
fn one_sided_keys_can_fail_the_join() {
    let left = "k,v\na,1\nb,2\nc,3\nd,4\ne,5\nf,6\n";
    let done = join(small(json!({"one_sided": "fail"})), left, "k,v\ng,1\na,1\n");
    failed(
        &done,
        expect![[r#"
            6 keys have rows on one side only ('one_sided' is fail)
              k=b: l.csv line 3
              k=c: l.csv line 4
              k=d: l.csv line 5
              k=e: l.csv line 6
              k=f: l.csv line 7
              and 1 more, all of them in the output 'report'"#]],
    );
    assert_eq!(done.json("report")["right_only"], json!([{"k": "g"}]));
}

#[test]
fn bad_tables_are_refused() {
    let with = || small(json!({}));
    failed(
        &join(with(), "K,v\na,1\n", "k,v\na,1\n"),
        expect![[r#"
            l.csv: no column 'k' (parameter 'on'); its header is: K,v
            did you mean 'K'?"#]],
    );
    failed(
        &join(with(), "k,v\na,1\n", "k,w\na,1\n"),
        expect!["r.csv: no column 'v' (parameter 'columns'); its header is: k,w"],
    );
    failed(
        &join(with(), "k,v\na,1\n", "k,v\na,1,2\n"),
        expect![[r#"
            r.csv:2: expected 2 cells as in the header, found 3
            a cell that holds a comma, a quote or a line end must be quoted"#]],
    );
    failed(&join(with(), "", "k,v\na,1\n"), expect!["l.csv: empty (expected at least a header line)"]);
    failed(
        &join(with(), "k,v,r_v\na,1,2\n", "k,v\na,1\n"),
        expect![[r#"
            the result would have two columns named 'r_v' (l.csv joined with r.csv)
            choose another 'prefix' for the value columns"#]],
    );
}

#[test]
fn tables_without_rows_join_to_what_is_there() {
    let done = join(small(json!({})), "k,v\n", "\u{feff}k,v\r\na,1\r\n").ok();
    assert_eq!(done.text("csv"), "k,l_v,r_v\na,,1\n");
    assert_eq!(done.json("report")["match_rate"], json!(0.0));
    let none = join(small(json!({})), "k,v\n", "k,v\n").ok();
    assert_eq!(none.text("csv"), "k,l_v,r_v\n");
    assert_eq!(none.json("report")["match_rate"], Value::Null);
}

#[test]
fn parameters_are_checked_before_anything_runs() {
    let fault = |with: Value| {
        let fault = Join.check(&with).unwrap_err();
        format!("{}: {}", fault.path, fault.message)
    };
    assert_eq!(fault(json!({"on": []})), "on: expected at least one key column");
    assert_eq!(fault(json!({"on": ["a", "a"]})), "on: 'a' stands twice");
    assert_eq!(
        fault(json!({"on": ["a"], "columns": ["a"]})),
        "columns: 'a' is a key column (parameter 'on'), it cannot be a value column too"
    );
    assert_eq!(
        fault(json!({"on": ["a"], "columns": ["b"], "prefix": {"left": "", "right": ""}})),
        "prefix: left and right need different prefixes to keep the value columns apart"
    );
    expect!["on_duplicate: unknown variant `all`, expected one of `fail`, `cross`, `first`, `last`"]
        .assert_eq(&fault(json!({"on": ["a"], "on_duplicate": "all"})));
    assert!(fault(json!({"on": ["a"], "colums": []})).contains("unknown field `colums`"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
    #[test]
    fn cross_is_what_two_nested_loops_give(
        left in proptest::collection::vec(("[abc]", "[01]", "[xy]"), 0..7),
        right in proptest::collection::vec(("[bcd]", "[01]", "[xy]"), 0..7),
    ) {
        let text = |rows: &[(String, String, String)]| -> String {
            rows.iter().fold("k,s,v\n".to_owned(), |text, (k, s, v)| text + &format!("{k},{s},{v}\n"))
        };
        let mut expected = Vec::new();
        let mut conflicts = 0;
        for (i, l) in left.iter().enumerate() {
            if left[..i].iter().any(|before| before.0 == l.0) {
                continue;
            }
            for l in left.iter().filter(|other| other.0 == l.0) {
                let matches: Vec<_> = right.iter().filter(|r| r.0 == l.0).collect();
                conflicts += matches.iter().filter(|r| r.1 != l.1).count();
                if matches.is_empty() {
                    expected.push(format!("{},{},{},", l.0, l.1, l.2));
                }
                expected.extend(matches.iter().map(|r| format!("{},{},{},{}", l.0, l.1, l.2, r.2)));
            }
        }
        for (i, r) in right.iter().enumerate() {
            if left.iter().all(|l| l.0 != r.0) && right[..i].iter().all(|before| before.0 != r.0) {
                expected.extend(right.iter().filter(|o| o.0 == r.0).map(|o| format!("{},{},,{}", o.0, o.1, o.2)));
            }
        }
        let done = join(small(json!({"on_duplicate": "cross"})), &text(&left), &text(&right)).ok();
        let lines: Vec<String> = done.text("csv").lines().skip(1).map(str::to_owned).collect();
        proptest::prop_assert_eq!(lines, expected);
        proptest::prop_assert_eq!(done.json("report")["conflicts"].as_array().unwrap().len(), conflicts);
    }
}

#[test]
fn a_side_without_rows_gives_one_sided_keys_whatever_columns_it_lacks() {
    let with = json!({"on": ["k"], "columns": ["x"], "prefix": {"left": "l_", "right": "r_"}});
    let done = Bench::new(&Join, with)
        .file("left", "left.csv", "k,x\r\n1,2\r\n")
        .file("right", "right.csv", "other\r\n")
        .run(&["csv", "report"])
        .ok();
    assert_eq!(
        done.text("csv").lines().nth(1).map(|row| row.starts_with("1,2,")),
        Some(true),
        "{}",
        done.text("csv")
    );
    let report = done.json("report");
    assert_eq!(
        (report["matched_keys"].as_u64(), report["left_only"].as_array().map(Vec::len)),
        (Some(0), Some(1))
    );
}

/// A row: two cells of the key, a shared cell, a value.
type Cells = (String, String, String, String);

fn written(rows: &[Cells]) -> Vec<u8> {
    // by another writer than the stage's, every cell in quotes
    let mut writer =
        ::csv::WriterBuilder::new().quote_style(::csv::QuoteStyle::Always).from_writer(Vec::new());
    writer.write_record(["k1", "s", "v", "k2"]).unwrap();
    rows.iter().for_each(|(k1, k2, s, v)| writer.write_record([k1, s, v, k2]).unwrap());
    writer.into_inner().unwrap()
}

/// The join as the stage's documentation words it: rows of k1, s, k2, left v, right v.
fn naive(left: &[Cells], right: &[Cells]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let key = |row: &Cells| (row.0.clone(), row.1.clone());
    for (i, first) in left.iter().enumerate() {
        if left[..i].iter().any(|before| key(before) == key(first)) {
            continue;
        }
        for l in left.iter().filter(|l| key(l) == key(first)) {
            let start = |v: &str| vec![l.0.clone(), l.2.clone(), l.1.clone(), l.3.clone(), v.to_owned()];
            let before = rows.len();
            rows.extend(right.iter().filter(|r| key(r) == key(l)).map(|r| start(&r.3)));
            if rows.len() == before {
                rows.push(start(""));
            }
        }
    }
    for (i, first) in right.iter().enumerate() {
        let new = right[..i].iter().all(|before| key(before) != key(first));
        if new && left.iter().all(|l| key(l) != key(first)) {
            let all = right.iter().filter(|r| key(r) == key(first));
            rows.extend(all.map(|r| vec![r.0.clone(), r.2.clone(), r.1.clone(), String::new(), r.3.clone()]));
        }
    }
    rows
}

fn cells() -> impl proptest::strategy::Strategy<Value = Vec<Cells>> {
    let row = ("[ab,\"\r\n ]{0,2}", "[x\n\"]{0,1}", "[s,é\"\n]{0,2}", "[0-9]{0,2}");
    proptest::collection::vec(row, 0..120)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn cells_of_any_text_join_as_by_hand(left in cells(), right in cells()) {
        let with = json!({"on": ["k1", "k2"], "columns": ["v"], "on_duplicate": "cross"});
        let done = Bench::new(&Join, with)
            .file("left", "l.csv", written(&left))
            .file("right", "r.csv", written(&right))
            .run(&["csv", "report"])
            .ok();
        let text = done.text("csv");
        let back: Vec<Vec<String>> = ::csv::Reader::from_reader(text.as_bytes())
            .records()
            .map(|record| record.unwrap().iter().map(str::to_owned).collect())
            .collect();
        proptest::prop_assert_eq!(back, naive(&left, &right));
        let keys = |rows: &[Cells]| -> std::collections::BTreeSet<(String, String)> {
            rows.iter().map(|row| (row.0.clone(), row.1.clone())).collect()
        };
        let (l, r) = (keys(&left), keys(&right));
        let report = done.json("report");
        proptest::prop_assert_eq!(&report["matched_keys"], l.intersection(&r).count());
        proptest::prop_assert_eq!(report["left_only"].as_array().unwrap().len(), l.difference(&r).count());
        proptest::prop_assert_eq!(report["right_only"].as_array().unwrap().len(), r.difference(&l).count());
        let several = |rows: &[Cells], key: &(String, String)| {
            rows.iter().filter(|row| row.0 == key.0 && row.1 == key.1).count() > 1
        };
        let repeated = l.union(&r).filter(|key| several(&left, key) || several(&right, key)).count();
        proptest::prop_assert_eq!(report["duplicates"].as_array().unwrap().len(), repeated);
    }
}
