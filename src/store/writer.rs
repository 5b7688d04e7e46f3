//! The one thread that writes a database: whatever its channel holds becomes one transaction. Unaware of tables.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};

use super::db;
use crate::base::failpoint;
use crate::{Error, Result};

/// One change of the database, run inside a transaction of the writer.
pub(super) type Work = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;

/// Called once the transaction is committed, or with why it was not.
type Done = Box<dyn FnOnce(Result<(), &str>) + Send>;

struct Job {
    work: Work,
    done: Option<Done>,
}

/// The writer of one database. Dropped, it first commits what is queued.
///
/// Queued work is never lost quietly: when a transaction fails, everything after it fails with the same message, since later rows
/// may refer to those that were lost.
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<String>>>,
    path: PathBuf,
}

impl Writer {
    /// Starts the thread on its own connection.
    pub(super) fn start(db: Connection, path: &Path) -> Result<Self> {
        let (jobs, queue) = channel();
        let failure = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&failure);
        let thread = std::thread::Builder::new()
            .name("flow-index".to_owned())
            .spawn(move || serve(db, &queue, &seen))
            .map_err(|e| Error::io("start the writer of", path, e))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), failure, path: path.to_owned() })
    }

    /// Hands over `work` and goes on.
    pub(super) fn queue(&self, work: Work) {
        self.send(Job { work, done: None });
    }

    /// Hands over `work`; `done` is called on the writer's thread and must not keep this writer alive.
    pub(super) fn queue_then(&self, work: Work, done: Done) {
        self.send(Job { work, done: Some(done) });
    }

    /// Hands over `work` and waits until it is committed.
    pub(super) fn run(&self, work: Work) -> Result<()> {
        let (sender, receiver) = channel();
        self.queue_then(
            work,
            Box::new(move |result| {
                // The receiver is gone only if the waiting thread is.
                let _ = sender.send(result.map_err(str::to_owned));
            }),
        );
        match receiver.recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(self.error(&message)),
            Err(_) => Err(self.error("the writing thread has ended")),
        }
    }

    /// Waits until everything handed over so far is committed.
    pub(super) fn sync(&self) -> Result<()> {
        self.run(Box::new(|_| Ok(())))
    }

    fn send(&self, job: Job) {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        if !matches!(sent, Some(Ok(()))) {
            note(&self.failure, "the writing thread has ended");
        }
    }

    fn error(&self, message: &str) -> Error {
        let error = Error::io("write", &self.path, message);
        if ["malformed", "not a database"].iter().any(|damage| message.contains(damage)) {
            return error.hint(db::damage_hint(&self.path));
        }
        error
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by the panic hook; there is nobody to hand it to.
            let _ = thread.join();
        }
    }
}

fn note(failure: &Mutex<Option<String>>, message: &str) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| message.to_owned());
}

fn serve(mut db: Connection, queue: &Receiver<Job>, failure: &Mutex<Option<String>>) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).collect();
        let mut finished = Vec::new();
        let known = failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let result = match known {
            Some(message) => {
                finished.extend(batch.into_iter().filter_map(|job| job.done));
                Err(message)
            }
            None => commit(&mut db, batch, &mut finished).map_err(|e| e.to_string()),
        };
        if let Err(message) = &result {
            note(failure, message);
        }
        for done in finished {
            done(match &result {
                Ok(()) => Ok(()),
                Err(message) => Err(message),
            });
        }
    }
}

fn commit(db: &mut Connection, batch: Vec<Job>, finished: &mut Vec<Done>) -> rusqlite::Result<()> {
    let mut works = Vec::with_capacity(batch.len());
    for job in batch {
        works.push(job.work);
        finished.extend(job.done);
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for work in works {
        work(&transaction)?;
    }
    failpoint::hit("uncommitted");
    transaction.commit()
}

/// Opens the two connections of a database: one to read with, and the writer.
pub(super) fn open(path: &Path, schema: &db::Schema) -> Result<(Mutex<Connection>, Writer)> {
    let writer = Writer::start(db::open(path, schema)?, path)?;
    let reader = db::open(path, schema)?;
    Ok((Mutex::new(reader), writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: db::Schema =
        db::Schema { migrations: &["CREATE TABLE a (x INTEGER PRIMARY KEY)"], newer_hint: "" };

    fn insert(x: i64) -> Work {
        Box::new(move |db| db.execute("INSERT INTO a VALUES (?1)", [x]).map(drop))
    }

    #[test]
    fn queued_work_is_there_after_sync_and_after_drop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let (reader, writer) = open(&path, &SCHEMA).unwrap();
        let count = |db: &Connection| -> i64 {
            db.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap()
        };
        for x in 0..100 {
            writer.queue(insert(x));
        }
        writer.sync().unwrap();
        assert_eq!(count(&reader.lock().unwrap()), 100);
        writer.queue(insert(100));
        drop(writer);
        assert_eq!(count(&reader.lock().unwrap()), 101);
    }

    #[test]
    fn after_a_failure_nothing_more_is_written_and_everybody_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, writer) = open(&dir.path().join("x.db"), &SCHEMA).unwrap();
        writer.run(insert(1)).unwrap();
        writer.queue(insert(1));
        assert!(writer.run(insert(2)).unwrap_err().message.contains("UNIQUE"));
        assert!(writer.sync().is_err());
        let rows: i64 =
            reader.lock().unwrap().query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1);
    }
}
