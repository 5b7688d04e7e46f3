//! `inferencemax.clean`: one saved file against the six cleaning rules. Unaware of other files and of what follows.
//!
//! The rules are those of the pipeline this replaces, with its quirks (checked in this order, the first hit counts):
//! 1 the text is no JSON (`json_parse`), 2 the root is no object (`root_not_object`), 3 `metadata` or `data` is missing
//! (`missing_key`), 4 `data` is false, null, 0, or empty (`empty_data`), 5 no item of `data` is valid (`no_valid_point`), 6 the file is
//! smaller than 1,024 bytes (`too_small`). An item is valid if it is an object, has one of `conc`, `tpPerGpu`, `hwKey`,
//! `precision`, and one of its own values is a number above 0 or `true`; nested values do not count.
//!
//! Two choices of our own. The original walked over a `data` that is an object or a string and found no point in it, and broke on a
//! number or `true`: all four are `data_not_list` here. Strict JSON is asked for, so what only Python reads (`NaN`,
//! `Infinity`, numbers beyond a double, lone surrogates) is `json_parse`.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::{Done, NoParams, ParamFault, Signature, Stage, StageContext, StageError, check_params};

use super::{cells, wrap};

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Clean;

/// Files below this size, in bytes, are invalid.
pub const MIN_BYTES: usize = 1024;

/// A data point has at least one of these.
const KNOWN_KEYS: [&str; 4] = ["conc", "tpPerGpu", "hwKey", "precision"];

/// Why a file is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Not JSON, or not UTF-8.
    JsonParse,
    /// JSON, but no object.
    RootNotObject,
    /// `metadata` or `data` is missing.
    MissingKey,
    /// `data` is null, false, 0, or empty.
    EmptyData,
    /// `data` is something else than a list.
    DataNotList,
    /// No item of `data` is a valid data point.
    NoValidPoint,
    /// Below [`MIN_BYTES`].
    TooSmall,
}

impl Code {
    /// As it is written in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::JsonParse => "json_parse",
            Self::RootNotObject => "root_not_object",
            Self::MissingKey => "missing_key",
            Self::EmptyData => "empty_data",
            Self::DataNotList => "data_not_list",
            Self::NoValidPoint => "no_valid_point",
            Self::TooSmall => "too_small",
        }
    }
}

/// What the rules say about one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name without directory.
    pub file: String,
    /// Valid, or skipped by its name.
    pub ok: bool,
    /// The rule it breaks.
    pub code: Option<Code>,
    /// Its size.
    pub bytes: usize,
    /// Items of `data`, of any type; 0 if `data` was not reached or is no list.
    pub points: usize,
    /// Items that are valid data points.
    pub valid_points: usize,
    /// The rule in words, with the place for `json_parse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Not looked at: its name says that it is no data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

/// The verdict on a file, and its cleaned text (`metadata` and the items of `data` that are objects) if it is valid.
pub fn judge(file: &str, bytes: &[u8]) -> (Verdict, Option<String>) {
    let mut verdict = Verdict {
        file: file.to_owned(),
        ok: true,
        code: None,
        bytes: bytes.len(),
        points: 0,
        valid_points: 0,
        message: None,
        skipped: ["README", "summary"].iter().any(|word| file.contains(word)),
    };
    if verdict.skipped {
        return (verdict, None);
    }
    match rules(bytes, &mut verdict) {
        Ok(text) => (verdict, Some(text)),
        Err((code, message)) => {
            verdict.ok = false;
            verdict.code = Some(code);
            verdict.message = Some(message);
            (verdict, None)
        }
    }
}

