//! Two outputs of one node, byte by byte: where they differ first, and what that looks like. Unaware of nodes and of the store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use regex::Regex;

use crate::base::digest::Digest;
use crate::error::{Error, Result};

/// Files up to this size are also compared as sets of lines.
const SORTABLE: u64 = 64 << 20;
/// Characters of a differing line that are shown, around the difference.
pub(super) const SHOWN: usize = 80;

/// One thing in an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    File {
        digest: Digest,
        exec: bool,
    },
    Link(String),
    /// A directory with nothing in it.
    Empty,
}

/// What an output holds: by path inside it, which is empty for an output that is one file.
pub(super) type Listing = BTreeMap<String, Entry>;

/// Where two outputs differ first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Inside a directory; empty for an output that is one file.
    pub(super) file: String,
    /// In words: `content`, `only in the first run`.
    pub(super) what: &'static str,
    /// First differing byte, from 0.
    pub(super) offset: Option<u64>,
    /// Its line, from 1.
    pub(super) line: Option<u64>,
    pub(super) first: Option<Side>,
    pub(super) second: Option<Side>,
    /// How many files differ, this one included.
    pub(super) files: usize,
    /// What the difference looks like.
    pub(super) causes: Vec<&'static str>,
}

/// One side of a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) digest: Option<Digest>,
    /// The differing line, or what is near in it.
    pub(super) text: String,
}

/// Lists what is at `path`; nothing if there is nothing.
pub(super) fn list(path: &Path) -> Result<Listing> {
    let mut listing = Listing::new();
    // an output that is a link means what it leads to
    match fs::metadata(path) {
        Err(_) => {}
        Ok(meta) if meta.is_dir() => walk(path, "", &mut listing)?,
        Ok(meta) => {
            listing.insert(String::new(), file(path, &meta)?);
        }
    }
    Ok(listing)
}

fn walk(dir: &Path, prefix: &str, listing: &mut Listing) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("read", dir, e);
    let mut any = false;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        any = true;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        let meta = fs::symlink_metadata(&path).map_err(|e| Error::io("read", &path, e))?;
        if meta.is_dir() {
            walk(&path, &format!("{name}/"), listing)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).map_err(|e| Error::io("read", &path, e))?;
            listing.insert(name, Entry::Link(target.to_string_lossy().into_owned()));
        } else {
            listing.insert(name, file(&path, &meta)?);
        }
    }
    if !any && !prefix.is_empty() {
        listing.insert(prefix.trim_end_matches('/').to_owned(), Entry::Empty);
    }
    Ok(())
}

fn file(path: &Path, meta: &fs::Metadata) -> Result<Entry> {
    use std::os::unix::fs::PermissionsExt;
    let digest = Digest::of_file(path).map_err(|e| Error::io("read", path, e))?;
    Ok(Entry::File { digest, exec: meta.permissions().mode() & 0o111 != 0 })
}

/// The first difference between what lies at two paths, in order of names; `None` if there is none. `scratch`: a directory name that
/// is each run's own.
pub(super) fn compare(first: &Path, second: &Path, scratch: [&str; 2]) -> Result<Option<Difference>> {
    let (a, b) = (list(first)?, list(second)?);
    let mut names: Vec<&String> =
        a.keys().chain(b.keys()).filter(|name| a.get(*name) != b.get(*name)).collect();
    names.sort();
    names.dedup();
    let Some(name) = names.first().copied() else { return Ok(None) };
    let side = |entry: Option<&Entry>| -> Option<Side> {
        Some(match entry? {
            Entry::File { digest, .. } => Side { digest: Some(*digest), text: String::new() },
            Entry::Link(target) => Side { digest: None, text: format!("link to {target}") },
            Entry::Empty => Side { digest: None, text: "empty directory".to_owned() },
        })
    };
    let mut difference = Difference {
        file: name.clone(),
        first: side(a.get(name)),
        second: side(b.get(name)),
        files: names.len(),
        ..Difference::default()
    };
    difference.what = match (a.get(name), b.get(name)) {
        (Some(_), None) => "only the first run made it",
        (None, _) => "only the second run made it",
        (Some(Entry::File { digest: a, .. }), Some(Entry::File { digest: b, .. })) if a == b => {
            "executable in one run only"
        }
        (Some(Entry::File { .. }), Some(Entry::File { .. })) => {
            let at = |base: &Path| if name.is_empty() { base.to_owned() } else { base.join(name) };
            contents(&at(first), &at(second), scratch, &mut difference)?;
            "content"
        }
        (Some(Entry::Link(_)), Some(Entry::Link(_))) => "link to another target",
        _ => "of another kind",
    };
    Ok(Some(difference))
}

