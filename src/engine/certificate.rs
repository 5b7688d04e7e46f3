//! The certificate of a run after which nothing was left to do: every file that decided this, with its stat and digest. While all of
//! them are as they were, the next run of the same command line has nothing to do, and needs neither the workflow nor the index.
//!
//! It is only written when every selected node is pure and its outputs are in place. It is void with another program, other arguments,
//! another boot, another value of a referenced variable, a changed directory that a pattern listed, or a path that appeared or
//! vanished. A file whose stat changed is hashed; the same content renews the certificate, another one leaves it to the compiled plan
//! that goes with it to say which nodes this concerns. Unaware of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::base::clock;
use crate::base::digest::Digest;
use crate::base::files::{self, Stat};
use crate::model::Artifact;
use crate::store::Content;

/// Changes with the layout.
const MAGIC: &[u8; 16] = b"flow certificat3";
/// A file system's tick; what is younger than this may still change with equal time stamps.
const TICK_NS: i64 = 20_000_000;
/// So many entries are changed in place; for more, the file is written anew.
const FEW: usize = 256;
/// So many files or directories are looked at by one thread at a time.
const CHUNK: usize = 512;
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
    /// Seal of the compiled plan that goes with it.
    pub(super) plan: Option<Digest>,
    /// Seal of what the listed directories held.
    pub(super) listed: Option<Digest>,
    /// Paths that must not be there (absent outputs).
    pub(super) absent: BTreeSet<String>,
}

/// A file as it was.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    path: String,
    stat: Stat,
    digest: Digest,
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

/// The file with another beginning of its name that goes with the certificate at `certificate`.
pub(super) fn beside(certificate: &Path, begin: &str) -> PathBuf {
    let name = certificate.file_name().unwrap_or_default().to_string_lossy();
    certificate.with_file_name(name.replacen("fresh-", begin, 1))
}

/// What the certificate of a command line says now.
pub enum Check {
    /// Nothing to do.
    Holds(Box<Certified>),
    /// These files have other contents or are gone; everything else is as it was.
    Changed(Box<Changed>),
    /// The same, but listed directories are not as they were either.
    Listed(Box<Changed>),
    /// Nothing: everything has to be looked at.
    Void,
}

/// A certificate, and how the files differ from it.
pub struct Changed {
    pub(super) place: PathBuf,
    pub(super) certificate: Certificate,
    /// Entry and what is there now; `None` if nothing is.
    pub(super) changed: Vec<(usize, Option<Content>)>,
    /// Entries of files that were only touched, with their stat.
    pub(super) touched: Vec<(usize, Stat)>,
    /// Listed directories that are not as they were.
    pub(super) dirs: Vec<String>,
    /// When the check began, ns since 1970.
    pub(super) began_ns: i64,
}

/// Checks the certificate at `path`. Nothing else is read or written, but that a certificate is renewed when files were only touched.
/// The current directory is the workspace root.
pub fn check(path: &Path) -> Check {
    let began_ns = clock::now_ns();
    let Some(mut certificate) = fs::read(path).ok().and_then(Certificate::decode) else { return Check::Void };
    if certificate.certified.boot != clock::boot_id() || !still(&certificate.certified) {
        return Check::Void;
    }
    let may_change = certificate.certified.plan.is_some();
    let dirs = changed_dirs(&certificate.certified.asked);
    let may_grow = may_change && certificate.certified.listed.is_some();
    if !(dirs.is_empty() || may_grow) {
        return Check::Void;
    }
    // statx of each in parallel; those that differ are hashed
    let chunks = certificate.entries.len().div_ceil(CHUNK);
    let found: Option<Vec<Vec<(usize, Found)>>> = (0..chunks)
        .into_par_iter()
        .map(|chunk| {
            let mut found = Vec::new();
            for n in chunk * CHUNK..((chunk + 1) * CHUNK).min(certificate.entries.len()) {
                match certificate.look(n)? {
                    Found::Same => {}
                    Found::Changed(_) if !may_change => return None,
                    other => found.push((n, other)),
                }
            }
            Some(found)
        })
        .collect();
    let Some(found) = found else { return Check::Void };
    let (mut changed, mut touched) = (Vec::new(), Vec::new());
    for (n, found) in found.into_iter().flatten() {
        match found {
            Found::Same => {}
            Found::Touched(stat) => touched.push((n, stat)),
            Found::Changed(content) => changed.push((n, content)),
        }
    }
    if changed.is_empty() && dirs.is_empty() {
        if !touched.is_empty() {
            certificate.renew(path, &touched, &[], began_ns);
        }
        return Check::Holds(Box::new(certificate.certified));
    }
    let listed = !dirs.is_empty();
    let found = Box::new(Changed { place: path.to_owned(), certificate, changed, touched, dirs, began_ns });
    if listed { Check::Listed(found) } else { Check::Changed(found) }
}

/// What is now in the place of an entry's file.
pub(super) struct Update {
    pub(super) entry: usize,
    pub(super) artifact: Artifact,
    /// `None` if it may still change without its time stamps telling.
    pub(super) stat: Option<Stat>,
}

