//! Parameters that several stages of evalscope results take. Unaware of what is done with them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::ParamFault;
use crate::stage::table::percentile::Rule;

/// Limits in seconds; a request has to keep all that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Slo {
    /// Time to first token, in seconds.
    pub(super) ttft: Option<f64>,
    /// Time per output token after the first, in seconds: the mean of a request.
    pub(super) tpot: Option<f64>,
    /// End-to-end latency, in seconds.
    pub(super) e2el: Option<f64>,
}

impl Slo {
    /// The limits with their names.
    pub(super) fn limits(&self) -> [(&'static str, Option<f64>); 3] {
        [("ttft", self.ttft), ("tpot", self.tpot), ("e2el", self.e2el)]
    }

    /// A time that was not measured cannot be shown to keep a limit.
    pub(super) fn kept_by(&self, ttft: Option<f64>, tpot: Option<f64>, e2el: Option<f64>) -> bool {
        [(self.ttft, ttft), (self.tpot, tpot), (self.e2el, e2el)]
            .into_iter()
            .all(|(limit, taken)| limit.is_none_or(|limit| taken.is_some_and(|taken| taken <= limit)))
    }

    pub(super) fn check(&self) -> Result<(), ParamFault> {
        let fault = |message: &str| Err(ParamFault { path: "slo".into(), message: message.to_owned() });
        let given: Vec<f64> = self.limits().into_iter().filter_map(|(_, limit)| limit).collect();
        if given.is_empty() {
            return fault("expected at least one of ttft, tpot, e2el");
        }
        if given.iter().any(|limit| !(*limit > 0.0 && limit.is_finite())) {
            return fault("a limit is a number of seconds above 0");
        }
        Ok(())
    }
}

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
