//! The `flow` binary.

/// Many small values from many threads: a tenth of the time of a small stage is otherwise spent in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    flow::cli::main()
}
