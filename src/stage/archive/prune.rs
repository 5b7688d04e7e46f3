//! `archive.prune`: removes old versions from a directory. Unaware of what they hold and of who made them.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::METADATA;
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::base::files::{Stat, remove_any};
use crate::model::Policy;

/// What a version is renamed to before it is removed, so that a half one is never taken for a whole one.
const REMOVING: &str = ".removing-";

/// The stage.
pub struct Prune;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The directory of versions, absolute or relative to the workspace root. Plain text, never an input: what is removed from it
    /// must not make anything run again.
    directory: PathBuf,
    /// How many of the newest versions stay, at least 1.
    keep: NonZeroUsize,
    /// Versions that stay whatever their age.
    #[serde(default)]
    keep_ids: Vec<String>,
    /// Say what would be removed, remove nothing.
    #[serde(default)]
    dry_run: bool,
}

/// The output `report`.
#[derive(Debug, Serialize)]
struct Report {
    dry_run: bool,
    /// Versions removed (with `dry_run`: to be removed), newest first.
    removed: Vec<String>,
    /// Versions that stay, newest first.
    kept: Vec<Kept>,
    /// Entries of `keep_ids` that are not there.
    missing: Vec<String>,
    /// What is in the directory and is no version; never touched.
    ignored: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Kept {
    name: String,
    reason: Reason,
}

/// Why a version stays.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Newest,
    Current,
    KeepIds,
}

impl Stage for Prune {
    fn name(&self) -> &'static str {
        "archive.prune"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Removes old versions from a directory of versions.\n\
                \n\
                A version is a directory that holds a metadata.json; everything else in 'directory' is left alone and listed. The 'keep'\n\
                newest by modification time of the directory stay (of equally old ones the later name), so do those in 'keep_ids', those\n\
                that a step contributes now, and those in the input 'current'. What it removed counts as in place: nothing makes or\n\
                restores it again. Order it after the step that makes versions with 'needs'. The policy is never: it runs whenever it is\n\
                selected. Report: dry_run, removed, kept (name, reason: newest, current or keep_ids), missing (keep_ids that are not\n\
                there), ignored.",
        )
        .input_list("current", "versions that stay: their directories, or files in them")
        .optional_output("report", "JSON: what was removed and what stays")
        .policy(Policy::Never)
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        if params.directory.as_os_str().is_empty() {
            return Err(ParamFault {
                path: "directory".into(),
                message: "expected a directory of versions".into(),
            });
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let directory = params.directory.as_path();
        let mut found = Found::read(directory)?;
        // Newest first.
        found.versions.sort_by(|a, b| b.cmp(a));
        let current = current(ctx, directory)?;
        let mut report = Report {
            dry_run: params.dry_run,
            removed: Vec::new(),
            kept: Vec::new(),
            missing: Vec::new(),
            ignored: found.ignored,
        };
        let names: BTreeSet<&str> = found.versions.iter().map(|(_, name)| name.as_str()).collect();
        report.missing = params.keep_ids.iter().filter(|id| !names.contains(id.as_str())).cloned().collect();
        for (place, (_, name)) in found.versions.iter().enumerate() {
            let reason = if place < params.keep.get() {
                Some(Reason::Newest)
            } else if current.contains(name) {
                Some(Reason::Current)
            } else {
                params.keep_ids.contains(name).then_some(Reason::KeepIds)
            };
            match reason {
                Some(reason) => report.kept.push(Kept { name: name.clone(), reason }),
                None => report.removed.push(name.clone()),
            }
        }
        if !params.dry_run {
            for left in &found.half_removed {
                remove(left)?;
            }
            // Oldest first: a run that is ended early leaves the newer ones.
            for name in report.removed.iter().rev() {
                if ctx.cancel.is_cancelled() {
                    return Err(StageError::new("cancelled"));
                }
                let aside = directory.join(format!("{REMOVING}{name}"));
                let path = directory.join(name);
                fs::rename(&path, &aside).map_err(|e| StageError::io("remove", &path, e))?;
                ctx.removed_entries.push(path);
                remove(&aside)?;
                (ctx.log)(&format!("removed {name}"));
            }
        }
        ctx.log(format!(
            "{} {}, {} kept, {} entries are no versions",
            report.removed.len(),
            if params.dry_run { "would be removed" } else { "removed" },
            report.kept.len(),
            report.ignored.len()
        ));
        ctx.write_json("report", &report)?;
        Ok(Done::Made)
    }
}

fn remove(path: &Path) -> Result<(), StageError> {
    remove_any(path).map_err(|e| StageError::io("remove", path, e))
}

/// What the directory holds.
#[derive(Default)]
struct Found {
    /// Modification time in ns, name.
    versions: Vec<(i64, String)>,
    ignored: Vec<String>,
    /// What an earlier run had begun to remove.
    half_removed: Vec<PathBuf>,
}

