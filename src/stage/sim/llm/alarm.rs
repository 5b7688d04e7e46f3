//! Sleeping until a moment of CLOCK_MONOTONIC, to some ten microseconds: tokio's own timers round up to a millisecond, which is most
//! of the time between two tokens of a fast model. Unaware of what is waited for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::base::clock::monotonic_ns;

/// The timer of one serving thread.
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    sleepers: BinaryHeap<Reverse<Sleeper>>,
    /// What the timer is set to.
    set: Option<u64>,
}

struct Sleeper {
    due: u64,
    waker: Waker,
}

impl Alarm {
    /// In the runtime whose tasks will sleep. [`Alarm::run`] has to run there.
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // deprecated for types whose descriptor may change; an owned one stays what it is
        #[allow(deprecated)]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Arc::new(Self { timer, waiting: Mutex::default() }))
    }

    /// Wakes the sleepers, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        while let Ok(mut ready) = self.timer.readable().await {
            let mut times = [0; 8];
            let _ = rustix::io::read(self.timer.get_ref(), &mut times);
            ready.clear_ready();
            let mut waiting = self.waiting();
            let now = monotonic_ns();
            while waiting.sleepers.peek().is_some_and(|sleeper| sleeper.0.due <= now) {
                if let Some(Reverse(sleeper)) = waiting.sleepers.pop() {
                    sleeper.waker.wake();
                }
            }
            waiting.set = None;
            let next = waiting.sleepers.peek().map(|sleeper| sleeper.0.due);
            if let Some(next) = next {
                self.set(&mut waiting, next);
            }
        }
    }

    /// Ready at `due` or just after.
    pub(super) fn until(&self, due: u64) -> Sleep<'_> {
        Sleep { alarm: self, due, asleep: false }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, waiting: &mut Waiting, due: u64) {
        let it_value =
            Timespec { tv_sec: (due / 1_000_000_000) as i64, tv_nsec: (due % 1_000_000_000) as i64 };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval, it_value };
        // cannot fail with a valid time; if it did, the next sleeper would set the timer
        let done = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec);
        waiting.set = done.is_ok().then_some(due);
    }
}

/// See [`Alarm::until`].
pub(super) struct Sleep<'a> {
    alarm: &'a Alarm,
    due: u64,
    asleep: bool,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if monotonic_ns() >= self.due {
            return Poll::Ready(());
        }
        // a task stays with its waker, and its sleeper stays until it is due: one is enough
        if !self.asleep {
            self.asleep = true;
            let mut waiting = self.alarm.waiting();
            waiting.sleepers.push(Reverse(Sleeper { due: self.due, waker: cx.waker().clone() }));
            if waiting.set.is_none_or(|set| self.due < set) {
                self.alarm.set(&mut waiting, self.due);
            }
        }
        Poll::Pending
    }
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Sleeper {}

impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_wake_and_never_early() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let alarm = Alarm::new().unwrap();
            tokio::spawn(alarm.clone().run());
            let start = monotonic_ns();
            let sleep = |after: u64| {
                let alarm = alarm.clone();
                tokio::spawn(async move {
                    alarm.until(start + after).await;
                    assert!(monotonic_ns() >= start + after);
                })
            };
            for task in [3_000_000, 500_000, 1_000_000, 0, 200_000].map(sleep) {
                task.await.unwrap();
            }
        });
    }
}
