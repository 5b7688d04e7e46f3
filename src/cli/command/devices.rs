//! `flow devices`: what there is to lease.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::DevicesArgs;
use crate::engine::Machine;
use crate::error::Result;
use crate::observe::table;

pub(in crate::cli) fn run(app: &App, args: &DevicesArgs) -> Result<ExitCode> {
    let (hardware, notes) = Machine::new(args.devices.as_deref(), None)?.hardware()?;
    for note in notes {
        app.printer.talk(&format!("note: {note}\n"));
    }
    if args.json {
        return app.json(&hardware);
    }
    let rows: Vec<Vec<String>> = hardware
        .devices
        .iter()
        .map(|device| {
            let memory =
                if device.memory == 0 { "-".to_owned() } else { format!("{} MiB", device.memory >> 20) };
            let driver = if device.driver.is_empty() { "-" } else { &device.driver };
            vec![
                device.index.to_string(),
                device.model.clone(),
                memory,
                driver.to_owned(),
                device.uuid.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        app.printer.talk("no devices; --devices gpu:N of flow run gives N virtual ones\n");
    } else {
        app.printer.data(&table::render(&["index", "model", "memory", "driver", "uuid"], &[0, 2], &rows));
    }
    app.printer.talk(&format!("{} cores: {}\n", hardware.cpu.cores, hardware.cpu.model));
    Ok(ExitCode::SUCCESS)
}
