//! One run of a node that nobody but a comparison will see: its outputs stay in scratch. Unaware of what they are compared with.

use std::path::PathBuf;
use std::time::Instant;

use crate::api::Done;
use crate::engine::attempt::{Failure, Job};
use crate::engine::collect::Made;
use crate::engine::command::{self, Room};
use crate::engine::discover::Depfile;
use crate::engine::evaluate::Keyed;
use crate::engine::fill::Running;
use crate::engine::scratch::Scratch;
use crate::error::Error;

/// What a run left, in the order of the node's outputs.
pub(super) struct Trial {
    /// Where each output lies; `None` if it was not made, which it may.
    pub(super) outputs: Vec<Option<PathBuf>>,
    pub(super) seconds: f64,
}

impl<'s> Job<'s> {
    /// Runs the node and leaves its outputs in `scratch`. Files that it replaces in their declared places are put back.
    pub(super) fn trial(&mut self, keyed: &Keyed, scratch: &mut Scratch<'s>) -> Result<Trial, Failure> {
        let (session, node) = (self.session, self.node);
        crate::engine::session::check_secrets(&session.project, node)?;
        let changed = |path: String| Failure::new(format!("its input {path} changed meanwhile"));
        let before = self.look(keyed)?.map_err(changed)?;
        let devices = self.devices();
        let mut running = Running { inputs: self.files(keyed, scratch)?, devices, ..Running::default() };
        let places = self.places(scratch)?;
        let depfile = Depfile::place(session, node, &places, scratch)?;
        for (output, place) in node.outputs.iter().zip(&places) {
            running.outputs.insert(output.name.clone(), place.path.clone());
        }
        let begun = Instant::now();
        let result = if command::is_command(node) {
            let mut room = Room { places: &places, depfile: depfile.as_ref(), scratch };
            command::run(session, node, &running, &mut room, &self.cancel, &mut self.log).map(|_| Done::Made)
        } else {
            self.stage(running, None)
        };
        let seconds = begun.elapsed().as_secs_f64();
        let outputs = result.and_then(|_| self.take(&places, scratch));
        scratch.put_back()?;
        self.forget_outputs();
        let outputs = outputs?;
        if let Some((path, _)) = self.changed_since(&before)? {
            self.bring_back(&before)?;
            return Err(Failure::new(format!("it changes its input {path}")));
        }
        Ok(Trial { outputs, seconds })
    }

    /// Moves what was made in declared places out of the way of what is put back there.
    fn take(&self, made: &[Made], scratch: &mut Scratch<'s>) -> Result<Vec<Option<PathBuf>>, Failure> {
        let mut outputs = Vec::with_capacity(made.len());
        for (index, (output, made)) in self.node.outputs.iter().zip(made).enumerate() {
            let there = std::fs::metadata(&made.path);
            let empty = || std::fs::read_dir(&made.path).is_ok_and(|mut entries| entries.next().is_none());
            outputs.push(match there {
                Ok(_) if made.precreated && output.optional && empty() => None,
                Ok(_) if made.direct => {
                    let taken = scratch.directory()?.join(format!("taken-{index}"));
                    std::fs::rename(&made.path, &taken).map_err(|e| Error::io("move", &made.path, e))?;
                    Some(taken)
                }
                Ok(_) => Some(made.path.clone()),
                Err(_) if output.optional => None,
                Err(_) => {
                    return Err(Failure::new(format!(
                        "output '{}' ({}) was not made",
                        output.name, output.path
                    )));
                }
            });
        }
        Ok(outputs)
    }
}
