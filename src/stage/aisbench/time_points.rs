//! The member `time_points` of a line of details: the times themselves, or where they are. Unaware of databases.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Where the times of a request are.
#[derive(Debug, PartialEq)]
pub(super) enum TimePoints {
    /// In the pod's database, with this id.
    Reference(i64),
    /// Here: seconds.
    Here(Vec<f64>),
}

/// The name under which a line refers to a database.
const REFERENCE: &str = "__db_ref__";

/// One time, seconds.
struct Seconds(f64);

impl<'de> Deserialize<'de> for TimePoints {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Points;
        impl<'de> Visitor<'de> for Points {
            type Value = TimePoints;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "'time_points': a list of numbers, or {{\"{REFERENCE}\": ID}}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TimePoints, A::Error> {
                let mut points = Vec::new();
                while let Some(Seconds(point)) = seq.next_element()? {
                    points.push(point);
                }
                Ok(TimePoints::Here(points))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TimePoints, A::Error> {
                let mut id = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == REFERENCE {
                        id = Some(map.next_value::<i64>()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                id.map(TimePoints::Reference)
                    .ok_or_else(|| A::Error::custom(format!("'time_points': missing field `{REFERENCE}`")))
            }
        }
        from.deserialize_any(Points)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in 'time_points': seconds")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Seconds, E> {
                Ok(Seconds(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Seconds, E> {
                Ok(Seconds(number as f64))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Seconds, E> {
                Ok(Seconds(number as f64))
            }
        }
        from.deserialize_any(Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_what_is_none() {
        let read = |text: &str| serde_json::from_str::<TimePoints>(text).map_err(|e| e.to_string());
        assert_eq!(
            read("[1, -2.5, 18446744073709551615]"),
            Ok(TimePoints::Here(vec![1.0, -2.5, u64::MAX as f64]))
        );
        assert_eq!(read(r#"{"a": [1], "__db_ref__": 7}"#), Ok(TimePoints::Reference(7)));
        for (text, expected) in [
            ("[1.0, null]", "invalid type: null, expected a number in 'time_points': seconds"),
            ("\"1\"", "expected 'time_points': a list of numbers, or {\"__db_ref__\": ID}"),
            ("{\"a\": 1}", "'time_points': missing field `__db_ref__`"),
            ("{\"__db_ref__\": \"7\"}", "expected i64"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
