//! What every store must do, through its public interface alone: a table of operations by what lies in the place of a blob, calls at
//! the same time, and random sequences against a model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flow::base::digest::Digest;
use flow::model::Artifact;
use flow::store::{GcOptions, RestoreError, ResultRecord, Store};
use proptest::prelude::*;
use tempfile::TempDir;

struct Place {
    dir: TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        Self { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, bytes: &[u8]) -> Artifact {
        let from = self.path("from");
        fs::write(&from, bytes).unwrap();
        self.store.put_file(&from).unwrap()
    }

    /// Restores to a new place and reads that; nothing may be left there after an error.
    fn restored(&self, artifact: &Artifact) -> Result<BTreeMap<String, Vec<u8>>, RestoreError> {
        self.restored_by(&self.store, artifact)
    }

    /// The same by another store on the same cache.
    fn restored_by(
        &self,
        store: &Store,
        artifact: &Artifact,
    ) -> Result<BTreeMap<String, Vec<u8>>, RestoreError> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let to = self.path(&format!("to{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let result = store.restore(artifact, &to);
        if result.is_err() {
            assert!(fs::symlink_metadata(&to).is_err(), "a failed restore left something");
        }
        result.map(|()| files(&to))
    }

    fn object(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string().replace("b3:", "");
        self.path("cache/objects").join(&hex[..2]).join(hex)
    }
}

/// Every file at or below `at`.
fn files(at: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(at: &Path, base: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
        if at.is_dir() {
            for entry in fs::read_dir(at).unwrap() {
                walk(&entry.unwrap().path(), base, into);
            }
        } else {
            let name = at.strip_prefix(base).unwrap().to_string_lossy().into_owned();
            into.insert(name, fs::read(at).unwrap());
        }
    }
    let mut found = BTreeMap::new();
    walk(at, at, &mut found);
    found
}

fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..size).map(|_| random.u8(..)).collect()
}

fn record(outputs: Vec<(String, Artifact)>) -> ResultRecord {
    ResultRecord {
        version: flow::store::RESULT_VERSION,
        node: "n".to_owned(),
        run: "20260101-000000-0000".to_owned(),
        made_at_ns: 1,
        checked_at_ns: 1,
        seconds: 0.0,
        outputs,
        record: serde_json::Map::new(),
    }
}

/// What an operation on a blob in a certain state has to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    Right,
    Missing,
    Corrupt,
}

fn comes_to<T>(result: Result<T, RestoreError>) -> Comes {
    match result {
        Ok(_) => Comes::Right,
        Err(RestoreError::Missing(_)) => Comes::Missing,
        Err(RestoreError::Corrupt(_)) => Comes::Corrupt,
        Err(RestoreError::Io(error)) => panic!("{error}"),
    }
}

type Damage = fn(&Path);

/// State of the blob's file, how it gets there, and what these come to: `has`, `verify` (faults found), `read`, `restore`.
const STATES: [(&str, Damage, bool, usize, Comes); 7] = [
    ("whole", |_| {}, true, 0, Comes::Right),
    ("missing", |path| fs::remove_file(path).unwrap(), false, 0, Comes::Missing),
    ("empty", |path| fs::write(path, b"").unwrap(), false, 1, Comes::Corrupt),
    (
        "flipped",
        |path| {
            let mut bytes = fs::read(path).unwrap();
            let at = bytes.len() / 3;
            bytes[at] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        true,
        1,
        Comes::Corrupt,
    ),
    (
        "cut",
        |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        },
        true,
        1,
        Comes::Corrupt,
    ),
    (
        "of another content",
        |path| fs::write(path, b"something else altogether").unwrap(),
        true,
        1,
        Comes::Corrupt,
    ),
    (
        "a directory",
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        false,
        1,
        Comes::Corrupt,
    ),
];

