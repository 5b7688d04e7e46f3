//! One thread that sends: its connections, its slots or its part of the schedule. It does nothing else while the clock runs: no
//! tokenizer, no file. Unaware of tables.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet, LocalSet, yield_now};

use super::clock;
use super::connection::Connection;
use super::conversation::{Conversations, History};
use super::exchange::{Left, Reads, exchange};
use super::failure::Failure;
use super::plan::Plan;
use super::record::Record;

/// Timers wake up to a millisecond late: the rest is waited for awake.
const AWAKE: u64 = 1_500_000;
/// A turn of the waiting loop that takes no longer did nothing else.
const IDLE_TURN: u64 = 20_000;
/// Connections that an open loop without a limit opens before it starts, at each endpoint.
const SPARE: usize = 16;

/// What a shard has to say.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) records: Vec<Record>,
    pub(super) reads: Reads,
    /// ns from the moment when a request could be sent to that at which it was.
    pub(super) send_lags: Vec<u64>,
    /// ns from a moment of the schedule to the wake-up for it.
    pub(super) overshoot: Vec<u64>,
    /// Connections opened after the start.
    pub(super) reconnects: u64,
    pub(super) conversations: Conversations,
    /// CPU time less what was waited awake, and time, ns.
    pub(super) busy: u64,
    pub(super) wall: u64,
}

/// A request that is to be sent.
#[derive(Clone, Copy)]
struct Ask<'b> {
    number: u64,
    slot: usize,
    /// When it was to be sent, 0 if nothing says; when it could be.
    sched: u64,
    ready: u64,
    body: &'b [u8],
    /// The server that it goes to, whatever the rule.
    pin: Option<usize>,
    /// Its text is asked for, if only for the next turn.
    keep_text: bool,
}

impl<'b> Ask<'b> {
    /// The first of a conversation.
    fn first(plan: &Plan, conversation: u64, slot: usize, body: &'b [u8]) -> Self {
        Self {
            number: conversation * plan.turns,
            slot,
            sched: 0,
            ready: 0,
            body,
            pin: None,
            keep_text: false,
        }
    }
}

/// What a request was answered.
struct Answered {
    endpoint: usize,
    end: u64,
    text: String,
}

struct Shard {
    plan: Arc<Plan>,
    number: usize,
    /// Idle ones by endpoint.
    idle: RefCell<Vec<Vec<Connection>>>,
    report: RefCell<Report>,
    /// The clock runs.
    measuring: Cell<bool>,
}

/// Does a shard's part of the load on the calling thread.
pub(super) fn run(plan: &Arc<Plan>, number: usize) -> std::io::Result<Report> {
    let shard = Rc::new(Shard {
        plan: Arc::clone(plan),
        number,
        idle: RefCell::new(plan.endpoints.iter().map(|_| Vec::new()).collect()),
        report: RefCell::default(),
        measuring: Cell::new(false),
    });
    // a failure or a panic before the start must not leave the others waiting
    let awaited = Awaited { plan, shard: &shard };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, Rc::clone(&shard).all());
    drop(awaited);
    Ok(shard.report.take())
}

/// Gives up a shard that ends before the clock runs.
struct Awaited<'s> {
    plan: &'s Plan,
    shard: &'s Shard,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if !self.shard.measuring.get() {
            self.plan.give_up();
        }
    }
}

impl Shard {
    async fn all(self: Rc<Self>) {
        let slots = self.plan.slots_of(self.number);
        self.unless_cancelled(Rc::clone(&self).prepare(slots)).await;
        self.measuring.set(true);
        // the others wait for it, cancelled or not
        let start = self.plan.start();
        self.plan.forget();
        let cpu = clock::thread_cpu();
        let spun = self.unless_cancelled(Rc::clone(&self).measure(start, slots)).await.unwrap_or(0);
        let mut report = self.report.borrow_mut();
        report.wall = clock::now().saturating_sub(start);
        report.busy = (clock::thread_cpu() - cpu).saturating_sub(spun);
    }

