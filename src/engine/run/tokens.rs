//! The job tokens that a run holds: as many as its running nodes have CPU slots, the first one excepted. Unaware of what runs.

use std::sync::Arc;

use crate::engine::schedule::Scheduler;
use crate::exec::JobPool;

/// Tokens taken from a pool; all go back when this is dropped.
#[derive(Default)]
pub(super) struct Tokens {
    pool: Option<Arc<JobPool>>,
    held: Vec<u8>,
}

impl Tokens {
    pub(super) fn of(pool: Option<Arc<JobPool>>, scheduler: &mut Scheduler) -> Self {
        if pool.is_some() {
            scheduler.allow(1);
        }
        Self { pool, held: Vec::new() }
    }

    /// Takes one more token if a node waits for it. Whether another node may start now.
    pub(super) fn more(&mut self, scheduler: &mut Scheduler) -> bool {
        let Some(pool) = &self.pool else { return false };
        if !scheduler.wants_cpu() {
            return false;
        }
        let Some(token) = pool.take() else { return false };
        self.held.push(token);
        scheduler.allow(self.owned());
        true
    }

    /// Puts back what no running node needs.
    pub(super) fn give_back(&mut self, scheduler: &mut Scheduler) {
        let Some(pool) = &self.pool else { return };
        let needed = scheduler.used_cpu().max(1) as usize - 1;
        if self.held.len() > needed {
            pool.put(&self.held.split_off(needed));
            scheduler.allow(self.owned());
        }
    }

    /// No command has the pool now.
    pub(super) fn settle(&self) {
        if let Some(pool) = &self.pool {
            pool.settle(self.held.len());
        }
    }

    /// Whether there is a pool.
    pub(super) fn counted(&self) -> bool {
        self.pool.is_some()
    }

    fn owned(&self) -> u32 {
        1 + self.held.len() as u32
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.put(&self.held);
        }
    }
}