#[test]
fn every_operation_in_every_state_of_a_blob_comes_to_what_the_table_says() {
    let text = |size: usize| b"a line that repeats\n".iter().copied().cycle().take(size).collect::<Vec<u8>>();
    let contents = [
        ("compressed", text(50_000)),
        ("raw", noise(20_000, 1)),
        ("long and raw", noise(3 << 20, 2)),
        ("long and compressed", text(3 << 20)),
        ("begins like a frame", [&[0x28, 0xB5, 0x2F, 0xFD][..], &noise(9000, 3)].concat()),
    ];
    for (content, bytes) in &contents {
        for (state, damage, has, faults, comes) in STATES {
            let what = format!("{content}, {state}");
            // each operation finds the state as it was made: a restore takes what is damaged away
            let damaged = || {
                let place = Place::new();
                let artifact = place.put(bytes);
                let digest = artifact.digest().unwrap();
                damage(&place.object(&digest));
                (place, artifact, digest)
            };
            let (place, artifact, digest) = damaged();
            let key = Digest::of(b"key");
            place.store.put_result(&key, &record(vec![("o".to_owned(), artifact.clone())])).unwrap();
            assert_eq!(place.store.has(&artifact), has, "has: {what}");
            let report = place.store.verify().unwrap();
            assert_eq!((report.corrupt.len(), report.is_ok()), (faults, faults == 0), "verify: {what}");
            assert_eq!(report.incomplete.len(), usize::from(comes != Comes::Right), "verify: {what}");
            assert_eq!(place.store.verify().unwrap(), report, "verify changes nothing: {what}");
            assert_eq!(place.store.repair().unwrap().removed as usize, faults, "repair: {what}");
            assert!(place.store.verify().unwrap().is_ok(), "repair: {what}");
            let after = if faults > 0 { Comes::Missing } else { comes };
            assert_eq!(comes_to(place.restored(&artifact)), after, "restore after repair: {what}");

            let (place, _, digest_read) = damaged();
            assert_eq!(comes_to(place.store.read(&digest_read)), comes, "read: {what}");
            let (place, artifact, _) = damaged();
            let result = place.restored(&artifact);
            if let Ok(files) = &result {
                assert!(files[""] == *bytes, "restore: {what}");
            }
            assert_eq!(comes_to(result), comes, "restore: {what}");
            // what was found to be damaged has been taken away, and comes back with the next put
            assert_eq!(comes_to(place.restored(&artifact)), after, "restore twice: {what}");
            assert_eq!(place.put(bytes), artifact, "put: {what}");
            assert!(place.restored(&artifact).unwrap()[""] == *bytes, "put: {what}");
            assert!(place.store.verify().unwrap().is_ok(), "put: {what}");

            // gc counts what is there, and takes it whatever it is
            let (place, artifact, _) = damaged();
            let there = u64::from(state != "missing");
            let report = place.store.gc(&GcOptions { max_size: Some(0), ..GcOptions::default() }).unwrap();
            // what takes no room is not in the way of a limit on it
            let empty = ["empty", "a directory"].contains(&state);
            assert_eq!(report.removed, if empty { 0 } else { there }, "gc: {what}");
            if !empty {
                assert_eq!(comes_to(place.restored(&artifact)), Comes::Missing, "gc: {what}");
            }
            assert!(place.object(&digest).parent().is_some());
        }
    }
}

#[test]
fn a_tree_is_whole_or_not_there() {
    let make = |place: &Place| {
        for (path, size) in [("tree/a", 10), ("tree/sub/b", 10_000), ("tree/sub/c", 20_000)] {
            fs::create_dir_all(place.path(path).parent().unwrap()).unwrap();
            fs::write(place.path(path), noise(size, size as u64)).unwrap();
        }
        place.store.put_tree(&place.path("tree")).unwrap()
    };
    let place = Place::new();
    let artifact = make(&place);
    let whole = files(&place.path("tree"));
    assert_eq!(place.restored(&artifact).unwrap(), whole);
    for lost in [10_000, 20_000] {
        let blob = place.object(&Digest::of(&noise(lost, lost as u64)));
        let bytes = fs::read(&blob).unwrap();
        fs::write(&blob, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(comes_to(place.restored(&artifact)), Comes::Corrupt);
        assert!(!place.store.has(&artifact));
        assert_eq!(comes_to(place.restored(&artifact)), Comes::Missing);
        assert_eq!(make(&place), artifact);
        assert_eq!(place.restored(&artifact).unwrap(), whole);
    }
}

#[test]
fn the_same_content_put_by_many_at_once_is_one_blob() {
    let place = Place::new();
    let cache = place.path("cache");
    let contents: Vec<Vec<u8>> =
        [0usize, 5, 4096, 4097, 60_000, 2 << 20].iter().map(|size| noise(*size, 9)).collect();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            // two threads share each store, the stores share the cache
            let store = if thread % 2 == 0 { Store::open(&cache).unwrap() } else { place.store.clone() };
            let (place, contents) = (&place, &contents);
            scope.spawn(move || {
                for (n, bytes) in contents.iter().enumerate() {
                    let from = place.path(&format!("from{thread}.{n}"));
                    fs::write(&from, bytes).unwrap();
                    let artifact = store.put_file(&from).unwrap();
                    assert_eq!(artifact.digest(), Some(Digest::of(bytes)));
                    // what no result refers to yet is only known to have been put by the store that did
                    assert!(place.restored_by(&store, &artifact).unwrap()[""] == *bytes);
                }
            });
        }
    });
    let stats = Store::open(&cache).unwrap().stats().unwrap();
    assert_eq!((stats.blobs, stats.small), (3, 3));
    assert_eq!(fs::read_dir(cache.join("tmp")).unwrap().count(), 0);
    assert!(place.store.verify().unwrap().is_ok());
}

