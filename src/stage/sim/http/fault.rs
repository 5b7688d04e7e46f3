//! Which fault hits which request. Unaware of HTTP.

use std::sync::atomic::{AtomicU64, Ordering};

use globset::{Glob, GlobMatcher};

use super::params::Fault;

/// The faults with what is left of each.
pub(super) struct Faults(Vec<Rule>);

struct Rule {
    matcher: GlobMatcher,
    left: Option<AtomicU64>,
    fault: Fault,
}

impl Faults {
    /// From checked parameters.
    pub(super) fn new(faults: &[Fault]) -> Result<Self, globset::Error> {
        let rules = faults.iter().map(|fault| {
            let pattern = fault.pattern.strip_prefix('/').unwrap_or(&fault.pattern);
            Ok(Rule {
                matcher: Glob::new(pattern)?.compile_matcher(),
                left: fault.times.map(AtomicU64::new),
                fault: fault.clone(),
            })
        });
        rules.collect::<Result<_, _>>().map(Self)
    }

    /// The fault for a request of `path`, used once more.
    pub(super) fn take(&self, path: &str) -> Option<&Fault> {
        let path = path.strip_prefix('/').unwrap_or(path);
        self.0.iter().find(|rule| rule.matcher.is_match(path) && rule.use_up()).map(|rule| &rule.fault)
    }
}

impl Rule {
    fn use_up(&self) -> bool {
        match &self.left {
            None => true,
            Some(left) => {
                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_apply_in_order_until_used_up() {
        let faults: Vec<Fault> = serde_json::from_value(json!([
            {"match": "/a/*.json", "status": 429, "times": 1},
            {"match": "a/**", "status": 503, "times": 2},
            {"match": "*", "delay_ms": 1}
        ]))
        .unwrap();
        let faults = Faults::new(&faults).unwrap();
        let status = |path| faults.take(path).unwrap().status;
        assert_eq!(status("/b/x.json"), None);
        assert_eq!(status("/a/x.json"), Some(429));
        assert_eq!(status("/a/x.json"), Some(503));
        assert_eq!(status("/a/b/x.csv"), Some(503));
        assert_eq!(status("/a/x.json"), None);
    }
}
