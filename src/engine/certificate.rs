//! The certificate of a run that found nothing to do: every file that decided this, with its stat and digest. While all of them are
//! as they were, the next run of the same command line has nothing to do either, and needs neither the workflow nor the index.
//!
//! It is only written when every selected node was fresh and pure, and when no file was so young that it could still change within a
//! tick. It is void with another program, other arguments, another boot, another value of a referenced variable, a changed
//! directory that a pattern listed, or a path that appeared or vanished. A file whose stat changed is hashed; the same content
//! renews the certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::base::clock;
use crate::base::digest::Digest;
use crate::base::files::{self, Stat};
use crate::model::Artifact;

/// Changes with the layout.
const MAGIC: &[u8; 16] = b"flow certificat1";
/// A file system's tick; what is younger than this may still change with equal time stamps.
const TICK_NS: i64 = 20_000_000;
/// Stat (6 numbers and the mode) and digest.
const FIXED: usize = 5 * 8 + 4 + 32;

/// What expansion asked of the world besides the contents of inputs and outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Directories listed: their stat, `None` if there was none.
    pub(super) dirs: BTreeMap<String, Option<Stat>>,
    /// Whether a regular file was there.
    pub(super) files: BTreeMap<String, bool>,
    /// Whether a directory was there.
    pub(super) is_dir: BTreeMap<String, bool>,
    /// Variables of the environment, as digests: a value may be secret.
    pub(super) env: BTreeMap<String, Option<Digest>>,
}

/// What a certificate says besides the files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Certified {
    /// Workflow name.
    pub workflow: String,
    /// Workflow file.
    pub file: String,
    /// Number of selected nodes, all fresh.
    pub nodes: usize,
    /// Digest of the expanded graph.
    pub plan_digest: Digest,
    /// Orphans then.
    pub orphans: Vec<String>,
    pub(super) boot: String,
    pub(super) asked: Asked,
    /// Paths that must not be there (absent outputs).
    pub(super) absent: BTreeSet<String>,
}

/// A file as it was.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    pub(super) path: PathBuf,
    pub(super) stat: Stat,
    pub(super) digest: Digest,
}

/// Where certificates of a workspace lie, one per command line.
pub fn path(cache: &Path, root: &Path, arguments: &[&str]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let program = std::env::current_exe().ok()?;
    let stat = Stat::following(&program).ok()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    for number in [stat.mtime_ns as u64, stat.size, stat.inode, stat.device] {
        hasher.update(&number.to_le_bytes());
    }
    for argument in arguments {
        hasher.update(&(argument.len() as u64).to_le_bytes());
        hasher.update(argument.as_bytes());
    }
    let workspace = Digest::of(root.as_os_str().as_bytes()).hex();
    let name = format!("fresh-{}", Digest::from(hasher).short());
    Some(cache.join("workspaces").join(workspace).join(name))
}

/// The certificate at `path`, if everything it names still is as it says. Nothing else is read or written, but that a certificate is
/// renewed when files were only touched. The current directory is the workspace root.
pub fn valid(path: &Path) -> Option<Certified> {
    let bytes = fs::read(path).ok()?;
    let (certified, entries) = decode(&bytes)?;
    if certified.boot != clock::boot_id() || !still(&certified) {
        return None;
    }
    // statx of each in parallel; those that differ are hashed
    let checked: Option<Vec<Vec<(usize, Stat)>>> = entries
        .par_chunks(512)
        .enumerate()
        .map(|(chunk, entries)| {
            let mut renewed = Vec::new();
            for (n, entry) in entries.iter().enumerate() {
                let now = Stat::following(Path::new(entry.path)).ok()?;
                if now == entry.stat {
                    continue;
                }
                let kind = |stat: &Stat| (stat.is_dir(), stat.executable(), stat.size);
                if now.is_dir()
                    || kind(&now) != kind(&entry.stat)
                    || hash(Path::new(entry.path))? != entry.digest
                {
                    return None;
                }
                renewed.push((chunk * 512 + n, now));
            }
            Some(renewed)
        })
        .collect();
    let renewed: Vec<(usize, Stat)> = checked?.into_iter().flatten().collect();
    if !renewed.is_empty() {
        renew(path, &bytes, &entries, &renewed);
    }
    Some(certified)
}

