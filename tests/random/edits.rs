//! What happens between runs: edits of sources, outputs, the workflow and the cache. Unaware of what follows from them.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use fastrand::Rng;

use crate::content::{Disk, Entry};
use crate::dag::{Kind, Origin};
use crate::generate::{self, SOURCES, TEMPLATE, VALUES, chance, pick};
use crate::graph::{Graph, Item};
use crate::world::{World, ensure};

/// A kind of edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    Rewrite,
    SameSize,
    Touch,
    Append,
    Revert,
    Delete,
    Executable,
    NewFile,
    Rename,
    DeleteOutput,
    DamageOutput,
    ReplaceOutput,
    DeleteAllOutputs,
    Salt,
    Param,
    SetParam,
    NewStep,
    RemoveStep,
    MoveOutputs,
    Toggle,
    Axis,
    Trip,
    Collect,
    LoseCache,
    DamageBlob,
    CleanOrphans,
    Copy,
    Move,
}

/// Every kind, as often as it comes up.
pub const EDITS: [(Edit, u32); 28] = [
    (Edit::Rewrite, 10),
    (Edit::SameSize, 8),
    (Edit::Touch, 4),
    (Edit::Append, 6),
    (Edit::Revert, 6),
    (Edit::Delete, 2),
    (Edit::Executable, 2),
    (Edit::NewFile, 3),
    (Edit::Rename, 2),
    (Edit::DeleteOutput, 6),
    (Edit::DamageOutput, 8),
    (Edit::ReplaceOutput, 4),
    (Edit::DeleteAllOutputs, 2),
    (Edit::Salt, 6),
    (Edit::Param, 3),
    (Edit::SetParam, 3),
    (Edit::NewStep, 5),
    (Edit::RemoveStep, 4),
    (Edit::MoveOutputs, 3),
    (Edit::Toggle, 3),
    (Edit::Axis, 3),
    (Edit::Trip, 5),
    (Edit::Collect, 3),
    (Edit::LoseCache, 2),
    (Edit::DamageBlob, 4),
    (Edit::CleanOrphans, 2),
    (Edit::Copy, 2),
    (Edit::Move, 2),
];

impl World {
    /// Does one edit, and says what it did.
    pub fn edit(&mut self, edit: Edit, rng: &mut Rng) -> Result<(), String> {
        match edit {
            Edit::Rewrite
            | Edit::SameSize
            | Edit::Touch
            | Edit::Append
            | Edit::Revert
            | Edit::Delete
            | Edit::Executable => self.edit_source(edit, rng),
            Edit::NewFile => {
                let path = format!("src/g{}.txt", rng.u8(..9));
                self.write(&path, generate::source(rng, &path).as_bytes());
            }
            Edit::Rename => {
                let files = Disk::read(&self.root).matching("src", "g");
                let to = format!("src/g{}.txt", rng.u8(..9));
                if !files.is_empty() {
                    let from = pick(rng, &files);
                    fs::rename(self.root.join(from), self.root.join(&to)).unwrap();
                    self.tell(format!("mv {from} {to}"));
                }
            }
            Edit::DeleteOutput | Edit::DamageOutput | Edit::ReplaceOutput | Edit::DeleteAllOutputs => {
                self.edit_output(edit, rng);
            }
            Edit::Salt
            | Edit::Param
            | Edit::NewStep
            | Edit::RemoveStep
            | Edit::MoveOutputs
            | Edit::Toggle
            | Edit::Axis => {
                self.edit_workflow(edit, rng);
                self.save_workflow();
            }
            Edit::SetParam => {
                self.set_n = chance(rng, 70).then(|| rng.u32(1..20));
                self.tell(format!("--set n={:?} from now on", self.set_n));
            }
            Edit::Trip => {
                let steps: Vec<String> =
                    self.workflow.steps.iter().filter(|step| step.trip).map(|step| step.id.clone()).collect();
                if !steps.is_empty() {
                    let step: &String = pick(rng, &steps);
                    self.trip(step);
                }
            }
            Edit::Collect | Edit::LoseCache | Edit::DamageBlob | Edit::CleanOrphans => {
                return self.edit_cache(edit, rng);
            }
            Edit::Copy | Edit::Move => self.relocate(edit == Edit::Copy, rng),
        }
        Ok(())
    }

