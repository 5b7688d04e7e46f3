//! What a confined command may touch: trees with rights, the longest that a path lies in decides. Unaware of how it is enforced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Trees of the system that every program may read and execute.
const SYSTEM: [&str; 17] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix",
    "/gnu",
    "/snap",
    "/var/lib",
    "/var/cache",
    "/run",
    "/sys",
    "/usr/local",
];
/// Devices, and what the kernel says of processes: also written (`/dev/null`, `/dev/shm`, `/proc/self/comm`).
const KERNEL: [&str; 2] = ["/dev", "/proc"];
/// Names of directories of programs whose installation is the directory above.
const PROGRAMS: [&str; 5] = ["bin", "sbin", "shims", "scripts", "condabin"];

/// What may be done in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Right {
    /// Nothing: a hole in a larger tree.
    Nothing,
    /// Read and execute.
    Read,
    /// Everything.
    Write,
}

/// What a command did, or tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Opened a file for reading.
    Read,
    /// Opened a directory, which shows the names in it.
    List,
    /// Started a file as a program.
    Execute,
    /// Opened a file for writing, or cut it.
    Write,
    /// Made a file, directory or link.
    Create,
    /// Removed a file or directory, or moved it away.
    Remove,
}

impl Access {
    /// As a verb for a message: `read`, `wrote`.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "listed",
            Self::Execute => "executed",
            Self::Write => "wrote",
            Self::Create => "created",
            Self::Remove => "removed",
        }
    }

    fn needs(self) -> Right {
        match self {
            Self::Read | Self::List | Self::Execute => Right::Read,
            Self::Write | Self::Create | Self::Remove => Right::Write,
        }
    }

    /// It leaves a trace in the file system.
    pub fn changes(self) -> bool {
        self.needs() == Right::Write
    }
}

/// The rules for one attempt. All paths are absolute, without links in them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rules {
    root: PathBuf,
    places: BTreeMap<PathBuf, Right>,
    /// Directories whose names may be seen although they are no declared tree.
    listed: BTreeSet<PathBuf>,
    /// Directories in which a declared output will be made by the command itself. The kernel's rules can only open them whole.
    beside: BTreeSet<PathBuf>,
    /// Files of the workspace may be read, and are told of.
    discovers: bool,
}

impl Rules {
    /// Rules for a workspace of which nothing is declared yet: the system, and the installations of the programs in `path` (a `PATH`).
    pub fn new(root: &Path, path: &str, home: Option<&Path>) -> Self {
        let root = real(root);
        let mut rules = Self { root: root.clone(), ..Self::default() };
        for tree in SYSTEM {
            rules.place(&real(Path::new(tree)), Right::Read);
        }
        let home = home.map(real);
        for dir in std::env::split_paths(path).filter(|dir| dir.is_absolute()) {
            let dir = real(&dir);
            if dir.starts_with(&root) || root.starts_with(&dir) {
                continue;
            }
            let whole = dir.parent().filter(|above| {
                dir.file_name().is_some_and(|name| PROGRAMS.iter().any(|known| name == *known))
                    && above.parent().is_some()
                    && home.as_deref().is_none_or(|home| !home.starts_with(above))
                    && !root.starts_with(above)
            });
            rules.place(whole.unwrap_or(&dir), Right::Read);
        }
        for tree in KERNEL {
            rules.place(Path::new(tree), Right::Write);
        }
        rules.places.insert(root, Right::Nothing);
        rules
    }

    /// A declared input, a tool: a file or a tree.
    pub fn read(&mut self, path: &Path) {
        self.declare(&real(path), Right::Read);
    }

    /// A scratch directory.
    pub fn write(&mut self, path: &Path) {
        self.declare(&real(path), Right::Write);
    }

    /// A declared output that the command makes in its declared place; it need not be there.
    pub fn make(&mut self, path: &Path) {
        let path = real_name(path);
        if let Some(parent) = path.parent() {
            self.beside.insert(parent.to_owned());
        }
        self.declare(&path, Right::Write);
    }

    /// A hole: never an input, whatever tree it lies in.
    pub fn hide(&mut self, path: &Path) {
        self.places.entry(real(path)).or_insert(Right::Nothing);
    }

    /// Files of the workspace may be read: the command says afterwards which it read, and is checked by what is told of it.
    pub fn discover(&mut self) {
        self.discovers = true;
    }

    /// A directory whose names may be seen.
    pub fn list(&mut self, path: &Path) {
        self.listed.insert(real(path));
    }

    fn place(&mut self, path: &Path, right: Right) {
        let known = self.places.entry(path.to_owned()).or_insert(right);
        *known = (*known).max(right);
    }