/// The difference between a recorded output and what both runs made alike.
pub(super) fn from_record(old: &Listing, new: &Listing) -> Option<Difference> {
    let differs = |name: &&String| old.get(*name) != new.get(*name);
    let mut names: Vec<&String> = old.keys().chain(new.keys()).filter(differs).collect();
    names.sort();
    names.dedup();
    let name = names.first().copied()?;
    let side = |listing: &Listing| match listing.get(name) {
        Some(Entry::File { digest, .. }) => Some(Side { digest: Some(*digest), text: String::new() }),
        _ => None,
    };
    Some(Difference {
        file: name.clone(),
        what: "both runs agree, and the recorded result is another",
        first: side(old),
        second: side(new),
        files: names.len(),
        causes: vec![
            "usual causes: something it reads and does not declare (flow run --strict --force names it), another version of a program, a date",
        ],
        ..Difference::default()
    })
}

/// Finds the first differing byte of two files, its line, and what the lines look like.
fn contents(first: &Path, second: &Path, scratch: [&str; 2], out: &mut Difference) -> Result<()> {
    let (offset, line, begin) = first_difference(first, second)?;
    out.offset = Some(offset);
    out.line = Some(line);
    let texts = [line_at(first, begin, offset)?, line_at(second, begin, offset)?];
    out.causes = causes(&texts, scratch, same_lines(first, second)?);
    let [a, b] = texts;
    for (side, text) in [(&mut out.first, a), (&mut out.second, b)] {
        if let Some(side) = side {
            side.text = text;
        }
    }
    Ok(())
}

/// The first byte in which two files differ, its line, and where that line begins.
fn first_difference(first: &Path, second: &Path) -> Result<(u64, u64, u64)> {
    let open = |path: &Path| File::open(path).map(BufReader::new).map_err(|e| Error::io("read", path, e));
    let (mut a, mut b) = (open(first)?, open(second)?);
    let (mut offset, mut line, mut begin) = (0u64, 1u64, 0u64);
    loop {
        let (x, y) = (
            a.fill_buf().map_err(|e| Error::io("read", first, e))?,
            b.fill_buf().map_err(|e| Error::io("read", second, e))?,
        );
        let length = x.len().min(y.len());
        let same = x.iter().zip(y).position(|(x, y)| x != y).unwrap_or(length);
        for (at, _) in x[..same].iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            line += 1;
            begin = offset + at as u64 + 1;
        }
        offset += same as u64;
        if same < length || length == 0 {
            return Ok((offset, line, begin));
        }
        a.consume(length);
        b.consume(length);
    }
}

/// The line that begins at `begin`, or what of it is near `offset`.
fn line_at(path: &Path, begin: u64, offset: u64) -> Result<String> {
    use std::io::{Seek, SeekFrom};
    let failed = |e: std::io::Error| Error::io("read", path, e);
    let from = begin.max(offset.saturating_sub(SHOWN as u64 / 2));
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut near = Vec::new();
    // more than is shown: a cause may lie a little further
    file.take(4 * SHOWN as u64).read_to_end(&mut near).map_err(failed)?;
    let end = near.iter().position(|byte| *byte == b'\n').unwrap_or(near.len());
    Ok(String::from_utf8_lossy(&near[..end]).into_owned())
}

/// Both files have the same lines, in another order.
fn same_lines(first: &Path, second: &Path) -> Result<bool> {
    let read = |path: &Path| fs::read(path).map_err(|e| Error::io("read", path, e));
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    if size(first) != size(second) || size(first) > SORTABLE {
        return Ok(false);
    }
    let (a, b) = (read(first)?, read(second)?);
    let sorted = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    let a = sorted(&a);
    Ok(a.len() > 2 && a == sorted(&b))
}

