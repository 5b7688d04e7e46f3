//! Generated files of the repository: compared with what the code gives now, rewritten with `FLOW_UPDATE=1`. Unaware of what they hold.

use std::path::Path;

/// Compares the repository's file `relative` with `text`; with `FLOW_UPDATE=1` in the environment it is written instead.
/// An error says how to bring it up to date.
pub(crate) fn check_current(relative: &str, text: &str) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(relative);
    if std::env::var_os("FLOW_UPDATE").is_some_and(|value| value == "1") {
        return crate::base::files::write_atomic(&path, text.as_bytes())
            .map_err(|e| format!("failed to write {relative}: {e}"));
    }
    match std::fs::read_to_string(&path) {
        Ok(old) if old == text => Ok(()),
        Ok(_) => Err(format!("{relative} is out of date (FLOW_UPDATE=1 cargo test rewrites it)")),
        Err(e) => Err(format!("failed to read {relative}: {e} (FLOW_UPDATE=1 cargo test writes it)")),
    }
}
