//! What a command may touch under `--strict`, from what its node declares; and what it means that it touched more.

use std::path::Path;

use super::attempt::Failure;
use super::command::Room;
use super::evaluate::Keyed;
use super::facts::{matching_files, resolve};
use super::fill::Running;
use super::session::Session;
use crate::error::{Error, Result};
use crate::exec::{Offence, Rules, Told};
use crate::graph::Node;
use crate::model::Tool;

/// How many undeclared paths a message names.
const NAMED: usize = 20;

/// The rules for one attempt.
pub(super) fn rules(
    session: &Session,
    node: &Node,
    running: &Running,
    room: &mut Room<'_, '_>,
    env: &[(String, String)],
) -> Result<Rules> {
    let attempt = room.scratch.directory()?;
    let project = &session.project;
    let root = &project.root;
    let value = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut rules = Rules::new(root, value("PATH").unwrap_or_default(), value("HOME").map(Path::new));
    for never in [project.store.dir(), &root.join(".flow"), &root.join(".git")] {
        rules.hide(never);
    }
    for file in running.inputs.values().flatten() {
        let path = root.join(&file.path);
        rules.read(&path);
        if path.starts_with(&attempt) {
            // a view of an append directory: links to the entries
            for entry in std::fs::read_dir(&path).map_err(|e| Error::io("read", &path, e))?.flatten() {
                rules.read(&entry.path());
            }
        }
    }
    for made in room.places {
        match made.path.parent() {
            _ if made.direct => rules.make(&made.path),
            Some(own) if own.starts_with(&attempt) => rules.write(own),
            // standard output
            _ => rules.write(&made.path),
        }
    }
    rules.write(&temporary(&attempt));
    if let Some(pool) = session.jobs().filter(|_| node.resources.jobserver.is_some()) {
        rules.write(pool.path());
    }
    for tool in &node.tools {
        let (program, files) = match tool {
            Tool::Program(program) => (Some(program), &[][..]),
            Tool::Version { argv, files } => (argv.first(), &files[..]),
        };
        if let Some(path) = program.and_then(|program| resolve(root, program)) {
            rules.read(&path);
        }
        for pattern in files {
            for path in matching_files(project, pattern)? {
                rules.read(&root.join(path));
            }
        }
    }
    if let Some(depfile) = room.depfile {
        rules.make(depfile.path());
        rules.discover();
    }
    let cwd = node.action.io().and_then(|io| io.cwd.as_ref());
    rules.list(&cwd.map_or_else(|| root.clone(), |cwd| root.join(cwd)));
    Ok(rules)
}

/// Where a confined command finds room for temporary files.
pub(super) fn temporary(attempt: &Path) -> std::path::PathBuf {
    attempt.join("tmp")
}

/// The failure of a command that touched what it does not declare, or that could not be confined; `ended`: how it ended, for the message.
pub(super) fn failure(told: Told, ended: &str) -> Option<Failure> {
    if told.offences.is_empty() {
        return told.failure.map(Failure::from);
    }
    let mut lines: Vec<String> = told.offences.iter().map(line).collect();
    let left = lines.len().saturating_sub(NAMED);
    lines.truncate(NAMED);
    if left > 0 {
        lines.push(format!("and {left} more"));
    }
    let ended = match told.offences.iter().any(|offence| offence.prevented) {
        true => "and was ended before it could",
        false => ended,
    };
    let message = match &lines[..] {
        [one] => format!("--strict: it {one}, which it does not declare ({ended})"),
        _ => format!("--strict: it touched what it does not declare ({ended}):\n{}", lines.join("\n")),
    };
    Some(Failure { hints: hints(&told.offences), ..Failure::new(message) })
}

/// What a command read undeclared has to be named by its depfile.
pub(super) fn check_discovered(
    session: &Session,
    read: &[Offence],
    keyed: &Keyed,
) -> std::result::Result<(), Failure> {
    let root = &session.project.root;
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let named: Vec<_> =
        keyed.facts.discovered.iter().flatten().map(|fact| real(&root.join(&fact.path))).collect();
    let beyond = |offence: &&Offence| {
        let path = real(&root.join(&offence.path));
        !named.iter().any(|named| path.starts_with(named))
    };
    let offences = read.iter().filter(beyond).cloned().collect();
    match failure(Told { offences, failure: None }, "and its depfile does not name it") {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn line(offence: &Offence) -> String {
    let by = if offence.program.is_empty() { String::new() } else { format!(" (by {})", offence.program) };
    format!("{} {}{by}", offence.access.verb(), offence.path)
}

fn hints(offences: &[Offence]) -> Vec<String> {
    let any = |what: &dyn Fn(&Offence) -> bool| offences.iter().any(what);
    let reads = any(&|o| !o.access.changes());
    let changes = any(&|o| o.access.changes());
    let mut hints = Vec::new();
    if reads {
        hints.push(
            "declare what it reads or executes under 'inputs', a program also under 'tools'".to_owned(),
        );
    }
    if changes {
        hints.push(
            "declare what it makes under 'outputs'; room for anything else is in TMPDIR and beside ${outputs.N}".to_owned(),
        );
    }
    if any(&|o| o.path.contains("__pycache__")) {
        hints.push("Python keeps no byte code beside its sources with \"env\": {\"PYTHONPYCACHEPREFIX\": \"/dev/shm/pycache\"} or python -B".to_owned());
    }
    hints
}
