//! `flow why`: which node made a file, and from what.

use std::process::ExitCode;

use crate::cli::app::App;
use crate::cli::args::WhyArgs;
use crate::engine;
use crate::error::Result;

pub(in crate::cli) fn run(app: &App, args: &WhyArgs) -> Result<ExitCode> {
    let project = app.open(&args.workflow)?;
    let why = engine::why(&project, &args.path)?;
    let mut out = String::new();
    match (&why.node, &why.output) {
        (Some(node), Some(output)) => {
            out.push_str(&format!("{} is output '{output}' of {node}\n", why.path));
            match &why.run {
                Some(run) => out.push_str(&format!("last made or found in run {run}\n")),
                None => out.push_str("not made here yet\n"),
            }
        }
        (Some(node), None) => {
            out.push_str(&format!(
                "{} is an orphan: {node} made it once, and no node declares it now\n",
                why.path
            ));
        }
        _ => out.push_str(&format!("{} is a source: no node makes it\n", why.path)),
    }
    for (input, paths) in &why.inputs {
        out.push_str(&format!("  from {input}:\n"));
        for path in paths {
            out.push_str(&format!("    {path}\n"));
        }
    }
    if !why.discovered.is_empty() {
        out.push_str("  from its depfile:\n");
        why.discovered.iter().for_each(|path| out.push_str(&format!("    {path}\n")));
    }
    for node in &why.read_by {
        out.push_str(&format!("  read by {node}, as its depfile says\n"));
    }
    for node in &why.taken_by {
        out.push_str(&format!("  taken by {node}\n"));
    }
    app.printer.data(&out);
    Ok(ExitCode::SUCCESS)
}
