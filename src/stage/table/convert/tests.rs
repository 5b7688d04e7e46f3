//! `table.convert` between all formats.

use std::path::Path;

use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::stage::harness::{Bench, Finished};

const CSV: &str = "name,n,x,ok,note\r\na,1,0.5,true,007\r\n\"b,\"\"c\",,nan,False,\r\né,-3,2,,x\r\n";

fn convert(with: Value, file: &str, bytes: impl AsRef<[u8]>) -> Finished {
    Bench::new(&Convert, with).file("table", file, bytes).run(&["table", "columns"])
}

fn failed(finished: &Finished, expected: expect_test::Expect) {
    let error = finished.result.as_ref().unwrap_err();
    expected.assert_eq(&[vec![error.message.clone()], error.hints.clone()].concat().join("\n"));
}

#[test]
fn types_are_those_of_all_cells_of_a_column() {
    let done = convert(json!({"format": "jsonl"}), "t.csv", CSV).ok();
    expect![[r#"
        {"name":"a","n":1,"x":0.5,"ok":true,"note":"007"}
        {"name":"b,\"c","n":null,"x":null,"ok":false,"note":""}
        {"name":"é","n":-3,"x":2.0,"ok":null,"note":"x"}
    "#]]
    .assert_eq(&done.text("table"));
    let kinds: Vec<Value> =
        done.json("columns").as_array().unwrap().iter().map(|c| c["type"].clone()).collect();
    assert_eq!(kinds, ["text", "int", "float", "bool", "text"]);
    assert_eq!(done.log, ["3 rows of 5 columns; 1 numbers that are not finite became null"]);
}

#[test]
fn rows_of_json_may_lack_columns_and_hold_anything() {
    let rows =
        r#"[{"a": 1, "b": [1, {"c": null}]}, {"d": "1", "a": 2.5}, {"b": 18446744073709551617, "a": null}]"#;
    let done = convert(json!({"format": "csv"}), "t.json", rows).ok();
    assert_eq!(
        done.text("table"),
        "a,b,d\r\n1.0,\"[1, {\"\"c\"\": null}]\",\r\n2.5,,1\r\n,18446744073709551617,\r\n"
    );
    assert_eq!(convert(json!({"format": "json"}), "t.json", "[]").ok().text("table"), "[]\n");
}

#[test]
fn numbers_are_the_nearest_float_or_text() {
    let numbers = ["0.1234567890123456789", "1.00000000000000000001", "-0", "1e-400", "1e999"];
    let rows: Vec<String> = numbers.iter().map(|n| format!("{{\"n\":{n},\"k\":1}}")).collect();
    let each = |n: usize, with: Value| convert(with, "t.jsonl", &rows[n]).ok().text("table");
    let texts: Vec<String> = (0..numbers.len()).map(|n| each(n, json!({"format": "jsonl"}))).collect();
    assert_eq!(
        texts,
        [
            "{\"n\":0.12345678901234568,\"k\":1}\n",
            "{\"n\":1.0,\"k\":1}\n",
            "{\"n\":-0.0,\"k\":1}\n",
            "{\"n\":\"1e-400\",\"k\":1}\n",
            "{\"n\":\"1e999\",\"k\":1}\n"
        ]
    );
    // CSV says the same of the same numbers
    for (n, text) in numbers.iter().zip(&texts) {
        assert_eq!(
            &convert(json!({"format": "jsonl"}), "t.csv", format!("n,k\n{n},1\n")).ok().text("table"),
            text
        );
    }
}

#[test]
fn json_that_is_no_table_is_refused_with_its_place() {
    let half = "[{\"a\": 1e999},\n{\"b\": [\"\\ud800\"], \"a\": \"x\\ud800y\"\n}]";
    failed(
        &convert(json!({"format": "csv"}), "t.json", half),
        expect![[r#"
            t.json:2: unexpected end of hex escape at line 2 column 32
            half of a surrogate pair (\ud800 to \udfff) is no character"#]],
    );
    failed(
        &convert(json!({"format": "csv"}), "t.jsonl", "{}\n{\"a\": \"x\\ud800y\"}\n"),
        expect![[r#"
            t.jsonl:2: unexpected end of hex escape at line 1 column 15
            each line is one JSON value
            half of a surrogate pair (\ud800 to \udfff) is no character"#]],
    );
    failed(
        &convert(json!({"format": "csv"}), "t.json", "[{\"a\": 1},\n{\"a\": 1, \"b\": 2, \"a\": 3}]"),
        expect![[r#"
            t.json:2: key 'a' stands twice in one object at line 2 column 21
            expected a list of objects"#]],
    );
    failed(
        &convert(json!({"format": "csv"}), "t.jsonl", "{\"a\": 1, \"a\": 1}\n"),
        expect![[r#"
            t.jsonl:1: key 'a' stands twice in one object at line 1 column 12
            each line is one JSON value"#]],
    );
    // a pair is a character, and a list is text as it stands
    let whole = "[{\"a\": \"\\ud83d\\ude00\", \"b\": [\"\\ud800\"]}]";
    assert_eq!(
        convert(json!({"format": "csv"}), "t.json", whole).ok().text("table"),
        "a,b\r\n😀,\"[\"\"\\ud800\"\"]\"\r\n"
    );
}

#[test]
fn a_database_of_the_rows_is_what_sqlite_reads() {
    let done = convert(json!({"format": "sqlite", "table": "runs \"1\""}), "t.csv", CSV).ok();
    let db = rusqlite::Connection::open(done.path("table")).unwrap();
    let all: String = db
        .query_row(
            r#"SELECT group_concat(name || '|' || coalesce(n, '-') || '|' || typeof(n) || '|' || coalesce(x, '-') || '|' || typeof(x)
                || '|' || coalesce(ok, '-') || '|' || note, ';') FROM "runs ""1""""#,
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(all, "a|1|integer|0.5|real|1|007;b,\"c|-|null|-|null|0|;é|-3|integer|2.0|real|-|x");
    let again = convert(json!({"format": "sqlite", "table": "runs \"1\""}), "t.csv", CSV).ok();
    assert_eq!(std::fs::read(done.path("table")).unwrap(), std::fs::read(again.path("table")).unwrap());
}

#[test]
fn a_table_of_a_database_is_chosen_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE a (v); INSERT INTO a VALUES (2), (1.5), (NULL); CREATE TABLE b (w, x BLOB); INSERT INTO b VALUES ('t', x'00')")
        .unwrap();
    drop(db);
    let read = |with: Value| Bench::new(&Convert, with).path("table", &path).run(&["table"]);
    assert_eq!(
        read(json!({"format": "csv", "from_table": "a"})).ok().text("table"),
        "v\r\n2.0\r\n1.5\r\n\"\"\r\n"
    );
    failed(
        &read(json!({"format": "csv"})),
        expect![[r#"
            runs.db: several tables: a, b
            say which one with the parameter 'from_table'"#]],
    );
    failed(
        &read(json!({"format": "csv", "from_table": "c"})),
        expect!["runs.db: no table 'c'; its tables are: a, b"],
    );
    failed(
        &read(json!({"format": "csv", "from_table": "b"})),
        expect![[r#"
            runs.db table 'b' row 1, column 'x': a blob is no value of a table
            leave the column out with a view, and read that"#]],
    );
}

#[test]
fn rows_of_a_database_keep_their_order_whatever_its_columns_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE a (k, rowid); INSERT INTO a VALUES (1, 'c'), (2, 'a'), (3, 'b');
        CREATE TABLE b (RowId, _ROWID_, OID); INSERT INTO b VALUES (3, 'c', 2), (2, 'a', 1), (1, 'b', 3);
        CREATE TABLE c (k PRIMARY KEY, oid) WITHOUT ROWID; INSERT INTO c VALUES (2, 1), (1, 2);
        CREATE VIEW d AS SELECT k, rowid FROM a WHERE k > 1 ORDER BY k DESC",
    )
    .unwrap();
    drop(db);
    let read = |table: &str| {
        let with = json!({"format": "csv", "from_table": table});
        let done = Bench::new(&Convert, with).path("table", &path).run(&["table"]).ok();
        done.text("table").replace("\r\n", " ")
    };
    assert_eq!(read("a"), "k,rowid 1,c 2,a 3,b ");
    assert_eq!(read("b"), "RowId,_ROWID_,OID 3,c,2 2,a,1 1,b,3 ");
    assert_eq!(read("c"), "k,oid 1,2 2,1 ");
    assert_eq!(read("d"), "k,rowid 3,b 2,a ");
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    failed(
        &convert(json!({"format": "json", "types": {"n": "int"}}), "t.csv", "k,n\na,1\nb,\n\nc,x\n"),
        expect![[r#"
            t.csv:5, column 'n': 'x' is no int
            the parameter 'types' says so; text holds anything"#]],
    );
    failed(
        &convert(json!({"format": "json", "types": {"nn": "int"}}), "t.csv", "k,n\na,1\n"),
        expect![[r#"
            t.csv: no column 'nn' (parameter 'types'); its columns are: k,n
            did you mean 'n'?"#]],
    );
    failed(
        &convert(json!({"format": "json"}), "t.csv", "k,n,k\na,1,b\n"),
        expect!["t.csv:1: column 'k' stands twice in the header"],
    );
    failed(
        &convert(json!({"format": "json"}), "t.csv", "\r\nk,\"n\n\",k\n"),
        expect!["t.csv:2: column 'k' stands twice in the header"],
    );
}

#[test]
fn numbers_that_are_not_finite_fail_or_are_null() {
    let csv = "x\n1\n-inf\n";
    assert_eq!(
        convert(json!({"format": "json"}), "t.csv", csv).ok().text("table"),
        "[\n{\"x\":1.0},\n{\"x\":null}\n]\n"
    );
    failed(
        &convert(json!({"format": "json", "not_finite": "fail"}), "t.csv", csv),
        expect![[r#"
            t.csv: row 2, column 'x': -inf has no place in this format ('not_finite' is fail)
            with 'not_finite': 'null' it becomes null"#]],
    );
    convert(json!({"format": "sqlite", "not_finite": "fail"}), "t.csv", csv).ok();
    assert!(convert(json!({"format": "sqlite", "not_finite": "fail"}), "t.csv", "x\nnan\n").result.is_err());
}

#[test]
fn a_format_has_to_be_known() {
    failed(
        &convert(json!({"format": "json"}), "t.txt", "k\n"),
        expect![[r#"
            t.txt: its ending names no format that can be read
            say which it is with the parameter 'from': csv, json, jsonl, sqlite or parquet"#]],
    );
    assert_eq!(
        convert(json!({"format": "jsonl", "from": "csv"}), "t.txt", "k\nv\n").ok().text("table"),
        "{\"k\":\"v\"}\n"
    );
    failed(
        &convert(json!({"format": "csv"}), "t.json", "{\"a\": 1}"),
        expect![[r#"
            t.json:1: invalid type: map, expected a list of objects at line 1 column 1
            expected a list of objects"#]],
    );
    failed(
        &convert(json!({"format": "csv"}), "t.json", "[{\"a\": 1},\n{\"a\": -Infinity}]"),
        expect![[r#"
            t.json:2: bare -Infinity is not JSON (column 7): expected a number, null or text
            write null in its place: Python's json.dumps writes such words for what is no finite number, and with allow_nan=False refuses to
            expected a list of objects"#]],
    );
    let fault = Convert.check(&json!({"format": "json", "table": "sqlite_x"})).unwrap_err();
    assert_eq!(fault.path, "table");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn without_parquet_the_error_says_how_to_get_it() {
    failed(
        &convert(json!({"format": "parquet"}), "t.csv", CSV),
        expect![[r#"
            this flow was built without Parquet
            build it with: cargo install --path . --features parquet
            or choose another format: csv, json, jsonl, sqlite"#]],
    );
    failed(
        &convert(json!({"format": "csv"}), "t.parquet", "PAR1"),
        expect![[r#"
            this flow was built without Parquet
            build it with: cargo install --path . --features parquet
            or choose another format: csv, json, jsonl, sqlite"#]],
    );
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_holds_types_nulls_and_nan() {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    let done = convert(json!({"format": "parquet"}), "t.csv", CSV).ok();
    let reader = SerializedFileReader::new(std::fs::File::open(done.path("table")).unwrap()).unwrap();
    let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
    expect![[r#"
        {name: "a", n: 1, x: 0.5, ok: true, note: "007"}
        {name: "b,"c", n: null, x: NaN, ok: false, note: ""}
        {name: "é", n: -3, x: 2.0, ok: null, note: "x"}"#]]
    .assert_eq(&rows.join("\n"));
}

/// The rows of a table in one format after they went through another.
fn through(rows: &[Value], other: &str) -> Value {
    let text: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    let there = convert(json!({"format": other, "types": types()}), "t.jsonl", text).ok();
    let bytes = std::fs::read(there.path("table")).unwrap();
    let with = json!({"format": "json", "from": other, "types": types()});
    convert(with, "t", bytes).ok().json("table")
}

fn types() -> Value {
    json!({"i": "int", "f": "float", "b": "bool", "t": "text"})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rows_come_back_from_every_format(
        rows in proptest::collection::vec(
            (any::<Option<i64>>(), proptest::option::of(proptest::num::f64::NORMAL), any::<Option<bool>>(), "[a1,\"\r\n é]{0,5}"),
            1..8,
        )
    ) {
        let rows: Vec<Value> = rows.iter().map(|(i, f, b, t)| json!({"i": i, "f": f, "b": b, "t": t})).collect();
        let parquet = cfg!(feature = "parquet").then_some("parquet");
        for format in ["csv", "json", "jsonl", "sqlite"].into_iter().chain(parquet) {
            prop_assert_eq!(through(&rows, format), json!(rows), "{}", format);
        }
    }

    #[test]
    fn a_stream_gives_what_the_whole_table_gives(text in "(\u{feff})?[ab,,\"\"\r\n\né]{0,60}", block in 1_usize..9) {
        use crate::api::InputFile;
        use crate::stage::table::csv::{Table, TableReader};
        let text = format!("{}x,y\n{}", if text.starts_with('\u{feff}') { "\u{feff}" } else { "" }, text.trim_start_matches('\u{feff}'));
        let dir = tempfile::tempdir().unwrap();
        let file = InputFile { path: dir.path().join("t.csv"), name: "t.csv".into() };
        std::fs::write(&file.path, &text).unwrap();
        let whole = Table::parse("t.csv", text.clone()).map(|table| {
            let rows = table.rows();
            rows.map(|row| (row.line(), row.read().cells().map(str::to_owned).collect())).collect::<Vec<(u64, Vec<String>)>>()
        });
        let stream = || {
            let mut reader = TableReader::with_block(&file, block)?;
            let mut rows = Vec::new();
            while reader.next(&mut |line, record| {
                rows.push((line, record.cells().map(str::to_owned).collect()));
                Ok(())
            })? {}
            Ok(rows)
        };
        match (whole, stream()) {
            (Ok(whole), Ok(stream)) => prop_assert_eq!(whole, stream),
            (Err::<_, StageError>(whole), Err::<_, StageError>(stream)) => prop_assert_eq!(whole.message, stream.message),
            (whole, stream) => prop_assert!(false, "{:?} {:?}", whole, stream),
        }
    }
}

#[test]
fn a_name_is_kept_whatever_it_holds() {
    let done = convert(json!({"format": "json"}), "t.csv", "\"a\"\"b\",\"c,d\"\n1,2\n").ok();
    assert_eq!(done.json("table"), json!([{"a\"b": 1, "c,d": 2}]));
    assert!(Path::new(&done.path("columns")).exists());
    failed(
        &convert(json!({"format": "sqlite"}), "t.csv", "a,A\n1,2\n"),
        expect!["output 'table': SQLite takes the columns 'a' and 'A' for one"],
    );
}