fn rules(bytes: &[u8], verdict: &mut Verdict) -> Result<String, (Code, String)> {
    let no_json = |message: String| (Code::JsonParse, message);
    let text = std::str::from_utf8(bytes)
        .map_err(|e| no_json(format!("not UTF-8 (first bad byte at offset {})", e.valid_up_to())))?;
    serde_json::from_str::<Value>(text).map_err(|e| no_json(format!("not JSON: {e}")))?;
    let text = text.trim_ascii_start();
    if !text.starts_with('{') {
        return Err((Code::RootNotObject, "the root is not an object".to_owned()));
    }
    let root: IndexMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|e| no_json(format!("not JSON: {e}")))?;
    let member = |name: &str| {
        root.get(name).copied().ok_or_else(|| (Code::MissingKey, format!("the key '{name}' is missing")))
    };
    let (metadata, data) = (member("metadata")?, member("data")?);
    if is_empty(data) {
        return Err((Code::EmptyData, format!("'data' is empty ({})", cells::type_name(data))));
    }
    let Some(items) = cells::items(data) else {
        return Err((Code::DataNotList, format!("'data' is {}, not a list", cells::type_name(data))));
    };
    verdict.points = items.len();
    let mut kept = String::with_capacity(data.get().len());
    for item in &items {
        let Some(members) = cells::members(item) else { continue };
        kept.push(if kept.is_empty() { '[' } else { ',' });
        kept.push_str(item.get());
        let known = KNOWN_KEYS.iter().any(|key| members.contains_key(*key));
        if known && members.values().any(|value| is_positive(value)) {
            verdict.valid_points += 1;
        }
    }
    if verdict.valid_points == 0 {
        let message = format!(
            "none of {} items has one of {} and a number above 0",
            items.len(),
            KNOWN_KEYS.join(", ")
        );
        return Err((Code::NoValidPoint, message));
    }
    if bytes.len() < MIN_BYTES {
        return Err((Code::TooSmall, format!("{} bytes, at least {MIN_BYTES} are expected", bytes.len())));
    }
    kept.push(']');
    Ok(wrap::saved_text(metadata.get(), &kept))
}

/// What Python calls false: null, false, 0, "", [], {}.
fn is_empty(raw: &RawValue) -> bool {
    match serde_json::from_str(raw.get()) {
        Ok(Value::Null | Value::Bool(false)) => true,
        Ok(Value::Number(number)) => number.as_f64() == Some(0.0),
        Ok(Value::String(text)) => text.is_empty(),
        Ok(Value::Array(items)) => items.is_empty(),
        Ok(Value::Object(members)) => members.is_empty(),
        _ => false,
    }
}

/// A number above 0; `true` counts as 1, as in the original.
fn is_positive(raw: &RawValue) -> bool {
    match raw.get().as_bytes() {
        [b't', ..] => true,
        [b'-' | b'0'..=b'9', ..] => raw.get().parse::<f64>().is_ok_and(|number| number > 0.0),
        _ => false,
    }
}

impl Stage for Clean {
    fn name(&self) -> &'static str {
        "inferencemax.clean"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<NoParams>(
            "Judges one saved file by the six cleaning rules; never fails on content. An invalid file is copied to `quarantined`, nothing is deleted. Names holding README or summary are skipped.",
        )
        .input("file", "a saved file")
        .optional_output(
            "data",
            "{\"metadata\", \"data\"} of a valid file: the items that are objects, order and number text kept",
        )
        .optional_output("quarantined", "a copy of an invalid file")
        .output(
            "verdict",
            "{\"file\", \"ok\", \"code\", \"bytes\", \"points\", \"valid_points\"}, \"message\", \"skipped\"",
        )
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<NoParams>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let file = ctx.input("file")?;
        let bytes = file.read()?;
        let (verdict, cleaned) = judge(file.file_name(), &bytes);
        if let Some(text) = cleaned {
            ctx.write("data", text.as_bytes())?;
        } else if !verdict.skipped {
            ctx.write("quarantined", &bytes)?;
        }
        if let (Some(code), Some(message)) = (verdict.code, &verdict.message) {
            ctx.log(format!("{}: {}: {message}", verdict.file, code.name()));
        }
        ctx.write_json("verdict", &verdict)?;
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::{Bench, fixtures};
    use serde_json::json;

    fn code(text: &str) -> Option<Code> {
        judge("f.json", text.as_bytes()).0.code
    }

