//! Types of cells, and the stream of records that they are read from.

use super::*;

fn kind_of(texts: &[&str]) -> Kind {
    let mut seen = Seen::default();
    texts.iter().for_each(|text| seen.add(&Cell::Spelled((*text).into())));
    seen.kind()
}

#[test]
fn a_column_has_the_narrowest_type_that_holds_all_its_cells() {
    for (texts, kind) in [
        (&["1", "", "-2", "0"][..], Kind::Int),
        (&["1", "2.5", "1e3", "nan", "-inf"], Kind::Float),
        (&["-0", "1"], Kind::Float),
        (&["true", "False", ""], Kind::Bool),
        (&["true", "1"], Kind::Text),
        (&["1", "x"], Kind::Text),
        (&["007"], Kind::Text),
        (&["+1"], Kind::Text),
        (&["1."], Kind::Text),
        (&["1.e5"], Kind::Text),
        (&["1e"], Kind::Text),
        (&["1e+"], Kind::Text),
        (&["0.e5"], Kind::Text),
        (&["-"], Kind::Text),
        (&["1.5E-3", "0e0", "1e+5"], Kind::Float),
        (&[".5"], Kind::Text),
        (&["1e999"], Kind::Text),
        // the nearest float is 0, and it is none
        (&["1e-400"], Kind::Text),
        (&["0.0e-400", "5e-324"], Kind::Float),
        (&[" 1"], Kind::Text),
        (&["", ""], Kind::Text),
        (&["9223372036854775807", "-9223372036854775808"], Kind::Int),
        // one more than fits: it is not rounded
        (&["9223372036854775808"], Kind::Text),
        (&["9007199254740992", "0.5"], Kind::Float),
        (&["9007199254740993", "0.5"], Kind::Text),
    ] {
        assert_eq!(kind_of(texts), kind, "{texts:?}");
    }
}

#[test]
fn a_declared_type_takes_what_it_can_hold_exactly() {
    let spelled = |text: &'static str, kind| as_kind(Cell::Spelled(text.into()), kind);
    assert_eq!(spelled("1", Kind::Bool), Ok(Cell::Bool(true)));
    assert_eq!(spelled("2", Kind::Float), Ok(Cell::Float(2.0)));
    assert_eq!(spelled("007", Kind::Text), Ok(Cell::Text("007".into())));
    assert_eq!(spelled("", Kind::Int), Ok(Cell::Null));
    assert_eq!(spelled("", Kind::Text), Ok(Cell::Text("".into())));
    assert_eq!(as_kind(Cell::Float(0.5), Kind::Text), Ok(Cell::Text("0.5".into())));
    for (text, kind) in
        [("2", Kind::Bool), ("2.0", Kind::Int), ("x", Kind::Float), ("9007199254740993", Kind::Float)]
    {
        assert_eq!(spelled(text, kind), Err(Cell::Spelled(text.into())), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn a_number_is_written_as_it_is_read(bits in proptest::num::u64::ANY, int in proptest::num::i64::ANY) {
        let float = f64::from_bits(bits);
        let text = to_text(&Cell::Float(float));
        match spelled(&text) {
            Cell::Float(back) => proptest::prop_assert!(back == float || back.is_nan() && float.is_nan(), "{}", text),
            other => proptest::prop_assert!(false, "{} is {:?}", text, other),
        }
        let text = to_text(&Cell::Int(int));
        proptest::prop_assert_eq!(spelled(&text), Cell::Int(int));
    }
}
