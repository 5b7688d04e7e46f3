//! Parameters that several stages of evalscope results take. Unaware of what is done with them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::ParamFault;
use crate::stage::table::percentile::Rule;

/// Percentiles of the requests in the database.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    /// Which value stands for a percentile.
    #[serde(default)]
    pub(super) rule: Rule,
    /// Percents from 0 to 100.
    pub(super) at: Vec<f64>,
}

impl At {
    pub(super) fn check(&self) -> Result<(), ParamFault> {
        let fault =
            |message: &str| Err(ParamFault { path: "percentiles.at".into(), message: message.to_owned() });
        if self.at.is_empty() || !self.at.iter().all(|percent| (0.0..=100.0).contains(percent)) {
            return fault("expected percents from 0 to 100");
        }
        if self.at.iter().enumerate().any(|(place, percent)| self.at[..place].contains(percent)) {
            return fault("expected each percent once");
        }
        Ok(())
    }
}