/// How a file differs from its entry.
enum Found {
    Same,
    Touched(Stat),
    Changed(Option<Content>),
}

/// The listed directories that are not as they were.
fn changed_dirs(asked: &Asked) -> Vec<String> {
    let stat = |path: &str| Stat::following(Path::new(if path.is_empty() { "." } else { path })).ok();
    let dirs: Vec<(&String, &Option<Stat>)> = asked.dirs.iter().collect();
    let changed =
        dirs.par_chunks(CHUNK).flat_map_iter(|dirs| dirs.iter().filter(|(dir, then)| stat(dir) != **then));
    changed.map(|(dir, _)| (*dir).clone()).collect()
}

/// Everything but the contents and the directories.
fn still(certified: &Certified) -> bool {
    let asked = &certified.asked;
    asked.files.iter().all(|(path, there)| Path::new(path).is_file() == *there)
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

/// The stat of a file that was looked at too soon after it was written: its next look hashes it.
fn unsettled(size: u64, exec: bool) -> Stat {
    let mode = if exec { 0o100_755 } else { 0o100_644 };
    Stat { mtime_ns: i64::MIN, ctime_ns: i64::MIN, size, inode: 0, device: 0, mode }
}

/// Writes a certificate. `witnesses`: every file that decided the run, in the order of the compiled plan's entries.
pub(super) fn write(path: &Path, certified: &Certified, witnesses: &[Witness]) -> std::io::Result<()> {
    write_after(path, certified, &[], 0, witnesses)
}

/// The same, with `count` entries as text before those of the witnesses.
fn write_after(
    path: &Path,
    certified: &Certified,
    entries: &[u8],
    count: usize,
    witnesses: &[Witness],
) -> std::io::Result<()> {
    let head = serde_json::to_vec(certified)?;
    let mut out = Vec::with_capacity(head.len() + entries.len() + witnesses.len() * (FIXED + 40) + 64);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(head.len() as u64).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&((count + witnesses.len()) as u64).to_le_bytes());
    out.extend_from_slice(entries);
    for witness in witnesses {
        out.extend_from_slice(&(witness.path.len() as u32).to_le_bytes());
        out.extend_from_slice(witness.path.as_bytes());
        put_stat(&mut out, &witness.stat);
        out.extend_from_slice(&witness.digest.0);
    }
    let seal = Digest::of_many(&out);
    out.extend_from_slice(&seal.0);
    files::write_atomic(path, &out)
}

fn put_stat(out: &mut Vec<u8>, stat: &Stat) {
    for number in [stat.mtime_ns as u64, stat.ctime_ns as u64, stat.size, stat.inode, stat.device] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&stat.mode.to_le_bytes());
}

/// A certificate as read: its text, and where in it each file's entry lies.
pub(super) struct Certificate {
    pub(super) certified: Certified,
    bytes: Vec<u8>,
    /// Begin and end of each entry's path; stat and digest follow.
    entries: Vec<(usize, usize)>,
}

