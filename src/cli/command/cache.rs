//! `flow cache`: what the store holds, whether it is sound, and making room.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::app::App;
use crate::cli::args::{CacheArgs, CacheWhat};
use crate::cli::signals;
use crate::error::{Error, Result};
use crate::store::{GcOptions, Store};

pub(in crate::cli) fn run(app: &App, args: &CacheArgs) -> Result<ExitCode> {
    match &args.what {
        CacheWhat::Stats { json } => {
            let stats = Store::open(&app.cache())?.stats()?;
            if *json {
                return app.json(&stats);
            }
            app.printer.data(&lines(&serde_json::to_value(&stats).unwrap_or_default()));
            Ok(ExitCode::SUCCESS)
        }
        CacheWhat::Verify { json } => {
            let report = Store::open(&app.cache())?.verify()?;
            let ok = report.is_ok();
            if *json {
                app.json(&report)?;
            } else {
                app.printer.data(&lines(&serde_json::to_value(&report).unwrap_or_default()));
            }
            if ok {
                return Ok(ExitCode::SUCCESS);
            }
            Err(Error::environment("the cache has damaged or missing blobs")
                .hint("nothing wrong is ever used: what is needed of them is made again by the next run"))
        }
        CacheWhat::Gc(args) => {
            let interrupts = signals::listen()?;
            let _lock = super::run::lock(app, args.no_wait, &interrupts)?;
            let report = Store::open(&app.cache())?.gc(&GcOptions {
                max_size: args.max_size,
                max_age: args.max_age,
                keep_runs: args.keep_runs,
                samples: args.samples,
                dry_run: args.dry_run,
            })?;
            app.printer.data(&lines(&json!(report)));
            Ok(ExitCode::SUCCESS)
        }

        CacheWhat::Export(_) | CacheWhat::Import(_) | CacheWhat::Push(_) | CacheWhat::Pull(_) => {
            Err(Error::bug("a later command was not refused"))
        }
    }
}

/// `name: value` lines of a flat object; lists one item a line below.
fn lines(value: &serde_json::Value) -> String {
    let mut out = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Array(items) => {
                out.push_str(&format!("{name}: {}\n", items.len()));
                for item in items {
                    let text = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                    out.push_str(&format!("  {text}\n"));
                }
            }
            other => out.push_str(&format!("{name}: {other}\n")),
        }
    }
    out
}
