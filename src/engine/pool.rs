//! Threads that take jobs: as many as there are jobs at once, each used again. Unaware of what a job does.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

type Job<'s> = Box<dyn FnOnce() + Send + 's>;

/// Jobs that wait for a thread, and how many threads wait for a job. The threads end when it is closed.
pub(super) struct Pool<'s> {
    state: Mutex<State<'s>>,
    wake: Condvar,
}

struct State<'s> {
    jobs: VecDeque<Job<'s>>,
    idle: usize,
    threads: usize,
    closed: bool,
}

impl<'s> Pool<'s> {
    /// No threads yet.
    pub(super) fn new() -> Self {
        let state = State { jobs: VecDeque::new(), idle: 0, threads: 0, closed: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    /// Hands `job` to a thread that has nothing to do, or to a new one.
    ///
    /// # Errors
    /// The system gives no thread, and there is none that could take it later.
    pub(super) fn run<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        job: impl FnOnce() + Send + 's,
    ) -> io::Result<()>
    where
        's: 'scope,
    {
        let mut state = self.state();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() {
            drop(state);
            self.wake.notify_one();
            return Ok(());
        }
        let name = format!("node-{}", state.threads);
        match std::thread::Builder::new().name(name).spawn_scoped(scope, || self.work()) {
            Ok(_) => state.threads += 1,
            // those that are at work take it when they are done
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                state.jobs.pop_back();
                return Err(error);
            }
        }
        Ok(())
    }

    /// No more jobs come: every thread ends once nothing waits.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_all();
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<'s>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn every_job_runs_and_those_that_wait_for_each_other_have_threads_of_their_own() {
        let done = AtomicUsize::new(0);
        let pool = Pool::new();
        std::thread::scope(|scope| {
            let barrier = Arc::new(Barrier::new(8));
            for _ in 0..8 {
                let barrier = Arc::clone(&barrier);
                pool.run(scope, move || {
                    barrier.wait();
                })
                .unwrap();
            }
            for _ in 0..1000 {
                pool.run(scope, || {
                    done.fetch_add(1, Ordering::SeqCst);
                })
                .unwrap();
            }
            pool.close();
        });
        assert_eq!(done.load(Ordering::SeqCst), 1000);
        assert!(pool.state().threads >= 8);
    }
}
