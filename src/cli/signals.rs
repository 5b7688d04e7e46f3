//! Ctrl-C and SIGTERM become interrupts of the run: once to stop, twice to kill, a third time to leave at once. Unaware of what runs.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::engine::Interrupts;
use crate::error::{Error, Result};

/// Listens from now on.
pub(super) fn listen() -> Result<Interrupts> {
    let interrupts = Interrupts::default();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| Error::environment(format!("failed to listen for signals: {e}")))?;
    let told = interrupts.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if told.kill.is_cancelled() {
                    // it does not listen any more; the guard ends what it has started
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                if told.stop.is_cancelled() {
                    told.kill.cancel();
                }
                if signal == SIGTERM {
                    told.terminated.cancel();
                }
                told.stop.cancel();
            }
        })
        .map_err(|e| Error::environment(format!("failed to start a thread: {e}")))?;
    Ok(interrupts)
}
