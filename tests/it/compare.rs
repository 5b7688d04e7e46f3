//! Two versions of a table compared, and old versions removed: what is kept of results beyond one run.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{Workspace, fixtures};

const KEY: [&str; 6] = ["model_name", "sequence_length", "conc", "hwKey", "precision", "tp"];

fn comparison(with: Value) -> Workspace {
    let mut all = json!({"on": KEY});
    all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    Workspace::with(json!({"steps": {"compare": {
        "uses": "table.compare",
        "inputs": {"old": "old.csv", "new": "new.csv"},
        "with": all,
        "outputs": {
            "changes": {"path": "out/changes.csv", "on_failure": true},
            "summary": {"path": "out/summary.json", "on_failure": true},
            "markdown": {"path": "out/compare.md", "on_failure": true},
        },
    }}}))
}

/// The real merged table as lines: header, then rows.
fn real() -> Option<Vec<String>> {
    let path = fixtures()?.join("inferencemax/oct23/expected/inference_max_merged.csv");
    Some(fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect())
}

fn csv(lines: &[String]) -> String {
    lines.join("\r\n") + "\r\n"
}

/// The row with another text in a column.
fn with(header: &str, row: &str, column: &str, text: &str) -> String {
    let at = header.split(',').position(|name| name == column).unwrap();
    let mut cells: Vec<&str> = row.split(',').collect();
    cells[at] = text;
    cells.join(",")
}

fn cell<'r>(header: &str, row: &'r str, column: &str) -> &'r str {
    row.split(',').nth(header.split(',').position(|name| name == column).unwrap()).unwrap()
}

