//! The store as its users see it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use super::*;
use crate::model::{Artifact, TreeEntryKind};

struct Place {
    dir: tempfile::TempDir,
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

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn put(&self, bytes: &[u8]) -> Artifact {
        self.store.put_file(&self.file("put", bytes)).unwrap()
    }

    fn object(&self, artifact: &Artifact) -> PathBuf {
        self.store.objects().path(&artifact.digest().unwrap())
    }
}

fn noise(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(size as u64);
    (0..size).map(|_| random.u8(..)).collect()
}

fn text(size: usize) -> Vec<u8> {
    b"0123456789 a line that repeats\n".iter().copied().cycle().take(size).collect()
}

fn record(outputs: Vec<(String, Artifact)>) -> ResultRecord {
    ResultRecord {
        version: 1,
        node: "fetch[model=x]".to_owned(),
        run: "20261121-101500-7f3a".to_owned(),
        made_at_ns: 1,
        checked_at_ns: 2,
        seconds: 0.25,
        outputs,
        record: json!({"etag": "\"x\""}).as_object().unwrap().clone(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn stores_and_workspaces_are_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Store>();
    shared::<Workspace>();
    shared::<KeyLock>();
}

#[test]
fn content_of_every_size_and_kind_comes_back() {
    let place = Place::new();
    let mut magic = pack::MAGIC.to_vec();
    magic.extend(noise(2 << 20));
    let mut mixed = text(3 << 20);
    mixed.extend(noise(2 << 20));
    let mut begins_as_noise = noise(3 << 19);
    begins_as_noise.extend(text(2 << 20));
    let cases = [
        Vec::new(),
        b"x".to_vec(),
        text(4096),
        text(4097),
        noise(4096),
        noise(5000),
        text(1 << 20),
        text((1 << 20) + 1),
        text(5 << 20),
        noise(3 << 20),
        magic,
        mixed,
        begins_as_noise,
        noise(1 << 20),
        noise((1 << 20) + 1),
        text(2 << 20),
        noise((2 << 20) - 1),
        text((3 << 20) + 1023),
    ];
    for (index, bytes) in cases.iter().enumerate() {
        let from = place.file("from", bytes);
        let exec = index % 2 == 1;
        fs::set_permissions(&from, fs::Permissions::from_mode(if exec { 0o700 } else { 0o600 })).unwrap();
        let artifact = place.store.put_file(&from).unwrap();
        let digest = Digest::of(bytes);
        assert_eq!(artifact, Artifact::File { digest, size: bytes.len() as u64, exec }, "case {index}");
        assert_eq!(place.store.put_file(&from).unwrap(), artifact);
        assert!(place.store.has(&artifact));
        let to = place.path(&format!("to{index}"));
        place.store.restore(&artifact, &to).unwrap();
        assert!(fs::read(&to).unwrap() == *bytes, "case {index}");
        assert_eq!(mode(&to), if exec { 0o755 } else { 0o644 });
        assert!(place.store.read(&digest).unwrap() == *bytes);
        assert!(matches!(place.store.restore(&artifact, &to), Err(RestoreError::Io(_))), "never overwrites");
    }
    let stats = place.store.stats().unwrap();
    assert_eq!((stats.small, stats.blobs), (4, 14));
    assert_eq!(stats.content_bytes, cases.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
    assert!(stats.stored_bytes < stats.content_bytes);
    assert!(place.store.verify().unwrap().is_ok());
    assert_eq!(fs::read_dir(place.store.dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_does_not_compress_is_kept_as_it_is() {
    let place = Place::new();
    for size in [10_000, 3 << 20] {
        let bytes = noise(size);
        let artifact = place.put(&bytes);
        assert!(fs::read(place.object(&artifact)).unwrap() == bytes);
        let artifact = place.put(&text(size));
        assert!(fs::metadata(place.object(&artifact)).unwrap().len() < size as u64 / 10);
    }
}

#[test]
fn content_of_which_only_the_beginning_is_noise_is_compressed() {
    let place = Place::new();
    let mut bytes = noise(3 << 19);
    bytes.extend(text(2 << 20));
    let artifact = place.put(&bytes);
    assert!(fs::metadata(place.object(&artifact)).unwrap().len() < (3 << 19) + 100_000);
}

#[test]
fn long_blobs_are_plain_zstd_and_those_of_one_frame_are_read_too() {
    let place = Place::new();
    for bytes in [text((3 << 20) + 7), [noise(1 << 20), text(4 << 20)].concat()] {
        let artifact = place.put(&bytes);
        let object = place.object(&artifact);
        let stored = fs::read(&object).unwrap();
        assert!(zstd::stream::decode_all(&stored[..]).unwrap() == bytes);
        assert_eq!(
            frames::Frames::read(&fs::File::open(&object).unwrap()).unwrap().unwrap().size,
            bytes.len() as u64
        );

        let single = zstd::bulk::compress(&bytes, 1).unwrap();
        fs::write(&object, &single).unwrap();
        let to = place.path("to");
        place.store.restore(&artifact, &to).unwrap();
        assert!(fs::read(&to).unwrap() == bytes);
        fs::remove_file(&to).unwrap();
        assert!(place.store.read(&artifact.digest().unwrap()).unwrap() == bytes);
        assert!(place.store.verify().unwrap().is_ok());
        assert_eq!(place.store.stats().unwrap().content_bytes, bytes.len() as u64);
        // Something behind the frame is damage, even though the frame is whole.
        fs::write(&object, [&single[..], b"x"].concat()).unwrap();
        assert!(matches!(place.store.restore(&artifact, &to), Err(RestoreError::Corrupt(_))));
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_long_blob_is_noticed_or_changes_nothing() {
    let place = Place::new();
    let bytes = text(3 << 20);
    let whole = fs::read(place.object(&place.put(&bytes))).unwrap();
    let table = whole.len() - (8 + 3 * 8 + 9);
    let mut noticed = 0;
    for at in 0..whole.len() {
        let artifact = place.put(&bytes);
        let mut stored = whole.clone();
        stored[at] ^= 1;
        fs::write(place.object(&artifact), &stored).unwrap();
        let to = place.path("to");
        match place.store.restore(&artifact, &to) {
            Err(RestoreError::Corrupt(_)) => {
                assert!(!to.exists() && !place.object(&artifact).exists());
                noticed += 1;
            }
            Ok(()) => {
                // Some bits of a frame mean nothing, as how much memory a decoder needs.
                assert!(at < table && fs::read(&to).unwrap() == bytes, "byte {at}");
                fs::remove_file(&to).unwrap();
                fs::remove_file(place.object(&artifact)).unwrap();
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(noticed > whole.len() / 2, "{noticed} of {}", whole.len());
}

#[test]
fn a_link_is_followed_and_what_is_no_file_is_refused() {
    let place = Place::new();
    let file = place.file("file", b"content");
    symlink("file", place.path("link")).unwrap();
    assert_eq!(place.store.put_file(&place.path("link")).unwrap(), place.store.put_file(&file).unwrap());
    let error = place.store.put_file(place.dir.path()).unwrap_err();
    assert!(error.message.contains("is a directory"), "{}", error.message);
    nix::unistd::mkfifo(&place.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(place.store.put_file(&place.path("pipe")).unwrap_err().message.contains("pipe"));
    assert!(place.store.put_tree(place.dir.path()).is_err());
}

#[test]
fn a_tree_comes_back_with_links_modes_empty_directories_and_odd_names() {
    let place = Place::new();
    let big = noise(2 << 20);
    for (name, bytes) in [
        ("tree/a b/c d.txt", &b"blank"[..]),
        ("tree/a.b", b"sorts before a/"),
        ("tree/\"quoted\" 'twice'", b"quotes"),
        ("tree/new\nline", b"newline"),
        ("tree/$(x);*", b"shell"),
        ("tree/\u{e4}\u{1f600}", b"wide"),
        ("tree/deep/er/est/run.sh", b"#!/bin/sh\n"),
        ("tree/big", &big),
    ] {
        place.file(name, bytes);
    }
    fs::set_permissions(place.path("tree/deep/er/est/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(place.path("tree/empty/inner")).unwrap();
    symlink("../a.b", place.path("tree/deep/link")).unwrap();
    symlink("nowhere at all", place.path("tree/dangling")).unwrap();
    let artifact = place.store.put_tree(&place.path("tree")).unwrap();
    let Artifact::Tree { digest, files, size } = artifact else { panic!("a tree") };
    assert_eq!(files, 8);
    assert!(size > big.len() as u64);
    let entries = place.store.tree(&digest).unwrap().unwrap();
    assert_eq!(entries.len(), 11);
    assert!(entries.is_sorted_by(|a, b| a.path < b.path));
    let dirs: Vec<_> =
        entries.iter().filter(|e| e.kind == TreeEntryKind::Dir).map(|e| e.path.as_str()).collect();
    assert_eq!(dirs, ["empty/inner"]);

    let to = place.path("to");
    assert!(place.store.has(&artifact));
    place.store.restore(&artifact, &to).unwrap();
    assert_eq!(place.store.put_tree(&to).unwrap(), artifact);
    assert_eq!(fs::read_link(to.join("dangling")).unwrap(), Path::new("nowhere at all"));
    assert_eq!(mode(&to.join("deep/er/est/run.sh")), 0o755);
    assert!(to.join("empty/inner").is_dir());
    assert!(fs::read(to.join("big")).unwrap() == big);

    let empty = place.path("nothing");
    fs::create_dir(&empty).unwrap();
    let artifact = place.store.put_tree(&empty).unwrap();
    place.store.restore(&artifact, &place.path("nothing again")).unwrap();
    assert!(place.path("nothing again").is_dir());
}

#[test]
fn a_name_that_is_not_utf8_is_refused_by_name() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let dir = place.path("tree");
    fs::create_dir(&dir).unwrap();
    if fs::write(dir.join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"").is_err() {
        return; // a file system that refuses it itself
    }
    let error = place.store.put_tree(&dir).unwrap_err();
    assert!(error.message.contains("not UTF-8") && error.message.contains("bad"), "{}", error.message);
}

#[test]
fn a_damaged_blob_is_noticed_never_used_and_removed() {
    let place = Place::new();
    for bytes in [text(100_000), noise(100_000), text(2 << 20), noise(2 << 20)] {
        for cut in [false, true] {
            let artifact = place.put(&bytes);
            let object = place.object(&artifact);
            let mut stored = fs::read(&object).unwrap();
            if cut {
                stored.truncate(stored.len() / 2);
            } else {
                let middle = stored.len() / 2;
                stored[middle] ^= 1;
            }
            fs::write(&object, &stored).unwrap();
            let to = place.path("to");
            let digest = artifact.digest().unwrap();
            let result = place.store.restore(&artifact, &to);
            assert!(matches!(result, Err(RestoreError::Corrupt(d)) if d == digest), "{result:?}");
            assert!(!to.exists() && !object.exists());
            assert!(!place.store.has(&artifact));
            let result = place.store.restore(&artifact, &to);
            assert!(matches!(result, Err(RestoreError::Missing(d)) if d == digest), "{result:?}");
            assert!(matches!(place.store.read(&digest), Err(RestoreError::Missing(_))));
            assert_eq!(place.put(&bytes), artifact);
            place.store.restore(&artifact, &to).unwrap();
            fs::remove_file(&to).unwrap();
            fs::remove_file(&object).unwrap();
        }
    }
}

#[test]
fn a_damaged_small_blob_is_removed_too() {
    let place = Place::new();
    let artifact = place.put(b"small");
    let digest = artifact.digest().unwrap();
    place.store.index().put_small(&digest, b"other");
    let report = place.store.verify().unwrap();
    assert_eq!((report.corrupt, report.removed), (vec![digest], 0));
    let result = place.store.restore(&artifact, &place.path("to"));
    assert!(matches!(result, Err(RestoreError::Corrupt(_))), "{result:?}");
    assert!(!place.store.has(&artifact) && !place.path("to").exists());
    assert_eq!(place.put(b"small"), artifact);
    place.store.restore(&artifact, &place.path("to")).unwrap();
}

#[test]
fn a_tree_of_which_a_file_is_missing_leaves_nothing_half_restored() {
    let place = Place::new();
    place.file("tree/a", b"a");
    let gone = Digest::of(&text(10_000));
    place.file("tree/b", &text(10_000));
    let artifact = place.store.put_tree(&place.path("tree")).unwrap();
    fs::remove_file(place.store.objects().path(&gone)).unwrap();
    assert!(!place.store.has(&artifact));
    let result = place.store.restore(&artifact, &place.path("to"));
    assert!(matches!(result, Err(RestoreError::Missing(d)) if d == gone), "{result:?}");
    assert!(!place.path("to").exists());
}

#[test]
fn results_are_seen_by_other_stores_and_after_reopening() {
    let place = Place::new();
    let other = Store::open(place.store.dir()).unwrap();
    let key = |n: u32| Digest::of(&n.to_le_bytes());
    assert!(other.result(&key(0)).unwrap().is_none());
    let artifact = place.put(b"x");
    let first = record(vec![("out".to_owned(), artifact), ("gone".to_owned(), Artifact::Absent)]);
    // More than are looked up before the scan, on both sides of it.
    for n in 0..200 {
        let record = ResultRecord { seconds: f64::from(n), ..first.clone() };
        place.store.put_result(&key(n), &record).unwrap();
        assert_eq!(*other.result(&key(n)).unwrap().unwrap(), record);
        assert_eq!(*place.store.result(&key(n)).unwrap().unwrap(), record);
    }
    let again = ResultRecord { checked_at_ns: 99, ..first.clone() };
    place.store.put_result(&key(7), &again).unwrap();
    assert_eq!(place.store.result(&key(7)).unwrap().unwrap().checked_at_ns, 99);
    let dir = place.store.dir().to_owned();
    drop(other);
    let third = Store::open(&dir).unwrap();
    for n in 0..200 {
        assert!(third.result(&key(n)).unwrap().is_some());
    }
    assert_eq!(third.result(&key(7)).unwrap().unwrap().checked_at_ns, 99);
    assert!(third.result(&key(1000)).unwrap().is_none());
    assert_eq!(third.stats().unwrap().results, 200);
}

#[test]
fn two_stores_write_one_cache_at_once() {
    let place = Place::new();
    let cache = place.store.dir().to_owned();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (cache, place) = (&cache, &place);
            scope.spawn(move || {
                let store = Store::open(cache).unwrap();
                for n in 0..25u32 {
                    // Every second content is common to all threads.
                    let content = if n % 2 == 0 { n } else { n + 1000 * thread };
                    let bytes = text(10 + content as usize * 37);
                    let from = place.file(&format!("{thread}/{n}"), &bytes);
                    let artifact = store.put_file(&from).unwrap();
                    let key = Digest::of(&content.to_le_bytes());
                    store.put_result(&key, &record(vec![("o".to_owned(), artifact.clone())])).unwrap();
                    store.restore(&artifact, &place.path(&format!("{thread}/to{n}"))).unwrap();
                }
            });
        }
    });
    let report = place.store.verify().unwrap();
    assert!(report.is_ok() && report.incomplete.is_empty(), "{report:?}");
    assert_eq!(place.store.stats().unwrap().results, 13 + 4 * 12);
}

#[test]
fn an_index_of_a_newer_version_or_another_digest_function_is_refused() {
    let place = Place::new();
    let cache = place.store.dir().to_owned();
    drop(place.store);
    let db = rusqlite::Connection::open(cache.join("index.db")).unwrap();
    let own: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    db.pragma_update(None, "user_version", own + 7).unwrap();
    let error = Store::open(&cache).map(drop).unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Environment);
    let parts = [format!("version {}", own + 7), format!("up to {own}")];
    assert!(parts.iter().all(|part| error.message.contains(part)), "{}", error.message);
    db.pragma_update(None, "user_version", own).unwrap();
    db.execute("UPDATE format SET digest_function = 'sha256'", []).unwrap();
    let error = Store::open(&cache).map(drop).unwrap_err();
    assert!(error.message.contains("sha256"), "{}", error.message);
}

#[test]
fn an_index_without_discovered_inputs_gets_their_table() {
    let place = Place::new();
    let key = Digest::of(b"key");
    place.store.put_result(&key, &record(Vec::new())).unwrap();
    let cache = place.store.dir().to_owned();
    drop(place.store);
    let db = rusqlite::Connection::open(cache.join("index.db")).unwrap();
    db.execute_batch("DROP TABLE discovered; PRAGMA user_version = 1").unwrap();
    let store = Store::open(&cache).unwrap();
    assert!(store.result(&key).unwrap().is_some() && store.discovered(&key).unwrap().is_empty());
    store.put_discovered(&key, &["a".to_owned()]).unwrap();
    assert_eq!(store.discovered(&key).unwrap(), [Arc::from(["a".to_owned()])]);
}

#[test]
fn lists_of_discovered_inputs_are_kept_newest_first_and_not_without_end() {
    let place = Place::new();
    let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
    let list = |n: usize| -> Vec<String> { (0..n).map(|n| format!("inc/{n}.h")).collect() };
    for n in 0..40 {
        place.store.put_discovered(&key, &list(n)).unwrap();
    }
    place.store.put_discovered(&key, &list(20)).unwrap();
    let lengths = |store: &Store| -> Vec<usize> {
        store.discovered(&key).unwrap().iter().map(|list| list.len()).collect()
    };
    let expected: Vec<usize> = [20].into_iter().chain((21..40).rev()).chain((8..20).rev()).collect();
    assert_eq!(lengths(&place.store), expected);
    assert!(place.store.discovered(&other).unwrap().is_empty());
    // a result is never seen by others before the list that leads to it
    place.store.put_result(&key, &record(Vec::new())).unwrap();
    assert_eq!(lengths(&Store::open(place.store.dir()).unwrap()), expected);
}

#[test]
fn verify_finds_and_repair_removes_what_is_damaged() {
    let place = Place::new();
    let (good, bad) = (place.put(&text(9_000)), place.put(&noise(9_000)));
    let key = Digest::of(b"key");
    place.store.put_result(&key, &record(vec![("good".into(), good), ("bad".into(), bad.clone())])).unwrap();
    fs::write(place.object(&bad), b"something else").unwrap();
    fs::write(place.store.dir().join("objects/stray"), b"").unwrap();
    let report = place.store.verify().unwrap();
    let digest = bad.digest().unwrap();
    assert!(!report.is_ok());
    assert_eq!((report.checked, report.corrupt, report.removed), (2, vec![digest], 0));
    assert_eq!(report.foreign, ["stray"]);
    assert_eq!(report.incomplete[0].outputs, ["bad"]);
    assert!(place.object(&bad).exists());
    let report = place.store.repair().unwrap();
    assert_eq!((report.corrupt.len(), report.removed), (1, 1));
    assert_eq!(report.incomplete[0].outputs, ["bad"]);
    assert!(place.store.verify().unwrap().is_ok());
}

/// Makes a blob look as if it was last used `days` ago.
fn age(place: &Place, artifact: &Artifact, days: u64) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
    fs::File::open(place.object(artifact)).unwrap().set_modified(then).unwrap();
}

#[test]
fn gc_removes_the_oldest_first_and_keeps_results_and_samples() {
    let place = Place::new();
    let blobs: Vec<Artifact> = (0..4).map(|n| place.put(&noise(10_000 + n))).collect();
    for (days, blob) in blobs.iter().enumerate() {
        age(&place, blob, 10 * days as u64);
    }
    let mut sample = record(vec![("o".to_owned(), blobs[3].clone())]);
    sample.record.insert("policy".to_owned(), json!("sample"));
    let key = Digest::of(b"sample");
    place.store.put_result(&key, &sample).unwrap();

    let nothing = place.store.gc(&GcOptions::default()).unwrap();
    assert_eq!((nothing.removed, nothing.kept), (0, 4));
    let day = std::time::Duration::from_secs(86_400);
    let by_age = GcOptions { max_age: Some(15 * day), dry_run: true, ..GcOptions::default() };
    let dry = place.store.gc(&by_age).unwrap();
    assert_eq!((dry.removed, dry.spared_samples, dry.dry_run), (1, 1, true));
    assert!(place.store.has(&blobs[2]));
    let report = place.store.gc(&GcOptions { dry_run: false, ..by_age }).unwrap();
    assert_eq!((report.removed, report.removed_bytes), (1, 10_002));
    assert!(!place.store.has(&blobs[2]) && place.store.has(&blobs[3]));

    let by_size = GcOptions { max_size: Some(25_000), ..GcOptions::default() };
    assert_eq!(place.store.gc(&by_size).unwrap().removed, 1);
    assert!(place.store.has(&blobs[0]) && !place.store.has(&blobs[1]));
    let all = GcOptions { max_size: Some(0), samples: true, ..GcOptions::default() };
    // Of no use to the size, wherever it comes in the order.
    let empty = place.put(b"");
    assert_eq!(place.store.gc(&all).unwrap().kept, 1);
    assert!(place.store.has(&empty));
    assert!(place.store.result(&key).unwrap().is_some());
    assert_eq!(place.store.verify().unwrap().incomplete.len(), 1);
}

#[test]
fn gc_beside_another_user_of_the_cache_spares_what_is_recent() {
    let place = Place::new();
    let (new, old, small) = (place.put(&noise(10_000)), place.put(&noise(10_001)), place.put(b"small"));
    age(&place, &old, 1);
    let other = Store::open(place.store.dir()).unwrap();
    let half = place.store.dir().join("tmp/blob-half");
    fs::write(&half, b"half").unwrap();
    let all = GcOptions { max_size: Some(0), ..GcOptions::default() };
    let report = place.store.gc(&all).unwrap();
    assert_eq!((report.removed, report.spared_recent, report.unfinished), (1, 2, 0));
    assert!(place.store.has(&new) && place.store.has(&small) && !place.store.has(&old));
    drop(other);
    let report = place.store.gc(&all).unwrap();
    assert_eq!((report.removed, report.kept, report.unfinished), (2, 0, 1));
    assert!(!half.exists());
    // The lock is shared again.
    assert!(Store::open(place.store.dir()).is_ok());
}

#[test]
fn gc_keeps_the_bytes_of_the_last_runs_and_of_published_files() {
    let place = Place::new();
    let contents: Vec<Artifact> = (0..3).map(|n| place.put(&noise(10_000 + n))).collect();
    for (n, artifact) in contents.iter().enumerate() {
        let run = format!("20261121-10150{n}-aaaa");
        runs::RunWriter::create(place.store.dir(), &run).unwrap().finish().unwrap();
        let record = ResultRecord { run, ..record(vec![("o".to_owned(), artifact.clone())]) };
        place.store.put_result(&Digest::of(&[n as u8]), &record).unwrap();
    }
    let root = place.path("work");
    fs::create_dir(&root).unwrap();
    let workspace = Workspace::open(&place.store, &root).unwrap();
    workspace.publish(vec![PublishedRow {
        path: "out/x".to_owned(),
        workflow: "w.json".to_owned(),
        file: "w.json".to_owned(),
        node: "n".to_owned(),
        output: "o".to_owned(),
        append: false,
        artifact: contents[0].clone(),
    }]);
    workspace.sync().unwrap();
    let report = place.store.gc(&GcOptions { keep_runs: Some(1), ..GcOptions::default() }).unwrap();
    assert_eq!((report.removed, report.kept), (1, 2));
    assert!(!place.store.has(&contents[1]));
    let tight = GcOptions { max_size: Some(10_000), ..GcOptions::default() };
    place.store.gc(&tight).unwrap();
    assert!(place.store.has(&contents[0]), "published bytes go last");
    assert!(!place.store.has(&contents[2]));
}

/// Names the cache in which the child process of [`a_kill_leaves_a_whole_cache_and_no_lock`] works.
const CHILD: &str = "FLOW_TEST_STORE_CHILD";

#[test]
fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let store = Store::open(&dir.join("cache")).unwrap();
    let workspace = Workspace::open(&store, &dir).unwrap();
    let mut run = runs::RunWriter::create(store.dir(), "killed").unwrap();
    let _lock = Workspace::lock(&dir, &mut |_| {}, &|| false).unwrap().unwrap();
    for n in 0..6u8 {
        let key = Digest::of(&[n]);
        let _key = store.single_flight(&key, &mut |_| {}, &|| false).unwrap().unwrap();
        let from = dir.join("from");
        fs::write(&from, text(1000 + 5000 * usize::from(n))).unwrap();
        let artifact = store.put_file(&from).unwrap();
        store.put_result(&key, &record(vec![("o".to_owned(), artifact)])).unwrap();
        let row =
            NodeRow { key, manifest: vec![], seconds: vec![], outputs: vec![], run: "killed".to_owned() };
        workspace.put_node("w", &n.to_string(), row);
        workspace.sync().unwrap();
        run.line(&json!({"node": n}).to_string()).unwrap();
        run.flush().unwrap();
    }
}

#[test]
fn a_kill_leaves_a_whole_cache_and_no_lock() {
    use std::os::unix::process::ExitStatusExt;
    // At the fourth time: three nodes are through, and the fourth is as far as the point says.
    for (point, results, nodes) in [("blob_written", 3, 3), ("result_row", 4, 3), ("workspace_row", 4, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_that_is_killed"])
            .env(CHILD, dir.path())
            .env(crate::base::failpoint::VARIABLE, format!("{point}:4"))
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(9), "{point}: {child:?}");
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let report = store.verify().unwrap();
        assert!(report.is_ok() && report.incomplete.is_empty(), "{point}: {report:?}");
        assert_eq!(store.stats().unwrap().results, results, "{point}");
        let workspace = Workspace::open(&store, dir.path()).unwrap();
        let known = (0..6).filter(|n| workspace.node("w", &n.to_string()).is_some()).count();
        assert_eq!(known, nodes, "{point}");
        assert_eq!(runs::read(&store, "killed").unwrap().len(), 3, "{point}");
        let held = |_: Option<u32>| panic!("a dead process holds a lock");
        assert!(Workspace::lock(dir.path(), &mut { held }, &|| false).unwrap().is_some());
        assert!(store.single_flight(&Digest::of(&[3]), &mut { held }, &|| false).unwrap().is_some());
    }
}

#[test]
fn a_local_result_is_seen_from_its_workspace_only() {
    let place = Place::new();
    let roots: Vec<_> = ["a", "b"].map(|name| place.dir.path().join(name)).into();
    let stores: Vec<Store> = roots
        .iter()
        .map(|root| {
            std::fs::create_dir(root).unwrap();
            place.store.seen_from(&Workspace::open(&place.store, root).unwrap())
        })
        .collect();
    let key = Digest::of(b"key");
    let mut local = record(Vec::new());
    local.record.insert(crate::api::LOCAL.to_owned(), "why".into());
    local.made_at_ns = 5;
    stores[0].put_result(&key, &local).unwrap();
    let made = |store: &Store| store.result(&key).unwrap().map(|record| record.made_at_ns);
    assert_eq!((made(&stores[0]), made(&stores[1]), made(&place.store)), (Some(5), None, None));
    // opened anew
    let again = place.store.seen_from(&Workspace::open(&place.store, &roots[0]).unwrap());
    assert_eq!(made(&again), Some(5));
    let shared = |made_at_ns: i64| ResultRecord { made_at_ns, ..record(Vec::new()) };
    stores[1].put_result(&key, &shared(3)).unwrap();
    assert_eq!((made(&again), made(&stores[1])), (Some(5), Some(3)), "the newer one");
    stores[1].put_result(&key, &shared(9)).unwrap();
    assert_eq!((made(&again), made(&stores[1])), (Some(9), Some(9)));
    let rows = place.store.index().results().unwrap().whole;
    let own = rows.iter().find(|(_, record)| record.is_local()).unwrap();
    assert_eq!((super::local::key_of(&own.0, &own.1), own.0 == key), (key, false));
    assert!(place.store.put_result(&key, &local).is_err(), "whose?");
}
