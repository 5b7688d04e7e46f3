//! The pool of job tokens that GNU make, ninja and cargo share with whoever started them. Unaware of nodes and of who waits.
//!
//! A pipe holds one byte for each job that may be started; who starts one takes a byte, and puts it back when it ended. One job goes
//! without: its token is the process itself.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{Error, Result};
use crate::model::Jobserver;

/// A pipe holds so many bytes at least.
const MOST: u32 = 4096;

/// A pool of job tokens.
#[derive(Debug)]
pub struct JobPool {
    pipe: File,
    /// Where others open it.
    path: PathBuf,
    slots: Option<u32>,
    own: bool,
}

impl JobPool {
    /// A pool of its own for `slots` jobs at once, whose pipe has a name at `path`.
    pub fn create(path: &Path, slots: u32) -> Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
        }
        nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| Error::io("create", path, e))?;
        let pipe = open(path).map_err(|e| Error::io("open", path, e))?;
        let slots = slots.clamp(1, MOST);
        let pool = Self { pipe, path: path.to_owned(), slots: Some(slots), own: true };
        pool.put(&vec![b'+'; slots as usize - 1]);
        Ok(pool)
    }

    /// The pool that `MAKEFLAGS` names, if it names one. `Err`: it cannot be reached, and why.
    pub fn inherited(makeflags: Option<&OsStr>) -> Option<Result<Self, String>> {
        let flags = makeflags?.to_str()?;
        let mut words = flags.split_whitespace();
        let named = words.clone().rev().find_map(|word| {
            word.strip_prefix("--jobserver-auth=").or_else(|| word.strip_prefix("--jobserver-fds="))
        })?;
        let slots = words.find_map(|word| word.strip_prefix("-j")?.parse().ok());
        Some(reach(named).map(|pipe| {
            let path = match named.strip_prefix("fifo:") {
                Some(path) => PathBuf::from(path),
                None => PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), pipe.as_raw_fd())),
            };
            Self { pipe, path, slots, own: false }
        }))
    }

    /// The pipe's name: whoever takes tokens opens it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Jobs at once, the one that needs no token included; `None` if the pool does not say.
    pub fn slots(&self) -> Option<u32> {
        self.slots
    }

    /// A token, if one is free now.
    pub fn take(&self) -> Option<u8> {
        let mut token = [0];
        loop {
            return match (&self.pipe).read(&mut token) {
                Ok(1) => Some(token[0]),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                _ => None,
            };
        }
    }

    /// Puts tokens back: the same bytes.
    pub fn put(&self, tokens: &[u8]) {
        // all of them fit: they were in the pipe before
        let _ = (&self.pipe).write_all(tokens);
    }

    /// Nobody but the caller, who has `held`, uses the pool: what killed jobs took with them comes back. Nothing happens to a pool
    /// that others use as well.
    pub fn settle(&self, held: usize) {
        let Some(slots) = self.slots.filter(|_| self.own) else { return };
        while self.take().is_some() {}
        self.put(&vec![b'+'; (slots as usize - 1).saturating_sub(held)]);
    }

    /// How a command finds the pool: the variable `MAKEFLAGS` with `more` before it, and the argv that gives it the pipe.
    pub fn hand(&self, style: Jobserver, more: &str, argv: Vec<String>) -> (String, Vec<String>) {
        let slots = self.slots.map_or_else(String::new, |n| format!(" -j{n}"));
        let path = self.path.display();
        match style {
            Jobserver::Pipe => {
                let mut wrapped: Vec<String> =
                    ["/bin/sh", "-c", "exec 8<\"$0\" 9>\"$0\"; exec \"$@\""].map(String::from).into();
                wrapped.push(path.to_string());
                wrapped.extend(argv);
                (format!("{more}{slots} --jobserver-auth=8,9"), wrapped)
            }
            Jobserver::Auto | Jobserver::Fifo => {
                (format!("{more}{slots} --jobserver-auth=fifo:{path}"), argv)
            }
        }
    }
}

/// Both ends at once: there is always a writer and a reader, so that no open and no read ever waits.
fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