/// What two differing lines look like.
fn causes(lines: &[String; 2], scratch: [&str; 2], reordered: bool) -> Vec<&'static str> {
    // ASCII only: the tables of Unicode are not built in
    let both = |pattern: &str| {
        Regex::new(&format!("(?-u:{pattern})"))
            .is_ok_and(|regex| lines.iter().all(|line| regex.is_match(line)))
    };
    let mut causes = Vec::new();
    if lines.iter().zip(scratch).any(|(line, own)| line.contains(own)) {
        causes.push(
            "it holds the path of its scratch directory: write paths relative to the workspace, or none",
        );
    }
    if both(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|\b1[6-9]\d{8}(\d{3}|\d{6}|\d{9})?\b") {
        causes.push("it looks like a time stamp: leave it out, or take it from an input");
    }
    if reordered {
        causes.push("the lines are the same in another order: sort them (a hash table, a set, threads or a directory listing gave the order)");
    }
    if both(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b") {
        causes.push("it looks like a random id: derive it from the content");
    }
    if both(r"0x[0-9a-f]{6,}") {
        causes.push("it looks like an address in memory: print what is there instead");
    }
    if causes.is_empty() {
        causes.push("usual causes: a time stamp, a random number without a fixed seed, the order of a hash table, a set or threads, an absolute path");
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: [&str; 2]) -> (tempfile::TempDir, [std::path::PathBuf; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["1", "2"].map(|name| dir.path().join(name));
        for (path, text) in paths.iter().zip(texts) {
            fs::write(path, text).unwrap();
        }
        (dir, paths)
    }

    fn difference(texts: [&str; 2]) -> Option<Difference> {
        let (_dir, [a, b]) = files(texts);
        compare(&a, &b, ["tmp/r/0.1", "tmp/r/0.2"]).unwrap()
    }

    #[test]
    fn the_first_differing_byte_its_line_and_both_digests() {
        assert_eq!(difference(["a\nb\n", "a\nb\n"]), None);
        let found = difference(["a\nbcd\n", "a\nbxd\n"]).unwrap();
        assert_eq!((found.offset, found.line, found.what), (Some(3), Some(2), "content"));
        let (first, second) = (found.first.unwrap(), found.second.unwrap());
        assert_eq!((first.text.as_str(), second.text.as_str()), ("bcd", "bxd"));
        assert_eq!(first.digest, Some(Digest::of(b"a\nbcd\n")));
        assert!(found.causes[0].starts_with("usual causes"));
        // one is longer
        let longer = difference(["a\n", "a\nb\n"]).unwrap();
        assert_eq!((longer.offset, longer.line), (Some(2), Some(2)));
        assert_eq!((longer.first.unwrap().text, longer.second.unwrap().text), (String::new(), "b".into()));
    }

    #[test]
    fn causes_are_guessed_from_what_differs() {
        let cause = |a: &str, b: &str| difference([a, b]).unwrap().causes[0];
        assert!(cause("at 2026-11-22 10:00:01", "at 2026-11-22 10:00:02").contains("time stamp"));
        assert!(cause("t=1763805600", "t=1763805601").contains("time stamp"));
        assert!(cause("in /w/tmp/r/0.1/out", "in /w/tmp/r/0.2/out").contains("scratch"));
        assert!(cause("a\nb\nc\n", "c\na\nb\n").contains("another order"));
        assert!(cause("<X at 0x7f00aa11>", "<X at 0x7f00bb11>").contains("memory"));
        assert!(cause("0.123", "0.321").contains("usual"));
    }

    #[test]
    fn a_recorded_result_that_is_another_is_told_with_both_digests() {
        let of = |text: &str| Entry::File { digest: Digest::of(text.as_bytes()), exec: false };
        let listing = |text: &str| Listing::from([(String::new(), of(text))]);
        assert_eq!(from_record(&listing("a"), &listing("a")), None);
        let found = from_record(&listing("a"), &listing("b")).unwrap();
        assert_eq!(found.first.unwrap().digest, Some(Digest::of(b"a")));
        assert_eq!(found.second.unwrap().digest, Some(Digest::of(b"b")));
    }

    #[test]
    fn directories_are_compared_by_name_kind_and_content() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        for side in [&a, &b] {
            fs::create_dir_all(side.join("deep/empty")).unwrap();
            fs::write(side.join("deep/file"), "x").unwrap();
            std::os::unix::fs::symlink("deep", side.join("link")).unwrap();
        }
        let compared = || compare(&a, &b, ["", ""].map(|_| "none")).unwrap();
        assert_eq!(compared(), None);
        fs::write(b.join("deep/more"), "").unwrap();
        let found = compared().unwrap();
        assert_eq!(
            (found.file.as_str(), found.what, found.files),
            ("deep/more", "only the second run made it", 1)
        );
        fs::write(b.join("deep/file"), "y").unwrap();
        let found = compared().unwrap();
        assert_eq!((found.file.as_str(), found.what, found.files), ("deep/file", "content", 2));
        fs::write(b.join("deep/file"), "x").unwrap();
        fs::remove_file(b.join("deep/more")).unwrap();
        fs::remove_dir(b.join("deep/empty")).unwrap();
        assert_eq!(compared().unwrap().what, "only the first run made it");
    }
}
