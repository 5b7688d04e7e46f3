//! Follows a confined program and all it starts: names what the kernel refused, and refuses where only the rules know better.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::call::{Touch, touches};
use super::report::{Offence, Report};
use super::rules::{Access, Rules};
use super::sys::{self, Change, Resume};

/// Between TERM and the end for what the program left behind.
const GRACE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(2);

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Code(i32),
    Signal(i32),
}

/// Becomes the tracer of a stopped child.
pub(super) fn seize(main: Pid) -> Result<(), Errno> {
    ptrace::seize(
        main,
        Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE,
    )
}

/// What is known of the traced processes.
pub(super) struct Tracer<'a> {
    rules: &'a Rules,
    report: &'a mut Report,
    main: Pid,
    /// Each traced thread, with the call it is in if that is of interest.
    tracees: HashMap<Pid, Vec<Touch>>,
    told: BTreeSet<(PathBuf, Access)>,
    /// Made by the program beside one of its outputs, and gone again at its end, one hopes.
    temporary: BTreeSet<PathBuf>,
    end: Option<End>,
}

impl<'a> Tracer<'a> {
    pub(super) fn new(rules: &'a Rules, report: &'a mut Report, main: Pid) -> Self {
        Self {
            rules,
            report,
            main,
            tracees: HashMap::from([(main, Vec::new())]),
            told: BTreeSet::new(),
            temporary: BTreeSet::new(),
            end: None,
        }
    }

    /// Follows all of them until the first one is gone and nothing else is left.
    pub(super) fn follow(mut self) -> End {
        let mut deadline = None;
        loop {
            if self.end.is_some() && deadline.is_none() {
                deadline = Some(Instant::now() + GRACE);
                for pid in self.tracees.keys() {
                    let _ = kill(*pid, Signal::SIGTERM);
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                // what is left ends with its tracer
                break;
            }
            match sys::next_change(deadline.is_none()) {
                Ok(Some((pid, change))) => self.changed(pid, change),
                Ok(None) => std::thread::sleep(PAUSE),
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        for path in std::mem::take(&mut self.temporary) {
            if path.symlink_metadata().is_ok() {
                self.tell(&path, Access::Create, None, false);
            }
        }
        self.end.unwrap_or(End::Signal(Signal::SIGKILL as i32))
    }

    fn changed(&mut self, pid: Pid, change: Change) {
        let how = match change {
            Change::Exited(code) => return self.gone(pid, End::Code(code)),
            Change::Signaled(signal) => return self.gone(pid, End::Signal(signal)),
            Change::Call => self.call(pid),
            Change::CallOver => {
                self.call_over(pid);
                Resume::Signal(0)
            }
            Change::GroupStop => Resume::Stopped,
            Change::Signal(signal) => Resume::Signal(signal),
            Change::Other => Resume::Signal(0),
        };
        self.tracees.entry(pid).or_default();
        sys::resume(pid, how);
    }

    fn gone(&mut self, pid: Pid, end: End) {
        self.tracees.remove(&pid);
        if pid == self.main {
            self.end = Some(end);
        }
    }

    /// Before a call: notes its paths, and refuses it if it would do what the kernel's rules cannot refuse.
    fn call(&mut self, pid: Pid) -> Resume {
        let touched = sys::call(pid).map(|call| touches(pid, &call)).unwrap_or_default();
        if touched.is_empty() {
            return Resume::Signal(0);
        }
        let places: Vec<(PathBuf, Access)> = touched.iter().filter_map(|touch| touch.place(pid)).collect();
        let mut refused = false;
        for (place, access) in places {
            if self.rules.only_watched(&place, access)
                && !self.rules.allows(&place, access)
                && !self.rules.passes(&place, access)
                && !self.makes_way(&place, access)
            {
                refused = true;
                let ended = !sys::refuse(pid);
                self.tell(&place, access, Some(pid), ended);
                if ended {
                    for pid in self.tracees.keys() {
                        let _ = kill(*pid, Signal::SIGKILL);
                    }
                }
            }
        }
        if refused {
            return Resume::Signal(0);
        }
        self.tracees.insert(pid, touched);
        Resume::UntilCallOver
    }

    /// A new name beside an output, as of a file that is renamed to the output when it is whole; or a name that is not there.
    fn makes_way(&mut self, place: &Path, access: Access) -> bool {
        if place.ancestors().any(|above| self.temporary.contains(above)) {
            return true;
        }
        if place.symlink_metadata().is_ok() {
            return false;
        }
        if access.changes() {
            if self.rules.hidden(place) {
                return false;
            }
            self.temporary.insert(place.to_owned());
        }
        true
    }

    /// After a call: tells what was refused for want of a declaration, and what was not refused although it should have been.
    fn call_over(&mut self, pid: Pid) {
        let touched = self.tracees.insert(pid, Vec::new()).unwrap_or_default();
        let refused = match sys::result(pid) {
            Some(Err(Errno::EACCES | Errno::EXDEV)) => true,
            Some(Ok(descriptor)) => {
                // what was opened is known for sure
                if let [touch] = &touched[..]
                    && touch.opens
                    && let Ok(place) = std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}"))
                    && place.starts_with(self.rules.root())
                {
                    return self.judge(&place, touch.at(&place), pid);
                }
                false
            }
            _ => return,
        };
        for touch in touched.iter().filter(|touch| refused || !touch.opens) {
            if let Some((place, access)) = touch.place(pid)
                // a name that is gone was judged before the call
                && (refused || !access.changes())
            {
                self.judge(&place, access, pid);
            }
        }
    }

    fn judge(&mut self, place: &Path, access: Access, pid: Pid) {
        let temporary = place.ancestors().any(|above| self.temporary.contains(above));
        if !temporary && !self.rules.allows(place, access) {
            self.tell(place, access, Some(pid), false);
        }
    }

    fn tell(&mut self, place: &Path, access: Access, pid: Option<Pid>, prevented: bool) {
        if !self.told.insert((place.to_owned(), access)) {
            return;
        }
        let program = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        self.report.offence(&Offence {
            path: self.rules.shown(place),
            access,
            program: program.map(|name| name.trim_end().to_owned()).unwrap_or_default(),
            prevented,
            passed: self.rules.passes(place, access),
        });
    }
}
