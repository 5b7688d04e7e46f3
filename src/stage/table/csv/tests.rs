//! The dialect: what is read, what is refused, what is written.

use super::*;
use expect_test::{Expect, expect};

fn refused(bytes: &[u8], expected: Expect) {
    let error = Table::parse("t.csv", bytes).unwrap_err();
    expected.assert_eq(&[vec![error.message], error.hints].concat().join("\n"));
}

fn lines(bytes: &[u8]) -> Vec<u64> {
    Table::parse("t.csv", bytes).unwrap().rows().map(|row| row.line()).collect()
}

#[test]
fn lines_are_those_an_editor_shows() {
    assert_eq!(lines(b"a,b\n1,2\n3,4\n"), [2, 3]);
    assert_eq!(lines(b"a,b\r\n1,2\r\n3,4"), [2, 3]);
    assert_eq!(lines(b"\xef\xbb\xbfa,b\r\n\r\n1,\"x\r\ny\"\r\n\r\n3,4\r\n"), [3, 6]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_name() {
    let table = Table::parse("t.csv", b"\xef\xbb\xbf\"a\",b\n1,2\n").unwrap();
    assert_eq!(table.columns(), ["a", "b"]);
    assert_eq!(table.column("b"), Some(1));
}

#[test]
fn what_is_no_table_is_refused_with_its_place() {
    refused(b"", expect!["t.csv: empty (expected at least a header line)"]);
    refused(b"\xef\xbb\xbf\r\n", expect!["t.csv: empty (expected at least a header line)"]);
    refused(
        b"a,b\r\n1,2\r\n3\r\n",
        expect![[r#"
            t.csv:3: expected 2 cells as in the header, found 1
            a cell that holds a comma, a quote or a line end must be quoted"#]],
    );
    refused(
        b"a,b\n1,\"x\n2,3\n",
        expect![[r#"
            t.csv:2: a quote is opened in this record and never closed
            the file may be cut short; a quote inside a quoted cell is written twice"#]],
    );
    refused(
        b"a,b\n1,\xff\n",
        expect![[r#"
            t.csv:2: not UTF-8
            tables are UTF-8, with or without a byte order mark"#]],
    );
    refused(b"a,b,a\n", expect!["t.csv:1: column 'a' stands twice in the header"]);
}

#[test]
fn a_missing_column_is_named_with_the_header_and_the_nearest_name() {
    let table = Table::parse("t.csv", b"model,conc\n").unwrap();
    let error = table.require(&["model".into(), "cnoc".into()], "on").unwrap_err();
    expect!["t.csv: no column 'cnoc' (parameter 'on'); its header is: model,conc"].assert_eq(&error.message);
    assert_eq!(error.hints, ["did you mean 'conc'?"]);
}

#[test]
fn quotes_stand_only_where_needed() {
    let rows = [["a", "b"], ["x,y", "say \"hi\""], [" 1", "line\nend"], ["", "#"]];
    let mut writer = TableWriter::new(Vec::new(), "csv", LineEnd::Crlf);
    for row in rows {
        writer.row(row).unwrap();
    }
    let bytes = writer.finish().unwrap();
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        "a,b\r\n\"x,y\",\"say \"\"hi\"\"\"\r\n 1,\"line\nend\"\r\n,#\r\n"
    );
    let back = Table::parse("t.csv", bytes.clone()).unwrap();
    assert_eq!(back.rows().map(|row| row.line()).collect::<Vec<_>>(), [2, 3, 5]);
    assert_eq!(back.row(1).read().cells().collect::<Vec<_>>(), rows[2]);
}

/// What the `csv` crate reads: the records, or the place and length of the first uneven one.
fn by_the_crate(bytes: &[u8]) -> Result<Vec<Vec<String>>, (u64, u64)> {
    let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
    let records = reader.records().map(|record| match record {
        Ok(record) => Ok(record.iter().map(str::to_owned).collect()),
        Err(error) => match error.kind() {
            ::csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Err((*expected_len, *len)),
            _ => panic!("{error}"),
        },
    });
    records.collect()
}

/// Whether a text ends inside quotes: a comma at its end then begins no cell.
fn is_open(text: &str) -> bool {
    let cells = |text: &str| -> usize {
        let mut reader =
            ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        reader.records().map(|record| record.unwrap().len()).sum()
    };
    cells(&format!("{text},q")) == cells(text)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
    #[test]
    fn any_text_says_what_it_says_to_the_csv_crate_in_pieces_of_any_size(
        text in "(\u{feff})?[ab,,\"\"\r\n\né]{0,60}",
        size in 1_usize..20,
    ) {
        // the header makes all names different
        let text = format!("{}x,y\n{}", if text.starts_with('\u{feff}') { "\u{feff}" } else { "" }, text.trim_start_matches('\u{feff}'));
        let read = Table::parse_in_pieces("t.csv", text.clone().into_bytes(), size, None);
        match (by_the_crate(text.as_bytes()), read) {
            (Ok(records), Ok(table)) => {
                let back: Vec<Vec<String>> =
                    table.rows().map(|row| row.read().cells().map(str::to_owned).collect()).collect();
                proptest::prop_assert_eq!(&records[1..], back);
                proptest::prop_assert!(!is_open(&text));
            }
            (Ok(_), Err(error)) => {
                proptest::prop_assert!(error.message.contains("never closed"), "{}", error.message);
                proptest::prop_assert!(is_open(&text));
            }
            (Err((expected, found)), read) => {
                let message = read.unwrap_err().message;
                let wanted = format!("expected {expected} cells as in the header, found {found}");
                proptest::prop_assert!(message.ends_with(&wanted), "{} {}", message, wanted);
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_back(
        rows in proptest::collection::vec(proptest::collection::vec("[ab,\"\r\n |é]{0,4}", 3), 0..6),
        crlf in proptest::bool::ANY,
    ) {
        let mut writer = TableWriter::new(Vec::new(), "csv", if crlf { LineEnd::Crlf } else { LineEnd::Lf });
        writer.row(["x", "y", "z"]).unwrap();
        for row in &rows {
            writer.row(row).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let table = Table::parse("t.csv", bytes.clone()).unwrap();
        let records: Vec<Record> = table.rows().map(|row| row.read()).collect();
        let back: Vec<Vec<&str>> = records.iter().map(|record| record.cells().collect()).collect();
        proptest::prop_assert_eq!(&back, &rows);
        for (row, cells) in table.rows().zip(&rows) {
            let before = bytes.split(|b| *b == b'\n').take(row.line() as usize - 1).map(|l| l.len() + 1).sum::<usize>();
            let mut one = TableWriter::new(Vec::new(), "csv", LineEnd::Lf);
            one.row(cells).unwrap();
            let text = one.finish().unwrap();
            proptest::prop_assert!(bytes[before..].starts_with(&text[..text.len() - 1]), "line {}", row.line());
        }
    }
}
