//! Opens, reads and hashes (BLAKE3) the files named on standard input, one after another in one thread: the floor under a look at files
//! whose time stamps say nothing. `cargo run --release --example hash < LIST`

use std::io::{BufRead, Read};
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    let mut bytes = Vec::new();
    let mut all = blake3::Hasher::new();
    for path in std::io::stdin().lock().lines() {
        bytes.clear();
        std::fs::File::open(path?)?.read_to_end(&mut bytes)?;
        all.update(blake3::hash(&bytes).as_bytes());
    }
    // without a use of it, nothing need be computed
    Ok(ExitCode::from(u8::from(all.finalize().as_bytes() == &[0; 32])))
}
