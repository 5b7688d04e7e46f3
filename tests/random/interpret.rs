//! What a node makes of what it takes: the commands and stages of the tests once more, in memory. Unaware of caches.

use std::collections::BTreeMap;

use crate::content::{Content, Entry};
use crate::dag::Kind;

/// What came of it: its outputs in the declared order (`None`: left out), or a failure and what was left of it.
pub enum Made {
    Outputs(Vec<Option<Content>>),
    Failed(Vec<Option<Content>>),
}

/// `inputs`: for each input its files. `n`: the parameter.
pub fn run(kind: Kind, salt: u32, n: u32, inputs: &[Vec<Content>]) -> Made {
    let one = |index: usize| inputs[index][0].bytes();
    let text = |bytes: Vec<u8>| Made::Outputs(vec![Some(Content::text(bytes))]);
    match kind {
        Kind::Cat => text(inputs[0].iter().flat_map(|file| file.bytes().to_vec()).collect()),
        Kind::Head => text(one(0)[..one(0).len().min(n as usize)].to_vec()),
        Kind::Sort => {
            let mut lines = lines(one(0));
            lines.sort();
            lines.dedup();
            text(lines.into_iter().flat_map(|line| [line, b"\n"].concat()).collect())
        }
        Kind::Shift => text(
            one(0).iter().map(|byte| if (b'a'..=b'y').contains(byte) { byte + 1 } else { *byte }).collect(),
        ),
        Kind::Split => {
            let mut ends =
                one(0).iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
            let at = ends.nth(1).unwrap_or(one(0).len());
            let (head, tail) = one(0).split_at(at);
            Made::Outputs(vec![Some(Content::text(head)), Some(Content::text(tail))])
        }
        Kind::Fail if one(0).contains(&b'q') => {
            Made::Failed(vec![Some(Content::text(one(0))), Some(Content::text("found\n"))])
        }
        Kind::Fail => Made::Outputs(vec![Some(Content::text(one(0))), Some(Content::text("begun\n"))]),
        Kind::Maybe => {
            let count = Content::text(format!("{}\n", lines(one(0)).len()));
            Made::Outputs(vec![one(0).contains(&b'z').then(|| Content::text(one(0))), Some(count)])
        }
        Kind::Explode => {
            let mut tree = BTreeMap::from([("sub".to_owned(), Entry::Dir)]);
            let mut put = |name: String, bytes: Vec<u8>| {
                tree.insert(name, Entry::File { bytes, exec: false });
            };
            put("sub/all".to_owned(), one(0).to_vec());
            // the shell's `read` passes over a last line without an end
            let ended = one(0).iter().filter(|byte| **byte == b'\n').count();
            for (index, line) in lines(one(0)).into_iter().take(ended.min(5)).enumerate() {
                put(format!("f{}", index + 1), [line, b"\n"].concat());
            }
            Made::Outputs(vec![Some(Content::Tree(tree))])
        }
        Kind::Walk => {
            let Content::Tree(entries) = &inputs[0][0] else { panic!("a walk through a file") };
            let mut out = Vec::new();
            for (path, entry) in entries {
                if let Entry::File { bytes, .. } = entry {
                    out.extend([path.as_bytes(), b"\n", bytes].concat());
                }
            }
            text(out)
        }
        Kind::Table => {
            let mut out = b"k,v\n".to_vec();
            let plain: Vec<u8> = one(0)
                .iter()
                .map(|byte| {
                    if byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'\n' {
                        *byte
                    } else {
                        b'x'
                    }
                })
                .collect();
            let unended = !plain.is_empty() && plain.last() != Some(&b'\n');
            for line in lines(&plain).into_iter().filter(|line| !line.is_empty()) {
                out.extend([&line[..1], b",", &line[1..], b"\n"].concat());
            }
            if unended {
                out.pop();
            }
            text(out)
        }
        Kind::Join { strict } => join(one(0), one(1), strict),
        Kind::Page => {
            let page = String::from_utf8_lossy(one(1)).into_owned();
            let filled = page
                .replace("{{ vars.n }}", &n.to_string())
                .replace("{{ vars.salt }}", &salt.to_string())
                .replace("{{ a }}", &String::from_utf8_lossy(one(0)));
            text(format!("{}\n", filled.trim_end_matches('\n')).into_bytes())
        }
    }
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines
}

/// The first row of every key of both tables side by side.
fn join(left: &[u8], right: &[u8], strict: bool) -> Made {
    let table = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut rows: Vec<(String, String)> = Vec::new();
        for line in text.lines().skip(1) {
            let (key, value) = line.split_once(',').expect("a table");
            if !rows.iter().any(|(other, _)| other == key) {
                rows.push((key.to_owned(), value.to_owned()));
            }
        }
        rows
    };
    let (left, right) = (table(left), table(right));
    let value = |rows: &[(String, String)], key: &str| {
        rows.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone())
    };
    let mut out = "k,left_v,right_v\n".to_owned();
    let mut one_sided = false;
    for (key, of_left) in &left {
        let of_right = value(&right, key);
        one_sided |= of_right.is_none();
        out += &format!("{key},{of_left},{}\n", of_right.unwrap_or_default());
    }
    for (key, of_right) in right.iter().filter(|(key, _)| value(&left, key).is_none()) {
        one_sided = true;
        out += &format!("{key},,{of_right}\n");
    }
    if strict && one_sided {
        return Made::Failed(vec![None]);
    }
    Made::Outputs(vec![Some(Content::text(out))])
}