#[test]
fn one_at_a_time_makes_the_result_of_a_key() {
    let place = Place::new();
    let cache = place.path("cache");
    let (inside, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let key = Digest::of(b"key");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = if thread % 2 == 0 { Store::open(&cache).unwrap() } else { place.store.clone() };
            let (place, inside, made) = (&place, &inside, &made);
            scope.spawn(move || {
                let lock = store.single_flight(&key, &mut |_| {}, &|| false).unwrap().unwrap();
                assert!(!inside.swap(true, Ordering::SeqCst), "two hold one key");
                if store.result(&key).unwrap().is_none() {
                    made.fetch_add(1, Ordering::SeqCst);
                    let digest = store.put_bytes(b"made once").unwrap();
                    let artifact = Artifact::File { digest, size: 9, exec: false };
                    store.put_result(&key, &record(vec![("o".to_owned(), artifact)])).unwrap();
                }
                let seen = store.result(&key).unwrap().unwrap();
                assert!(place.restored(&seen.outputs[0].1).unwrap()[""] == b"made once");
                inside.store(false, Ordering::SeqCst);
                drop(lock);
            });
        }
    });
    assert_eq!(made.load(Ordering::SeqCst), 1);
    // another key is not held up; who is cancelled does not get it
    let held = place.store.single_flight(&key, &mut |_| {}, &|| false).unwrap().unwrap();
    let other = Store::open(&cache).unwrap();
    assert!(other.single_flight(&Digest::of(b"other"), &mut |_| {}, &|| false).unwrap().is_some());
    assert!(other.single_flight(&key, &mut |_| {}, &|| true).unwrap().is_none());
    drop(held);
    assert!(other.single_flight(&key, &mut |_| {}, &|| false).unwrap().is_some());
}

/// One step of a random sequence; numbers choose among contents and keys.
#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    PutTree(Vec<usize>),
    Result(u8, usize),
    Restore(usize),
    Flip(usize, u16),
    Cut(usize),
    Lose(usize),
    Reopen,
    CollectBySize(u32),
    Verify,
    Repair,
}

fn step() -> impl Strategy<Value = Step> {
    let content = 0..CONTENTS;
    prop_oneof![
        4 => content.clone().prop_map(Step::Put),
        1 => proptest::collection::vec(content.clone(), 0..4).prop_map(Step::PutTree),
        2 => (any::<u8>(), content.clone()).prop_map(|(key, n)| Step::Result(key % 6, n)),
        4 => content.clone().prop_map(Step::Restore),
        1 => (content.clone(), any::<u16>()).prop_map(|(n, at)| Step::Flip(n, at)),
        1 => content.clone().prop_map(Step::Cut),
        1 => content.prop_map(Step::Lose),
        1 => Just(Step::Reopen),
        1 => (0..40_000u32).prop_map(Step::CollectBySize),
        1 => Just(Step::Verify),
        1 => Just(Step::Repair),
    ]
}

const CONTENTS: usize = 6;

fn content(n: usize) -> Vec<u8> {
    [vec![], noise(100, 1), b"abc ".repeat(2000), noise(5000, 2), noise(9000, 3), b"xyz\n".repeat(3000)][n]
        .clone()
}

