//! Random workflows, edits, failures and kills against a reference that builds everything anew in memory.
//!
//! `FLOW_HISTORIES=N` runs N histories (from `FLOW_FIRST_SEED`, else from anywhere), `FLOW_SEED=S` replays one; a failing one is made
//! smaller, and its workspace is kept. `FLOW_JOBS` histories at once (2); `FLOW_BINARY`: another build of flow.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, reason = "all of it is test code")]

mod allowed;
mod breaks;
mod cache;
mod content;
mod dag;
mod edits;
mod events;
mod foretell;
mod generate;
mod graph;
mod history;
mod interpret;
mod plan;
mod process;
mod shrink;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

/// Runs that ended and were compared in all they did, nodes of them that ran, and runs that a kill or a signal broke off.
static COMPARED: AtomicU64 = AtomicU64::new(0);
static NODES_RAN: AtomicU64 = AtomicU64::new(0);
static BROKEN_OFF: AtomicU64 = AtomicU64::new(0);

/// Histories that a plain `cargo test` runs: few, and always the same, so that a red build is red again.
const SEEDS: std::ops::Range<u64> = 1..6;
/// Histories that once failed.
const COMMITTED: &str = include_str!("seeds.txt");

#[test]
fn histories_are_equal_to_the_reference() {
    if let Some(seed) = number("FLOW_SEED") {
        return shrink::replay(seed);
    }
    let seeds: Vec<u64> = match number("FLOW_HISTORIES") {
        // other ones each time, and the first is printed
        Some(count) => {
            let first = number("FLOW_FIRST_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
            (first..first + count).collect()
        }
        None => {
            let committed = COMMITTED.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
            committed.map(|line| line.split(' ').next().unwrap().parse().unwrap()).chain(SEEDS).collect()
        }
    };
    eprintln!("{} histories, the first with FLOW_SEED={}", seeds.len(), seeds[0]);
    let next = AtomicU64::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..number("FLOW_JOBS").unwrap_or(2) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(seed) = seeds.get(number) else { break };
                    if number > 0 && number.is_multiple_of(50) {
                        eprintln!("{number} ...");
                    }
                    if let Err(failure) = history::History::new(*seed).play() {
                        eprintln!("FLOW_SEED={seed}: {}", failure.message.lines().next().unwrap_or_default());
                        failed.lock().unwrap().push(*seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    eprintln!("{} of {} histories were equal to the reference", seeds.len() - failed.len(), seeds.len());
    let counts = [&COMPARED, &NODES_RAN, &BROKEN_OFF].map(|count| count.load(Ordering::Relaxed));
    eprintln!("{} runs compared, {} nodes ran in them; {} runs broken off", counts[0], counts[1], counts[2]);
    assert!(
        !failed.is_empty() || seeds.len() < 5 || counts.iter().all(|count| *count > 0),
        "nothing was tried: {counts:?}"
    );
    if let Some(seed) = failed.first() {
        eprintln!("failed: {failed:?}");
        shrink::replay(*seed);
        panic!("FLOW_SEED={seed} failed, and then did not: it depends on time");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