#[test]
fn exactly_the_differences_of_two_real_tables() {
    let Some(old) = real() else { return };
    let w = comparison(json!({"threshold": 0.001}));
    w.write("old.csv", csv(&old));
    w.write("new.csv", csv(&old));
    w.run(&[]).ok();
    let nothing = w.json("out/summary.json");
    assert_eq!(
        (&nothing["common"], &nothing["added"], &nothing["removed"]),
        (&json!(1339), &json!(0), &json!(0))
    );
    assert_eq!(w.read("out/changes.csv").lines().count(), 1);

    let header = old[0].clone();
    let gone = [5, 100, 101, 900, 1339];
    let mut new: Vec<String> =
        old.iter().enumerate().filter(|(n, _)| !gone.contains(n)).map(|(_, line)| line.clone()).collect();
    for conc in ["1000001", "1000002", "1000003"] {
        new.push(with(&header, &old[7], "conc", conc));
    }
    // two values: one by half, one by a tenth of a per mille
    let before: f64 = cell(&header, &old[20], "e2e_y").parse().unwrap();
    let place = new.iter().position(|line| *line == old[20]).unwrap();
    new[place] = with(&header, &old[20], "e2e_y", &(before * 1.5).to_string());
    let small: f64 = cell(&header, &old[21], "inter_x").parse().unwrap();
    let place = new.iter().position(|line| *line == old[21]).unwrap();
    new[place] = with(&header, &old[21], "inter_x", &(small * 1.0001).to_string());
    // the order of rows says nothing
    new[1..].reverse();
    w.write("new.csv", csv(&new));
    w.run(&[]).ok().ran(["compare"]);

    let summary = w.json("out/summary.json");
    assert_eq!(summary["common"], 1334);
    assert_eq!((&summary["removed"], &summary["added"]), (&json!(5), &json!(3)));
    let counts = |name: &str| -> Vec<(String, u64)> {
        let map = summary[name].as_object().unwrap();
        map.iter().map(|(k, v)| (k.clone(), v.as_u64().unwrap())).filter(|(_, n)| *n > 0).collect()
    };
    assert_eq!(counts("changed"), [("e2e_y".to_owned(), 1)]);
    assert_eq!(counts("within_noise"), [("inter_x".to_owned(), 1)]);
    let concs = |name: &str| -> BTreeSet<String> {
        let keys = summary[name].as_array().unwrap();
        keys.iter().map(|key| key["conc"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(concs("added_keys"), ["1000001", "1000002", "1000003"].map(str::to_owned).into());
    assert_eq!(summary["removed_keys"].as_array().unwrap().len(), 5);

    let changes = w.read("out/changes.csv");
    let lines: Vec<&str> = changes.lines().collect();
    assert_eq!(lines[0], format!("{},column,old,new,absolute,relative,beyond_noise", KEY.join(",")));
    assert_eq!(lines.len(), 3, "{changes}");
    let line = lines.iter().find(|line| cell(lines[0], line, "column") == "e2e_y").unwrap();
    assert_eq!(cell(lines[0], line, "old"), cell(&header, &old[20], "e2e_y"));
    assert_eq!(cell(lines[0], line, "beyond_noise"), "true");
    let relative: f64 = cell(lines[0], line, "relative").parse().unwrap();
    assert!((relative - 0.5).abs() < 1e-9, "{relative}");
    for key in KEY {
        assert_eq!(cell(lines[0], line, key), cell(&header, &old[20], key), "{key}");
    }
    let page = w.read("out/compare.md");
    assert!(page.contains("1000002") && page.contains("e2e_y"), "{page}");
}

#[test]
fn a_repeated_key_is_refused_with_both_rows() {
    let Some(old) = real() else { return };
    let w = comparison(json!({}));
    w.write("old.csv", csv(&old));
    let mut new = old.clone();
    new.push(with(&old[0], &old[12], "e2e_y", "1"));
    w.write("new.csv", csv(&new));
    let run = w.run(&[]).exits(1).failed(["compare"]).says("new.csv lines 13 and 1341");
    let mut run = run;
    for key in KEY {
        run = run.says(cell(&old[0], &old[12], key));
    }
    assert!(!w.has("out/changes.csv"), "nothing is compared");
    drop(run);
}

#[test]
fn an_unwanted_change_fails_the_run_after_its_report() {
    let table = |rows: &[&str]| format!("k,v\r\n{}\r\n", rows.join("\r\n"));
    for (fail_on, new, code) in [
        (Value::Null, vec!["a,2"], 0),
        (json!("changed"), vec!["a,2", "b,1"], 1),
        (json!("changed"), vec!["a,1"], 0),
        (json!("removed"), vec!["a,2", "b,1"], 0),
        (json!("removed"), vec!["a,1"], 1),
        (json!("any"), vec!["a,1", "b,1", "c,1"], 1),
        (json!("any"), vec!["a,1.0", "b,1"], 0),
    ] {
        let w = comparison(json!({"on": ["k"], "fail_on": fail_on}));
        w.write("old.csv", table(&["a,1", "b,1"])).write("new.csv", table(&new));
        w.run(&[]).exits(code);
        assert!(
            w.has("out/compare.md") && w.has("out/summary.json") && w.has("out/changes.csv"),
            "{fail_on}"
        );
        // a failure is no result: the gate holds on every run
        w.run(&[]).exits(code);
    }
}

#[test]
fn a_run_fails_if_something_got_worse_beyond_noise() {
    let table = |values: [f64; 3]| {
        let rows = values.iter().enumerate().map(|(n, v)| format!("a,{n},{v}\r\n"));
        format!("k,repeat,ttft\r\n{}", rows.collect::<String>())
    };
    for (new, code, verdict) in
        [([1.1, 1.4, 0.9], 0, "noise"), ([1.3, 1.32, 1.28], 1, "worse"), ([0.7, 0.71, 0.69], 0, "better")]
    {
        let w = comparison(json!({
            "on": ["k"], "spread": ["repeat"], "noise": "welch", "better": {"ttft": "lower"}, "fail_over": 0.1
        }));
        let mut flow = w.json("flow.json");
        flow["steps"]["compare"]["outputs"]["verdicts"] =
            json!({"path": "out/verdicts.csv", "on_failure": true});
        w.write("flow.json", flow.to_string());
        w.write("old.csv", table([1.0, 1.02, 0.98])).write("new.csv", table(new));
        let run = w.run(&[]).exits(code);
        if code == 1 {
            run.says("k=a: ttft 1 -> 1.3 (+30.00 %)");
        }
        assert!(w.read("out/verdicts.csv").contains(&format!("a,ttft,{verdict},welch,")), "{verdict}");
    }
}

#[test]
fn a_wrong_column_is_named_with_what_there_is() {
    let w = comparison(json!({"on": ["k"], "columns": ["valu"]}));
    w.write("old.csv", "k,value\r\na,1\r\n").write("new.csv", "k,value\r\na,1\r\n");
    w.run(&[]).exits(1).says("valu").says("k,value");
    let w = comparison(json!({"on": ["k"], "fail_on": "sometimes"}));
    w.write("old.csv", "k\r\n").write("new.csv", "k\r\n");
    w.run(&[]).exits(3).says("fail_on").says("flow.json:");
}

fn archive(keep: u32) -> Workspace {
    let w = Workspace::with(json!({"steps": {
        "table": {"run": "cat data > table", "inputs": {"data": "data"}, "outputs": {"table": "table"}},
        "version": {
            "uses": "archive.version",
            "inputs": {"tables": "${steps.table.table}"},
            "outputs": {"versions": {"path": "versions/", "append": true}},
        },
        "prune": {
            "uses": "archive.prune",
            "needs": ["version"],
            "with": {"directory": "versions", "keep": keep},
            "outputs": {"report": "pruned.json"},
        },
    }}));
    w.write("data", "one");
    w
}

/// The name of the version that holds `text`.
fn version_of(w: &Workspace, text: &str) -> Option<String> {
    fs::read_dir(w.path("versions"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| fs::read_to_string(entry.path().join("table")).is_ok_and(|table| table == text))
        .map(|entry| entry.file_name().into_string().unwrap())
}

/// Makes a version look `days` old: retention goes by age.
fn age(w: &Workspace, text: &str, days: u64) {
    let dir = w.path("versions").join(version_of(w, text).unwrap());
    let time = SystemTime::now() - Duration::from_secs(days * 86_400);
    fs::File::open(dir).unwrap().set_modified(time).unwrap();
}

#[test]
fn old_versions_are_removed_and_not_made_again() {
    let w = archive(2);
    for (n, text) in ["one", "two", "three"].iter().enumerate() {
        w.write("data", text);
        w.run(&[]).ok().ran(["table", "version", "prune"]);
        age(&w, text, 10 - n as u64);
    }
    assert_eq!((version_of(&w, "one"), version_of(&w, "two").is_some()), (None, true));
    assert!(version_of(&w, "three").is_some());
    let report = w.json("pruned.json");
    assert_eq!(report["removed"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["kept"].as_array().unwrap().len(), 2);

    // it runs whenever it is selected, and brings nothing back
    w.run(&[]).ok().ran(["prune"]);
    assert_eq!(version_of(&w, "one"), None);
    assert_eq!(w.json("pruned.json")["removed"], json!([]));

    // back to the data of a removed version: what was removed counts as in place
    w.write("data", "one");
    let run = w.run(&[]).ok().ran(["prune"]);
    assert_eq!(run.node("version")["outcome"], "fresh");
    assert_eq!(version_of(&w, "one"), None);
    w.run(&["version"]).ok().ran([]);
    // but a version removed by hand comes back
    w.write("data", "three");
    w.run(&[]).ok();
    let three = format!("versions/{}", version_of(&w, "three").unwrap());
    w.remove(&three);
    w.run(&[]).ok().restored(["version"]);
    assert!(w.has(&format!("{three}/metadata.json")));
}

#[test]
fn the_current_version_stays_however_old_it_is() {
    let w = archive(1);
    w.write("data", "one");
    w.run(&["version"]).ok();
    w.write("data", "two");
    w.run(&["version"]).ok();
    age(&w, "one", 9);
    // back to the first, which is the older one
    w.write("data", "one");
    w.run(&[]).ok();
    let report = w.json("pruned.json");
    assert_eq!(report["removed"], json!([]));
    let reasons: Vec<&str> =
        report["kept"].as_array().unwrap().iter().map(|kept| kept["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["newest", "current"]);
    assert!(version_of(&w, "one").is_some() && version_of(&w, "two").is_some());
}