/// What is known of a content: it was put and nothing happened to it since; it may be damaged; it may be gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Never,
    Whole,
    Damaged,
    Gone,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_steps_gives_wrong_bytes_or_loses_a_result(steps in proptest::collection::vec(step(), 1..40)) {
        let mut place = Place::new();
        let mut known = [Known::Never; CONTENTS];
        let mut results: BTreeMap<u8, usize> = BTreeMap::new();
        let artifact = |n: usize| {
            let bytes = content(n);
            Artifact::File { digest: Digest::of(&bytes), size: bytes.len() as u64, exec: false }
        };
        let is_file = |n: usize| content(n).len() > 4096;
        for step in steps {
            match step {
                Step::Put(n) => {
                    prop_assert_eq!(place.put(&content(n)), artifact(n));
                    // content that is there is not read again to see whether it is whole
                    if known[n] != Known::Damaged {
                        known[n] = Known::Whole;
                    }
                }
                Step::PutTree(members) => {
                    let dir = place.path("tree");
                    let _ = fs::remove_dir_all(&dir);
                    fs::create_dir(&dir).unwrap();
                    for n in &members {
                        fs::write(dir.join(n.to_string()), content(*n)).unwrap();
                        if known[*n] != Known::Damaged {
                            known[*n] = Known::Whole;
                        }
                    }
                    let tree = place.store.put_tree(&dir).unwrap();
                    if members.iter().all(|n| known[*n] == Known::Whole) {
                        prop_assert_eq!(place.restored(&tree).unwrap(), files(&dir));
                    } else {
                        prop_assert!(!matches!(place.restored(&tree), Err(RestoreError::Io(_))));
                        for (n, state) in known.iter_mut().enumerate() {
                            if members.contains(&n) && *state == Known::Damaged {
                                // found or not, depending on which file was restored first
                                prop_assert!(comes_to(place.restored(&artifact(n))) != Comes::Right);
                                *state = Known::Gone;
                            }
                        }
                    }
                }
                Step::Result(key, n) => {
                    let key_digest = Digest::of(&[key]);
                    place.store.put_result(&key_digest, &record(vec![("o".to_owned(), artifact(n))])).unwrap();
                    results.insert(key, n);
                }
                Step::Restore(n) => {
                    let result = place.restored(&artifact(n));
                    if let Ok(files) = &result {
                        prop_assert!(files[""] == content(n), "wrong bytes");
                    }
                    let expected = match known[n] {
                        Known::Whole => Comes::Right,
                        Known::Damaged => Comes::Corrupt,
                        Known::Never | Known::Gone => Comes::Missing,
                    };
                    prop_assert_eq!(comes_to(result), expected);
                    if known[n] == Known::Damaged {
                        known[n] = Known::Gone;
                    }
                }
                Step::Flip(n, at) if is_file(n) && known[n] == Known::Whole => {
                    let path = place.object(&artifact(n).digest().unwrap());
                    let mut bytes = fs::read(&path).unwrap();
                    let at = at as usize % bytes.len();
                    bytes[at] ^= 0x40;
                    fs::write(&path, bytes).unwrap();
                    known[n] = Known::Damaged;
                }
                Step::Cut(n) if is_file(n) && known[n] == Known::Whole => {
                    let path = place.object(&artifact(n).digest().unwrap());
                    let bytes = fs::read(&path).unwrap();
                    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                    known[n] = Known::Damaged;
                }
                Step::Lose(n) if is_file(n) && known[n] == Known::Whole => {
                    fs::remove_file(place.object(&artifact(n).digest().unwrap())).unwrap();
                    known[n] = Known::Gone;
                }
                Step::Flip(..) | Step::Cut(_) | Step::Lose(_) => {}
                Step::Reopen => {
                    let cache = place.path("cache");
                    place.store = Store::open(&place.path("another")).unwrap();
                    place.store = Store::open(&cache).unwrap();
                }
                Step::CollectBySize(size) => {
                    let options = GcOptions { max_size: Some(u64::from(size)), ..GcOptions::default() };
                    let report = place.store.gc(&options).unwrap();
                    prop_assert!(report.kept_bytes <= u64::from(size), "{report:?}");
                    for (n, state) in known.iter_mut().enumerate() {
                        if *state != Known::Never && !place.store.has(&artifact(n)) {
                            *state = Known::Gone;
                        }
                    }
                }
                Step::Verify => {
                    let report = place.store.verify().unwrap();
                    let damaged: BTreeSet<Digest> = (0..CONTENTS)
                        .filter(|n| known[*n] == Known::Damaged)
                        .map(|n| artifact(n).digest().unwrap())
                        .collect();
                    prop_assert_eq!(report.corrupt.into_iter().collect::<BTreeSet<_>>(), damaged);
                }
                Step::Repair => {
                    place.store.repair().unwrap();
                    prop_assert!(place.store.verify().unwrap().is_ok());
                    for state in &mut known {
                        if *state == Known::Damaged {
                            *state = Known::Gone;
                        }
                    }
                }
            }
            for (key, n) in &results {
                let found = place.store.result(&Digest::of(&[*key])).unwrap();
                prop_assert_eq!(&found.unwrap().outputs[0].1, &artifact(*n));
            }
        }
        prop_assert_eq!(place.store.stats().unwrap().results, results.len() as u64);
    }
}
