//! Long content in pieces on several threads: each has a desk with two buffers, and there are only so many desks. Unaware of what
//! is done with the pieces.
//!
//! Whatever the size of the content and however many are at work on different ones, the process holds at most [`MOST`] desks, and for
//! each of them a few packed pieces that wait for an earlier one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use blake3::hazmat::{ChainingValue, HasherExt};
use zstd::bulk::{Compressor, Decompressor};

use super::frames::Frame;
use super::pack;
use super::tree_hash::{TreeHash, piece_hasher};
use crate::base::digest::Digest;

/// Bytes of a piece, and content of a frame. Longer pieces compress no better: the window of the level is half as long.
pub(super) const PIECE: usize = 1 << 20;

/// The most desks of a process.
const MOST: usize = 12;

/// The most threads for one content.
const MOST_THREADS: usize = 8;

/// How many packed pieces may wait for an earlier one, for each thread: one that is held up must not hold up the others.
const AHEAD: u64 = 2;

/// Bytes read, hashed and written at a time, so that they are still in the processor's cache. Longer writes make the kernel look for
/// longer runs of free memory, which can cost several times the copy.
const STEP: usize = 64 << 10;

/// The buffers of one thread, and what it needs to compress. Made as they are needed, kept for the next.
#[derive(Default)]
pub(super) struct Desk {
    /// Content.
    pub(super) plain: Vec<u8>,
    /// The same as a zstd frame.
    pub(super) packed: Vec<u8>,
    hash: ChainingValue,
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
}

impl Desk {
    /// Reads and hashes the piece of `file` at `offset`. Fewer bytes than `size` are an error.
    pub(super) fn read(&mut self, file: &File, offset: u64, size: usize) -> io::Result<()> {
        self.plain.resize(size, 0);
        let mut hasher = piece_hasher(offset);
        for (step, bytes) in self.plain.chunks_mut(STEP).enumerate() {
            file.read_exact_at(bytes, offset + (step * STEP) as u64)?;
            hasher.update(bytes);
        }
        self.hash = hasher.finalize_non_root();
        Ok(())
    }

    /// Copies the piece of `file` at `offset` to the same place in `target`, and hashes it.
    pub(super) fn copy(
        &mut self,
        file: &File,
        offset: u64,
        size: usize,
        target: Option<&File>,
    ) -> io::Result<()> {
        self.plain.resize(STEP.max(self.plain.len()), 0);
        let mut hasher = piece_hasher(offset);
        for step in (0..size).step_by(STEP) {
            let bytes = &mut self.plain[..STEP.min(size - step)];
            file.read_exact_at(bytes, offset + step as u64)?;
            hasher.update(bytes);
            if let Some(target) = target {
                target.write_all_at(bytes, offset + step as u64)?;
            }
        }
        self.hash = hasher.finalize_non_root();
        Ok(())
    }

    /// Compresses the piece to one frame.
    pub(super) fn compress(&mut self) -> io::Result<()> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            slot => slot.insert(Compressor::new(pack::LEVEL)?),
        };
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.plain.len()));
        compressor.compress_to_buffer(&self.plain, &mut self.packed).map(drop)
    }

    /// Reads a frame, and unpacks and hashes its content.
    pub(super) fn unpack(&mut self, blob: &File, frame: &Frame) -> io::Result<()> {
        self.packed.resize(frame.packed, 0);
        blob.read_exact_at(&mut self.packed, frame.start)?;
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            slot => slot.insert(Decompressor::new()?),
        };
        self.plain.clear();
        self.plain.reserve(frame.size);
        let got = decompressor.decompress_to_buffer(&self.packed, &mut self.plain)?;
        if got != frame.size {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut hasher = piece_hasher(frame.offset);
        hasher.update(&self.plain);
        self.hash = hasher.finalize_non_root();
        Ok(())
    }
}

