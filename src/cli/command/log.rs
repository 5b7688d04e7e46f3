//! `flow log`: past runs from their records.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::{LogArgs, LogWhat};
use crate::error::Result;
use crate::event::Stamped;
use crate::observe::record::Record;
use crate::observe::trace::Trace;
use crate::observe::{Observer, critical_path, history};
use crate::store::{Store, runs};

pub(in crate::cli) fn run(app: &App, args: &LogArgs) -> Result<ExitCode> {
    let store = Store::open(&app.cache())?;
    let mut ids: Vec<String> = runs::list(&store)?.into_iter().map(|info| info.id).collect();
    ids.reverse();
    let read = |id: &str| Record::read(runs::read(&store, id)?);
    let chosen = |asked: Option<&str>| history::select(&ids, asked).and_then(read);
    match args.what() {
        LogWhat::List { json } => {
            // one that is damaged hides no other
            let mut records = Vec::with_capacity(ids.len());
            for id in &ids {
                match read(id) {
                    Ok(record) => records.push(record),
                    Err(error) => app.printer.talk(&format!("run {id} is left out: {}\n", error.message)),
                }
            }
            if json {
                return app.json(&history::list_json(&records));
            }
            app.printer.data(&history::list(&records));
        }
        LogWhat::Show { run, json } => {
            let record = chosen(run.as_deref())?;
            if json {
                return app.json(&history::show_json(&record, app.cli.global.verbose));
            }
            app.printer.data(&history::show(&record, app.cli.global.verbose));
        }
        LogWhat::Output { node, run } => {
            app.printer.data(&history::output(&chosen(run.as_deref())?, &node)?);
        }
        LogWhat::Diff { a, b, json } => {
            let (a, b) = (chosen(Some(&a))?, chosen(Some(&b))?);
            if json {
                return app.json(&history::diff_json(&a, &b));
            }
            app.printer.data(&history::diff_text(&a, &b));
        }
        LogWhat::CriticalPath { run, json } => {
            let record = chosen(run.as_deref())?;
            if json {
                return app.json(&critical_path::json(&record));
            }
            app.printer.data(&critical_path::text(&record));
        }
        LogWhat::Trace { run, output } => {
            let lines = runs::read(&store, history::select(&ids, run.as_deref())?)?;
            // refused if it is no record this flow reads
            Record::read(lines.iter().take(1).cloned())?;
            let trace = Trace::create(&output)?;
            let events =
                lines.into_iter().skip(1).filter_map(|line| serde_json::from_value::<Stamped>(line).ok());
            events.for_each(|stamped| trace.observe(&stamped));
            trace.finish()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
