//! The `flow` binary.
#![allow(unsafe_code)] // calls of the allocator, which have no safe form
/// Many small values from many threads: a tenth of the time of a small stage is otherwise spent in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    safe fn mi_option_set_default(option: i32, value: std::ffi::c_long);
}

fn main() -> std::process::ExitCode {
    // purge delay and the factor for arenas: what is free goes back to the system after 1 ms
    [15, 24].into_iter().for_each(|option| mi_option_set_default(option, 1));
    flow::cli::main()
}
