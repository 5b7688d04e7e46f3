//! The commit of what attempts made: result rows in one transaction for many, then each is published and remembered.
//! Unaware of how it was made.

use std::time::{Duration, Instant};

use super::attempt::{End, Finished, Job, Success};
use super::collect::{self, Made};
use super::publish;
use super::scratch::Scratch;
use super::session::Session;
use crate::base::clock;
use crate::base::digest::Digest;
use crate::error::{Error, Result};
use crate::graph::NodeIx;
use crate::store::ResultRecord;

/// What a successful attempt made, its bytes stored, not yet recorded and published.
pub(super) struct Pending<'s> {
    job: Job<'s>,
    made: Success<'s>,
    record: Option<ResultRecord>,
    since: Instant,
}

impl<'s> Pending<'s> {
    /// Of a job whose attempt was a success.
    pub(super) fn new(job: Job<'s>, made: Success<'s>) -> Self {
        let record = (!job.session.options.no_cache).then(|| record(&job, &made));
        Self { job, made, record, since: Instant::now() }
    }

    /// Its node.
    pub(super) fn node(&self) -> NodeIx {
        self.job.ix
    }

    /// How long the job took up to here.
    pub(super) fn took(&self) -> Duration {
        self.since.duration_since(self.job.begun)
    }

    fn row(&self) -> Option<(Digest, &ResultRecord)> {
        self.record.as_ref().map(|record| (self.made.keyed.key, record))
    }

    /// Publishes; `stored` says whether the result row is there.
    fn land(self, stored: std::result::Result<(), Error>) -> Finished {
        let Self { mut job, made, since, .. } = self;
        let Success { keyed, found, mut scratch, lock, seconds } = made;
        let published = stored.and_then(|()| publish::publish(job.session, job.node, &found));
        // whoever waits for the same result finds it now
        drop(lock);
        let end = match published {
            Ok(()) => {
                job.remember(&keyed, Some(seconds));
                job.forget_outputs();
                match scratch.settle() {
                    Ok(()) => End::Ran(found.into_iter().map(|found| found.artifact).collect()),
                    Err(error) => End::Failed(error.into()),
                }
            }
            Err(error) => {
                let places: Vec<Made> = found.into_iter().map(|found| found.made).collect();
                job.publish_on_failure(&places, &mut scratch);
                End::Failed(scratch.undo().err().unwrap_or(error).into())
            }
        };
        job.timing.commit += since.elapsed().as_secs_f64();
        job.finish(end)
    }
}

/// Commits all of them: first the result rows, so that nothing runs twice, then each in turn is published and handed to `done`.
pub(super) fn commit<'s>(session: &Session, batch: Vec<Pending<'s>>, mut done: impl FnMut(Finished)) {
    let rows: Vec<(Digest, &ResultRecord)> = batch.iter().filter_map(Pending::row).collect();
    let stored = session.project.store.put_results(&rows);
    drop(rows);
    for pending in batch {
        let stored = match &stored {
            Err(error) if pending.record.is_some() => Err(error.clone()),
            _ => Ok(()),
        };
        done(pending.land(stored));
    }
}

fn record(job: &Job<'_>, made: &Success<'_>) -> ResultRecord {
    let now = clock::now_ns();
    let names = job.node.outputs.iter().map(|output| output.name.clone());
    let mut noted = job.record.clone();
    noted.insert("policy".to_owned(), job.node.policy.as_str().into());
    ResultRecord {
        version: crate::store::RESULT_VERSION,
        node: job.node.id.clone(),
        run: job.session.run.clone(),
        made_at_ns: now,
        checked_at_ns: now,
        seconds: made.seconds,
        outputs: names.zip(made.found.iter().map(|found| found.artifact.clone())).collect(),
        record: noted,
    }
}

impl<'s> Job<'s> {
    /// Outputs that are published even if the attempt failed.
    pub(super) fn publish_on_failure(&mut self, places: &[Made], scratch: &mut Scratch<'s>) {
        for (output, made) in self.node.outputs.iter().zip(places) {
            if !output.on_failure {
                continue;
            }
            if let Ok(Some(found)) = collect::one(self.session, output, made) {
                // what cannot be published now is lost with the attempt, and the failure that is told is the attempt's
                let _ = self.publish_one(output, found, scratch);
                self.finder.forget(&self.session.project.root.join(&output.path));
            }
        }
    }

    fn publish_one(
        &self,
        output: &crate::graph::Output,
        mut found: collect::Found,
        scratch: &mut Scratch<'s>,
    ) -> Result<()> {
        let place = self.session.project.root.join(&output.path);
        if found.made.direct {
            // out of reach of what is put back next
            let Some(moved) = scratch.take_out(&found.made.path)? else { return Ok(()) };
            found = collect::Found { made: moved, ..found };
            publish::one(self.session, self.node, output, &found)?;
            return scratch.keep(&place);
        }
        publish::one(self.session, self.node, output, &found)
    }
}
