//! Service level objectives: limits that a request keeps or not. Unaware of where its times come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::ParamFault;

/// Limits in seconds; a request has to keep all that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Time to first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft: Option<f64>,
    /// Time per output token after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot: Option<f64>,
    /// End-to-end latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2el: Option<f64>,
}

impl Slo {
    /// The limits with their names.
    pub fn limits(&self) -> [(&'static str, Option<f64>); 3] {
        [("ttft", self.ttft), ("tpot", self.tpot), ("e2el", self.e2el)]
    }

    /// What is wrong with the limits, if anything.
    pub fn check(&self) -> Result<(), ParamFault> {
        let limits = self.limits().map(|(_, limit)| limit);
        let fault = |message: &str| Err(ParamFault { path: "slo".into(), message: message.into() });
        if limits.iter().all(Option::is_none) {
            return fault("expected at least one of ttft, tpot, e2el");
        }
        if limits.iter().flatten().any(|limit| !(*limit > 0.0 && limit.is_finite())) {
            return fault("a limit is a number of seconds above 0");
        }
        Ok(())
    }

    /// Whether a successful request keeps the limits; one that was not measured cannot be shown to.
    pub fn keeps(&self, ttft: Option<f64>, tpot: Option<f64>, e2el: Option<f64>) -> bool {
        [(self.ttft, ttft), (self.tpot, tpot), (self.e2el, e2el)]
            .into_iter()
            .all(|(limit, taken)| limit.is_none_or(|limit| taken.is_some_and(|taken| taken <= limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_limits_count_and_what_was_not_measured_fails_them() {
        let slo = Slo { ttft: Some(1.0), tpot: None, e2el: Some(2.0) };
        assert!(slo.keeps(Some(1.0), None, Some(2.0)));
        assert!(!slo.keeps(Some(1.0), Some(0.1), Some(2.1)) && !slo.keeps(None, None, Some(0.1)));
        assert!(slo.check().is_ok() && Slo::default().check().is_err());
        assert!(Slo { tpot: Some(0.0), ..slo }.check().is_err());
    }
}
