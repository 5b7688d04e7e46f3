//! The `flow` binary.
#![allow(unsafe_code)] // calls of the allocator, which have no safe form
/// Many small values from many threads: a tenth of the time of a small stage is otherwise spent in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    safe fn mi_option_set_default(option: i32, value: std::ffi::c_long);
}

fn main() -> std::process::ExitCode {
    // purge delay, its factor for arenas, full pages kept: what is free goes back to the system after 1 ms
    [(15, 1), (24, 1), (36, 0)].into_iter().for_each(|(option, value)| mi_option_set_default(option, value));
    flow::cli::main()
}