/// Where the piece `index` of `size` bytes begins, and how long it is.
pub(super) fn piece_of(index: u64, size: u64) -> (u64, usize) {
    let offset = index * PIECE as u64;
    (offset, (size - offset).min(PIECE as u64) as usize)
}

/// Writes `bytes` at `offset` of `target`.
pub(super) fn write(target: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut steps = bytes.chunks(STEP).zip((offset..).step_by(STEP));
    steps.try_for_each(|(step, at)| target.write_all_at(step, at))
}

/// How many pieces content of `size` bytes has.
pub(super) fn pieces(size: u64) -> u64 {
    size.div_ceil(PIECE as u64)
}

/// Hands pieces `0..count` to as many threads as are free; `work` reads, hashes and packs one, several at a time, and `turn` is called
/// for the packed pieces in their order, one at a time. What is done before an earlier one waits, but not much of it. Returns the
/// digest of all, and `state` as `turn` left it. At least two pieces.
pub(super) fn in_order<S: Send>(
    count: u64,
    state: S,
    work: impl Fn(u64, &mut Desk) -> io::Result<()> + Sync,
    turn: impl Fn(&mut S, &[u8]) -> io::Result<()> + Sync,
) -> io::Result<(Digest, S)> {
    Line::new(count, Some(AHEAD * threads()), state).run(&work, &turn)
}

/// The same where nothing depends on the order: nobody waits for a thread that is behind.
pub(super) fn in_any_order(
    count: u64,
    work: impl Fn(u64, &mut Desk) -> io::Result<()> + Sync,
) -> io::Result<Digest> {
    Line::new(count, None, ()).run(&work, &|(), _| Ok(())).map(|(digest, ())| digest)
}

/// The digest of a file of `size` bytes, read in pieces.
pub(super) fn hash(file: &File, size: u64) -> io::Result<Digest> {
    let work = |index, desk: &mut Desk| {
        let (offset, size) = piece_of(index, size);
        desk.copy(file, offset, size, None)
    };
    in_any_order(pieces(size), work)
}

/// Pieces handed out in order, and given back in order.
struct Line<S> {
    next: AtomicU64,
    count: u64,
    /// How many pieces may be done or in work before the first that is not; `None` where nothing is kept of a piece but its hash.
    ahead: Option<u64>,
    turns: Mutex<Turns<S>>,
    moved: Condvar,
}

struct Turns<S> {
    now: u64,
    hash: TreeHash,
    /// Pieces that were done before an earlier one.
    early: BTreeMap<u64, Done>,
    /// Buffers that come back.
    spare: Vec<Vec<u8>>,
    state: S,
    failed: Option<io::Error>,
}

struct Done {
    hash: ChainingValue,
    packed: Vec<u8>,
}

impl<S: Send> Line<S> {
    fn new(count: u64, ahead: Option<u64>, state: S) -> Self {
        let turns = Turns {
            now: 0,
            hash: TreeHash::default(),
            early: BTreeMap::new(),
            spare: Vec::new(),
            state,
            failed: None,
        };
        Self { next: AtomicU64::new(0), count, ahead, turns: Mutex::new(turns), moved: Condvar::new() }
    }

    fn run(
        self,
        work: &(impl Fn(u64, &mut Desk) -> io::Result<()> + Sync),
        turn: &(impl Fn(&mut S, &[u8]) -> io::Result<()> + Sync),
    ) -> io::Result<(Digest, S)> {
        let mut desk = Lease::wait();
        let helpers: Vec<Lease> =
            (1..(self.count / 2).min(threads())).map_while(|_| Lease::if_free()).collect();
        std::thread::scope(|scope| {
            for mut desk in helpers {
                let line = &self;
                // A thread that cannot be started is done without.
                let _ = std::thread::Builder::new().name("flow-pieces".to_owned()).spawn_scoped(
                    scope,
                    // Whoever waits for a first desk is served before those who have one.
                    move || while !wanted() && line.step(&mut desk, work, turn) {},
                );
            }
            while self.step(&mut desk, work, turn) {}
        });
        let turns = self.turns.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (turns.failed, turns.hash.finish()) {
            (Some(error), _) => Err(error),
            (None, Some(digest)) => Ok((digest, turns.state)),
            (None, None) => Err(io::Error::other("fewer than two pieces")),
        }
    }

