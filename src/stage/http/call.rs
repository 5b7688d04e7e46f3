//! `http::Fetch` of the Rust builder: the stage with its parameters, for workflows declared in code.

use serde_json::{Map, Value, json};

use crate::front::builder::StageCall;

/// A call of `http.fetch`.
#[derive(Clone, Debug)]
pub struct FetchCall(Map<String, Value>);

impl FetchCall {
    /// Fetches `url`, which may hold references.
    pub fn new(url: impl Into<String>) -> Self {
        Self(Map::from_iter([("url".to_owned(), Value::String(url.into()))]))
    }

    /// The body must be JSON.
    #[must_use]
    pub fn expect_json(self) -> Self {
        self.with("expect", json!({ "json": true }))
    }

    /// Sets any other parameter of the stage.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

impl StageCall for FetchCall {
    fn call(self) -> (String, Value) {
        ("http.fetch".to_owned(), Value::Object(self.0))
    }
}