/// Digest of a file, read (a map of a file that is cut short meanwhile would end the process).
fn hash(path: &Path) -> Option<Digest> {
    let mut file = fs::File::open(path).ok()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hasher.into()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// Everything but the contents.
fn still(certified: &Certified) -> bool {
    let asked = &certified.asked;
    let stat = |path: &str| Stat::following(Path::new(if path.is_empty() { "." } else { path })).ok();
    asked.dirs.iter().all(|(dir, then)| stat(dir) == *then)
        && asked.files.iter().all(|(path, there)| Path::new(path).is_file() == *there)
        && asked.is_dir.iter().all(|(path, there)| Path::new(path).is_dir() == *there)
        && asked.env.iter().all(|(name, value)| environment(name) == *value)
        && certified.absent.iter().all(|path| fs::symlink_metadata(path).is_err())
        && certified.orphans.iter().all(|path| fs::symlink_metadata(path).is_ok())
}

/// A variable's value as a digest.
pub(super) fn environment(name: &str) -> Option<Digest> {
    use std::os::unix::ffi::OsStrExt;
    std::env::var_os(name).map(|value| Digest::of(value.as_bytes()))
}

/// Whether a file may still change without its time stamps telling.
pub(super) fn young(stat: &Stat, now_ns: i64) -> bool {
    stat.newest_ns() >= now_ns - TICK_NS
}

/// Writes a certificate. `witnesses`: every file looked at, none of them young.
pub(super) fn write(path: &Path, certified: &Certified, witnesses: &[Witness]) -> std::io::Result<()> {
    let head = serde_json::to_vec(certified)?;
    let mut out = Vec::with_capacity(head.len() + witnesses.len() * (FIXED + 40) + 64);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(head.len() as u64).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&(witnesses.len() as u64).to_le_bytes());
    for witness in witnesses {
        let Some(name) = witness.path.to_str() else { return Ok(()) };
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        put_stat(&mut out, &witness.stat);
        out.extend_from_slice(&witness.digest.0);
    }
    seal(path, out)
}

fn seal(path: &Path, mut out: Vec<u8>) -> std::io::Result<()> {
    let seal = blake3::hash(&out);
    out.extend_from_slice(seal.as_bytes());
    files::write_atomic(path, &out)
}

fn put_stat(out: &mut Vec<u8>, stat: &Stat) {
    for number in [stat.mtime_ns as u64, stat.ctime_ns as u64, stat.size, stat.inode, stat.device] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&stat.mode.to_le_bytes());
}

/// One file of a certificate, borrowed from its bytes.
struct Entry<'b> {
    path: &'b str,
    stat: Stat,
    digest: Digest,
    /// Where its stat begins.
    at: usize,
}

fn decode(bytes: &[u8]) -> Option<(Certified, Vec<Entry<'_>>)> {
    let (body, seal) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if blake3::hash(body).as_bytes() != seal || !body.starts_with(MAGIC) {
        return None;
    }
    let mut at = MAGIC.len();
    let head = u64_at(body, at)? as usize;
    at += 8;
    let certified = serde_json::from_slice(body.get(at..at + head)?).ok()?;
    at += head;
    let count = u64_at(body, at)? as usize;
    at += 8;
    let mut entries = Vec::with_capacity(count.min(body.len() / FIXED));
    for _ in 0..count {
        let len = u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?) as usize;
        at += 4;
        let path = std::str::from_utf8(body.get(at..at + len)?).ok()?;
        at += len;
        let fixed = body.get(at..at + FIXED)?;
        let stat = Stat {
            mtime_ns: u64_at(fixed, 0)? as i64,
            ctime_ns: u64_at(fixed, 8)? as i64,
            size: u64_at(fixed, 16)?,
            inode: u64_at(fixed, 24)?,
            device: u64_at(fixed, 32)?,
            mode: u32::from_le_bytes(fixed[40..44].try_into().ok()?),
        };
        entries.push(Entry { path, stat, digest: Digest::from_bytes(&fixed[44..])?, at });
        at += FIXED;
    }
    (at == body.len()).then_some((certified, entries))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Files were touched, their content is the same: the new stats go in, unless they are young.