    fn write(&mut self, path: &str, bytes: &[u8]) {
        let place = self.root.join(path);
        if let Ok(old) = fs::read(&place) {
            self.past.entry(path.to_owned()).or_default().push(old);
        }
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, bytes).unwrap();
        self.tell(format!("write {} bytes to {path}: {:?}", bytes.len(), text_of(bytes)));
    }

    fn edit_source(&mut self, edit: Edit, rng: &mut Rng) {
        let disk = Disk::read(&self.root);
        let mut paths: Vec<String> = disk
            .0
            .iter()
            .filter(|(path, entry)| path.starts_with("src/") && matches!(entry, Entry::File { .. }))
            .map(|(path, _)| path.clone())
            .collect();
        // deleted ones come back by being written
        paths.extend(SOURCES.iter().map(|path| (*path).to_owned()).filter(|path| !disk.0.contains_key(path)));
        // mostly one that decides something
        let used = self.used_sources(&disk);
        if chance(rng, 75) && paths.iter().any(|path| used.contains(path)) {
            paths.retain(|path| used.contains(path));
        }
        let path = pick(rng, &paths).clone();
        let place = self.root.join(&path);
        let Ok(old) = fs::read(&place) else {
            let text = generate::source(rng, &path);
            return self.write(&path, text.as_bytes());
        };
        let meta = fs::metadata(&place).unwrap();
        match edit {
            Edit::SameSize => {
                let mut bytes = old;
                let letters: Vec<usize> =
                    (0..bytes.len()).filter(|at| bytes[*at].is_ascii_lowercase()).collect();
                if path == TEMPLATE || letters.is_empty() {
                    return;
                }
                bytes[*pick(rng, &letters)] = b'a' + rng.u8(..14);
                self.write(&path, &bytes);
                set_modified(&place, meta.modified().unwrap());
                self.tell(format!("  and its time put back: {path}"));
            }
            Edit::Touch => {
                set_modified(&place, SystemTime::now());
                self.tell(format!("touch {path}"));
            }
            Edit::Append if path != TEMPLATE => {
                let bytes = [old, generate::text(rng).into_bytes()].concat();
                self.write(&path, &bytes);
            }
            Edit::Revert => {
                let past = self.past.get(&path).cloned().unwrap_or_default();
                if !past.is_empty() {
                    let bytes = pick(rng, &past).clone();
                    self.write(&path, &bytes);
                }
            }
            Edit::Delete => {
                self.past.entry(path.clone()).or_default().push(old);
                fs::remove_file(&place).unwrap();
                self.tell(format!("rm {path}"));
            }
            Edit::Executable => {
                let mode = meta.permissions().mode() ^ 0o111;
                fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
                self.tell(format!("chmod {mode:o} {path}"));
            }
            _ => {
                let text = generate::source(rng, &path);
                self.write(&path, text.as_bytes());
            }
        }
    }

    /// Sources that some node takes.
    fn used_sources(&self, disk: &Disk) -> Vec<String> {
        let graph = Graph::expand(&self.workflow, self.n(), disk, &self.published);
        let items = graph.nodes.iter().flat_map(|node| &node.inputs).flat_map(|(_, _, items)| items);
        let paths = items.filter_map(|item| match item {
            Item::Source(path) => Some(path.clone()),
            _ => None,
        });
        let used: Vec<String> = paths.collect();
        let is_used =
            |path: &&String| used.iter().any(|one| *path == one || path.starts_with(&format!("{one}/")));
        disk.0.keys().filter(is_used).cloned().collect()
    }

    fn edit_output(&mut self, edit: Edit, rng: &mut Rng) {
        if edit == Edit::DeleteAllOutputs {
            let _ = fs::remove_dir_all(self.root.join("out"));
            return self.tell("rm -r out");
        }
        let disk = Disk::read(&self.root);
        let outputs: Vec<&String> = disk.0.keys().filter(|path| path.starts_with("out/")).collect();
        if outputs.is_empty() {
            return;
        }
        let path = (*pick(rng, &outputs)).clone();
        // the directory of several outputs is nobody's
        if path == "out/deep" {
            return;
        }
        let place = self.root.join(&path);
        let is_dir = fs::symlink_metadata(&place).unwrap().is_dir();
        match edit {
            Edit::DeleteOutput => {
                remove(&place);
                self.tell(format!("rm -r {path}"));
            }
            // flow refuses to lose a foreign file, and the node fails: told by other tests
            Edit::DamageOutput if is_dir && [".txt", ".csv"].iter().any(|end| path.contains(end)) => {}
            Edit::DamageOutput if is_dir => {
                fs::write(place.join("foreign"), generate::text(rng)).unwrap();
                self.tell(format!("a file more in {path}"));
            }
            Edit::DamageOutput => {
                let Ok(mut bytes) = fs::read(&place) else { return };
                let time = fs::metadata(&place).unwrap().modified().unwrap();
                match rng.u8(..3) {
                    0 => bytes.extend_from_slice(b"more\n"),
                    1 => bytes.truncate(bytes.len() / 2),
                    _ => bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1),
                }
                fs::write(&place, &bytes).unwrap();
                if chance(rng, 50) {
                    set_modified(&place, time);
                }
                self.tell(format!("damage {path}: {:?}", text_of(&bytes)));
            }
            _ => match rng.u8(..3) {
                0 if !is_dir => {
                    remove(&place);
                    fs::create_dir_all(&place).unwrap();
                    self.tell(format!("an empty directory in place of {path}"));
                }
                1 if !is_dir => {
                    let source = pick(rng, &SOURCES);
                    remove(&place);
                    std::os::unix::fs::symlink(self.root.join(source), &place).unwrap();
                    self.tell(format!("a link to {source} in place of {path}"));
                }
                _ if !is_dir => {
                    let Ok(meta) = fs::metadata(&place) else { return };
                    let mode = meta.permissions().mode() ^ 0o111;
                    fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
                    self.tell(format!("chmod {mode:o} {path}"));
                }
                _ => {
                    remove(&place);
                    fs::write(&place, "a file\n").unwrap();
                    self.tell(format!("a file in place of the directory {path}"));
                }
            },
        }
    }

    fn edit_workflow(&mut self, edit: Edit, rng: &mut Rng) {
        let count = self.workflow.steps.len();
        // what a killed run may have left is settled first: flow may not know yet that it made it
        let settled = self.unsure.is_empty();
        match edit {
            Edit::Salt if count > 0 => {
                let step = &mut self.workflow.steps[rng.usize(..count)];
                step.salt = rng.u32(..8);
                let line = format!("salt of {}: {}", step.id, step.salt);
                self.tell(line);
            }
            Edit::Param => {
                self.workflow.n = rng.u32(1..20);
                self.tell(format!("params.n: {}", self.workflow.n));
            }
            Edit::NewStep => {
                let number = self.told.len();
                let wide = chance(rng, 20);
                let id = format!("{}{number}", if wide { "wn" } else { "t" });
                let step = generate::step(rng, &self.workflow, &id, 100);
                self.tell(format!("new step: {step:?}"));
                let at = if wide { 0 } else { count };
                self.workflow.steps.insert(at, step);
            }
            Edit::RemoveStep if count > 1 && settled => {
                let id = self.workflow.steps[rng.usize(..count)].id.clone();
                self.tell(format!("step {id} removed"));
                self.workflow.remove(&id);
            }
            Edit::MoveOutputs if count > 0 && settled => {
                let step = &mut self.workflow.steps[rng.usize(..count)];
                step.place = rng.u32(..6);
                let line = format!("place of {}: {}", step.id, step.place);
                self.tell(line);
            }
            Edit::Toggle if count > 0 => {
                let step = &mut self.workflow.steps[rng.usize(..count)];
                match rng.u8(..4) {
                    0 => step.allow_failure = !step.allow_failure,
                    1 => step.nap = !step.nap,
                    2 => step.pool = !step.pool,
                    _ => step.needs.clear(),
                }
                let line = format!("toggled: {step:?}");
                self.tell(line);
            }
            Edit::Axis if settled => {
                let value = (*pick(rng, &VALUES)).to_owned();
                match self.workflow.axis.iter().position(|other| *other == value) {
                    Some(at) if self.workflow.axis.len() > 1 => drop(self.workflow.axis.remove(at)),
                    Some(_) => {}
                    None => self.workflow.axis.push(value),
                }
                self.tell(format!("axis: {:?}", self.workflow.axis));
            }
            _ => {}
        }
    }

    fn trip(&mut self, step: &str) {
        let file = self.root.join("trip").join(step);
        if self.trips.remove(step) {
            fs::remove_file(file).unwrap();
            self.tell(format!("{step} no longer fails"));
        } else {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
            self.trips.insert(step.to_owned());
            self.tell(format!("{step} fails"));
        }
    }

    fn edit_cache(&mut self, edit: Edit, rng: &mut Rng) -> Result<(), String> {
        match edit {
            Edit::Collect => {
                self.flow(&["cache", "gc", "--max-size", "0"])?;
                self.cache.lose_blobs();
            }
            Edit::LoseCache => {
                let _ = fs::remove_dir_all(self.root.join("cache"));
                self.cache = Default::default();
                self.published.clear();
                self.unsure.clear();
                self.tell("rm -r cache");
            }
            Edit::DamageBlob => {
                let mut blobs = Vec::new();
                for folder in fs::read_dir(self.root.join("cache/objects")).into_iter().flatten().flatten() {
                    blobs.extend(
                        fs::read_dir(folder.path()).into_iter().flatten().flatten().map(|e| e.path()),
                    );
                }
                blobs.sort();
                if blobs.is_empty() {
                    return Ok(());
                }
                let blob = pick(rng, &blobs);
                let mut bytes = fs::read(blob).unwrap();
                let mode = fs::metadata(blob).unwrap().permissions();
                fs::remove_file(blob).unwrap();
                let name = blob.file_name().unwrap().to_str().unwrap();
                let how = *pick(rng, &["removed", "cut short", "flipped"]);
                match how {
                    "removed" => self.cache.lose_blob(name),
                    "cut short" => {
                        bytes.truncate(bytes.len() / 2);
                        self.cache.damage_blob(name);
                    }
                    _ => {
                        let at = rng.usize(..bytes.len());
                        bytes[at] ^= 1 << rng.u8(..8);
                        self.cache.damage_blob(name);
                    }
                }
                if how != "removed" {
                    fs::write(blob, &bytes).unwrap();
                    fs::set_permissions(blob, mode).unwrap();
                }
                self.tell(format!("blob {name} {how}"));
            }
            _ => {
                if !self.unsure.is_empty() {
                    return Ok(());
                }
                let before = Disk::read(&self.root);
                let graph = Graph::expand(&self.workflow, self.n(), &before, &self.published);
                let declared = graph.declared();
                let mut wanted = before.clone();
                for path in self.published.iter().filter(|path| !declared.contains(*path)) {
                    wanted.remove(path);
                }
                self.published.retain(|path| declared.contains(path));
                self.flow(&["clean", "flow.json", "--orphans"])?;
                let mut differing = wanted.differing(&Disk::read(&self.root));
                // what a killed command had set aside is back
                differing.retain(|path| !self.dirty.iter().any(|dirty| path.starts_with(dirty)));
                ensure!(differing.is_empty(), "clean --orphans: these files differ: {differing:?}");
            }
        }
        Ok(())
    }

    fn flow(&mut self, args: &[&str]) -> Result<(), String> {
        let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        if args[0] == "clean" {
            args.extend(self.set_n.map(|n| ["--set".to_owned(), format!("n={n}")]).into_iter().flatten());
        }
        self.tell(format!("flow {}", args.join(" ")));
        let root = self.root.clone();
        let ended = self.start(&root, &args, None).wait()?;
        ensure!(
            ended.status.success(),
            "flow {} ended with {}\n{}",
            args.join(" "),
            ended.status,
            ended.stderr
        );
        Ok(())
    }

    /// The workspace goes on at another path.
    fn relocate(&mut self, copy: bool, rng: &mut Rng) {
        let to = self.new_root();
        if copy {
            copy_tree(&self.root, &to, chance(rng, 50));
            self.tell(format!("cp -r to {}", to.display()));
        } else {
            fs::rename(&self.root, &to).unwrap();
            self.tell(format!("mv to {}", to.display()));
        }
        self.root = to;
        // links lead where they led
        self.published.clear();
        self.unsure.clear();
    }

    /// A path for another workspace, which none has had: the cache knows by its path what a workspace had published.
    pub fn new_root(&mut self) -> PathBuf {
        self.roots += 1;
        self.root.parent().unwrap().join(format!("ws{}", self.roots))
    }
}

