//! Built-in simulators: services that run as processes of their own (`flow __sim NAME JSON`), so that every workflow runs without a network.

pub mod http;
pub mod llm;

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::api::Catalog;
use crate::error::{Error, Result};

/// Adds the simulators.
pub fn register(catalog: &mut Catalog) {
    catalog.add_simulator(http::info());
    catalog.add_simulator(llm::info());
}

/// The body of the simulator process: starts `name` with the parameters `with_json`, prints `{"url": ...}` on standard output
/// when it is ready, serves until SIGTERM or SIGINT. Faults go to standard error.
pub fn main(name: &str, with_json: &str) -> ExitCode {
    match serve(name, with_json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = std::io::stderr().lock();
            let _ = writeln!(stderr, "{name}: {error}");
            for hint in &error.hints {
                let _ = writeln!(stderr, "  hint: {hint}");
            }
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn serve(name: &str, with_json: &str) -> Result<()> {
    let with: Value = serde_json::from_str(with_json)
        .map_err(|e| Error::usage(format!("the parameters are not JSON: {e}")))?;
    // before the service is ready, so that no signal finds the process unprepared
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])
            .map_err(|e| Error::environment(format!("failed to listen for signals: {e}")))?;
    match name {
        "sim.http" => {
            let server = http::Server::start(&with)?;
            announce(server.url())?;
            signals.forever().next();
        }
        "sim.llm" => {
            let server = llm::Server::start(&with)?;
            announce(server.url())?;
            signals.forever().next();
        }
        other => {
            return Err(Error::usage(format!("there is no simulator '{other}' (known: sim.http, sim.llm)")));
        }
    }
    Ok(())
}

/// The one line that a simulator prints: it is the service's protocol towards whoever started it.
fn announce(url: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", json!({ "url": url }))
        .and_then(|()| stdout.flush())
        .map_err(|e| Error::environment(format!("failed to write the ready line: {e}")))
}
