//! `inferencemax.wrap`: a response body (a bare array) in the form of a saved file. Unaware of what the records hold.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, check_params};

use super::{cells, json_text};

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Wrap;

/// What the body is, as the request had it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Slug of the model in the URL, a key of `names`.
    pub model: String,
    /// Slug of the sequence lengths in the URL: `1k_8k` becomes `1K / 8K`.
    pub sequence: String,
    /// Where the body came from; only the path part is kept.
    pub url: String,
    /// Slug of a model -> its display name.
    pub names: BTreeMap<String, String>,
}

/// The metadata of a saved file. It holds neither times nor ports: the same body gives the same file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Display name of the model.
    pub model: String,
    /// `1K / 8K`
    pub sequence: String,
    /// Path part of the URL.
    pub url: String,
}

impl Params {
    /// The metadata; an unknown slug is an error that says where to add it.
    pub fn metadata(&self) -> Result<Metadata, StageError> {
        let model = self.names.get(&self.model).ok_or_else(|| {
            let known: Vec<&str> = self.names.keys().map(String::as_str).collect();
            StageError::new(format!(
                "no display name for the model slug '{}' (known: {})",
                self.model,
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ))
            .hint(format!("add \"{}\": \"<display name>\" to the parameter 'names'", self.model))
        })?;
        let sequence = display_sequence(&self.sequence).ok_or_else(|| {
            StageError::new(format!("sequence slug '{}': expected two lengths like '1k_8k'", self.sequence))
        })?;
        let url = match self.url.split_once("://") {
            None => self.url.as_str(),
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        };
        Ok(Metadata { model: model.clone(), sequence, url: url.to_owned() })
    }
}

/// `1k_8k` -> `1K / 8K`.
fn display_sequence(slug: &str) -> Option<String> {
    let (input, output) = slug.split_once('_')?;
    let length = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_alphanumeric())
    };
    (length(input) && length(output)).then(|| format!("{} / {}", input.to_uppercase(), output.to_uppercase()))
}

/// `body`, a JSON array named `file` in messages, in the form of a saved file: 2-space indent, the records' text kept.
pub fn saved_file(file: &str, body: &str, metadata: &Metadata) -> Result<String, StageError> {
    let raw: &RawValue = serde_json::from_str(body)
        .map_err(|e| StageError::new(format!("{file}: expected a JSON array of records: {e}")))?;
    if !raw.get().starts_with('[') {
        let mut error = StageError::new(format!(
            "{file}: expected a bare JSON array of records, found {}",
            cells::type_name(raw)
        ));
        if raw.get().starts_with('{') {
            error = error.hint("files that are wrapped already go to inferencemax.clean as they are");
        }
        return Err(error);
    }
    let metadata = serde_json::to_string(metadata).map_err(|e| StageError::new(format!("{file}: {e}")))?;
    Ok(saved_text(&metadata, raw.get()))
}

/// `{"metadata": ..., "data": ...}` of two JSON texts, 2-space indent, final newline.
pub(super) fn saved_text(metadata: &str, data: &str) -> String {
    let mut out = String::with_capacity(data.len() * 2);
    out.push_str("{\n  \"metadata\": ");
    json_text::pretty(metadata, 1, &mut out);
    out.push_str(",\n  \"data\": ");
    json_text::pretty(data, 1, &mut out);
    out.push_str("\n}\n");
    out
}

impl Stage for Wrap {
    fn name(&self) -> &'static str {
        "inferencemax.wrap"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Puts a response body (a bare JSON array) into the saved-file form {\"metadata\": {\"model\", \"sequence\", \"url\"}, \"data\"}. Number text and order are kept; the metadata holds no times.",
        )
        .input("body", "response body: a JSON array")
        .output("file", "the saved file")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        check_params::<Params>(with)
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let metadata = ctx.params::<Params>()?.metadata()?;
        let body = ctx.input("body")?;
        let text = saved_file(&body.name, &body.read_text()?, &metadata)?;
        ctx.write("file", text.as_bytes())?;
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;
    use serde_json::json;

    fn with() -> Value {
        json!({
            "model": "gpt-oss-120b", "sequence": "1k_8k", "url": "https://host:81/data/gpt-oss-120b-1k_8k-e2e.json",
            "names": {"gpt-oss-120b": "gpt-oss 120B"}
        })
    }

    #[test]
    fn a_body_becomes_a_saved_file() {
        let done =
            Bench::new(&Wrap, with()).file("body", "b.json", "[{\"y\":1.50,\"a\":{}},3]").run(&["file"]).ok();
        assert_eq!(
            done.text("file"),
            "{\n  \"metadata\": {\n    \"model\": \"gpt-oss 120B\",\n    \"sequence\": \"1K / 8K\",\n    \"url\": \"/data/gpt-oss-120b-1k_8k-e2e.json\"\n  },\n  \"data\": [\n    {\n      \"y\": 1.50,\n      \"a\": {}\n    },\n    3\n  ]\n}\n"
        );
    }

    #[test]
    fn what_is_no_array_is_refused() {
        let done = Bench::new(&Wrap, with()).file("body", "bodies/b.json", "{\"error\": 1}").run(&["file"]);
        let message = done.result.unwrap_err().message;
        assert_eq!(message, "bodies/b.json: expected a bare JSON array of records, found an object");
        let done = Bench::new(&Wrap, with()).file("body", "b.json", "[1,").run(&["file"]);
        assert!(done.result.unwrap_err().message.contains("line 1 column 3"));
    }

    #[test]
    fn an_unknown_slug_says_where_to_add_it() {
        let mut params = with();
        params["model"] = json!("new-model");
        let error = Bench::new(&Wrap, params).file("body", "b.json", "[]").run(&["file"]).result.unwrap_err();
        assert!(error.message.contains("'new-model'") && error.hints[0].contains("'names'"), "{error:?}");
        let mut params = with();
        params["sequence"] = json!("1k");
        assert!(Bench::new(&Wrap, params).file("body", "b.json", "[]").run(&["file"]).result.is_err());
    }

    #[test]
    fn unknown_parameters_are_faults() {
        let mut params = with();
        params["modle"] = json!("x");
        assert!(Wrap.check(&params).unwrap_err().message.contains("modle"));
    }
}
