//! `flow cache`: what the store holds, whether it is sound, and making room.

use std::collections::HashSet;
use std::process::ExitCode;

use serde_json::json;

use crate::base::digest::Digest;
use crate::cli::app::App;
use crate::cli::args::{CacheArgs, CacheWhat, GcArgs};
use crate::cli::signals;
use crate::error::{Error, Result};
use crate::observe::record::Record;
use crate::store::{GcOptions, Store, rebuild_damaged, runs};

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
        CacheWhat::Verify { repair, json } => verify(app, *repair, *json),
        CacheWhat::Gc(args) => gc(app, args),
        CacheWhat::Export(_) | CacheWhat::Import(_) | CacheWhat::Push(_) | CacheWhat::Pull(_) => {
            Err(Error::bug("a later command was not refused"))
        }
    }
}

fn verify(app: &App, repair: bool, json: bool) -> Result<ExitCode> {
    let rebuilt = if repair { rebuild_damaged(&app.cache())? } else { Vec::new() };
    let store = Store::open(&app.cache())?;
    let mut report = if repair { store.repair()? } else { store.verify()? };
    report.rebuilt = rebuilt;
    if json {
        app.json(&report)?;
    } else {
        app.printer.data(&lines(&serde_json::to_value(&report).unwrap_or_default()));
    }
    if repair {
        if report.removed > 0 || !report.rebuilt.is_empty() {
            app.printer
                .talk("what was damaged has been taken away: the next run makes again what it needs of it\n");
        }
        if report.unreadable.is_empty() && report.damaged_databases.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        return Err(Error::environment("the cache is damaged, and some of it could not be taken away"));
    }
    if report.is_ok() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Error::environment("the cache is damaged")
        .hint("nothing wrong is ever used: what is needed of it is made again by the next run")
        .hint("--repair takes away what is damaged"))
}

fn gc(app: &App, args: &GcArgs) -> Result<ExitCode> {
    let interrupts = signals::listen()?;
    let _lock = super::run::lock(app, args.no_wait, &interrupts)?;
    let store = Store::open(&app.cache())?;
    let report = store.gc(&GcOptions {
        max_size: args.max_size,
        max_age: args.max_age,
        keep_runs: args.keep_runs,
        keep_keys: args.keep_runs.map_or_else(|| Ok(HashSet::new()), |count| keys_used(&store, count))?,
        samples: args.samples,
        dry_run: args.dry_run,
    })?;
    if args.json {
        return app.json(&report);
    }
    app.printer.data(&lines(&json!(report)));
    Ok(ExitCode::SUCCESS)
}

/// The keys of all results that the last runs made or used, as far as their records name them: a run that found nothing to do used
/// what is published.
fn keys_used(store: &Store, count: usize) -> Result<HashSet<Digest>> {
    let mut keys = HashSet::new();
    for run in runs::list(store)?.into_iter().take(count) {
        let lines = runs::read(store, &run.id)?;
        // killed before its first line
        if lines.is_empty() {
            continue;
        }
        let record = Record::read(lines)?;
        keys.extend(record.nodes.values().filter_map(|node| node.key.as_deref()?.parse::<Digest>().ok()));
    }
    Ok(keys)
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