    #[test]
    fn verdicts_of_the_original() {
        let Some(root) = fixtures() else { return };
        let dir = root.join("inferencemax/cleaning");
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
        for (file, original) in expected["analysed"].as_object().unwrap() {
            let done = Bench::new(&Clean, json!({}))
                .path("file", &dir.join("raw").join(file))
                .run(&["data", "quarantined", "verdict"])
                .ok();
            let verdict = done.json("verdict");
            assert_eq!(verdict["file"], *file);
            assert_eq!(verdict["ok"], original["valid"], "{file}");
            assert_eq!(verdict["bytes"], original["file_size"], "{file}");
            for (ours, theirs) in [("points", "total_data_points"), ("valid_points", "valid_data_points")] {
                if let Some(count) = original.get(theirs) {
                    assert_eq!(verdict[ours], *count, "{file} {ours}");
                }
            }
            let valid = verdict["ok"] == true;
            assert_eq!(done.path("data").exists(), valid, "{file}");
            assert_eq!(done.path("quarantined").exists(), !valid, "{file}");
            if !valid {
                assert_eq!(
                    std::fs::read(done.path("quarantined")).unwrap(),
                    std::fs::read(dir.join("raw").join(file)).unwrap()
                );
            }
        }
        let codes: Vec<_> = expected["analysed"]
            .as_object()
            .unwrap()
            .keys()
            .map(|file| judge(file, &std::fs::read(dir.join("raw").join(file)).unwrap()).0.code)
            .collect();
        use Code::*;
        assert_eq!(
            codes,
            [
                Some(DataNotList),
                Some(EmptyData),
                Some(MissingKey),
                Some(NoValidPoint),
                Some(MissingKey),
                Some(NoValidPoint),
                Some(RootNotObject),
                Some(TooSmall),
                Some(JsonParse),
                None,
                None,
                None
            ]
        );
        for file in expected["not_analysed"].as_array().unwrap() {
            let done = Bench::new(&Clean, json!({}))
                .path("file", &dir.join("raw").join(file.as_str().unwrap()))
                .run(&["data", "quarantined", "verdict"])
                .ok();
            assert_eq!(done.json("verdict")["skipped"], true);
            assert!(!done.path("data").exists() && !done.path("quarantined").exists());
        }
    }

    #[test]
    fn what_is_false_or_no_list() {
        for data in ["null", "false", "0", "-0.0", "\"\"", "[]", "{}"] {
            assert_eq!(code(&format!("{{\"metadata\":1,\"data\":{data}}}")), Some(Code::EmptyData), "{data}");
        }
        for data in ["true", "7", "\"text\"", "{\"conc\": 1}"] {
            assert_eq!(
                code(&format!("{{\"metadata\":1,\"data\":{data}}}")),
                Some(Code::DataNotList),
                "{data}"
            );
        }
    }

    #[test]
    fn only_strict_json_is_read() {
        for text in ["", "[NaN]", "{\"a\": Infinity}", "[1e999]", "[\"\\ud800\"]", "\u{feff}{}", "{} x"] {
            assert_eq!(code(text), Some(Code::JsonParse), "{text}");
        }
        assert_eq!(judge("f", b"\xff").0.code, Some(Code::JsonParse));
        let message = judge("f", b"{\n  \"a\": }").0.message.unwrap();
        assert!(message.contains("line 2 column 8"), "{message}");
        assert_eq!(code(" [1]"), Some(Code::RootNotObject));
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        assert_eq!(code("{\"metadata\":1,\"data\":[{\"conc\":1}],\"data\":[]}"), Some(Code::EmptyData));
    }

    #[test]
    fn objects_keep_their_text_and_others_go() {
        let pad = "x".repeat(1100);
        let text = format!(
            "{{\"pad\":\"{pad}\",\"data\":[3,{{\"b\":1.50,\"conc\":1}},null,{{}},\"s\"],\"metadata\":{{\"m\":1e3}}}}"
        );
        let (verdict, cleaned) = judge("f.json", text.as_bytes());
        assert_eq!((verdict.points, verdict.valid_points), (5, 1));
        let expected = "{\n  \"metadata\": {\n    \"m\": 1e3\n  },\n  \"data\": [\n    {\n      \"b\": 1.50,\n      \"conc\": 1\n    },\n    {}\n  ]\n}\n";
        assert_eq!(cleaned.as_deref(), Some(expected));
    }
}
