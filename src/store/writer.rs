//! The one thread that writes a database: whatever is queued becomes one transaction. Unaware of tables.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

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

/// Longest time that work waits for more, if nobody waits for it.
const LINGER: Duration = Duration::from_millis(100);
/// As much work is committed without waiting for more.
const MANY: usize = 4096;

/// Work that was handed over.
#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// Somebody waits for it.
    urgent: bool,
    /// No more comes.
    closed: bool,
    /// The thread has ended.
    ended: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    failure: Mutex<Option<String>>,
}

/// The writer of one database. Dropped, it first commits what is queued.
///
/// Queued work is never lost quietly: when a transaction fails, everything after it fails with the same message, since later rows
/// may refer to those that were lost.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Writer {
    /// Starts the thread on its own connection.
    pub(super) fn start(db: Connection, path: &Path) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("flow-index".to_owned())
            .spawn(move || {
                let ended = Ended(&seen);
                serve(db, ended.0);
            })
            .map_err(|e| Error::io("start the writer of", path, e))?;
        Ok(Self { shared, thread: Some(thread), path: path.to_owned() })
    }

    /// Hands over `work` and goes on. It is committed soon, with what else comes meanwhile.
    pub(super) fn queue(&self, work: Work) {
        self.send(Job { work, done: None }, false);
    }

    /// Hands over `work`; `done` is called on the writer's thread and must not keep this writer alive.
    pub(super) fn queue_then(&self, work: Work, done: Done) {
        self.send(Job { work, done: Some(done) }, false);
    }

    /// Hands over `work` and waits until it is committed.
    pub(super) fn run(&self, work: Work) -> Result<()> {
        let (sender, receiver) = channel();
        let done: Done = Box::new(move |result| {
            // The receiver is gone only if the waiting thread is.
            let _ = sender.send(result.map_err(str::to_owned));
        });
        self.send(Job { work, done: Some(done) }, true);
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

    fn send(&self, job: Job, urgent: bool) {
        let mut queue = locked(&self.shared.queue);
        if queue.ended {
            note(&self.shared.failure, "the writing thread has ended");
            return;
        }
        queue.jobs.push(job);
        queue.urgent |= urgent;
        // The thread sleeps until there is something, then until it is worth a transaction.
        let wakes = queue.urgent || queue.jobs.len() == 1 || queue.jobs.len() >= MANY;
        drop(queue);
        if wakes {
            self.shared.wake.notify_one();
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
        locked(&self.shared.queue).closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by the panic hook; there is nobody to hand it to.
            let _ = thread.join();
        }
    }
}

/// Says, however the thread ends, that nobody takes work any more; whoever waits for some is told by its loss.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut queue = locked(&self.0.queue);
        queue.ended = true;
        queue.jobs.clear();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(failure: &Mutex<Option<String>>, message: &str) {
    locked(failure).get_or_insert_with(|| message.to_owned());
}

/// Waits for work; `None` once no more comes.
fn next(shared: &Shared) -> Option<Vec<Job>> {
    let nothing = |queue: &mut Queue| queue.jobs.is_empty() && !queue.closed;
    let wait = |queue: &mut Queue| !queue.urgent && !queue.closed && queue.jobs.len() < MANY;
    let queue = locked(&shared.queue);
    let queue = shared.wake.wait_while(queue, nothing).unwrap_or_else(PoisonError::into_inner);
    let (mut queue, _) =
        shared.wake.wait_timeout_while(queue, LINGER, wait).unwrap_or_else(PoisonError::into_inner);
    queue.urgent = false;
    let jobs = std::mem::take(&mut queue.jobs);
    (!jobs.is_empty()).then_some(jobs)
}

fn serve(mut db: Connection, shared: &Shared) {
    while let Some(batch) = next(shared) {
        let mut finished = Vec::new();
        let known = locked(&shared.failure).clone();
        let result = match known {
            Some(message) => {
                finished.extend(batch.into_iter().filter_map(|job| job.done));
                Err(message)
            }
            None => commit(&mut db, batch, &mut finished).map_err(|e| e.to_string()),
        };
        if let Err(message) = &result {
            note(&shared.failure, message);
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