    /// Does one piece; false when there is none left or one has failed.
    fn step(
        &self,
        desk: &mut Desk,
        work: &impl Fn(u64, &mut Desk) -> io::Result<()>,
        turn: &impl Fn(&mut S, &[u8]) -> io::Result<()>,
    ) -> bool {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.count {
            return false;
        }
        // A panic must not leave the others waiting for this turn.
        let panicked = Panicked(self);
        let worked = work(index, desk);
        let mut turns = self.lock();
        while turns.failed.is_none() && self.ahead.is_some_and(|ahead| index - turns.now >= ahead) {
            turns = self.moved.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        if turns.failed.is_none() {
            let mut done = Done { hash: desk.hash, packed: Vec::new() };
            if self.ahead.is_some() {
                done.packed = turns.spare.pop().unwrap_or_default();
                std::mem::swap(&mut done.packed, &mut desk.packed);
            }
            turns.failed = worked.and_then(|()| turns.done(index, done, turn)).err();
        }
        std::mem::forget(panicked);
        self.moved.notify_all();
        turns.failed.is_none()
    }
}

impl<S> Line<S> {
    fn lock(&self) -> MutexGuard<'_, Turns<S>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Turns<S> {
    /// Takes the turns of this piece, and of those that waited for it.
    fn done(
        &mut self,
        index: u64,
        done: Done,
        turn: &impl Fn(&mut S, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.early.insert(index, done);
        while let Some(Done { hash, packed }) = self.early.remove(&self.now) {
            turn(&mut self.state, &packed)?;
            self.hash.push(hash);
            self.now += 1;
            if packed.capacity() > 0 {
                self.spare.push(packed);
            }
        }
        Ok(())
    }
}

/// Dropped by a panic only.
struct Panicked<'a, S>(&'a Line<S>);

impl<S> Drop for Panicked<'_, S> {
    fn drop(&mut self) {
        self.0.lock().failed = Some(io::Error::other("a thread panicked"));
        self.0.moved.notify_all();
    }
}

/// All desks of the process.
#[derive(Default)]
struct Desks {
    free: Vec<Desk>,
    out: usize,
    waiting: usize,
}

static DESKS: Mutex<Desks> = Mutex::new(Desks { free: Vec::new(), out: 0, waiting: 0 });
static FREED: Condvar = Condvar::new();

fn desks() -> MutexGuard<'static, Desks> {
    DESKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many threads work on one content at most.
fn threads() -> u64 {
    cores().min(MOST_THREADS) as u64
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn wanted() -> bool {
    desks().waiting > 0
}

/// A desk in use.
struct Lease(Desk);

impl Lease {
    /// Waits for a desk: there is one for each core, up to [`MOST`].
    fn wait() -> Self {
        let mut desks = desks();
        desks.waiting += 1;
        while desks.out >= cores().min(MOST) {
            desks = FREED.wait(desks).unwrap_or_else(PoisonError::into_inner);
        }
        desks.waiting -= 1;
        desks.take()
    }

    fn if_free() -> Option<Self> {
        let mut desks = desks();
        (desks.waiting == 0 && desks.out < cores().min(MOST)).then(|| desks.take())
    }
}

impl Desks {
    fn take(&mut self) -> Lease {
        self.out += 1;
        Lease(self.free.pop().unwrap_or_default())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut desks = desks();
        desks.out -= 1;
        desks.free.push(std::mem::take(&mut self.0));
        FREED.notify_one();
    }
}

impl std::ops::Deref for Lease {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.0
    }
}

