//! A workflow of many small stages of its own, to measure what a node costs beside what it does: each reads two files of 600 bytes and
//! writes one. `SIDE` in the environment is the number of files on each side; there is a node for every pair.

use std::process::ExitCode;

use flow::prelude::*;

/// As the `flow` binary does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    flow::cli::main_with(|_args| workflow())
}

fn workflow() -> Workflow {
    let side: u32 = std::env::var("SIDE").ok().and_then(|side| side.parse().ok()).unwrap_or(100);
    let mut wf = Workflow::new("inprocess");
    let numbers = wf.param("numbers", json!((0..side).collect::<Vec<u32>>()));
    wf.step("join")
        .matrix("a", &numbers)
        .matrix("b", &numbers)
        .input("a", "src/a${matrix.a}.txt")
        .input("b", "src/b${matrix.b}.txt")
        .uses_fn("bench.join", 1, |ctx: &mut StageContext| {
            let (mut a, b) = (ctx.input("a")?.read()?, ctx.input("b")?.read()?);
            a.truncate(64);
            a.extend(b.iter().take(64));
            ctx.write("joined", &a)
        })
        .output("joined", "out/${matrix.a}/${matrix.b}.txt");
    wf
}
