//! What each fuzz target does with its bytes, and what must hold whatever they are: no panic, no hang, an error that says where.
//! Shared by the targets of cargo-fuzz and by the bounded test in the main package; unaware of where the bytes come from.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed assertion is what fuzzing looks for")]

use std::fs;

use flow::base::digest::Digest;
use flow::error::Kind;
use flow::front::{self, LoadRequest};
use flow::observe::record::Record;
use flow::store::{Store, Workspace, runs};

/// A workflow file: it is read, or every fault has its place in the file.
pub fn workflow(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("flow.json"), data).unwrap();
    let request = LoadRequest {
        file: "flow.json".into(),
        root: dir.path().to_owned(),
        profile: None,
        params_files: Vec::new(),
        set: Vec::new(),
    };
    let Err(error) = front::load(&request, &flow::stage::catalog()) else { return };
    assert_eq!(error.kind, Kind::Workflow, "{error}");
    assert!(!error.diagnostics.is_empty(), "{error}");
    for diagnostic in &error.diagnostics {
        assert!(!diagnostic.message.is_empty(), "{diagnostic:?}");
        // bytes that are no text have an offset instead of a line
        let place = diagnostic.label.as_ref().map_or(&diagnostic.message, |label| &label.file);
        assert!(place.contains("flow.json"), "{diagnostic:?}");
    }
}

/// A whole `index.db`: it is opened and every row can be asked for, or an error names the file.
pub fn index(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::write(cache.join("index.db"), data).unwrap();
    match Store::open(&cache) {
        Err(error) => names(&error, "index.db"),
        Ok(store) => {
            for result in [store.result(&Digest::of(b"key")).map(drop), store.verify().map(drop)] {
                if let Err(error) = result {
                    names(&error, "index.db");
                }
            }
        }
    }
}

/// One row of the index: it is a result, or there is none; `verify` names it then.
pub fn index_row(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let key = Digest::of(b"key");
    let digest = Digest::of(b"content");
    drop(Store::open(&cache).unwrap());
    let db = rusqlite::Connection::open(cache.join("index.db")).unwrap();
    db.execute("INSERT INTO results VALUES (?1, ?2)", (key.0, data)).unwrap();
    db.execute("INSERT INTO small VALUES (?1, ?2, 0)", (digest.0, data)).unwrap();
    drop(db);
    let store = Store::open(&cache).unwrap();
    let found = store.result(&key).unwrap().is_some();
    let report = store.verify().unwrap();
    assert_eq!(report.damaged_results, if found { vec![] } else { vec![key] });
    match store.read(&digest) {
        Ok(bytes) => assert_eq!(bytes, b"content"),
        Err(error) => assert!(matches!(error, flow::store::RestoreError::Corrupt(_)), "{error}"),
    }
}

/// A whole `state.db` of a workspace.
pub fn state(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("cache")).unwrap();
    let path = Workspace::open(&store, dir.path()).unwrap().dir().join("state.db");
    for ending in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{ending}", path.display()));
    }
    fs::write(&path, data).unwrap();
    match Workspace::open(&store, dir.path()) {
        Err(error) => names(&error, "state.db"),
        Ok(workspace) => {
            workspace.published();
            workspace.node("flow.json", "a");
        }
    }
}

/// What says that a run has nothing to do: damaged bytes never say so.
pub fn certificate(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fresh-0");
    fs::write(&path, data).unwrap();
    assert!(!matches!(flow::engine::check_certificate(&path), flow::engine::Check::Holds(_)));
}

/// A run record, compressed and as lines.
pub fn record(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("cache")).unwrap();
    let path = store.dir().join("runs/20260101-000000-0000.jsonl.zst");
    for bytes in [data.to_vec(), zstd::encode_all(data, 1).unwrap()] {
        fs::write(&path, bytes).unwrap();
        match runs::read(&store, "20260101-000000-0000") {
            Err(error) => names(&error, ".jsonl.zst"),
            Ok(lines) => {
                if let Ok(record) = Record::read(lines) {
                    record.summary_json(true);
                }
            }
        }
    }
}

#[track_caller]
fn names(error: &flow::Error, file: &str) {
    assert!(error.kind == Kind::Environment && error.message.contains(file), "{error}");
}
