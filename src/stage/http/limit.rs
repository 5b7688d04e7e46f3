//! How hard one server is pressed by this process: requests under way and the time between their starts. Unaware of what is asked.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use reqwest::Url;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::params::PerHost;

static HOSTS: LazyLock<Mutex<HashMap<String, Arc<Host>>>> = LazyLock::new(Default::default);

/// One server: scheme, host and port.
#[derive(Default)]
struct Host {
    state: Mutex<State>,
    left: Notify,
}

#[derive(Default)]
struct State {
    under_way: usize,
    last_start: Option<Instant>,
}

/// The right to have one request under way; given back when dropped.
pub(super) struct Slot(Arc<Host>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).under_way -= 1;
        self.0.left.notify_waiters();
    }
}

/// Waits for this request's turn at the server of `url`.
pub(super) async fn enter(url: &Url, limits: &PerHost) -> Slot {
    let origin = url.origin().ascii_serialization();
    let host = HOSTS.lock().unwrap_or_else(PoisonError::into_inner).entry(origin).or_default().clone();
    loop {
        let left = host.left.notified();
        tokio::pin!(left);
        left.as_mut().enable();
        let admitted =
            host.state.lock().unwrap_or_else(PoisonError::into_inner).admit(limits, Instant::now());
        if let Some(start) = admitted {
            let slot = Slot(host.clone());
            tokio::time::sleep_until(start).await;
            return slot;
        }
        left.await;
    }
}

impl State {
    /// Takes a place if there is one, and says when the request may start.
    fn admit(&mut self, limits: &PerHost, now: Instant) -> Option<Instant> {
        if self.under_way >= limits.connections {
            return None;
        }
        self.under_way += 1;
        let start = match self.last_start {
            Some(last) if !limits.min_interval.is_zero() => now.max(last + limits.min_interval),
            _ => now,
        };
        self.last_start = self.last_start.max(Some(start));
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn places_are_limited_and_starts_are_spaced() {
        let limits = PerHost { connections: 3, min_interval: Duration::from_millis(500) };
        let now = Instant::now();
        let mut state = State::default();
        assert_eq!(state.admit(&limits, now), Some(now));
        assert_eq!(state.admit(&limits, now), Some(now + Duration::from_millis(500)));
        assert_eq!(state.admit(&limits, now), Some(now + Duration::from_millis(1000)));
        assert_eq!(state.admit(&limits, now), None);
        state.under_way -= 1;
        let later = now + Duration::from_secs(9);
        assert_eq!(state.admit(&limits, later), Some(later));
    }

    #[test]
    fn a_step_without_an_interval_does_not_wait_for_one() {
        let now = Instant::now();
        let mut state = State::default();
        let free = PerHost { connections: 9, min_interval: Duration::ZERO };
        assert_eq!(state.admit(&free, now), Some(now));
        assert_eq!(state.admit(&free, now), Some(now));
    }
}
