//! What `with` holds, and whether it fits together. Unaware of tables.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::CHANGE_COLUMNS;
use super::summary::Summary;
use super::verdict::VERDICT_COLUMNS;
use crate::api::ParamFault;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// The key: columns of both tables whose cells, compared as text, say which rows are the same thing.
    pub(super) on: Vec<String>,
    /// The columns to compare; without it all that both tables have, but the key and `spread`.
    #[serde(default)]
    pub(super) columns: Option<Vec<String>>,
    /// A number that changed by this share of its old value or less is within noise: 0.01 is 1 %.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<f64>")]
    pub(super) threshold: f64,
    /// Columns that tell the repeats of one measurement apart (e.g. `repeat`): rows that differ only there are one sample.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) spread: Vec<String>,
    /// What says whether repeats differ by more than noise.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<Noise>")]
    pub(super) noise: Noise,
    /// The probability of Welch's interval: 0.95 is 95 %.
    #[serde(default = "confidence", deserialize_with = "or_confidence")]
    #[schemars(with = "Option<f64>")]
    pub(super) confidence: f64,
    /// Column -> higher or lower, whichever is better: what the output `verdicts` is about.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<BTreeMap<String, Better>>")]
    pub(super) better: BTreeMap<String, Better>,
    /// What makes the stage fail, after its outputs are written.
    #[serde(default)]
    pub(super) fail_on: Option<FailOn>,
    /// The stage also fails if a column of `better` got worse, beyond noise, by more than this share of its old value, or if its number is gone (empty, NaN, infinite).
    #[serde(default)]
    pub(super) fail_over: Option<f64>,
}

fn confidence() -> f64 {
    0.95
}

/// `null` is as good as not given: what a workflow hands on from a parameter that nobody set.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The same where the default is another one.
fn or_confidence<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_else(confidence))
}

/// What says whether repeats differ by more than noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Noise {
    /// The ranges from the smallest to the largest repeat do not touch.
    #[default]
    Ranges,
    /// Welch's interval of the difference of the means does not hold 0.
    Welch,
}

/// Which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    /// More is better: throughput.
    Higher,
    /// Less is better: latency.
    Lower,
}

/// What makes the stage fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FailOn {
    /// A value beyond noise.
    Changed,
    /// A key of the old table that the new one lacks.
    Removed,
    /// A value beyond noise, a key removed or a key added.
    Any,
}

impl FailOn {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Any => "any",
        }
    }

    pub(super) fn applies(self, summary: &Summary) -> bool {
        match self {
            Self::Changed => !summary.changed.is_empty(),
            Self::Removed => summary.removed > 0,
            Self::Any => !summary.changed.is_empty() || summary.removed + summary.added > 0,
        }
    }
}

impl Params {
    /// Looks for parameters that contradict each other or mean nothing.
    pub(super) fn check(&self) -> Result<(), ParamFault> {
        let fault = |path: &str, message: String| Err(ParamFault { path: path.to_owned(), message });
        if self.on.is_empty() {
            return fault("on", "expected at least one key column".into());
        }
        if let Some(name) = self.on.iter().find(|name| CHANGE_COLUMNS.contains(&name.as_str())) {
            return fault(
                "on",
                format!(
                    "a key column cannot be named '{name}': the output 'changes' has a column of that name"
                ),
            );
        }
        if let Some(name) =
            self.on.iter().find(|name| !self.better.is_empty() && VERDICT_COLUMNS.contains(&name.as_str()))
        {
            let message = "the output 'verdicts' has a column of that name";
            return fault("on", format!("a key column cannot be named '{name}': {message}"));
        }
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            return fault("confidence", "expected a probability between 0 and 1 (0.95 is 95 %)".into());
        }
        if self.fail_over.is_some_and(|over| !(over >= 0.0 && over.is_finite())) {
            return fault("fail_over", "expected a share of 0 or more (0.05 is 5 %)".into());
        }
        if self.fail_over.is_some() && self.better.is_empty() {
            return fault("fail_over", "'better' has to say which columns can get worse, and how".into());
        }
        if !(self.threshold >= 0.0 && self.threshold.is_finite()) {
            return fault("threshold", "expected a share of 0 or more (0.01 is 1 %)".into());
        }
        let columns = self.columns.as_deref().unwrap_or_default();
        let named = [("on", self.on.as_slice()), ("spread", self.spread.as_slice()), ("columns", columns)];
        let mut seen: Vec<(&str, &String)> = Vec::new();
        for (path, name) in named.iter().flat_map(|(path, names)| names.iter().map(move |name| (*path, name)))
        {
            if let Some((other, _)) = seen.iter().find(|(_, known)| *known == name) {
                return fault(path, format!("'{name}' stands in '{other}' already"));
            }
            seen.push((path, name));
        }
        let not_compared = |name: &&String| match &self.columns {
            Some(columns) => !columns.contains(name),
            None => self.on.contains(name) || self.spread.contains(name),
        };
        if let Some(name) = self.better.keys().find(not_compared) {
            return fault("better", format!("'{name}' is not among the columns that are compared"));
        }
        Ok(())
    }
}