impl Found {
    fn read(directory: &Path) -> Result<Self, StageError> {
        let failed = |e: std::io::Error| {
            StageError::io("list the versions in", directory, e)
                .hint("'directory' is relative to the workspace root")
        };
        let mut found = Self::default();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Links are not followed: what they lead to is not this directory's.
            let stat = Stat::of(&path).map_err(failed)?;
            if name.starts_with(REMOVING) {
                found.half_removed.push(path);
            } else if path.file_name().is_some_and(|n| n.to_str().is_some())
                && stat.is_dir()
                && path.join(METADATA).is_file()
            {
                found.versions.push((stat.mtime_ns, name));
            } else {
                found.ignored.push(name);
            }
        }
        found.ignored.sort_unstable();
        found.half_removed.sort_unstable();
        Ok(found)
    }
}

/// Names that may be those of current versions: what nodes contribute now, every component of the inputs' paths, and what input directories hold, but for
/// the pruned directory itself, which holds the old ones too.
fn current(ctx: &StageContext, directory: &Path) -> Result<BTreeSet<String>, StageError> {
    let pruned = fs::canonicalize(directory).ok();
    let inside = |entry: &&PathBuf| entry.parent().and_then(|dir| fs::canonicalize(dir).ok()) == pruned;
    let mut names: BTreeSet<String> = ctx
        .current_entries
        .iter()
        .filter(inside)
        .filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned()))
        .collect();
    for file in ctx.files("current") {
        let failed = |e: std::io::Error| StageError::io("read", Path::new(&file.name), e);
        names.extend(file.name.split('/').map(str::to_owned));
        let whole = fs::canonicalize(&file.path).map_err(failed)?;
        if whole.is_dir() && Some(&whole) != pruned.as_ref() {
            for entry in fs::read_dir(&whole).map_err(failed)? {
                names.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::Bench;
    use expect_test::expect;
    use serde_json::json;
    use std::time::{Duration, SystemTime};
    use tempfile::TempDir;

    /// Versions with their age in days, and two strangers.
    fn versions(ages: &[(&str, u64)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, days) in ages {
            let path = dir.path().join(name);
            fs::create_dir_all(path.join("raw")).unwrap();
            fs::write(path.join("metadata.json"), "{}").unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 - days * 86_400);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        fs::write(dir.path().join("README"), "not mine").unwrap();
        fs::create_dir(dir.path().join("notes")).unwrap();
        dir
    }

    fn names(dir: &TempDir) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    const AGES: [(&str, u64); 5] = [("a", 1), ("b", 5), ("c", 2), ("d", 2), ("e", 9)];

    #[test]
    fn the_newest_stay_and_strangers_are_left_alone() {
        let dir = versions(&AGES);
        fs::create_dir(dir.path().join(".removing-z")).unwrap();
        let with = json!({"directory": dir.path(), "keep": 2, "keep_ids": ["e", "zz"]});
        let done = Bench::new(&Prune, with).run(&["report"]).ok();
        assert_eq!(
            done.json("report"),
            json!({
                "dry_run": false, "removed": ["c", "b"],
                "kept": [{"name": "a", "reason": "newest"}, {"name": "d", "reason": "newest"}, {"name": "e", "reason": "keep_ids"}],
                "missing": ["zz"], "ignored": ["README", "notes"]
            })
        );
        assert_eq!(names(&dir), ["README", "a", "d", "e", "notes"]);
    }

    #[test]
    fn a_dry_run_removes_nothing() {
        let dir = versions(&AGES);
        let before = names(&dir);
        let with = json!({"directory": dir.path(), "keep": 1, "dry_run": true});
        let done = Bench::new(&Prune, with).run(&["report"]).ok();
        assert_eq!(done.json("report")["removed"], json!(["d", "c", "b", "e"]));
        assert_eq!(names(&dir), before);
    }

    #[test]
    fn a_current_version_stays_whatever_its_age() {
        let dir = versions(&AGES);
        let with = json!({"directory": dir.path(), "keep": 1});
        Bench::new(&Prune, with)
            .path("current", &dir.path().join("e"))
            .file("current", "versions/b/metadata.json", "{}")
            .path("current", dir.path())
            .run(&["report"])
            .ok();
        assert_eq!(names(&dir), ["README", "a", "b", "e", "notes"]);
    }

    #[test]
    fn what_a_node_contributes_now_stays_and_what_goes_is_told() {
        let dir = versions(&AGES);
        let mut bench = Bench::new(&Prune, json!({"directory": dir.path(), "keep": 1}));
        bench.current_entries = vec![dir.path().join("e"), dir.path().join("raw/b"), "elsewhere/c".into()];
        let done = bench.run(&["report"]).ok();
        assert_eq!(done.json("report")["removed"], json!(["d", "c", "b"]));
        assert_eq!(done.removed_entries, ["b", "c", "d"].map(|name| dir.path().join(name)));
        assert_eq!(names(&dir), ["README", "a", "e", "notes"]);
    }

    #[test]
    fn nothing_there_and_nothing_kept_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let with = json!({"directory": dir.path().join("no"), "keep": 1});
        let error = Bench::new(&Prune, with).run(&["report"]).result.unwrap_err();
        assert!(error.message.starts_with("failed to list the versions in "), "{}", error.message);
        let fault = Prune.check(&json!({"directory": "x", "keep": 0})).unwrap_err();
        expect!["keep: invalid value: integer `0`, expected a nonzero usize"]
            .assert_eq(&format!("{}: {}", fault.path, fault.message));
        assert_eq!(Prune.check(&json!({"directory": "", "keep": 1})).unwrap_err().path, "directory");
    }
}