impl crate::dag::Workflow {
    /// Takes a step out; what took its outputs takes sources instead.
    pub fn remove(&mut self, id: &str) {
        self.steps.retain(|step| step.id != id);
        let of = |origin: &Origin| match origin {
            Origin::Made { step, .. } | Origin::Within { step } => step == id,
            _ => false,
        };
        let mut renamed: Vec<String> = Vec::new();
        for step in &mut self.steps {
            step.needs.retain(|other| other != id);
            if !step.from.iter().flatten().any(of) {
                continue;
            }
            if matches!(step.kind, Kind::Join { .. }) {
                step.kind = Kind::Sort;
                step.from = vec![vec![Origin::Source(SOURCES[0].to_owned())]];
                renamed.push(step.id.clone());
                continue;
            }
            let instead = if step.kind == Kind::Walk {
                Origin::SourceDir
            } else {
                Origin::Source(SOURCES[1].to_owned())
            };
            for list in &mut step.from {
                list.iter_mut().filter(|origin| of(origin)).for_each(|origin| *origin = instead.clone());
                let mut seen: Vec<Origin> = Vec::new();
                list.retain(|origin| {
                    let new = !seen.contains(origin);
                    seen.push(origin.clone());
                    new
                });
            }
        }
        for origin in self.steps.iter_mut().flat_map(|step| step.from.iter_mut().flatten()) {
            if let Origin::Made { step, output } = origin
                && renamed.contains(step)
            {
                *output = "o";
            }
        }
    }
}

/// Copies a directory as `cp -r` does, or with times as `cp -a`.
pub fn copy_tree(from: &Path, to: &Path, times: bool) {
    let flag = if times { "-a" } else { "-r" };
    let status = Command::new("cp").arg(flag).arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {flag} {} {}", from.display(), to.display());
}

fn remove(place: &Path) {
    if fs::symlink_metadata(place).unwrap().is_dir() {
        fs::remove_dir_all(place).unwrap();
    } else {
        fs::remove_file(place).unwrap();
    }
}

fn set_modified(place: &Path, time: SystemTime) {
    File::options().write(true).open(place).unwrap().set_modified(time).unwrap();
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(80).collect()
}