impl std::ops::DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Desk {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn pieces_take_turns_in_order_and_give_the_digest() {
        for extra in [1, STEP, PIECE] {
            let bytes: Vec<u8> = (0..4 * PIECE + extra).map(|i| (i / 7) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let size = bytes.len() as u64;
            let work = |index, desk: &mut Desk| {
                let (offset, size) = piece_of(index, size);
                desk.read(&file, offset, size)?;
                desk.compress()
            };
            let collect = |seen: &mut Vec<u8>, packed: &[u8]| {
                seen.extend(zstd::bulk::decompress(packed, PIECE)?);
                Ok(())
            };
            let (digest, seen) = in_order(pieces(size), Vec::new(), work, collect).unwrap();
            assert!(seen == bytes);
            assert_eq!(digest, Digest::of(&bytes));
            let copy = tempfile::tempfile().unwrap();
            let work = |index, desk: &mut Desk| {
                let (offset, size) = piece_of(index, size);
                desk.copy(&file, offset, size, Some(&copy))
            };
            assert_eq!(in_any_order(pieces(size), work).unwrap(), digest);
            assert_eq!(hash(&copy, size).unwrap(), digest);
            assert_eq!(hash(&file, size + 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_thread_that_is_behind_holds_up_nobody_where_the_order_does_not_matter() {
        let mut turns = Line::new(3, None, ()).turns.into_inner().unwrap();
        let bytes = [vec![1; PIECE], vec![2; PIECE], vec![3; 5]].concat();
        let piece = |index: u64| {
            let (offset, size) = piece_of(index, bytes.len() as u64);
            let mut hasher = piece_hasher(offset);
            hasher.update(&bytes[offset as usize..offset as usize + size]);
            hasher.finalize_non_root()
        };
        for (index, now) in [(2, 0), (1, 0), (0, 3)] {
            turns.done(index, Done { hash: piece(index), packed: Vec::new() }, &|(), _| Ok(())).unwrap();
            assert_eq!(turns.now, now);
        }
        assert_eq!(turns.hash.finish(), Some(Digest::of(&bytes)));
    }

    #[test]
    fn however_many_ask_there_are_only_so_many_desks_and_small_buffers() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(6 * PIECE as u64 + 1).unwrap();
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 * MOST {
                scope.spawn(|| {
                    let work = |index, desk: &mut Desk| {
                        let (offset, size) = piece_of(index, 6 * PIECE as u64 + 1);
                        desk.read(&file, offset, size)?;
                        desk.compress()?;
                        most.fetch_max(desks().out, Ordering::Relaxed);
                        assert!(
                            desk.plain.capacity() <= PIECE && desk.packed.capacity() <= PIECE + PIECE / 8
                        );
                        Ok(())
                    };
                    in_order(7, (), work, |(), _| Ok(())).unwrap();
                });
            }
        });
        assert!((1..=cores().min(MOST)).contains(&most.into_inner()));
        assert!(desks().free.len() <= cores().min(MOST));
    }

    #[test]
    fn a_failure_ends_all_and_is_told() {
        let fail = |at: u64| {
            move |index, _: &mut Desk| if index == at { Err(io::Error::other("no")) } else { Ok(()) }
        };
        for at in [0, 3, 19] {
            let error = in_order(20, (), fail(at), |(), _| Ok(())).unwrap_err();
            assert_eq!(error.to_string(), "no");
            assert_eq!(in_any_order(20, fail(at)).unwrap_err().to_string(), "no");
        }
        let error = in_order(
            20,
            0,
            |_, _| Ok(()),
            |turns: &mut i32, _| {
                *turns += 1;
                if *turns == 5 { Err(io::Error::other("fifth")) } else { Ok(()) }
            },
        );
        assert_eq!(error.unwrap_err().to_string(), "fifth");
        let panics = || {
            in_order(
                20,
                (),
                |index, _| if index == 4 { panic!("on purpose") } else { Ok(()) },
                |(), _| Ok(()),
            )
        };
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(in_order(20, (), |_, _| Ok(()), |(), _| Ok(())).is_ok(), "its desk came back");
    }
}