/// Opens what `--jobserver-auth=` names: `fifo:PATH`, or the numbers of two descriptors of this process.
fn reach(named: &str) -> Result<File, String> {
    let path = match named.strip_prefix("fifo:") {
        Some(path) => PathBuf::from(path),
        None => {
            let ends = named
                .split_once(',')
                .and_then(|(r, w)| Some((r.parse::<u32>().ok()?, w.parse::<u32>().ok()?)));
            let (read, write) = ends.ok_or_else(|| format!("--jobserver-auth={named} names none"))?;
            let [read, write] = [read, write].map(|fd| PathBuf::from(format!("/proc/self/fd/{fd}")));
            let pipe = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
            if pipe(&read).is_none() || pipe(&read) != pipe(&write) {
                return Err("make did not pass it on".to_owned());
            }
            read
        }
    };
    match std::fs::metadata(&path) {
        Ok(meta) if meta.file_type().is_fifo() => open(&path).map_err(|e| e.to_string()),
        Ok(_) => Err(format!("{} is no pipe", path.display())),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

/// What `make` on this machine understands: a named pipe from 4.4 on, and without make there is nobody who does not.
pub fn style_of_make(path: Option<&str>) -> Jobserver {
    let mut command = std::process::Command::new("make");
    command.arg("--version").env_clear().stdin(std::process::Stdio::null());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let said = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match said.ok().as_deref().and_then(make_version) {
        Some(version) if version < (4, 4) => Jobserver::Pipe,
        _ => Jobserver::Fifo,
    }
}

fn make_version(said: &str) -> Option<(u32, u32)> {
    let version = said.lines().next()?.strip_prefix("GNU Make ")?;
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(slots: u32) -> (tempfile::TempDir, JobPool) {
        let dir = tempfile::tempdir().unwrap();
        let pool = JobPool::create(&dir.path().join("a/jobs"), slots).unwrap();
        (dir, pool)
    }

    #[test]
    fn a_pool_has_one_token_less_than_slots_and_lost_ones_come_back() {
        let (_dir, pool) = pool(3);
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(b'+'), Some(b'+'), None));
        pool.put(b"+");
        assert_eq!((pool.take(), pool.take()), (Some(b'+'), None));
        // one is held, the other one went with a killed job
        pool.settle(1);
        assert_eq!((pool.take(), pool.take()), (Some(b'+'), None));
    }

    #[test]
    fn makeflags_lead_to_the_same_pool() {
        let (_dir, first) = pool(4);
        let (flags, argv) = first.hand(Jobserver::Fifo, "k", vec!["make".to_owned()]);
        assert_eq!(argv, ["make"]);
        assert!(flags.starts_with("k -j4 --jobserver-auth=fifo:/"), "{flags}");
        let second = JobPool::inherited(Some(flags.as_ref())).unwrap().unwrap();
        assert_eq!((second.slots(), second.take()), (Some(4), Some(b'+')));
        // what others use, too, is never counted anew
        second.settle(0);
        assert_eq!((first.take(), first.take(), first.take()), (Some(b'+'), Some(b'+'), None));

        let fd = first.pipe.as_raw_fd();
        let by_number = format!(" -j4 --jobserver-auth={fd},{fd}");
        let third = JobPool::inherited(Some(by_number.as_ref())).unwrap().unwrap();
        third.put(b"x");
        assert_eq!(first.take(), Some(b'x'));
        assert_eq!(
            third.path,
            Path::new(&format!("/proc/{}/fd/{}", std::process::id(), third.pipe.as_raw_fd()))
        );
    }

    #[test]
    fn what_cannot_be_reached_is_said_and_no_jobserver_is_none() {
        let of = |flags: &str| JobPool::inherited(Some(flags.as_ref())).map(|found| found.map(|_| ()));
        assert!(JobPool::inherited(None).is_none() && of("").is_none() && of("-j3 k").is_none());
        assert_eq!(of(" -j3 --jobserver-auth=998,999"), Some(Err("make did not pass it on".to_owned())));
        assert_eq!(of("--jobserver-auth=x"), Some(Err("--jobserver-auth=x names none".to_owned())));
        assert_eq!(of("--jobserver-auth=fifo:/dev/null"), Some(Err("/dev/null is no pipe".to_owned())));
    }

    #[test]
    fn the_version_of_make_decides_how_it_is_handed_on() {
        assert_eq!(make_version("GNU Make 4.3\nBuilt for x"), Some((4, 3)));
        assert_eq!(make_version("GNU Make 4.4.1"), Some((4, 4)));
        assert_eq!(make_version("bmake"), None);
        let none = tempfile::tempdir().unwrap();
        assert_eq!(style_of_make(none.path().to_str()), Jobserver::Fifo);
    }
}