impl Certificate {
    fn decode(bytes: Vec<u8>) -> Option<Self> {
        let (body, seal) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if Digest::of_many(body).0 != seal || !body.starts_with(MAGIC) {
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
            std::str::from_utf8(body.get(at..at + len)?).ok()?;
            entries.push((at, at + len));
            at += len + FIXED;
        }
        if at != body.len() {
            return None;
        }
        Some(Self { certified, bytes, entries })
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Path of entry `n`, relative to the root or absolute.
    pub(super) fn path(&self, n: usize) -> &Path {
        use std::os::unix::ffi::OsStrExt;
        let (from, to) = self.entries[n];
        Path::new(std::ffi::OsStr::from_bytes(&self.bytes[from..to]))
    }

    fn stat(&self, n: usize) -> Stat {
        let at = self.entries[n].1;
        let number = |k: usize| u64_at(&self.bytes, at + 8 * k).unwrap_or_default();
        let mode = self.bytes[at + 40..at + 44].try_into().map_or(0, u32::from_le_bytes);
        Stat {
            mtime_ns: number(0) as i64,
            ctime_ns: number(1) as i64,
            size: number(2),
            inode: number(3),
            device: number(4),
            mode,
        }
    }

    fn digest(&self, n: usize) -> Option<Digest> {
        let at = self.entries[n].1 + 44;
        Digest::from_bytes(&self.bytes[at..at + 32])
    }

    /// What entry `n` says of its file.
    pub(super) fn content(&self, n: usize) -> Option<Content> {
        let stat = self.stat(n);
        let artifact = Artifact::File { digest: self.digest(n)?, size: stat.size, exec: stat.executable() };
        Some(Content { artifact, stat })
    }

    /// How the file of entry `n` differs from it; `None` if it cannot be said.
    fn look(&self, n: usize) -> Option<Found> {
        let path = self.path(n);
        let then = self.stat(n);
        let now = match Stat::following(path) {
            Ok(now) if now == then => return Some(Found::Same),
            // to read a pipe would be to wait for its writer
            Ok(now) if !now.is_file() => return None,
            Ok(now) => now,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Some(Found::Changed(None)),
            Err(_) => return None,
        };
        let digest = Digest::of_file(path).ok()?;
        // changed while it was hashed
        if Stat::following(path).ok()? != now {
            return None;
        }
        if self.digest(n) == Some(digest) && now.size == then.size && now.executable() == then.executable() {
            return Some(Found::Touched(now));
        }
        let artifact = Artifact::File { digest, size: now.size, exec: now.executable() };
        Some(Found::Changed(Some(Content { artifact, stat: now })))
    }

    /// Writes it to `place` with the stats of touched files, and with what is now in the place of changed ones. One that cannot be
    /// written is checked the long way next time.
    pub(super) fn renew(&mut self, place: &Path, touched: &[(usize, Stat)], changed: &[Update], then: i64) {
        self.update(touched, changed, then);
        let body = self.bytes.len() - 32;
        let seal = Digest::of_many(&self.bytes[..body]);
        self.bytes[body..].copy_from_slice(&seal.0);
        if touched.len() + changed.len() > FEW {
            let _ = files::write_atomic(place, &self.bytes);
            return;
        }
        let entries = touched.iter().map(|(n, _)| *n).chain(changed.iter().map(|update| update.entry));
        let ranges = entries.map(|n| self.fixed(n)).chain(std::iter::once(body..body + 32));
        // one that is cut short by a crash has another seal: it says nothing
        let file = fs::File::options().write(true).open(place);
        let _ = file.and_then(|file| {
            ranges
                .into_iter()
                .try_for_each(|range| file.write_all_at(&self.bytes[range.clone()], range.start as u64))
        });
    }

    /// Writes another one to `place`: it says `certified`, and has the entries of this one, changed as by [`renew`](Self::renew), before
    /// those of `added`.
    pub(super) fn extend(
        &mut self,
        place: &Path,
        certified: &Certified,
        (touched, changed, then): (&[(usize, Stat)], &[Update], i64),
        added: &[Witness],
    ) -> std::io::Result<()> {
        self.update(touched, changed, then);
        let end = self.bytes.len() - 32;
        let begin = self.entries.first().map_or(end, |(from, _)| from - 4);
        write_after(place, certified, &self.bytes[begin..end], self.entries.len(), added)
    }

    fn update(&mut self, touched: &[(usize, Stat)], changed: &[Update], then: i64) {
        for (n, stat) in touched {
            // else it is hashed once more
            if !young(stat, then) {
                self.put(*n, stat, None);
            }
        }
        for Update { entry, artifact, stat } in changed {
            let Artifact::File { digest, size, exec } = *artifact else { continue };
            let stat = stat.filter(|stat| !young(stat, then)).unwrap_or_else(|| unsettled(size, exec));
            self.put(*entry, &stat, Some(digest));
        }
    }

    fn put(&mut self, n: usize, stat: &Stat, digest: Option<Digest>) {
        let mut fixed = Vec::with_capacity(FIXED);
        put_stat(&mut fixed, stat);
        fixed.extend_from_slice(digest.as_ref().map_or(&[], |digest| &digest.0));
        let at = self.fixed(n).start;
        self.bytes[at..at + fixed.len()].copy_from_slice(&fixed);
    }

    /// Where stat and digest of entry `n` are.
    fn fixed(&self, n: usize) -> std::ops::Range<usize> {
        let at = self.entries[n].1;
        at..at + FIXED
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl Witness {
    /// Of a file with this content; `None` for what a certificate cannot hold (a directory). `then`: a moment
    /// before its bytes were hashed.
    pub(super) fn new(path: &str, stat: Option<&Stat>, artifact: &Artifact, then: i64) -> Option<Self> {
        let Artifact::File { digest, size, exec } = *artifact else { return None };
        let stat = match stat {
            Some(stat) if !young(stat, then) => *stat,
            _ => unsettled(size, exec),
        };
        Some(Self { path: path.to_owned(), stat, digest })
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
            plan: None,
            listed: None,
            absent: BTreeSet::new(),
        }
    }

    fn valid(place: &Path) -> Option<Certified> {
        match check(place) {
            Check::Holds(certified) => Some(*certified),
            Check::Changed(_) | Check::Listed(_) | Check::Void => None,
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
        let stat = Stat::following(&file).unwrap();
        let artifact = Artifact::File { digest: Digest::of(b"content"), size: 7, exec: false };
        let witness = Witness::new(file.to_str().unwrap(), Some(&stat), &artifact, i64::MAX).unwrap();
        let place = dir.path().join("fresh");
        write(&place, &certified(), &[witness]).unwrap();
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
        // with a plan and what the directories held it says which one changed
        all.asked.dirs.insert(name(&listed), Stat::following(&listed).ok());
        (all.plan, all.listed) = (Some(Digest::of(b"plan")), Some(Digest::of(b"listed")));
        write(&place, &all, &[]).unwrap();
        fs::write(dir.path().join("listed/new"), "").unwrap();
        let Check::Listed(changed) = check(&place) else { panic!("a directory changed") };
        assert_eq!((changed.dirs, changed.changed.len()), (vec![name(&listed)], 0));
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
