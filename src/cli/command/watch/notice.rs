//! Hears of changes in directories: told by the system, or by looking now and then. Unaware of what the changes mean.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{ErrorKind, RecursiveMode, Watcher};

/// Between two looks where the system cannot tell.
const FALLBACK: Duration = Duration::from_secs(2);

/// A source of news about some directories.
pub(super) enum Notices {
    /// The system tells. It ends with its watcher.
    Told { news: Receiver<News>, _watcher: notify::RecommendedWatcher },
    /// Everything may have changed, every so often.
    Looked { every: Duration, next: Instant },
}

/// Something happened.
pub(super) enum News {
    /// To these paths.
    Paths(Vec<PathBuf>),
    /// Nobody knows to what.
    Anything,
}

/// The system does not tell: why, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deaf {
    /// One line.
    pub(super) message: String,
    /// What to try.
    pub(super) hint: Option<String>,
}

impl Notices {
    /// Looks every so often.
    pub(super) fn looking(every: Duration) -> Self {
        Self::Looked { every, next: Instant::now() + every }
    }

    /// Is told of what happens in `dirs`, not in those below them; looks instead where the system does not tell.
    pub(super) fn of(dirs: &BTreeSet<PathBuf>) -> (Self, Option<Deaf>) {
        match Self::told(dirs) {
            Ok(notices) => (notices, None),
            Err(error) => (Self::looking(FALLBACK), Some(deaf(&error, dirs.len()))),
        }
    }

    fn told(dirs: &BTreeSet<PathBuf>) -> notify::Result<Self> {
        let (tell, news) = channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let item = match event {
                Ok(event) if event.need_rescan() => News::Anything,
                Ok(event) if !writes(&event.kind) => return,
                Ok(event) => News::Paths(event.paths),
                Err(_) => News::Anything,
            };
            // nobody listens any more: the watch is being made anew
            let _ = tell.send(item);
        })?;
        for dir in dirs {
            match watcher.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // it went meanwhile: that is seen by looking, once the watch stands
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self::Told { news, _watcher: watcher })
    }

    /// What happens next, if it happens `within`.
    pub(super) fn next(&mut self, within: Duration) -> Option<News> {
        match self {
            Self::Told { news, .. } => match news.recv_timeout(within) {
                Ok(news) => Some(news),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    *self = Self::looking(FALLBACK);
                    Some(News::Anything)
                }
            },
            Self::Looked { every, next } => {
                let now = Instant::now();
                if now < *next {
                    std::thread::sleep(within.min(*next - now));
                }
                let due = Instant::now() >= *next;
                if due {
                    *next = Instant::now() + *every;
                }
                due.then_some(News::Anything)
            }
        }
    }
}

/// Reading changes nothing.
fn writes(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn gone(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(cause) => cause.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn deaf(error: &notify::Error, dirs: usize) -> Deaf {
    let limit = |name: &str, what: &str| Deaf {
        message: format!(
            "the limit of {what} is reached ({name} = {}); looking every {} s instead",
            value_of(name),
            FALLBACK.as_secs()
        ),
        hint: Some(format!("raise it: sysctl {name}={}", (dirs * 2).max(524_288))),
    };
    match &error.kind {
        ErrorKind::MaxFilesWatch => limit("fs.inotify.max_user_watches", "watched directories"),
        ErrorKind::Io(cause) => match cause.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::ENOSPC) => limit("fs.inotify.max_user_watches", "watched directories"),
            Some(nix::errno::Errno::EMFILE) => Deaf {
                hint: Some("raise it: sysctl fs.inotify.max_user_instances=1024, or ulimit -n".to_owned()),
                ..limit("fs.inotify.max_user_instances", "watching processes")
            },
            _ => other(error),
        },
        _ => other(error),
    }
}

fn other(error: &notify::Error) -> Deaf {
    let message =
        format!("the system cannot watch files ({error}); looking every {} s instead", FALLBACK.as_secs());
    Deaf { message, hint: None }
}

fn value_of(sysctl: &str) -> String {
    let path = Path::new("/proc/sys").join(sysctl.replace('.', "/"));
    std::fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_with_what_raises_it() {
        let full = deaf(&notify::Error::new(ErrorKind::MaxFilesWatch), 400_000);
        assert!(
            full.message.contains("fs.inotify.max_user_watches = ")
                && full.message.ends_with("looking every 2 s instead")
        );
        assert_eq!(full.hint.as_deref(), Some("raise it: sysctl fs.inotify.max_user_watches=800000"));
        let many = deaf(&notify::Error::io(io::Error::from_raw_os_error(24)), 1);
        assert!(many.message.contains("fs.inotify.max_user_instances"), "{many:?}");
        let odd = deaf(&notify::Error::generic("no such thing"), 1);
        assert!(odd.message.contains("no such thing") && odd.hint.is_none());
    }

    #[test]
    fn writing_is_heard_of_and_reading_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "1").unwrap();
        let (mut notices, deaf) =
            Notices::of(&BTreeSet::from([dir.path().to_owned(), dir.path().join("none")]));
        if deaf.is_some() {
            return;
        }
        std::fs::read(&file).unwrap();
        std::fs::write(dir.path().join("b"), "2").unwrap();
        let Some(News::Paths(paths)) = notices.next(Duration::from_secs(30)) else { panic!() };
        assert_eq!(paths, [dir.path().join("b")]);
    }
}