fn renew(path: &Path, bytes: &[u8], entries: &[Entry<'_>], renewed: &[(usize, Stat)]) {
    let now = clock::now_ns();
    let mut out = bytes[..bytes.len() - 32].to_vec();
    for (index, stat) in renewed {
        if young(stat, now) {
            continue;
        }
        let mut fixed = Vec::with_capacity(FIXED);
        put_stat(&mut fixed, stat);
        out[entries[*index].at..entries[*index].at + fixed.len()].copy_from_slice(&fixed);
    }
    // a certificate that cannot be renewed is checked the long way next time
    let _ = seal(path, out);
}

/// A file's witness; `None` for what a certificate cannot hold (a directory).
pub(super) fn witness(path: &Path, stat: &Stat, artifact: &Artifact, root: &Path) -> Option<Witness> {
    match artifact {
        Artifact::File { digest, .. } => {
            let path = path.strip_prefix(root).unwrap_or(path).to_owned();
            Some(Witness { path, stat: *stat, digest: *digest })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certified() -> Certified {
        Certified {
            workflow: "w".to_owned(),
            file: "w.json".to_owned(),
            nodes: 2,
            plan_digest: Digest::of(b"plan"),
            orphans: Vec::new(),
            boot: clock::boot_id(),
            asked: Asked::default(),
            absent: BTreeSet::new(),
        }
    }

    fn set_mtime(path: &Path, seconds: u64) {
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn it_holds_until_content_changes_and_survives_a_touch() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("input");
        fs::write(&file, "content").unwrap();
        let witness = |stat| Witness { path: file.clone(), stat, digest: Digest::of(b"content") };
        let place = dir.path().join("fresh");
        write(&place, &certified(), &[witness(Stat::following(&file).unwrap())]).unwrap();
        assert_eq!(valid(&place).unwrap().nodes, 2);
        set_mtime(&file, 1_000_000);
        assert!(valid(&place).is_some(), "touched");
        fs::write(&file, "CONTENT").unwrap();
        set_mtime(&file, 1_000_000);
        assert!(valid(&place).is_none(), "same size, mtime put back");
        fs::write(&file, "content").unwrap();
        assert!(valid(&place).is_some());
        fs::remove_file(&file).unwrap();
        assert!(valid(&place).is_none());
    }

    #[test]
    fn what_was_asked_must_still_be_so() {
        let dir = tempfile::tempdir().unwrap();
        let listed = dir.path().join("listed");
        fs::create_dir(&listed).unwrap();
        let name = |path: &Path| path.to_str().unwrap().to_owned();
        let mut all = certified();
        all.asked.dirs.insert(name(&listed), Stat::following(&listed).ok());
        all.asked.files.insert(name(&dir.path().join("no")), false);
        all.absent.insert(name(&dir.path().join("absent")));
        let place = dir.path().join("fresh");
        write(&place, &all, &[]).unwrap();
        assert!(valid(&place).is_some());
        for appears in ["no", "absent", "listed/new"] {
            fs::write(dir.path().join(appears), "").unwrap();
            assert!(valid(&place).is_none(), "{appears}");
            fs::remove_file(dir.path().join(appears)).unwrap();
        }
        all.boot = "another".to_owned();
        write(&place, &all, &[]).unwrap();
        assert!(valid(&place).is_none(), "another boot");
    }

    #[test]
    fn a_damaged_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("fresh");
        write(&place, &certified(), &[]).unwrap();
        let bytes = fs::read(&place).unwrap();
        for cut in [0, 10, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&place, &bytes[..cut]).unwrap();
            assert!(valid(&place).is_none());
        }
        let mut flipped = bytes;
        flipped[40] ^= 1;
        fs::write(&place, flipped).unwrap();
        assert!(valid(&place).is_none());
    }
}