    /// What it comes to; `None` if the load has to end before: connections close with it.
    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let cancelled = async {
            while !self.plan.cancel.is_cancelled() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            found = work => Some(found),
            () = cancelled => None,
        }
    }

    /// Opens connections and warms up.
    async fn prepare(self: Rc<Self>, slots: Option<usize>) {
        self.open_before(slots.unwrap_or(SPARE)).await;
        let warming = (0..slots.unwrap_or(SPARE)).map(|slot| {
            let shard = Rc::clone(&self);
            async move {
                while let Some(conversation) = shard.plan.next_warm() {
                    let job = shard.plan.job(conversation);
                    shard.attempts(&Ask::first(&shard.plan, conversation, slot, &job.body)).await;
                }
            }
        });
        together(warming).await;
        self.report.take();
    }

    /// Returns what was waited awake.
    async fn measure(self: Rc<Self>, start: u64, slots: Option<usize>) -> u64 {
        match &self.plan.schedule {
            Some(schedule) => Rc::clone(&self).open_loop(schedule, start, slots).await,
            None => {
                let spun = self.wait_for(start).await;
                together((0..slots.unwrap_or(1)).map(|slot| Rc::clone(&self).slot(slot, start))).await;
                spun
            }
        }
    }

    /// One of the closed loop: a conversation after the other, each of its requests after the one before.
    async fn slot(self: Rc<Self>, slot: usize, start: u64) {
        let mut free = start;
        while let Some(conversation) = self.plan.next(start) {
            self.conversation(conversation, start, slot, (0, free), None).await;
            free = clock::now();
        }
    }

    /// All turns of a conversation. `begin`: when its first request was to be sent (0 if nothing says) and could be; `gate`: what
    /// every request needs a place of, and that of the first.
    async fn conversation(
        &self,
        conversation: u64,
        start: u64,
        slot: usize,
        (mut sched, mut ready): (u64, u64),
        gate: Option<(&Arc<Semaphore>, OwnedSemaphorePermit)>,
    ) {
        let plan = &self.plan;
        let job = plan.job(conversation);
        let (gate, mut place) = gate.map_or((None, None), |(gate, place)| (Some(gate), Some(place)));
        let mut history = History::new(&job.opening);
        let mut counts = Conversations { begun: 1, ..Conversations::default() };
        let (mut said, mut pin) = (None::<Vec<u8>>, None);
        for turn in 0..=job.later.len() {
            let next = job.later.get(turn);
            let ask = Ask {
                number: conversation * plan.turns + turn as u64,
                slot,
                sched,
                ready,
                body: said.as_deref().unwrap_or(&job.body),
                pin,
                keep_text: next.is_some(),
            };
            let answered = self.attempts(&ask).await;
            // while the user thinks nothing is in flight
            drop(place.take());
            let left = (job.later.len() - turn) as u64;
            let Some(next) = next else {
                counts.whole += u64::from(answered.is_some());
                counts.failed += u64::from(answered.is_none());
                break;
            };
            let Some(answered) = answered else {
                (counts.failed, counts.not_sent) = (1, left);
                break;
            };
            let think = next.think.unwrap_or_else(|| plan.think.seconds(plan.seed, ask.number));
            let due = answered.end + (think * 1e9) as u64;
            if due > clock::now() {
                tokio::time::sleep(Duration::from_nanos(due - clock::now())).await;
            }
            if plan.is_over(start) {
                (counts.over, counts.not_sent) = (1, left);
                break;
            }
            // what has no schedule of its own has one by its conversation, in an open loop
            sched = if sched > 0 { due } else { 0 };
            if let Some(gate) = gate {
                place = Arc::clone(gate).acquire_owned().await.ok();
            }
            ready = clock::now();
            said = Some(history.next(&answered.text, next));
            pin = Some(answered.endpoint);
        }
        if self.measuring.get() {
            self.report.borrow_mut().conversations.add(counts);
        }
    }

    /// Sends each of its requests at its moment, or as soon as the limit allows. Returns what was waited awake.
    async fn open_loop(self: Rc<Self>, schedule: &[u64], start: u64, slots: Option<usize>) -> u64 {
        let gate = slots.map(|slots| Arc::new(Semaphore::new(slots)));
        let (mut tasks, mut spun) = (JoinSet::new(), 0);
        for (number, due) in schedule.iter().enumerate().skip(self.number).step_by(self.plan.shards) {
            let due = start + due;
            spun += self.wait_for(due).await;
            if self.plan.cancel.is_cancelled() {
                break;
            }
            self.report.borrow_mut().overshoot.push(clock::now().saturating_sub(due));
            // what has to wait for a place can be sent when it has one, all else when it is due
            let (place, ready) = match &gate {
                None => (None, due),
                Some(gate) => match Arc::clone(gate).try_acquire_owned() {
                    Ok(place) => (Some(place), due),
                    Err(_) => (Arc::clone(gate).acquire_owned().await.ok(), clock::now()),
                },
            };
            let (shard, gate) = (Rc::clone(&self), gate.clone());
            tasks.spawn_local(async move {
                let gate = gate.as_ref().zip(place);
                shard.conversation(number as u64, start, 0, (due, ready), gate).await;
            });
            while let Some(ended) = tasks.try_join_next() {
                unless_panicked(ended);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            unless_panicked(ended);
        }
        spun
    }

    /// One request, with its further attempts; what it was answered, unless it failed.
    async fn attempts(&self, ask: &Ask<'_>) -> Option<Answered> {
        let plan = &self.plan;
        for attempt in 1.. {
            let mut record = Record {
                number: ask.number,
                attempt,
                sched: ask.sched,
                shard: self.number as u32,
                text: (plan.save_text || ask.keep_text).then(String::new),
                ..Record::default()
            };
            self.attempt(&mut record, ask).await;
            if attempt == 1 && self.measuring.get() && record.send0 > 0 {
                self.report.borrow_mut().send_lags.push(record.send0.saturating_sub(ask.ready));
            }
            let good = record.failure.is_none();
            let answered = good.then(|| Answered {
                endpoint: record.endpoint as usize,
                end: record.end,
                text: record.text.clone().filter(|_| ask.keep_text).unwrap_or_default(),
            });
            if !plan.save_text {
                record.text = None;
            }
            let again = record.failure.is_some_and(Failure::may_pass)
                && attempt <= plan.retry.max
                && !plan.cancel.is_cancelled();
            let wait = self.pause(&record).filter(|_| again);
            if self.measuring.get() {
                self.report.borrow_mut().records.push(record);
            }
            let Some(wait) = wait else { return answered };
            tokio::time::sleep(wait).await;
        }
        None
    }

    /// How long to wait before another attempt; `None`: longer than is waited.
    fn pause(&self, record: &Record) -> Option<Duration> {
        let longest = self.plan.retry.longest;
        if let Some(asked) = record.retry_after {
            return (asked.as_secs_f64() <= longest).then_some(asked);
        }
        let doubled = self.plan.retry.backoff * 2f64.powi(record.attempt.min(20) as i32 - 1);
        let seed = self.plan.seed ^ record.number << 8 ^ u64::from(record.attempt);
        let drawn = 0.5 + 0.5 * fastrand::Rng::with_seed(seed).f64();
        Some(Duration::from_secs_f64(doubled.min(longest) * drawn))
    }

    async fn attempt(&self, record: &mut Record, ask: &Ask<'_>) {
        let plan = &self.plan;
        let place = plan.place(self.number, ask.slot);
        let turn = plan.place_of(ask.number).0 + u64::from(record.attempt - 1);
        // a conversation stays with the server that knows what was said
        let at = ask.pin.unwrap_or_else(|| plan.endpoint(turn, place));
        record.endpoint = at as u32;
        let endpoint = &plan.endpoints[at];
        let body = ask.body;
        let mut bytes = Vec::with_capacity(endpoint.head.len() + body.len() + 96);
        bytes.extend_from_slice(&endpoint.head);
        // warm-up requests are told from those that count in the server's log, too
        let warm = if self.measuring.get() { "" } else { "warm-" };
        let xid = record.xid(&plan.id);
        let own = format!("x-request-id: {warm}{xid}\r\nContent-Length: {}\r\n\r\n", body.len());
        bytes.extend_from_slice(own.as_bytes());
        bytes.extend_from_slice(body);
        loop {
            let mut connection = match self.connection(at, record).await {
                Ok(connection) => connection,
                Err(message) => {
                    record.end = clock::now();
                    record.failure = Some(Failure::Connect);
                    record.message = Some(message);
                    return;
                }
            };
            // what the shard reads is counted apart from the report, which others of its requests write to meanwhile
            let mut reads = Reads::default();
            plan.sent(at);
            let left = exchange(&mut connection, &bytes, &plan.limits, record, &mut reads).await;
            plan.over(at);
            if self.measuring.get() {
                self.report.borrow_mut().reads.add(reads);
            }
            match left {
                Left::Good => self.idle.borrow_mut()[at].push(connection),
                Left::Spent => {}
                // the server closed it while it was idle: that is no failure of the request, which no one saw
                Left::Stale => {
                    record.begin_again();
                    continue;
                }
            }
            return;
        }
    }

    /// An idle connection that is still good, or a new one.
    async fn connection(&self, at: usize, record: &mut Record) -> Result<Connection, String> {
        loop {
            let idle = self.idle.borrow_mut()[at].pop();
            let Some(mut connection) = idle else { break };
            if connection.is_idle() {
                return Ok(connection);
            }
        }
        let before = clock::now();
        // one that never was there says when it was asked for: from there the times of a further attempt count
        record.connect = Some((before, 0));
        let connection = self.open(at).await?;
        record.connect = Some((before, clock::now()));
        self.report.borrow_mut().reconnects += 1;
        Ok(connection)
    }

    async fn open(&self, at: usize) -> Result<Connection, String> {
        let endpoint = &self.plan.endpoints[at];
        let limit = Duration::from_secs_f64(self.plan.limits.connect.unwrap_or(86_400.0));
        match tokio::time::timeout(limit, Connection::open(endpoint)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(format!("{}: {error}", endpoint.name)),
            Err(_) => Err(format!("{}: no connection after {} s", endpoint.name, limit.as_secs_f64())),
        }
    }

    /// Opens connections before the clock starts; what cannot be opened is told by the requests.
    async fn open_before(&self, slots: usize) {
        let count = self.plan.endpoints.len();
        for slot in 0..slots.max(count) {
            let at = self.plan.place(self.number, slot) % count;
            match self.open(at).await {
                Ok(connection) => self.idle.borrow_mut()[at].push(connection),
                Err(_) => return,
            }
        }
    }

    /// Waits until `due`: asleep, and the last of it awake. Returns what was waited awake with nothing else to do.
    async fn wait_for(&self, due: u64) -> u64 {
        let mut spun = 0;
        loop {
            let now = clock::now();
            if now >= due {
                return spun;
            }
            if due - now > AWAKE + 500_000 {
                let sleep = (due - now - AWAKE).min(50_000_000);
                tokio::time::sleep(Duration::from_nanos(sleep)).await;
                if self.plan.cancel.is_cancelled() {
                    return spun;
                }
            } else {
                yield_now().await;
                let turn = clock::now() - now;
                spun += if turn < IDLE_TURN { turn } else { 0 };
            }
        }
    }
}

impl Reads {
    fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.coalesced += other.coalesced;
        self.lags.extend(other.lags);
    }
}

/// All of them, each as a task.
async fn together<F: Future<Output = ()> + 'static>(all: impl Iterator<Item = F>) {
    let mut tasks = JoinSet::new();
    for one in all {
        tasks.spawn_local(one);
    }
    while let Some(ended) = tasks.join_next().await {
        unless_panicked(ended);
    }
}

/// A request that panicked is not lost: the thread ends as it did.
fn unless_panicked(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}
