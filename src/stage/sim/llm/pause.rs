//! The windows in which the server stands still. Unaware of who waits.

use std::sync::OnceLock;

use super::params::PauseParam;

/// The windows, which count from the first request.
pub(super) struct Pauses {
    /// Start and end in nanoseconds after the first request.
    windows: Vec<(u64, u64)>,
    first: OnceLock<u64>,
}

impl Pauses {
    /// From checked parameters.
    pub(super) fn new(pauses: &[PauseParam]) -> Self {
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        let windows = pauses.iter().map(|pause| (ns(pause.at), ns(pause.at) + ns(pause.length)));
        Self { windows: windows.collect(), first: OnceLock::new() }
    }

    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// A request arrived.
    pub(super) fn begin(&self, now: u64) {
        if !self.is_empty() {
            self.first.get_or_init(|| now);
        }
    }

    /// When the window that `now` is in ends.
    pub(super) fn end(&self, now: u64) -> Option<u64> {
        let first = self.first.get()?;
        let since = now.checked_sub(*first)?;
        let ends = self.windows.iter().filter(|(from, to)| (*from..*to).contains(&since)).map(|(_, to)| *to);
        ends.max().map(|end| first + end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_from_the_first_request() {
        let pauses = Pauses::new(&[PauseParam { at: 1.0, length: 2.0 }, PauseParam { at: 2.0, length: 3.0 }]);
        assert_eq!(pauses.end(5), None);
        pauses.begin(1_000);
        pauses.begin(2_000);
        assert_eq!(pauses.end(1_000_000_999), None);
        assert_eq!(pauses.end(1_000_001_000), Some(3_000_001_000));
        assert_eq!(pauses.end(2_500_000_000), Some(5_000_001_000));
        assert_eq!(pauses.end(5_000_001_000), None);
    }
}
