//! The workspace as its users see it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use super::*;
use crate::base::clock::now_ns;

struct Place {
    _dir: tempfile::TempDir,
    root: PathBuf,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("work");
        fs::create_dir(&root).unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        Self { root: root.canonicalize().unwrap(), _dir: dir, store }
    }

    fn open(&self) -> Workspace {
        Workspace::open(&self.store, &self.root).unwrap()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn artifact(bytes: &[u8]) -> Artifact {
    Artifact::File { digest: Digest::of(bytes), size: bytes.len() as u64, exec: false }
}

fn digest(workspace: &Workspace, path: &Path) -> Option<Digest> {
    workspace.content(path).unwrap().map(|content| content.artifact.digest().unwrap())
}

/// Plants a false digest for the file as it is, as if it had been hashed at `hashed_at_ns`: whether it comes back tells whether the
/// cache was trusted.
fn plant(workspace: &Workspace, path: &Path, hashed_at_ns: i64) -> Digest {
    let stat = Stat::following(path).unwrap();
    let planted = Digest::of(b"planted");
    let artifact = Artifact::File { digest: planted, size: stat.size, exec: false };
    workspace.remember(path, stat, &artifact, hashed_at_ns);
    planted
}

const LATER: i64 = 1_000_000_000;

#[test]
fn a_file_is_hashed_again_only_if_its_stat_differs_or_is_racy() {
    let place = Place::new();
    let path = place.file("in/a.txt", b"one");
    let workspace = place.open();
    let content = workspace.content(&path).unwrap().unwrap();
    assert_eq!(content, Content { artifact: artifact(b"one"), stat: Stat::of(&path).unwrap() });

    let newest = content.stat.newest_ns();
    plant(&workspace, &path, newest + stat_cache::RACY_NS);
    assert_eq!(digest(&workspace, &path), Some(Digest::of(b"one")), "racy");
    let planted = plant(&workspace, &path, newest + LATER);
    assert_eq!(digest(&workspace, &path), Some(planted), "trusted");
    workspace.close_clean().unwrap();
    drop(workspace);
    let workspace = place.open();
    assert_eq!(digest(&workspace, &path), Some(planted), "trusted after reopening");
    workspace.forget(&place.root.join("in"));
    assert_eq!(digest(&workspace, &path), Some(Digest::of(b"one")), "forgotten with its directory");
    drop(workspace);
    assert_eq!(digest(&place.open(), &path), Some(Digest::of(b"one")), "forgotten for good");
}

#[test]
fn an_edit_of_equal_size_with_the_mtime_put_back_is_seen_by_the_ctime() {
    let place = Place::new();
    let path = place.file("a", b"one");
    let workspace = place.open();
    let before = Stat::of(&path).unwrap();
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    plant(&workspace, &path, before.newest_ns() + LATER);
    // Until the file system's clock has moved on.
    let started = Instant::now();
    let after = loop {
        fs::write(&path, b"two").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
        let after = Stat::of(&path).unwrap();
        if after.ctime_ns != before.ctime_ns || started.elapsed() > Duration::from_secs(5) {
            break after;
        }
    };
    assert_eq!((after.mtime_ns, after.size, after.inode), (before.mtime_ns, before.size, before.inode));
    assert_eq!(digest(&workspace, &path), Some(Digest::of(b"two")));
}

#[test]
fn links_are_followed_modes_are_seen_and_nothing_is_none() {
    let place = Place::new();
    let path = place.file("a", b"one");
    symlink("a", place.root.join("link")).unwrap();
    symlink("nowhere", place.root.join("dangling")).unwrap();
    let workspace = place.open();
    assert_eq!(digest(&workspace, &place.root.join("link")), Some(Digest::of(b"one")));
    for missing in ["dangling", "none", "a/below a file"] {
        assert_eq!(workspace.content(&place.root.join(missing)).unwrap(), None, "{missing}");
    }
    plant(&workspace, &path, now_ns() + LATER);
    fs::remove_file(&path).unwrap();
    assert_eq!(digest(&workspace, &path), None);
    fs::write(&path, b"one").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let content = workspace.content(&path).unwrap().unwrap();
    assert_eq!(content.artifact, Artifact::File { digest: Digest::of(b"one"), size: 3, exec: true });
    fs::create_dir(place.root.join("dir")).unwrap();
    let names = [("a", false), ("none", true), ("link", true), ("dir", true), ("dir", false)];
    let looks = names.map(|(name, tree)| Look { path: place.root.join(name), tree });
    let found: Vec<Option<bool>> =
        workspace.contents(&looks).into_iter().map(|content| content.ok().map(|c| c.is_some())).collect();
    assert_eq!(found, [Some(true), Some(false), Some(true), Some(true), None]);
}

#[test]
fn a_directory_has_the_digest_of_its_tree_object_and_uses_the_cache_for_its_files() {
    let place = Place::new();
    place.file("d/x/a b", b"one");
    let file = place.file("d/y", b"two");
    symlink("y", place.root.join("d/l")).unwrap();
    fs::create_dir(place.root.join("d/empty")).unwrap();
    let workspace = place.open();
    let dir = place.root.join("d");
    let content = workspace.content(&dir).unwrap().unwrap();
    assert!(content.stat.is_dir());
    assert!(!place.store.has(&content.artifact), "nothing is stored");
    let stored = place.store.put_tree(&dir).unwrap();
    assert_eq!(content.artifact, stored);

    let planted = plant(&workspace, &file, now_ns() + LATER);
    assert_ne!(workspace.content(&dir).unwrap().unwrap().artifact, stored);
    workspace.remember(&dir, Stat::of(&dir).unwrap(), &stored, now_ns() + LATER);
    assert_eq!(workspace.content(&dir).unwrap().unwrap().artifact, stored);
    assert_ne!(digest(&workspace, &file), Some(planted));
}

#[test]
fn after_another_boot_without_a_clean_end_the_last_minute_is_not_trusted() {
    let place = Place::new();
    let old = place.file("old", b"old");
    let new = place.file("new", b"new");
    let other_boot = |workspace: Workspace, clean: bool| {
        if clean {
            workspace.close_clean().unwrap();
        }
        let path = workspace.dir().join(DATABASE);
        drop(workspace);
        let db = Connection::open(path).unwrap();
        db.execute("UPDATE sessions SET boot = 'another'", []).unwrap()
    };
    let plant_both = |workspace: &Workspace| {
        plant(workspace, &old, now_ns() + LATER);
        plant(workspace, &new, now_ns() + 100 * LATER);
    };
    let workspace = place.open();
    plant_both(&workspace);
    assert_eq!(other_boot(workspace, true), 0);
    let workspace = place.open();
    assert_eq!(digest(&workspace, &new), Some(Digest::of(b"planted")));
    plant_both(&workspace);
    assert_eq!(other_boot(workspace, false), 1);
    let workspace = place.open();
    assert_eq!(digest(&workspace, &new), Some(Digest::of(b"new")));
    assert_eq!(digest(&workspace, &old), Some(Digest::of(b"planted")));
}

#[test]
fn node_rows_come_back_with_their_last_durations() {
    let place = Place::new();
    let row = NodeRow {
        key: Digest::of(b"key"),
        manifest: (0..30).map(|n| (format!("param.{n}"), format!("value \"{n}\"\n"))).collect(),
        seconds: vec![0.1, f64::NAN, 1.0, 2.0, 3.0, 4.0, 5.5],
        outputs: vec![("csv".to_owned(), "out/a b.csv".to_owned())],
        run: "r".to_owned(),
    };
    let kept = NodeRow { seconds: vec![1.0, 2.0, 3.0, 4.0, 5.5], ..row.clone() };
    let workspace = place.open();
    assert!(workspace.node("w.json", "n[a=1]").is_none());
    workspace.put_node("w.json", "n[a=1]", NodeRow { run: "older".to_owned(), ..row.clone() });
    workspace.put_node("w.json", "n[a=1]", row);
    assert_eq!(*workspace.node("w.json", "n[a=1]").unwrap(), kept);
    drop(workspace);
    let workspace = place.open();
    assert_eq!(*workspace.node("w.json", "n[a=1]").unwrap(), kept);
    let summary = workspace.node_summary("w.json", "n[a=1]").unwrap();
    assert_eq!((summary.key, &summary.seconds, &summary.outputs), (kept.key, &kept.seconds, &kept.outputs));
    assert!(workspace.node("other.json", "n[a=1]").is_none());
}

#[test]
fn each_root_workflow_keeps_its_own_claim_on_a_path() {
    let place = Place::new();
    let row = |path: &str, workflow: &str, content: &[u8]| PublishedRow {
        path: path.to_owned(),
        workflow: workflow.to_owned(),
        file: "declares.json".to_owned(),
        node: "n".to_owned(),
        output: "o".to_owned(),
        append: true,
        artifact: artifact(content),
    };
    let workspace = place.open();
    workspace.publish(vec![
        row("b", "w1", b"1"),
        row("a", "w2", b"2"),
        row("a", "w1", b"3"),
        row("c", "w1", b"4"),
    ]);
    workspace.publish(vec![row("a", "w1", b"5")]);
    workspace.unclaim("b", "w2");
    workspace.unclaim("b", "w1");
    workspace.unpublish("c");
    let expected = vec![row("a", "w1", b"5"), row("a", "w2", b"2")];
    assert_eq!(workspace.published(), expected);
    workspace.sync().unwrap();
    assert_eq!(place.open().published(), expected);
    drop(workspace);
    let workspace = place.open();
    assert_eq!(workspace.published(), expected);
    workspace.unpublish("a");
    drop(workspace);
    assert!(place.open().published().is_empty());
}

#[test]
fn a_state_of_a_newer_version_is_refused() {
    let place = Place::new();
    let path = place.open().dir().join(DATABASE);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 9).unwrap();
    let error = Workspace::open(&place.store, &place.root).map(drop).unwrap_err();
    assert!(error.message.contains("version 9"), "{}", error.message);
}
