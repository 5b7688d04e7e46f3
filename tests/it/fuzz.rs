//! The fuzz targets, bounded: mutations of the shipped workflows and of files that flow wrote, from a seed that is printed.
//! `FLOW_FUZZ=CASES` sets how many, `FLOW_FUZZ_SEED=N` repeats a sequence; `just fuzz` runs many.

use std::fs;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::{Workspace, repository};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Runs `target` on mutations of `corpus`. A panic shows the seed and the case; the same seed makes the same cases.
fn fuzz(
    name: &str,
    corpus: &[Vec<u8>],
    cases: usize,
    mutate: impl Fn(&mut Rng, &[u8]) -> Vec<u8>,
    target: fn(&[u8]),
) {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = number("FLOW_FUZZ").map_or(cases, |cases| cases as usize);
    let seed = number("FLOW_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut random = Rng::with_seed(seed);
    for case in 0..cases {
        let chosen = random.usize(..corpus.len());
        let data = mutate(&mut random, &corpus[chosen]);
        let result = std::panic::catch_unwind(|| target(&data));
        if result.is_err() {
            let kept = std::env::temp_dir().join(format!("flow-fuzz-{name}-{seed}-{case}"));
            fs::write(&kept, &data).unwrap();
            panic!("{name}: FLOW_FUZZ_SEED={seed}, case {case}: {}", kept.display());
        }
    }
    eprintln!("{name}: {cases} cases, FLOW_FUZZ_SEED={seed}");
}

/// Flips, cuts, repeats and inserts bytes.
fn bytes(random: &mut Rng, data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..data.len() + 1);
        let end = (at + random.usize(..64)).min(data.len());
        match random.u8(..6) {
            0 if at < data.len() => data[at] ^= 1 << random.u8(..8),
            1 => data.truncate(at),
            2 => drop(data.drain(at..end)),
            3 => {
                let piece = data[at..end].to_vec();
                let to = random.usize(..data.len() + 1);
                data.splice(to..to, piece);
            }
            4 => {
                let tokens = [
                    "{", "}", "[", "]", "\"", ",", ":", "null", "-0", "1e999", "\\u0000", "${", "}",
                    "${steps.", "é", "//", "\u{0}",
                ];
                let token = tokens[random.usize(..tokens.len())];
                data.splice(at..at, token.bytes());
            }
            _ => {
                let noise: Vec<u8> = (0..random.usize(..16)).map(|_| random.u8(..)).collect();
                data.splice(at..at, noise);
            }
        }
    }
    data
}

/// Replaces, removes, renames and moves parts of JSON, so that what comes out is JSON again.
fn parts(random: &mut Rng, data: &[u8]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(data) else { return bytes(random, data) };
    for _ in 0..random.usize(1..4) {
        let whole = value.clone();
        let paths = pointers(&whole);
        let part = whole.pointer(&paths[random.usize(..paths.len())]).unwrap().clone();
        let target = value.pointer_mut(&paths[random.usize(..paths.len())]);
        let Some(target) = target else { continue };
        match random.u8(..5) {
            0 => *target = part,
            1 => {
                let odd = [
                    json!(null),
                    json!(-1),
                    json!(1e300),
                    json!(""),
                    json!([]),
                    json!({}),
                    json!([[]]),
                    json!("${"),
                    json!("${x"),
                    json!("${params.nosuch}"),
                    json!("${steps.a.b}"),
                    json!("${matrix.}"),
                    json!("../.."),
                    json!("/"),
                    json!("a//b"),
                    json!("*"),
                    json!("[z-a]"),
                    json!("{a,"),
                    json!("\u{0}"),
                    json!("99999999999999999999s"),
                    json!(true),
                    json!({"glob": "**"}),
                ];
                *target = odd[random.usize(..odd.len())].clone();
            }
            2 => {
                if let Value::Object(map) = target
                    && let Some(key) = map.keys().nth(random.usize(..map.len().max(1))).cloned()
                {
                    map.remove(&key);
                }
            }
            3 => {
                if let Value::Object(map) = target {
                    let keys = ["", "a b", "run", "uses", "matrix", "outputs", "${x}", "steps", "a.b", "é"];
                    map.insert(keys[random.usize(..keys.len())].to_owned(), part);
                }
            }
            _ => {
                if let Value::String(text) = target {
                    let at = text
                        .char_indices()
                        .map(|(at, _)| at)
                        .nth(random.usize(..text.len().max(1)))
                        .unwrap_or(0);
                    text.insert_str(at, ["${", "}", ".", "/", "*", "\n", "\"", "$${"][random.usize(..8)]);
                }
            }
        }
    }
    serde_json::to_vec_pretty(&value).unwrap()
}

/// The JSON pointers of every part.
fn pointers(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: String, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                walk(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), into);
            }),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(n, value)| walk(value, format!("{at}/{n}"), into));
            }
            _ => {}
        }
        into.push(at);
    }
    let mut found = Vec::new();
    walk(value, String::new(), &mut found);
    found
}

fn shipped() -> Vec<Vec<u8>> {
    let entries = fs::read_dir(repository().join("workflows")).unwrap().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    files.sort();
    assert!(files.len() >= 4);
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// What a run leaves in its cache: `index.db`, `state.db`, run records, and what says that there is nothing to do.
fn written() -> (Vec<u8>, Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat s > ${outputs.o}", "inputs": {"s": "s"}, "outputs": {"o": "out/a"}},
        "b": {"run": "seq 3000 > ${outputs.o}", "matrix": {"n": [1, 2, 3]}, "outputs": {"o": "out/b.${matrix.n}"}},
    }}));
    w.write("s", "1");
    for _ in 0..5 {
        w.flow(&["run", "flow.json"]).ok();
        std::thread::sleep(std::time::Duration::from_millis(15));
    }
    let workspace = fs::read_dir(w.path("cache/workspaces")).unwrap().flatten().next().unwrap().path();
    let record = fs::read_dir(w.path("cache/runs")).unwrap().flatten().next().unwrap().path();
    let others = fs::read_dir(&workspace).unwrap().flatten().map(|entry| entry.path());
    let others = others.filter(|path| path.is_file() && !path.to_string_lossy().contains("state.db"));
    (
        fs::read(w.path("cache/index.db")).unwrap(),
        fs::read(workspace.join("state.db")).unwrap(),
        fs::read(record).unwrap(),
        others.map(|path| fs::read(path).unwrap()).collect(),
    )
}

#[test]
fn a_workflow_file_of_any_bytes_is_read_or_has_faults_with_places() {
    fuzz("workflow", &shipped(), 400, bytes, targets::workflow);
}

#[test]
fn a_workflow_file_of_any_json_is_read_or_has_faults_with_places() {
    fuzz("workflow-json", &shipped(), 600, parts, targets::workflow);
}

#[test]
fn any_bytes_as_what_flow_keeps_are_read_or_an_error_that_names_the_file() {
    let (index, state, record, mut certificates) = written();
    let rows: Vec<Vec<u8>> = {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("index.db"), &index).unwrap();
        let db = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
        let mut select = db.prepare("SELECT record FROM results").unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    fuzz("index", &[index], 60, bytes, targets::index);
    fuzz("index_row", &rows, 60, bytes, targets::index_row);
    fuzz("state", &[state], 60, bytes, targets::state);
    let lines = zstd::decode_all(&record[..]).unwrap();
    fuzz("record", &[record, lines], 80, bytes, targets::record);
    certificates.push(b"flow certificat1".to_vec());
    fuzz("certificate", &certificates, 200, bytes, targets::certificate);
}
