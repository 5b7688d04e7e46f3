//! Runs that do not go their way: killed, interrupted, with a source edited meanwhile. Unaware of what comes after.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::content::{Content, Disk};
use crate::dag::Sort;
use crate::edits::Edit;
use crate::events;
use crate::plan::Outcome;
use crate::process::Ended;
use crate::world::{Expected, Request, World, ensure};

/// How a run is broken off.
#[derive(Clone, Debug)]
pub enum Break {
    /// At a failpoint.
    At(String),
    Killed(Duration),
    Interrupted(Duration),
}

impl World {
    /// A run that is killed or interrupted on its way, unless it ends before.
    pub fn run_broken(&mut self, request: &Request, how: &Break) -> Result<(), String> {
        let workflow = self.workflow.clone();
        let expected = self.expect(&workflow, request);
        let args = self.args(&expected.graph, request);
        self.tell(format!("flow {} ({how:?})", args.join(" ")));
        let root = self.root.clone();
        let failpoint = match how {
            Break::At(point) => Some(point.as_str()),
            _ => None,
        };
        let mut started = self.start(&root, &args, failpoint);
        match how {
            Break::At(_) => {}
            Break::Killed(after) => started.signal_after(*after, Signal::SIGKILL),
            Break::Interrupted(after) => started.signal_after(*after, Signal::SIGINT),
        }
        let ended = started.wait()?;
        match (ended.status.code(), ended.status.signal()) {
            (Some(0 | 1), _) => self.compare(&expected, request, &ended),
            (_, Some(9)) => self.broken_off(&expected, request, &ended),
            // before flow had put its handler in place
            (_, Some(2)) | (Some(130), _) => self.broken_off(&expected, request, &ended),
            _ => Err(format!("it ended with {}\nstderr:\n{}", ended.status, ended.stderr)),
        }
    }

    /// A run that did not end by itself: no file is half, and what it said to be done is done.
    fn broken_off(&mut self, expected: &Expected, request: &Request, ended: &Ended) -> Result<(), String> {
        crate::BROKEN_OFF.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let said = || format!("\nstderr:\n{}", ended.stderr);
        events::check(&expected.graph, &ended.events, request.jobs, false).map_err(|e| e + &said())?;
        let ran = events::ran(&ended.events);
        let disk = Disk::read(&self.root);
        let allowed = self.allowed(expected);
        for (index, node) in expected.graph.nodes.iter().enumerate() {
            let plan = &expected.least;
            let said_ran = ran.contains(&node.id);
            let may = |outcome| allowed[index].contains(&outcome);
            let may_run = may(Outcome::Ran);
            ensure!(may_run || !said_ran, "{} ran, and had no need to{}", node.id, said());
            let outputs = plan.outputs[index].as_ref().or(expected.most.outputs[index].as_ref());
            let outputs = outputs.cloned().unwrap_or_default();
            if may_run {
                if let Some(key) = plan.keys[index].as_ref().filter(|_| !request.no_cache) {
                    self.cache.commit(key, said_ran);
                }
                outputs.iter().flatten().for_each(|content| self.cache.store(content, said_ran));
            }
            plan.leftovers[index].iter().flatten().for_each(|content| self.cache.store(content, false));
            let touched = may_run || may(Outcome::Restored) || may(Outcome::Failed);
            for (output, (declared, path)) in node.outputs.iter().enumerate() {
                let direct = node.step.direct && output == 0;
                if !touched {
                    continue;
                }
                if !self.published.contains(path) {
                    self.unsure.insert(path.clone());
                }
                if direct {
                    self.dirty.insert(path.clone());
                    continue;
                }
                let (before, after) = (expected.disk.content(path), plan.disk.content(path));
                let at_most = expected.most.disk.content(path);
                let found = disk.content(path);
                let files =
                    [&before, &after].iter().all(|content| !matches!(content, Some(Content::Tree(_))));
                let whole =
                    found == before || found == after || found == at_most || (found.is_none() && !files);
                let tree = found.is_some() && declared.sort == Sort::Dir && !files;
                // whichever of several with one key ran, or one whose result was perhaps there
                let led =
                    may_run && found.is_some() && outputs.get(output).is_some_and(|made| *made == found);
                ensure!(
                    whole || led || (tree && found == after),
                    "{path} was {}, was to be {}, and is {}{}",
                    show(&before),
                    show(&after),
                    show(&found),
                    said()
                );
            }
        }
        Ok(())
    }

    /// A run while which a source is edited: each node saw what was there before or after, and none of it is mixed.
    pub fn run_edited(
        &mut self,
        request: &Request,
        after: Duration,
        edit: Edit,
        rng: &mut Rng,
    ) -> Result<(), String> {
        let workflow = self.workflow.clone();
        let before = self.expect(&workflow, request);
        let args = self.args(&before.graph, request);
        self.tell(format!("flow {} (and after {after:?}:)", args.join(" ")));
        let root = self.root.clone();
        let started = self.start(&root, &args, None);
        std::thread::sleep(after);
        self.edit(edit, rng)?;
        let ended = started.wait()?;
        let said = || format!("\nstdout:\n{}\nstderr:\n{}", ended.stdout, ended.stderr);
        let code = ended.status.code();
        ensure!(matches!(code, Some(0 | 1)), "it ended with {code:?}{}", said());
        events::check(&before.graph, &ended.events, request.jobs, true).map_err(|e| e + &said())?;
        let mut disk = before.disk.clone();
        disk.0.retain(|path, _| !path.starts_with("src"));
        let sources = Disk::read(&root).0.into_iter().filter(|(path, _)| path.starts_with("src"));
        disk.0.extend(sources);
        let afterwards = self.expect_in(&workflow, request, disk, &self.published);
        for plan in [&before, &afterwards].iter().flat_map(|expected| [&expected.least, &expected.most]) {
            for (index, node) in before.graph.nodes.iter().enumerate() {
                if let Some(key) = &plan.keys[index] {
                    self.cache.commit(key, false);
                }
                let contents = plan.outputs[index].iter().flatten().chain(&plan.leftovers[index]);
                contents.flatten().for_each(|content| self.cache.store(content, false));
                let places = node.outputs.iter().map(|(_, path)| path);
                let unknown = places.filter(|path| !self.published.contains(*path)).cloned();
                self.unsure.extend(unknown.collect::<Vec<_>>());
            }
        }
        Ok(())
    }
}

fn show(content: &Option<Content>) -> String {
    content.as_ref().map_or("nothing".to_owned(), Content::short)
}