    fn declare(&mut self, path: &Path, right: Right) {
        self.place(path, right);
        // whoever opens a file by name may look for it in its directories
        let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&self.root));
        self.listed.extend(above.map(Path::to_owned));
    }

    /// The workspace.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// All trees with their rights.
    pub(super) fn places(&self) -> impl Iterator<Item = (&Path, Right)> {
        self.places.iter().map(|(path, right)| (path.as_path(), *right))
    }

    /// Directories that have to be opened whole for the sake of an output in them.
    pub(super) fn beside(&self) -> impl Iterator<Item = &Path> {
        self.beside.iter().map(PathBuf::as_path)
    }

    /// What may be done at a path.
    pub(super) fn right(&self, path: &Path) -> Right {
        path.ancestors().find_map(|above| self.places.get(above)).copied().unwrap_or(Right::Nothing)
    }

    /// Whether an access is declared.
    pub(super) fn allows(&self, path: &Path, access: Access) -> bool {
        self.right(path) >= access.needs() || (access == Access::List && self.listed.contains(path))
    }

    /// Whether the kernel's rules alone would let this pass, declared or not: beside an output, and the names in a directory.
    pub(super) fn only_watched(&self, path: &Path, access: Access) -> bool {
        self.beside.iter().any(|dir| path.starts_with(dir))
            || (access == Access::List && path.starts_with(&self.root))
    }

    /// Not declared, and yet let pass.
    pub(super) fn passes(&self, path: &Path, access: Access) -> bool {
        self.discovers
            && matches!(access, Access::Read | Access::Execute)
            && path.starts_with(&self.root)
            && !self.hidden(path)
    }

    /// Whether reading in the workspace is let pass.
    pub(super) fn discovers(&self) -> bool {
        self.discovers
    }

    /// It lies in a hole, or is one.
    pub(super) fn hidden(&self, path: &Path) -> bool {
        let place = path.ancestors().find(|above| self.places.contains_key(*above));
        place.is_some_and(|place| self.places[place] == Right::Nothing && place != self.root)
    }

    /// As a person names it: relative to the workspace if it lies there.
    pub(super) fn shown(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.root).ok().filter(|inside| !inside.as_os_str().is_empty());
        inside.unwrap_or(path).to_string_lossy().into_owned()
    }
}

/// Without links; as it is if it does not exist.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Without links but in its last part.
pub(super) fn real_name(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        _ => real(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_place_decides() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for made in ["data/sub", "cache/tmp/1/out-0", ".git", "other"] {
            std::fs::create_dir_all(root.join(made)).unwrap();
        }
        let mut rules = Rules::new(&root, "/usr/bin", None);
        rules.hide(&root.join("cache"));
        rules.write(&root.join("cache/tmp/1/out-0"));
        rules.read(&root.join("data"));
        rules.make(&root.join("other/result"));
        let right = |path: &str| rules.right(&root.join(path));
        assert_eq!(right("data/sub/x"), Right::Read);
        assert_eq!(right("database"), Right::Nothing);
        assert_eq!(right("cache/index.db"), Right::Nothing);
        assert_eq!(right("cache/tmp/1/out-0/x"), Right::Write);
        assert_eq!(right("other/result"), Right::Write);
        assert_eq!(right("other/results"), Right::Nothing);
        assert_eq!(rules.right(Path::new("/usr/bin/sh")), Right::Read);
        assert_eq!(rules.right(Path::new("/dev/null")), Right::Write);
        assert_eq!(rules.right(Path::new("/root/.netrc")), Right::Nothing);
        let allows = |path: &str, access| rules.allows(&root.join(path), access);
        assert!(
            allows("", Access::List) && allows("data/sub", Access::List) && allows("other", Access::List)
        );
        assert!(!allows(".git", Access::List) && !allows("other", Access::Create));
        assert!(allows("data/x", Access::Execute) && !allows("data/x", Access::Write));
        let watched = |path: &str, access| rules.only_watched(&root.join(path), access);
        assert!(watched("other/results", Access::Read) && watched("x", Access::List));
        assert!(!watched("x", Access::Read));
        assert!(rules.hidden(&root.join("cache/index.db")) && !rules.hidden(&root.join("x")));
        assert_eq!(rules.shown(&root.join("data/x")), "data/x");
    }

    #[test]
    fn programs_bring_their_installation_but_never_a_home_or_the_workspace() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for made in ["home/bin", "home/tool/bin", "home/plain", "home/ws/venv/bin", "home/ws/bin"] {
            std::fs::create_dir_all(top.join(made)).unwrap();
        }
        let path = ["home/bin", "home/tool/bin", "home/plain", "home/ws/venv/bin"]
            .map(|dir| top.join(dir).to_string_lossy().into_owned())
            .join(":");
        let rules = Rules::new(&top.join("home/ws"), &path, Some(&top.join("home")));
        let right = |path: &str| rules.right(&top.join(path));
        assert_eq!(right("home/bin/x"), Right::Read);
        assert_eq!(right("home/.netrc"), Right::Nothing);
        assert_eq!(right("home/tool/lib/x"), Right::Read);
        assert_eq!(right("home/plain/x"), Right::Read);
        assert_eq!(right("home/ws/venv/bin/python"), Right::Nothing);
    }
}
