//! The rules as a Landlock ruleset: what the kernel refuses whatever the program does. Unaware of what is reported.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr,
};

use super::rules::{Right, Rules};
use crate::{Error, Result};

/// Below this moves between directories are refused without a rule that could allow them (Linux 5.19).
const NEEDED: ABI = ABI::V2;
/// Adds the cutting of files by path (Linux 6.2), used where it is known.
const WANTED: ABI = ABI::V3;

/// Whether this kernel can confine at all.
///
/// # Errors
/// Kind environment, with the kernel version that is needed.
pub fn supported() -> Result<()> {
    ruleset().map(drop)
}

fn ruleset() -> Result<RulesetCreated> {
    let made = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))
        .map(|ruleset| ruleset.set_compatibility(CompatLevel::BestEffort))
        .and_then(|ruleset| ruleset.handle_access(AccessFs::from_all(WANTED)))
        .and_then(Ruleset::create);
    made.map_err(|_| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = release.trim();
        Error::environment(format!(
            "--strict needs Landlock, as in Linux 5.19 or newer; this kernel ({release}) does not offer it"
        ))
        .hint("Landlock may be left out of the 'lsm=' boot parameter, or forbidden by the seccomp filter of a container")
        .hint("without --strict commands run unconfined")
    })
}

/// The ruleset of one attempt.
pub(super) fn build(rules: &Rules) -> Result<RulesetCreated> {
    let mut ruleset = ruleset()?.set_compatibility(CompatLevel::BestEffort);
    // which names may be seen is judged by the trace: the kernel knows no rule for a directory without what is in it
    ruleset = add(ruleset, rules.root(), AccessFs::ReadDir.into())?;
    for dir in rules.beside() {
        ruleset = add(ruleset, dir, AccessFs::from_all(WANTED))?;
    }
    let holes: Vec<&Path> =
        rules.places().filter(|(_, right)| *right == Right::Nothing).map(|(path, _)| path).collect();
    let workspace = rules.discovers().then(|| (rules.root(), Right::Read));
    for (path, right) in rules.places().chain(workspace) {
        match right {
            Right::Nothing => {}
            Right::Write => ruleset = add(ruleset, path, AccessFs::from_all(WANTED))?,
            Right::Read => {
                let mut open = Vec::new();
                around(path, &holes, &mut open);
                for part in open {
                    ruleset = add(ruleset, &part, AccessFs::from_read(WANTED))?;
                }
            }
        }
    }
    Ok(ruleset)
}

/// The parts of a tree that leave out the holes in it. Links are left out: what they lead to has rules of its own.
fn around(tree: &Path, holes: &[&Path], out: &mut Vec<PathBuf>) {
    if !holes.iter().any(|hole| hole.starts_with(tree) && *hole != tree) {
        return out.push(tree.to_owned());
    }
    for entry in std::fs::read_dir(tree).into_iter().flatten().flatten() {
        let path = entry.path();
        let link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if !link && !holes.contains(&path.as_path()) {
            around(&path, holes, out);
        }
    }
}

/// Adds a rule; a place that does not exist needs none.
fn add(ruleset: RulesetCreated, path: &Path, rights: BitFlags<AccessFs>) -> Result<RulesetCreated> {
    let Ok(meta) = path.metadata() else { return Ok(ruleset) };
    let Ok(place) = PathFd::new(path) else { return Ok(ruleset) };
    let rights = if meta.is_dir() { rights } else { rights & AccessFs::from_file(WANTED) };
    ruleset
        .add_rule(PathBeneath::new(place, rights))
        .map_err(|e| Error::environment(format!("failed to add a Landlock rule for {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_with_a_hole_is_opened_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        for made in ["a/x", "a/hole/in", "b"] {
            std::fs::create_dir_all(top.join(made)).unwrap();
        }
        std::os::unix::fs::symlink("a", top.join("link")).unwrap();
        let hole = top.join("a/hole");
        let mut open = Vec::new();
        around(top, &[&hole], &mut open);
        open.sort();
        assert_eq!(open, [top.join("a/x"), top.join("b")]);
        let mut whole = Vec::new();
        around(top, &[top], &mut whole);
        assert_eq!(whole, [top]);
    }
}
